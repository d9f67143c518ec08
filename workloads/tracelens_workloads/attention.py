"""Attention alone, over head sizes and sequence lengths: naive, PyTorch's fused ones, or yours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tracelens.errors import UsageError
from tracelens.workload import DTYPES, Cost, Work, option
from tracelens_workloads import _kernels
from tracelens_workloads._layers import Layer, compile_option, mode_option, repeats_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.workload import Program

IMPLEMENTATIONS: Final = ("naive", "sdpa", "sdpa-flash", "sdpa-cudnn", "flex", "kernel")


def _course(d: int, seq: int) -> dict[str, Any]:
    """Return a corner of the course's sweep of naive attention."""
    return {"d": d, "seq": seq}


def _flash(d: int, seq: int) -> dict[str, Any]:
    """Return a corner of the course's sweep of FlashAttention."""
    return {"batch": 1, "d": d, "seq": seq, "causal": True, "dtype": "bf16"} | _FUSED


def _reference(batch: int, seq: int, heads: int, d: int) -> dict[str, Any]:
    return {"batch": batch, "seq": seq, "heads": heads, "d": d, "dtype": "fp16"} | _FUSED


_FUSED: Final = {"implementation": "sdpa"}


@dataclass(frozen=True, kw_only=True)
class Attention(Layer):
    """softmax(Q·Kᵀ / √d)·V with Q, K and V of shape [batch, heads, seq, d]."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "d16-s256": _course(16, 256),
        "d16-s16384": _course(16, 16384),
        "d64-s4096": _course(64, 4096),
        "d128-s256": _course(128, 256),
        "d128-s16384": _course(128, 16384),
        "flash-d16-s128": _flash(16, 128),
        "flash-d16-s65536": _flash(16, 65536),
        "flash-d128-s128": _flash(128, 128),
        "flash-d128-s65536": _flash(128, 65536),
        "leaderboard": _flash(64, 16384) | {"heads": 16},
        "1x128x8x64": _reference(1, 128, 8, 64),
        "4x512x16x64": _reference(4, 512, 16, 64),
        "16x2048x16x64": _reference(16, 2048, 16, 64),
        "32x4096x32x128": _reference(32, 4096, 32, 128),
    }
    sizes: ClassVar[tuple[str, ...]] = ("batch", "heads", "seq", "d")
    halved: ClassVar[tuple[str, ...]] = ("seq", "batch", "heads", "d")

    d: int = option(64, "Width of a head.")
    seq: int = option(1024, "Tokens per sequence.")
    batch: int = option(8, "Sequences.")
    heads: int = option(1, "Heads.")
    causal: bool = option(False, "Let tokens attend only to those before them.")
    implementation: str = option("naive", "What computes it.", choices=IMPLEMENTATIONS)
    kernel: str | None = option(
        None,
        "What computes (q, k, v, causal) for --implementation kernel: flash-attention, or "
        "module:function.",
    )
    dtype: str = option("fp32", "Format of the elements.", choices=DTYPES)
    mode: str = mode_option()
    repeats: int = repeats_option()
    compile: str = compile_option()

    def check(self) -> None:
        """Raise UsageError unless the sizes are possible and a kernel is named where needed."""
        super().check()
        if self.implementation == "kernel":
            if self.kernel is None:
                raise UsageError(
                    "--implementation kernel needs --kernel flash-attention, or module:function."
                )
            _kernels.check(self.kernel)
        elif self.kernel is not None:
            raise UsageError("--kernel is only called with --implementation kernel; add that.")
        if self.compile != "none" and self.implementation == "flex":
            raise UsageError("--implementation flex is always compiled; leave out --compile.")

    @property
    def _scores(self) -> int:
        """Elements of the score matrix."""
        return self.batch * self.heads * self.seq**2

    @property
    def _vectors(self) -> int:
        """Elements of Q; of K, V and the result, too."""
        return self.batch * self.heads * self.seq * self.d

    def cost(self) -> Cost:
        """Count the products, and what a fused kernel or three naive parts have to move."""
        if self.implementation == "naive":
            forward, backward = self._naive()
        else:
            forward, backward = self._fused()
        memory = self.memory_before_backward()
        if self.trains:
            memory["gradients"] += 3 * self._vectors * self.element_bytes
        if self.implementation == "naive":
            memory["scores"] = (2 + self.trains) * self._scores * self.element_bytes
        tokens = self.batch * self.seq
        return self.repeated(forward, backward, memory, items=tokens)

    def memory_before_backward(self) -> dict[str, int]:
        """Return what stands in memory between forward and backward, by kind, in bytes.

        Naive attention keeps its weights, as large as the scores, for backward; while it computes
        there are two such matrices, and in backward three: the weights, their gradients and those
        of the scores. A fused kernel keeps one number for each row of scores.
        """
        size = self._vectors * self.element_bytes
        memory = {"inputs": 3 * size, "outputs": size, "gradients": size * self.trains}
        if self.implementation != "naive":
            memory["statistics"] = self._row_bytes
        elif self.trains:
            memory["scores"] = self._scores * self.element_bytes
        if self.implementation == "naive" and self.causal:
            memory["mask"] = self.seq**2
        return memory

    @property
    def _row_bytes(self) -> int:
        """Bytes of the logarithm of each row's sum, which is kept in fp32."""
        return 4 * self.batch * self.heads * self.seq

    def _naive(self) -> tuple[list[Work], list[Work]]:
        """Return the three parts: the scores cross the memory bus four times, then five.

        Nothing is skipped where the mask is causal. Backward, each product has two: dW and dV
        from those of the output, dQ and dK from the scores. The softmax of an element takes 5
        operations and 4 backward.
        """
        scores, vectors, size = self._scores, self._vectors, self.element_bytes
        product = 2 * scores * self.d

        def work(part: str, flops: int, moved: int) -> Work:
            return Work(part, flops, moved * size, self.dtype, matmul=part != "softmax")

        forward = [
            work("scores", product, 2 * vectors + scores),
            work("softmax", 5 * scores, 2 * scores),
            work("output", product, scores + 2 * vectors),
        ]
        backward = [
            work("output", 2 * product, 2 * scores + 3 * vectors),
            work("softmax", 4 * scores, 3 * scores),
            work("scores", 2 * product, scores + 4 * vectors),
        ]
        return forward, backward

    def _fused(self) -> tuple[list[Work], list[Work]]:
        """Return one part each: two products, and five backward, which has the scores again.

        Half of them where the mask is causal. Forward reads Q, K and V and writes the result and
        one fp32 number a row; backward reads those and the result's gradient, and writes three
        (Dao, FlashAttention-2, arXiv:2307.08691).
        """
        product = 2 * self._scores * self.d // (2 if self.causal else 1)
        vectors = self._vectors * self.element_bytes
        return (
            [Work("attention", 2 * product, 4 * vectors + self._row_bytes, self.dtype)],
            [Work("attention", 5 * product, 8 * vectors + self._row_bytes, self.dtype)],
        )

    def program(self, device: str) -> Program:
        """Make Q, K, V and the gradient of the result."""
        from tracelens_workloads._attention import Fused, Naive
        from tracelens_workloads._program import LayerProgram
        from tracelens_workloads._torch import number_format, random
        from tracelens_workloads.models import attention

        dtype = number_format(self.dtype, device)
        if self.implementation == "naive":
            layer: Any = Naive(causal=self.causal)
        else:
            function = attention.choose(self.implementation, self.kernel, device, dtype)
            layer = Fused(function, causal=self.causal)
        shape = (self.batch, self.heads, self.seq, self.d)
        q, k, v = (random(shape, self.dtype, device) for _ in range(3))
        gradients = [random(shape, self.dtype, device)] * self.trains
        return LayerProgram(self, device, layer, [q, k, v], gradients=gradients)


WORKLOAD = Attention

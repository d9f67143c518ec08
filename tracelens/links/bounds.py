"""Work held against the ceilings of a GPU: what bounds it, how near it came, what cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tracelens.hardware import BANDWIDTH, MATMUL, VECTOR

if TYPE_CHECKING:
    from tracelens.hardware import Ceilings

LATENCY_NS: Final = 5_000
"""A kernel that is shorter and reaches less than half of its ceiling is bound by latency: to
start, to fill the GPU and to drain takes it some microseconds, whatever it does."""

_FAR: Final = 0.5
_TWICE: Final = 2
"""What a kernel reads may lie in the L2 cache before it starts, and what it writes may stay
there: together, at most twice its size need not go through memory."""

Kind = Literal["compute", "memory", "latency"]
IMPOSSIBLE: Final = "impossible"
CACHED: Final = "from cache"
ONE_OPERAND: Final = "operands are one tensor"


@dataclass(frozen=True)
class Piece:
    """Some work of one kind.

    Attributes:
        time_ns: how long all of it took.
        calls: in how many calls.
        kernels: in how many kernels.
        flops: operations of all calls; None: not known.
        bytes: moved at least by all calls; None: not known.
        alike_bytes: of these, what is of operands that may be the same tensor as another one.
        matmul: whether the operations are matrix products.
        format: the number format of matrix products.
        vector: whether other operations are of the kind that the vector ceiling is stated for.
    """

    time_ns: int
    calls: int
    kernels: int
    flops: int | None
    bytes: int | None
    alike_bytes: int = 0
    matmul: bool = False
    format: str | None = None
    vector: bool = True

    @property
    def compute_ceiling(self) -> str | None:
        """The name of the ceiling that its operations are held against."""
        if self.matmul:
            return f"{MATMUL}{self.format}" if self.format else None
        return VECTOR if self.vector else None


@dataclass(frozen=True)
class Judged:
    """How work stands to its ceilings.

    Attributes:
        bytes: that it moves at least, without operands that cannot be tensors of their own.
        bound: what bounds it; None: not known.
        ceiling: the name of the ceiling, as `hardware` has it.
        bound_ns: the least time below the ceilings.
        share: of the ceiling that was reached; None where it is not known or cannot be.
        matmul_ns: the least time of its matrix products.
        memory_ns: the least time of its bytes.
        verdict: empty, or what is odd: `impossible`, `from cache`, `above the data sheet`, `above
            the measured ceiling`, `operands are one tensor`.
    """

    bytes: int | None
    bound: Kind | None = None
    ceiling: str | None = None
    bound_ns: int | None = None
    share: float | None = None
    matmul_ns: float | None = None
    memory_ns: float | None = None
    verdict: str = ""

    @property
    def is_possible(self) -> bool:
        """Whether what it is said to have reached can be."""
        return self.verdict != IMPOSSIBLE


def judge(piece: Piece, on: Ceilings | None) -> Judged:
    """Hold work against the ceilings of a GPU.

    The bound is that of S. Williams, A. Waterman, D. Patterson, *Roofline*, CACM 52(4), 2009: the
    longer of the operations at their rate and the bytes at the memory's bandwidth.
    """
    if on is None or piece.time_ns <= 0:
        return Judged(piece.bytes)
    size, verdict = _bytes(piece, on)
    compute_ns = _compute_ns(piece, on)
    memory_ns = _least_ns(size, on.bandwidth_bytes_per_s)
    is_unknown = piece.matmul and piece.flops is not None and compute_ns is None
    if is_unknown or (compute_ns is None and memory_ns is None):
        return Judged(size, memory_ns=memory_ns, verdict=verdict)
    is_compute = (compute_ns or 0.0) >= (memory_ns or 0.0)
    ceiling = piece.compute_ceiling if is_compute else BANDWIDTH
    bound_ns = max(compute_ns or 0.0, memory_ns or 0.0)
    share = bound_ns / piece.time_ns
    if is_compute and piece.flops and ceiling is not None:
        verdict = on.verdict(ceiling, piece.flops * 1e9 / piece.time_ns) or verdict
    return Judged(
        size,
        bound=_bound(piece, share, "compute" if is_compute else "memory"),
        ceiling=ceiling,
        bound_ns=min(round(bound_ns), piece.time_ns),
        share=None if verdict in (IMPOSSIBLE, CACHED) else share,
        matmul_ns=compute_ns if piece.matmul else None,
        memory_ns=memory_ns,
        verdict=verdict,
    )


def _bound(piece: Piece, share: float, otherwise: Kind) -> Kind:
    mean = piece.time_ns / max(piece.kernels, 1)
    return "latency" if mean < LATENCY_NS and share < _FAR else otherwise


def _compute_ns(piece: Piece, on: Ceilings) -> float | None:
    name = piece.compute_ceiling
    return _least_ns(piece.flops, on.rate(name)) if name else None


def _least_ns(amount: int | None, rate: float | None) -> float | None:
    return amount * 1e9 / rate if amount is not None and rate else None


def _bytes(piece: Piece, on: Ceilings) -> tuple[int | None, str]:
    """Return how many bytes went through memory for all that is known, and what is odd of them."""
    size = piece.bytes
    odd = _odd(piece, size, on)
    if size is None or not odd:
        return size, ""
    cache = on.device.l2_bytes if on.device else None
    calls = max(piece.calls, 1)
    if cache is not None and size > cache * calls and piece.alike_bytes:
        fewer = size - piece.alike_bytes
        if not _odd(piece, fewer, on):
            return fewer, ONE_OPERAND
    if cache is None:
        return size, CACHED
    through = max(size - _TWICE * cache * calls, 0)
    return size, IMPOSSIBLE if _odd(piece, through, on) == IMPOSSIBLE else CACHED


def _odd(piece: Piece, size: int | None, on: Ceilings) -> str:
    """Say what is odd of moving so many bytes through memory in this time."""
    if size is None or on.bandwidth_bytes_per_s is None:
        return ""
    return on.verdict(BANDWIDTH, size * 1e9 / piece.time_ns)

r"""Matrix product, in 16 and 32 bits, and in fp8 with a scale for each row and column.

.. math:: C_{mn} = s^a_m s^b_n \sum_k A_{mk} B_{kn} + bias_n

Sums are fp32. Rows and columns may have any strides. On Hopper, 16-bit and fp8 operands go through
a persistent kernel with a warp that loads and warpgroups that multiply (`_gemm.hopper`; the scheme
is CUTLASS's cooperative kernel); everything else through `_gemm.portable`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from tracelens.kernel import OURS, Implementation, Kernel, Operation, Tuning
from tracelens.workload import Work
from tracelens_kernels import _checks, _configs
from tracelens_kernels._gemm import paths, quick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from tracelens.kernel import Config, Shape, Tensors

_FORMATS: Final = (torch.bfloat16, torch.float16, torch.float32)
_FP8: Final = (torch.float8_e4m3fn, torch.float8_e5m2)
_RIGHT: Final = quick.Right()
_TORCH: Final = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8": torch.float8_e4m3fn,
}


def matmul(
    a: Tensor, b: Tensor, *, bias: Tensor | None = None, out_dtype: torch.dtype | None = None
) -> Tensor:
    """Return a @ b + bias, differentiable once.

    Args:
        a: [..., K], bf16, fp16 or fp32, with any strides.
        b: [K, N], of the same format; `weight.t()` of a linear layer is fine.
        bias: [N], added in fp32 before rounding.
        out_dtype: of the result; that of `a` unless given.

    Returns:
        [..., N], contiguous. fp32 is multiplied as it is, or in tf32 where
        `torch.backends.cuda.matmul.allow_tf32` is set.

    Raises:
        ValueError: shapes or devices do not fit, or a size is 0.
        TypeError: formats differ, or are none of the three.
    """
    out_dtype = out_dtype or a.dtype
    if (sort := (out_dtype, *quick.sort_of(a, b, bias))) not in _RIGHT:
        _check(a, b, bias, out_dtype)
        _RIGHT.add(sort)
    rows = a if a.ndim == 2 else a.reshape(-1, a.shape[-1])
    wanted = rows.requires_grad or b.requires_grad or (bias is not None and bias.requires_grad)
    if wanted and torch.is_grad_enabled():
        out: Tensor = _Matmul.apply(rows, b, bias, out_dtype)
    else:
        out = _product(rows, b, out_dtype, bias=bias)
    return out if a.ndim == 2 else out.view(*a.shape[:-1], b.shape[1])


def scaled_matmul(
    a: Tensor,
    b: Tensor,
    scale_a: Tensor,
    scale_b: Tensor,
    *,
    bias: Tensor | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
    fast_accum: bool = True,
) -> Tensor:
    """Return (a · scale_a) @ (b · scale_b) + bias of fp8 operands; no gradients.

    Hopper's tensor cores keep about 14 bits of a running fp8 sum. With `fast_accum` the whole sum
    over K stays there; without, the sum of each block of K (128 on Hopper) is added to an fp32
    one, which costs some speed and is what `torch._scaled_mm(use_fast_accum=False)` does.

    Args:
        a: [M, K], float8_e4m3fn or float8_e5m2.
        b: [K, N], likewise; best as `weight.t()` of a weight [N, K], as `torch._scaled_mm` takes
            it. Other layouts are copied first.
        scale_a: fp32, [M, 1] for each row, or one number.
        scale_b: fp32, [1, N] for each column, or one number.
        bias: [N], added in fp32 before rounding.
        out_dtype: bf16, fp16 or fp32.
        fast_accum: see above.

    Raises:
        ValueError: shapes or devices do not fit, or a size is 0.
        TypeError: a format is none of these.
        RuntimeError: the GPU is older than compute capability 8.9, the first to multiply fp8.
    """
    if (sort := (out_dtype, *quick.sort_of(a, b, bias, scale_a, scale_b))) not in _RIGHT:
        _check_scaled(a, b, bias, (scale_a, scale_b), out_dtype)
        _RIGHT.add(sort)
    scale_a = _spread(scale_a, (a.shape[0], 1), "scale_a")
    scale_b = _spread(scale_b, (1, b.shape[1]), "scale_b")
    a = a if a.stride(1) == 1 else a.contiguous()
    b = b if b.stride(0) == 1 else b.t().contiguous().t()
    return _product(a, b, out_dtype, bias=bias, scales=(scale_a, scale_b), fast=fast_accum)


def _check_scaled(
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    scales: tuple[Tensor, Tensor],
    out_dtype: torch.dtype,
) -> None:
    scale_a, scale_b = scales
    device = _checks.on_gpu(a=a, b=b, scale_a=scale_a, scale_b=scale_b, bias=bias)
    _checks.dtype_among(_FP8, a=a, b=b)
    _checks.dtype_among((torch.float32,), scale_a=scale_a, scale_b=scale_b)
    _checks.dtype_among(_FORMATS, bias=bias)
    _checks.shaped("a [M, K]", ok=a.ndim == 2, a=a)
    _check_shapes(a, b, bias)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        raise RuntimeError(f"{device} cannot multiply fp8: that needs compute capability 8.9.")
    if out_dtype not in _FORMATS:
        raise TypeError(f"out_dtype is {out_dtype}; it must be bfloat16, float16 or float32.")


def _spread(scale: Tensor, shape: tuple[int, int], name: str) -> Tensor:
    if scale.numel() != 1 and scale.shape != shape:
        raise ValueError(f"{name} must be one number or {list(shape)}; got {list(scale.shape)}.")
    return scale.expand(shape) if scale.ndim else scale.reshape(1, 1).expand(shape)


def _check(a: Tensor, b: Tensor, bias: Tensor | None, out_dtype: torch.dtype) -> None:
    _checks.on_gpu(a=a, b=b, bias=bias)
    _checks.dtype_among(_FORMATS, a=a, bias=bias)
    _checks.same_dtype(a=a, b=b)
    _check_shapes(a, b, bias)
    if out_dtype not in _FORMATS:
        raise TypeError(f"out_dtype is {out_dtype}; it must be bfloat16, float16 or float32.")


def _check_shapes(a: Tensor, b: Tensor, bias: Tensor | None) -> None:
    fits = a.ndim >= 2 and b.ndim == 2 and a.shape[-1] == b.shape[0]
    if not fits:
        _checks.shaped("a [..., K] and b [K, N]", ok=False, a=a, b=b)
    if bias is not None:
        _checks.shaped("bias [N] for b [K, N]", ok=bias.shape == b.shape[1:], b=b, bias=bias)
    _checks.not_empty(a=a, b=b)


def _product(
    a: Tensor,
    b: Tensor,
    out_dtype: torch.dtype,
    *,
    bias: Tensor | None = None,
    scales: tuple[Tensor, Tensor] | None = None,
    fast: bool = True,
) -> Tensor:
    rows, columns, length = a.shape[0], b.shape[1], a.shape[1]
    out = torch.empty((rows, columns), dtype=out_dtype, device=a.device)
    bias = bias if bias is None or bias.is_contiguous() else bias.contiguous()
    config = paths.default(
        (rows, columns, length, 1),
        a.dtype,
        a.device,
        out_size=out_dtype.itemsize,
        fast=fast,
        copied=paths.COPY in (paths.way(a), paths.way(b)),
    )
    if fast:
        key = _key(rows, columns, length, a.dtype)
        config = _configs.chosen("matmul", "forward", key, config)
    paths.of(config).product(a, b, out, config, bias=bias, scales=scales, fast=fast)
    return out


class _Matmul(torch.autograd.Function):
    """The product with its gradients, which are products themselves."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, bias: Tensor | None, out_dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return _product(a, b, out_dtype, bias=bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _checks.once("matmul", "torch.matmul")
        a, b = ctx.saved_tensors
        grad = grads[0].to(a.dtype)
        of_a, of_b, of_bias, _ = ctx.needs_input_grad
        return (
            _product(grad, b.t(), a.dtype) if of_a else None,
            _product(a.t(), grad, b.dtype) if of_b else None,
            grads[0].sum(0, dtype=torch.float32).to(ctx.bias_dtype) if of_bias else None,
            None,
        )


# What the bench knows of it.


def _work(shape: Shape, dtype: str) -> Work:
    m, n, k = shape["m"], shape["n"], shape["k"]
    size = _TORCH[dtype].itemsize
    scales = 4 * (m + n) if dtype == "fp8" else 0
    moved = size * k * (m + n) + max(size, 2) * m * n + scales
    return Work("linear", flops=2 * m * n * k, bytes=moved, dtype=dtype)


def _backward_work(shape: Shape, dtype: str) -> Work:
    m, n, k = shape["m"], shape["n"], shape["k"]
    moved = _TORCH[dtype].itemsize * (2 * k * (m + n) + m * n)
    return Work("linear", flops=4 * m * n * k, bytes=moved, dtype=dtype)


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    m, n, k = shape["m"], shape["n"], shape["k"]
    random = torch.Generator(device).manual_seed(seed)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=random, device=device)

    if dtype != "fp8":
        a, b, grad = normal(m, k), normal(k, n), normal(m, n)
        form = _TORCH[dtype]
        return {"a": a.to(form), "b": b.to(form), "grad": grad.to(form)}
    scale_a = torch.rand((m, 1), generator=random, device=device) + 0.5
    scale_b = torch.rand((1, n), generator=random, device=device) + 0.5
    a, weight = normal(m, k).to(_TORCH[dtype]), normal(n, k).to(_TORCH[dtype])
    return {"a": a, "b": weight.t(), "scale_a": scale_a, "scale_b": scale_b}


def _reference(inputs: Tensors, _shape: Shape) -> Tensors:
    out = inputs["a"].double() @ inputs["b"].double()
    if "scale_a" in inputs:
        out *= inputs["scale_a"].double() * inputs["scale_b"].double()
    return {"out": out}


def _backward_reference(inputs: Tensors, _shape: Shape) -> Tensors:
    a, b, grad = (inputs[name].double() for name in ("a", "b", "grad"))
    return {"grad_a": grad @ b.t(), "grad_b": a.t() @ grad}


def _ours(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    a, b = inputs["a"], inputs["b"]
    if "scale_a" not in inputs:
        return lambda: {"out": matmul(a, b)}
    return lambda: {"out": scaled_matmul(a, b, inputs["scale_a"], inputs["scale_b"])}


def _ours_backward(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    return _gradients(inputs, matmul)


def _gradients(
    inputs: Tensors, function: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[], Tensors]:
    a, b = (inputs[name].detach().requires_grad_() for name in ("a", "b"))
    out = function(a, b)

    def run() -> Tensors:
        grad_a, grad_b = torch.autograd.grad(out, (a, b), inputs["grad"], retain_graph=True)
        return {"grad_a": grad_a, "grad_b": grad_b}

    return run


def _eager(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    return lambda: {"out": _plain(inputs)}


def _plain(inputs: Tensors) -> Tensor:
    a, b = inputs["a"], inputs["b"]
    half = torch.bfloat16
    if "scale_a" in inputs:
        out: Tensor = (a.to(half) @ b.to(half)) * inputs["scale_a"] * inputs["scale_b"]
        return out.to(half)
    return torch.matmul(a, b)


def _cublas(inputs: Tensors, shape: Shape) -> Callable[[], Tensors]:
    a, b = inputs["a"], inputs["b"]
    out = a.new_empty(shape["m"], shape["n"])

    def run() -> Tensors:
        torch.mm(a, b, out=out)
        return {"out": out}

    return run


def _compiled(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    compiled = torch.compile(_plain, mode="max-autotune-no-cudagraphs", dynamic=False)
    compiled(inputs)
    return lambda: {"out": compiled(inputs)}


def _scaled_mm(*, fast: bool) -> Callable[[Tensors, Shape], Callable[[], Tensors]]:
    def build(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
        a, b, scale_a, scale_b = (inputs[name] for name in ("a", "b", "scale_a", "scale_b"))
        half = torch.bfloat16
        product = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]
        return lambda: {"out": product(a, b, scale_a, scale_b, out_dtype=half, use_fast_accum=fast)}

    return build


def _ours_accurate(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    a, b, scale_a, scale_b = (inputs[name] for name in ("a", "b", "scale_a", "scale_b"))
    return lambda: {"out": scaled_matmul(a, b, scale_a, scale_b, fast_accum=False)}


def _only_fp8(shape: Shape, dtype: str) -> str:
    if dtype != "fp8":
        return "it multiplies fp8 alone"
    wrong = [axis for axis in ("n", "k") if shape[axis] % 16]
    return f"{' and '.join(wrong)} must be a multiple of 16" if wrong else ""


def _not_fp8(_shape: Shape, dtype: str) -> str:
    return "it does not multiply fp8" if dtype == "fp8" else ""


def _key(rows: int, columns: int, length: int, dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return f"{rows}x{columns}x{length} {name}"


def _tuning_key(shape: Shape, dtype: str) -> str:
    return _key(shape["m"], shape["n"], shape["k"], _TORCH[dtype])


def _tuning_default(shape: Shape, dtype: str) -> Config:
    sizes = shape["m"], shape["n"], shape["k"], 1
    copied = any(shape[axis] * _TORCH[dtype].itemsize % paths.LINE_BYTES for axis in ("n", "k"))
    return paths.default(sizes, _TORCH[dtype], paths.here(), out_size=_out(dtype), copied=copied)


def _coarse(shape: Shape, dtype: str) -> Iterable[Config]:
    return paths.coarse(shape["m"], _TORCH[dtype], paths.here(), out_size=_out(dtype))


def _fine(best: Config, _shape: Shape, dtype: str) -> Iterable[Config]:
    return paths.fine(best, _TORCH[dtype], out_size=_out(dtype))


def _out(dtype: str) -> int:
    return max(2, _TORCH[dtype].itemsize)


KERNEL = Kernel(
    axes={"m": None, "n": None, "k": None},
    shapes=(
        {"m": 8192, "n": 8192, "k": 8192},
        {"m": 4096, "n": 4096, "k": 4096},
        {"m": 8192, "n": 11008, "k": 4096},
        {"m": 4095, "n": 4097, "k": 1000},
        {"m": 512, "n": 512, "k": 512},
        {"m": 16, "n": 8192, "k": 8192},
        {"m": 1823, "n": 781, "k": 333},
    ),
    dtypes=("bf16", "fp16", "fp32", "fp8"),
    operations={
        "forward": Operation(
            work=_work,
            inputs=_inputs,
            reference=_reference,
            implementations={
                OURS: Implementation("tracelens_kernels.matmul, scaled_matmul", _ours),
                "accurate": Implementation(
                    "scaled_matmul(fast_accum=False)",
                    _ours_accurate,
                    lambda _, dtype: "" if dtype == "fp8" else "it multiplies fp8 alone",
                ),
                "eager": Implementation("a @ b; fp8 widened to bf16 first", _eager),
                "cublas": Implementation("torch.mm into a result that is there", _cublas, _not_fp8),
                "compile": Implementation("torch.compile, max-autotune", _compiled),
                "scaled-mm": Implementation(
                    "torch._scaled_mm, fast accumulation", _scaled_mm(fast=True), _only_fp8
                ),
                "scaled-mm-accurate": Implementation(
                    "torch._scaled_mm, accumulated in fp32", _scaled_mm(fast=False), _only_fp8
                ),
            },
        ),
        "backward": Operation(
            work=_backward_work,
            inputs=_inputs,
            reference=_backward_reference,
            implementations={
                OURS: Implementation("tracelens_kernels.matmul", _ours_backward, _not_fp8),
                "eager": Implementation(
                    "torch.matmul", lambda inputs, _: _gradients(inputs, torch.matmul), _not_fp8
                ),
            },
        ),
    },
    tuning={"forward": Tuning(_tuning_key, _tuning_default, _coarse, _fine)},
    function=lambda: matmul,
)

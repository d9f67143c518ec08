r"""Grouped matrix product: rows sorted by group, each group with a matrix of its own.

.. math:: C_{m} = A_{m} B_{g(m)}, \qquad g(m) = \min\{g : m < offsets_g\}

The groups' sizes stay on the GPU: nothing waits for them. Tiles of all groups form one list, and a
tile finds its group by a prefix sum over the sizes, so that skewed and empty groups cost what they
hold. Sums are fp32. The interface is `torch._grouped_mm`'s with 2-D a and 3-D b.
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
_TORCH: Final = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_RIGHT: Final = quick.Right()
_MOST_GROUPS: Final = 4095


def grouped_matmul(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """Return a[rows of g] @ b[g] for every group g, differentiable once in a and b.

    Args:
        a: [T, K], rows sorted by group; bf16, fp16 or fp32.
        b: [G, K, N], of the same format, any strides: weights [G, N, K] go in as
            `weights.transpose(1, 2)`.
        offsets: [G], int32: the row after each group's last, ascending. A group is empty where
            two are equal. They are read on the GPU and not checked: descending ones give rows
            that mean nothing, but nothing is read or written out of bounds.

    Returns:
        [T, N]; rows past the last group are 0, and so are the gradients of empty groups. On Hopper,
        a NaN in the gradient of a group's first rows may reach the matrix of the group before.

    Raises:
        ValueError: shapes or devices do not fit, or a size is 0.
        TypeError: formats differ, or are none of the three, or offsets are not int32.
    """
    if (sort := quick.sort_of(a, b, offsets)) not in _RIGHT:
        _check(a, b, offsets)
        _RIGHT.add(sort)
    offsets = offsets.contiguous()
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        out: Tensor = _GroupedMatmul.apply(a, b, offsets)
        return out
    return rows_by_group(a, b, offsets)


def _check(a: Tensor, b: Tensor, offsets: Tensor) -> None:
    _checks.on_gpu(a=a, b=b, offsets=offsets)
    _checks.dtype_among(_FORMATS, a=a)
    _checks.same_dtype(a=a, b=b)
    _checks.dtype_among((torch.int32,), offsets=offsets)
    fits = a.ndim == 2 and b.ndim == 3 and a.shape[1] == b.shape[1]
    _checks.shaped(
        "a [T, K], b [G, K, N] and offsets [G]",
        ok=fits and offsets.shape == b.shape[:1],
        a=a, b=b, offsets=offsets,
    )  # fmt: skip
    _checks.not_empty(a=a, b=b)
    if len(offsets) > _MOST_GROUPS:
        raise ValueError(f"There are {len(offsets)} groups; at most {_MOST_GROUPS} are possible.")


def rows_by_group(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """Return `grouped_matmul` of checked tensors, without gradients."""
    rows, (groups, length, columns) = len(a), b.shape
    out = a.new_empty(rows, columns)
    sizes = -(-rows // groups), columns, length, groups
    copied = paths.COPY in (paths.way(a), paths.way(b))
    default = paths.default(sizes, a.dtype, a.device, out_size=out.itemsize, copied=copied)
    key = _key(rows, groups, length, columns, a.dtype)
    config = _configs.chosen("grouped_matmul", "forward", key, default)
    paths.of(config).grouped(a, b, offsets, out, config)
    return out


def inner_by_group(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """Return a[rows of g].T @ b[rows of g] for every group: the gradient of the weights."""
    groups, rows, columns = len(offsets), a.shape[1], b.shape[1]
    out = a.new_empty(groups, rows, columns)
    sizes = rows, columns, -(-len(a) // groups), groups
    copied = paths.COPY in (paths.way(a), paths.way(b))
    config = paths.default(sizes, a.dtype, a.device, out_size=out.itemsize, copied=copied)
    paths.of(config).grouped_inner(a.t(), b, offsets, out, config)
    return out


class _GroupedMatmul(torch.autograd.Function):
    """The grouped product with its gradients, which are grouped products themselves."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, offsets)
        return rows_by_group(a, b, offsets)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        _checks.once("grouped_matmul", "a loop of torch.matmul")
        a, b, offsets = ctx.saved_tensors
        of_a, of_b, _ = ctx.needs_input_grad
        return (
            rows_by_group(grads[0], b.transpose(1, 2), offsets) if of_a else None,
            inner_by_group(a, grads[0], offsets) if of_b else None,
            None,
        )


def _key(rows: int, groups: int, length: int, columns: int, dtype: torch.dtype) -> str:
    return f"{rows} rows, {groups} of {length}x{columns} {str(dtype).removeprefix('torch.')}"


# What the bench knows of it.


def sizes(shape: Shape, seed: int) -> list[int]:
    """Return how many rows each group has: the same for all, or by Zipf's law.

    With skew s in hundredths, a group's share is proportional to 1 / rank^s; ranks are shuffled.
    """
    groups, rows = shape["groups"], shape["rows"]
    random = torch.Generator().manual_seed(seed)
    ranks = torch.randperm(groups, generator=random).double() + 1
    share = ranks.pow(-shape["skew"] / 100)
    ends = (share.cumsum(0) / share.sum() * rows).round().long()
    return torch.diff(ends, prepend=torch.zeros(1, dtype=torch.long)).tolist()


def _work(shape: Shape, dtype: str) -> Work:
    rows, groups, k, n = (shape[axis] for axis in ("rows", "groups", "k", "n"))
    used = sum(size > 0 for size in sizes(shape, 0))
    moved = _TORCH[dtype].itemsize * (rows * (k + n) + used * k * n) + 4 * groups
    return Work("linear", flops=2 * rows * k * n, bytes=moved, dtype=dtype)


def _backward_work(shape: Shape, dtype: str) -> Work:
    forward = _work(shape, dtype)
    return Work("linear", flops=2 * forward.flops, bytes=2 * forward.bytes, dtype=dtype)


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    rows, groups, k, n = (shape[axis] for axis in ("rows", "groups", "k", "n"))
    random = torch.Generator(device).manual_seed(seed)
    form = _TORCH[dtype]
    counts = torch.tensor(sizes(shape, seed))
    return {
        "a": torch.randn((rows, k), generator=random, device=device).to(form),
        "b": torch.randn((groups, n, k), generator=random, device=device, dtype=form).transpose(
            1, 2
        ),
        "grad": torch.randn((rows, n), generator=random, device=device).to(form),
        "offsets": counts.cumsum(0).int().to(device),
    }


def _parts(inputs: Tensors) -> Iterable[tuple[int, slice]]:
    start = 0
    for group, end in enumerate(inputs["offsets"].tolist()):
        yield group, slice(start, end)
        start = end


def _reference(inputs: Tensors, _shape: Shape) -> Tensors:
    a, b = inputs["a"], inputs["b"]
    out = torch.zeros((len(a), b.shape[2]), dtype=torch.float64, device=a.device)
    for group, part in _parts(inputs):
        out[part] = a[part].double() @ b[group].double()
    return {"out": out}


def _backward_reference(inputs: Tensors, _shape: Shape) -> Tensors:
    a, b, grad = inputs["a"], inputs["b"], inputs["grad"]
    grad_a = torch.zeros(a.shape, dtype=torch.float64, device=a.device)
    grad_b = torch.zeros(b.shape, dtype=torch.float64, device=a.device)
    for group, part in _parts(inputs):
        grad_a[part] = grad[part].double() @ b[group].double().t()
        grad_b[group] = a[part].double().t() @ grad[part].double()
    return {"grad_a": grad_a, "grad_b": grad_b}


def _loop(inputs: Tensors, parts: Iterable[tuple[int, slice]]) -> Tensors:
    a, b = inputs["a"], inputs["b"]
    out = a.new_empty(len(a), b.shape[2])
    for group, part in parts:
        torch.mm(a[part], b[group], out=out[part])
    return {"out": out}


def _eager(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    parts = list(_parts(inputs))
    return lambda: _loop(inputs, parts)


def _torch_grouped(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    a, b, offsets = inputs["a"], inputs["b"], inputs["offsets"]
    product = torch._grouped_mm  # pyright: ignore[reportPrivateImportUsage]
    return lambda: {"out": product(a, b, offs=offsets)}


def _only_bf16(shape: Shape, dtype: str) -> str:
    if dtype != "bf16":
        return "it multiplies bf16 alone"
    wrong = [axis for axis in ("n", "k") if shape[axis] % 8]
    return f"{' and '.join(wrong)} must be a multiple of 8" if wrong else ""


def _gradients(
    inputs: Tensors, function: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Callable[[], Tensors]:
    a, b = (inputs[name].detach().requires_grad_() for name in ("a", "b"))
    out = function(a, b, inputs["offsets"])

    def run() -> Tensors:
        grad_a, grad_b = torch.autograd.grad(out, (a, b), inputs["grad"], retain_graph=True)
        return {"grad_a": grad_a, "grad_b": grad_b}

    return run


def _eager_backward(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    a, b, grad = inputs["a"], inputs["b"], inputs["grad"]
    parts = list(_parts(inputs))

    def run() -> Tensors:
        grad_a, grad_b = torch.empty_like(a), torch.empty_like(b)
        for group, part in parts:
            grad_a[part] = grad[part] @ b[group].t()
            grad_b[group] = a[part].t() @ grad[part]
        return {"grad_a": grad_a, "grad_b": grad_b}

    return run


def _tuning_key(shape: Shape, dtype: str) -> str:
    return _key(shape["rows"], shape["groups"], shape["k"], shape["n"], _TORCH[dtype])


def _tuning_default(shape: Shape, dtype: str) -> Config:
    form = _TORCH[dtype]
    sizes = -(-shape["rows"] // shape["groups"]), shape["n"], shape["k"], shape["groups"]
    copied = any(shape[axis] * form.itemsize % paths.LINE_BYTES for axis in ("n", "k"))
    return paths.default(sizes, form, paths.here(), out_size=form.itemsize, copied=copied)


def _coarse(shape: Shape, dtype: str) -> Iterable[Config]:
    each, form = -(-shape["rows"] // shape["groups"]), _TORCH[dtype]
    return paths.coarse(each, form, paths.here(), out_size=form.itemsize)


def _fine(best: Config, _shape: Shape, dtype: str) -> Iterable[Config]:
    return paths.fine(best, _TORCH[dtype], out_size=_TORCH[dtype].itemsize)


KERNEL = Kernel(
    axes={"rows": None, "groups": None, "k": None, "n": None, "skew": 0},
    shapes=(
        {"rows": 32768, "groups": 16, "k": 4096, "n": 4096, "skew": 0},
        {"rows": 32768, "groups": 16, "k": 4096, "n": 4096, "skew": 120},
        {"rows": 128, "groups": 128, "k": 7168, "n": 2048, "skew": 0},
        {"rows": 2048, "groups": 128, "k": 7168, "n": 2048, "skew": 0},
        {"rows": 1823, "groups": 7, "k": 781, "n": 333, "skew": 80},
    ),
    dtypes=("bf16", "fp16", "fp32"),
    operations={
        "forward": Operation(
            work=_work,
            inputs=_inputs,
            reference=_reference,
            implementations={
                OURS: Implementation(
                    "tracelens_kernels.grouped_matmul",
                    lambda inputs, _: (
                        lambda: {"out": grouped_matmul(inputs["a"], inputs["b"], inputs["offsets"])}
                    ),
                ),
                "eager": Implementation("torch.mm for each group, sizes known to the host", _eager),
                "grouped-mm": Implementation("torch._grouped_mm", _torch_grouped, _only_bf16),
            },
        ),
        "backward": Operation(
            work=_backward_work,
            inputs=_inputs,
            reference=_backward_reference,
            implementations={
                OURS: Implementation(
                    "tracelens_kernels.grouped_matmul",
                    lambda inputs, _: _gradients(inputs, grouped_matmul),
                ),
                "eager": Implementation("torch.mm for each group", _eager_backward),
            },
        ),
    },
    tuning={"forward": Tuning(_tuning_key, _tuning_default, _coarse, _fine)},
    function=lambda: grouped_matmul,
)

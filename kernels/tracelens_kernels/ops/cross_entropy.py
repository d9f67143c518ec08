"""Cross-entropy over a large vocabulary: loss in one reading of the logits, gradient in one more.

loss = log Σ exp(x) − x[target], and dx = (softmax(x) − [column = target]) · dloss / count.

The maximum and the sum of a row are kept up as it goes by (M. Milakov and N. Gimelshein, "Online
normalizer calculation for softmax", 2018). In place, the gradient is written over the logits in
the same kernel as the loss, row by row while the row is still in L2, so that memory is read once
and written once; backward is then nothing, as long as the gradient of the loss is 1.
"""

# pyright: reportGeneralTypeIssues=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
import triton
import triton.language as tl

from tracelens.kernel import OURS, Implementation, Kernel, Operation, Tuning
from tracelens.workload import Work
from tracelens_kernels import _checks, _configs, _rows
from tracelens_kernels import _rows_bench as bench
from tracelens_kernels._rows import LOG2E, VECTOR, running_power_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from tracelens.kernel import Config, Shape, Tensors

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS: Final = ("mean", "sum", "none")


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    *,
    inplace: bool = False,
) -> Tensor:
    """Return the cross-entropy of logits against the classes that they should have named.

    Sums are in fp32, and so is the result, whatever the logits' format. A target that is no class
    and not `ignore_index` is never read at: its loss, and with it the mean or sum, and its row of
    the gradient are nan. If every target is ignored, the mean is nan, as in torch.

    Args:
        logits: [..., classes], bf16, fp16 or fp32, on a GPU; copied unless classes are neighbours.
        target: [...], int64 or int32: the class of each row.
        ignore_index: rows with this target have loss 0 and gradient 0, and are not counted.
        reduction: `mean` over the rows that count, their `sum`, or `none`: a loss for each row.
        inplace: write the gradient over the logits in forward, if they need one: a quarter of the
            traffic of torch's kernels, and no memory. The logits are then gone, for everybody,
            and backward can be run once. The gradient is rounded to the logits' format before it
            is multiplied by that of the loss: do not scale a loss in fp16.

    Raises:
        ValueError: the shapes do not fit one another, something is empty, or nothing is on a GPU;
            or `inplace`, and the logits' rows would have to be copied.
        TypeError: the format of logits or target is another.
        RuntimeError: `inplace`, and the logits are a leaf of autograd's graph, or expanded.
    """
    check(logits, target, reduction)
    wanted = _rows.needs_gradient(logits)
    if wanted and inplace:
        _check_in_place(logits)
    if wanted:
        kind = _InPlace if inplace else _CrossEntropy
        loss: Tensor = kind.apply(logits, target, ignore_index, reduction)
        return loss
    rows, classes = _rows.as_rows(logits), target.reshape(-1)
    losses, _ = losses_of(rows, classes, ignore_index)
    return reduced(losses, target, share_of(classes, ignore_index, reduction), reduction)


def check(logits: Tensor, target: Tensor, reduction: str) -> None:
    """Raise ValueError or TypeError unless `cross_entropy` can take these."""
    _checks.dtype_among(_rows.FLOATS, logits=logits)
    _checks.dtype_among((torch.int64, torch.int32), target=target)
    _checks.on_gpu(logits=logits, target=target)
    _checks.not_empty(logits=logits, target=target)
    fits = logits.ndim > 0 and logits.shape[:-1] == target.shape
    _checks.shaped("logits [..., classes] and target [...]", ok=fits, logits=logits, target=target)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}; it must be one of {', '.join(REDUCTIONS)}.")


def _check_in_place(logits: Tensor) -> None:
    if logits.is_leaf:
        raise RuntimeError(
            "The logits are a leaf that needs a gradient, and inplace=True would write it over "
            "them: pass what a layer returned, or inplace=False."
        )
    if _rows.as_rows(logits).data_ptr() != logits.data_ptr():
        raise ValueError(
            f"inplace=True needs rows of neighbouring classes; logits {list(logits.shape)} has "
            f"strides {list(logits.stride())}: pass logits.contiguous(), or inplace=False."
        )
    if 0 in logits.stride():
        raise RuntimeError("inplace=True cannot write over expanded logits: clone them first.")


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignore_index: int, reduction: Reduction
    ) -> Tensor:
        rows, classes = _rows.as_rows(logits), target.reshape(-1)
        share = share_of(classes, ignore_index, reduction)
        losses, log_sums = losses_of(rows, classes, ignore_index)
        ctx.save_for_backward(rows, classes, log_sums, share)
        ctx.shape, ctx.ignore_index = logits.shape, ignore_index
        return reduced(losses, target, share, reduction)

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        _checks.once("cross_entropy", "torch.nn.functional.cross_entropy")
        logits, target, log_sums, share = ctx.saved_tensors
        rows, columns = logits.shape
        # Rows that begin where those of the logits do, from one multiple of 16 bytes to the next.
        wide = columns + (logits.stride(0) - columns) % 8
        gradient = torch.empty((rows, wide), dtype=logits.dtype, device=logits.device)[:, :columns]
        config = _config(logits, "backward")
        dloss = dloss.reshape(-1)
        with _rows.on(logits.device):
            _gradient[(rows, triton.cdiv(columns, config["block"]))](
                logits,
                target,
                log_sums,
                dloss,
                share,
                gradient,
                columns,
                logits.stride(0),
                gradient.stride(0),
                target.stride(0),
                dloss.stride(0) if dloss.numel() > 1 else 0,
                ctx.ignore_index,
                BLOCK=config["block"],
                num_warps=config["num_warps"],
            )
        return gradient.view(ctx.shape), None, None, None


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, ignore_index: int, reduction: Reduction
    ) -> Tensor:
        rows, classes = _rows.as_rows(logits.detach()), target.reshape(-1)
        share = share_of(classes, ignore_index, reduction)
        losses = gradient_in_place(rows, classes, ignore_index, share)
        torch.autograd.graph.increment_version(logits)  # whoever saved them is told by autograd
        ctx.gradient = rows
        ctx.shape = logits.shape
        return reduced(losses, target, share, reduction)

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        _checks.once("cross_entropy", "torch.nn.functional.cross_entropy")
        if ctx.gradient is None:
            raise RuntimeError("The gradient lies in place of the logits: backward runs once.")
        gradient, ctx.gradient = ctx.gradient, None
        multiply_rows(gradient, dloss.reshape(-1))
        return gradient.view(ctx.shape), None, None, None


def share_of(target: Tensor, ignore_index: int, reduction: str) -> Tensor | None:
    """Return what a row's loss counts in a mean, 1 / (rows that are not ignored); else None."""
    if reduction != "mean":
        return None
    if target.dtype == torch.int32 and not -(2**31) <= ignore_index < 2**31:
        ignore_index = -(2**31)  # no class either, and one that rows beyond the last can have
    share = torch.empty((), dtype=torch.float32, device=target.device)
    with _rows.on(target.device):
        _share[(1,)](
            target, share, target.numel(), target.stride(0), ignore_index, BLOCK=4096, num_warps=8
        )
    return share


def reduced(losses: Tensor, target: Tensor, share: Tensor | None, reduction: str) -> Tensor:
    """Return the losses of rows in the shape of the target, or their sum or mean."""
    if reduction == "none":
        return losses.view(target.shape)
    loss = torch.empty((), dtype=torch.float32, device=losses.device)
    with _rows.on(losses.device):
        _total[(1,)](losses, share, loss, losses.numel(), BLOCK=4096, num_warps=8)
    return loss


def losses_of(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return loss and log Σ exp of each row of logits[rows, classes]."""
    rows, columns = logits.shape
    losses, log_sums = torch.empty((2, rows), dtype=torch.float32, device=logits.device)
    config = _config(logits, "forward")
    with _rows.on(logits.device):
        _losses[(rows,)](
            logits,
            target,
            losses,
            log_sums,
            columns,
            logits.stride(0),
            target.stride(0),
            ignore_index,
            BLOCK=config["block"],
            num_warps=config["num_warps"],
        )
    return losses, log_sums


def gradient_in_place(
    logits: Tensor, target: Tensor, ignore_index: int, share: Tensor | None
) -> Tensor:
    """Return the loss of each row of logits[rows, classes], and leave its gradient in the row.

    Args:
        logits: overwritten by the gradient of the sum of losses, times `share`.
        target: [rows].
        ignore_index: see `cross_entropy`.
        share: a number in fp32, on the device; None for 1.
    """
    rows, columns = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    config = _config(logits, "in-place")
    with _rows.on(logits.device):
        _losses_and_gradient[(rows,)](
            logits,
            target,
            losses,
            share,
            columns,
            logits.stride(0),
            target.stride(0),
            ignore_index,
            BLOCK=config["block"],
            num_warps=config["num_warps"],
        )
    return losses


def multiply_rows(x: Tensor, factor: Tensor) -> None:
    """Multiply rows in place by a factor each, or by one for all; by 1 costs no traffic."""
    rows, columns = x.shape
    with _rows.on(x.device):
        _multiply[(rows,)](
            x,
            factor,
            columns,
            x.stride(0),
            factor.stride(0) if factor.numel() > 1 else 0,
            BLOCK=4096,
            num_warps=8,
        )


def _config(logits: Tensor, operation: str) -> Config:
    columns = logits.shape[1]
    key = _rows.columns_key(columns, _rows.NAMES[logits.dtype])
    default = _default(columns, operation)
    return _configs.chosen("cross_entropy", operation, key, default, logits.device.index)


@functools.cache
def _default(columns: int, operation: str) -> Config:
    """Return the configuration for rows so long, where none was tuned: the best on an H200."""
    most = {"backward": 2048, "forward": 4096}.get(operation, 8192)
    block = min(max(_rows.power_of_2(columns), 256), most)
    warps = 32 if operation == "in-place" and columns > 65536 else max(block // 512, 1)
    return {"block": block, "num_warps": warps}


@triton.jit
def _aligned(row, stride, columns):
    """Return where a row's first `VECTOR` lies, what of it is before that, and what in vectors.

    With a vocabulary of 50,257, most rows do not begin at a multiple of 16 bytes; what lies before
    the first multiple and after the last, the edges, is moved one by one, and the rest as it is
    where they do.
    """
    start = row * stride
    first = (start + VECTOR - 1) // VECTOR * VECTOR
    before = first - start
    return first, before, tl.maximum(columns - before, 0) // VECTOR * VECTOR


@triton.jit
def _edges(before, length, columns):
    """Return the columns of a row before and after what lies in vectors, and which there are."""
    lane = tl.arange(0, 2 * VECTOR)
    column = tl.where(lane < VECTOR, lane, before + length + lane - VECTOR)
    return column, tl.where(lane < VECTOR, lane < before, True) & (column < columns)


@triton.jit
def _power_sum(logits_ptr, row, stride, columns, BLOCK: tl.constexpr):
    """Return the maximum m of a row, and Σ exp(x − m); all is read before the last barrier."""
    first, before, length = _aligned(row, stride, columns)
    column, there = _edges(before, length, columns)
    x = tl.load(logits_ptr + row * stride + column, there, other=float("-inf")).to(tl.float32)
    top, total = running_power_sum(logits_ptr + first, length, BLOCK)
    highest = tl.maximum(top, tl.max(x, 0))
    finite = tl.where(highest == float("-inf"), 0.0, highest)
    powers = tl.sum(tl.exp2((x - finite) * LOG2E), 0)
    return highest, total * tl.exp2((top - finite) * LOG2E) + powers


@triton.jit
def _gradient_of(x, log_sum, is_target, factor):
    """Return (softmax(x) − [is target]) · factor."""
    power = tl.exp2((x.to(tl.float32) - log_sum) * LOG2E)
    return tl.where(is_target, power - 1.0, power) * factor


@triton.jit
def _losses(  # noqa: PLR0917
    logits_ptr,
    target_ptr,
    loss_ptr,
    log_sum_ptr,
    columns,
    stride,
    target_stride,
    ignore_index,
    BLOCK: tl.constexpr,
):
    # read columns elements
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(target_ptr + row * target_stride).to(tl.int64)
    loss = 0.0
    log_sum = 0.0
    if target != ignore_index:
        known = (target >= 0) & (target < columns)
        at_target = tl.load(logits_ptr + row * stride + target, known, other=float("nan"))
        highest, total = _power_sum(logits_ptr, row, stride, columns, BLOCK)
        # The differences first: they are exact where the model is sure.
        loss = (highest - at_target.to(tl.float32)) + tl.log(total)
        log_sum = tl.where(known, highest + tl.log(total), float("nan"))
    tl.store(loss_ptr + row, loss)
    tl.store(log_sum_ptr + row, log_sum)


@triton.jit
def _gradient(  # noqa: PLR0917
    logits_ptr,
    target_ptr,
    log_sum_ptr,
    dloss_ptr,
    share_ptr,
    gradient_ptr,
    columns,
    stride,
    gradient_stride,
    target_stride,
    dloss_stride,
    ignore_index,
    BLOCK: tl.constexpr,
):
    # read BLOCK elements; write BLOCK elements
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(target_ptr + row * target_stride).to(tl.int64)
    log_sum = tl.load(log_sum_ptr + row)
    factor = tl.load(dloss_ptr + row * dloss_stride).to(tl.float32)
    if share_ptr is not None:
        factor *= tl.load(share_ptr)
    if target == ignore_index:
        log_sum = float("inf")  # no share for any
        factor = 0.0
    element = gradient_ptr.dtype.element_ty
    first, before, length = _aligned(row, stride, columns)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits_ptr + first + place, place < length, other=float("-inf"))
    gradient = _gradient_of(x, log_sum, before + place == target, factor)
    # The rows of the gradient lie on multiples of 16 bytes as those of the logits do.
    gradient_first, _, _ = _aligned(row, gradient_stride, columns)
    tl.store(gradient_ptr + gradient_first + place, gradient.to(element), place < length)
    if tl.program_id(1) == 0:
        column, there = _edges(before, length, columns)
        edges = tl.load(logits_ptr + row * stride + column, there, other=float("-inf"))
        of_edges = _gradient_of(edges, log_sum, column == target, factor)
        tl.store(gradient_ptr + row * gradient_stride + column, of_edges.to(element), there)


@triton.jit
def _losses_and_gradient(  # noqa: PLR0917
    logits_ptr,
    target_ptr,
    loss_ptr,
    share_ptr,
    columns,
    stride,
    target_stride,
    ignore_index,
    BLOCK: tl.constexpr,
):
    # read 2 · columns elements, the second time from L2; write columns elements
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(target_ptr + row * target_stride).to(tl.int64)
    element = logits_ptr.dtype.element_ty
    first, before, length = _aligned(row, stride, columns)
    column, there = _edges(before, length, columns)
    edges_ptr = logits_ptr + row * stride + column
    last = (length - 1) // BLOCK * BLOCK
    if target == ignore_index:
        tl.store(loss_ptr + row, 0.0)
        tl.store(edges_ptr, tl.zeros((2 * VECTOR,), element), there)
        for start in range(0, length, BLOCK):
            place = start + tl.arange(0, BLOCK)
            tl.store(logits_ptr + first + place, tl.zeros((BLOCK,), element), place < length)
    else:
        known = (target >= 0) & (target < columns)
        # Before the sums, whose barriers keep it ahead of what is written.
        at_target = tl.load(logits_ptr + row * stride + target, known, other=float("nan"))
        edges = tl.load(edges_ptr, there, other=float("-inf"))
        highest, total = _power_sum(logits_ptr, row, stride, columns, BLOCK)
        tl.store(loss_ptr + row, (highest - at_target.to(tl.float32)) + tl.log(total))
        factor = tl.where(known, 1.0, float("nan"))
        if share_ptr is not None:
            factor *= tl.load(share_ptr)
        log_sum = highest + tl.log(total)
        of_edges = _gradient_of(edges, log_sum, column == target, factor)
        tl.store(edges_ptr, of_edges.to(element), there)
        # From the end: what was read last is most likely still in L2.
        for done in range(0, length, BLOCK):
            place = last - done + tl.arange(0, BLOCK)
            x = tl.load(
                logits_ptr + first + place,
                place < length,
                other=float("-inf"),
                eviction_policy="evict_first",
            )
            gradient = _gradient_of(x, log_sum, before + place == target, factor).to(element)
            tl.store(
                logits_ptr + first + place, gradient, place < length, eviction_policy="evict_first"
            )


@triton.jit
def _share(target_ptr, share_ptr, rows, stride, ignore_index, BLOCK: tl.constexpr):  # noqa: PLR0917
    count = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        target = tl.load(target_ptr + row.to(tl.int64) * stride, row < rows, other=ignore_index)
        count += (target != ignore_index).to(tl.int32)
    tl.store(share_ptr, 1.0 / tl.sum(count, 0).to(tl.float32))


@triton.jit
def _total(loss_ptr, share_ptr, total_ptr, rows, BLOCK: tl.constexpr):
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, rows, BLOCK):
        row = start + tl.arange(0, BLOCK)
        sums += tl.load(loss_ptr + row, row < rows, other=0.0)
    total = tl.sum(sums, 0)
    if share_ptr is not None:
        total *= tl.load(share_ptr)
    tl.store(total_ptr, total)


@triton.jit
def _multiply(x_ptr, factor_ptr, columns, stride, factor_stride, BLOCK: tl.constexpr):  # noqa: PLR0917
    row = tl.program_id(0).to(tl.int64)
    factor = tl.load(factor_ptr + row * factor_stride).to(tl.float32)
    if factor != 1.0:
        x_ptr += row * stride
        for start in range(0, columns, BLOCK):
            column = start + tl.arange(0, BLOCK)
            x = tl.load(x_ptr + column, column < columns).to(tl.float32)
            tl.store(x_ptr + column, (x * factor).to(x_ptr.dtype.element_ty), column < columns)


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    generator = bench.source(device, seed)
    tokens, classes = shape["tokens"], shape["classes"]
    target = torch.randint(classes, (tokens,), generator=generator, device=device)
    return {"logits": bench.random((tokens, classes), dtype, generator), "target": target}


def _work(shape: Shape, dtype: str, *, gradient: bool) -> Work:
    """Count logits read, and gradients written, once; 4 operations for each of the two."""
    logits, passes = shape["tokens"] * shape["classes"], 1 + gradient
    moved = passes * logits * bench.SIZES[dtype] + 8 * shape["tokens"]
    return Work("cross-entropy", 4 * passes * logits, moved, dtype, matmul=False)


def _reference(tensors: Tensors, shape: Shape) -> dict[str, Tensor]:
    """Return the loss and its gradient, computed in float64 some rows at a time."""
    logits, target = tensors["logits"], tensors["target"]
    step = max(1, (1 << 24) // shape["classes"])
    losses, gradients = [], []
    for some, classes in zip(logits.split(step), target.split(step), strict=True):
        x = some.double().requires_grad_()
        loss = torch.nn.functional.cross_entropy(x, classes, reduction="sum") / shape["tokens"]
        gradients.append(torch.autograd.grad(loss, x)[0].float())
        losses.append(loss.detach())
    return {"loss": torch.stack(losses).sum(), "dlogits": torch.cat(gradients)}


def _loss_and_gradient(function: Callable[..., Tensor], *, compiles: bool = False) -> Any:
    """Return what builds the call of a loss, and its way back to the logits."""

    def build(tensors: Tensors, _shape: Shape) -> Callable[[], Tensors]:
        leaf = tensors["logits"].detach().requires_grad_()
        run = bench.compiled(function) if compiles else function

        def call() -> Tensors:
            logits = leaf.view_as(leaf)  # no leaf, like what a layer returns
            loss = run(logits, tensors["target"])
            return {"loss": loss.detach(), "dlogits": torch.autograd.grad(loss, leaf)[0]}

        if compiles:
            call()
        return call

    return build


def _loss_alone(function: Callable[..., Tensor], *, compiles: bool = False) -> Any:
    def build(tensors: Tensors, _shape: Shape) -> Callable[[], Tensors]:
        run = bench.compiled(function) if compiles else function
        return lambda: {"loss": run(tensors["logits"], tensors["target"])}

    return build


def _key_of(shape: Shape, dtype: str) -> str:
    return _rows.columns_key(shape["classes"], dtype)


def _default_of(shape: Shape, _dtype: str, operation: str) -> Config:
    return _default(shape["classes"], operation)


def _coarse(shape: Shape, _dtype: str) -> Iterator[Config]:
    """Give what a thread reads of a row at a time, and how many threads share a row."""
    longest = max(_rows.power_of_2(shape["classes"]), 256)
    for block in (1024, 2048, 4096, 8192, 16384, 32768):
        for warps in (4, 8, 16, 32):
            if 8 <= block // (32 * warps) <= 32 and block <= longest:
                yield {"block": block, "num_warps": warps}


_PLAIN: Final = torch.nn.functional.cross_entropy

KERNEL = Kernel(
    axes={"tokens": None, "classes": None},
    shapes=(
        {"tokens": 8192, "classes": 128256},
        {"tokens": 4096, "classes": 50304},
        {"tokens": 4096, "classes": 50257},
        {"tokens": 1823, "classes": 781},
    ),
    dtypes=bench.FORMATS,
    operations={
        "in-place": Operation(
            work=functools.partial(_work, gradient=True),
            inputs=_inputs,
            reference=_reference,
            implementations={
                OURS: Implementation(
                    "Triton, the gradient in place of the logits",
                    _loss_and_gradient(functools.partial(cross_entropy, inplace=True)),
                ),
                "tracelens-kept": Implementation(
                    "Triton, inplace=False: the logits are kept", _loss_and_gradient(cross_entropy)
                ),
                "eager": Implementation(
                    "torch.nn.functional.cross_entropy", _loss_and_gradient(_PLAIN)
                ),
                "compile": Implementation(
                    "the same by torch.compile", _loss_and_gradient(_PLAIN, compiles=True)
                ),
            },
            in_place=("logits",),
        ),
        "forward": Operation(
            work=functools.partial(_work, gradient=False),
            inputs=_inputs,
            reference=lambda tensors, shape: {"loss": _reference(tensors, shape)["loss"]},
            implementations={
                OURS: Implementation("Triton", _loss_alone(cross_entropy)),
                "eager": Implementation("torch.nn.functional.cross_entropy", _loss_alone(_PLAIN)),
                "compile": Implementation(
                    "the same by torch.compile", _loss_alone(_PLAIN, compiles=True)
                ),
            },
        ),
    },
    tuning={
        name: Tuning(_key_of, functools.partial(_default_of, operation=name), _coarse)
        for name in ("in-place", "forward")
    },
    function=lambda: cross_entropy,
)

"""RMSNorm and LayerNorm: the same kernels, with the mean subtracted or not.

Forward keeps the statistics of each row in fp32. Backward is one pass too: a bounded number of
programs goes through the rows, each adds up the gradients of weight and bias in fp32 registers as
it goes, and a second, small kernel adds up the programs' sums, always in the same order. Where the
sums of a whole row would not fit into registers, several programs share rows.
"""

# pyright: reportGeneralTypeIssues=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from tracelens_kernels import _checks, _configs, _rows
from tracelens_kernels._rows import VECTOR

if TYPE_CHECKING:
    from torch import Tensor

    from tracelens.kernel import Config


def norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, *, centred: bool
) -> Tensor:
    """Return the normalised rows of x[..., columns], with autograd where it is asked for.

    Raises:
        ValueError, TypeError: see `rms_norm`.
    """
    _checks.dtype_among(_rows.FLOATS, x=x, weight=weight, bias=bias)
    _checks.on_gpu(x=x, weight=weight, bias=bias)
    _checks.not_empty(x=x)
    _checks.shaped("at least one dimension", ok=x.ndim > 0, x=x)
    for name, one in (("weight", weight), ("bias", bias)):
        if one is not None and one.shape != x.shape[-1:]:
            columns = x.shape[-1]
            raise ValueError(f"Expected {name} [{columns}], as x's rows are; got {[*one.shape]}.")
    weight, bias = (one if one is None else one.contiguous() for one in (weight, bias))
    if _rows.needs_gradient(x, weight, bias):
        y: Tensor = _Norm.apply(x, weight, bias, eps, centred)
        return y
    return forward(_rows.as_rows(x), weight, bias, eps, centred=centred)[0].view(x.shape)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, centred: bool
    ) -> Tensor:
        rows = _rows.as_rows(x)
        y, mean, rstd = forward(rows, weight, bias, eps, centred=centred)
        ctx.save_for_backward(rows, weight, mean, rstd)
        ctx.shape, ctx.bias_dtype = x.shape, None if bias is None else bias.dtype
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        name = "rms_norm" if mean is None else "layer_norm"
        _checks.once(name, f"torch.nn.functional.{name}")
        wanted = ctx.needs_input_grad
        dx, dweight, dbias = backward(
            _rows.as_rows(dy),
            x,
            weight,
            mean,
            rstd,
            weight_dtype=weight.dtype if wanted[1] else None,
            bias_dtype=ctx.bias_dtype if wanted[2] else None,
        )
        return dx.view(ctx.shape) if wanted[0] else None, dweight, dbias, None, None


def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, *, centred: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return normalised rows, and their means (LayerNorm's) and reciprocal deviations."""
    rows, columns = x.shape
    y = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    mean = torch.empty(rows, dtype=torch.float32, device=x.device) if centred else None
    rstd = torch.empty(rows, dtype=torch.float32, device=x.device)
    given = (x, weight, bias, y, mean, rstd)
    config = _config(x, "forward", centred)
    with _rows.on(x.device):
        if config["block"]:
            _forward_long[(rows,)](
                *given,
                columns,
                x.stride(0),
                eps,
                BLOCK=config["block"],
                num_warps=config["num_warps"],
            )
        else:
            _forward_tile[(_rows.programs(rows, x.device, config),)](
                *given, rows, columns, x.stride(0), eps, **_rows.tile(x, config)
            )
    return y, mean, rstd


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor | None,
    rstd: Tensor,
    *,
    weight_dtype: torch.dtype | None,
    bias_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of x[rows, columns], and of weight and bias if formats are given."""
    rows, columns = x.shape
    device = x.device
    config = _config(x, "backward", mean is not None)
    sharers, block = _sharers(columns, device, config)
    programs = _rows.programs(triton.cdiv(rows, sharers), device, config, sharers)
    dx = torch.empty((rows, columns), dtype=x.dtype, device=device)
    formats = (weight_dtype, bias_dtype)
    sums = [
        torch.empty((programs, columns), dtype=torch.float32, device=device) if one else None
        for one in formats
    ]
    totals = [torch.empty(columns, dtype=one, device=device) if one else None for one in formats]
    given = (dy, x, weight, mean, rstd, dx, *sums)
    sizes = (rows, columns, dy.stride(0), x.stride(0))
    with _rows.on(device):
        if block and sharers == 1 and columns > block:
            _backward_halves[(programs,)](
                *given, *sizes, BLOCK=block, num_warps=config["num_warps"]
            )
        elif block:
            _backward_shared[(programs * sharers,)](
                *given,
                torch.full((rows,), -1, dtype=torch.int64, device=device),
                *sizes,
                SHARERS=sharers,
                LANES=_rows.power_of_2(sharers),
                BLOCK=block,
                num_warps=config["num_warps"],
                launch_cooperative_grid=True,
            )
        else:
            _backward_tile[(programs,)](*given, *sizes, **_rows.tile(x, config, 2))
        if any(formats):
            _add_up[(triton.cdiv(columns, 64), 2)](
                *sums, *totals, programs, columns, PROGRAMS=32, BLOCK=64, num_warps=4
            )
    return dx, totals[0], totals[1]


def _sharers(columns: int, device: torch.device, config: Config) -> tuple[int, int]:
    """Return how many programs share a row, and how many columns each has at a time; 0: tiles.

    One program has up to two halves of a row.
    """
    block = config["block"]
    if columns <= 2 * block or not block:
        return 1, block
    if _checks.interpreted():  # one program after another: none can wait for the next
        return 1, _rows.power_of_2(columns)
    while triton.cdiv(columns, block) > _rows.processors(device):
        block *= 2
    return triton.cdiv(columns, block), block


def _config(x: Tensor, operation: str, centred: bool) -> Config:
    columns = x.shape[1]
    key = _rows.columns_key(columns, _rows.NAMES[x.dtype])
    kernel = "layernorm" if centred else "rmsnorm"
    instead = default(columns, operation, centred=centred)
    return _configs.chosen(kernel, operation, key, instead, x.device.index)


@functools.cache
def default(columns: int, operation: str, *, centred: bool) -> Config:
    """Return the configuration for rows so long, where none was tuned: the best on an H200."""
    block = _rows.power_of_2(columns)
    if operation == "backward":
        return _backward_default(block, centred=centred)
    if block > 16384:
        return _rows.config(block=8192 if centred else 16384, num_warps=32 if centred else 16)
    if block == 16384:
        return _rows.config(num_warps=16, stages=3, programs=1)
    if block == 8192:
        ahead = {"stages": 3, "programs": 2} if centred else {}
        return _rows.config(num_warps=4, **ahead)
    tall = max(1, (8192 if centred and block > 1024 else 4096) // block)
    return _rows.config(rows=tall if centred or block <= 1024 else 1, num_warps=4)


def _backward_default(block: int, *, centred: bool) -> Config:
    if block > 16384:
        return _rows.config(block=8192, num_warps=8 if centred else 32, programs=1)
    if block == 16384:
        return _rows.config(block=8192, num_warps=16 if centred else 32, programs=1)
    if block >= 4096:
        return _rows.config(rows=8192 // block, num_warps=8, stages=3, programs=1)
    return _rows.config(rows=max(1, 2048 // block), num_warps=4, stages=3, programs=4)


@triton.jit
def _forward_tile(  # noqa: PLR0917
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    mean_ptr,
    rstd_ptr,
    rows,
    columns,
    x_stride,
    eps,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    # read rows · columns elements; write rows · columns elements
    column = tl.arange(0, BLOCK)[None, :]
    if weight_ptr is not None:
        weight = tl.load(weight_ptr + column, column < columns)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + column, column < columns)
    tiles = tl.cdiv(rows, ROWS)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), num_stages=STAGES):
        row = (tile * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
        inside = (row < rows) & (column < columns)
        x = tl.load(x_ptr + row * x_stride + column, inside, other=0.0).to(tl.float32)
        if mean_ptr is not None:
            mean = tl.sum(x, 1)[:, None] / columns
            tl.store(mean_ptr + row, mean, row < rows)
            x = tl.where(inside, x - mean, 0.0)
        rstd = tl.rsqrt(tl.sum(x * x, 1)[:, None] / columns + eps)
        tl.store(rstd_ptr + row, rstd, row < rows)
        y = x * rstd
        if weight_ptr is not None:
            y *= weight.to(tl.float32)
        if bias_ptr is not None:
            y += bias.to(tl.float32)
        tl.store(y_ptr + row * columns + column, y.to(y_ptr.dtype.element_ty), inside)


@triton.jit
def _forward_long(  # noqa: PLR0917
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    mean_ptr,
    rstd_ptr,
    columns,
    x_stride,
    eps,
    BLOCK: tl.constexpr,
):
    # read 2 · columns elements, the second time from L2; write columns elements
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * columns
    if mean_ptr is not None:
        mean, variance = _moments(x_ptr, columns, BLOCK)
        tl.store(mean_ptr + row, mean)
    else:
        mean = 0.0
        variance = _mean_square(x_ptr, columns, BLOCK)
    rstd = tl.rsqrt(variance + eps)
    tl.store(rstd_ptr + row, rstd)
    # From the end: what was read last is most likely still in a cache.
    last = (columns - 1) // BLOCK * BLOCK
    for done in range(0, columns, BLOCK):
        column = last - done + tl.arange(0, BLOCK)
        inside = column < columns
        x = tl.load(x_ptr + column, inside, other=0.0, eviction_policy="evict_first")
        y = (x.to(tl.float32) - mean) * rstd
        if weight_ptr is not None:
            y *= tl.load(weight_ptr + column, inside).to(tl.float32)
        if bias_ptr is not None:
            y += tl.load(bias_ptr + column, inside).to(tl.float32)
        tl.store(y_ptr + column, y.to(y_ptr.dtype.element_ty), inside)


@triton.jit
def _mean_square(x_ptr, columns, BLOCK: tl.constexpr):
    """Return Σ x² / columns of a row."""
    squares = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + column, column < columns, other=0.0).to(tl.float32)
        squares += x * x
    return tl.sum(squares, 0) / columns


@triton.jit
def _moments(x_ptr, columns, BLOCK: tl.constexpr):
    """Return mean and variance of a row, in one reading.

    Every thread joins the moments of `VECTOR` elements at a time to its own, without the
    cancellation of Σ x² − (Σ x)² / n (T. Chan, G. Golub and R. LeVeque, "Algorithms for computing
    the sample variance", The American Statistician 37, 1983).
    """
    start_of = tl.arange(0, BLOCK // VECTOR) * VECTOR
    lane = start_of[:, None] + tl.arange(0, VECTOR)[None, :]
    count = tl.zeros((BLOCK // VECTOR,), tl.float32)
    mean = tl.zeros((BLOCK // VECTOR,), tl.float32)
    squares = tl.zeros((BLOCK // VECTOR,), tl.float32)
    for start in range(0, columns, BLOCK):
        inside = start + lane < columns
        x = tl.load(x_ptr + start + lane, inside, other=0.0).to(tl.float32)
        left = columns - start - start_of
        more = tl.minimum(tl.maximum(left, 0), VECTOR).to(tl.float32)
        share = more / tl.maximum(count + more, 1.0)
        here = tl.sum(x, 1) / tl.maximum(more, 1.0)
        off = tl.where(inside, x - here[:, None], 0.0)
        apart = here - mean
        squares += tl.sum(off * off, 1) + apart * apart * count * share
        mean += apart * share
        count += more
    whole = tl.sum(mean * count, 0) / columns
    apart = mean - whole
    return whole, tl.sum(squares + count * apart * apart, 0) / columns


@triton.jit
def _backward_tile(  # noqa: PLR0917
    dy_ptr,
    x_ptr,
    weight_ptr,
    mean_ptr,
    rstd_ptr,
    dx_ptr,
    dweight_ptr,
    dbias_ptr,
    rows,
    columns,
    dy_stride,
    x_stride,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
):
    # read 2 · rows · columns elements; write rows · columns elements, and programs · columns sums
    column = tl.arange(0, BLOCK)[None, :]
    if weight_ptr is not None:
        weight = tl.load(weight_ptr + column, column < columns, other=0.0)
    dweight = tl.zeros((1, BLOCK), tl.float32)
    dbias = tl.zeros((1, BLOCK), tl.float32)
    tiles = tl.cdiv(rows, ROWS)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), num_stages=STAGES):
        row = (tile * ROWS + tl.arange(0, ROWS)[:, None]).to(tl.int64)
        inside = (row < rows) & (column < columns)
        x = tl.load(x_ptr + row * x_stride + column, inside, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + row * dy_stride + column, inside, other=0.0).to(tl.float32)
        rstd = tl.load(rstd_ptr + row, row < rows, other=0.0)
        if mean_ptr is not None:
            x -= tl.load(mean_ptr + row, row < rows, other=0.0)
        x *= rstd
        if dweight_ptr is not None:
            dweight += tl.sum(dy * x, 0, keep_dims=True)
        if dbias_ptr is not None:
            dbias += tl.sum(dy, 0, keep_dims=True)
        if weight_ptr is not None:
            dy *= weight.to(tl.float32)
        dx = dy - x * (tl.sum(dy * x, 1)[:, None] / columns)
        if mean_ptr is not None:
            dx -= tl.sum(dy, 1)[:, None] / columns
        dx *= rstd
        tl.store(dx_ptr + row * columns + column, dx.to(dx_ptr.dtype.element_ty), inside)
    place = tl.program_id(0).to(tl.int64) * columns + column
    if dweight_ptr is not None:
        tl.store(dweight_ptr + place, dweight, column < columns)
    if dbias_ptr is not None:
        tl.store(dbias_ptr + place, dbias, column < columns)


@triton.jit
def _backward_halves(  # noqa: PLR0917
    dy_ptr,
    x_ptr,
    weight_ptr,
    mean_ptr,
    rstd_ptr,
    dx_ptr,
    dweight_ptr,
    dbias_ptr,
    rows,
    columns,
    dy_stride,
    x_stride,
    BLOCK: tl.constexpr,
):
    """Work on a row in two halves of BLOCK columns, twice: registers hold the sums, not the row."""
    # read 4 · rows · columns elements, half of them from L1 or L2; write rows · columns elements
    lane = tl.arange(0, BLOCK)
    dweight = tl.zeros((BLOCK,), tl.float32)
    more_dweight = tl.zeros((BLOCK,), tl.float32)
    dbias = tl.zeros((BLOCK,), tl.float32)
    more_dbias = tl.zeros((BLOCK,), tl.float32)
    first = tl.program_id(0)
    for skipped in range(0, rows - first, tl.num_programs(0)):
        row = first.to(tl.int64) + skipped
        dy_row = dy_ptr + row * dy_stride
        x_row = x_ptr + row * x_stride
        dx_row = dx_ptr + row * columns
        rstd = tl.load(rstd_ptr + row)
        mean = 0.0
        if mean_ptr is not None:
            mean = tl.load(mean_ptr + row)
        products = tl.zeros((BLOCK,), tl.float32)
        plain = tl.zeros((BLOCK,), tl.float32)
        for half in tl.static_range(2):
            column = half * BLOCK + lane
            inside = column < columns
            x = tl.load(x_row + column, inside, other=0.0).to(tl.float32)
            g = tl.load(dy_row + column, inside, other=0.0).to(tl.float32)
            if weight_ptr is not None:
                g *= tl.load(weight_ptr + column, inside, other=0.0).to(tl.float32)
            products += g * (x - mean)
            if mean_ptr is not None:
                plain += g
        along = tl.sum(products, 0) * rstd / columns
        level = 0.0
        if mean_ptr is not None:
            level = tl.sum(plain, 0) / columns
        dweight, dbias = _half(
            dy_row,
            x_row,
            weight_ptr,
            dx_row,
            lane,
            columns,
            mean,
            rstd,
            along,
            level,
            dweight,
            dbias,
        )
        more_dweight, more_dbias = _half(
            dy_row,
            x_row,
            weight_ptr,
            dx_row,
            BLOCK + lane,
            columns,
            mean,
            rstd,
            along,
            level,
            more_dweight,
            more_dbias,
        )
    place = first.to(tl.int64) * columns + lane
    if dweight_ptr is not None:
        tl.store(dweight_ptr + place, dweight, lane < columns)
        tl.store(dweight_ptr + place + BLOCK, more_dweight, BLOCK + lane < columns)
    if dbias_ptr is not None:
        tl.store(dbias_ptr + place, dbias, lane < columns)
        tl.store(dbias_ptr + place + BLOCK, more_dbias, BLOCK + lane < columns)


@triton.jit
def _half(  # noqa: PLR0917
    dy_row, x_row, weight_ptr, dx_row, column, columns, mean, rstd, along, level, dweight, dbias
):
    """Write dx of some columns of a row, and return the sums with them."""
    inside = column < columns
    x = tl.load(x_row + column, inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    dy = tl.load(dy_row + column, inside, other=0.0, eviction_policy="evict_first").to(tl.float32)
    x = (x - mean) * rstd
    dweight += dy * x
    dbias += dy
    if weight_ptr is not None:
        dy *= tl.load(weight_ptr + column, inside, other=0.0).to(tl.float32)
    dx = (dy - x * along - level) * rstd
    tl.store(dx_row + column, dx.to(dx_row.dtype.element_ty), inside)
    return dweight, dbias


@triton.jit
def _backward_shared(  # noqa: PLR0917
    dy_ptr,
    x_ptr,
    weight_ptr,
    mean_ptr,
    rstd_ptr,
    dx_ptr,
    dweight_ptr,
    dbias_ptr,
    found_ptr,
    rows,
    columns,
    dy_stride,
    x_stride,
    SHARERS: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Work on as many rows at a time as programs share them.

    Each program first finds the two means of one of the rows, tells them to the others, and then
    does its own columns of all of them, which are mostly in L2 still: of a row so long, no program
    could keep the sums of dweight and dbias in registers. They wait for one another, so all of
    them have to be running: the launch is cooperative.
    """
    # read 4 · rows · columns elements, half of them from L2; write rows · columns elements
    part = tl.program_id(0) % SHARERS
    group = tl.program_id(0) // SHARERS
    groups = tl.num_programs(0) // SHARERS
    lane = tl.arange(0, LANES)
    column = part * BLOCK + tl.arange(0, BLOCK)
    inside = column < columns
    dweight = tl.zeros((BLOCK,), tl.float32)
    dbias = tl.zeros((BLOCK,), tl.float32)
    for skipped in range(0, rows - group * SHARERS, groups * SHARERS):
        first = group * SHARERS + skipped
        mine = (first + part).to(tl.int64)
        if mine < rows:
            _tell_means(
                dy_ptr + mine * dy_stride,
                x_ptr + mine * x_stride,
                weight_ptr,
                mean_ptr,
                rstd_ptr,
                found_ptr,
                mine,
                columns,
                BLOCK,
            )
        asked = (lane < SHARERS) & (first + lane < rows)
        told = tl.load(found_ptr + first + lane, asked, other=0, volatile=True)
        while tl.sum((told == -1).to(tl.int32), 0) > 0:
            told = tl.load(found_ptr + first + lane, asked, other=0, volatile=True)
        if LANES > 32:  # a warp may go on because another has seen what it has not
            told = tl.load(found_ptr + first + lane, asked, other=0, volatile=True)
        alongs = (told >> 32).to(tl.int32).to(tl.float32, bitcast=True)
        levels = told.to(tl.int32).to(tl.float32, bitcast=True)
        for which in range(tl.minimum(SHARERS, rows - first)):
            row = (first + which).to(tl.int64)
            x = tl.load(
                x_ptr + row * x_stride + column, inside, other=0.0, eviction_policy="evict_first"
            ).to(tl.float32)
            dy = tl.load(
                dy_ptr + row * dy_stride + column, inside, other=0.0, eviction_policy="evict_first"
            ).to(tl.float32)
            rstd = tl.load(rstd_ptr + row)
            if mean_ptr is not None:
                x -= tl.load(mean_ptr + row)
            x *= rstd
            if dweight_ptr is not None:
                dweight += dy * x
            if dbias_ptr is not None:
                dbias += dy
            if weight_ptr is not None:
                dy *= tl.load(weight_ptr + column, inside, other=0.0).to(tl.float32)
            # The means are there times −rstd.
            dx = dy * rstd + x * tl.sum(tl.where(lane == which, alongs, 0.0), 0)
            if mean_ptr is not None:
                dx += tl.sum(tl.where(lane == which, levels, 0.0), 0)
            dx = dx.to(dx_ptr.dtype.element_ty)
            tl.store(dx_ptr + row * columns + column, dx, inside, eviction_policy="evict_first")
    place = group.to(tl.int64) * columns + column
    if dweight_ptr is not None:
        tl.store(dweight_ptr + place, dweight, inside)
    if dbias_ptr is not None:
        tl.store(dbias_ptr + place, dbias, inside)


@triton.jit
def _tell_means(  # noqa: PLR0917
    dy_row, x_row, weight_ptr, mean_ptr, rstd_ptr, found_ptr, row, columns, BLOCK: tl.constexpr
):
    """Write the means of g · x̂ and of g of a row, times −rstd: two numbers of fp32 in one word.

    A word is written and read as one, and none is −1: no sum has those bits.
    """
    along = tl.zeros((BLOCK,), tl.float32)
    level = tl.zeros((BLOCK,), tl.float32)
    mean = 0.0
    if mean_ptr is not None:
        mean = tl.load(mean_ptr + row)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < columns
        x = tl.load(x_row + column, inside, other=0.0, cache_modifier=".cg").to(tl.float32)
        g = tl.load(dy_row + column, inside, other=0.0, cache_modifier=".cg").to(tl.float32)
        if weight_ptr is not None:
            g *= tl.load(weight_ptr + column, inside, other=0.0).to(tl.float32)
        along += g * (x - mean)
        if mean_ptr is not None:
            level += g
    rstd = tl.load(rstd_ptr + row)
    scale = -rstd / columns
    high = (tl.sum(along, 0) * (scale * rstd)).to(tl.uint32, bitcast=True).to(tl.uint64)
    low = (tl.sum(level, 0) * scale).to(tl.uint32, bitcast=True).to(tl.uint64)
    tl.store(found_ptr + row, ((high << 32) | low).to(tl.int64, bitcast=True))


@triton.jit
def _add_up(  # noqa: PLR0917
    dweights_ptr,
    dbiases_ptr,
    dweight_ptr,
    dbias_ptr,
    programs,
    columns,
    PROGRAMS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add up the programs' sums: of dweight in one row of the grid, of dbias in the other."""
    if tl.program_id(1) == 0:
        if dweights_ptr is not None:
            _add_column(dweights_ptr, dweight_ptr, programs, columns, PROGRAMS, BLOCK)
    elif dbiases_ptr is not None:
        _add_column(dbiases_ptr, dbias_ptr, programs, columns, PROGRAMS, BLOCK)


@triton.jit
def _add_column(  # noqa: PLR0917
    sums_ptr, total_ptr, programs, columns, PROGRAMS: tl.constexpr, BLOCK: tl.constexpr
):
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    sums = tl.zeros((PROGRAMS, BLOCK), tl.float32)
    for start in range(0, programs, PROGRAMS):
        program = (start + tl.arange(0, PROGRAMS)[:, None]).to(tl.int64)
        inside = (program < programs) & (column < columns)
        sums += tl.load(sums_ptr + program * columns + column, inside, other=0.0)
    total = tl.sum(sums, 0, keep_dims=True)
    tl.store(total_ptr + column, total.to(total_ptr.dtype.element_ty), column < columns)

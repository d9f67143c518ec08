"""What the kernels that work row by row share: tiles of rows, configurations, running sums."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from tracelens.kernel import Config

DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Name of a format -> torch's."""
FLOATS: Final = tuple(DTYPES.values())
NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}

VECTOR: Final = tl.constexpr(8)
"""Neighbouring elements of one thread: 16 bytes of a 16-bit format."""
LOG2E: Final = tl.constexpr(1.4426950408889634)
"""exp(x) = exp2(x · log2 e), which the GPU has an instruction for."""

_NOTHING: Final = nullcontext()


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which Triton launches on a device: none if it is the current one."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return _NOTHING
    return torch.cuda.device(device)


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Tell whether autograd has to know of what is made of these tensors."""
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in tensors)


def as_rows(x: Tensor) -> Tensor:
    """Return x[..., columns] as [rows, columns] with neighbouring columns; a copy if need be."""
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 else rows.contiguous()


def power_of_2(number: int) -> int:
    """Return the smallest power of 2 that is not below a number."""
    return 1 << max(number - 1, 0).bit_length()


@functools.cache
def processors(device: torch.device) -> int:
    """Return how many streaming multiprocessors a GPU has; 2 stand for the interpreter's one."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


def config(
    *, block: int = 0, rows: int = 1, num_warps: int, stages: int = 1, programs: int = 0
) -> Config:
    """Return a configuration of a row-wise kernel.

    Args:
        block: columns at a time of a row that is read twice; 0: rows stay in registers.
        rows: in registers at a time.
        num_warps: of a program.
        stages: of the pipeline that loads rows ahead; 1: none.
        programs: for each multiprocessor, each with many rows; 0: as many as there are tiles.
    """
    return {
        "block": block,
        "rows": rows,
        "num_warps": num_warps,
        "stages": stages,
        "programs": programs,
    }


def tile(x: Tensor, config: Config, loaded: int = 1) -> dict[str, int]:
    """Return what a kernel of rows in registers is compiled with.

    Loads are not ahead where what is loaded would not fit into a multiprocessor's shared memory.

    Args:
        x: [rows, columns].
        config: see `config`.
        loaded: matrices like x that the kernel reads.
    """
    rows, block, stages = config["rows"], power_of_2(x.shape[1]), config["stages"]
    ahead = (stages - 1) * loaded * rows * block * x.element_size()
    return {
        "ROWS": rows,
        "BLOCK": block,
        "STAGES": stages if stages == 1 or ahead <= _room(x.device) else 1,
        "num_warps": config["num_warps"],
    }


@functools.cache
def _room(device: torch.device) -> int:
    """Return how much may be loaded ahead: shared memory less 16 KiB, for sums and conversions."""
    if device.type != "cuda":
        return 1 << 20
    properties = triton.runtime.driver.active.utils.get_device_properties(device.index)
    return int(properties["max_shared_mem"]) - (16 << 10)


def programs(rows: int, device: torch.device, config: Config, sharers: int = 1) -> int:
    """Return the size of a grid: one program for each tile, or some for each multiprocessor.

    If several share their rows, it is the number of such groups.
    """
    tiles = -(-rows // config["rows"])
    each = config["programs"]
    return min(tiles, processors(device) * each // sharers) if each else tiles


def columns_key(columns: int, dtype: str) -> str:
    """Return under which key configurations of rows so long are kept."""
    return f"columns={columns} {dtype}"


@triton.jit
def running_power_sum(x_ptr, columns, BLOCK: tl.constexpr):
    """Return the maximum m of a row, and Σ exp(x − m), in one reading.

    Every thread keeps a maximum and a sum of its own, and corrects the sum when the maximum grows
    (M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", 2018), once for
    `VECTOR` elements; the threads' sums are joined at the end. A row of −inf has m = −inf, sum 0.
    """
    column = tl.arange(0, BLOCK // VECTOR)[:, None] * VECTOR + tl.arange(0, VECTOR)[None, :]
    top = tl.full((BLOCK // VECTOR,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK // VECTOR,), tl.float32)
    for start in range(0, columns, BLOCK):
        inside = start + column < columns
        x = tl.load(x_ptr + start + column, inside, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, tl.max(x, 1))
        finite = tl.where(higher == float("-inf"), 0.0, higher)
        powers = tl.exp2((x - finite[:, None]) * LOG2E)
        total = total * tl.exp2((top - finite) * LOG2E) + tl.sum(powers, 1)
        top = higher
    highest = tl.max(top, 0)
    finite = tl.where(highest == float("-inf"), 0.0, highest)
    return highest, tl.sum(total * tl.exp2((top - finite) * LOG2E), 0)

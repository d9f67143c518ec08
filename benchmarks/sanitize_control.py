"""A kernel that specialises warps and does nothing else: what racecheck says of Triton's own part.

Each partition writes a part of the result that is its own, and they share no memory: what a tool
finds between them is in how Triton hands work to the warps. There are as many partitions, of as
many warps and with as many registers, as in our kernels for Hopper.
"""

from __future__ import annotations

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.jit
def _store(out_ptr, at, first, times, WARPS: gl.constexpr):  # noqa: ANN001, ANN202, N803
    layout: gl.constexpr = gl.BlockedLayout([1], [32], [WARPS], [0])
    offsets = gl.arange(0, 32 * WARPS, layout=layout)
    for _ in range(times):
        gl.store(out_ptr + at + offsets, first + offsets)


@gluon.jit
def _kernel(out_ptr, first, times):  # noqa: ANN001, ANN202
    start = gl.program_id(0) * 288
    gl.warp_specialize(
        [
            (_store, (out_ptr, start, first, times, 4)),
            (_store, (out_ptr, start + 128, first, times, 4)),
            (_store, (out_ptr, start + 256, first, times, 1)),
        ],
        [4, 1],
        [240, 24],
    )


def run() -> None:
    """Launch it twice.

    Raises:
        AssertionError: it did not write what it should.
    """
    programs = 264
    out = torch.empty(programs, 288, dtype=torch.int32, device="cuda")
    for _ in range(2):
        _kernel[(programs,)](out, 7, 100, num_warps=4)
    parts = [torch.arange(n, dtype=torch.int32, device="cuda") for n in (128, 128, 32)]
    if not torch.equal(out, (7 + torch.cat(parts)).expand_as(out)):
        raise AssertionError(out)

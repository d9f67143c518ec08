"""Blocks per multiprocessor, against CUDA's own calculator, whose answers Kineto writes down."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tracelens.hardware.occupancy import blocks_per_sm

SAMPLE = Path(__file__).parents[2] / "samples" / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz"


@pytest.mark.parametrize(
    ("launch", "blocks"),
    [
        (("8.0", 128, 32, 0), 16),  # 2,048 threads
        (("8.6", 128, 32, 0), 12),  # 1,536 threads
        (("7.5", 128, 32, 0), 8),  # 1,024 threads
        (("9.0", 256, 255, 0), 1),  # 8 warps of 8,192 registers
        (("9.0", 128, 255, 0), 2),
        (("8.0", 128, 32, 48 << 10), 3),  # 164 KiB in parts of 49
        (("7.0", 128, 32, 48 << 10), 2),  # 96 KiB in parts of 48
        (("9.0", 32, 16, 0), 32),  # blocks
        (("8.6", 32, 16, 0), 16),
        (("9.0", 1_024, 255, 0), None),  # no block fits
        (("9.0", 0, 32, 0), None),
        (("99.0", 128, 32, 0), None),
    ],
)
def test_the_scarcest_resource_decides(
    launch: tuple[str, int, int, int], blocks: int | None
) -> None:
    assert blocks_per_sm(*launch) == blocks


def test_it_agrees_with_cuda_about_every_kernel_of_our_recording() -> None:
    events = json.loads(gzip.decompress(SAMPLE.read_bytes()))["traceEvents"]
    kernels = [event["args"] for event in events if event.get("cat") == "kernel"]
    compared = 0
    for args in kernels:
        # Of few blocks, and of those with more shared memory than usual, Kineto says 0.
        if not args["est. achieved occupancy %"]:
            continue
        threads, blocks = (x * y * z for x, y, z in (args["block"], args["grid"]))
        fitting = blocks_per_sm("9.0", threads, args["registers per thread"], args["shared memory"])
        assert fitting is not None
        warps = -(-threads // 32) * min(fitting, blocks / 132)
        assert args["est. achieved occupancy %"] == pytest.approx(100 * warps / 64, abs=1)
        compared += 1

    assert compared > 1_000

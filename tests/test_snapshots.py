"""The builder of snapshots: what it records and what it holds at the end agree."""

from __future__ import annotations

import pytest

from tests.snapshots import MIB, Snapshot, training


@pytest.mark.parametrize("torch", ["1.13", "2.1", "2.5", "2.12"])
def test_events_less_what_was_freed_are_the_blocks_at_the_end(torch: str) -> None:
    snapshot = Snapshot(torch)
    gpu = snapshot.device(0)
    kept = [gpu.alloc(size) for size in (1, 513, 3 * MIB, 30 * MIB)]
    gpu.free(kept[2])
    gpu.free_requested(kept[3])
    grown = gpu.segment(20 * MIB, expandable=True)
    gpu.grow(grown, 4 * MIB)
    gpu.shrink(grown, 2 * MIB)

    content = snapshot.content()

    (trace,) = content["device_traces"]
    signs = {"alloc": 1, "free_completed": -1}
    held = {"segment_alloc": 1, "segment_map": 1, "segment_unmap": -1}
    live = [b for s in gpu.segments for b in s.blocks.values()]
    assert sum(signs.get(e["action"], 0) * e["size"] for e in trace) == sum(b.size for b in live)
    reserved = sum(s["total_size"] for s in content["segments"])
    assert sum(held.get(e["action"], 0) * e["size"] for e in trace) == reserved
    for segment in content["segments"]:
        assert sum(block["size"] for block in segment["blocks"]) == segment["total_size"]


def test_a_freed_block_is_given_out_again() -> None:
    gpu = Snapshot().device(0)
    first = gpu.alloc(1000)
    gpu.free(first)

    assert gpu.alloc(900).address == first.address


def test_a_ring_keeps_the_newest_events() -> None:
    snapshot = training()
    whole = snapshot.content()["device_traces"][0]
    snapshot.ring = 5

    assert snapshot.content()["device_traces"][0] == whole[-5:]

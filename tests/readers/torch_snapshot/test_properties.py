"""Histories of any allocator: what is read is what was done, whatever the ring has forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.readers.torch_snapshot.reading import read, stack, table
from tests.snapshots import MIB, Block, Snapshot

if TYPE_CHECKING:
    import pytest

SIZES = st.sampled_from([1, 511, 512, 1000, MIB, MIB + 1, 3 * MIB, 25 * MIB])
STACKS = st.sampled_from([None, (), ("a.py:1 f",), ("a.py:1 f", "b.py:2 g"), ("b.py:2 g",)])
STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["alloc", "free", "request"]), SIZES, STACKS),
    max_size=40,
)


def allocated(steps: list[tuple[int, str, int, tuple[str, ...] | None]]) -> Snapshot:
    """Return what some devices did; devices 0 and 2 only."""
    snapshot = Snapshot("2.12")
    live: dict[int, list[Block]] = {0: [], 2: []}
    pending: dict[int, list[Block]] = {0: [], 2: []}
    for number, what, size, site in steps:
        device = snapshot.device(number & 2)
        blocks, waiting = live[device.number], pending[device.number]
        if what == "alloc":
            blocks.append(device.alloc(size, site, stream=size % 3))
        elif what == "request" and blocks:
            waiting.append(blocks.pop(size % len(blocks)))
            device.free_requested(waiting[-1], site)
        elif waiting:
            device.free_completed(waiting.pop(0), site)
        elif blocks:
            device.free(blocks.pop(size % len(blocks)), site)
    return snapshot


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, ring=st.none() | st.integers(1, 30), protocol=st.integers(2, 5))
def test_what_was_done_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, str, int, tuple[str, ...] | None]],
    ring: int | None,
    protocol: int,
) -> None:
    snapshot = allocated(steps)
    snapshot.ring = ring
    content = snapshot.content()

    trace = read(content, tmp_path_factory.mktemp("snapshot"), protocol)

    written = [
        (device, e["action"], e["addr"], e["size"], e["stream"], e["time_us"] * 1000)
        for device, entries in enumerate(content["device_traces"])
        for e in entries
    ]
    if written:
        events = table(trace, "memory")
        columns = ["device", "action", "address", "size_bytes", "stream", "time_ns"]
        assert events.select(columns).rows() == written
        entries = [e for entries in content["device_traces"] for e in entries]
        for entry, stack_id in zip(entries, events["stack_id"], strict=True):
            frames = [(f["name"], f["filename"], f["line"]) for f in entry.get("frames") or []]
            assert frames == ([] if stack_id is None else stack(trace, stack_id))
    blocks = table(trace, "blocks")
    held = [b for s in content["segments"] for b in s["blocks"]]
    assert blocks["address"].to_list() == [b["address"] for b in held]
    assert blocks["state"].to_list() == [b["state"] for b in held]
    assert blocks["size_bytes"].sum() == table(trace, "segments")["size_bytes"].sum()
    assert not [c for c in trace.caveats if c.kind == "damaged"]

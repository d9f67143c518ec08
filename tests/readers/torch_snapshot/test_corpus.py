"""Real snapshots: counts, replay and end state against numbers made without this reader."""

from __future__ import annotations

import gzip
import json
import pickle
from typing import TYPE_CHECKING

import polars as pl
import pytest

from tests.readers.torch_snapshot.reading import table
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.trace.model import Trace

pytestmark = pytest.mark.corpus

SNAPSHOTS = (
    "expandable-segments-ring-wrapped-h200",
    "gpt2-small-ctx512-bf16-h200",
    "gpt2-xl-ctx256-fp32-h200",
    "oom-after-unwind-h200",
    "oom-observer-h200",
)
RANKS = tuple(
    f"multirank/{run}/rank{rank}"
    for run in ("gpt2-medium-ddp-h200x2", "gpt2-medium-fsdp-h200x2")
    for rank in (0, 1)
)


def replayed(trace: Trace, device: int, plus: tuple[str, ...], minus: tuple[str, ...]) -> pl.Series:
    """Return the running sum of some actions' sizes less those of others."""
    size = pl.col("size_bytes")
    change = pl.when(pl.col("action").is_in(plus)).then(size)
    change = change.when(pl.col("action").is_in(minus)).then(-size).otherwise(0)
    return table(trace, "memory").filter(device=device).select(change.cum_sum()).to_series()


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_replay_agrees_with_the_truth_to_the_byte(corpus: Path, name: str) -> None:
    file = f"{name}.pickle.gz"
    (truth,) = json.loads((corpus / "memory_truth.json").read_text())[file]["devices"]

    trace = open_trace(corpus / "memory" / file, cache=False)

    device = truth["device"]
    active = pl.col("state").str.starts_with("active")
    blocks = table(trace, "blocks").filter(active, device=device)
    segments = table(trace, "segments").filter(device=device)
    net = replayed(trace, device, ("alloc",), ("free_completed",))
    held = replayed(
        trace, device, ("segment_alloc", "segment_map"), ("segment_free", "segment_unmap")
    )
    end, held_end = blocks["requested_bytes"].sum(), segments["size_bytes"].sum()
    curve, reserved = end - net[-1] + net, held_end - held[-1] + held
    actions = table(trace, "memory")["action"]
    assert {
        "device": device,
        "events": net.len(),
        "baseline_active": end - net[-1],
        "peak_active": curve.max(),
        "peak_index": curve.arg_max(),
        "end_active": end,
        "end_reserved": held_end,
        "peak_reserved": reserved.max(),
        "ooms": (actions == "oom").sum(),
    } == truth
    assert trace.caveats == ()


@pytest.mark.parametrize("name", [*(f"memory/{name}" for name in SNAPSHOTS), *RANKS])
def test_every_row_is_what_the_pickle_holds(corpus: Path, name: str) -> None:
    path = corpus / f"{name}.pickle.gz"
    content = pickle.loads(gzip.decompress(path.read_bytes()))  # noqa: S301 — our own recording

    trace = open_trace(path, cache=False)

    rows = [
        (d, e["action"], e.get("addr"), e["size"], e["stream"], e["time_us"] * 1000)
        for d, entries in enumerate(content["device_traces"])
        for e in entries
    ]
    columns = ["device", "action", "address", "size_bytes", "stream", "time_ns"]
    events = table(trace, "memory")
    assert events.select(columns).rows() == rows
    blocks = [
        (b["address"], b["size"], b["requested_size"], b["state"])
        for s in content["segments"]
        for b in s["blocks"]
    ]
    asked = ["address", "size_bytes", "requested_bytes", "state"]
    assert table(trace, "blocks").select(asked).rows() == blocks
    frames = table(trace, "frames").select("function", "file", "line").rows()
    stacks = table(trace, "stacks").group_by("stack_id", maintain_order=True).agg("frame_id")
    by_id = {number: [frames[f] for f in ids] for number, ids in stacks.iter_rows()}
    entries = [e for entries in content["device_traces"] for e in entries]
    for entry, stack_id in zip(entries, events["stack_id"], strict=True):
        expected = [(f["name"], f["filename"], f["line"]) for f in entry.get("frames", [])]
        assert by_id.get(stack_id, []) == expected
    assert len({tuple(stack) for stack in by_id.values()}) == len(by_id)
    if "ranges" in trace:
        assert table(trace, "ranges").height == len(content["external_annotations"]) / 2
        assert table(trace, "ranges")["closed"].all()

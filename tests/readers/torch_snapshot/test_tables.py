"""What becomes of a snapshot: every table, with its odd but honest rows."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import polars as pl
import pytest

from tests.readers.torch_snapshot.reading import read, said, stack, table
from tests.snapshots import MIB, START_US, Snapshot, changed, dump, training
from tracelens.readers.open import open_trace
from tracelens.trace.schema import TABLES

if TYPE_CHECKING:
    from pathlib import Path


def test_every_event_is_one_row_in_the_order_of_the_file(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device(0)
    block = gpu.alloc(1000, stack=("train.py:7 step",), at=START_US + 5)
    gpu.free_requested(block, at=START_US + 5)
    gpu.event("annotate", block.address, 0, at=START_US + 9, user_metadata="weight")
    gpu.free_completed(block, at=START_US + 9)

    trace = read(snapshot.content(), tmp_path)

    events = table(trace, "memory")
    assert events.schema == TABLES["memory"].schema()
    assert events["action"].to_list() == [
        "segment_alloc", "alloc", "free_requested", "annotate", "free_completed"
    ]  # fmt: skip
    assert events["time_ns"].to_list()[1:] == [1000 * (START_US + n) for n in (5, 5, 9, 9)]
    assert events["size_bytes"].to_list() == [2 * MIB, 1000, 1000, 0, 1000]
    assert events["address"].n_unique() == 1
    assert events["metadata"].to_list() == [None, None, None, "weight", None]
    assert events["pid"].to_list() == [0] * 5
    assert stack(trace, events["stack_id"][1]) == [("step", "train.py", 7)]
    assert trace.source.format == "torch-snapshot"
    assert trace.source.facts["epoch_ns"] == "0"
    assert trace.caveats == ()


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_pickle_gives_the_same_tables(tmp_path: Path, protocol: int) -> None:
    content = training().content()

    trace = read(content, tmp_path, protocol)

    (tmp_path / "other").mkdir()
    expected = read(content, tmp_path / "other", 4)
    assert trace.tables.keys() == expected.tables.keys()
    for name in trace.tables:
        assert table(trace, name).equals(table(expected, name)), name


@pytest.mark.parametrize("order", [str, lambda key: -ord(key[0]), len])
def test_json_of_the_same_dictionary_gives_the_same_tables(tmp_path: Path, order: object) -> None:
    content = training().content()
    keys = sorted(content, key=order)  # type: ignore[arg-type]
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps({key: content[key] for key in keys}), encoding="utf-8")

    trace = open_trace(path, cache=False)

    expected = read(content, tmp_path)
    assert trace.source.format == "torch-snapshot"
    for name in expected.tables:
        assert table(trace, name).equals(table(expected, name)), name


def test_a_packed_snapshot_may_be_named_as_if_it_were_not(tmp_path: Path) -> None:
    plain = training().write(tmp_path / "plain")
    packed = tmp_path / "snapshot.pickle"
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    trace = open_trace(packed, cache=False)

    assert table(trace, "memory").height == len(training().content()["device_traces"][0])


@pytest.mark.parametrize("padding", [b"\0", b"\0\0\n"])
def test_padding_after_the_pickle_is_nothing(tmp_path: Path, padding: bytes) -> None:
    path = training().write(tmp_path / "snapshot.pickle")
    path.write_bytes(path.read_bytes() + padding)

    assert open_trace(path, cache=False).caveats == ()


def test_a_cached_snapshot_is_the_same(tmp_path: Path) -> None:
    path = training().write(tmp_path / "snapshot.pickle")
    first = open_trace(path)
    again = open_trace(path)

    assert again.source == first.source
    for name in first.tables:
        assert table(again, name).equals(table(first, name)), name


def test_devices_are_the_places_of_the_traces(tmp_path: Path) -> None:
    snapshot = Snapshot()
    snapshot.device(0).alloc(1000)
    snapshot.device(3).alloc(5 * MIB)

    trace = read(snapshot.content(), tmp_path)

    events = table(trace, "memory")
    assert events["device"].to_list() == [0, 0, 3, 3]
    assert table(trace, "devices")["device"].to_list() == [0, 3]
    assert table(trace, "segments")["device"].to_list() == [0, 3]
    assert table(trace, "blocks").filter(state="active_allocated")["device"].to_list() == [0, 3]


def test_one_address_on_two_devices_is_two_blocks(tmp_path: Path) -> None:
    snapshot = Snapshot()
    for number in (0, 1):
        gpu = snapshot.device(number)
        gpu.segment(20 * MIB, address=0x7F00_0000_0000)
        gpu.alloc((number + 2) * MIB)

    trace = read(snapshot.content(), tmp_path)

    live = table(trace, "blocks").filter(state="active_allocated")
    assert live.select("device", "address", "requested_bytes").rows() == [
        (0, 0x7F00_0000_0000, 2 * MIB),
        (1, 0x7F00_0000_0000, 3 * MIB),
    ]


def test_fewer_traces_than_devices_and_segments_beyond_them(tmp_path: Path) -> None:
    snapshot = Snapshot()
    snapshot.device(0).alloc(1000)
    snapshot.device(2).alloc(2000)
    content = snapshot.content()
    content["device_traces"] = content["device_traces"][:1]

    trace = read(content, tmp_path)

    assert table(trace, "memory")["device"].unique().to_list() == [0]
    assert table(trace, "devices")["device"].to_list() == [0, 2]


def test_segments_and_blocks_are_the_state_at_the_end(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device(0)
    kept = gpu.alloc(3 * MIB, stack=("model.py:1 forward", "train.py:2 main"))
    pending = gpu.alloc(2 * MIB - 1, stack=("model.py:3 forward",))
    gpu.free_requested(pending)
    gpu.alloc(7, pool=(1, 0), stream=0x1234_5678)

    trace = read(snapshot.content(), tmp_path)

    segments, blocks = table(trace, "segments"), table(trace, "blocks")
    assert segments["size_bytes"].to_list() == [20 * MIB, 2 * MIB]
    assert segments["segment_kind"].to_list() == ["large", "small"]
    assert segments["pool"].to_list() == [None, "1,0"]
    assert segments["stream"].to_list() == [0, 0x1234_5678]
    assert segments["expandable"].to_list() == [False, False]
    assert blocks.select("segment_id", "state", "requested_bytes", "size_bytes").rows() == [
        (0, "active_allocated", 3 * MIB, 3 * MIB),
        (0, "active_pending_free", 2 * MIB - 1, 2 * MIB),
        (0, "inactive", 0, 15 * MIB),
        (1, "active_allocated", 7, 512),
        (1, "inactive", 0, 2 * MIB - 512),
    ]
    assert blocks["address"][0] == kept.address
    assert stack(trace, blocks["stack_id"][0]) == [
        ("forward", "model.py", 1),
        ("main", "train.py", 2),
    ]


def test_expandable_segments_are_mapped_and_unmapped(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device(0)
    segment = gpu.segment(20 * MIB, expandable=True)
    gpu.grow(segment, 40 * MIB)
    gpu.alloc(30 * MIB)
    gpu.shrink(segment, 20 * MIB)

    trace = read(snapshot.content(), tmp_path)

    assert table(trace, "memory").select("action", "size_bytes").rows() == [
        ("segment_map", 20 * MIB),
        ("segment_map", 40 * MIB),
        ("alloc", 30 * MIB),
        ("segment_unmap", 20 * MIB),
    ]
    assert table(trace, "segments").select("size_bytes", "expandable").rows() == [(40 * MIB, True)]


def test_out_of_memory_says_what_was_free_and_has_no_address(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device(0)
    gpu.alloc(1000)
    gpu.oom(5 << 30, free=91 * MIB, stack=("model.py:4 forward",))

    events = table(read(snapshot.content(), tmp_path), "memory")

    assert events.row(-1, named=True) | {"stack_id": 0} == {
        "time_ns": 1000 * (START_US + 3), "device": 0, "pid": 0, "tid": None, "action": "oom",
        "address": None, "size_bytes": 5 << 30, "stream": 0, "stack_id": 0,
        "memory_kind": "device", "allocated_bytes": None, "reserved_bytes": None,
        "free_bytes": 91 * MIB, "pool": None, "context": None, "metadata": None,
    }  # fmt: skip


def test_equal_stacks_are_one_wherever_they_stand(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device(0)
    deep = tuple(f"deep.py:{n} f{n}" for n in range(40))
    for _ in range(5):
        gpu.alloc(1000, stack=deep)
        gpu.alloc(1000, stack=(*deep[:20], "deep.py:99 other", *deep[21:]))
        gpu.alloc(1000, stack=())
    content = snapshot.content()
    for copied in (False, True):
        if copied:  # as JSON and C++ write it: nothing is shared
            content = json.loads(json.dumps(content))

        trace = read(content, tmp_path)

        allocs = table(trace, "memory").filter(action="alloc")["stack_id"]
        assert allocs.n_unique() == 3
        assert allocs[2] is None
        assert [line for _, _, line in stack(trace, allocs[0])] == list(range(40))
        assert [line for _, _, line in stack(trace, allocs[1])][19:22] == [19, 99, 21]
        assert table(trace, "frames").height == 41


def test_stacks_that_look_alike_are_told_apart_however_many(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device(0)
    stacks = [
        ("a.py:1 first", "a.py:2 x", *(f"a.py:{n} {c}" for c in "ab"), "m.py:9 m", "z.py:1 last")
        for n in range(100)
    ]
    for one in [*stacks, *stacks]:
        gpu.alloc(1000, stack=one)

    trace = read(snapshot.content(), tmp_path)

    found = table(trace, "memory").filter(action="alloc")["stack_id"].to_list()
    assert found[:100] == found[100:]
    assert len(set(found)) == 100
    for stack_id, one in zip(found, stacks, strict=False):
        assert [f"{f}:{n} {name}" for name, f, n in stack(trace, stack_id)] == list(one)


def test_annotations_become_ranges_that_nest(tmp_path: Path) -> None:
    snapshot = Snapshot()
    snapshot.device(0).alloc(1000, at=START_US)
    for name, stage, at in (
        ("step", "start", 1), ("forward", "start", 2), ("forward", "start", 3),
        ("forward", "end", 4), ("forward", "end", 6), ("backward", "start", 7), ("step", "end", 9),
        ("lost", "end", 10), ("step", "start", 11),
    ):  # fmt: skip
        getattr(snapshot, stage)(name, 0, START_US + at)

    trace = read(snapshot.content(), tmp_path)

    ranges = table(trace, "ranges").join(table(trace, "names"), on="name_id").sort("range_id")
    since = pl.col("start_ns", "end_ns") // 1000 - START_US
    assert ranges.select("name", since, "depth", "parent", "closed").rows() == [
        ("step", 1, 9, 0, None, True),
        ("forward", 2, 6, 1, 0, True),
        ("forward", 3, 4, 2, 1, True),
        ("backward", 7, 11, 0, None, False),
        ("step", 11, 11, 0, None, False),
    ]
    assert ranges["kind"].unique().to_list() == ["annotation"]
    assert ranges["tid"].unique().to_list() == [0]
    assert "1 annotations end without having begun" in said(trace, "lost")


def test_annotations_of_one_name_on_two_devices_are_apart(tmp_path: Path) -> None:
    snapshot = Snapshot()
    for device in (0, 1):
        snapshot.device(device).alloc(1000, at=START_US)
    for device, at in ((0, 1), (1, 2)):
        snapshot.start("forward", device, START_US + at)
    for device, at in ((0, 5), (1, 7)):
        snapshot.end("forward", device, START_US + at)

    ranges = table(read(snapshot.content(), tmp_path), "ranges").sort("tid")

    assert ranges.select("tid", (pl.col("end_ns") - pl.col("start_ns")) // 1000).rows() == [
        (0, 4),
        (1, 5),
    ]


def test_settings_are_facts_and_rings_are_told_by_device(tmp_path: Path) -> None:
    snapshot = Snapshot("2.12")
    snapshot.settings |= {
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "garbage_collection_threshold": 0.5,
        "roundup_power2_divisions": {"1": 0, "2": 4},
    }
    snapshot.ring = 3
    snapshot.device(0).alloc(1000)
    for _ in range(4):
        snapshot.device(1).alloc(1000)

    trace = read(snapshot.content(), tmp_path)

    facts = trace.source.facts
    assert facts["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert facts["garbage_collection_threshold"] == "0.5"
    assert facts["expandable_segments"] == "false"
    assert json.loads(facts["roundup_power2_divisions"]) == {"1": 0, "2": 4}
    assert json.loads(facts["trace_alloc_overflowed"]) == {"0": 0, "1": 1}
    assert json.loads(facts["trace_alloc_max_entries"]) == {"0": 3, "1": 3}
    assert said(trace, "lost").startswith("The history of 3 events of device 1 was full")


@pytest.mark.parametrize("said_as", [True, [True], {0: True}, {"0": True}])
@pytest.mark.parametrize("place", ["snapshot", "settings"])
def test_a_full_ring_is_found_wherever_it_is_said(
    tmp_path: Path, said_as: object, place: str
) -> None:
    content = training().content()
    (content if place == "snapshot" else content["allocator_settings"])[
        "trace_alloc_overflowed"
    ] = said_as

    trace = read(content, tmp_path)

    assert json.loads(trace.source.facts["trace_alloc_overflowed"]) == {"0": 1}
    assert "device 0 was full" in said(trace, "lost")


def test_what_the_user_and_the_compiler_said_is_kept(tmp_path: Path) -> None:
    content = changed(
        training(), 0, 0, user_metadata={"layer": 3, "kind": "attn"}, compile_context="0/0"
    )
    content["device_traces"][0][1]["user_metadata"] = "plain"

    events = table(read(content, tmp_path), "memory")

    assert json.loads(events["metadata"][0]) == {"layer": 3, "kind": "attn"}
    assert events["metadata"][1] == "plain"
    assert events["context"][:2].to_list() == ["0/0", None]


def test_unknown_actions_are_kept_and_unknown_keys_named(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device(0)
    gpu.alloc(1000, forward_frames=["a", "b"], internal_metadata="x")
    gpu.event("user_defined", None, 0)
    gpu.event("teleport", 12, 13, colour="red")
    content = snapshot.content()
    content["host_traces"] = [[{"action": "alloc"}, {"action": "alloc"}]]

    trace = read(content, tmp_path)

    assert table(trace, "memory")["action"].to_list()[2:] == ["user_defined", "teleport"]
    assert "host_traces (2 entries) is not read" in said(trace, "note")
    assert said(trace, "damaged") == ""


def test_negative_and_high_addresses_are_the_same_64_bits(tmp_path: Path) -> None:
    high = 0xFFFF_8000_0000_0000
    snapshot = Snapshot()
    for address in (high, high - 2**64):
        gpu = snapshot.device(0 if address > 0 else 1)
        gpu.segment(2 * MIB, address=address, kind="small", stream=address)
        gpu.alloc(1000, stream=address)

    trace = read(snapshot.content(), tmp_path)

    for name in ("memory", "segments", "blocks"):
        assert table(trace, name)["address"].min() == high - 2**64, name
    assert table(trace, "memory")["stream"].unique().to_list() == [high - 2**64]
    assert trace.caveats == ()


def test_windows_paths_and_any_name_are_as_they_are(tmp_path: Path) -> None:
    odd = "<script>\u202e\x1b[31m=cmd|' /C calc'!A0\0"
    snapshot = Snapshot()
    snapshot.device(0).alloc(1000, stack=(r"C:\Users\me\train.py:3 main",))
    content = snapshot.content()
    content["device_traces"][0][1]["frames"][0]["name"] = odd

    frames = table(read(content, tmp_path), "frames")

    assert frames.row(0) == (0, odd, r"C:\Users\me\train.py", 3)


def test_frames_of_compiled_code_may_say_more(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device(0)
    for _ in range(3):
        gpu.alloc(1000, stack=("graph.py:3 call", "train.py:4 main"))
    content = snapshot.content()
    for entry in content["device_traces"][0][1:]:
        entry["frames"] = [
            {**entry["frames"][0], "fx_node_op": "call", "fx_node_info": {"a": ["b"]}},
            entry["frames"][1],
        ]

    trace = read(content, tmp_path)

    assert table(trace, "memory")["stack_id"].n_unique() == 1
    assert trace.caveats == ()


def test_large_histories_go_through_files_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = training(steps=40)
    snapshot.device(1).alloc(1000)
    expected = table(read(snapshot.content(), tmp_path), "memory")
    monkeypatch.setattr("tracelens.readers.torch_snapshot.tables.SPILL_ROWS", 100)

    found = table(read(snapshot.content(), tmp_path), "memory")

    assert expected.height > 500
    assert found.equals(expected)


def test_a_long_history_comes_in_pieces_that_fit_together(tmp_path: Path) -> None:
    snapshot = training()
    snapshot.device(1).alloc(1000)
    content = snapshot.content()
    once, other = content["device_traces"]
    late = once[0] | {"user_metadata": "late", "stream": 7, "forward_frames": ["f"]}
    failed = {k: v for k, v in once[0].items() if k != "addr"} | {"action": "oom", "device_free": 5}
    content["device_traces"][0] = [*(once * (150_000 // len(once))), failed, late, *once]

    events = table(read(content, tmp_path), "memory")

    written = [*content["device_traces"][0], *other]
    assert events["size_bytes"].to_list() == [e["size"] for e in written]
    assert events["action"].to_list() == [e["action"] for e in written]
    assert events["address"].to_list() == [e.get("addr") for e in written]
    assert events["stream"].to_list() == [e["stream"] for e in written]
    assert events["device"].value_counts().sort("device")["count"].to_list() == [
        len(content["device_traces"][0]),
        len(other),
    ]
    place = written.index(late)
    assert events["metadata"].drop_nulls().to_list() == ["late"]
    assert events["metadata"][place] == "late"
    assert events["free_bytes"][place - 1] == 5
    frames = stack(read(content, tmp_path), events["stack_id"][place])
    assert [f["line"] for f in late["frames"]] == [line for _, _, line in frames]


@pytest.mark.parametrize(
    ("torch", "has"),
    [
        ("1.13", set()),
        ("2.1", set()),
        ("2.2", {"times"}),
        ("2.3", {"times", "settings"}),
        ("2.5", {"times", "settings", "ranges"}),
        ("2.15", {"times", "settings", "ranges"}),
    ],
)
def test_every_version_of_pytorch_gives_what_it_recorded(
    tmp_path: Path, torch: str, has: set[str]
) -> None:
    trace = read(training(torch=torch).content(), tmp_path)

    events, blocks = table(trace, "memory"), table(trace, "blocks")
    newest = read(training().content(), tmp_path)
    assert events["time_ns"].is_not_null().all() == ("times" in has)
    assert ("No times were recorded" in said(trace, "missing")) == ("times" not in has)
    assert ("expandable_segments" in trace.source.facts) == ("settings" in has)
    assert ("ranges" in trace) == ("ranges" in has)
    assert events.drop("time_ns").equals(table(newest, "memory").drop("time_ns"))
    same = ["device", "address", "size_bytes", "state"]
    assert blocks.select(same).equals(table(newest, "blocks").select(same))
    live = blocks.filter(state="active_allocated")
    assert live["requested_bytes"].to_list() == [4 * MIB]
    assert stack(trace, live["stack_id"][0]) == [("__init__", "model.py", 10)]


def test_blocks_without_requested_sizes_are_taken_as_rounded(tmp_path: Path) -> None:
    content = training(torch="1.13").content()
    for segment in content["segments"]:
        for block in segment["blocks"]:
            block.pop("history", None)

    trace = read(content, tmp_path)

    assert table(trace, "blocks")["requested_bytes"].null_count() == 0
    assert "1 blocks have no requested size" in said(trace, "missing")


def test_a_list_of_segments_is_the_state_alone(tmp_path: Path) -> None:
    segments = training().content()["segments"]

    trace = read(segments, tmp_path)

    assert "memory" not in trace
    assert table(trace, "segments").height == len(segments)
    assert "No history was recorded" in said(trace, "missing")

    path = tmp_path / "segments.json"
    path.write_text(json.dumps(segments), encoding="utf-8")

    assert table(open_trace(path, cache=False), "segments").height == len(segments)


@pytest.mark.parametrize("traces", [[], [[]], [[], []], None, "absent"])
def test_an_empty_history_says_how_to_record_one(tmp_path: Path, traces: object) -> None:
    content = training().content() | {"device_traces": traces}
    if traces == "absent":
        del content["device_traces"]

    trace = read(content, tmp_path)

    assert "memory" not in trace
    assert table(trace, "blocks").height
    missing = said(trace, "missing")
    assert "the state at its end only" in missing
    assert "torch.cuda.memory._record_memory_history() before the work" in missing
    assert said(trace, "damaged") == ""


def test_a_snapshot_of_nothing_is_read(tmp_path: Path) -> None:
    trace = read({"segments": [], "device_traces": []}, tmp_path)

    assert table(trace, "devices").is_empty()
    assert "nothing at all" in said(trace, "missing")


def test_a_history_of_one_event_is_no_history(tmp_path: Path) -> None:
    snapshot = training()
    snapshot.ring = 1

    trace = read(snapshot.content(), tmp_path)

    assert table(trace, "memory").height == 1
    assert "one event per device" in said(trace, "missing")


def test_a_path_of_any_kind_reaches_the_child(tmp_path: Path) -> None:
    folder = tmp_path / "a?b #é '\"$(x)"
    folder.mkdir()
    path = training().write(folder / "-c import os.pickle")

    assert table(open_trace(path, cache=False), "memory").height


def test_events_from_other_tools_without_requests_are_kept(tmp_path: Path) -> None:
    content = training().content()
    for entry in content["device_traces"][0]:
        if entry["action"] == "free_completed":
            entry["action"] = "free"
    dumped = dump(content, tmp_path / "snapshot.pickle")

    events = table(open_trace(dumped, cache=False), "memory")

    assert events["action"].value_counts().filter(action="free")["count"].to_list() == [10]

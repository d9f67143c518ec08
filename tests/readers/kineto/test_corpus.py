"""Real torch.profiler traces give what plain Python counts in their JSON, to the nanosecond."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tests.asking import linked, table, the_row
from tests.readers.kineto.reading import read, rows, said, story
from tracelens.links.ops import launched, ops_of

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.links.linked import Linked

pytestmark = pytest.mark.corpus

FILES = (
    "kineto/cudagraph-replay-h200",
    "kineto/gpt2-large-ctx256-cuda-only-no-cpu-h200",
    "kineto/gpt2-medium-ctx512-bf16-compile-h200",
    "kineto/gpt2-small-ctx512-bf16-stacks-memory-h200",
    "kineto/gpt2-xl-ctx256-fp32-h200",
    "kineto/profilerstep-no-phases-h200",
    "kineto/three-streams-overlap-h200",
    "multirank/gpt2-medium-ddp-h200x2/rank0",
    "multirank/gpt2-medium-ddp-h200x2/rank1",
    "multirank/gpt2-medium-fsdp-h200x2/rank0",
    "multirank/gpt2-medium-fsdp-h200x2/rank1",
)
WORK = {"kernel": "kernel", "gpu_memcpy": "copy", "gpu_memset": "memset"}
Row = tuple[Any, ...]
Of = tuple["Linked", "Plain"]


@dataclass
class Plain:
    """A trace as JSON, with times in nanoseconds: slow, and nothing to get wrong."""

    document: dict[str, Any]

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """All events, with `start` and `end` in Unix nanoseconds."""
        base = self.document["baseTimeNanoseconds"]
        for event in self.document["traceEvents"]:
            event["start"] = base + int(event["ts"] * 1_000)
            event["end"] = event["start"] + int(event.get("dur", 0) * 1_000)
        return self.document["traceEvents"]  # type: ignore[no-any-return]

    def of(self, *categories: str) -> list[dict[str, Any]]:
        """Return the events of some categories that take time."""
        return [e for e in self.events if e["ph"] == "X" and e["cat"] in categories]

    @cached_property
    def work(self) -> list[dict[str, Any]]:
        """Kernels, copies and memsets."""
        return self.of(*WORK)

    @cached_property
    def calls(self) -> dict[int, dict[str, Any]]:
        """The call of each correlation; of several the shortest, which the others enclose."""
        found: dict[int, dict[str, Any]] = {}
        for call in sorted(self.of("cuda_runtime", "cuda_driver"), key=lambda e: -e["dur"]):
            found[call["args"]["correlation"]] = call
        return found

    def launch(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """Return the call that launched work."""
        return self.calls.get(event["args"]["correlation"])

    def innermost(self, moments: list[tuple[int, int]]) -> dict[tuple[int, int], str]:
        """Return the name of the innermost op that is open at each (thread, time), if any."""
        ops = defaultdict(list)
        for op in self.of("cpu_op"):
            ops[op["tid"]].append((op["start"], -op["end"], op["name"]))
        asked = defaultdict(list)
        for tid, time in set(moments):
            asked[tid].append(time)
        found = {}
        for tid, times in asked.items():
            waiting = sorted(ops[tid], reverse=True)
            stack: list[tuple[int, str]] = []
            for time in sorted(times):
                while waiting and waiting[-1][0] <= time:
                    start, end, name = waiting.pop()
                    while stack and stack[-1][0] <= start:
                        stack.pop()
                    stack.append((-end, name))
                while stack and stack[-1][0] <= time:
                    stack.pop()
                if stack:
                    found[tid, time] = stack[-1][1]
        return found

    def busy(self) -> int:
        """Return the union of all work per device, summed."""
        total = 0
        for device in {e["args"]["device"] for e in self.work}:
            until = 0
            for start, end in sorted(
                (e["start"], e["end"]) for e in self.work if e["args"]["device"] == device
            ):
                total += max(0, end - max(start, until))
                until = max(until, end)
        return total

    def span(self) -> int:
        """Return first start to last end of work per device, summed."""
        edges: dict[int, list[int]] = defaultdict(list)
        for event in self.work:
            edges[event["args"]["device"]] += [event["start"], event["end"]]
        return sum(max(times) - min(times) for times in edges.values())


@pytest.fixture(scope="module", params=FILES)
def recording(request: pytest.FixtureRequest, corpus: Path) -> Of:
    """Give each recording with its work attributed, and its plain JSON."""
    file = corpus / f"{request.param}.json.gz"
    if not file.is_file():
        pytest.skip(f"{file} is absent")
    return linked(file), Plain(json.loads(gzip.decompress(file.read_bytes()), parse_float=Decimal))


def took(events: list[dict[str, Any]]) -> int:
    return sum(e["end"] - e["start"] for e in events)


def absolute(of: Linked, frame: str, *columns: str) -> Counter[Row]:
    """Return rows of a table with Unix times."""
    epoch = int(of.trace.source.facts["epoch_ns"])
    return Counter(
        tuple(v + epoch if c.endswith("_ns") else v for c, v in zip(columns, row, strict=True))
        for row in rows(of.trace, frame, *columns)
    )


def test_no_recording_is_left_out(corpus: Path) -> None:
    found = [*(corpus / "kineto").glob("*.json.gz"), *(corpus / "multirank").glob("*/*.json.gz")]

    assert sorted(str(f.relative_to(corpus)).removesuffix(".json.gz") for f in found) == list(FILES)


def test_nothing_is_said_to_be_damaged(recording: Of) -> None:
    of, _ = recording

    assert said(of.trace, "damaged", "lost") == []


def test_every_piece_of_work_is_there_at_its_time_and_place(recording: Of) -> None:
    of, plain = recording
    columns = ("start_ns", "end_ns", "kind", "device", "stream", "context", "correlation", "name",
               "bytes")  # fmt: skip
    where = ("device", "stream", "context", "correlation")

    assert absolute(of, "gpu_ops", *columns) == Counter(
        (e["start"], e["end"], WORK[e["cat"]], *(e["args"][key] for key in where), e["name"],
         e["args"].get("bytes"))
        for e in plain.work
    )  # fmt: skip


def test_totals_busy_and_idle_are_true_to_the_nanosecond(recording: Of) -> None:
    of, plain = recording
    row = the_row(of, "totals")
    kernels, copies = plain.of("kernel"), plain.of("gpu_memcpy")

    assert (row["kernels"], row["kernel_time_ns"]) == (len(kernels), took(kernels))
    assert (row["copies"], row["copy_time_ns"]) == (len(copies), took(copies))
    assert (row["busy_ns"], row["span_ns"]) == (plain.busy(), plain.span())
    assert row["idle_ns"] == plain.span() - plain.busy()


def test_kernels_have_their_calls_and_times(recording: Of) -> None:
    of, plain = recording
    true: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for event in plain.of("kernel"):
        true[event["name"]][0] += 1
        true[event["name"]][1] += event["end"] - event["start"]

    found = {row["name"]: [row["calls"], row["total_ns"]] for row in table(of, "kernels")}

    assert found == dict(true)


def test_calls_ops_annotations_and_frames_are_there(recording: Of) -> None:
    of, plain = recording
    calls = plain.of("cuda_runtime", "cuda_driver")
    kinds = {"cpu_op": "op", "user_annotation": "annotation", "python_function": "python"}

    assert absolute(of, "api", "start_ns", "end_ns", "pid", "tid", "name", "correlation") == (
        Counter((c["start"], c["end"], c["pid"], c["tid"], c["name"], c["args"]["correlation"])
                for c in calls)
    )  # fmt: skip
    ranges = plain.of(*kinds)
    if ranges:
        columns = ("start_ns", "end_ns", "pid", "tid", "kind", "name")
        assert absolute(of, "ranges", *columns) == Counter(
            (e["start"], e["end"], e["pid"], e["tid"], kinds[e["cat"]], e["name"]) for e in ranges
        )
    else:
        assert "ranges" not in of.trace


def test_every_launch_whose_call_was_recorded_is_found(recording: Of) -> None:
    of, plain = recording
    epoch = int(of.trace.source.facts["epoch_ns"])
    launches = [(e["start"], plain.launch(e)) for e in plain.work]
    true = Counter((at, call and call["start"], call and call["tid"]) for at, call in launches)

    found = of.ops.select("start_ns", "launch_ns", "launch_tid").with_columns(
        pl.col("start_ns", "launch_ns") + epoch
    )

    assert Counter(found.rows()) == true
    assert of.coverage()["unlinked"] == sum(call is None for _, call in launches)


def test_every_kernel_is_tied_to_the_op_around_its_launch(recording: Of) -> None:
    of, plain = recording
    found = ops_of(of)
    if found is None:
        assert plain.of("cpu_op") == []
        return
    by_id = {op["args"]["External id"]: op["name"] for op in plain.of("cpu_op")}
    calls = [(e, plain.launch(e)) for e in plain.work]
    around = plain.innermost([(call["tid"], call["start"]) for _, call in calls if call])
    true: Counter[str | None] = Counter()
    for event, call in calls:
        name = around.get((call["tid"], call["start"])) if call else None
        true[name or by_id.get(event["args"].get("External id"))] += 1

    names = found.nest.frame.join(found.names, on="name_id", how="left", maintain_order="left")
    tied = names["name"].gather(launched(of, found)["row"])

    assert Counter(tied) == true
    by_name = {row["name"]: row["self_kernels"] for row in table(of, "ops")}
    assert sum(by_name.values()) == len(plain.of("kernel"))


def test_gradients_are_tied_to_their_forward_ops_as_the_arrows_say(recording: Of) -> None:
    of, plain = recording
    arrows = [e for e in plain.events if e.get("cat") == "fwdbwd"]
    if not arrows:
        assert not any(op["args"].get("Fwd thread id") for op in plain.of("cpu_op"))
        return
    ends = {ph: {e["id"]: (e["tid"], e["start"]) for e in arrows if e["ph"] == ph} for ph in "sf"}
    true = {ends["f"][number]: begin for number, begin in ends["s"].items()}
    epoch = int(of.trace.source.facts["epoch_ns"])
    place = of.trace["ranges"].select("range_id", "tid", start=pl.col("start_ns") + epoch)

    found = (
        of.trace["ops"].filter(pl.col("forward").is_not_null())
        .join(place, on="range_id")
        .join(place, left_on="forward", right_on="range_id", suffix="_of")
        .select("tid", "start", "tid_of", "start_of").collect()
    )  # fmt: skip
    told = {(tid, start): (tid_of, start_of) for tid, start, tid_of, start_of in found.rows()}

    assert {at: told.get(at) for at in true} == true
    wrappers = [op for op in plain.of("cpu_op") if op["args"].get("Fwd thread id")]
    assert len(told) == len({(op["tid"], op["start"]) for op in wrappers})


def test_memory_is_what_the_allocators_said(recording: Of) -> None:
    of, plain = recording
    events = [e for e in plain.events if e.get("name") == "[memory]"]
    if not events:
        assert "memory" not in of.trace
        return
    columns = ("time_ns", "pid", "tid", "action", "size_bytes", "memory_kind", "address",
               "allocated_bytes", "reserved_bytes")  # fmt: skip

    def told(event: dict[str, Any]) -> Row:
        args, size = event["args"], event["args"]["Bytes"]
        action, kind = "alloc" if size >= 0 else "free", "device" if args["Device Type"] else "host"
        known = (args[key] for key in ("Addr", "Total Allocated", "Total Reserved"))
        return (event["start"], event["pid"], event["tid"], action, abs(size), kind, *known)

    assert absolute(of, "memory", *columns) == Counter(map(told, events))
    times = [time for (time,) in rows(of.trace, "memory", "time_ns")]
    assert times == sorted(times)


def test_collectives_are_what_their_kernels_say(recording: Of) -> None:
    of, plain = recording
    keys = {"collective": "Collective name", "in_elements": "In msg nelems", "dtype": "dtype",
            "out_elements": "Out msg nelems", "group_size": "Group size", "sequence": "Seq",
            "group": "Process Group Name", "ranks": "Process Group Ranks",
            "group_description": "Process Group Description"}  # fmt: skip
    members = [e for e in plain.work if "Collective name" in e["args"]]
    if not members:
        assert "collectives" not in of.trace
        return

    found = of.trace["collectives"].join(of.trace["gpu_ops"], on="op_id").collect()

    assert Counter(found.select("correlation", *keys).rows()) == Counter(
        (e["args"]["correlation"], *(e["args"].get(key) for key in keys.values())) for e in members
    )


def test_threads_and_gpus_have_their_names(recording: Of) -> None:
    of, plain = recording
    names = defaultdict(set)
    for event in plain.events:
        if event["name"] == "thread_name":
            said_of = event["args"]["name"].partition("(")[2].rstrip(")")
            names[event["pid"], event["tid"]].add(said_of)
    devices = plain.document["deviceProperties"]

    if "threads" in of.trace:
        for pid, tid, name in rows(of.trace, "threads", "pid", "tid", "name"):
            assert name in names[pid, tid]
            assert name.startswith("pt_autograd") or len(names[pid, tid]) == 1
    assert rows(of.trace, "devices", "device", "name", "sm_count", "memory_bytes") == [
        (d["id"], d["name"], d["numSms"], d["totalGlobalMem"]) for d in devices
    ]


def test_phases_are_true_where_ranges_name_them(recording: Of, corpus: Path) -> None:
    of, _ = recording
    truth = json.loads((corpus / "kineto_truth.json").read_text(encoding="utf-8"))
    known = truth.get(of.trace.source.path.name)

    found = {
        str(row["phase"]): [row["kernels"], row["kernel_time_ns"]]
        for row in table(of, "phases")
        if row["kernels"]
    }

    if known is not None:
        assert (of.phase_source, found) == ("ranges", known["phases"])
        assert of.coverage()["unlinked"] == known["unlinked"]


def test_phases_families_and_ops_add_up_to_the_totals(recording: Of) -> None:
    of, plain = recording
    totals = the_row(of, "totals")

    for name in ("phases", "families"):
        found = table(of, name)
        assert sum(row["kernels"] for row in found) == totals["kernels"]
        assert sum(row["kernel_time_ns"] for row in found) == totals["kernel_time_ns"]
    if ops_of(of) is not None:
        work = totals["kernel_time_ns"] + totals["copy_time_ns"]
        work += took(plain.of("gpu_memset"))
        assert sum(row["self_gpu_time_ns"] for row in table(of, "ops")) == work


def test_all_kernels_of_a_replayed_graph_are_of_its_launch(corpus: Path) -> None:
    of = linked(corpus / "kineto" / "cudagraph-replay-h200.json.gz")
    kernels = of.ops.filter(pl.col("kind") == "kernel")

    assert kernels.height == 2_440
    assert kernels["launch_row"].null_count() == 0
    launches = kernels.group_by("launch_row").len()["len"]
    assert (len(launches), launches.unique().to_list()) == (20, [122])


def test_profiler_steps_are_steps(corpus: Path) -> None:
    of = linked(corpus / "kineto" / "profilerstep-no-phases-h200.json.gz")

    names = of.steps["name"].to_list()

    assert names
    assert all(name.startswith("ProfilerStep#") for name in names)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_a_rank_knows_its_number_and_its_gpu(corpus: Path, name: str, rank: int) -> None:
    of = linked(corpus / "multirank" / f"gpt2-medium-{name}-h200x2" / f"rank{rank}.json.gz")

    facts = of.trace.source.facts
    assert (facts["rank"], facts["world_size"]) == (str(rank), "2")
    assert of.ops["device"].unique().to_list() == [rank]


@pytest.mark.parametrize("name", ["profilerstep-no-phases-h200", "three-streams-overlap-h200"])
def test_what_json_dumps_writes_of_a_recording_says_the_same(
    corpus: Path, tmp_path: Path, name: str
) -> None:
    content = gzip.decompress((corpus / "kineto" / f"{name}.json.gz").read_bytes())
    whole = read(content, tmp_path)

    again = json.loads(content)
    again["traceEvents"].reverse()

    assert story(read(json.dumps(again, separators=(",", ":")), tmp_path, "again.json")) == (
        story(whole)
    )


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_recording_cut_off_anywhere_shows_what_is_left(
    corpus: Path, tmp_path: Path, share: float
) -> None:
    file = corpus / "kineto" / "three-streams-overlap-h200.json.gz"
    content = gzip.decompress(file.read_bytes())
    whole = absolute(linked(file), "gpu_ops", "start_ns", "end_ns", "name")

    path = tmp_path / "cut.json"
    path.write_bytes(content[: int(share * len(content))])
    of = linked(path)

    found = Counter[Row]()
    if "gpu_ops" in of.trace:
        found = absolute(of, "gpu_ops", "start_ns", "end_ns", "name")
    assert found <= whole
    assert (found == whole) == (share > 0.99)
    assert any("cut off" in text for text in said(of.trace, "damaged"))

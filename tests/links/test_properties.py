"""What holds for every trace: sums add up, and neither order nor company changes a number."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.asking import linked, nearly, phase_of, table, the_row
from tests.build import Nsys
from tracelens.errors import NothingToShowError
from tracelens.links import idle, launches
from tracelens.readers.nsys import gather, sqlite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.links.linked import Linked

PIDS = (100, 200)
THREADS = ("python", "pt_autograd_0", "helper")
PHASES = ("forward", "backward", "optimizer", "step 1", "layer")
KERNELS = (
    "ampere_sgemm_128x64_tn",
    "void at::native::vectorized_elementwise_kernel<4, gelu>(int)",
    "void at::native::multi_tensor_apply_kernel<at::native::FusedAdamMathFunctor<float, 4>>(int)",
    "PdV_kernel(bool, int)",
)


@dataclass(frozen=True)
class Work:
    """One launch on one thread, and what it did on the GPU; ``at`` of None was not recorded."""

    pid: int
    thread: int
    at: int | None
    run: tuple[int, int]
    what: str
    device: int
    stream: int


@dataclass(frozen=True)
class Range:
    """One NVTX range of one thread."""

    pid: int
    thread: int
    name: str
    span: tuple[int, int]
    domain: str | None


@dataclass(frozen=True)
class Story:
    """Ranges and work of two processes that know nothing of each other."""

    ranges: tuple[Range, ...]
    work: tuple[Work, ...]

    def trace(self, *, pids: Sequence[int] = PIDS) -> Nsys:
        """Return the trace of some of the processes."""
        trace = Nsys()
        for r in self.ranges:
            if r.pid in pids:
                thread = trace.thread(THREADS[r.thread], pid=r.pid, tid=r.pid + r.thread)
                thread.push(r.name, *r.span, domain=r.domain, kind="start_end")
        for w in self.work:
            if w.pid not in pids:
                continue
            thread = trace.thread(THREADS[w.thread], pid=w.pid, tid=w.pid + w.thread)
            where: Any = {"device": w.device, "stream": w.stream}
            if w.at is None:
                trace.kernel_without_launch("lost", w.run, pid=w.pid, **where)
            elif w.what == "copy":
                thread.copy(bytes=64, at=w.at, run=w.run, **where)
            elif w.what == "memset":
                thread.memset(bytes=64, at=w.at, run=w.run, **where)
            elif w.what == "graph":
                thread.graph(graph_id=1, at=w.at, run=w.run, **where)
            else:
                thread.kernel(w.what, at=w.at, run=w.run, **where)
        return trace


def spans(last: int, longest: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, last), st.integers(0, longest)).map(
        lambda s: (s[0], s[0] + s[1])
    )


threads = st.integers(0, len(THREADS) - 1)
ranges = st.builds(
    Range,
    pid=st.sampled_from(PIDS),
    thread=threads,
    name=st.sampled_from(PHASES),
    span=spans(60, 40),
    domain=st.sampled_from((None, None, None, "library")),
)
work = st.builds(
    Work,
    pid=st.sampled_from(PIDS),
    thread=threads,
    at=st.one_of(st.integers(-5, 100), st.integers(-5, 100), st.integers(-5, 100), st.none()),
    run=spans(100, 20),
    what=st.sampled_from((*KERNELS, *KERNELS, "copy", "memset", "graph")),
    device=st.integers(0, 1),
    stream=st.integers(7, 8),
)
stories = st.builds(
    Story,
    ranges=st.lists(ranges, max_size=8).map(tuple),
    work=st.lists(work, min_size=1, max_size=20).map(tuple),
)
some = settings(max_examples=25)

Files = pytest.TempPathFactory


def attributed(trace: Nsys, files: Files, *, shuffle: int | None = None, **cut: Any) -> Linked:
    return linked(trace.write(files.mktemp("t") / "run.sqlite", shuffle=shuffle), **cut)


def sums(rows: Sequence[dict[str, Any]], *columns: str) -> tuple[int, ...]:
    return tuple(sum(row[column] for row in rows) for column in columns)


@some
@given(story=stories, attribution=st.sampled_from(["launch", "execution"]))
def test_every_table_adds_up_to_the_totals(
    tmp_path_factory: Files, story: Story, attribution: str
) -> None:
    of = attributed(story.trace(), tmp_path_factory, attribution=attribution)
    totals, phases, families = the_row(of, "totals"), table(of, "phases"), table(of, "families")
    kernels = [w for w in story.work if w.at is None or w.what in KERNELS]

    assert (totals["kernels"], totals["kernel_time_ns"]) == (
        len(kernels),
        sum(w.run[1] - w.run[0] for w in kernels),
    )
    added = ("kernels", "kernel_time_ns", "graph_launches", "graph_time_ns", "copies",
             "copy_time_ns")  # fmt: skip
    assert sums(phases, *added) == tuple(totals[column] for column in added)
    for row in phases:
        mine = [f for f in families if f["phase"] == row["phase"]]
        columns = ("kernels", "kernel_time_ns", "graph_time_ns")
        assert sums(mine, *columns) == tuple(row[column] for column in columns)
    assert sums(table(of, "kernels"), "calls", "total_ns") == (
        totals["kernels"],
        totals["kernel_time_ns"],
    )
    coverage = of.coverage()
    assert coverage.pop("gpu_ops") == sum(coverage.values()) == len(story.work)


@some
@given(story=stories)
def test_the_union_is_at_most_the_sum_and_the_rest_is_idle(
    tmp_path_factory: Files, story: Story
) -> None:
    of = attributed(story.trace(), tmp_path_factory)
    totals = the_row(of, "totals")
    times = ("kernel_time_ns", "copy_time_ns", "memset_time_ns", "graph_time_ns")
    devices = table(of, "devices")

    assert totals["busy_ns"] <= sum(totals[time] for time in times)
    assert totals["busy_ns"] + totals["idle_ns"] == totals["span_ns"]
    assert sums(devices, "busy_ns", "idle_ns") == (totals["busy_ns"], totals["idle_ns"])
    assert sums(table(of, "gaps"), "idle_ns") == (totals["idle_ns"],)
    ticks = {(w.device, tick) for w in story.work for tick in range(*w.run)}
    assert totals["busy_ns"] == len(ticks)
    for row in table(of, "phases"):
        assert row["busy_ns"] <= totals["busy_ns"]
    for row in table(of, "streams"):
        assert row["busy_ns"] + row["self_overlap_ns"] == row["total_ns"]
        assert 0 <= row["beside_ns"] <= row["busy_ns"]


@some
@given(story=stories, seed=st.integers(0, 10))
def test_the_order_of_rows_in_the_file_does_not_matter(
    tmp_path_factory: Files, story: Story, seed: int
) -> None:
    trace = story.trace()
    first = attributed(trace, tmp_path_factory)
    again = attributed(trace, tmp_path_factory, shuffle=seed)

    assert first.coverage() == again.coverage()
    assert first.phase_source == again.phase_source
    tables = ["totals", "phases", "families", "kernels", "copies", "streams", "devices"]
    tables += ["ranges"] * bool(story.ranges) + ["api"] * any(w.at is not None for w in story.work)
    for name in tables:
        assert nearly(table(first, name)) == nearly(table(again, name))
    # Of ops that begin together either may be the one that ended the gap; its length is the same.
    idle_times = [
        sorted((r["device"], r["start_ns"], r["end_ns"]) for r in table(of, "longest_gaps"))
        for of in (first, again)
    ]
    assert idle_times[0] == idle_times[1]


@some
@given(story=stories)
def test_gaps_are_what_is_not_busy(tmp_path_factory: Files, story: Story) -> None:
    rows = table(attributed(story.trace(), tmp_path_factory), "longest_gaps")

    for device in {w.device for w in story.work}:
        busy = [w.run for w in story.work if w.device == device]
        idle = [(r["start_ns"], r["end_ns"]) for r in rows if r["device"] == device]
        whole = set(range(min(start for start, _ in busy), max(end for _, end in busy)))
        assert ticks(idle) == whole - ticks(busy)
        assert sum(end - start for start, end in idle) == len(ticks(idle))
        assert all(start < end for start, end in idle)


def ticks(spans: Sequence[tuple[int, int]]) -> set[int]:
    return {tick for span in spans for tick in range(*span)}


@some
@given(story=stories)
def test_what_is_done_in_parts_is_what_is_done_at_once(
    tmp_path_factory: Files, story: Story
) -> None:
    """Large recordings are read, joined and searched some millions of rows at a time."""
    path = story.trace().write(tmp_path_factory.mktemp("t") / "run.sqlite")
    tables = ("totals", "phases", "families", "kernels", "copies", "gaps", "longest_gaps")
    whole = [nearly(table(linked(path), name)) for name in tables]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "PIECE_ROWS", 2)
        patch.setattr(gather, "SPILL_PARTS", 2)
        patch.setattr(launches, "_JOINED_AT_ONCE", 3)
        patch.setattr(idle, "_PART_ROWS", 2)
        parts = [nearly(table(linked(path), name)) for name in tables]

    assert parts == whole


@some
@given(story=stories)
def test_processes_read_one_by_one_add_up_to_the_whole(
    tmp_path_factory: Files, story: Story
) -> None:
    def by_phase(of: Linked) -> dict[str | None, Counter[str]]:
        columns = ("kernels", "kernel_time_ns", "graph_time_ns", "copies", "copy_time_ns")
        return {
            row["phase"]: Counter({column: row[column] for column in columns})
            for row in table(of, "phases")
        }

    whole = by_phase(attributed(story.trace(), tmp_path_factory))
    added: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
    for pid in PIDS:
        if any(w.pid == pid for w in story.work):
            for phase, row in by_phase(
                attributed(story.trace(pids=[pid]), tmp_path_factory)
            ).items():
                added[phase].update(row)

    assert whole == added


@some
@given(story=stories)
def test_parts_cut_by_phase_or_device_add_up_to_the_whole(
    tmp_path_factory: Files, story: Story
) -> None:
    path = story.trace().write(tmp_path_factory.mktemp("t") / "run.sqlite")
    columns = ("kernels", "kernel_time_ns", "copies", "copy_time_ns", "memsets", "graph_launches")

    def totals(**cut: Any) -> Counter[str]:
        row = the_row(linked(path, **cut), "totals")
        return Counter({column: row[column] for column in columns})

    whole = totals()
    phases = ("forward", "backward", "optimizer", "(none)")
    devices = {w.device for w in story.work}

    assert sum((totals(phases=(phase,)) for phase in phases), Counter()) == +whole
    assert sum((totals(device=device) for device in devices), Counter()) == +whole


@some
@given(
    spans=st.lists(spans(60, 40), min_size=1, max_size=10),
    launches=st.lists(st.integers(-5, 105), max_size=20),
    push_pop=st.booleans(),
)
def test_a_range_holds_what_its_thread_launched_in_it(
    tmp_path_factory: Files, spans: list[tuple[int, int]], launches: list[int], *, push_pop: bool
) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for number, span in enumerate(spans):
        main.push(f"r{number}", *span, kind="push_pop" if push_pop else "start_end")
    for number, at in enumerate(launches):
        main.kernel("k", at=at, run=(200 + 10 * number, 201 + 11 * number))

    rows = {row["name"]: row for row in table(attributed(trace, tmp_path_factory), "ranges")}

    for number, (start, end) in enumerate(spans):
        inside = [n for n, at in enumerate(launches) if start <= at < end]
        row = rows[f"r{number}"]
        assert row["kernels"] == len(inside)
        assert row["kernel_time_ns"] == sum(1 + n for n in inside)
        assert row["cpu_ns"] == end - start


@some
@given(story=stories)
def test_a_phase_is_that_of_the_own_thread_or_one_that_no_other_thread_denies(
    tmp_path_factory: Files, story: Story
) -> None:
    """Against a loop over all ranges, for launches of traces with default-domain phases."""
    named = [r for r in story.ranges if r.name in PHASES[:3] and r.domain is None]
    launches = [w for w in story.work if w.at is not None and w.what in KERNELS]
    trace = Nsys()
    for r in named:
        thread = trace.thread(THREADS[r.thread], pid=r.pid, tid=r.pid + r.thread)
        thread.push(r.name, *r.span, kind="start_end")
    for number, w in enumerate(launches):
        thread = trace.thread(THREADS[w.thread], pid=w.pid, tid=w.pid + w.thread)
        thread.kernel(f"k{number}", at=w.at or 0, run=w.run)
    if not launches or not named:
        return
    found = phase_of(attributed(trace, tmp_path_factory))

    for number, w in enumerate(launches):
        if not any(r.pid == w.pid for r in named):
            continue  # a process without phase ranges has its phases inferred
        open_now = [r for r in named if r.pid == w.pid and r.span[0] <= (w.at or 0) < r.span[1]]
        by_thread: dict[int, Range] = {}
        for r in sorted(open_now, key=lambda r: (r.span[0], -r.span[1])):
            by_thread[r.thread] = r
        phase, how = found[f"k{number}"]
        if not open_now:
            assert (phase, how) == (None, "none")
        elif w.thread in by_thread:
            mine = by_thread[w.thread]
            same = {r.name for r in open_now if (r.thread, r.span) == (mine.thread, mine.span)}
            assert (how, phase in same) == ("own_thread", True)
        elif how == "ambiguous":
            assert phase is None
            assert len({r.name for r in by_thread.values()}) > 1 or len(open_now) > len(by_thread)
        else:
            assert how == "same_process"
            assert phase in {r.name for r in open_now}


@some
@given(
    ends=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    launches=st.lists(st.tuples(st.integers(0, 120), spans(150, 30)), max_size=20),
)
def test_a_step_is_busy_at_most_for_its_span(
    tmp_path_factory: Files, ends: list[int], launches: list[tuple[int, tuple[int, int]]]
) -> None:
    trace = Nsys()
    main = trace.thread("python")
    start = 0
    for number, length in enumerate(ends):
        main.push(f"step {number}", start, start + length)
        start += length
    for at, run in launches:
        main.kernel("k", at=at, run=run)
    of = attributed(trace, tmp_path_factory)
    rows = table(of, "steps")

    assert [row["duration_ns"] for row in rows] == ends
    inside = [run for at, run in launches if at < start]
    assert sums(rows, "kernels", "kernel_time_ns") == (
        len(inside),
        sum(end - begin for begin, end in inside),
    )
    for row in rows:
        mine = [
            run
            for at, run in launches
            if row["start_ns"] <= at < row["start_ns"] + row["duration_ns"]
        ]
        span = max((e for _, e in mine), default=0) - min((s for s, _ in mine), default=0)
        assert row["busy_ns"] == len({tick for run in mine for tick in range(*run)}) <= span
        assert row["busy_ns"] + row["idle_ns"] == span


@some
@given(story=stories)
def test_steps_never_hold_more_than_there_is(tmp_path_factory: Files, story: Story) -> None:
    of = attributed(story.trace(), tmp_path_factory)
    try:
        rows = table(of, "steps")
    except NothingToShowError:
        return
    totals = the_row(of, "totals")

    assert sums(rows, "kernels")[0] <= totals["kernels"]
    for row in rows:
        parts = ("forward_ns", "backward_ns", "optimizer_ns", "other_ns")
        assert sum(row[part] for part in parts) == row["kernel_time_ns"]

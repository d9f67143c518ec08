"""Statistics of a range of time: those of a summary over all of it, and parts that add up."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("numpy", reason="no numpy: the explorer is not installed")
pytest.importorskip("dash", reason="no dash: the explorer is not installed")

from tracelens_dashboards.library import Library
from tracelens_dashboards.timeline.rows import timeline
from tracelens_dashboards.timeline.selection import MOST_ROWS, TABLES, statistics

from tests.asking import nearly
from tracelens.analyses.totals import totals
from tracelens.links.linked import Linked, link
from tracelens.readers.open import open_trace
from tracelens.tables.build import fill

if TYPE_CHECKING:
    from collections.abc import Iterable

SAMPLES: Final = Path(__file__).parents[2] / "samples"
NSYS: Final = SAMPLES / "gpt2-xl-ctx256-h200" / "run.sqlite.gz"
KINETO: Final = SAMPLES / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz"
SUMS: Final = (
    "kernel_time_ns", "copy_time_ns", "memset_time_ns", "graph_time_ns", "busy_ns", "idle_ns",
)  # fmt: skip


@pytest.fixture(scope="module", params=[NSYS, KINETO], ids=["nsys", "kineto"])
def linked(request: pytest.FixtureRequest) -> Linked:
    """Give a recording of ours."""
    return link(open_trace(request.param, cache=False))


def span(linked: Linked) -> tuple[int, int]:
    first, last = linked.ops.select(pl.col("start_ns").min(), pl.col("end_ns").max()).row(0)
    return first, last


def rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    return table["rows"]  # type: ignore[no-any-return]


def test_over_all_of_it_they_are_those_of_a_summary(linked: Linked) -> None:
    found = statistics(linked, *span(linked))
    tables = {table["name"]: table for table in found["tables"]}
    known = totals(linked).row(0, named=True)

    assert found["totals"]["crossing"] == 0
    assert {**found["totals"], **known} == found["totals"] | {"span_ns": known["span_ns"]}
    for name in TABLES:
        whole = fill(linked, name)
        shown = [column.name for column in whole.table.columns if column.shown]
        expected = whole.frame.select(shown).head(MOST_ROWS).to_dicts()

        assert nearly(rows(tables[name])) == nearly(expected)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(cuts=st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_the_parts_of_a_range_add_up(linked: Linked, cuts: list[float]) -> None:
    first, last = span(linked)
    inner = {first + int(cut * (last - first)) for cut in cuts}
    edges = sorted({first, last, *inner})
    parts = [statistics(linked, *part) for part in pairwise(edges)]
    whole = statistics(linked, first, last)

    for name in SUMS:
        assert sum(part["totals"][name] for part in parts) == whole["totals"][name]
    for part in parts:
        assert_adds_up(part)


def assert_adds_up(part: dict[str, Any]) -> None:
    """Compare the tables of one range with its totals."""
    tables = {table["name"]: rows(table) for table in part["tables"]}
    kernels = part["totals"]["kernels"]

    assert total(tables["phases"], "kernels") == kernels
    assert total(tables["families"], "kernels") == kernels
    for name in ("phases", "families"):
        assert total(tables[name], "kernel_time_ns") == part["totals"]["kernel_time_ns"]
    if len(tables["kernels"]) < MOST_ROWS:
        assert total(tables["kernels"], "calls") == kernels
        assert total(tables["kernels"], "total_ns") == part["totals"]["kernel_time_ns"]
    for device in part["devices"]:
        assert device["busy_ns"] + device["idle_ns"] == part["to"] - part["from"]


def total(table: Iterable[dict[str, Any]], column: str) -> int:
    return sum(row[column] for row in table)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(ends=st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda e: abs(e[0] - e[1]) > 1e-6))
def test_a_range_holds_the_parts_of_ops_that_lie_in_it(
    linked: Linked, ends: tuple[float, float]
) -> None:
    first, last = span(linked)
    low, high = sorted(first + int(end * (last - first)) for end in ends)
    found = statistics(linked, low, high)["totals"]
    ops = linked.ops.filter(pl.col("kind") == "kernel").select("start_ns", "end_ns").rows()
    inside = [(start, end) for start, end in ops if start < high and (end > low or start >= low)]

    assert found["kernels"] == len(inside)
    assert found["kernel_time_ns"] == sum(min(e, high) - max(s, low) for s, e in inside)


def test_statistics_of_chosen_streams_add_up_to_those_of_all() -> None:
    library = Library([SAMPLES / "gpt2-medium-ddp-h200x2"])
    opened = library.open(library.items[0].id)
    known = timeline(opened)
    streams = [row for row in known.rows if row.kind == "stream"]
    alone = [statistics(opened.linked, *known.span, [row]) for row in streams]
    whole = statistics(opened.linked, *known.span)

    assert len(streams) == 2
    assert [part["totals"]["ops"] for part in alone] == [row.count for row in streams]
    for name in ("ops", "kernels", "kernel_time_ns"):
        assert sum(part["totals"][name] for part in alone) == whole["totals"][name]


@pytest.mark.corpus
def test_rows_of_every_recording_hold_what_its_tables_hold(corpus: Path) -> None:
    library = Library([corpus / "nsys", corpus / "kineto", corpus / "multirank"])
    for item in library.items:
        if item.trace is None:
            continue
        opened = library.open(item.id)
        found = timeline(opened)
        linked = opened.linked
        for table in ("gpu_ops", "api", "ranges"):
            frame = linked.trace.get(table)
            height = 0 if frame is None else frame.select(pl.len()).collect().item()

            assert sum(row.count for row in found.rows if row.table == table) == height
        if linked.ops.height:
            whole = statistics(linked, *span(linked))["totals"]
            assert whole["busy_ns"] == totals(linked)["busy_ns"][0]

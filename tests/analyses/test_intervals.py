"""Arithmetic on intervals against what counting nanoseconds one by one gives."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tracelens.trace.intervals import at, busy, innermost, window

spans = st.tuples(st.integers(-20, 40), st.integers(0, 15)).map(lambda s: (s[0], s[0] + s[1]))
some = st.lists(st.tuples(st.integers(0, 2), spans), min_size=1, max_size=15)


def frame(rows: list[tuple[int, tuple[int, int]]]) -> pl.LazyFrame:
    return pl.LazyFrame(
        [(number, group, *span) for number, (group, span) in enumerate(rows)],
        schema={"op_id": pl.UInt32, "group": pl.Int32, "start_ns": pl.Int64, "end_ns": pl.Int64},
        orient="row",
    )


def ticks(rows: list[tuple[int, int]]) -> set[int]:
    return {tick for start, end in rows for tick in range(start, end)}


@given(rows=some)
def test_busy_counts_every_nanosecond_once(rows: list[tuple[int, tuple[int, int]]]) -> None:
    found = {row["group"]: row for row in busy(frame(rows), ["group"]).collect().to_dicts()}

    assert found.keys() == {group for group, _ in rows}
    for group, row in found.items():
        mine = [span for g, span in rows if g == group]
        assert row["busy_ns"] == len(ticks(mine))
        assert row["first_ns"] == min(start for start, _ in mine)
        assert row["last_ns"] == max(end for _, end in mine)
        assert row["span_ns"] == row["last_ns"] - row["first_ns"]


@given(rows=some)
def test_busy_without_groups_is_busy_of_all(rows: list[tuple[int, tuple[int, int]]]) -> None:
    row = busy(frame(rows)).collect().to_dicts()[0]

    assert row["busy_ns"] == len(ticks([span for _, span in rows]))
    assert row["busy_ns"] <= sum(end - start for _, (start, end) in rows)


def test_nothing_is_not_busy() -> None:
    assert busy(frame([]).filter(pl.lit(value=False))).collect()["busy_ns"].to_list() == [0]
    assert busy(frame([]), ["group"]).collect().is_empty()


def test_a_group_without_a_name_is_a_group() -> None:
    rows = pl.LazyFrame(
        {"group": [None, None, 1], "start_ns": [0, 5, 3], "end_ns": [10, 20, 4], "op_id": [0, 1, 2]}
    )

    assert dict(busy(rows, ["group"]).collect().select("group", "busy_ns").iter_rows()) == {
        None: 20,
        1: 1,
    }


@given(
    intervals=st.lists(st.tuples(spans, st.integers(0, 5)), max_size=12),
    moments=st.lists(st.integers(-25, 60), max_size=10),
)
def test_innermost_is_the_one_opened_last(
    intervals: list[tuple[tuple[int, int], int]], moments: list[int]
) -> None:
    times, labels = innermost((start, end, label) for (start, end), label in intervals)
    found = at(times, labels, pl.Series(moments, dtype=pl.Int64)).to_list()

    for moment, label in zip(moments, found, strict=True):
        held = [(s, -e, name) for (s, e), name in intervals if s <= moment < e]
        assert label == (max(held)[2] if held else None)


def test_no_moment_no_label() -> None:
    times, labels = innermost([(0, 10, 3)])

    found = at(times, labels, pl.Series([None, 5, -1, 10], dtype=pl.Int64))

    assert found.to_list() == [None, 3, None, None]
    assert at(*innermost([]), pl.Series([1, 2], dtype=pl.Int64)).to_list() == [None, None]


def test_a_window_keeps_what_lies_in_a_span_of_its_process() -> None:
    rows = pl.DataFrame(
        {"pid": [1, 1, 1, 2, None], "t": [5, 10, None, 5, 5]},
        schema={"pid": pl.Int32, "t": pl.Int64},
    )

    kept = window(rows, "t", [(1, 0, 10), (2, 6, 9), (1, 3, 7)])

    assert kept.rows() == [(1, 5)]
    assert window(rows, "t", []).is_empty()

"""Ranges nested among themselves answer what looking at each pair of them answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tracelens.links.nest import Nest, nest

if TYPE_CHECKING:
    from random import Random

Row = dict[str, int]

spans = st.tuples(st.integers(0, 30), st.integers(0, 12)).map(lambda s: (s[0], s[0] + s[1]))
rows = st.lists(
    st.builds(
        lambda pid, tid, span, name: {
            "pid": pid, "tid": tid, "start_ns": span[0], "end_ns": span[1], "name_id": name,
        },
        st.integers(1, 2),
        st.integers(1, 2),
        spans,
        st.integers(0, 2),
    ),
    max_size=25,
)  # fmt: skip
moments = st.lists(
    st.tuples(st.integers(1, 2), st.one_of(st.integers(1, 3), st.none()), st.integers(-2, 45)),
    max_size=20,
)


def built(rows: list[Row]) -> Nest:
    schema = {"pid": pl.Int32, "tid": pl.Int32, "start_ns": pl.Int64, "end_ns": pl.Int64,
              "name_id": pl.Int32}  # fmt: skip
    return nest(pl.DataFrame(rows, schema=schema).with_row_index("range_id"))


def inside(tree: Nest) -> dict[int, set[int]]:
    """Return which rows lie in each row, itself included, by the parents of each."""
    found: dict[int, set[int]] = {row: {row} for row in tree["row"]}
    parents = dict(tree.frame.select("row", "parent").iter_rows())
    for row, parent in parents.items():
        above = parent
        while above is not None:
            found[above].add(row)
            above = parents[above]
    return found


@given(rows)
def test_a_sum_takes_what_lies_inside_and_nothing_else(rows: list[Row]) -> None:
    tree = built(rows)
    values = pl.Series("v", [7 * row + 1 for row in tree["row"]], dtype=pl.Int64)

    sums = tree.inside(values).to_list()

    assert sums == [sum(7 * row + 1 for row in rows) for _, rows in sorted(inside(tree).items())]


@given(rows)
def test_what_lies_inside_follows_directly_and_within_the_bounds(rows: list[Row]) -> None:
    tree = built(rows)
    facts = {row["row"]: row for row in tree.frame.iter_rows(named=True)}

    for row, members in inside(tree).items():
        assert members == set(range(row, facts[row]["until"]))
        for member in members:
            assert facts[member]["start_ns"] >= facts[row]["start_ns"]
            assert facts[member]["end_ns"] <= facts[row]["end_ns"]
            assert facts[member]["depth"] == facts[row]["depth"] + len(
                [r for r in members if member in range(r, facts[r]["until"]) and r != row]
            )


@given(rows)
def test_the_outermost_of_a_name_has_none_of_it_around(rows: list[Row]) -> None:
    tree = built(rows)
    names = tree["name_id"].to_list()
    around = inside(tree)

    expected = [
        not any(row in members and other != row and names[other] == names[row]
                for other, members in around.items())
        for row in tree["row"]
    ]  # fmt: skip

    assert tree.outermost("name_id").to_list() == expected


@given(rows, moments)
def test_the_innermost_open_range_began_last(
    rows: list[Row], moments: list[tuple[int, int | None, int]]
) -> None:
    tree = built(rows)
    asked = pl.DataFrame(
        moments, schema={"pid": pl.Int32, "tid": pl.Int32, "time_ns": pl.Int64}, orient="row"
    )

    found = tree.innermost(asked).to_list()

    for (pid, tid, time), row in zip(moments, found, strict=True):
        fits = [
            r for r in tree.frame.iter_rows(named=True)
            if (r["pid"], r["tid"]) == (pid, tid) and r["start_ns"] <= time < r["end_ns"]
        ]  # fmt: skip
        if row is None:
            assert not fits
            continue
        (chosen,) = [r for r in fits if r["row"] == row]
        assert chosen["start_ns"] == max(r["start_ns"] for r in fits)


@given(rows, st.data())
def test_a_value_is_inherited_from_the_nearest_range_that_has_one(
    rows: list[Row], data: st.DataObject
) -> None:
    tree = built(rows)
    own = data.draw(
        st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=len(rows), max_size=len(rows))
    )
    parents = tree["parent"].to_list()

    def looked_up(row: int | None) -> int | None:
        if row is None or own[row] is not None:
            return None if row is None else own[row]
        return looked_up(parents[row])

    values = tree.inherited(pl.Series("v", own, dtype=pl.UInt32)).to_list()

    assert values == [looked_up(row) for row in range(len(rows))]


@given(rows, st.randoms())
def test_the_order_of_ranges_changes_no_sum(rows: list[Row], random: Random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    key = ["pid", "tid", "start_ns", "end_ns", "name_id", "sum"]

    both = []
    for order in (rows, shuffled):
        tree = built(order)
        took = tree["end_ns"] - tree["start_ns"]
        both.append(tree.frame.with_columns(sum=tree.inside(took)).select(key))

    nested_alike = [frame.drop("name_id").sort(pl.all()) for frame in both]
    assert nested_alike[0].equals(nested_alike[1])

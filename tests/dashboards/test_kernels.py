"""Kernels as rows: the numbers of a summary, whole orders, filters, and CSV without formulas."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracelens_dashboards import kernel_calls, kernel_rows
from tracelens_dashboards.figures.kernels import MOST_POINTS, binned, histogram, scatter, thinned
from tracelens_dashboards.library import Library, Opened
from tracelens_dashboards.serve import wsgi

from tests.build import Nsys
from tests.dashboards.recordings import training
from tracelens.analyses.kernels import kernels
from tracelens.errors import UsageError
from tracelens.links.linked import Cut, link

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLE: Final = (
    Path(__file__).parents[2] / "samples" / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz"
)
SORTED: Final = ("short_name", "family", "calls", "total_ns", "share", "mean_ns", "max_ns")


def opened(path: Path) -> Opened:
    library = Library([path])
    return library.open(library.items[0].id)


@pytest.fixture(scope="module")
def sample() -> Opened:
    return opened(SAMPLE)


def names(recording: Opened, **query: str) -> dict[str, Any]:
    return kernel_rows.name_page(recording, kernel_rows.asked(recording, query, "sort"))


def calls(recording: Opened, **query: str) -> dict[str, Any]:
    ask = kernel_rows.asked(recording, query, "order")
    return kernel_calls.call_page(recording, ask, shapes=False)


def op_ids(recording: Opened, **query: str) -> list[int]:
    ask = kernel_rows.asked(recording, query, "order")
    return kernel_calls.calls(recording).order(ask).to_list()


def test_names_are_the_table_of_a_summary(sample: Opened) -> None:
    table = kernels(sample.linked)
    rows = names(sample)["rows"]

    assert [row["calls"] for row in rows] == [f"{count:,}" for count in table["calls"]]
    assert [row["short_name"] for row in rows] == table["short_name"].to_list()
    assert kernel_rows.names(sample).frame.drop("name_id").equals(table)


def test_phases_cut_as_the_command_does(sample: Opened) -> None:
    table = kernels(link(sample.trace, Cut(phases=("backward",))))

    assert kernel_rows.names(sample, ("backward",)).frame.drop("name_id").equals(table)
    assert len(op_ids(sample, phase="backward")) == table["calls"].sum()


@pytest.mark.parametrize("column", SORTED)
@pytest.mark.parametrize("way", ["asc", "desc"])
def test_names_stand_in_the_order_asked_for(sample: Opened, column: str, way: str) -> None:
    ask = kernel_rows.asked(sample, {"sort": f"{column}.{way}"}, "sort")
    order = kernel_rows.name_order(sample, ask)
    values = kernel_rows.names(sample).frame[column].gather(order).to_list()

    assert values == sorted(values, reverse=way == "desc")
    assert sorted(order) == list(range(len(values)))


def test_parts_of_the_phases_add_up(sample: Opened) -> None:
    for row in names(sample)["rows"]:
        assert sum(part for _, part in row["split"]) == pytest.approx(1)


def test_pages_are_parts_of_the_whole(sample: Opened) -> None:
    whole = op_ids(sample, order="took_ns.desc")
    pages = [
        calls(sample, order="took_ns.desc", first=str(first), last=str(first + 100))
        for first in (0, 100, 4_200)
    ]

    assert [page["total"] for page in pages] == [4_286] * 3
    assert [len(page["rows"]) for page in pages] == [100, 100, 86]
    found = [int(row["id"]) for page in pages for row in page["rows"]]
    assert found == [*whole[:200], *whole[4_200:]]
    assert len(calls(sample, last="100000")["rows"]) == kernel_rows.MOST_ROWS


def test_calls_are_all_kernels_longest_first(sample: Opened) -> None:
    ops = sample.linked.ops
    of_kernels = ops.filter(pl.col("kind") == "kernel")
    order = op_ids(sample, order="took_ns.desc")
    took = (ops["end_ns"] - ops["start_ns"]).gather(order).to_list()

    assert took == sorted(took, reverse=True)
    assert sorted(order) == of_kernels["op_id"].to_list()


@pytest.mark.parametrize(
    "column", ["short_name", "family", "start_ns", "phase", "step", "stream", "op", "module"]
)
def test_calls_stand_in_the_order_asked_for(sample: Opened, column: str) -> None:
    known = kernel_calls.calls(sample)
    frame = known.rows(pl.Series(op_ids(sample, order=f"{column}.asc"), dtype=pl.UInt32))
    values = frame[column].drop_nulls()
    if column == "phase":
        values = values.to_physical()

    assert values.is_sorted()
    assert frame[column].tail(frame[column].null_count()).is_null().all()


def test_filters_of_columns_hold(sample: Opened) -> None:
    where = {
        "took_ns": {"type": "inRange", "filter": 5, "filterTo": 20.5},
        "step": {"type": "equals", "filter": 1},
        "op": {"type": "contains", "filter": "COPY_"},
    }
    frame = kernel_calls.calls(sample).rows(
        pl.Series(op_ids(sample, where=json.dumps(where)), dtype=pl.UInt32)
    )

    assert 10 < frame.height < 1_000
    assert frame["took_ns"].is_between(5_000, 20_500).all()
    assert frame["step"].unique().to_list() == [1]
    assert frame["op"].unique().to_list() == ["aten::copy_"]
    either = {"operator": "OR", "conditions": [
        {"type": "lessThan", "filter": 1}, {"type": "greaterThan", "filter": 1_000},
    ]}  # fmt: skip
    ends = op_ids(sample, where=json.dumps({"took_ns": either}))
    took = kernel_calls.calls(sample).rows(pl.Series(ends, dtype=pl.UInt32))["took_ns"]
    assert len(ends) > 6
    assert ((took < 1_000) | (took > 1_000_000)).all()


@pytest.mark.parametrize(
    "where",
    [
        "{", "[]", "1", '"x"', '{"took_ns": 1}', '{"took_ns": {}}', '{"nothing": {"filter": 1}}',
        '{"took_ns": {"type": "lessThan", "filter": "1"}}', "[" * 3_000,
        '{"took_ns": {"type": "lessThan", "filter": NaN}}', '{"op": []}',
        '{"took_ns": {"type": "lessThan", "filter": 1' + "0" * 400 + "}}",
        '{"took_ns": {"conditions": [1, {}]}}', '{"took_ns": {"type": [], "filter": 1}}',
    ],
)  # fmt: skip
def test_filters_that_make_no_sense_filter_nothing(sample: Opened, where: str) -> None:
    assert len(op_ids(sample, where=where)) == 4_286


def test_a_search_finds_kernels_and_what_launched_them(sample: Opened) -> None:
    known = kernel_calls.calls(sample)
    frame = known.rows(pl.Series(op_ids(sample, filter="SoftMax"), dtype=pl.UInt32))
    texts = frame.select(
        pl.concat_str("name", "short_name", "op", "range", "module", ignore_nulls=True)
    ).to_series()

    assert frame.height > 50
    assert texts.str.to_lowercase().str.contains("softmax").all()
    assert all("softmax" in row["name"].lower() for row in names(sample, filter="SoftMax")["rows"])
    assert names(sample, filter="no such kernel") == {
        "rows": [], "total": 0, "said": "0 names, 0 calls, 0 ns",
    }  # fmt: skip


def test_families_filter_both(sample: Opened) -> None:
    rows = names(sample, family="gemm,softmax,nonsense")["rows"]
    counts = sum(int(row["calls"].replace(",", "")) for row in rows)

    assert {row["family"] for row in rows} == {"gemm", "softmax"}
    assert calls(sample, family="gemm,softmax")["total"] == counts


def test_a_call_says_where_it_ran_and_who_launched_it(sample: Opened) -> None:
    row = calls(sample, order="took_ns.desc", last="1")["rows"][0]

    assert row["took_ns"] == "1,671.996"
    assert (row["phase"], row["step"], row["op"], row["module"]) == (
        "forward", "0", "aten::mm", "Linear_48",
    )  # fmt: skip
    assert row["grid"].count("×") == 2
    assert row["registers"].isdigit()


@pytest.mark.parametrize("said", ["-1", "x", "1e3", "9" * 30])
def test_pages_that_make_no_sense_are_refused(sample: Opened, said: str) -> None:
    with pytest.raises(UsageError, match="no number of a row"):
        kernel_rows.asked(sample, {"first": said}, "sort")


def test_csv_has_every_row_and_no_formulas(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    for place, name in enumerate(["=1+1", "+a", "-b", "@c", 'plain, "quoted"']):
        main.push(name, place * 100, place * 100 + 90)
        main.kernel(name, at=place * 100 + 1, run=(place * 100 + 10, place * 100 + 20))
    recording = opened(trace.write(tmp_path / "formulas.sqlite"))
    ask = kernel_rows.asked(recording, {}, "sort")

    for text in (kernel_rows.names_csv(recording, ask), kernel_calls.calls_csv(recording, ask)):
        rows = list(csv.DictReader(io.StringIO("".join(text))))
        assert sorted(row["name"] for row in rows) == sorted(
            ["'=1+1", "'+a", "'-b", "'@c", 'plain, "quoted"']
        )
    assert [row["range"] for row in rows] == [row["name"] for row in rows]


def test_large_csv_comes_in_parts(sample: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_calls, "_CSV_ROWS", 1_000)
    ask = kernel_rows.asked(sample, {"order": "took_ns.desc"}, "order")
    parts = list(kernel_calls.calls_csv(sample, ask))

    rows = list(csv.DictReader(io.StringIO("".join(parts))))
    assert len(parts) == 5
    assert [int(row["op_id"]) for row in rows] == op_ids(sample, order="took_ns.desc")


def test_without_ranges_calls_are_told_all_the_same(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    main.kernel("gemm", at=0, run=(10, 20))
    recording = opened(trace.write(tmp_path / "bare.sqlite"))

    page = calls(recording)

    assert page["launchers"] == []
    assert [(row["op"], row["phase"]) for row in page["rows"]] == [("–", "(none)")]


phased = st.lists(
    st.tuples(st.integers(0, 10**7), st.integers(0, 10**6), st.sampled_from(["forward", "(none)"])),
    min_size=1,
    max_size=60,
)


def as_frame(rows: list[tuple[int, int, str]]) -> pl.DataFrame:
    schema = {"start_ns": pl.Int64, "took_ns": pl.Int64, "phase": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row").with_row_index("op_id")


@given(phased)
def test_every_call_is_in_one_bin(rows: list[tuple[int, int, str]]) -> None:
    bins = binned(as_frame(rows))

    assert (bins["from_ns"] < bins["to_ns"]).all()
    assert bins["from_ns"][0] == min(took for _, took, _ in rows)
    for phase in {phase for *_, phase in rows}:
        assert bins[phase].sum() == sum(p == phase for *_, p in rows)
        for low, high, count in bins.select("from_ns", "to_ns", phase).iter_rows():
            last = high == bins["to_ns"].max()
            mine = [t for _, t, p in rows if p == phase and low <= t and (t < high or last)]
            assert count == len(mine)
    histogram(bins)


@given(phased)
def test_extremes_survive_thinning(rows: list[tuple[int, int, str]]) -> None:
    many = rows * (MOST_POINTS // len(rows) + 1)
    drawn = thinned(as_frame(many))

    assert drawn.height <= 4 * 250
    for phase in {phase for *_, phase in rows}:
        took = [t for _, t, p in rows if p == phase]
        mine = drawn.filter(pl.col("phase") == phase)["took_ns"]
        assert (mine.min(), mine.max()) == (min(took), max(took))
    scatter(drawn, 0)


# The routes


@pytest.fixture
def asking(tmp_path: Path) -> Any:
    library = Library([training(tmp_path / "run.sqlite")])
    client = wsgi(library).test_client()

    def ask(what: str, query: Mapping[str, str] | None = None, run: str | None = None) -> Any:
        place = f"/api/kernels/{run or library.items[0].id}/{what}"
        return client.get(place, query_string=query or {})

    return ask


def test_routes_answer(asking: Any) -> None:
    assert [row["id"] for row in asking("names").json["rows"]]
    assert asking("calls", {"order": "start_ns.desc"}).json["total"] == 4
    assert asking("names.csv").text.startswith("short_name,")
    assert "| kernel" in asking("names.md").text
    assert asking("calls.csv").headers["Content-Type"] == "text/csv; charset=utf-8"


def test_markdown_is_what_the_command_prints(sample: Opened) -> None:
    client = wsgi(Library([SAMPLE])).test_client()
    text = client.get(f"/api/kernels/{sample.item.id}/names.md?family=gemm").text

    assert text.startswith("### GPU time by kernel")
    assert len(text.splitlines()) == 6 + names(sample, family="gemm")["total"]


def test_a_call_has_its_place_in_the_timeline(asking: Any) -> None:
    href = asking("place", {"call": "0"}).json["href"]

    assert "/timeline?from=-97000&to=203000&pick=" in href
    assert href.endswith("%3A0")


def test_what_is_not_there_is_said(asking: Any) -> None:
    assert asking("place", {"call": "99"}).status_code == 400
    assert asking("place", {"call": "x"}).status_code == 400
    assert asking("nothing").status_code == 404
    assert asking("names", run="0" * 12).status_code == 404

"""Files of results: written whole, read with care, shown, compared, graded and reported."""

from __future__ import annotations

import gzip
import json
import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asking import Shell
from tracelens.analyses.compare import gate
from tracelens.bench import compared, graded, results, results_shown
from tracelens.bench.cell import Cell, Failure, Pair, Row
from tracelens.bench.compared import Side
from tracelens.bench.results import Results
from tracelens.errors import CaptureError, NothingToShowError, UnreadableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAMES = ("tracelens", "eager", "compile")
HOSTILE = '\x1b[31m<script>alert(1)</script> =cmd|"/c calc"!A1 ](javascript:1) \\input{x}'


def cell(n: int = 8192, names: Sequence[str] = NAMES, **more: Any) -> Cell:
    return Cell(
        kernel="made_up",
        operation="forward",
        shape={"rows": n, "columns": 64},
        dtype="bf16",
        implementations=tuple(names),
        **more,
    )


def row(name: str, median_s: float, n: int = 8192, **more: Any) -> Row:
    """Return a row whose median is known to 0.1 %, held against ours of 1 ms."""
    pair = Pair(
        other="tracelens", ratio=median_s / 1e-3, low=0.99 * median_s / 1e-3,
        high=1.01 * median_s / 1e-3, floor=0.002, rounds=20,
        verdict="slower" if median_s > 1e-3 else "faster",
    )  # fmt: skip
    told: dict[str, Any] = {
        "kernel": "made_up",
        "operation": "forward",
        "shape": {"rows": n, "columns": 64},
        "dtype": "bf16",
        "implementation": name,
        "device": "NVIDIA H200",
        "quantity": "kernel_time",
        "l2": "cold",
        "clock": "blocked stream",
        "n": 40,
        "samples_s": (median_s,) * 3,
        "median_s": median_s,
        "low_s": 0.999 * median_s,
        "high_s": 1.001 * median_s,
        "mad_s": 0.0,
        "p5_s": median_s,
        "p95_s": median_s,
        "p99_s": median_s,
        "settled": True,
        "pair": None if name == "tracelens" else pair,
        "floor": 0.002 if name == "tracelens" else None,
        "flops": 1000,
        "bytes": 4_000_000_000,
        "bound_s": 0.9e-3,
        "limited_by": "memory",
        "share": 0.9e-3 / median_s,
        "errors": {"out": 1e-3},
    }
    return Row(**(told | more))


def made(*medians: float, **more: Any) -> Results:
    """Return results of one cell: ours, eager, compile."""
    rows = [row(name, seconds) for name, seconds in zip(NAMES, medians, strict=False)]
    told: dict[str, Any] = {
        "device": "NVIDIA H200",
        "made": "2026-11-20T10:00:00+00:00",
        "command": ("tracelens", "bench", "made-up"),
        "environment": {"versions": {"torch": "2.11.0", "triton": "3.6.0"}, "driver": "580.95"},
        "tracelens": "0.1.0",
    }
    return Results(cells=(cell(),), **(told | more)).with_cell(0, rows, [])


FAILED = Failure(
    implementation="compile", stage="process", error="SIGABRT", message="an illegal access"
)
CANNOT = Failure(implementation="eager", stage="cannot", message="no such format")


def test_what_is_written_is_read_again_row_by_line(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    whole = made(1e-3, 2e-3).with_cell(0, [row("tracelens", 1e-3)], [FAILED, CANNOT])

    results.save(whole, file)

    assert results.load(file) == whole
    assert results.are_results(file)
    text = file.read_text(encoding="utf-8")
    told = json.loads(text)
    assert told["kind"] == "bench"
    assert [one["implementation"] for one in told["rows"]] == ["tracelens"]
    assert told["failed"][0]["message"] == "an illegal access"
    (line,) = [line for line in text.splitlines() if '"median_s"' in line]
    assert json.loads(line.rstrip(","))["device"] == "NVIDIA H200"
    assert [one.name for one in tmp_path.iterdir()] == ["results.json"]


def test_a_packed_file_is_read_as_it_is_and_a_cut_one_refused(tmp_path: Path) -> None:
    whole = made(1e-3, 2e-3).with_cell(0, [row("tracelens", 1e-3)], [])
    packed = gzip.compress(results.encode(whole))
    file, cut = tmp_path / "results.json.gz", tmp_path / "cut.json.gz"
    file.write_bytes(packed)
    cut.write_bytes(packed[: len(packed) // 2])

    assert results.are_results(file)
    assert results.load(file) == whole
    with pytest.raises(UnreadableError):
        results.load(cut)


def test_a_file_that_is_called_packed_is_written_packed(tmp_path: Path) -> None:
    whole = made(1e-3, 2e-3)
    file = tmp_path / "results.json.gz"

    results.save(whole, file)

    assert gzip.decompress(file.read_bytes()) == results.encode(whole)
    assert results.load(file) == whole


def test_what_is_of_one_kernel_can_be_had_by_itself() -> None:
    other = replace(cell(), kernel="other")
    both = Results(cells=(cell(), other, replace(other, dtype="fp16")))
    both = both.with_cell(0, [row("tracelens", 1e-3)], [FAILED])
    both = both.with_cell(2, [row("eager", 2e-3, kernel="other", dtype="fp16")], [CANNOT])

    alone = both.only(["other"])

    assert [one.dtype for one in alone.cells] == ["bf16", "fp16"]
    assert (alone.done, alone.waiting) == ((1,), (0,))
    assert [one.implementation for one in alone.rows] == ["eager"]
    assert [one.stage for one in alone.failed] == ["cannot"]
    assert both.only(["made_up", "other"]) == both


@pytest.mark.parametrize("changed", [{"flops": -1}, {"bytes": 10**30}, {"n": -1}])
def test_a_count_that_no_table_can_hold_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    file = tmp_path / "results.json"
    told = json.loads(results.encode(made(1e-3)))
    told["rows"][0] |= changed
    file.write_text(json.dumps(told), encoding="utf-8")

    with pytest.raises(UnreadableError, match="a count that is below zero or too large"):
        results.load(file)


@pytest.mark.parametrize(
    ("ratio", "told"),
    [(0.00477, "0.00477"), (1.1, "1.10"), (99.96, "100"), (999.7, "1,000"), (12_345.6, "12,346")],
)
def test_ratios_have_three_figures(ratio: float, told: str) -> None:
    assert results_shown.times(ratio) == told


def test_cells_that_differ_in_several_things_are_told_in_one_column() -> None:
    two = Results(cells=(cell(), replace(cell(), dtype="fp16", operation="backward")))
    for number, one in enumerate(two.cells):
        made_row = replace(row("tracelens", 1e-3), dtype=one.dtype, operation=one.operation)
        two = two.with_cell(number, [made_row], [])

    table = next(one for one in results_shown.report(two).tables if one.name == "bench")

    columns = [column.name for column in table.table.columns if column.shown]
    assert columns[:3] == ["what", "implementation", "median_ns"]
    assert table.frame["what"].to_list() == ["forward bf16", "backward fp16"]


def test_a_cell_that_is_measured_again_takes_its_own_place() -> None:
    first = Results(cells=(cell(), cell(4096)))
    both = first.with_cell(0, [row("tracelens", 1e-3)], [FAILED]).with_cell(
        1, [row("tracelens", 2e-3, 4096)], []
    )

    again = both.with_cell(0, [row("tracelens", 3e-3), row("compile", 4e-3)], [])

    assert both.waiting == again.waiting == ()
    assert [(one.shape["rows"], one.median_s) for one in again.rows] == [
        (4096, 2e-3),
        (8192, 3e-3),
        (8192, 4e-3),
    ]
    assert not again.failed


def test_what_cannot_be_is_not_tried_again() -> None:
    whole = Results(cells=(cell(), cell(4096)))
    whole = whole.with_cell(0, [], [CANNOT]).with_cell(1, [], [FAILED])

    assert whole.without_failed().waiting == (1,)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"kind": "ceilings", "schema": 1}',
        b'{"kind": "bench", "schema": 2}',
        b'{"kind": "bench", "schema": 1}',
        b'{"kind": "bench", "schema": 1, "cells": [], "done": [3]}',
        b'{"kind": "bench", "schema": 1, "cells": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_file_of_results_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(content)

    with pytest.raises(UnreadableError, match="holds no results"):
        results.load(file)


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e400])
def test_a_time_that_cannot_be_is_refused(tmp_path: Path, seconds: float) -> None:
    file = tmp_path / "results.json"
    results.save(made(1e-3), file)
    text = file.read_text(encoding="utf-8").replace('"median_s":0.001', f'"median_s":{seconds!r}')
    file.write_text(text.replace("inf", "1e999"), encoding="utf-8")

    with pytest.raises(UnreadableError):
        results.load(file)


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="cannot be written"):
        results.save(made(1e-3), tmp_path / "none" / "results.json")


def test_a_row_says_rate_share_and_how_it_compares() -> None:
    report = results_shown.report(made(1e-3, 2.5e-3, 0.8e-3))

    (bench, matrix) = report.tables
    ours, eager, compiled = bench.frame.to_dicts()
    assert ours["bytes_per_s"] == pytest.approx(4e12)
    assert ours["flops_per_s"] is None
    assert ours["bound_share"] == pytest.approx(0.9)
    assert (ours["of_ours"], eager["of_ours"], compiled["of_ours"]) == ("–", "2.50", "0.800")
    assert (eager["verdict"], compiled["verdict"]) == ("slower", "faster")
    assert ours["precision_share"] == pytest.approx(0.001)
    assert bench.table.title == (
        "Kernels · made-up · forward · bf16 · 8192x64 · kernel time · cold L2"
    )
    assert matrix.frame.to_dicts()[0]["is_eager"] == "ok"
    assert report.headline == "made-up on NVIDIA H200 · 3 ok"
    assert report.findings == (
        "made-up: ours beside eager is faster in 1 of 1; eager takes 2.50 times as long.",
        "made-up: ours beside compile is slower in 1 of 1; compile takes 0.800 times as long.",
    )


def test_the_matrix_tells_what_came_of_each_and_failures_how_to_try_again() -> None:
    whole = Results(cells=(cell(), cell(4096)), device="NVIDIA H200")
    whole = whole.with_cell(0, [row("tracelens", 1e-3)], [FAILED, CANNOT])

    report = results_shown.report(whole, None)

    tables = {table.name: table.frame.to_dicts() for table in report.tables}
    assert [
        [one[f"is_{name}"] for name in NAMES] for one in tables["matrix"]
    ] == [
        ["ok", "cannot: no such format", "failed: SIGABRT"],
        ["waiting", "waiting", "waiting"],
    ]  # fmt: skip
    assert [one["stage"] for one in tables["failures"]] == ["process", "cannot"]
    assert report.headline == "made-up on NVIDIA H200 · 1 ok · 1 failed · 1 cannot · 3 waiting"
    (finding,) = report.findings
    assert finding.startswith(
        "made-up forward 8192x64 bf16: compile failed (SIGABRT: an illegal access). "
    )
    assert finding.endswith(
        "Again: tracelens bench made-up --operation forward --shapes rows=8192,columns=64 "
        "--dtype bf16 --baseline eager,compile --quantity kernel_time --l2 cold"
    )
    assert report.warnings[0] == "1 of 2 cells were not measured."


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"flag": "impossible"}, "No GPU can be that fast"),
        ({"throttled": 3}, "Measured while the clock was held down"),
        ({"settled": False}, "Not known as well as was asked for"),
    ],
)
def test_what_makes_a_number_doubtful_is_a_warning_and_a_flag(
    changed: dict[str, Any], says: str
) -> None:
    whole = Results(cells=(cell(),)).with_cell(0, [row("tracelens", 1e-3, **changed)], [])

    report = results_shown.report(whole)

    assert any(says in text and "tracelens of made-up" in text for text in report.warnings)
    assert report.tables[0].frame["flag"][0]


def one(found: Sequence[compared.Compared], name: str) -> compared.Compared:
    return next(each for each in found if each.key[1] == name)


def beside(a: Results, b: Results) -> list[compared.Compared]:
    return compared.compared(Side("a", (a,)), Side("b", (b,)))


def test_what_is_slower_by_more_than_noise_is_said_to_be() -> None:
    found = beside(made(1e-3, 2e-3, 3e-3), made(1.05e-3, 2e-3, 2.9e-3))

    assert [(each.key[1], each.verdict) for each in found] == [
        ("tracelens", "slower"),
        ("eager", "no difference"),
        ("compile", "faster"),
    ]
    ours = one(found, "tracelens")
    assert ours.ratio == pytest.approx(1.05)
    assert ours.low is not None
    assert ours.high is not None
    assert ours.low < 1.05 < ours.high


def test_a_difference_within_the_floor_is_none_however_narrow_its_interval() -> None:
    noisy = [row("tracelens", 1.01e-3, floor=0.02, low_s=1.0099e-3, high_s=1.0101e-3)]
    b = Results(cells=(cell(),)).with_cell(0, noisy, [])

    assert one(beside(made(1e-3), b), "tracelens").verdict == "no difference"


def test_a_machine_that_became_slower_is_no_slower_kernel() -> None:
    a, b = made(1e-3, 2e-3, 3e-3), made(1.05e-3, 2.12e-3, 3.2e-3)

    assert one(beside(a, b), "tracelens").verdict == "no difference"
    report = compared.report([Side("a", (a,)), Side("b", (b,))])
    assert any("baselines that are the same on both sides" in text for text in report.warnings)

    newer = replace(b, environment={"versions": {"torch": "2.12.0", "triton": "3.7.0"}})
    assert one(beside(a, newer), "tracelens").verdict == "slower"  # its baselines are others, too
    report = compared.report([Side("a", (a,)), Side("b", (newer,))])
    assert any("different versions" in text for text in report.warnings)


def test_a_row_that_is_gone_is_told_with_its_failure() -> None:
    b = Results(cells=(cell(),)).with_cell(
        0, [row("tracelens", 1e-3), row("eager", 1e-3)], [FAILED]
    )

    found = one(beside(made(1e-3, 1e-3, 1e-3), b), "compile")

    assert found.verdict == "only in A"
    assert found.why == "process: SIGABRT"


def test_from_three_files_a_side_the_files_are_the_samples() -> None:
    """Each start of the program differs by 3 %, which no file knows of."""
    draw = random.Random(1)  # noqa: S311 (no secret)
    files = [made(1e-3 * math.exp(draw.gauss(0, 0.03))) for _ in range(8)]

    (of_one,) = beside(files[0], files[1])
    (of_many,) = compared.compared(Side("a", tuple(files[:4])), Side("b", tuple(files[4:])))

    assert of_one.verdict != "no difference"
    assert of_many.verdict == "no difference"


def test_a_table_of_measurements_that_are_alike_holds_hardly_a_false_verdict() -> None:
    """Medians are drawn from their own intervals; each table has 20 rows."""
    draw, wrong = random.Random(2), 0  # noqa: S311 (no secret)
    for _ in range(200):
        sides = []
        for _ in range(2):
            medians = [1e-3 * math.exp(draw.gauss(0, 0.001 / 1.96)) for _ in range(20)]
            rows = [row("eager", s, n, pair=None) for n, s in enumerate(medians, start=1)]
            whole = Results(cells=(cell(),)).with_cell(0, rows, [])
            sides.append(whole)
        wrong += any(each.verdict != "no difference" for each in beside(*sides))

    assert wrong <= 6  # 1 % of 200 is 2


@given(
    st.floats(0.5, 2),
    st.floats(0, 0.05),
    st.floats(0, 0.05),
    st.floats(0, 0.05),
    st.floats(0, 0.05),
)
def test_swapping_the_sides_swaps_the_verdict(
    ratio: float, below: float, above: float, below_b: float, above_b: float
) -> None:
    a = row("eager", 1e-3, low_s=1e-3 * (1 - below), high_s=1e-3 * (1 + above), pair=None)
    median = 1e-3 * ratio
    b = row("eager", median, low_s=median * (1 - below_b), high_s=median * (1 + above_b), pair=None)
    sides = [Results(cells=(cell(),)).with_cell(0, [each], []) for each in (a, b)]

    (there,) = beside(*sides)
    (back,) = beside(*reversed(sides))

    swapped = {"slower": "faster", "faster": "slower"}
    assert back.verdict == swapped.get(there.verdict, there.verdict)
    assert there.low is not None
    assert there.high is not None
    assert there.low <= ratio * (1 + 1e-9)
    assert there.high >= ratio * (1 - 1e-9)
    assert back.low == pytest.approx(1 / there.high)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("total>3%", "regression"),
        ("total>20%", "passed"),
        ("kernel:made-up>3%", "regression"),
        ("kernel:made-up>40us", "regression"),
        ("kernel:made-up>1ms", "passed"),
        ("kernel:other>3%", "not judged"),
    ],
)
def test_a_gate_is_about_our_worst_row(text: str, outcome: str) -> None:
    found = beside(made(1e-3, 2e-3), made(1.05e-3, 2e-3))

    (judged,) = compared.judged(found, [gate.parsed(text)])

    assert judged["outcome"] == outcome


def test_a_row_of_ours_that_is_gone_is_a_regression() -> None:
    b = Results(cells=(cell(),)).with_cell(0, [row("eager", 2e-3)], [])

    (judged,) = compared.judged(beside(made(1e-3, 2e-3), b), [gate.parsed("total>3%")])

    assert judged["outcome"] == "regression"


def test_nothing_in_common_and_one_file_alone_are_errors() -> None:
    a = made(1e-3)
    b = Results(cells=(cell(4096),)).with_cell(0, [row("tracelens", 1e-3, 4096)], [])

    with pytest.raises(NothingToShowError, match="nothing in common"):
        compared.report([Side("a", (a,)), Side("b", (b,))])
    with pytest.raises(UsageError, match="one file"):
        compared.report([Side("a", (a,))])
    with pytest.raises(UsageError, match="total and kernel:NAME"):
        compared.report([Side("a", (a,)), Side("b", (a,))], [gate.parsed("busy>3%")])


def test_targets_read_times_rates_and_shares() -> None:
    whole = made(1e-3, 2e-3)
    (ours, eager) = graded.measured(whole)

    assert ours.config["implementation"] == "tracelens"
    assert ours.config["rows"] == 8192
    assert ours.readings["kernel_time"].value == 1e6
    assert ours.readings["bytes_per_s"].value == pytest.approx(4e12)
    assert ours.readings["bound_share"].value == pytest.approx(0.9)
    assert eager.readings["kernel_time"].low == pytest.approx(1.998e6)
    rate = ours.readings["bytes_per_s"]
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low < rate.value < rate.high


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shell:
    """Give a shell in a folder with two files of results, the second of them slower."""
    monkeypatch.chdir(tmp_path)
    results.save(made(1e-3, 2e-3, 3e-3), tmp_path / "a.json")
    results.save(made(1.05e-3, 2e-3, 3e-3), tmp_path / "b.json")
    return Shell(capsys)


def test_compare_reads_results_and_keeps_its_gates(shell: Shell) -> None:
    said = shell("compare", "a.json", "b.json")

    assert said.status == 0
    assert said.out.startswith("ours: 1 slower (worst made-up forward 8192x64 bf16: +5.0 %)")
    assert shell("compare", "a.json", "b.json", "--gate", "total>3%").status == 1
    assert shell("compare", "a.json", "b.json", "--gate", "total>9%").status == 0
    assert shell("compare", "a.json", "b.json", "--gate", "kernel:none>9%").status == 4
    table = shell("compare", "a.json", "b.json", "-f", "json").json["tables"]["compare_bench"]
    assert table[0]["change"] == pytest.approx(0.05)
    assert "slower" in shell("compare", "a.json", "b.json", "-f", "csv").out
    assert "several" not in shell("compare", "x=a.json", "y=b.json", "z=b.json").err


def test_compare_says_what_does_not_go_with_results(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("[]", encoding="utf-8")

    mixed = shell("compare", "a.json", "c.json")
    option = shell("compare", "a.json", "b.json", "--by", "op")

    assert (mixed.status, option.status) == (2, 2)
    assert "c.json is none" in mixed.err
    assert "--by is for recordings" in option.err


def test_grade_and_report_read_results(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(
        'title = "Kernels"\n[[target]]\nname = "made up"\nmetric = "kernel_time"\n'
        'gpu = "H200"\nconfig = { kernel = "made-up", implementation = "tracelens" }\n'
        'reference = { config = { implementation = "eager" } }\npass = "> 1.5 x reference"\n',
        encoding="utf-8",
    )

    grade = shell("grade", "a.json", "--targets", "t.toml")
    report = shell("report", "a.json", "b.json", "--targets", "t.toml")

    assert grade.status == 0, grade.err
    assert "pass" in grade.out
    assert report.status == 0, report.err
    assert "## Kernels beside others" in report.out
    assert "made-up on NVIDIA H200 · 3 ok" in report.out
    assert "ours: 1 slower" in report.out
    assert "580.95" in report.out
    assert "2 of 2 met" in report.out


def test_hostile_names_are_inert(shell: Shell, tmp_path: Path) -> None:
    names = ("tracelens", HOSTILE)
    rows = [row("tracelens", 1e-3), row(HOSTILE, 2e-3)]
    failure = replace(FAILED, implementation=HOSTILE, error=HOSTILE, message=HOSTILE)
    whole = Results(cells=(cell(names=names), cell(4096, names)), device=HOSTILE)
    whole = whole.with_cell(0, rows, []).with_cell(1, [], [failure])
    results.save(whole, tmp_path / "hostile.json")

    for form in ("text", "html", "markdown", "latex", "csv", "json"):
        for command in (["bench", "--show", "hostile.json"], ["compare", *["hostile.json"] * 2]):
            said = shell(*command, "-f", form)

            assert said.status == 0, said.err
            assert "\x1b" not in said.out
            if form == "html":
                assert "<script>alert" not in said.out
            if form == "latex":
                source = [line for line in said.out.splitlines() if not line.startswith("%")]
                assert "\\input{x}" not in "\n".join(source)

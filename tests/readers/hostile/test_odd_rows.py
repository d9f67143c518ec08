"""Rows that no profiler would write: odd types, times, ids, names and shapes."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import Shell, linked, table, the_row
from tests.build import Nsys, training_step
from tracelens.trace.intervals import innermost

if TYPE_CHECKING:
    from pathlib import Path

KERNELS = "CUPTI_ACTIVITY_KIND_KERNEL"
FOR_EYES = ("text", "markdown", "latex", "html")


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell to run commands in."""
    return Shell(capsys)


@pytest.fixture
def trace() -> Nsys:
    """Give a step of training: nine kernels of 1,710 ns."""
    made = Nsys()
    training_step(made)
    return made


def changed(trace: Nsys, folder: Path, *statements: str) -> Path:
    """Write the trace and change the file."""
    path = trace.write(folder / "run.sqlite")
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)
    return path


def untyped(name: str) -> tuple[str, ...]:
    """Return statements that make a table again without types and constraints."""
    return (f"CREATE TABLE new AS SELECT * FROM {name}", f"DROP TABLE {name}",
            f"ALTER TABLE new RENAME TO {name}")  # fmt: skip


def document(shell: Shell, path: Path) -> Any:
    said = shell("summarize", path, "--format", "json", "--no-cache")
    assert said.status == 0, said.err
    found = said.json
    (totals,) = found["tables"]["totals"]
    assert (
        sum(row["kernel_time_ns"] for row in found["tables"]["phases"])
        == (totals["kernel_time_ns"])
    )
    return found


@pytest.mark.parametrize("value", ["NULL", "'text'", "x'00ff'", "1.5", "9e999"])
@pytest.mark.parametrize("row", [1, 5])
def test_a_time_that_is_no_integer_costs_its_row(
    tmp_path: Path, shell: Shell, trace: Nsys, value: str, row: int
) -> None:
    path = changed(
        trace,
        tmp_path,
        *untyped(KERNELS),
        f"UPDATE {KERNELS} SET start = {value} WHERE rowid = {row}",
    )

    found = document(shell, path)

    assert found["tables"]["totals"][0]["kernels"] == 8
    assert any(w.startswith(f"1 rows of {KERNELS} were set aside") for w in found["warnings"])


def test_a_text_in_the_hundred_thousandth_row_costs_that_row(tmp_path: Path) -> None:
    """ADBC decides on a column's type in the rows that come first."""
    trace = Nsys()
    trace.thread("python").kernel("gemm", at=0, run=(10, 20))
    path = changed(
        trace,
        tmp_path,
        *untyped(KERNELS),
        f"""INSERT INTO {KERNELS} (start, "end", deviceId, globalPid, demangledName)
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
            SELECT i * 10, i * 10 + 5, 0, 0, 1 FROM n""",
        f"UPDATE {KERNELS} SET start = 'late' WHERE rowid = 99999",
    )

    of = linked(path)

    assert the_row(of, "totals")["kernels"] == 100_000
    assert any("1 rows" in caveat.text for caveat in of.trace.caveats)


@pytest.mark.parametrize("column", ["globalPid", "contextId", "deviceId", "streamId",
                                    "correlationId", "demangledName"])  # fmt: skip
@pytest.mark.parametrize("how", ["gone", "NULL", "-1", "9223372036854775807", "4294967296", "'x'"])
def test_kernels_whose_place_is_unknown_are_counted_all_the_same(
    tmp_path: Path, shell: Shell, trace: Nsys, column: str, how: str
) -> None:
    change = (
        f"ALTER TABLE {KERNELS} DROP COLUMN {column}"
        if how == "gone"
        else f"UPDATE {KERNELS} SET {column} = {how}"
    )

    totals = document(shell, changed(trace, tmp_path, *untyped(KERNELS), change))["tables"][
        "totals"
    ][0]

    assert (totals["kernels"], totals["kernel_time_ns"]) == (9, 1_710)


def test_kernels_without_start_are_no_kernels(tmp_path: Path, shell: Shell, trace: Nsys) -> None:
    path = changed(trace, tmp_path, *untyped(KERNELS), f"ALTER TABLE {KERNELS} DROP COLUMN start")

    found = document(shell, path)

    assert found["tables"]["totals"][0]["kernels"] == 0
    assert any(f"{KERNELS} was set aside" in warning for warning in found["warnings"])


@pytest.mark.parametrize(
    ("start", "end"),
    [(-(2**63), 2**63 - 1), (-(2**63), -(2**63) + 5), (2**63 - 5, 2**63 - 1), (0, 2**63 - 1)],
)
def test_times_that_do_not_fit_into_sums_are_set_aside_and_said(
    tmp_path: Path, shell: Shell, trace: Nsys, start: int, end: int
) -> None:
    for table_name in (KERNELS, "CUPTI_ACTIVITY_KIND_RUNTIME", "NVTX_EVENTS"):
        path = changed(
            trace, tmp_path, f'UPDATE {table_name} SET start = {start}, "end" = {end} '
            "WHERE rowid = 2"
        )  # fmt: skip
        found = document(shell, path)
        path.unlink()

        (totals,) = found["tables"]["totals"]
        assert totals["kernel_time_ns"] == (1_710 if table_name != KERNELS else 1_610)
        assert 0 < totals["busy_ns"] <= totals["span_ns"]
        assert any("set aside" in warning for warning in found["warnings"])
        assert all(row["cpu_ns"] >= 0 for row in found["tables"]["ranges"])


def test_durations_whose_sum_does_not_fit_are_set_aside(tmp_path: Path, shell: Shell) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for number in range(4):
        main.kernel("long", at=number, run=(number, 2**62 - 100))

    found = document(shell, trace.write(tmp_path / "run.sqlite"))

    assert 0 <= found["tables"]["totals"][0]["kernel_time_ns"] < 2**63
    assert any("set aside" in warning for warning in found["warnings"])


def test_one_kernel_decades_away_is_pointed_out(tmp_path: Path, shell: Shell, trace: Nsys) -> None:
    path = changed(
        trace, tmp_path, f'UPDATE {KERNELS} SET start = 1 << 60, "end" = (1 << 60) + 5 '
        "WHERE rowid = 9"
    )  # fmt: skip

    assert any("days apart" in warning for warning in document(shell, path)["warnings"])


def test_nothing_but_nulls_is_nothing(tmp_path: Path, shell: Shell, trace: Nsys) -> None:
    path = trace.write(tmp_path / "run.sqlite")
    with closing(sqlite3.connect(path)) as db, db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE rootpage").fetchall():
            for statement in untyped(name):
                db.execute(statement)
            for (column,) in db.execute(f"SELECT name FROM pragma_table_info('{name}')").fetchall():
                db.execute(f"UPDATE {name} SET {column} = NULL")

    assert document(shell, path)["tables"]["totals"][0]["kernels"] == 0


def test_ids_that_stringids_lacks_doubles_or_denies_are_no_wrong_names(
    tmp_path: Path, trace: Nsys
) -> None:
    path = changed(
        trace,
        tmp_path,
        *untyped("StringIds"),
        "INSERT INTO StringIds SELECT id + 1000, value FROM StringIds",
        "INSERT INTO StringIds VALUES (-1, 'negative'), (NULL, 'null'), ('x', 'text')",
        f"UPDATE {KERNELS} SET demangledName = demangledName + 1000 WHERE rowid % 2",
        f"UPDATE {KERNELS} SET demangledName = -1 WHERE rowid = 4",
        f"UPDATE {KERNELS} SET demangledName = 999999 WHERE rowid = 6",
    )

    names = {row["name"]: row["calls"] for row in table(linked(path), "kernels")}

    assert names.pop("(unnamed kernel)") == 1
    assert names.pop("(string 999999 is missing)") == 1
    assert "negative" not in names
    assert sum(names.values()) == 7


def test_unknown_columns_tables_and_event_types_are_passed_over(
    tmp_path: Path, shell: Shell, trace: Nsys
) -> None:
    path = changed(
        trace,
        tmp_path,
        f'ALTER TABLE {KERNELS} ADD COLUMN "new \'col""umn" BLOB DEFAULT x\'ff\'',
        "ALTER TABLE NVTX_EVENTS ADD COLUMN select_ TEXT DEFAULT 'x'",
        "CREATE TABLE CUPTI_ACTIVITY_KIND_FUTURE (a, b)",
        'CREATE TABLE "a \'strange"" name" ("1", "")',
        "CREATE TABLE sums (a, b GENERATED ALWAYS AS (a + 1))",
        'INSERT INTO NVTX_EVENTS (start, "end", eventType, globalTid, text)'
        " SELECT start, \"end\", 12345, globalTid, 'unknown' FROM NVTX_EVENTS",
    )

    found = document(shell, path)

    assert found["tables"]["totals"][0]["kernel_time_ns"] == 1_710
    assert {row["name"] for row in found["tables"]["ranges"]} == {
        "forward", "backward", "optimizer",
    }  # fmt: skip


def test_one_correlation_in_two_processes_is_two_launches(tmp_path: Path) -> None:
    trace = Nsys()
    for pid, phase in ((100, "forward"), (200, "backward")):
        thread = trace.thread("python", pid=pid)
        thread.push(phase, 0, 50)
        thread.call("cudaLaunchKernel_v7000", 5, 6, correlation=7)
        trace.kernel_without_launch("k", (100, 100 + pid), pid=pid, correlation=7)

    phases = {
        row["phase"]: row["kernel_time_ns"] for row in table(linked(trace, tmp_path), "phases")
    }

    assert phases == {"forward": 100, "backward": 200}


def test_graph_nodes_cloned_in_a_circle_are_followed_round_no_circle(
    tmp_path: Path, shell: Shell
) -> None:
    trace = Nsys("3.20.3")
    main = trace.thread("python")
    number = main.graph(graph_id=7, at=10, run=(20, 60))
    trace.graph_node(main, 1, at=1, original=2)
    trace.graph_node(main, 2, at=2, original=1)
    trace.graph_node(main, 3, at=3, original=3)
    for node in (1, 2, 3):
        trace.kernel_without_launch("k", (20 * node, 20 * node + 5), correlation=number,
                                    graph_node=node)  # fmt: skip

    assert (
        document(shell, trace.write(tmp_path / "run.sqlite"))["tables"]["totals"][0]["kernels"] == 3
    )


def test_ranges_and_kernels_that_take_no_time_are_there(tmp_path: Path, shell: Shell) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 5, 5)
    main.push("backward", 10, 9)
    main.kernel("empty", at=5, run=(7, 7))

    found = document(shell, trace.write(tmp_path / "run.sqlite"))

    assert found["tables"]["totals"][0]["kernels"] == 1
    assert [row["name"] for row in found["tables"]["ranges"]] == ["forward"]
    assert any("1 rows of NVTX_EVENTS were set aside" in w for w in found["warnings"])


@pytest.mark.parametrize("renderer", FOR_EYES)
def test_no_name_can_write_to_the_terminal(tmp_path: Path, shell: Shell, renderer: str) -> None:
    names: list[str | bytes] = [
        "\x1b[2J\x1b]0;owned\x07",
        "nul\0inside",
        "[bold red]markup[/bold red] [/]",
        b"\xff\xfe bad",
        b"\xed\xa0\x80 surrogate",
        "\x9b31m\x85",
        "\u202etxt.exe",
        "a\nb\r\tc",
        "",
        "<script>x</script>",
    ]
    trace = Nsys()
    main = trace.thread("python")
    for number, name in enumerate(names):
        main.push(name, 10 * number, 10 * number + 9)
        main.kernel(name, at=10 * number, run=(10 * number + 1, 10 * number + 5))
    path = trace.write(tmp_path / "run.sqlite")

    for asked in ("kernels", "ranges"):
        said = shell("summarize", path, "-t", asked, "-f", renderer, "--top", "0")

        assert said.status == 0, said.err
        assert not {"\x1b", "\0", "\x07", "\x9b", "\u202e", "\r"} & set(
            said.out.replace("\r\n", "")
        )
        said.out.encode()


@pytest.mark.parametrize(
    "name", ["x" * 10**6, "<" * 10**6, "(" * 10**5, "a<" * 10**5, "step" * 10**5, "_ZN" * 10**5]
)
def test_a_name_of_a_megabyte_is_a_name(tmp_path: Path, shell: Shell, name: str) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push(name, 0, 50)
    main.kernel(name, at=5, run=(10, 20))
    trace.diagnostic("not all " * 10**5)
    trace.capture_option("ARGUMENT_" + "1" * 5_000, "x")
    trace.capture_option("COMMAND", name)
    since = time.process_time()

    assert (
        document(shell, trace.write(tmp_path / "run.sqlite"))["tables"]["totals"][0]["kernels"] == 1
    )
    assert time.process_time() - since < 5


def test_ten_thousand_phases_inside_each_other_are_no_hour_of_work() -> None:
    since = time.process_time()
    times, labels = innermost((i, 100_000 - i, i) for i in range(10_000))

    assert time.process_time() - since < 2
    assert labels[9_999] == 9_999
    assert (times[-1], labels[-1]) == (100_000, None)


def test_strings_without_a_key_are_looked_up_in_one_pass(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for number in range(20_000):
        main.kernel(f"kernel {number}", at=number, run=(number, number + 1))
    path = changed(trace, tmp_path, *untyped("StringIds"))
    since = time.process_time()

    of = linked(path)

    assert time.process_time() - since < 4
    assert of.names["name"].n_unique() == 20_000

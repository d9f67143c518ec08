"""The command `summarize`, from what is typed to what is shown, written and returned."""

from __future__ import annotations

import csv
import io
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import tracelens
from tests.asking import Shell
from tests.build import Nsys, training_step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell."""
    return Shell(capsys)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give an export of two steps of training."""
    trace = Nsys("3.20.3")
    trace.device(0, "NVIDIA H200")
    training_step(trace, at=training_step(trace).end_ns)
    return trace.write(tmp_path / "run.sqlite")


def without_work(tmp_path: Path) -> Path:
    trace = Nsys()
    trace.thread("python").push("forward", 0, 10)
    return trace.write(tmp_path / "ranges.sqlite")


# The contract of the design, key by key; more keys may come.
CONTRACT: dict[str, dict[str, type | tuple[type, ...]]] = {
    "totals": {
        "kernels": int, "kernel_time_ns": int, "busy_ns": int, "copies": int, "copy_time_ns": int,
        "graph_launches": int, "graph_time_ns": int, "span_ns": int, "idle_ns": int,
    },
    "phases": {
        "phase": (str, type(None)), "kernels": int, "kernel_time_ns": int, "busy_ns": int,
        "graph_time_ns": int, "copies": int, "copy_time_ns": int, "share": float,
    },
    "families": {
        "phase": (str, type(None)), "family": str, "kernels": int, "kernel_time_ns": int,
        "share_of_phase": float,
    },
    "kernels": {
        "name": str, "short_name": str, "family": str, "calls": int, "total_ns": int,
        "share": float, "mean_ns": float, "median_ns": float, "min_ns": int, "max_ns": int,
        "std_ns": float,
    },
    "ranges": {
        "name": str, "domain": str, "instances": int, "cpu_ns": int, "kernels": int,
        "kernel_time_ns": int, "gpu_span_ns": int,
    },
    "copies": {
        "kind": str, "calls": int, "bytes": int, "total_ns": int,
        "bandwidth_bytes_per_s": (int, float),
    },
}  # fmt: skip


def test_json_keeps_its_contract(shell: Shell, path: Path) -> None:
    said = shell("summarize", path, "--format", "json")
    document = said.json

    assert (said.status, said.err) == (0, "")
    assert document["tracelens"] == tracelens.__version__
    assert document["schema"] == 1
    assert document["source"].items() >= {
        "path": str(path), "format": "nsys-sqlite", "producer": "nsys 2025.3.2",
        "schema_version": "3.20.3",
    }.items()  # fmt: skip
    (device,) = document["devices"]
    assert (device["device"], device["name"]) == (0, "NVIDIA H200")
    assert document["phase_source"] == "ranges"
    assert document["coverage"] == {
        "gpu_ops": 20, "own_thread": 12, "same_process": 6, "inferred": 0, "ambiguous": 0,
        "none": 2, "unlinked": 0,
    }  # fmt: skip
    for name, columns in CONTRACT.items():
        assert document["tables"][name]
        for row in document["tables"][name]:
            assert row.keys() >= columns.keys()
            for column, kind in columns.items():
                assert (name, column, isinstance(row[column], kind)) == (name, column, True)
    assert all(isinstance(why, str) for why in document["left_out"].values())
    assert document["warnings"] == []


def test_json_holds_true_numbers(shell: Shell, path: Path) -> None:
    tables = shell("summarize", path, "--format", "json").json["tables"]

    assert [(r["phase"], r["kernels"], r["kernel_time_ns"]) for r in tables["phases"]] == [
        ("forward", 8, 1_500),
        ("backward", 6, 1_400),
        ("optimizer", 4, 520),
        (None, 0, 0),
    ]
    assert sum(row["share"] for row in tables["phases"]) == pytest.approx(1)
    (totals,) = tables["totals"]
    assert totals["busy_ns"] + totals["idle_ns"] == totals["span_ns"]


def test_json_is_whole_whatever_the_top(shell: Shell, path: Path) -> None:
    asked = ("summarize", path, "--format", "json", "--table", "kernels")

    assert shell(*asked, "--top", 1).json == shell(*asked, "--top", 0).json == shell(*asked).json


def test_json_says_what_it_leaves_out_and_why(shell: Shell, tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").kernel("k", at=0, run=(1, 2))
    trace.diagnostic("Not all CUDA events might have been collected.")
    document = shell("summarize", trace.write(tmp_path / "x.sqlite"), "--format", "json").json

    assert "not recorded" in document["left_out"]["ranges"]
    assert "no steps" in document["left_out"]["steps"]
    assert document["devices"] == []
    assert document["phase_source"] == "none"
    assert document["warnings"] == [
        "The recorder says: Not all CUDA events might have been collected."
    ]


def test_json_of_several_runs_is_one_object(shell: Shell, tmp_path: Path, path: Path) -> None:
    other = shutil.copy(path, tmp_path / "other.sqlite")
    document = shell("summarize", path, other, "--format", "json", "--table", "totals").json

    assert [run["source"]["path"] for run in document["runs"]] == [str(path), str(other)]
    assert document["runs"][0]["tables"] == document["runs"][1]["tables"]


def test_text_says_first_what_was_captured_and_how_far_to_trust_it(
    shell: Shell, path: Path
) -> None:
    said = shell("summarize", path)

    assert said.status == 0
    assert said.out.startswith("run.sqlite")
    assert all(word in said.out for word in ("NVIDIA H200", "18 kernels", "Trust", "own thread"))
    assert said.out.index("backward") < said.out.index("ampere_sgemm_128x64_tn")
    assert max(map(len, said.out.splitlines())) <= 100


def test_a_phase_in_none_is_told_apart_in_text_and_null_in_json(shell: Shell, path: Path) -> None:
    assert "(none)" in shell("summarize", path, "--table", "phases").out
    phases = shell("summarize", path, "--table", "phases", "--format", "json").json
    assert phases["tables"]["phases"][-1]["phase"] is None


def test_csv_is_one_table_with_all_its_rows(shell: Shell, path: Path) -> None:
    said = shell("summarize", path, "--format", "csv", "--table", "phases", "--top", 1)
    rows = list(csv.DictReader(io.StringIO(said.out)))

    assert said.status == 0
    assert [(row["phase"], row["kernel_time_ns"]) for row in rows] == [
        ("forward", "1500"),
        ("backward", "1400"),
        ("optimizer", "520"),
        ("", "0"),
    ]


def test_csv_of_several_runs_says_which(shell: Shell, tmp_path: Path, path: Path) -> None:
    other = shutil.copy(path, tmp_path / "other.sqlite")
    said = shell("summarize", path, other, "--format", "csv", "--table", "totals")
    rows = list(csv.DictReader(io.StringIO(said.out)))

    assert [row["path"] for row in rows] == [str(path), str(other)]
    assert {row["kernels"] for row in rows} == {"18"}


def test_csv_of_several_tables_says_to_choose(shell: Shell, path: Path) -> None:
    said = shell("summarize", path, "--format", "csv", "--table", "phases", "-t", "kernels")

    assert (said.status, said.out) == (2, "")
    assert "--table NAME" in said.err


@pytest.mark.parametrize("renderer", ["text", "markdown", "latex", "html"])
def test_every_format_for_people_shows_every_phase(shell: Shell, path: Path, renderer: str) -> None:
    said = shell("summarize", path, "--format", renderer, "--table", "phases")

    assert said.status == 0
    assert all(phase in said.out for phase in ("forward", "backward", "optimizer", "(none)"))


@pytest.mark.parametrize("renderer", ["text", "markdown", "latex", "html", "json"])
def test_all_tables_can_be_shown_in_every_format(shell: Shell, path: Path, renderer: str) -> None:
    said = shell("summarize", path, "--table", "all", "--format", renderer)

    assert said.status == 0
    assert said.out.count("forward") > 3
    assert "Traceback" not in said.err


@pytest.mark.parametrize("renderer", ["text", "markdown", "html", "latex"])
def test_several_runs_are_shown_one_by_one_and_side_by_side(
    shell: Shell, tmp_path: Path, path: Path, renderer: str
) -> None:
    other = shutil.copy(path, tmp_path / "longer.sqlite")

    said = shell("summarize", path, other, "--table", "totals", "--format", renderer)

    assert said.status == 0
    assert "run.sqlite" in said.out
    assert "longer.sqlite" in said.out
    assert "all runs" in said.out


def test_a_folder_is_all_recordings_in_it(shell: Shell, tmp_path: Path, path: Path) -> None:
    folder = tmp_path / "runs"
    (folder / "deeper").mkdir(parents=True)
    shutil.copy(path, folder / "b.sqlite")
    shutil.copy(path, folder / "deeper" / "a.sqlite")
    (folder / "notes.txt").write_text("no recording")
    trace = Nsys()
    training_step(trace)
    trace.write_parquet(folder / "c_pqtdir")

    document = shell("summarize", folder, "--format", "json", "--table", "totals").json

    assert sorted(run["source"]["path"] for run in document["runs"]) == [
        str(folder / "b.sqlite"),
        str(folder / "c_pqtdir"),
        str(folder / "deeper" / "a.sqlite"),
    ]


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("cuda_gpu_kern_sum", "kernels"),
        ("gpukernsum", "kernels"),
        ("cuda_api_sum", "api"),
        ("cuda_gpu_mem_time_sum", "copies"),
        ("nvtx_sum", "ranges"),
        ("nvtx_kern_sum", "ranges"),
        ("cuda_kern_exec_sum", "launch_delay"),
        ("nvtx_gpu_proj_sum", "phases"),
        ("longest-gaps", "longest_gaps"),
    ],
)
def test_a_table_answers_to_the_name_of_the_report_it_stands_for(
    shell: Shell, path: Path, alias: str, name: str
) -> None:
    document = shell("summarize", path, "--table", alias, "--format", "json").json

    assert list(document["tables"]) == [name]


def test_a_table_named_twice_is_shown_once(shell: Shell, path: Path) -> None:
    asked = ("--table", "kernels", "--table", "gpukernsum", "--format", "csv")

    assert shell("summarize", path, *asked).status == 0


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        (("--table", "kernel"), "Did you mean kernels?"),
        (("--table", "cuda_gpu_kernel_sum"), "Did you mean cuda_gpu_kern_sum?"),
        (("--phase", "backwards"), "Did you mean backward?"),
        (("--within", "optimiser"), "Did you mean optimizer?"),
        (("--format", "markdwon"), "Did you mean markdown?"),
        (("--device", "3"), "Devices with work: 0"),
        (("--phases", "nonsense"), "write NAME=REGEX"),
        (("--phases", "=x"), "write NAME=REGEX"),
        (("--phases", "x=("), "no regular expression"),
        (("--attribution", "guess"), "launch"),
        (("--top", "-1"), "-1"),
        (("--tabel", "kernels"), "--table"),
    ],
)
def test_what_is_mistyped_is_answered_with_what_is_near(
    shell: Shell, path: Path, asked: tuple[str, ...], nearest: str
) -> None:
    said = shell("summarize", path, *asked)

    assert (said.status, said.out) == (2, "")
    assert nearest in said.err
    assert "Traceback" not in said.err


def test_an_unknown_command_is_answered_with_the_nearest(shell: Shell) -> None:
    said = shell("sumarize", "x")

    assert said.status == 2
    assert "Did you mean summarize?" in said.err


def not_a_database(folder: Path) -> Path:
    (folder / "run.sqlite").write_bytes(b"GIF89a" + bytes(500))
    return folder / "run.sqlite"


def empty(folder: Path) -> Path:
    (folder / "run.sqlite").touch()
    return folder / "run.sqlite"


@pytest.mark.parametrize(
    "bad", [not_a_database, empty, lambda folder: folder / "missing.sqlite", lambda folder: folder]
)
def test_what_cannot_be_read_is_3_and_says_what_to_do(
    shell: Shell, tmp_path: Path, bad: Callable[[Path], Path]
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    said = shell("summarize", bad(folder))

    assert (said.status, said.out) == (3, "")
    assert said.err.startswith("tracelens: ")
    assert len(said.err.strip().splitlines()) <= 2


def test_nothing_to_show_is_4_and_says_why(shell: Shell, tmp_path: Path) -> None:
    said = shell("summarize", without_work(tmp_path), "--table", "kernels")

    assert said.status == 4
    assert "not recorded" in said.err


def test_what_there_is_is_shown_beside_what_there_is_not(shell: Shell, tmp_path: Path) -> None:
    said = shell("summarize", without_work(tmp_path), "--table", "kernels", "--table", "ranges")

    assert said.status == 0
    assert "forward" in said.out
    assert "not recorded" in said.out


def test_no_arguments_is_bad_usage(shell: Shell) -> None:
    said = shell("summarize")

    assert said.status == 2
    assert "PATH" in said.err


def test_a_bug_of_ours_is_1_without_a_traceback(
    shell: Shell, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracelens.tables import build

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(build, "report", broken)
    said = shell("summarize", path)

    assert said.status == 1
    assert "bug in tracelens" in said.err
    assert "ZeroDivisionError: oops" in said.err
    assert "Traceback" not in said.err
    monkeypatch.setenv("TRACELENS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        shell("summarize", path)


def test_output_goes_to_a_file_and_never_over_one(shell: Shell, tmp_path: Path, path: Path) -> None:
    out = tmp_path / "tables.md"
    asked = ("summarize", path, "--format", "markdown", "--table", "phases", "-o", out)

    said = shell(*asked)
    written = out.read_text(encoding="utf-8")
    assert (said.status, said.out) == (0, "")
    assert "| forward" in written

    out.write_text("precious")
    said = shell(*asked)
    assert said.status == 2
    assert "--force" in said.err
    assert out.read_text() == "precious"

    assert shell(*asked, "--force").status == 0
    assert out.read_text(encoding="utf-8") == written
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.sqlite", "tables.md"]


def test_output_to_a_folder_that_is_missing_is_refused_before_any_work(
    shell: Shell, tmp_path: Path
) -> None:
    said = shell("summarize", tmp_path / "missing", "-o", tmp_path / "no" / "x.md")

    assert said.status == 2
    assert "There is no folder" in said.err


def test_output_is_not_written_over_the_recording(shell: Shell, path: Path) -> None:
    before = path.read_bytes()

    said = shell("summarize", path, "-o", path, "--force")

    assert said.status == 2
    assert path.read_bytes() == before


def test_cuts_of_the_command_line_are_cuts_of_the_tables(shell: Shell, path: Path) -> None:
    def kernels(*asked: object) -> int:
        document = shell("summarize", path, "-t", "totals", "-f", "json", *asked).json
        return int(document["tables"]["totals"][0]["kernels"])

    assert kernels() == 18
    assert kernels("--phase", "backward") == 6
    assert kernels("--within", "forward#1") == 4
    assert kernels("--step", 1) == 9
    assert kernels("--device", 0) == 18
    assert kernels("--phase", "warm", "--phases", "warm=^forward$") == 8
    assert kernels("--phase", "backward", "--attribution", "execution") == 10


def test_top_cuts_rows_for_people_and_0_shows_all(shell: Shell, tmp_path: Path) -> None:
    trace = Nsys()
    for number in range(30):
        trace.thread("python").kernel(f"kernel_{number:02}x", at=number, run=(number, number + 1))
    asked = ("summarize", trace.write(tmp_path / "many.sqlite"), "--table", "kernels")

    def shown(*more: object) -> int:
        out = shell(*asked, *more).out
        return sum(f"kernel_{n:02}x" in out for n in range(30))

    assert (shown("--top", 3), shown(), shown("--top", 0)) == (3, 20, 30)


def test_warnings_stand_on_stderr_of_formats_that_hold_tables_alone(
    shell: Shell, tmp_path: Path
) -> None:
    trace = Nsys()
    training_step(trace)
    trace.diagnostic("Not all CUDA events might have been collected.")
    path = trace.write(tmp_path / "run.sqlite")

    said = shell("summarize", path, "--format", "csv", "--table", "phases")
    assert said.status == 0
    assert "Not all CUDA events" in said.err
    assert "Not all CUDA events" not in said.out
    assert "Not all CUDA events" in shell("summarize", path).out


def test_by_execution_is_labelled_as_such(shell: Shell, path: Path) -> None:
    plain = shell("summarize", path, "--table", "phases").out
    labelled = shell("summarize", path, "--table", "phases", "--attribution", "execution").out

    assert "launched" in plain
    assert "execution" in labelled.lower() or "ran" in labelled.split("Trust")[1][:200]


def test_names_of_files_cannot_write_to_the_terminal(shell: Shell, tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward\x1b[31mred", 0, 100)
    main.kernel("evil\x1b]0;title\x07", at=10, run=(20, 30))
    path = trace.write(tmp_path / "a\x1b[2Jb.sqlite")

    said = shell("summarize", path, "--table", "ranges", "--table", "kernels")

    assert said.status == 0
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out


def test_the_same_command_writes_the_same_twice(shell: Shell, path: Path) -> None:
    asked = ("summarize", path, "--table", "all")

    assert shell(*asked) == shell(*asked) == shell(*asked, "--no-cache")


def test_json_can_be_read_back_from_the_file(shell: Shell, tmp_path: Path, path: Path) -> None:
    shell("summarize", path, "--format", "json", "-o", tmp_path / "x.json")

    document = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert document == shell("summarize", path, "--format", "json").json

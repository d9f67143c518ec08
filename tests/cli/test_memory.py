"""The command `tracelens memory`: what it prints in each format, and how it fails."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import Shell
from tests.kineto import BASE_NS, Profile
from tests.snapshots import MIB, Snapshot, dump, training

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return a shell in which to run tracelens."""
    return Shell(capsys)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the snapshot of two steps of training."""
    return training(steps=2).write(tmp_path / "train.pickle")


def failing(folder: Path) -> Path:
    """Return a snapshot of a program that ran out of memory."""
    snapshot = Snapshot()
    gpu = snapshot.device()
    for _ in range(4):
        gpu.alloc(8 * MIB, stack=("model.py:20 forward", "train.py:3 main"))
    gpu.oom(20 * MIB, free=3 * MIB, stack=("model.py:20 forward", "train.py:3 main"))
    return snapshot.write(folder / "oom.pickle")


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def cpu_only(path: Path) -> Path:
    trace = Profile()
    trace.thread("python3").op("aten::mm", 0, 10)
    return trace.write(path.with_suffix(".json"))


def test_json_holds_the_tables_of_the_contract(shell: Shell, path: Path) -> None:
    document = shell("memory", path, "--format", "json").json

    assert document["schema"] == 1
    assert document["source"]["format"] == "torch-snapshot"
    assert document["phase_source"] == "ranges"
    assert document["coverage"]["events"] == document["tables"]["devices"][0]["events"]
    keys = {
        "devices": "device events baseline_active_bytes peak_active_bytes peak_index peak_phase "
        "end_active_bytes peak_reserved_bytes end_reserved_bytes oom_events truncated",
        "phases": "device phase step peak_active_bytes end_active_bytes",
        "live": "device at bytes blocks category site stack",
        "largest": "device bytes site phase index",
    }
    for name, known in keys.items():
        assert set(known.split()) <= document["tables"][name][0].keys()
    assert document["left_out"]["ooms"] == "there was no out-of-memory error"
    assert all(isinstance(row["bytes"], int) for row in document["tables"]["live"])


def test_json_tells_of_out_of_memory_errors(shell: Shell, tmp_path: Path) -> None:
    document = shell("memory", failing(tmp_path), "--format", "json", "--at", "oom").json

    (row,) = document["tables"]["ooms"]
    assert {k: row[k] for k in ("device", "index", "requested_bytes", "verdict")} == {
        "device": 0,
        "index": 6,
        "requested_bytes": 20 * MIB,
        "verdict": "real exhaustion",
    }
    assert (row["active_bytes"], row["reserved_bytes"], row["free_bytes"]) == (
        32 * MIB,
        40 * MIB,
        3 * MIB,
    )
    assert {r["at"] for r in document["tables"]["live"]} == {"oom"}


def test_text_answers_first_and_draws_the_course_of_memory(shell: Shell, path: Path) -> None:
    said = shell("memory", path)

    lines = said.out.splitlines()
    assert said.status == 0
    assert lines[0].startswith("train.pickle · PyTorch memory snapshot · device 0 · ")
    assert "peak 16.0 MiB in optimizer of step 0" in " ".join(lines[:2])
    assert any(line.startswith("Trust    4.00 MiB held before the first event") for line in lines)
    assert any("▼ peak 16.0 MiB" in line for line in lines)
    assert any("╵forward" in line and "╵optimizer" in line for line in lines)
    assert any("╵step 0" in line and "╵step 1" in line for line in lines)
    assert "Live at the peak: 16.0 MiB" in lines
    assert "Largest allocations" in lines
    assert "What stands out" in lines
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 45


def test_an_out_of_memory_error_is_told_in_words(shell: Shell, tmp_path: Path) -> None:
    out = " ".join(shell("memory", failing(tmp_path)).out.split())

    assert "Out of memory at model.py:20 forward: 20.0 MiB asked for" in out
    assert "3.00 MiB were free, and 32.0 MiB of 40.0 MiB reserved in use" in out
    assert "That is real exhaustion: less must be live at once." in out
    assert "✗ out of memory" in out


def test_csv_holds_one_table(shell: Shell, path: Path) -> None:
    said = shell("memory", path, "--format", "csv", "--table", "phases")

    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert next(r["phase"] for r in rows if r["step"] == "0") == "forward"
    assert {r["peak_active_bytes"] for r in rows if r["phase"] == "optimizer"} == {str(16 * MIB)}


def test_csv_of_several_tables_says_to_choose(shell: Shell, path: Path) -> None:
    said = shell("memory", path, "--format", "csv")

    assert said.status == 2
    assert "Add --table NAME, one of: live, largest." in said.err


@pytest.mark.parametrize(
    ("form", "holds"),
    [
        ("markdown", "| category by rule"),
        ("latex", r"\label{tab:live}"),
        ("html", "<h2>Live at the peak: 16.0 MiB</h2>"),
    ],
)
def test_other_formats_hold_the_tables(shell: Shell, path: Path, form: str, holds: str) -> None:
    said = shell("memory", path, "--format", form)

    assert said.status == 0
    assert holds in said.out


@pytest.mark.parametrize("table", ["live", "phases", "largest", "churn", "leaks", "devices"])
def test_any_table_can_be_asked_for(shell: Shell, path: Path, table: str) -> None:
    document = shell("memory", path, "--table", table, "--format", "json").json

    assert list(document["tables"]) + list(document["left_out"])
    assert set(document["tables"]) <= {table}


def test_options_reach_what_they_say(shell: Shell, path: Path) -> None:
    words = [
        "--at",
        "1",
        "--group",
        "file",
        "--device",
        "0",
        "--category",
        "optim=adamw",
        "--top",
        "1",
        "--table",
        "live",
    ]

    lines = shell("memory", path, *words).out.splitlines()

    at = lines.index("Live at the peak of step 1: 16.0 MiB")
    assert "optim" in lines[at + 2]
    assert "adamw.py" in lines[at + 2]
    assert "and 2 more rows (share 50 %)" in lines[at + 3]


def test_phases_of_the_user_s_own(shell: Shell, path: Path) -> None:
    document = shell("memory", path, "--phases", "prefill=^forward$", "--format", "json").json

    phases = {row["phase"] for row in document["tables"]["phases"]}
    assert phases == {"prefill", "optimizer", None}


def test_what_was_live_after_any_event_can_be_asked_for(shell: Shell, tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    first = gpu.alloc(1000, stack=("a.py:1 first",))
    gpu.free(first)
    gpu.alloc(3000, stack=("a.py:2 second",))
    path = snapshot.write(tmp_path / "x.pickle")

    said = shell("memory", path, "--at", "event 1", "--table", "live")

    assert "Live at event 1: 1,000 B" in said.out
    assert "a.py:1 first" in said.out
    assert shell("memory", path, "--at", "event 99").status == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--at", "noon"], "say peak, oom, end, the number of a step, or 'event N'"),
        (["--at", "9"], "There is no step 9: steps are 0 to 1."),
        (["--group", "colour"], "one of stack, phase, file"),
        (["--device", "4"], "There is no memory of device 4. Devices with memory: 0."),
        (["--category", "x"], "write NAME=REGEX"),
        (["--category", "x=("], "this is no regular expression"),
        (["--phases", "=x"], "write NAME=REGEX"),
        (["--table", "kernels"], "There is no table named 'kernels'"),
        (["--table", "larges"], "Did you mean largest?"),
        (["--format", "word"], "There is no renderer named 'word'"),
        (["--figure", "x.gif"], "its name must end in .html, .svg, .png"),
    ],
)
def test_what_is_asked_wrongly_is_2_and_says_what_is_right(
    shell: Shell, path: Path, words: Sequence[str], says: str
) -> None:
    said = shell("memory", path, *words)

    assert said.status == 2
    assert says in said.err


@pytest.mark.parametrize(
    ("make", "status", "says"),
    [
        (lambda at: at, 3, "There is no file"),
        (lambda at: dump({"a": 1}, at), 3, ""),
        (lambda at: written(at, b"\x80\x04"), 3, ""),
        (lambda at: Snapshot().write(at), 4, "_record_memory_history()"),
        (cpu_only, 4, "profile_memory=True"),
    ],
)
def test_what_holds_no_memory_says_why(
    shell: Shell, tmp_path: Path, make: Any, status: int, says: str
) -> None:
    said = shell("memory", make(tmp_path / "x.pickle"))

    assert said.status == status
    assert says in said.err
    assert len(said.err.splitlines()) <= 2


def test_nothing_of_what_was_asked_for_is_4_and_says_why(shell: Shell, path: Path) -> None:
    said = shell("memory", path, "--table", "ooms")

    assert said.status == 4
    assert "there was no out-of-memory error" in said.err


def test_output_goes_to_a_file_that_is_not_there_yet(
    shell: Shell, path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "memory.md"
    arguments = ("memory", path, "--format", "markdown", "-o", out)

    assert shell(*arguments).status == 0
    assert "Live at the peak" in out.read_text(encoding="utf-8")
    assert "--force overwrites it" in shell(*arguments).err
    assert shell(*arguments, "--force").status == 0
    assert "is the recording itself" in shell("memory", path, "-o", path, "--force").err


def test_names_of_a_snapshot_act_on_no_terminal_and_no_page(shell: Shell, tmp_path: Path) -> None:
    snapshot = Snapshot()
    snapshot.device().alloc(1000, stack=("<script>.py:1 \x1b[31mred\u202e",))
    path = snapshot.write(tmp_path / "x.pickle")

    text, page = (shell("memory", path, "--format", form).out for form in ("text", "html"))

    assert "\x1b" not in text
    assert "\u202e" not in text + page
    assert "<script>" not in page


def test_a_folder_gives_its_snapshots_with_the_ranges_beside_them(
    shell: Shell, tmp_path: Path
) -> None:
    clock_us = BASE_NS // 1000 + 60_000_000
    for rank in range(2):
        snapshot = Snapshot()
        snapshot.device().alloc(1000 + rank, at=clock_us + 10)
        snapshot.write(tmp_path / f"rank{rank}.pickle")
        trace = Profile(start_ns=clock_us * 1000)
        phase = ("forward", "backward")[rank]
        trace.thread("python3").annotation(phase, 0, 20_000)
        trace.write(tmp_path / f"rank{rank}.json")

    runs = shell("memory", tmp_path, "--format", "json").json["runs"]

    peaks = [run["tables"]["devices"][0] for run in runs]
    assert [p["peak_phase"] for p in peaks] == ["forward", "backward"]
    assert [p["peak_active_bytes"] for p in peaks] == [1000, 1001]


def test_a_folder_without_memory_says_so(shell: Shell, tmp_path: Path) -> None:
    cpu_only(tmp_path / "x.json")

    said = shell("memory", tmp_path)

    assert said.status == 4
    assert "No recording in" in said.err


def test_the_second_time_comes_from_the_cache(shell: Shell, path: Path) -> None:
    first, second = (shell("memory", path, "--format", "json").json for _ in range(2))
    anew = shell("memory", path, "--format", "json", "--no-cache").json

    assert first == second == anew


@pytest.mark.corpus
def test_our_recordings_are_shown_on_one_screen(corpus: Path, shell: Shell) -> None:
    for path in sorted((corpus / "memory").glob("*.gz")):
        said = shell("memory", path)

        assert said.status == 0
        assert len(said.out.splitlines()) <= 56
        assert said.err == ""


def test_colours_are_for_terminals_alone(path: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "90"}
    command = [sys.executable, "-m", "tracelens", "memory", str(path)]

    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)

    assert "\x1b" not in done.stdout

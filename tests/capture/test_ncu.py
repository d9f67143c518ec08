"""The ncu recorder, on fake programs of several versions: there is no GPU to measure."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.capture.fake_tools import CSV, Machine
from tracelens import tools
from tracelens.capture.recorder import Wanted
from tracelens.capture.recorders import ncu as ncu_module
from tracelens.capture.recorders.ncu import RECORDER
from tracelens.errors import CaptureError

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.capture.recorder import Made

SAID = "==WARNING== No kernels were profiled.\n"
PERMISSION = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access counters"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine without profilers."""
    made = Machine.at(tmp_path / "root")
    monkeypatch.setattr(tools, "ROOT", made.root)
    monkeypatch.setenv("PATH", str(made.root / "bin"))
    return made


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    folder = tmp_path / "a run, 50% done"
    (folder / "logs").mkdir(parents=True)
    return Wanted(folder, "cuda")


def passed(wanted: Wanted) -> tuple[list[Made], list[str]]:
    """Run a pass of a program that does nothing, and finish it."""
    command = RECORDER.command([sys.executable, "-IS", "-c", "pass"], wanted)
    variables = {**os.environ, **RECORDER.environment(wanted)}
    with (wanted.folder / "logs" / "ncu.log").open("w") as log:
        subprocess.run(command, env=variables, stdout=log, stderr=log, check=False)
    said: list[str] = []
    return RECORDER.finish(wanted, said.append), said


def asked(machine: Machine, wanted: Wanted, **options: Any) -> list[str]:
    """Return the flags for some options, once it was seen that the fake takes them."""
    changed = replace(wanted, options={k.replace("_", "-"): v for k, v in options.items()})
    assert passed(changed)[0]
    return RECORDER.command(["python"], changed)


def follows(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_a_pass_leaves_a_report_and_a_table_without_ncus_own_lines(
    machine: Machine, wanted: Wanted
) -> None:
    warned = f"print('==WARNING== Rules are off.'); print({CSV!r}, end='')"
    machine.ncu("2025.3.1.0", table=warned)

    made, said = passed(wanted)

    assert [file.path for file in made] == ["ncu.csv", "ncu.ncu-rep"]
    assert (wanted.folder / "ncu.csv").read_text() == CSV
    assert said[0].startswith("2 kernel launches were measured.")
    assert sorted(f.name for f in wanted.folder.iterdir()) == ["logs", "ncu.csv", "ncu.ncu-rep"]


def test_the_table_of_a_real_report_keeps_every_launch(corpus: Path, tmp_path: Path) -> None:
    real = corpus / "ncu" / "roofline-raw-h200.csv"

    launches = ncu_module._without_messages(real, tmp_path / "ncu.csv")

    lines = real.read_text().splitlines(keepends=True)
    assert (tmp_path / "ncu.csv").read_text() == "".join(
        line for line in lines if not line.startswith("==")
    )
    with (tmp_path / "ncu.csv").open(newline="") as file:
        assert launches == sum(row["ID"].isdigit() for row in csv.DictReader(file)) == 13


def test_clocks_are_never_locked_and_it_is_said_what_that_means(
    machine: Machine, wanted: Wanted
) -> None:
    machine.ncu("2025.3.1.0")

    assert follows(asked(machine, wanted), "--clock-control") == "none"
    assert "Clocks" in passed(wanted)[1][0] or "clocks" in passed(wanted)[1][0]


def test_only_the_window_is_measured_in_all_processes(machine: Machine, wanted: Wanted) -> None:
    machine.ncu("2025.3.1.0")

    command = asked(machine, wanted)

    assert follows(command, "--profile-from-start") == "off"
    assert follows(command, "--target-processes") == "all"
    assert follows(command, "--launch-count") == "100"
    assert "--profile-from-start" not in asked(machine, replace(wanted, steps=None))


@pytest.mark.parametrize(
    ("sets", "option", "flags"),
    [
        (("basic", "full", "roofline"), None, ["--set", "basic"]),
        (("basic", "full", "roofline"), "roofline", ["--set", "roofline"]),
        (("basic", "full", "roofline"), "full", ["--set", "full"]),
        (("default", "full"), None, ["--set", "default"]),
        (
            ("default", "full"),
            "roofline",
            ["--section", "SpeedOfLight", "--section", "SpeedOfLight_RooflineChart"],
        ),
        ((), "roofline", ["--set", "roofline"]),
    ],
)
def test_a_set_is_asked_for_by_the_name_that_the_version_has(
    machine: Machine, wanted: Wanted, sets: tuple[str, ...], option: str | None, flags: list[str]
) -> None:
    machine.ncu("2024.1.1.0", sets=sets)

    command = asked(machine, wanted, **({option: True} if option else {}))

    start = command.index(flags[0])
    assert command[start : start + len(flags)] == flags


def test_kernels_are_chosen_by_their_whole_names(machine: Machine, wanted: Wanted) -> None:
    machine.ncu("2025.3.1.0")

    command = asked(machine, wanted, kernel="gemm|cutlass", launches="5", skip="2")

    assert follows(command, "--kernel-name") == "regex:gemm|cutlass"
    assert follows(command, "--kernel-name-base") == "demangled"
    assert (follows(command, "--launch-count"), follows(command, "--launch-skip")) == ("5", "2")


def test_older_versions_take_the_regex_by_another_flag(machine: Machine, wanted: Wanted) -> None:
    machine.ncu("2020.3.1.0", knows=("--kernel-regex",), sets=("default", "full"))

    assert follows(asked(machine, wanted, kernel="gemm"), "--kernel-regex") == "gemm"


def test_a_range_counts_in_every_thread_where_the_version_can(
    machine: Machine, wanted: Wanted
) -> None:
    machine.ncu("2023.3.1.0")
    old = asked(machine, wanted, range="backward")
    machine.ncu("2024.3.1.0", knows=("--kernel-name", "--nvtx-push-pop-scope"))
    new = asked(machine, wanted, range="backward")

    assert follows(old, "--nvtx-include") == follows(new, "--nvtx-include") == "backward/"
    assert "--nvtx-push-pop-scope" not in old
    assert follows(new, "--nvtx-push-pop-scope") == "process"


def test_replay_and_caches_can_be_chosen(machine: Machine, wanted: Wanted) -> None:
    machine.ncu("2025.3.1.0")

    command = asked(machine, wanted, replay="application", warm_cache=True)

    assert follows(command, "--replay-mode") == "application"
    assert follows(command, "--cache-control") == "none"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"launches": "many"}, "launches=20"),
        ({"launches": True}, "launches=20"),
        ({"skip": "0"}, "skip=20"),
        ({"kernel": "gemm("}, "no regular expression"),
        ({"kernel": True}, "kernel=gemm"),
        ({"replay": "twice"}, "kernel or application"),
    ],
)
def test_options_that_cannot_be_are_refused_beforehand(
    machine: Machine, wanted: Wanted, options: dict[str, Any], why: str
) -> None:
    machine.ncu("2025.3.1.0")

    assert why in (RECORDER.unusable(replace(wanted, options=options)) or "")


def test_collectives_are_not_replayed(machine: Machine, wanted: Wanted) -> None:
    machine.ncu("2025.3.1.0")
    ranks = replace(wanted, processes=2)

    assert "wait for" in (RECORDER.unusable(ranks) or "")
    assert RECORDER.unusable(replace(ranks, options={"kernel": "gemm"})) is None


def test_without_a_gpu_or_without_ncu_there_is_nothing_to_measure(
    machine: Machine, wanted: Wanted
) -> None:
    assert "developer.nvidia.com/nsight-compute" in (RECORDER.unusable(wanted) or "")
    with pytest.raises(CaptureError, match="was not found"):
        RECORDER.command(["python"], wanted)

    machine.program("bin/ncu", "import sys; sys.exit('libfoo.so is missing')")
    assert "libfoo.so is missing" in (RECORDER.unusable(wanted) or "")

    machine.ncu("2025.3.1.0", "usr/local/cuda-12.8/bin/ncu")
    assert RECORDER.unusable(wanted) is None
    assert "on the CPU" in (RECORDER.unusable(replace(wanted, device="cpu")) or "")


def test_closed_counters_are_told_beforehand(
    machine: Machine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.ncu("2025.3.1.0")
    params = machine.root / "proc/driver/nvidia/params"
    params.parent.mkdir(parents=True)
    params.write_text("RmProfilingAdminOnly: 1\n")
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert "ERR_NVGPUCTRPERM" in (RECORDER.unusable(wanted) or "")


@pytest.mark.parametrize(
    ("says", "options", "why"),
    [
        (PERMISSION, {}, "NVreg_RestrictProfilingToAdminUsers=0"),
        (SAID, {}, "no kernel was launched in the recorded steps"),
        (SAID, {"kernel": "gmm"}, "with 'gmm' in its name"),
        (SAID, {"range": "forwrd"}, "within a range 'forwrd'"),
        ("==ERROR== Unknown error on device 0.", {}, "Unknown error on device 0"),
        ("==ERROR== Profiling failed because a driver resource was unavailable.", {}, "DCGM"),
        ("", {}, "see logs/ncu-messages.log"),
    ],
)
def test_a_pass_that_measured_nothing_says_why(
    machine: Machine, wanted: Wanted, says: str, options: dict[str, Any], why: str
) -> None:
    machine.ncu("2025.3.1.0", says=says, leaves=False)

    with pytest.raises(CaptureError, match=why):
        passed(replace(wanted, options=options))


def test_kernels_that_failed_among_others_are_told(machine: Machine, wanted: Wanted) -> None:
    machine.ncu("2025.3.1.0", says="==ERROR== Failed to profile kernel gemm in process 7")

    made, said = passed(wanted)

    assert made
    assert said[0] == "Not all went well: Failed to profile kernel gemm in process 7."


def test_as_many_launches_as_were_allowed_may_not_be_all(machine: Machine, wanted: Wanted) -> None:
    machine.ncu("2025.3.1.0")

    assert len(passed(wanted)[1]) == 1
    assert "launches=20" in passed(replace(wanted, options={"launches": "2"}))[1][1]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("sys.exit('==ERROR== Failed to open the report')", "Failed to open the report"),
        ("print('==WARNING== nothing here')", "no table"),
        (f"print({CSV[:-20]!r}, end='')", "no table"),
        (f"print({CSV.splitlines()[0]!r})", "no table"),
        ("time.sleep(60)", "no answer in 0.5 s"),
    ],
)
def test_a_table_that_is_not_whole_is_never_taken_for_one(
    machine: Machine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch, table: str, why: str
) -> None:
    monkeypatch.setattr(ncu_module, "PATIENCE_S", 0.5)
    machine.ncu("2025.3.1.0", table=table)

    with pytest.raises(CaptureError, match=why) as error:
        passed(wanted)

    assert "ncu --import ncu.ncu-rep --page raw --csv" in str(error.value)
    assert sorted(f.name for f in wanted.folder.iterdir()) == ["logs", "ncu.ncu-rep"]

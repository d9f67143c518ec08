"""`tracelens capture`: what is typed, what is planned, what is printed, and what is left."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.asking import Shell
from tests.recorders import Scripted, Toy, known, python
from tracelens import registry, workload
from tracelens.capture import machine as machines
from tracelens.capture import plan as plans
from tracelens.capture.machine import Machine
from tracelens.capture.recorder import Made
from tracelens.cli.capture import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWERS = """
import os
from pathlib import Path
from tracelens.capture import job
mine = job.load(Path(os.environ["TRACELENS_JOB"]))
print("working")
job.answer(mine, job.Outcome(steps_ns=[1_000_000] * 3))
"""
FAILS = "raise SystemExit('no mood')"
TRACE = Made("trace.json.gz", is_recording=False)


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shell:
    """Give a shell in an empty folder of a laptop with 8 GB of memory."""
    monkeypatch.chdir(tmp_path)
    laptop = Machine(has_torch=True, free_bytes=8 * 10**9, facts={"python": "3.13"})
    monkeypatch.setattr(machines, "look", lambda: laptop)
    return Shell(capsys)


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let there be the workload `toy`, whose program answers, and recorders timer and torch."""

    def these(text: str = ANSWERS, **recorders: Scripted) -> None:
        usual = {"timer": Scripted("timer", leaves=[TRACE], listens=False),
                 "torch": Scripted("torch", leaves=[TRACE]),
                 "memory": Scripted("memory", why_not="there is no GPU")}  # fmt: skip
        known(monkeypatch, toy=Toy, **{**usual, **recorders})
        monkeypatch.setattr(plans, "program", lambda _request: list(python(text)))

    these()
    return these


def only_run() -> tuple[Path, dict[str, object]]:
    (folder,) = Path("runs").iterdir()
    return folder, json.loads((folder / "run.json").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("toys")
def test_a_name_and_options_become_a_run_folder_with_all_that_is_known(shell: Shell) -> None:
    said = shell("capture", "toy-small", "--fast", "--steps", "3", "--seed", "7", "--with", "timer")

    folder, run = only_run()
    assert said.status == 0
    assert folder.name.startswith("toy-small-fast-2")
    assert run["workload"] == "toy"
    assert run["options"] == {"gigabytes": 1, "ranks": 1, "fast": True}
    assert (run["seed"], run["steps"], run["device"]) == (7, 3, "cpu")
    assert [(p["recorder"], p["state"]) for p in run["passes"]] == [("timer", "done")]  # type: ignore[union-attr, attr-defined]
    assert (folder / "logs" / "timer.log").read_text() == "working\n"
    assert "1.00 ms without a profiler" in said.out


@pytest.mark.usefixtures("toys")
def test_the_order_of_options_and_name_does_not_matter(shell: Shell) -> None:
    for typed in (["--gigabytes", "3", "toy"], ["--steps", "2", "toy", "--gigabytes", "3"]):
        said = shell("capture", *typed, "--dry-run")

        assert said.status == 0
        assert "toy-gigabytes3-" in said.out


@pytest.mark.usefixtures("toys")
def test_a_dry_run_says_what_would_be_done_and_does_nothing(shell: Shell) -> None:
    said = shell("capture", "toy", "--dry-run")

    assert said.status == 0
    assert "torch → trace.json.gz" in said.out
    assert "Memory by formula: 1.86 GiB (parameters 1.86 GiB)" in said.out
    assert not Path("runs").exists()


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (["tory"], "Did you mean toy?"),
        (["toy-smal"], "Did you mean toy-small?"),
        (["toy", "--gigabyte", "3"], "--gigabytes"),
        (["toy", "--gigabytes", "many"], "not a valid integer"),
        (["toy", "--gigabytes", "0"], "at least 1"),
        (["toy", "--with", "toorch"], "Did you mean torch?"),
        (["toy", "--with", "torch:deep"], "Did you mean depth?"),
        ([], "tracelens list workloads"),
        (["toy", "--", "python", "train.py"], "not both"),
        (["--"], "behind --"),
        (["toy", "--whole"], "for a program of yours"),
        (["--resume", "nowhere"], "no Run folder"),
        (["toy", "--resume", "nowhere"], "name nothing else"),
        (["toy", "other"], "other"),
    ],
)
def test_what_cannot_be_meant_is_answered_with_what_could(
    shell: Shell, typed: list[str], hint: str
) -> None:
    said = shell("capture", *typed)

    assert said.status == 2
    assert hint in said.err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("toys")
def test_a_size_that_does_not_fit_is_refused_before_anything_runs(shell: Shell) -> None:
    said = shell("capture", "toy-huge")

    assert said.status == 2
    assert "toy-huge needs about 3.64 TiB" in said.err
    assert "tracelens capture toy-small" in said.err
    assert not Path("runs").exists()


def test_a_failed_pass_is_named_with_the_way_to_run_it_again(
    shell: Shell, toys: Callable[..., None]
) -> None:
    toys(torch=Scripted("torch", fails="the disk is full"))

    said = shell("capture", "toy")

    folder, _ = only_run()
    assert said.status == 0
    assert "torch (failed: the disk is full)" in said.out
    assert f"tracelens capture --resume {folder}" in said.out


def test_a_recorder_that_was_asked_for_and_failed_is_an_error(
    shell: Shell, toys: Callable[..., None]
) -> None:
    toys(torch=Scripted("torch", fails="the disk is full"))

    assert shell("capture", "toy", "--with", "timer", "--with", "torch").status == 4


def test_nothing_recorded_is_an_error_that_names_the_logs(
    shell: Shell, toys: Callable[..., None]
) -> None:
    toys(FAILS)

    said = shell("capture", "toy")

    assert said.status == 4
    assert "Nothing was recorded; the logs are in" in said.err
    assert "no mood" in said.out + said.err


@pytest.mark.usefixtures("toys")
def test_the_output_folder_can_be_named_once(shell: Shell) -> None:
    assert shell("capture", "toy", "-o", "here").status == 0
    assert Path("here/run.json").is_file()

    again = shell("capture", "toy", "-o", "here")

    assert again.status == 2
    assert "--resume here" in again.err
    assert shell("capture", "toy", "-o", "here", "--force").status == 0


def test_resume_runs_what_is_missing(shell: Shell, toys: Callable[..., None]) -> None:
    toys(torch=Scripted("torch", fails="once"))
    assert shell("capture", "toy", "-o", "here", "--fast").status == 0
    toys()

    said = shell("capture", "--resume", "here")

    run = json.loads(Path("here/run.json").read_text(encoding="utf-8"))
    assert said.status == 0
    assert [p["state"] for p in run["passes"]] == ["done", "done"]
    assert run["options"]["fast"] is True
    assert "[1/1] torch" in said.err


@pytest.mark.usefixtures("toys")
def test_a_programs_run_is_named_after_its_script(shell: Shell) -> None:
    for program, name in (
        (["python", "code/train.py", "--steps", "3"], "train"),
        (["torchrun", "--nproc-per-node", "2", "pretrain.py"], "pretrain"),
        (["python", "-m", "my.trainer"], "my.trainer"),
        (["./a.out"], "a"),
    ):
        said = shell("capture", "--dry-run", "--", *program)

        assert said.status == 0
        assert f"runs/{name}-2" in said.out


@pytest.mark.usefixtures("toys")
def test_verbose_shows_what_the_program_prints(shell: Shell) -> None:
    assert "working" in shell("capture", "toy", "-v").err
    assert "working" not in shell("capture", "toy", "-o", "other").err


@pytest.mark.usefixtures("toys")
def test_the_help_of_a_workload_shows_its_options_and_presets(shell: Shell) -> None:
    said = shell("capture", "toy-small", "--help")

    assert "--gigabytes INTEGER" in said.out
    assert "[default: 1]" in said.out
    assert "--fast / --no-fast" in said.out
    assert "huge" in said.out


def test_the_help_without_a_workload_lists_them_all(shell: Shell) -> None:
    said = shell("capture", "--help")

    for name in registry.names("workload"):
        assert f"  {name.replace('_', '-')}" in said.out


def test_no_option_of_a_workload_hides_one_of_the_command() -> None:
    own = {name for param in COMMAND.params for name in param.opts}

    for name, entry in registry.entries("workload").items():
        options = {f"--{o.name.replace('_', '-')}" for o in workload.options_of(entry.load())}
        assert not options & own, name


def test_a_product_on_this_machine_is_timed_and_recorded_for_real(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = Shell(capsys)
    small = ["--m", "64", "--n", "64", "--k", "64", "--dtype", "fp32"]

    said = shell("capture", "matmul", *small, "--steps", "3", "--warmup", "1", "-o", "run")

    assert said.status == 0, said.err
    run = json.loads(Path("run/run.json").read_text(encoding="utf-8"))
    assert [(p["recorder"], p["state"]) for p in run["passes"]] == [
        ("timer", "done"),
        ("torch", "done"),
    ]
    assert len(run["passes"][1]["steps_ns"]) == 3
    assert [file["path"] for file in run["recordings"]] == ["trace.json.gz"]
    ops = shell("summarize", "run", "--table", "ops", "--format", "json")
    mm = [
        r for r in json.loads(ops.out)["tables"]["ops"] if r["name"] in ("aten::mm", "aten::matmul")
    ]
    assert {row["calls"] for row in mm} == {3 * 10}


def test_what_the_device_cannot_do_is_refused_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    said = Shell(capsys)("capture", "matmul", "--dtype", "tf32", "--device", "cpu", "-o", "run")

    run = json.loads(Path("run/run.json").read_text(encoding="utf-8"))
    assert said.status == 2
    assert "--dtype tf32 needs an NVIDIA GPU" in said.err
    assert [p["state"] for p in run["passes"]] == ["failed", "planned"]


TRAINING = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
optimizer = torch.optim.SGD(model.parameters())
for step in range(100):
    loss = model(torch.randn(4, 8)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print("never said: the program ends with the last step that is recorded")
"""


@pytest.mark.slow
def test_a_program_without_a_mark_is_recorded_by_phase_and_step(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(TRAINING, encoding="utf-8")
    shell = Shell(capsys)
    words = ("--with", "torch", "--steps", "3", "--warmup", "2", "-o", "run")

    said = shell("capture", *words, "--", sys.executable, "train.py")

    assert said.status == 0, said.err
    run = json.loads(Path("run/run.json").read_text(encoding="utf-8"))
    (done,) = run["passes"]
    assert (len(done["warmup_ns"]), len(done["steps_ns"])) == (2, 3)
    assert "never said" not in Path("run/logs/torch.log").read_text(encoding="utf-8")
    asked = shell("summarize", "run", "--table", "cpu_phases", "--format", "json")
    phases = {row["phase"]: row for row in json.loads(asked.out)["tables"]["cpu_phases"]}
    assert {"forward", "backward", "optimizer"} <= phases.keys()
    assert phases["forward"]["matmul"] > 0


@pytest.mark.slow
def test_two_ranks_leave_a_recording_each_and_are_read_as_one_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = Shell(capsys)
    words = ("--world-size", "2", "--megabytes", "0.1", "--with", "torch", "--steps", "2")

    said = shell("capture", "allreduce", *words, "-o", "run")

    assert said.status == 0, said.err
    run = json.loads(Path("run/run.json").read_text(encoding="utf-8"))
    assert [(f["path"], f["rank"]) for f in run["recordings"]] == [
        ("trace.rank0.json.gz", 0),
        ("trace.rank1.json.gz", 1),
    ]
    asked = shell("summarize", "run", "--table", "ranks", "--format", "json")
    assert [row["rank"] for row in json.loads(asked.out)["tables"]["ranks"]] == [0, 1]

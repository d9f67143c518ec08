"""Passes and captures: what becomes of a program that ends, fails, hangs, is killed or stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.recorders import Scripted, Toy, known, python
from tracelens.capture import folder as folders
from tracelens.capture import passes, record
from tracelens.capture import plan as plans
from tracelens.capture.machine import Machine
from tracelens.capture.plan import Asked, Request
from tracelens.capture.recorder import Made
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.capture.folder import Manifest

HERE = Machine(has_torch=True, free_bytes=10**12, facts={"python": "3"})
STEPS = """
    import os
    from pathlib import Path
    from tracelens.capture import job
    mine = job.load(Path(os.environ["TRACELENS_JOB"]))
    def answer(*steps, rank=None, **more):
        job.answer(mine, job.Outcome(rank=rank, steps_ns=list(steps), **more))
"""
TRACE = Made("trace.json.gz")


def program(text: str) -> tuple[str, ...]:
    return python(textwrap.dedent(STEPS) + textwrap.dedent(text))


def captured(
    tmp_path: Path,
    text: str,
    *recorders: Scripted,
    said: list[str] | None = None,
    monkeypatch: pytest.MonkeyPatch,
    limit_s: float | None = None,
    asked: bool = True,
    steps: int | None = 2,
) -> Manifest:
    """Capture a program with these recorders, one pass each."""
    known(monkeypatch, **{one.name: one for one in recorders})
    names = tuple(Asked(one.name) for one in recorders) if asked else ()
    request = Request("toy", program=program(text), asked=names, steps=steps)
    made = plans.make(request, HERE, tmp_path)
    manifest = record.begin(request, made, HERE, tmp_path, ["tracelens", "capture"])
    lines = said if said is not None else []
    return record.run(request, made, manifest, tmp_path, lines.append, limit_s=limit_s)


def states(manifest: Manifest) -> list[tuple[str, str, str]]:
    return [(p.recorder, p.state, p.why) for p in manifest.passes]


def test_a_pass_leaves_its_steps_its_log_and_its_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Scripted("torch", leaves=[TRACE])

    made = captured(tmp_path, "print('hello'); answer(5, 7)", one, monkeypatch=monkeypatch)

    (done,) = made.passes
    assert (done.state, done.steps_ns, done.files) == ("done", [5, 7], ["trace.json.gz"])
    assert (tmp_path / str(done.log)).read_text() == "hello\n"
    assert made.recordings == [folders.File("torch", "trace.json.gz")]
    assert folders.load(tmp_path) == made


def test_the_step_of_several_ranks_is_that_of_the_slowest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "answer(5, 9, 3, rank=0, peak_bytes=8); answer(6, 7, rank=1, peak_bytes=9)"
    one = Scripted("torch", leaves=[Made("a.rank0", 0), Made("a.rank1", 1)])

    made = captured(tmp_path, text, one, monkeypatch=monkeypatch)

    assert (made.passes[0].steps_ns, made.passes[0].peak_bytes) == ([6, 9], 9)
    assert [(f.path, f.rank) for f in made.recordings] == [("a.rank0", 0), ("a.rank1", 1)]


def test_a_pass_that_fails_leaves_the_others_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        if mine.recorder == "torch":
            raise SystemExit("CUDA is in a bad mood")
        answer(1, 2)
    """
    recorders = [
        Scripted("timer", leaves=[TRACE]),
        Scripted("torch"),
        Scripted("memory", leaves=[TRACE]),
    ]

    said: list[str] = []
    made = captured(tmp_path, text, *recorders, said=said, monkeypatch=monkeypatch)

    why = "the program ended with status 1: CUDA is in a bad mood"
    assert states(made) == [("timer", "done", ""), ("torch", "failed", why), ("memory", "done", "")]
    assert f"      failed: {why}" in said


def test_running_out_of_memory_is_told_with_its_step_and_what_was_written_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        failure = job.Failure("out of memory", "CUDA out of memory. Tried ...", "step 3")
        answer(1, made=[job.Made("oom.pickle")], failure=failure)
        raise SystemExit(4)
    """
    made = captured(tmp_path, text, Scripted("memory"), monkeypatch=monkeypatch)

    assert states(made) == [
        ("memory", "out of memory", "CUDA out of memory. Tried ... (in step 3)")
    ]
    assert made.recordings == [folders.File("memory", "oom.pickle")]


def test_a_killed_program_is_told_from_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import signal; os.kill(os.getpid(), signal.SIGKILL)"

    made = captured(tmp_path, text, Scripted("torch"), monkeypatch=monkeypatch)

    why = "killed by SIGKILL: the system may have run out of memory"
    assert states(made) == [("torch", "killed", why)]
    assert made.passes[0].exit_status == -9


def test_a_killed_program_that_had_recorded_all_its_steps_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "answer(1, 2); import signal; os.kill(os.getpid(), signal.SIGKILL)"

    made = captured(tmp_path, text, Scripted("torch", leaves=[TRACE]), monkeypatch=monkeypatch)

    assert states(made) == [("torch", "done", "the program ended with status -9")]


def test_a_program_that_makes_no_steps_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Scripted("torch")

    made = captured(tmp_path, "answer()", one, monkeypatch=monkeypatch)

    assert made.passes[0].state == "failed"
    assert "tracelens.step()" in made.passes[0].why
    assert "--whole" in made.passes[0].why


def test_a_python_without_tracelens_is_told_from_a_program_without_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        file = Path(os.environ["TRACELENS_JOB"].removesuffix(".json") + ".trouble.txt")
        file.write_text("/usr/bin/python: ModuleNotFoundError: No module named 'tracelens'")
    """
    made = captured(tmp_path, text, Scripted("torch"), monkeypatch=monkeypatch)

    assert "No module named 'tracelens'" in made.passes[0].why
    assert "has to be installed in the Python that runs the program" in made.passes[0].why


def test_a_whole_program_needs_no_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Scripted("torch", leaves=[TRACE])

    made = captured(tmp_path, "pass", one, monkeypatch=monkeypatch, steps=None)

    assert states(made) == [("torch", "done", "")]


def test_a_recorder_that_leaves_nothing_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = captured(tmp_path, "answer(1, 2)", Scripted("torch"), monkeypatch=monkeypatch)

    assert states(made) == [("torch", "failed", "it left no recording; see logs/torch.log")]


def test_a_recorder_that_cannot_finish_says_why_and_its_notes_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Scripted("nsys", says="The .qdstrm is kept.", fails="no importer of 2025.3 is here")

    made = captured(tmp_path, "answer(1, 2)", one, monkeypatch=monkeypatch)

    assert states(made) == [("nsys", "failed", "no importer of 2025.3 is here")]
    assert made.passes[0].notes == ["The .qdstrm is kept."]


def test_a_program_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"""
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path({str(tmp_path)!r}, "pid").write_text(str(child.pid))
        time.sleep(600)
    """
    made = captured(tmp_path, text, Scripted("torch"), monkeypatch=monkeypatch, limit_s=2)

    assert states(made) == [("torch", "killed", "it ran longer than --timeout allows")]
    assert not _is_alive(int((tmp_path / "pid").read_text()))


def test_a_recorder_that_hangs_when_the_program_is_over_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "_LATE_S", 1.0)
    recorders = {"nsys": Scripted("nsys", fails="there is no report"),
                 "torch": Scripted("torch", leaves=[TRACE])}  # fmt: skip
    known(monkeypatch, toy=Toy, **recorders)
    text = "answer(1, 2); import time; time.sleep(600)"
    monkeypatch.setattr(plans, "program", lambda _request: list(program(text)))
    request = Request("toy", Toy(), "toy", asked=(Asked("nsys"), Asked("torch")), steps=2)
    plan = plans.make(request, HERE, tmp_path)
    manifest = record.begin(request, plan, HERE, tmp_path, [])

    made = record.run(request, plan, manifest, tmp_path, lambda _line: None)

    why = "the program was over, and its recorder did not end; there is no report"
    status = "the program ended with status -2"
    assert states(made) == [("nsys", "killed", why), ("torch", "done", status)]


def test_a_program_that_fails_at_once_is_told_before_what_its_recorder_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Scripted("nsys", fails="nsys recorded nothing")

    made = captured(tmp_path, "raise SystemExit('no data')", one, monkeypatch=monkeypatch)

    why = "the program ended with status 1: no data; nsys recorded nothing"
    assert states(made) == [("nsys", "failed", why)]


def test_a_program_that_is_not_there_fails_its_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Scripted("torch", around=["/no/such/program"])

    made = captured(tmp_path, "", one, monkeypatch=monkeypatch)

    assert states(made) == [
        ("torch", "failed", "/no/such/program cannot be run: No such file or directory.")
    ]


def test_where_nsys_fails_unasked_torch_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorders = [Scripted("nsys", fails="it broke"), Scripted("torch", leaves=[TRACE])]
    known(monkeypatch, **{one.name: one for one in recorders})
    request = Request("toy", program=program("answer(1, 2)"), steps=2)
    passes = (plans.Planned("nsys", recorders[0], {}),)
    made = plans.Plan("cuda", passes)
    manifest = record.begin(request, made, HERE, tmp_path, [])

    after = record.run(request, made, manifest, tmp_path, lambda _line: None)

    assert states(after) == [("nsys", "failed", "it broke"), ("torch", "done", "")]


def test_run_json_tells_where_run_sqlite_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived = Made("run.sqlite", is_recording=False)

    made = captured(
        tmp_path,
        "answer(1, 2)",
        Scripted("torch", leaves=[TRACE, derived]),
        monkeypatch=monkeypatch,
    )

    assert made.run_sqlite == "torch"
    assert [file.path for file in made.recordings] == ["trace.json.gz"]


def test_what_failed_is_recorded_again_on_resume_and_what_is_done_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        once = Path("{}")
        if mine.recorder == "torch" and not once.exists():
            once.touch()
            raise SystemExit(1)
        answer(1, 2)
    """
    recorders = [Scripted("timer", leaves=[TRACE]), Scripted("torch", leaves=[TRACE])]
    first = captured(
        tmp_path, text.format(tmp_path / "once"), *recorders, monkeypatch=monkeypatch
    )  # fmt: skip
    assert [p.state for p in first.passes] == ["done", "failed"]

    request, manifest = record.resumed(tmp_path, [])
    plan = plans.make(request, HERE, tmp_path)
    after = record.run(request, plan, manifest, tmp_path, lambda _line: None)

    assert [one.name for one in plan.passes] == ["torch"]
    assert [p.state for p in after.passes] == ["done", "done"]
    assert len(recorders[0].finished) == 1
    with pytest.raises(UsageError, match="lacks nothing"):
        record.resumed(tmp_path, [])
    assert record.resumed(tmp_path, [Asked("memory")])[0].asked == (Asked("memory"),)


def test_a_resumed_workload_has_the_options_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, toy=Toy, torch=Scripted("torch"))
    request = Request(
        "toy-small", Toy(gigabytes=1, fast=True), "toy", (), (Asked("torch"),), seed=3
    )
    record.begin(request, plans.make(request, HERE, tmp_path), HERE, tmp_path, [])

    again, _ = record.resumed(tmp_path, [])

    assert (again.workload, again.seed, again.name) == (request.workload, 3, "toy-small")


INTERRUPTED = """
import sys
from pathlib import Path
import pytest
sys.path.insert(0, {root!r})
from tests.capture.test_record import captured, states
from tests.recorders import Scripted
text = '''
    import signal, time
    def stop(*_):
        answer(3, made=[job.Made("half.json.gz")])
        raise SystemExit(130)
    signal.signal(signal.SIGINT, stop)
    Path({there!r}).write_text("x")
    time.sleep(600)
'''
patch = pytest.MonkeyPatch()
try:
    captured(Path({folder!r}), text, Scripted("torch"), Scripted("memory"), monkeypatch=patch)
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("which", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_or_a_signal_leaves_a_run_that_can_be_read_and_resumed(
    tmp_path: Path, which: str
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    there = tmp_path / "there"
    root = str(Path(__file__).parents[2])
    text = INTERRUPTED.format(root=root, there=str(there), folder=str(folder))
    with subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True
    ) as parent:
        _until(there)
        parent.send_signal(getattr(signal, which))
        out, _ = parent.communicate(timeout=60)

    made = folders.load(folder)
    assert out == "stopped\n"
    assert states(made) == [
        ("torch", "interrupted", "stopped by the user"),
        ("memory", "planned", ""),
    ]
    assert [file.path for file in made.recordings] == ["half.json.gz"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a process with its parent")
def test_a_capture_that_is_killed_leaves_no_program_behind(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="no torch: workloads do not run")
    command = [sys.executable, "-m", "tracelens", "capture", "elementwise", "--device", "cpu"]
    command += ["--with", "torch", "--steps", "1000000", "-o", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as capture:
        _until(tmp_path / "run" / "passes" / "torch.job.json")
        child = _child_of(capture.pid)
        capture.kill()

    assert not _is_alive(child)


def _child_of(pid: int) -> int:
    """Return the child that is a recorded program and has come far enough to be ended."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    for _ in range(600):
        for child in listed.read_text(encoding="utf-8").split():
            with contextlib.suppress(OSError):
                if b"torch" in Path(f"/proc/{child}/maps").read_bytes():
                    return int(child)
        time.sleep(0.1)
    raise AssertionError("no program was started")


def test_run_json_is_whole_after_each_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    class Looking(Scripted):
        def finish(self, wanted: Any, say: Any) -> Sequence[Made]:  # type: ignore[override]
            said = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
            seen.append([p["state"] for p in said["passes"]])
            return [TRACE]

    captured(tmp_path, "answer(1, 2)", Looking("a"), Looking("b"), monkeypatch=monkeypatch)

    assert seen == [["running", "planned"], ["done", "running"]]


def _until(file: Path, patience_s: float = 30) -> None:
    deadline = time.monotonic() + patience_s
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
            return False
        time.sleep(0.02)
    return True

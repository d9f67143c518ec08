"""Sweeps whose processes crash, hang, lose their GPU and are killed: what dies costs itself alone.

The measuring process is a made-up one, in which each implementation does what its name says.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracelens.bench import results, sweep
from tracelens.bench.cell import Cell
from tracelens.bench.results import Results
from tracelens.bench.results_shown import states
from tracelens.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

TOY = """
import os, sys, time
from pathlib import Path
from tracelens.bench import cell as cells
from tracelens.bench.cell import Failure, Line, Pair, Row
out = os.fdopen(os.dup(1), "wb", buffering=0)
asked = cells.decode(sys.argv[1])
def say(**what):
    out.write(cells.line(Line(**what)))
def row(name, seconds=1e-3):
    pair = Pair(other=names[0], ratio=2.0, low=1.9, high=2.1, floor=0.01, rounds=9,
                verdict="slower") if name != names[0] else None
    return Row(kernel=asked.kernel, operation=asked.operation, shape=asked.shape,
               dtype=asked.dtype, implementation=name, device="toy", quantity="kernel_time",
               l2="cold", clock="wall clock", n=7, samples_s=(seconds,) * 7, median_s=seconds,
               low_s=seconds, high_s=seconds, mad_s=0.0, p5_s=seconds, p95_s=seconds,
               p99_s=seconds, settled=True, pair=pair, notes=(f"{len(names)} together",))
here = Path(os.environ["TOY"])
names = [*asked.implementations, *asked.candidates]
with (here / "log").open("a") as log:
    log.write(f"{asked.shape['n']} {' '.join(names)}\\n")
if "mute" in names:
    sys.exit("RuntimeError: no such library")
say(device=os.environ.get("TOY_DEVICE", "toy"), is_gpu=True, facts={"torch": "2", "before": {}})
good = []
for name in names:
    say(begun=name, stage="build")
    kind = name.rstrip("0123456789")
    if kind == "abort":
        os.abort()
    if kind == "hang":
        time.sleep(600)
    if kind == "leave":
        sys.stderr.write("Traceback\\nMemoryError: none left\\nSee the Errors' manual.\\n")
        sys.exit(1)
    if kind == "wrong":
        say(failure=Failure(implementation=name, stage="check", error="Wrong", message="0.5 off"))
    elif kind == "cannot":
        say(failure=Failure(implementation=name, stage="cannot", message="no such shape"))
    elif kind == "fault":
        say(failure=Failure(implementation=name, stage="time", error="AcceleratorError",
                            message="an illegal memory access was encountered"))
        sys.exit(3)
    elif kind == "babble":
        out.write(b"what?\\n")
    elif kind == "slow":
        time.sleep(1.5); good.append(name)
    elif kind == "inputs":
        say(failure=Failure(implementation="", stage="inputs", error="MemoryError", message="big"))
        sys.exit(3)
    else:
        good.append(name)
say(begun="", stage="time")
if "crowd" in names and len(names) > 1:
    os.abort()
for name in good:
    say(row=row(name))
say(over=True, facts={"after": {}})
if "lingers" in names:
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of the made-up program, which keeps a log of what it was asked."""
    (tmp_path / "toy_child.py").write_text(TOY, encoding="utf-8")
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), root]))
    monkeypatch.setenv("TOY", str(tmp_path))
    monkeypatch.setattr(sweep, "CHILD", "toy_child")
    return tmp_path


def cell(*names: str, n: int = 1, **more: Any) -> Cell:
    return Cell(
        kernel="made_up",
        operation="forward",
        shape={"n": n},
        dtype="fp32",
        implementations=names,
        **more,
    )


def asked(toy: Path) -> list[str]:
    return (toy / "log").read_text(encoding="utf-8").splitlines()


def measured(*names: str, silence_s: float = 60) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Return who has rows, and who failed where with which class."""
    found = sweep.measured(cell(*names), silence_s)
    return (
        [row.implementation for row in found.rows],
        [(one.implementation, one.stage, one.error) for one in found.failures],
    )


def test_what_lives_is_measured_in_one_process(toy: Path) -> None:
    assert measured("tracelens", "eager") == (["tracelens", "eager"], [])
    assert asked(toy) == ["1 tracelens eager"]


def test_what_fails_by_itself_costs_no_process(toy: Path) -> None:
    assert measured("tracelens", "wrong", "cannot") == (
        ["tracelens"],
        [("wrong", "check", "Wrong"), ("cannot", "cannot", "")],
    )
    assert len(asked(toy)) == 1


def test_who_is_to_blame_is_tried_again_by_itself_and_the_others_together(toy: Path) -> None:
    assert measured("tracelens", "abort", "eager") == (
        ["tracelens", "eager"],
        [("abort", "process", "SIGABRT")],
    )
    assert asked(toy) == ["1 tracelens abort eager", "1 tracelens eager", "1 abort"]


def test_several_may_die(toy: Path) -> None:
    rows, failures = measured("abort1", "tracelens", "leave", "abort2", "wrong")

    assert rows == ["tracelens"]
    assert sorted(failures) == [
        ("abort1", "process", "SIGABRT"),
        ("abort2", "process", "SIGABRT"),
        ("leave", "process", "Exit"),
        ("wrong", "check", "Wrong"),
    ]


def test_the_last_words_of_a_process_are_its_failure() -> None:
    (failure,) = sweep.measured(cell("leave")).failures

    assert failure.message == "MemoryError: none left"


def test_where_nobody_is_to_blame_each_is_tried_by_itself(toy: Path) -> None:
    rows, failures = measured("tracelens", "crowd", "eager")

    assert rows == ["tracelens", "crowd", "eager"]
    assert not failures
    assert asked(toy)[1:] == ["1 tracelens", "1 crowd", "1 eager"]


def test_a_lost_gpu_costs_whom_it_was_lost_by(toy: Path) -> None:
    assert measured("tracelens", "fault", "eager") == (
        ["tracelens", "eager"],
        [("fault", "time", "AcceleratorError")],
    )
    assert asked(toy) == ["1 tracelens fault eager", "1 tracelens eager"]


def test_what_hangs_is_ended_and_not_tried_again(toy: Path) -> None:
    begun = time.monotonic()

    assert measured("tracelens", "hang", "eager", silence_s=2) == (
        ["tracelens", "eager"],
        [("hang", "process", "Timeout")],
    )
    assert time.monotonic() - begun < 30
    assert asked(toy) == ["1 tracelens hang eager", "1 tracelens eager"]


def test_what_lingers_after_its_last_word_is_not_waited_for() -> None:
    begun = time.monotonic()

    assert measured("lingers") == (["lingers"], [])
    assert time.monotonic() - begun < 30


def test_an_answer_that_is_none_loses_the_process_alone() -> None:
    rows, failures = measured("tracelens", "babble")

    assert rows == ["tracelens"]
    assert failures == [("babble", "process", "DecodeError")]


def test_inputs_that_cannot_be_made_fail_the_whole_cell(toy: Path) -> None:
    assert measured("inputs", "eager") == ([], [("", "inputs", "MemoryError")])
    assert len(asked(toy)) == 1


def test_candidates_fail_one_by_one_and_ours_stays_beside_them(toy: Path) -> None:
    found = sweep.measured(cell("tracelens", candidates={"a": {"B": 1}, "abort": {"B": 2}}))

    assert [row.implementation for row in found.rows] == ["tracelens", "a"]
    assert [one.implementation for one in found.failures] == ["abort"]
    assert asked(toy) == ["1 tracelens a abort", "1 tracelens a", "1 tracelens abort"]


def plan(*cells: Cell) -> Results:
    return Results(cells=cells, made="2026-11-20T10:00:00+00:00")


def ran(begun: Results, silence_s: float = 60) -> Results:
    (*_, last) = sweep.run(begun, lambda _line: None, silence_s)
    return last


def test_a_sweep_goes_on_behind_what_failed_and_says_how_to_measure_it_again() -> None:
    found = ran(plan(cell("tracelens", "abort"), cell("abort", n=2), cell("tracelens", n=3)))

    assert found.done == (0, 1, 2)
    assert [(row.shape["n"], row.implementation) for row in found.rows] == [
        (1, "tracelens"),
        (3, "tracelens"),
    ]
    assert [(one.shape["n"], one.error) for one in found.failed] == [(1, "SIGABRT"), (2, "SIGABRT")]
    assert found.failed[0].command == (
        "tracelens bench made-up --operation forward --shapes n=1 --dtype fp32 --baseline abort "
        "--quantity kernel_time --l2 cold"
    )
    assert found.device == "toy"
    assert found.environment["torch"] == "2"


def test_what_was_done_is_not_measured_again(toy: Path) -> None:
    whole = plan(cell("tracelens"), cell("tracelens", n=2), cell("tracelens", n=3))
    first = next(sweep.run(whole, lambda _line: None))

    found = ran(first)

    assert asked(toy) == ["1 tracelens", "2 tracelens", "3 tracelens"]
    assert found.done == (0, 1, 2)
    assert len(found.rows) == 3


def test_what_failed_is_measured_again_and_takes_its_own_place(toy: Path) -> None:
    first = ran(plan(cell("tracelens", "cannot"), cell("tracelens", "abort", n=2)))
    again = first.without_failed()

    assert again.waiting == (1,)

    mended = replace(again, cells=(again.cells[0], cell("tracelens", "eager", n=2)))
    found = ran(mended)

    assert [(row.shape["n"], row.implementation) for row in found.rows] == [
        (1, "tracelens"),
        (2, "tracelens"),
        (2, "eager"),
    ]
    assert [one.stage for one in found.failed] == ["cannot"]
    assert asked(toy)[-1] == "2 tracelens eager"


def test_nothing_goes_on_with_what_another_gpu_began(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = plan(cell("tracelens"), cell("tracelens", n=2))
    first = next(sweep.run(whole, lambda _line: None))
    monkeypatch.setenv("TOY_DEVICE", "another")

    with pytest.raises(UsageError, match="begun on toy, and here is another"):
        ran(first)


def test_where_no_process_says_a_word_it_ends_with_the_reason() -> None:
    with pytest.raises(CaptureError, match="no such library"):
        ran(plan(cell("mute"), cell("tracelens", n=2)))


def test_a_process_that_is_mute_later_is_a_failure_like_others() -> None:
    found = ran(plan(cell("tracelens"), cell("mute", n=2)))

    assert [(one.implementation, one.message) for one in found.failed] == [
        ("", "RuntimeError: no such library")
    ]


def test_an_interrupt_leaves_what_was_measured_and_ends_the_process(toy: Path) -> None:
    running: Iterator[Results] = sweep.run(
        plan(cell("tracelens"), cell("hang", n=2)), lambda _line: None
    )
    first = next(running)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(running)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert first.done == (0,)
    assert not processes_with(str(toy))


def test_a_check_of_many_cells_ends_with_all_of_its_processes(toy: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            sweep.check(plan(*(cell("hang", n=n) for n in range(4))), lambda _line: None, jobs=2)
    finally:
        signal.signal(signal.SIGALRM, before)

    assert len(asked(toy)) == 2
    assert not processes_with(str(toy))


def test_a_check_times_nothing_and_tries_again_what_found_no_memory(toy: Path) -> None:
    found = sweep.check(
        plan(cell("tracelens", "wrong"), cell("inputs", n=2)), lambda _line: None, jobs=2
    )

    assert not found.rows
    assert [(one.implementation, one.stage) for one in found.failed] == [
        ("wrong", "check"),
        ("", "inputs"),
    ]
    assert sorted(asked(toy)) == ["1 tracelens wrong", "2 inputs", "2 inputs"]
    assert [state for _, _, state in states(found)] == [
        "ok",
        "failed: Wrong",
        "failed: MemoryError",
    ]


PARENT = """
import sys
from pathlib import Path
from tracelens.bench import results, sweep
sweep.CHILD = "toy_child"
file = Path(sys.argv[1])
for found in sweep.run(results.load(file), print):
    results.save(found, file)
"""


def test_a_sweep_that_was_killed_goes_on_and_leaves_no_process(toy: Path) -> None:
    file = toy / "results.json"
    whole = plan(cell("tracelens"), cell("slow", n=2), cell("tracelens", n=3))
    results.save(whole, file)
    process = subprocess.Popen([sys.executable, "-c", PARENT, str(file)])
    until = time.monotonic() + 60
    while not results.load(file).done and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()

    killed = results.load(file)
    assert killed.done == (0,)
    until = time.monotonic() + 20
    while processes_with(str(toy)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not processes_with(str(toy))

    resumed = ran(killed)

    assert resumed.done == (0, 1, 2)
    assert [row.implementation for row in resumed.rows] == ["tracelens", "slow", "tracelens"]
    straight = ran(whole)
    assert [replace(row, notes=()) for row in resumed.rows] == [
        replace(row, notes=()) for row in straight.rows
    ]


def processes_with(folder: str) -> list[int]:
    """Return the measuring processes of this test that live."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if f"TOY={folder}".encode() in variables.split(b"\0") and b"toy_child" in command:
            state = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
            found += [] if state == "Z" else [int(entry.name)]
    return found

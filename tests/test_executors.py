"""Many items side by side: in order, whatever fails, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import jobs
from tests.clusters import ROOT, cluster, needs_dask, posix
from tracelens import executors
from tracelens.errors import UnreadableError, UsageError
from tracelens.executors import Failed, each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT_S = 60


def until(holds: Callable[[], object]) -> bool:
    """Wait until something holds, and tell whether it came to that."""
    end = time.monotonic() + WAIT_S
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(holds())


def runs(pid: int) -> bool:
    """Tell whether a process is there and not only waits to be forgotten."""
    with suppress(OSError):
        os.kill(pid, 0)
        told = Path(f"/proc/{pid}/stat")
        return not told.exists() or told.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Give the address of a scheduler with two worker processes."""
    with cluster() as address:
        yield address


@pytest.fixture(params=["processes", pytest.param("cluster", marks=needs_dask)])
def where(request: pytest.FixtureRequest) -> str | None:
    """Give each kind of executor: processes of this machine, and a cluster."""
    if request.param == "processes":
        return None
    address: str = request.getfixturevalue("scheduler")
    return address


def test_answers_stand_in_the_order_of_the_items(where: str | None) -> None:
    told: list[tuple[int, int]] = []

    answers = each(
        jobs.doubled, list(range(7)), scheduler=where, done=lambda *counts: told.append(counts)
    )

    assert answers == [0, 2, 4, 6, 8, 10, 12]
    assert told == [(n, 7) for n in range(1, 8)]


def test_one_that_is_refused_leaves_the_others(where: str | None) -> None:
    first, second, third, fourth = each(jobs.refused, [1, 2, 3, 4], scheduler=where)

    assert (first, second, fourth) == (1, 2, 4)
    assert isinstance(third, Failed)
    assert (third.text, type(third.error)) == ("three is no file", UnreadableError)


def test_a_bug_of_ours_is_called_so(where: str | None) -> None:
    *_, third, fourth = each(jobs.broken, [1, 2, 3, 4], scheduler=where)

    assert isinstance(third, Failed)
    assert "bug in tracelens" in third.text
    assert "ZeroDivisionError: oops" in third.text
    assert (third.error, fourth) == (None, 4)


@posix
def test_what_a_killed_process_had_in_hand_is_done_by_another(
    where: str | None, tmp_path: Path
) -> None:
    marks = [tmp_path / name for name in "abcd"]

    assert each(jobs.killed_once, marks, scheduler=where) == ["a", "b", "c", "d"]


@posix
def test_what_kills_every_process_fails_alone(where: str | None, tmp_path: Path) -> None:
    marks = [tmp_path / name for name in ("a", "bad", "c", "d")]

    answers = each(jobs.killed_always, marks, scheduler=where)

    assert [answers[place] for place in (0, 2, 3)] == ["a", "c", "d"]
    assert isinstance(answers[1], Failed)
    assert "ended" in answers[1].text
    assert len(answers[1].text.splitlines()) == 1


def test_a_single_item_stays_in_this_process() -> None:
    assert each(jobs.process, [1]) == [os.getpid()]


def test_several_are_done_by_at_most_as_many_processes_as_there_are_cores() -> None:
    pids = set(each(jobs.process, list(range(50))))

    assert os.getpid() not in pids
    assert 1 <= len(pids) <= executors._cores()
    assert until(lambda: not pids & {child.pid for child in active_children()})


@posix
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_we_end_no_process_is_left(tmp_path: Path, end: signal.Signals) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from tests import jobs\n"
        "from tracelens.executors import each\n"
        "if __name__ == '__main__': each(jobs.slept, [Path(p) for p in sys.argv[1:]])\n"
    )
    program = tmp_path / "program.py"
    program.write_text(code)
    marks = [tmp_path / name for name in "ab"][: max(2, executors._cores())]
    with subprocess.Popen(
        [sys.executable, str(program), *map(str, marks)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert until(marks[0].exists)
        pids = [int(mark.read_text()) for mark in marks if mark.exists()]
        process.send_signal(end)
        assert process.wait(WAIT_S) != 0

        assert until(lambda: not any(map(runs, pids)))


@needs_dask
def test_an_address_without_scheduler_is_bad_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_CONNECT_S", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense", "tcp://"):
        with pytest.raises(UsageError, match="No dask scheduler answers at"):
            each(jobs.doubled, [1, 2], scheduler=address)


def test_without_dask_we_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)

    with pytest.raises(UsageError, match=r"pip install 'tracelens-gpu\[cluster\]'"):
        each(jobs.doubled, [1, 2], scheduler="tcp://127.0.0.1:9")


@needs_dask
def test_workers_with_another_tracelens_are_refused(
    scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "__version__", "9.9")

    with pytest.raises(UsageError, match=r"and this is 9\.9\. Install the same"):
        each(jobs.doubled, [1, 2], scheduler=scheduler)


@needs_dask
def test_a_scheduler_without_workers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_WORKERS_S", 0.5)

    with cluster(workers=0) as address:
        answers = each(jobs.doubled, [1, 2], scheduler=address)

    assert all(isinstance(a, Failed) and "has no workers" in a.text for a in answers)

"""The process that runs a workload in a pass: what it leaves when all goes well, and when not."""

from __future__ import annotations

import json
import random
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from tests import children
from tests.asking import Shell
from tracelens.links.linked import link
from tracelens.readers.open import open_trace
from tracelens.run import as_run, found, peek

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.capture.job import Failure, Outcome


def steps_of(trace: Path) -> int:
    return link(open_trace(trace)).steps.height


def failed(outcomes: list[Outcome]) -> Failure:
    (outcome,) = outcomes
    assert outcome.failure is not None
    return outcome.failure


def test_a_workload_is_warmed_up_recorded_and_answered_for(tmp_path: Path) -> None:
    status, (outcome,), _ = children.run(children.of_workload("torch", tmp_path))

    assert (status, outcome.failure, outcome.rank, outcome.peak_bytes) == (0, None, None, None)
    assert (len(outcome.warmup_ns), len(outcome.steps_ns), outcome.gpu_steps_ns) == (2, 3, [])
    assert all(took > 0 for took in [*outcome.warmup_ns, *outcome.steps_ns, outcome.build_ns or 0])
    assert [made.path for made in outcome.made] == ["trace.json.gz"]
    assert steps_of(tmp_path / "trace.json.gz") == 3


def test_the_timer_puts_no_marks_into_the_program(tmp_path: Path) -> None:
    looks = """
        def step(number):
            assert not tracelens.marks.is_recording()
    """
    site = children.distribution(tmp_path / "site", looks)
    one = children.of_workload("timer", tmp_path, "written")
    status, (outcome,), printed = children.run(one, site)

    assert (status, outcome.failure, printed) == (0, None, "")
    assert len(outcome.warmup_ns) == 2
    assert len(outcome.steps_ns) >= 10
    assert outcome.made == []


def test_random_numbers_are_those_of_the_seed(tmp_path: Path) -> None:
    draws = """
        import random, sys
        def step(number):
            print(float(torch.rand(())), random.random(), file=sys.stderr)
    """
    site = children.distribution(tmp_path / "site", draws)
    exact = {"warmup": 0, "steps": 1, "options": {"exact": True}}
    one = children.of_workload("timer", tmp_path, "written", seed=7, **exact)

    of_torch = float(torch.rand((), generator=torch.Generator().manual_seed(7)))
    of_python = random.Random(7).random()  # noqa: S311 (the same numbers, no secret)
    assert children.run(one, site)[2] == f"{of_torch} {of_python}\n"


def test_running_out_of_memory_in_a_step_keeps_what_was_recorded(tmp_path: Path) -> None:
    grows = """
        def step(number):
            if number == 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5 GiB.\\nAt:")
    """
    site = children.distribution(tmp_path / "site", grows)
    status, outcomes, _ = children.run(children.of_workload("torch", tmp_path, "written"), site)

    failure = failed(outcomes)
    assert (status, failure.kind, failure.at) == (4, "out of memory", "step 3")
    assert failure.text == "CUDA out of memory. Tried to allocate 5 GiB."
    assert len(outcomes[0].steps_ns) == 1
    assert [made.path for made in outcomes[0].made] == ["trace.json.gz"]
    assert steps_of(tmp_path / "trace.json.gz") == 2


def test_an_allocation_that_the_host_cannot_have_is_out_of_memory(tmp_path: Path) -> None:
    greedy = """
        def built(device):
            torch.empty(2**60, dtype=torch.uint8)
    """
    site = children.distribution(tmp_path / "site", greedy)
    status, outcomes, _ = children.run(children.of_workload("torch", tmp_path, "written"), site)

    failure = failed(outcomes)
    assert (status, failure.kind, failure.at) == (4, "out of memory", "build")
    assert "you tried to allocate 1152921504606846976 bytes" in failure.text
    assert outcomes[0].build_ns is None
    assert outcomes[0].made == []


def test_what_cannot_be_had_is_a_wrong_request_without_a_traceback(tmp_path: Path) -> None:
    refuses = """
        def built(device):
            raise UsageError("--dtype fp4 needs a GPU of the next decade.")
    """
    site = children.distribution(tmp_path / "site", refuses)
    one = children.of_workload("torch", tmp_path, "written")
    status, outcomes, printed = children.run(one, site)

    failure = failed(outcomes)
    assert (status, failure.kind, failure.at) == (2, "usage", "build")
    assert failure.text == "--dtype fp4 needs a GPU of the next decade."
    assert printed == ""


def test_a_gpu_or_an_option_that_is_not_there_is_a_wrong_request(tmp_path: Path) -> None:
    one = children.of_workload("timer", tmp_path)
    on_gpu, unknown = replace(one, torch_device="cuda"), replace(one, options={"rows": 3})

    if not torch.cuda.is_available():
        status, outcomes, _ = children.run(on_gpu)
        assert (status, failed(outcomes).kind) == (2, "usage")
        assert "This needs a GPU; torch" in failed(outcomes).text
    status, outcomes, _ = children.run(unknown)
    assert (status, failed(outcomes).kind) == (2, "usage")
    assert "no option named 'rows'" in failed(outcomes).text


def test_any_other_error_is_told_by_name_and_traced(tmp_path: Path) -> None:
    site = children.distribution(tmp_path / "site", "def step(number): {}['weight']")
    one = children.of_workload("timer", tmp_path, "written")
    status, outcomes, printed = children.run(one, site)

    failure = failed(outcomes)
    assert (status, failure.kind, failure.at) == (4, "error", "step 0")
    assert failure.text == "KeyError: 'weight'"
    assert "Traceback" in printed
    assert "written.py" in printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_end_keeps_what_it_recorded(
    tmp_path: Path, number: signal.Signals
) -> None:
    waits = """
        def step(number):
            if number == 3:
                print("waiting", file=sys.stderr, flush=True)
                time.sleep(60)
        import sys
    """
    site = children.distribution(tmp_path / "site", waits)
    one = children.of_workload("torch", tmp_path, "written")
    with children.started(one, site) as process:
        assert process.stderr
        while "waiting" not in process.stderr.readline():
            pass
        process.send_signal(number)
        process.send_signal(number)
        process.communicate(timeout=60)

    failure = failed(children.job.outcomes(one))
    assert process.returncode == 4
    assert (failure.kind, failure.at) == ("stopped", "step 3")
    assert failure.text == f"ended by {number.name}"
    assert steps_of(tmp_path / "trace.json.gz") == 2


def test_a_process_that_never_comes_back_from_a_call_still_answers(tmp_path: Path) -> None:
    deadlock = """
        import ctypes, signal, sys, threading
        def step(number):
            if number == 2:
                sys.modules["__main__"]._PATIENCE_S = 0.1
                stop = (os.getpid(), signal.SIGTERM)
                threading.Timer(0.5, os.kill, stop).start()
                lock = (ctypes.c_byte * 64)()
                ctypes.CDLL(None).pthread_mutex_lock(lock)
                ctypes.CDLL(None).pthread_mutex_lock(lock)
    """
    site = children.distribution(tmp_path / "site", deadlock)
    status, outcomes, _ = children.run(children.of_workload("timer", tmp_path, "written"), site)

    failure = failed(outcomes)
    assert (status, failure.kind, failure.at) == (4, "stopped", "step 2")
    assert "while it was waiting" in failure.text
    assert len(outcomes[0].warmup_ns) == 2


def test_a_disk_that_fills_up_leaves_no_half_trace(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows limits no file sizes")
    much = """
        def step(number):
            for _ in range(500):
                torch.ones(3)
    """

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    site = children.distribution(tmp_path / "site", much)
    one = children.of_workload("torch", tmp_path, "written")
    status, outcomes, _ = children.run(one, site, preexec_fn=little_room)

    failure = failed(outcomes)
    assert (status, failure.kind, failure.at) == (4, "error", "the end")
    assert "trace.json.gz could not be written" in failure.text
    assert len(outcomes[0].steps_ns) == 3
    assert outcomes[0].made == []
    assert not [file for file in tmp_path.iterdir() if "trace" in file.name]


def test_each_rank_leaves_a_trace_that_says_which_it_is(tmp_path: Path) -> None:
    one = children.of_workload("torch", tmp_path, processes=2)
    status, outcomes, printed = children.run(one)

    assert status == 0, printed
    assert [outcome.rank for outcome in outcomes] == [0, 1]
    assert [len(outcome.steps_ns) for outcome in outcomes] == [3, 3]
    traces = [tmp_path / f"trace.rank{rank}.json.gz" for rank in (0, 1)]
    said = [peek(trace) for trace in traces]
    assert [(one.rank, one.world_size) for one in said] == [(0, 2), (1, 2)]
    assert [steps_of(trace) for trace in traces] == [3, 3]
    place = next(place for place in found([tmp_path]) if place.path == tmp_path)
    run, _ = as_run(place, {r.path: peek(r.path) for r in place.recordings})
    assert run is not None
    assert [rank.number for rank in run.ranks] == [0, 1]


def test_collectives_without_a_gpu_are_summarized(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums = """
        import torch.distributed as dist
        def step(number):
            dist.all_reduce(torch.ones(8))
    """
    site = children.distribution(tmp_path / "site", sums)
    one = children.of_workload("torch", tmp_path / "run", "written", processes=2)
    one.wanted.folder.mkdir()
    children.run(one, site)
    (tmp_path / "run" / "passes").rename(tmp_path / "passes")

    said = Shell(capsys)("summarize", tmp_path / "run")
    assert "run · 2 ranks" in said.out
    assert "bug" not in said.err


def test_a_rank_that_fails_does_not_leave_the_others_waiting(tmp_path: Path) -> None:
    fails = """
        import torch.distributed as dist
        def step(number):
            if number == 3 and RANK == 1:
                raise ValueError("no such expert")
            dist.barrier()
    """
    site = children.distribution(tmp_path / "site", fails)
    one = children.of_workload("torch", tmp_path, "written", processes=2)
    began = time.monotonic()
    status, (first, second), _ = children.run(one, site)

    assert status != 0
    assert time.monotonic() - began < 60  # it would wait for half an hour
    assert second.failure is not None
    assert (second.failure.kind, second.failure.at) == ("error", "step 3")
    assert second.failure.text == "ValueError: no such expert"
    assert first.failure is not None
    assert (first.failure.kind, first.failure.at) == ("stopped", "step 3")
    for outcome in (first, second):
        assert [made.path for made in outcome.made] == [f"trace.rank{outcome.rank}.json.gz"]


def test_the_trace_says_how_it_came_about(tmp_path: Path) -> None:
    import gzip

    children.run(children.of_workload("torch", tmp_path, options={"shapes": True}))

    said = json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes()))["tracelens"]
    assert (said["workload"], said["options"]) == ("matmul", children.TINY)
    assert said["recorder"] == {"shapes": True}
    assert said["version"]

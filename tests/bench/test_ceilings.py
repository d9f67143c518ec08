"""Measuring a machine from end to end, on the processor; and processes that die while they do."""

from __future__ import annotations

import os
import statistics
import threading
from typing import TYPE_CHECKING

import pytest
import torch

from tracelens.bench import ceilings
from tracelens.errors import CaptureError
from tracelens.hardware.measured import Failed, Measured, encode, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BEGINNING = """
import os, sys
from tracelens.bench import job
from tracelens.bench.job import Line
from tracelens.hardware.measured import Result
asked = job.decode(sys.argv[1])
def say(**what):
    sys.stdout.buffer.write(job.line(Line(**what)))
    sys.stdout.buffer.flush()
def result(name):
    say(begun=name)
    say(result=Result(name, "s", 1.0, 1.0, 0.0, [1.0], {}, "wall clock"))
say(device="toy", facts={"torch": "2"})
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of the program that takes the place of the measuring process."""
    file = tmp_path / "program.py"
    monkeypatch.setattr(ceilings, "CHILD", (str(file),))
    return file


def measured(program: Path, text: str, say: Callable[[str], None] = lambda _line: None) -> Measured:
    program.write_text(BEGINNING + text, encoding="utf-8")
    return ceilings.measure("auto", say)


@pytest.fixture(scope="module")
def whole() -> tuple[Measured, list[str]]:
    """Return what is measured of the processor, with three ranks, and what was said meanwhile."""
    said: list[str] = []
    variables = os.environ.copy()
    found = ceilings.measure("cpu", said.append, quick=True, ranks=3)
    assert os.environ == variables
    return found, said


def test_everything_is_measured_on_the_processor_too(whole: tuple[Measured, list[str]]) -> None:
    found, said = whole

    assert not found.failed
    assert [one.name for one in found.results] == [
        "copy", "fill", "call", "matmul.fp64", "matmul.fp32", "matmul.bf16", "read",
        "all_reduce", "all_reduce",
    ]  # fmt: skip
    assert said[0] == f"Measuring {found.device}"
    assert said[-1] == "all_reduce among 3 processes"
    assert found.environment["torch"] == torch.__version__
    assert found.quick


def test_every_result_comes_with_its_samples_and_their_spread(
    whole: tuple[Measured, list[str]],
) -> None:
    for one in whole[0].results:
        assert one.clock == "wall clock"
        assert len(one.samples_s) >= 5
        assert one.median_s == pytest.approx(statistics.median(one.samples_s))
        assert 0 <= one.mad_s <= max(one.samples_s) - min(one.samples_s)
        if one.unit == "flops_per_s":
            assert one.value == pytest.approx(2 * one.size["n"] ** 3 / one.median_s)
        elif "ranks" in one.size:  # as nccl-tests counts what goes over the bus
            assert one.value == pytest.approx(2 * 2 / 3 * one.size["bytes"] / one.median_s)
        elif one.unit == "bytes_per_s":
            assert one.value == pytest.approx(one.size["bytes"] / one.median_s)
        else:
            assert one.value == one.median_s


def test_what_was_measured_is_read_again_from_its_file(
    whole: tuple[Measured, list[str]], tmp_path: Path
) -> None:
    file = tmp_path / "file.json"
    file.write_text(encode(whole[0]), encoding="utf-8")

    assert load(file) == whole[0]


def test_a_process_that_dies_costs_the_case_it_died_of(program: Path) -> None:
    found = measured(
        program,
        "if asked.skip == 0:\n"
        "    result('a'); say(begun='b'); os.abort()\n"
        "assert asked.skip == 2\n"
        "result('c'); say(over=True)\n",
    )

    assert [one.name for one in found.results] == ["a", "c"]
    (failed,) = found.failed
    assert failed.name == "b"
    assert failed.why.startswith("the process died: ")
    assert found.device == "toy"


def test_an_error_is_told_by_its_last_words(program: Path) -> None:
    found = measured(
        program,
        "if asked.skip == 0:\n"
        "    result('a'); say(begun='b'); raise RuntimeError('CUDA is \\x1b[31mgone')\n"
        "say(over=True)\n",
    )

    assert found.failed == [Failed("b", "the process died: RuntimeError: CUDA is  [31mgone")]


def test_a_process_whose_gpu_is_unusable_is_replaced(program: Path) -> None:
    found = measured(
        program,
        "from tracelens.hardware.measured import Failed\n"
        "if asked.skip == 0:\n"
        "    say(begun='a'); say(failed=Failed('a', 'illegal address')); sys.exit(3)\n"
        "result('b'); say(over=True)\n",
    )

    assert [one.name for one in found.results] == ["b"]
    assert found.failed == [Failed("a", "illegal address")]


def test_processes_that_die_again_and_again_come_to_an_end(program: Path) -> None:
    found = measured(
        program, "result(f'a{asked.skip}'); say(begun='b'); sys.stdout.flush(); os._exit(9)"
    )

    assert [one.name for one in found.results] == ["a0", "a2", "a4", "a6", "a8"]
    assert found.failed[-1] == Failed("the rest", "5 processes that measured died")


def test_a_process_that_hangs_is_ended_and_what_was_measured_kept(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rings: list[Callable[[], None]] = []

    class Alarm:
        """A timer that rings when it is told to."""

        def __init__(self, seconds: float, ring: Callable[[], None]) -> None:
            assert seconds == ceilings.LONG_S
            rings.append(ring)

        def start(self) -> None: ...

        def cancel(self) -> None: ...

    monkeypatch.setattr(threading, "Timer", Alarm)
    hangs = "import threading\nresult('a'); say(begun='b'); threading.Event().wait()"

    found = measured(program, hangs, lambda line: rings[-1]() if line == "b" else None)

    assert [one.name for one in found.results] == ["a"]
    assert [one.name for one in found.failed] == ["b", "the rest"]
    assert "ended after 1200 s" in found.failed[0].why


def test_where_nothing_can_be_measured_the_reason_is_told(program: Path) -> None:
    with pytest.raises(CaptureError, match="Nothing can be measured here: RuntimeError: no driver"):
        measured(program, "raise RuntimeError('no driver')")
    with pytest.raises(CaptureError, match="Nothing could be measured: no reason"):
        measured(program, "say(over=True)")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(CaptureError, match="sees 0 GPUs here: no number 3"):
        ceilings.measure("3", lambda _line: None)


def test_without_torch_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    with pytest.raises(CaptureError, match=r"pip install 'tracelens-gpu\[capture\]'"):
        ceilings.measure("auto", lambda _line: None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_reaches_part_of_what_is_stated() -> None:
    from tracelens import hardware

    found = ceilings.measure("0", lambda _line: None, quick=True)

    best = {one.name: one for one in found.results}
    assert best["copy"].clock == "CUDA events"
    assert 0 < best["launch"].median_s < 1e-4
    stated = hardware.device(found.device)
    if stated is not None:
        for name in ("copy", "read"):
            assert 0.4 < best[name].value / stated.bandwidth_bytes_per_s < 1.03
        for name, one in best.items():
            limit = stated.limit(name) if name.startswith("matmul.") else None
            assert limit is None or one.value < limit, name

"""The torch recorder: real recordings of training on the CPU, read back by tracelens."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import torch

import tracelens
from tests.asking import table
from tests.kineto import Profile, training_step
from tracelens import registry
from tracelens.capture import job
from tracelens.capture.recorder import Made, Recorder, Wanted
from tracelens.capture.recorders.torch import export
from tracelens.capture.window import Window
from tracelens.errors import CaptureError
from tracelens.links.linked import link
from tracelens.readers.open import open_trace
from tracelens.run import peek

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.capture.recorder import Session
    from tracelens.trace.model import Trace

PHASES = ["forward", "loss", "backward", "optimizer"]


@pytest.fixture
def recorder() -> Recorder:
    found: Recorder = registry.load("recorder", "torch")
    return found


class Training:
    """Two linear layers that are trained; every step and layer is marked."""

    def __init__(self, fails_in: int | None = None) -> None:
        self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)])
        self.optimizer = torch.optim.SGD(self.layers.parameters())
        self.at = 0
        self.fails_in = fails_in

    def step(self) -> None:
        with tracelens.step(), tracelens.span(f"number {self.at}"):
            with tracelens.phase("forward"):
                x = torch.ones(3, 4)
                for number, layer in enumerate(self.layers):
                    with tracelens.span(f"layer {number}"):
                        x = layer(x)
            if self.at == self.fails_in:
                raise ValueError("no such token")
            with tracelens.phase("loss"):
                loss = x.square().mean()
            with tracelens.phase("backward"):
                loss.backward()
            with tracelens.phase("optimizer"):
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.at += 1


def recorded(
    recorder: Recorder, wanted: Wanted, program: Training, rank: int | None = None
) -> list[Made]:
    """Run a program as a pass does; return what its session made."""
    session = recorder.session(wanted, rank)
    window = Window(session, wanted)
    session.open()
    try:
        while not window.is_done:
            window.begin_step()
            program.step()
            window.end_step()
    except ValueError as error:
        return session.close(error)
    return session.close(None)


def names(trace: Trace) -> set[str]:
    return set(trace["names"].collect()["name"])


def test_steps_phases_and_layers_are_there_and_warm_up_is_not(
    recorder: Recorder, tmp_path: Path
) -> None:
    made = recorded(recorder, Wanted(tmp_path, "cpu", warmup=2, steps=3), Training())

    assert made == [Made("trace.json.gz")]
    linked = link(open_trace(tmp_path / "trace.json.gz"))
    marks = linked.trace["ranges"].join(linked.trace["names"], on="name_id").collect()
    counts = dict(marks.filter(pl.col("kind") == "annotation")["name"].value_counts().iter_rows())
    for name in ["step", *PHASES, "layer 0", "layer 1"]:
        assert counts[name] == 3, name
    assert {name for name in counts if name.startswith("number")} == {
        f"number {n}" for n in (2, 3, 4)
    }
    assert linked.steps["name"].to_list() == ["step"] * 3
    assert counts["Optimizer.step#SGD.step"] == 3


def test_without_warm_up_the_first_step_is_recorded(recorder: Recorder, tmp_path: Path) -> None:
    recorded(recorder, Wanted(tmp_path, "cpu", warmup=0, steps=1), Training())

    assert "number 0" in names(open_trace(tmp_path / "trace.json.gz"))


@pytest.mark.parametrize(
    ("option", "facts"),
    [
        ("", {"profile_memory"}),
        ("memory=off", set()),
        ("shapes", {"profile_memory", "record_shapes"}),
        ("stacks", {"profile_memory", "with_stack"}),
        ("modules", {"profile_memory", "with_stack", "with_modules"}),
        ("flops", {"profile_memory", "record_shapes", "with_flops"}),
    ],
)
def test_options_switch_on_what_they_say(
    recorder: Recorder, tmp_path: Path, option: str, facts: set[str]
) -> None:
    name, _, value = option.partition("=")
    options: dict[str, Any] = {name: value or True} if option else {}
    recorded(recorder, Wanted(tmp_path, "cpu", 1, 2, options=options), Training())

    assert set(options) <= set(recorder.options)
    trace = open_trace(tmp_path / "trace.json.gz")
    asked = {"profile_memory", "record_shapes", "with_stack", "with_modules", "with_flops"}
    assert {fact for fact in asked if fact in trace.source.facts} == facts
    assert ("memory" in trace) == ("profile_memory" in facts)
    assert ("nn.Module: Linear_0" in names(trace)) == ("with_stack" in facts)


def test_what_the_profiler_notes_besides_goes_into_the_trace(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Wanted(tmp_path, "cpu", 0, 1, options={"shapes": True})
    monkeypatch.setenv(job.JOB, str(job.save(job.Job("torch", wanted, "gpt2", {"ctx": 128}))))
    recorded(recorder, wanted, Training())

    said = json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes()))["tracelens"]
    assert said == {
        "version": tracelens.__version__,
        "recorder": {"shapes": True},
        "workload": "gpt2",
        "options": {"ctx": 128},
    }


def test_a_program_that_dies_in_the_window_leaves_the_steps_before(
    recorder: Recorder, tmp_path: Path
) -> None:
    made = recorded(recorder, Wanted(tmp_path, "cpu", 1, 5), Training(fails_in=3))

    assert made == [Made("trace.json.gz")]
    there = names(open_trace(tmp_path / "trace.json.gz"))
    assert {"number 1", "number 2", "number 3"} <= there
    assert "number 0" not in there


@pytest.mark.parametrize("fails_in", [0, 1])
def test_a_program_that_dies_before_the_window_leaves_nothing(
    recorder: Recorder, tmp_path: Path, fails_in: int
) -> None:
    wanted = Wanted(tmp_path, "cpu", 2, 5)
    made = recorded(recorder, wanted, Training(fails_in))

    assert made == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CaptureError, match="before the first recorded step"):
        recorder.finish(wanted, lambda _: None)


def test_a_window_that_ends_early_is_written_once(recorder: Recorder, tmp_path: Path) -> None:
    wanted = Wanted(tmp_path, "cpu", warmup=0, steps=None)
    session: Session = recorder.session(wanted, 3)
    window, program = Window(session, wanted), Training()
    for _ in range(4):
        window.begin_step()
        program.step()
        window.end_step()
    window.end()
    program.step()

    assert session.close(None) == [Made("trace.rank3.json.gz", 3)]
    assert "number 4" not in names(open_trace(tmp_path / "trace.rank3.json.gz"))


class CutShort:
    """A profiler that writes to a full disk: Kineto does not look whether it could."""

    def export_chrome_trace(self, path: str) -> None:
        from pathlib import Path

        Path(path).write_text('{"traceEvents": [{"name": "aten::a', encoding="utf-8")


def test_a_trace_that_does_not_come_to_its_end_is_none(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="disk may be full"):
        export(CutShort(), tmp_path / "trace.json.gz")

    assert list(tmp_path.iterdir()) == []


def gpu_trace(path: Path, rank: int | None = None) -> Path:
    profile = Profile()
    profile.device(0)
    if rank is not None:
        profile.distributed(rank, 2)
    training_step(profile)
    return profile.write(path)


def test_a_recording_of_a_gpu_is_there_in_nsys_schema_too(
    recorder: Recorder, tmp_path: Path
) -> None:
    trace = gpu_trace(tmp_path / "trace.json.gz")
    made = recorder.finish(Wanted(tmp_path, "cuda"), lambda _: None)

    assert Made("run.sqlite", None, is_recording=False) in made
    assert peek(tmp_path / "run.sqlite").format == "nsys"
    phases = [table(link(open_trace(file)), "phases") for file in (trace, tmp_path / "run.sqlite")]
    assert {row["phase"] for row in phases[0]} >= {"forward", "backward", "optimizer"}
    assert phases[0] == phases[1]


def test_nsys_own_recording_is_kept(recorder: Recorder, tmp_path: Path) -> None:
    gpu_trace(tmp_path / "trace.json.gz")
    (tmp_path / "run.sqlite").write_bytes(b"of nsys")
    made = recorder.finish(Wanted(tmp_path, "cuda"), lambda _: None)

    assert (tmp_path / "run.sqlite").read_bytes() == b"of nsys"
    assert "run.sqlite" not in [one.path for one in made]


def test_what_an_earlier_pass_left_is_made_anew(recorder: Recorder, tmp_path: Path) -> None:
    wanted = Wanted(tmp_path, "cuda")
    gpu_trace(tmp_path / "trace.json.gz")
    recorder.finish(wanted, lambda _: None)
    before = (tmp_path / "run.sqlite").stat().st_ino
    recorder.finish(wanted, lambda _: None)
    assert (tmp_path / "run.sqlite").stat().st_ino != before

    recorder.session(wanted, None).open()
    assert not (tmp_path / "trace.json.gz").exists()


def test_a_recording_without_gpu_work_is_told(recorder: Recorder, tmp_path: Path) -> None:
    profile = Profile()
    profile.thread("python3").annotation("forward", 0, 1000)
    profile.write(tmp_path / "trace.json.gz")
    told: list[str] = []
    recorder.finish(Wanted(tmp_path, "cuda"), told.append)

    assert "trace.json.gz holds no work of the GPU" in told[0]


def test_every_rank_has_its_recording_in_nsys_schema(recorder: Recorder, tmp_path: Path) -> None:
    for rank in (0, 1):
        gpu_trace(tmp_path / f"trace.rank{rank}.json.gz", rank)
    wanted = Wanted(tmp_path, "cuda", processes=2)
    made = recorder.finish(wanted, lambda _: None)

    assert sorted(one.path for one in made) == sorted(recorder.files(wanted))
    assert {one.path: one.rank for one in made if not one.is_recording} == {
        "run.rank0.sqlite": 0,
        "run.rank1.sqlite": 1,
    }


def test_a_trace_that_a_process_has_answered_for_is_not_told_twice(
    recorder: Recorder, tmp_path: Path
) -> None:
    wanted = Wanted(tmp_path, "cpu")
    trace = gpu_trace(tmp_path / "trace.json.gz")
    assert recorder.finish(wanted, lambda _: None) == [Made(trace.name)]

    one = job.Job("torch", wanted)
    job.save(one)
    job.answer(one, job.Outcome(made=[Made(trace.name)]))
    assert recorder.finish(wanted, lambda _: None) == []


def test_a_trace_that_cannot_be_exported_is_told_and_kept(
    recorder: Recorder, tmp_path: Path
) -> None:
    (tmp_path / "trace.json.gz").write_bytes(gzip.compress(b'{"traceEvents": 3'))
    told: list[str] = []
    made = recorder.finish(Wanted(tmp_path, "cuda"), told.append)

    assert made == [Made("trace.json.gz")]
    assert "run.sqlite was not made of trace.json.gz" in told[0]


def test_torch_is_looked_for_only_where_the_program_is_ours(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    wanted = Wanted(tmp_path, "cpu")
    assert recorder.unusable(wanted) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    assert "pip install" in str(recorder.unusable(wanted))
    assert recorder.unusable(replace(wanted, processes=None)) is None

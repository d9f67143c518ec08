"""What a pass hands to the program that it records, and what each of its processes answers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from tracelens.capture.recorder import Made, Wanted  # noqa: TC001 (msgspec reads the annotations)

JOB: Final = "TRACELENS_JOB"
"""Names the file with the job in the environment of a program that is recorded."""
PARENT: Final = "TRACELENS_CAPTURE_PID"
"""Tells there which process waits for it."""


@dataclass(frozen=True)
class Job:
    """One pass, as the recorded process needs it.

    Attributes:
        recorder: name in the room of recorders.
        wanted: what is asked of it.
        workload: the name of a workload's file (`gpt2`); None: the user's own program.
        options: of the workload.
        torch_device: where it runs: `cpu` or `cuda`.
        seed: of torch's random numbers.
        stop: end the user's program once the wanted steps are recorded.
    """

    recorder: str
    wanted: Wanted
    workload: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    torch_device: str = "cpu"
    seed: int = 0
    stop: bool = True


@dataclass(frozen=True)
class Failure:
    """Why a process did not come to its end.

    Attributes:
        kind: `out of memory`, `usage` (the options cannot be had here), `error`, or `stopped`
            (by a signal, or since another rank went away: the cause is elsewhere).
        text: the error's own words.
        at: `build`, the step it happened in (`step 3`: from 0, with those of warm-up), or
            `the end`.
    """

    kind: str
    text: str
    at: str


@dataclass(frozen=True)
class Outcome:
    """What one process of a pass did.

    Attributes:
        rank: whose; None if it was alone.
        steps_ns: wall-clock time of each recorded step, the device's work included.
        gpu_steps_ns: the same between two CUDA events; empty without a GPU.
        warmup_ns: wall-clock time of each step before them.
        build_ns: time from the start of the program to its first step.
        made: files it has written.
        failure: why it ended early.
        peak_bytes: most memory that torch had handed out on the device; None if not known.
    """

    rank: int | None = None
    steps_ns: list[int] = field(default_factory=list)
    gpu_steps_ns: list[int] = field(default_factory=list)
    warmup_ns: list[int] = field(default_factory=list)
    build_ns: int | None = None
    made: list[Made] = field(default_factory=list)
    failure: Failure | None = None
    peak_bytes: int | None = None


def save(job: Job) -> Path:
    """Write a job where `outcomes` looks for its answers; return the file."""
    file = _folder(job.wanted.folder) / f"{job.recorder}.job.json"
    file.parent.mkdir(exist_ok=True)
    _write(file, job)
    return file


def load(file: Path) -> Job:
    """Return a job that was saved."""
    return msgspec.json.decode(file.read_bytes(), type=Job, dec_hook=_decoded)


def forget(job: Job) -> None:
    """Remove what the processes of an earlier pass with this recorder have answered."""
    for file in _answers(job):
        file.unlink()
    (_folder(job.wanted.folder) / f"{job.recorder}.job.trouble.txt").unlink(missing_ok=True)


def answer(job: Job, outcome: Outcome) -> None:
    """Write what this process did; called again, it replaces what was said before."""
    rank = "" if outcome.rank is None else f".rank{outcome.rank}"
    _write(_folder(job.wanted.folder) / f"{job.recorder}{rank}.outcome.json", outcome)


def outcomes(job: Job) -> list[Outcome]:
    """Return what the processes of a pass have answered, by rank."""
    found = [msgspec.json.decode(file.read_bytes(), type=Outcome) for file in _answers(job)]
    return sorted(found, key=lambda outcome: -1 if outcome.rank is None else outcome.rank)


def trouble(job: Job) -> str:
    """Return why the hooks could not be put into the user's program; nothing if they could."""
    file = _folder(job.wanted.folder) / f"{job.recorder}.job.trouble.txt"
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def _answers(job: Job) -> list[Path]:
    folder = _folder(job.wanted.folder)
    ranks = folder.glob(f"{job.recorder}.rank*.outcome.json")
    return [*folder.glob(f"{job.recorder}.outcome.json"), *ranks]


def _folder(run: Path) -> Path:
    return run / "passes"


def _write(file: Path, value: object) -> None:
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(value, enc_hook=str)))
    beside.replace(file)


def _decoded(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)

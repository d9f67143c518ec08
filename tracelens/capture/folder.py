"""The Run folder that a capture fills: its run.json, always whole, and the lock on it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from tracelens.errors import CaptureError, UsageError
from tracelens.run import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

State = Literal["planned", "running", "done", "failed", "out of memory", "interrupted", "killed"]

_LONGEST: Final = 120


@dataclass(frozen=True)
class File:
    """A recording in the folder."""

    recorder: str
    path: str
    rank: int | None = None


@dataclass(frozen=True)
class Pass:
    """One recorder's pass, as run.json tells of it.

    Attributes:
        recorder: which one.
        options: of the recorder.
        state: how far it came.
        why: what went wrong, in a line or two.
        notes: what else is to be known of it.
        command: the command line that was run.
        exit_status: the program's; negative: the signal that ended it.
        seconds: how long it ran.
        log: what the program and the recorder printed, relative to the folder.
        files: what it left, recordings or not.
        steps_ns: wall-clock times of the recorded steps; of several ranks the slowest's.
        gpu_steps_ns: the same between CUDA events.
        warmup_ns: of the steps before.
        peak_bytes: most memory that torch had handed out on a device.
    """

    recorder: str
    options: dict[str, Any] = field(default_factory=dict)
    state: State = "planned"
    why: str = ""
    notes: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    exit_status: int | None = None
    seconds: float | None = None
    log: str | None = None
    files: list[str] = field(default_factory=list)
    steps_ns: list[int] = field(default_factory=list)
    gpu_steps_ns: list[int] = field(default_factory=list)
    warmup_ns: list[int] = field(default_factory=list)
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What run.json says: what was run, where, by which recorders, and what came of it.

    Attributes:
        name: as it was asked for: `gpt2-xl`, or the program's name.
        workload: the name of the workload's file; None: the user's own program.
        options: every option of the workload, given or not.
        program: command line of the user's own program.
        device: `cpu` or `cuda`.
        warmup: steps before the recorded ones.
        steps: recorded steps; None: the whole program.
        seed: of torch's random numbers.
        stop: whether the program ends with the last recorded step.
        created: local time with its offset.
        command: the command line of the capture.
        cost: what a step costs by formula.
        machine: `capture.machine`'s facts.
        revision: git commit of the folder that the program ran in.
        passes: in the order they run.
        recordings: what `tracelens summarize` reads of this folder.
        run_sqlite: which recorder run.sqlite comes from.
    """

    name: str
    workload: str | None
    options: dict[str, Any]
    program: list[str]
    device: Literal["cpu", "cuda"]
    warmup: int
    steps: int | None
    seed: int
    stop: bool
    created: str
    command: list[str]
    cost: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    revision: dict[str, Any] | None = None
    passes: list[Pass] = field(default_factory=list)
    recordings: list[File] = field(default_factory=list)
    run_sqlite: str | None = None
    tracelens: str = ""
    schema: int = 1

    def with_pass(self, changed: Pass) -> Manifest:
        """Return it with what is said of one recorder's pass replaced, or added."""
        others = [p.recorder for p in self.passes]
        if changed.recorder not in others:
            return replace(self, passes=[*self.passes, changed])
        passes = [changed if p.recorder == changed.recorder else p for p in self.passes]
        return replace(self, passes=passes)


def folder_name(name: str, changed: Mapping[str, Any], now: datetime) -> str:
    """Return the name of a new Run folder: what is run, the options given, and when."""
    parts = [name, *(_told(option, value) for option, value in changed.items())]
    text = re.sub(r"[^A-Za-z0-9._+-]+", "-", "-".join(parts)).strip("-.")
    return f"{text[:_LONGEST]}-{now:%Y%m%d-%H%M%S}"


def create(path: Path, *, force: bool = False) -> Path:
    """Make the folder.

    Raises:
        UsageError: it is there already, with something in it.
        CaptureError: it cannot be made.
    """
    try:
        if path.is_dir() and any(path.iterdir()):
            if not (force and (path / MANIFEST).is_file()):
                raise UsageError(
                    f"{path} is there already. To record what it lacks: tracelens capture --resume "
                    f"{path}. To record into it anew: --force (it has to be a Run folder)."
                )
        elif path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file; name a folder that is not there yet.")
        path.mkdir(parents=True, exist_ok=True)
        _probe(path)
    except OSError as error:
        reason = error.strerror or error
        raise CaptureError(f"Nothing can be written to {path}: {reason}. Choose another with -o.") \
            from error  # fmt: skip
    return path


def load(path: Path) -> Manifest:
    """Return what the run.json of a folder says.

    Raises:
        UsageError: it is not there, or not of a capture.
    """
    file = path / MANIFEST
    try:
        return msgspec.json.decode(file.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise UsageError(f"{path} has no {MANIFEST}: it is no Run folder of a capture.") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{file} is not of a capture: {error}.") from error


def save(path: Path, manifest: Manifest) -> None:
    """Write run.json, beside and renamed, so that whoever reads it finds it whole.

    Raises:
        CaptureError: the disk is full, or read-only.
    """
    file = path / MANIFEST
    beside = file.with_name(f"{MANIFEST}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise CaptureError(f"{file} cannot be written: {error.strerror or error}.") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the folder for this capture alone, as long as this process lives.

    Raises:
        UsageError: another capture holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two captures in one folder are not kept apart
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise UsageError(f"Another capture is at work in {path}. Wait for it, or choose -o.") \
            from None  # fmt: skip
    try:
        yield
    finally:
        os.close(handle)


def now() -> datetime:
    """Return the local time with its offset from UTC."""
    return datetime.now().astimezone()


def _told(option: str, value: Any) -> str:
    short = option.replace("_", "-")
    if value is True:
        return short
    if value is False:
        return f"no-{short}"
    return str(value) if isinstance(value, str) else f"{short}{value}"


def _probe(path: Path) -> None:
    """Raise OSError unless a file can be made in the folder."""
    probe = path / f".probe-{os.getpid()}"
    probe.write_bytes(b"\0" * 4096)
    probe.unlink()

"""What a capture is going to do: on which device, in which passes, with which command lines."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from tracelens import registry, units
from tracelens.capture import job
from tracelens.capture.recorder import Wanted
from tracelens.errors import CaptureError, UsageError
from tracelens.marks.ranges import RECORDING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracelens.capture.machine import Machine
    from tracelens.capture.recorder import Kind, Recorder
    from tracelens.workload import Workload

INJECTED: Final = Path(__file__).with_name("inject")
"""Put first on PYTHONPATH of the user's own program: its sitecustomize drives the session."""

_INSTALL: Final = "pip install 'tracelens-gpu[capture]'"


@dataclass(frozen=True)
class Asked:
    """A recorder that `--with` names, and its options."""

    recorder: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What is asked of a capture.

    Attributes:
        name: of the workload as it was typed, or of the user's program.
        workload: what to run; None: `program`.
        module: the workload's name in its room.
        program: the command line of the user's own program.
        asked: recorders; none: those that suit the machine.
        device: `auto`, `cpu` or `cuda`.
        warmup: steps before the recorded ones.
        steps: steps to record; None: the whole program.
        seed: of torch's random numbers.
        stop: end the user's program with the last recorded step.
        force: run even if the memory will not do.
    """

    name: str
    workload: Workload | None = None
    module: str | None = None
    program: tuple[str, ...] = ()
    asked: tuple[Asked, ...] = ()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    warmup: int = 3
    steps: int | None = 5
    seed: int = 0
    stop: bool = True
    force: bool = False


@dataclass(frozen=True)
class Planned:
    """One pass that is going to run."""

    name: str
    recorder: Recorder
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """The passes in the order in which they run, and what is to be known about them."""

    device: Kind
    passes: tuple[Planned, ...]
    notes: tuple[str, ...] = ()


def make(request: Request, machine: Machine, folder: Path) -> Plan:
    """Return what a request comes to on a machine.

    Raises:
        UsageError: it asks for what does not exist, or for more than fits.
        CaptureError: it asks for what cannot be had here.
    """
    if request.workload is not None and not machine.has_torch:
        raise CaptureError(f"Workloads run in torch, which is not installed here: {_INSTALL}.")
    device = _device(request, machine)
    notes = [machine.torch_failure] if machine.torch_failure else []
    if request.workload is not None:
        notes += _fits(request, device, machine)
    wanted = wanted_by(request, device, folder)
    passes, why = _passes(request.asked, wanted)
    if device == "cpu":
        why.append(_about_the_cpu(machine))
    return Plan(device, tuple(passes), (*notes, *why))


def wanted_by(request: Request, device: Kind, folder: Path) -> Wanted:
    """Return what every pass of a request is asked, before its own options."""
    processes = None if request.workload is None else request.workload.processes
    return Wanted(folder.absolute(), device, request.warmup, request.steps, processes)


def program(request: Request) -> list[str]:
    """Return the command line that runs a request, without a recorder around it."""
    if request.workload is None:
        return list(request.program)
    child = ["-m", "tracelens.capture.child"]
    processes = request.workload.processes
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        return [sys.executable, *launcher, *child]
    return [sys.executable, *child]


def environment(
    request: Request, planned: Planned, job_file: Path, variables: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of a pass: the caller's, and what the session needs."""
    made = {**variables, job.JOB: str(job_file), RECORDING: planned.name}
    if not planned.recorder.listens:
        del made[RECORDING]
    if request.workload is None:
        paths = [str(INJECTED), *filter(None, [variables.get("PYTHONPATH")])]
        made["PYTHONPATH"] = os.pathsep.join(paths)
    elif request.workload.processes > 1:
        made.setdefault("OMP_NUM_THREADS", "1")  # as torchrun itself would, with a warning
    return made


def parse_asked(text: str) -> Asked:
    """Return what one `--with` says: `nsys`, or `nsys:memory-usage,graph-nodes=on`.

    Raises:
        UsageError: there is no such recorder, or it has no such option.
    """
    name, _, rest = text.partition(":")
    recorder: Recorder = registry.load("recorder", name)
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in recorder.options:
            why = registry.unknown(f"option of {name}", key, recorder.options)
            raise UsageError(f"--with {text}: {why}" if recorder.options else _has_none(name, text))
        options[key] = value if equals else True
    return Asked(name.replace("-", "_"), options)


def _has_none(name: str, text: str) -> str:
    return f"--with {text}: {name} has no options."


def _device(request: Request, machine: Machine) -> Kind:
    if request.device == "cuda" and not machine.gpus:
        why = machine.torch_failure or "torch finds no GPU here; `tracelens doctor` says more"
        raise CaptureError(f"--device cuda: {why}.")
    if request.device == "cpu" or not machine.gpus:
        return "cpu"
    processes = 1 if request.workload is None else request.workload.processes
    if processes > len(machine.gpus):
        if request.device == "cuda":
            there = len(machine.gpus)
            raise CaptureError(f"{processes} processes need {processes} GPUs; {there} are here.")
        return "cpu"
    return "cuda"


def _passes(asked: Sequence[Asked], wanted: Wanted) -> tuple[list[Planned], list[str]]:
    """Return the passes, and why some that one would expect are not among them.

    Raises:
        CaptureError: a recorder that was asked for cannot be used.
    """
    if asked:
        passes = [_planned(one) for one in asked]
        for one in passes:
            if why := _unusable(one, wanted):
                raise CaptureError(f"--with {one.name}: {why}")
        return passes, []
    passes, notes = [], []
    for name in ("timer", "nsys" if wanted.device == "cuda" else "torch", "memory"):
        one = _planned(Asked(name))
        why = _unusable(one, wanted)
        if why and name == "nsys":
            notes.append(f"torch.profiler takes the place of nsys: {why}")
            one = _planned(Asked("torch"))
            why = _unusable(one, wanted)
        if not why:
            passes.append(one)
        elif wanted.device == "cuda":
            notes.append(f"No pass with {one.name}: {why}")
    return passes, notes


def _planned(asked: Asked) -> Planned:
    return Planned(asked.recorder, registry.load("recorder", asked.recorder), asked.options)


def _unusable(one: Planned, wanted: Wanted) -> str | None:
    return one.recorder.unusable(with_options(wanted, one.options))


def with_options(wanted: Wanted, options: Mapping[str, Any]) -> Wanted:
    """Return what one pass is asked."""
    return replace(wanted, options=dict(options))


def _about_the_cpu(machine: Machine) -> str:
    why = "by choice" if machine.gpus else "no GPU that torch can use is here"
    return (
        f"Recorded on the CPU ({why}): it shows which operators run, in what order, how often and "
        "what memory they ask for. It tells nothing of kernels, or of how long a GPU would take."
    )


def _fits(request: Request, device: Kind, machine: Machine) -> list[str]:
    """Return what is to be said of the memory that a workload needs.

    Raises:
        UsageError: it needs more than is free; the message offers what fits.
    """
    workload = request.workload
    if workload is None:
        return []
    shared = workload.processes if device == "cpu" else 1
    need = workload.cost().memory_bytes * shared
    free = _free(device, machine)
    if free is None or need <= free:
        return []
    where = f"{machine.gpus[0].name} has" if device == "cuda" else "this machine has"
    text = (
        f"{request.name} needs about {units.size(need)} by formula; {where} {units.size(free)} free"
    )
    if request.force:
        return [f"{text}."]
    smaller = next((v for v in workload.variants() if v.cost().memory_bytes * shared <= free), None)
    offer = f" This fits: tracelens capture {_typed(request, smaller)}." if smaller else ""
    raise UsageError(f"{text}.{offer} --force runs it all the same.")


def _free(device: Kind, machine: Machine) -> int | None:
    if device == "cpu":
        return machine.free_bytes
    smallest = min(machine.gpus, key=lambda gpu: gpu.free_bytes or gpu.memory_bytes)
    return smallest.free_bytes or smallest.memory_bytes


def _typed(request: Request, workload: Workload) -> str:
    """Return a workload as one would type it: the preset with the fewest options beside it."""
    base = (request.module or request.name).replace("_", "-")
    options = workload.options()
    defaults = type(workload)().options()
    best: tuple[int, str] | None = None
    for preset, values in {"": {}, **workload.presets}.items():
        stands_for = {**defaults, **values}
        given = [(k, v) for k, v in options.items() if stands_for[k] != v]
        if any(k in values for k, _ in given):
            continue  # a preset whose own values are changed says what it is not
        name = f"{base}-{preset}".replace("_", "-") if preset else base
        text = " ".join([name, *(_option(k, v) for k, v in given)])
        if best is None or len(given) < best[0]:
            best = (len(given), text)
    return best[1] if best else base


def _option(name: str, value: Any) -> str:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value}"

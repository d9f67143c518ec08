"""What run.json tells of the machine and the job, as rows for people; it may hold anything."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from tracelens import units

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tracelens.capture.folder import Manifest

Row = tuple[str, str]

_SMI: Final = {
    "driver_version": ("driver", "{}"),
    "power.limit": ("power limit", "{} W"),
    "power.draw": ("power draw before the run", "{} W"),
    "temperature.gpu": ("temperature before the run", "{} °C"),
    "clocks.sm": ("SM clock before the run", "{} MHz"),
    "clocks.max.sm": ("highest SM clock", "{} MHz"),
    "clocks.mem": ("memory clock before the run", "{} MHz"),
    "clocks.max.mem": ("highest memory clock", "{} MHz"),
    "mig.mode.current": ("MIG", "{}"),
}
_UNKNOWN: Final = (None, "", "N/A", "[N/A]", "[Not Supported]")


def gpu_names(told: Manifest) -> list[str]:
    """Return the names of the GPUs of the machine."""
    gpus = map(mapping, listed(told.machine.get("gpus")))
    return [str(gpu["name"]) for gpu in gpus if gpu.get("name")]


def has_smi(told: Manifest) -> bool:
    """Tell whether nvidia-smi told of driver, clocks and power."""
    return bool(listed(told.machine.get("nvidia_smi")))


def machine(told: Manifest) -> Iterator[Row]:
    """Give what is known of the machine."""
    facts = told.machine
    for row in map(mapping, listed(facts.get("nvidia_smi"))[:1]):
        yield from (
            (said, _with_unit(form, str(row[key])))
            for key, (said, form) in _SMI.items()
            if row.get(key) not in _UNKNOWN
        )
    if facts.get("cuda"):
        yield "CUDA of PyTorch", str(facts["cuda"])
    if versions := mapping(facts.get("versions")):
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    host = [
        *part("{}", facts.get("processor")),
        *part("{} CPUs", facts.get("cpus")),
        *part("{} of memory", size(facts.get("memory_bytes"))),
        *part("Python {}", facts.get("python")),
    ]
    if host:
        yield "host", ", ".join(host)
    if environment := mapping(facts.get("environment")):
        yield "environment", " ".join(f"{k}={v}" for k, v in environment.items())


def _with_unit(form: str, value: str) -> str:
    """Return what nvidia-smi said, with its unit unless it said that, too."""
    return form.format(value) if value.replace(".", "", 1).isdigit() else value


def job(told: Manifest) -> Iterator[Row]:
    """Give what was run, and how."""
    if told.program:
        yield "program", shlex.join(told.program)
    else:
        yield "workload", told.name
        yield "options", options(told.options)
    steps = "the whole program" if told.steps is None else f"{told.steps} recorded"
    yield "steps", f"{steps}, {told.warmup} of warm-up before, on {told.device}, seed {told.seed}"
    yield "recorded on", told.created
    if told.revision:
        changed = ", with changes" if told.revision.get("changed") else ""
        yield "git commit", f"{told.revision.get('commit')}{changed}"
    if cost := list(_cost(told.cost)):
        yield "work by formula", ", ".join(cost)
    for one in told.passes:
        state = "" if one.state == "done" else f" ({one.state}{': ' if one.why else ''}{one.why})"
        yield f"pass {one.recorder}", f"{options(one.options) or 'default options'}{state}"


def _cost(cost: Mapping[str, Any]) -> Iterator[str]:
    """Give what a step costs."""
    if flops := number(cost.get("flops")):
        yield f"{units.column('flops', [flops])[0]} a step"
    if parameters := number(cost.get("parameters")):
        yield f"{units.count(parameters)} parameters"
    if items := number(cost.get("items")):
        yield f"{units.count(items)} {cost.get('unit', 'items')} a step"


def options(given: Mapping[str, object]) -> str:
    """Return options as text: ``ctx 256, compile off``."""
    words = {None: "unset", True: "on", False: "off"}
    said = {
        name: words[value] if value is None or isinstance(value, bool) else value
        for name, value in given.items()
    }
    return ", ".join(f"{name} {value}" for name, value in said.items())


def part(form: str, value: object) -> Iterable[str]:
    """Return a text with a value in it, or nothing if there is none."""
    return [form.format(value)] if value not in (None, "") else []


def size(value: object) -> str | None:
    """Return a number of bytes as text; None if it is none."""
    known = number(value)
    return None if known is None else units.size(known)


def number(value: object) -> float | None:
    """Return a value that is a number; None otherwise."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def mapping(value: object) -> Mapping[str, Any]:
    """Return a value that is an object; an empty one otherwise."""
    return value if isinstance(value, dict) else {}


def listed(value: object) -> Sequence[Any]:
    """Return a value that is a list; an empty one otherwise."""
    return value if isinstance(value, list) else []

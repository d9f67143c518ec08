"""Hardware and circumstances: GPUs, versions, clocks, what was run, and what recorded it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from tracelens import hardware, units
from tracelens.errors import NothingToShowError
from tracelens.reports import Facts, Grid, Paragraph, Section

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tracelens.capture.folder import Manifest
    from tracelens.hardware import Ceilings
    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject

    Row = tuple[str, str]

_HIDDEN: Final = ("epoch_ns", "trace_id")
_SMI: Final = {
    "driver_version": "driver",
    "power.limit": "power limit",
    "power.draw": "power draw before the run",
    "temperature.gpu": "temperature before the run (°C)",
    "clocks.sm": "SM clock before the run",
    "clocks.max.sm": "highest SM clock",
    "clocks.mem": "memory clock before the run",
    "clocks.max.mem": "highest memory clock",
    "mig.mode.current": "MIG",
}
_UNKNOWN: Final = ("", "N/A", "[N/A]", "[Not Supported]")


def _make(subject: Subject) -> list[Block]:
    def of_run(run: Run) -> Iterator[Block]:
        rows = [*_gpus(run, subject), *_machine(run), *_job(run), *_recorder(run)]
        if not rows:
            raise NothingToShowError("nothing was recorded of the machine")
        yield Facts(subject.slug(run, "circumstances"), "What was run where", tuple(rows))
        if (devices := run.table("devices")) is not None:
            yield Grid(subject.slug(run, "devices"), devices)
        if missing := _missing(run):
            yield Paragraph(missing, "note")

    return subject.each(of_run)


def gpu_names(run: Run) -> list[str]:
    """Return the names of the GPUs of a run, each once."""
    names = [row.get("name") for row in _used(run)]
    told = run.manifest.machine.get("gpus", []) if run.manifest else []
    names += [gpu.get("name") for gpu in told]
    return [str(name) for name in dict.fromkeys(names) if name]


def _used(run: Run) -> Sequence[Mapping[str, Any]]:
    """Return the GPUs that did the work, or all that were recorded where none did any."""
    table = run.table("devices")
    if table is not None:
        return table.frame.to_dicts()
    return run.work.devices if run.work else ()


def _gpus(run: Run, subject: Subject) -> Iterator[Row]:
    seen: dict[str, int] = {}
    for device in _used(run):
        parts = [
            str(device.get("name") or "unknown GPU"),
            *_part("{} SMs", device.get("sm_count")),
            *_part("compute capability {}", device.get("capability")),
            *_part("{} of memory", _size(device.get("memory_bytes"))),
        ]
        text = ", ".join(parts)
        seen[text] = seen.get(text, 0) + 1
    for text, count in seen.items():
        yield "GPU", text if count == 1 else f"{count} × {text}"
    for name in gpu_names(run):
        if (found := hardware.ceilings(name, subject.ceilings)) is not None:
            yield f"ceilings of {name}", _ceilings(found)
        elif not seen:
            yield "GPU", name


def _ceilings(found: Ceilings) -> str:
    rates = {f"{dtype} matmul": rate for dtype, rate in found.matmul_flops_per_s.items()}
    parts = [f"{name} {units.column('flops_per_s', [rate])[0]}" for name, rate in rates.items()]
    if found.bandwidth_bytes_per_s:
        parts.append(f"memory {units.rate(found.bandwidth_bytes_per_s)}")
    if found.launch_s:
        parts.append(f"a launch {units.time(found.launch_s * 1e9)}")
    return f"{', '.join(parts)} ({found.origin})"


def _machine(run: Run) -> Iterator[Row]:
    machine: Mapping[str, Any] = run.manifest.machine if run.manifest else {}
    facts: Mapping[str, str] = _facts(run)
    for row in machine.get("nvidia_smi", [])[:1]:
        yield from (
            (said, str(row[key])) for key, said in _SMI.items() if row.get(key) not in _UNKNOWN
        )
    if cuda := machine.get("cuda"):
        yield "CUDA of PyTorch", str(cuda)
    for name in ("cuda_driver_version", "cuda_runtime_version"):
        if version := facts.get(name):
            yield name.replace("_", " ").replace("cuda", "CUDA"), _cuda(version)
    if versions := machine.get("versions"):
        yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    told = [
        *_part("{}", machine.get("processor")),
        *_part("{} CPUs", machine.get("cpus")),
        *_part("{} of memory", _size(machine.get("memory_bytes"))),
        *_part("Python {}", machine.get("python")),
    ]
    if told:
        yield "host", ", ".join(told)
    if environment := machine.get("environment"):
        yield "environment", " ".join(f"{k}={v}" for k, v in environment.items())


def _job(run: Run) -> Iterator[Row]:
    told = run.manifest
    if told is None:
        if command := _facts(run).get("command"):
            yield "program", command
        return
    if told.program:
        yield "program", shlex.join(told.program)
    else:
        yield "workload", told.name
        yield (
            "options",
            ", ".join(f"{name} {_option(value)}" for name, value in told.options.items()),
        )
    steps = "the whole program" if told.steps is None else f"{told.steps} recorded"
    yield "steps", f"{steps}, {told.warmup} of warm-up before, on {told.device}, seed {told.seed}"
    yield "recorded on", told.created
    if told.revision:
        changed = ", with changes" if told.revision.get("changed") else ""
        yield "git commit", f"{told.revision.get('commit')}{changed}"
    yield from _cost(told)


def _cost(told: Manifest) -> Iterator[Row]:
    cost = told.cost
    if cost.get("flops"):
        parts = [f"{units.column('flops', [cost['flops']])[0]} a step"]
        parts += [f"{units.count(cost['parameters'])} parameters"] if cost.get("parameters") else []
        parts += (
            [f"{units.count(cost['items'])} {cost['unit']} a step"] if cost.get("items") else []
        )
        yield "work by formula", ", ".join(parts)


def _recorder(run: Run) -> Iterator[Row]:
    source = next((report.source for report in run.reports()), {})
    for one in run.manifest.passes if run.manifest else ():
        how = ", ".join(f"{name} {_option(value)}" for name, value in one.options.items())
        state = "" if one.state == "done" else f" ({one.state}{': ' if one.why else ''}{one.why})"
        yield f"pass {one.recorder}", f"{how or 'default options'}{state}"
    if source.get("format") not in (None, "run"):
        version = f", schema {source['schema_version']}" if source.get("schema_version") else ""
        yield "recorded by", f"{source.get('producer') or source['format']}{version}"
    said = {k: v for k, v in _facts(run).items() if k not in _HIDDEN and v not in ("", None)}
    said.pop("command", None)
    if said:
        yield "the recorder says", "; ".join(f"{k.replace('_', ' ')}: {v}" for k, v in said.items())


def _facts(run: Run) -> Mapping[str, str]:
    found = [report.source.get("facts") for report in run.reports()[:1]]
    return next((facts for facts in found if isinstance(facts, dict)), {})


def _missing(run: Run) -> str:
    """Return what a reader will look for here and is not known."""
    lost = []
    if not gpu_names(run):
        lost.append("the GPU")
    if not (run.manifest and run.manifest.machine.get("nvidia_smi")):
        lost.append("driver version, clocks and power")
    if not lost:
        return ""
    how = "" if run.manifest else " (tracelens capture writes them into run.json)"
    return f"Not recorded: {', '.join(lost)}{how}."


def _part(form: str, value: object) -> Iterable[str]:
    return [form.format(value)] if value not in (None, "") else []


def _size(value: object) -> str | None:
    return units.size(value) if isinstance(value, int) else None


def _option(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _cuda(version: str) -> str:
    """Return a version that CUDA gives as a number: 13000 is 13.0."""
    return f"{int(version) // 1000}.{int(version) % 1000 // 10}" if version.isdecimal() else version


SECTION = Section("Hardware and circumstances", _make)

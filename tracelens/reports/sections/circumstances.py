"""Hardware and circumstances: GPUs, versions, clocks, what was run, and what recorded it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracelens import hardware, units
from tracelens.errors import NothingToShowError
from tracelens.reports import Facts, Grid, Paragraph, Section
from tracelens.reports.sections import _told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tracelens.hardware import Ceilings
    from tracelens.reports import Block
    from tracelens.reports.sections._told import Row
    from tracelens.reports.subject import Run, Subject

_CUDA: Final = {
    "cuda_driver_version": "CUDA of the driver",
    "cuda_runtime_version": "CUDA runtime",
}
_HIDDEN: Final = ("epoch_ns", "trace_id", "command", *_CUDA)


def _make(subject: Subject) -> list[Block]:
    def of_run(run: Run) -> Iterator[Block]:
        if run.bench is not None:
            facts = tuple(_told.mapping(run.bench.source.get("facts")).items())
            yield Facts(subject.slug(run, "circumstances"), "What was run where", facts)
            return
        rows = [*_gpus(run), *_recorded(run), *_recorder(run)]
        if not rows:
            raise NothingToShowError("nothing was recorded of the machine")
        yield Facts(subject.slug(run, "circumstances"), "What was run where", tuple(rows))
        if (devices := run.table("devices")) is not None:
            yield Grid(subject.slug(run, "devices"), devices)
        if missing := _missing(run):
            yield Paragraph(missing, "note")

    return subject.each(of_run)


def _gpu_names(run: Run) -> list[str]:
    """Return the names of the GPUs of a run, each once."""
    names = [row.get("name") for row in _used(run)]
    names += _told.gpu_names(run.manifest) if run.manifest else []
    return [str(name) for name in dict.fromkeys(names) if name]


def _used(run: Run) -> Sequence[Mapping[str, Any]]:
    """Return the GPUs that did the work, or all that were recorded where none did any."""
    table = run.table("devices")
    if table is not None:
        return table.frame.to_dicts()
    return run.work.devices if run.work else ()


def _gpus(run: Run) -> Iterator[Row]:
    seen: dict[str, int] = {}
    for device in _used(run):
        parts = [
            str(device.get("name") or "unknown GPU"),
            *_told.part("{} SMs", device.get("sm_count")),
            *_told.part("compute capability {}", device.get("capability")),
            *_told.part("{} of memory", _told.size(device.get("memory_bytes"))),
        ]
        text = ", ".join(parts)
        seen[text] = seen.get(text, 0) + 1
    for text, count in seen.items():
        yield "GPU", text if count == 1 else f"{count} × {text}"
    for name in _gpu_names(run):
        if not seen:
            yield "GPU", name
        if (found := hardware.ceilings(name)) is not None:
            yield f"ceilings of {name}", _ceilings(found)


def _ceilings(found: Ceilings) -> str:
    """Return the ceilings as text, those that were measured apart from those that are stated."""
    by_origin: dict[str, list[str]] = {}
    for dtype, rate in found.matmul_flops_per_s.items():
        said = f"{dtype} matmul {units.column('flops_per_s', [rate])[0]}"
        by_origin.setdefault(found.origin_of(f"{hardware.MATMUL}{dtype}"), []).append(said)
    if bandwidth := found.bandwidth_bytes_per_s:
        origin = found.origin_of(hardware.BANDWIDTH)
        by_origin.setdefault(origin, []).append(f"memory {units.rate(bandwidth)}")
    if found.launch_s:
        by_origin.setdefault(found.origin, []).append(
            f"a launch {units.time(found.launch_s * 1e9)}"
        )
    return "; ".join(f"{origin}: {', '.join(said)}" for origin, said in by_origin.items())


def _recorded(run: Run) -> Iterator[Row]:
    """Give what is known of the machine and the program."""
    facts = _facts(run)
    for name, said in _CUDA.items():
        if version := facts.get(name):
            yield said, _cuda(str(version))
    if run.manifest is not None:
        yield from _told.machine(run.manifest)
        yield from _told.job(run.manifest)
    elif command := facts.get("command"):
        yield "program", str(command)


def _recorder(run: Run) -> Iterator[Row]:
    source = next((report.source for report in run.reports()), {})
    if source.get("format") not in (None, "run"):
        version = f", schema {source['schema_version']}" if source.get("schema_version") else ""
        yield "recorded by", f"{source.get('producer') or source['format']}{version}"
    said = {k: v for k, v in _facts(run).items() if k not in _HIDDEN and v not in ("", None)}
    if said:
        yield "the recorder says", "; ".join(f"{k.replace('_', ' ')}: {v}" for k, v in said.items())


def _facts(run: Run) -> Mapping[str, Any]:
    return next((_told.mapping(report.source.get("facts")) for report in run.reports()), {})


def _missing(run: Run) -> str:
    """Return what a reader will look for here and is not known."""
    lost = [] if _gpu_names(run) else ["the GPU"]
    if run.manifest is None or not _told.has_smi(run.manifest):
        lost.append("driver version, clocks and power")
    if not lost:
        return ""
    how = "" if run.manifest else " (tracelens capture writes them into run.json)"
    return f"Not recorded: {', '.join(lost)}{how}."


def _cuda(version: str) -> str:
    """Return a version that CUDA gives as a number: 13000 is 13.0."""
    return f"{int(version) // 1000}.{int(version) % 1000 // 10}" if version.isdecimal() else version


SECTION = Section("Hardware and circumstances", _make)

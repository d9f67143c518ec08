"""Reports of ncu (.ncu-rep): read by NVIDIA's own module, or made a table by an ncu."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import tools
from tracelens.errors import UnreadableError
from tracelens.readers.ncu import sheet
from tracelens.readers.ncu.numbers import Numbers
from tracelens.trace.scratch import Scratch

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.readers.ncu.sheet import Sheet

MODULE: Final = "ncu_report"
"""NVIDIA's module, of the distribution `ncu-report` or in Nsight Compute's extras/python."""
PATIENCE_S: Final = 600.0


def read(path: Path) -> Sheet:
    """Return what a report holds.

    Raises:
        UnreadableError: neither NVIDIA's module nor ncu is there, or they cannot read it.
    """
    if importlib.util.find_spec(MODULE) is not None:
        return _by_module(path)
    if found := tools.working("ncu"):
        return _by_ncu(path, found[0])
    raise UnreadableError(
        f"{path.name} is a report of Nsight Compute, which only NVIDIA's software can read. "
        f"Install its Python module (pip install ncu-report) or, where ncu is, type: {_how(path)}"
    )


def _how(path: Path) -> str:
    return sheet.HOW.replace("REPORT.ncu-rep", path.name)


def _by_ncu(path: Path, ncu: tools.Tool) -> Sheet:
    folder = Scratch()
    table = folder.path / f"{path.stem}.csv"
    how = ("--page", "raw", "--csv", "--print-units", "base")
    answer = tools.ask(
        ncu.path, "--import", str(path.absolute()), *how, patience_s=PATIENCE_S, into=table
    )
    if answer.failure or not table.is_file() or not table.stat().st_size:
        why = answer.failure or "it printed nothing"
        raise UnreadableError(
            f"ncu {ncu.version} cannot make a table of {path.name}: {why}. "
            f"Where it was recorded, type: {_how(path)}"
        )
    return sheet.read(table)


def _by_module(path: Path) -> Sheet:
    try:
        module = importlib.import_module(MODULE)
        context = module.load_report(str(path))
        actions = [action for part in _each(context) for action in _each(part)]
    except Exception as error:
        raise UnreadableError(
            f"{path.name} cannot be read by NVIDIA's {MODULE}: {tools.plain(str(error))}. "
            f"Where it was recorded, type: {_how(path)}"
        ) from error
    if not actions:
        raise UnreadableError(f"{path.name} is a report of ncu without any launch.")
    numbers = Numbers()
    rows = [_metrics(place, action) for place, action in enumerate(actions)]
    launches = pl.DataFrame(
        [_launch(place, action) for place, action in enumerate(actions)],
        schema=dict.fromkeys(sheet.LAUNCH, pl.String),
    )
    texts = pl.DataFrame(
        [row for some in rows for row in some],
        schema={"launch": pl.UInt32, "name": pl.String, "text": pl.String, "unit": pl.String},
        orient="row",
    )
    counters = numbers.of(texts)
    return sheet.Sheet(launches, counters, numbers.words(), list(numbers.caveats()))


def _each(holder: Any) -> list[Any]:
    """Return the ranges of a report, or the actions of a range, in order."""
    count = holder.num_ranges() if hasattr(holder, "num_ranges") else holder.num_actions()
    one = holder.range_by_idx if hasattr(holder, "num_ranges") else holder.action_by_idx
    return [one(place) for place in range(count)]


def _metrics(place: int, action: Any) -> list[tuple[int, str, str, str]]:
    """Return launch, name, value as text and unit of the metrics of one action."""
    found = ((name, action.metric_by_name(name)) for name in action.metric_names())
    return [
        (place, name, _text(metric), metric.unit() or "")
        for name, metric in found
        if metric is not None and metric.has_value()
    ]


def _text(metric: Any) -> str:
    value = metric.value()
    return repr(value) if isinstance(value, int | float) else str(value)


def _launch(place: int, action: Any) -> dict[str, str | None]:
    """Return what `sheet.LAUNCH` names of one action."""

    def said(name: str) -> str | None:
        metric = action.metric_by_name(name)
        return None if metric is None or not metric.has_value() else _text(metric)

    def size(what: str) -> str | None:
        parts = [said(f"launch__{what}_dim_{axis}") for axis in "xyz"]
        return f"({', '.join(part or '1' for part in parts)})" if parts[0] else None

    major, minor = (said(f"device__attribute_compute_capability_{one}") for one in _CAPABILITY)
    return {
        "ID": str(place),
        "Process ID": said("launch__process_id") or "0",
        "Kernel Name": action.name(action.NameBase_DEMANGLED),
        "Context": said("launch__context_id"),
        "Stream": said("launch__stream_id"),
        "Block Size": size("block"),
        "Grid Size": size("grid"),
        "Device": said("launch__device_id"),
        "CC": f"{major}.{minor}" if major and minor else None,
    }


_CAPABILITY: Final = ("major", "minor")

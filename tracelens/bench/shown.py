"""Ceilings as reports: what was just measured, and what is known of a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import hardware, units
from tracelens.hardware.limits import BANDWIDTHS
from tracelens.tables import Column, Filled, Report, Table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tracelens.hardware import Ceilings
    from tracelens.hardware.measured import Measured, Result

_MEASURED: Final = Table(
    "ceilings",
    "Ceilings as measured",
    (
        Column("name", "ceiling", "text"),
        Column("size", "size", "text"),
        Column("reached", "reached", "text"),
        Column("stated_share", "of data sheet", "share"),
        Column("spread_share", "±", "share"),
        Column("samples", "samples", "count"),
        Column("median_ns", "median", "ns", shown=False),
        Column("bandwidth_bytes_per_s", "bandwidth", "bytes_per_s", shown=False),
        Column("flops_per_s", "FLOP/s", "flops_per_s", shown=False),
        Column("settled", "settled", "flag", shown=False),
        Column("clock", "clock", "text", shown=False),
        Column("note", "note", "text", shown=False),
    ),
    "Medians of the samples, ± their median absolute deviation; of several sizes the best.",
)
_KNOWN: Final = Table(
    "known",
    "Ceilings",
    (
        Column("name", "ceiling", "text"),
        Column("size", "size", "text"),
        Column("rate", "at most", "text"),
        Column("stated_share", "of data sheet", "share"),
        Column("ridge_flops_per_byte", "FLOP/B at the ridge", "count"),
        Column("is_measured", "measured", "flag"),
        Column("origin", "from", "text", shown=False),
        Column("bandwidth_bytes_per_s", "bandwidth", "bytes_per_s", shown=False),
        Column("flops_per_s", "FLOP/s", "flops_per_s", shown=False),
        Column("time_ns", "time", "ns", shown=False),
    ),
    "Matrix products by format, dense; vector: fp32 outside of the tensor cores. Work of fewer "
    "operations per byte than the ridge is bound by memory.",
)

_NOTHING: Final = {"size": ""}


def measured(found: Measured, path: Path | None) -> Report:
    """Return what was measured: the best of each thing, collectives in every size."""
    against = hardware.device(found.device)
    rows = [_row(one, against) for one in _best(found.results)]
    return _report(
        f"{found.said[:1].upper()}{found.said[1:]}{', quick' if found.quick else ''}",
        found.device,
        path,
        _filled("ceilings", _MEASURED, rows),
        warnings=(*_unsettled(found), *(f"{one.name}: {one.why}" for one in found.failed)),
    )


def known(of: Ceilings) -> Report:
    """Return what is known of a GPU: measured where it was, stated elsewhere."""
    rows = [_rate(of, name, bandwidth=True) for name in (hardware.BANDWIDTH,)]
    names = [hardware.VECTOR, *(f"{hardware.MATMUL}{dtype}" for dtype in of.matmul_flops_per_s)]
    rows += [_rate(of, name) for name in names]
    if of.launch_s is not None:
        rows.append(
            {
                "name": "launch",
                "rate": _told("s", of.launch_s),
                "is_measured": True,
                "origin": of.origin_of("launch"),
                "time_ns": of.launch_s * 1e9,
            }
        )
    for name, collectives in of.collectives.items():
        rows += [
            {
                "name": name,
                "size": f"{units.size(one.bytes)}, {one.ranks} ranks",
                "rate": _told("bytes_per_s", one.bus_bytes_per_s),
                "is_measured": True,
                "bandwidth_bytes_per_s": one.bus_bytes_per_s,
                "time_ns": one.seconds * 1e9,
                "origin": of.origin,
            }
            for one in collectives
        ]
    shown = [row for row in rows if row]
    device = of.device
    about = f"{device.name}, {device.architecture} {device.capability}" if device else "not listed"
    said = [of.origin] if of.measured else []
    said += [one.title for one in device.sources] if device else []
    return _report(
        f"{of.name}: {about}",
        of.name,
        None,
        _filled("known", _KNOWN, shown),
        warnings=of.caveats,
        trust=tuple(said),
    )


def _row(one: Result, against: hardware.Device | None) -> dict[str, Any]:
    rate = "bandwidth_bytes_per_s" if one.unit == "bytes_per_s" else "flops_per_s"
    stated = _stated(one, against)
    return {
        "name": one.name,
        "size": _size(one),
        "reached": _told(one.unit, one.value),
        "median_ns": one.median_s * 1e9,
        **({} if one.unit == "s" else {rate: one.value}),
        "stated_share": one.value / stated if stated else None,
        "spread_share": one.mad_s / one.median_s,
        "samples": len(one.samples_s),
        "settled": one.settled,
        "clock": one.clock,
        "note": one.note,
    }


def _stated(one: Result, against: hardware.Device | None) -> float | None:
    """Return the rate that is stated; of NVLink that in one direction, as buses are counted."""
    if against is None:
        return None
    if one.name in BANDWIDTHS:
        return against.bandwidth_bytes_per_s
    if one.name == "all_reduce":
        both = against.nvlink_bytes_per_s
        return both / 2 if both else None
    return against.rate(one.name) if one.name.startswith(hardware.MATMUL) else None


def _rate(of: Ceilings, name: str, *, bandwidth: bool = False) -> dict[str, Any]:
    rate = of.rate(name)
    if rate is None:
        return {}
    stated = of.device.rate(name) if of.device else None
    dtype = name.removeprefix(hardware.MATMUL)
    return {
        "name": name,
        "rate": _told("bytes_per_s" if bandwidth else "flops_per_s", rate),
        "is_measured": of.is_measured(name),
        ("bandwidth_bytes_per_s" if bandwidth else "flops_per_s"): rate,
        "stated_share": rate / stated if stated and of.is_measured(name) else None,
        "ridge_flops_per_byte": None if dtype == name else of.ridge(dtype),
        "origin": of.origin_of(name),
    }


def _best(results: Iterable[Result]) -> list[Result]:
    """Return the best size of each thing, and collectives in every size, in their order."""
    kept: dict[Any, Result] = {}
    for one in results:
        key = (one.name, *one.size.items()) if "ranks" in one.size else one.name
        other = kept.get(key)
        better = other is None or (
            one.value < other.value if one.unit == "s" else one.value > other.value
        )
        if better:
            kept[key] = one
    return list(kept.values())


def _told(unit: str, value: float) -> str:
    """Return a figure in a unit of its own, since one column holds several kinds."""
    return units.column("ns", [value * 1e9])[0] if unit == "s" else units.column(unit, [value])[0]


def _size(one: Result) -> str:
    size = one.size
    if "m" in size:
        return f"{size['m']:,} × {size['n']:,} × {size['k']:,}"
    parts = [units.size(size["bytes"])] if "bytes" in size else []
    parts += [f"{size['ranks']} ranks"] if "ranks" in size else []
    return ", ".join(parts)


def _unsettled(found: Measured) -> list[str]:
    """Return what is to be said of medians that are not known well."""
    noisy = [
        f"{one.name} (±{100 * one.mad_s / one.median_s:.1f} %)"
        for one in _best(found.results)
        if not one.settled and one.mad_s > 0.02 * one.median_s
    ]
    return [f"Noisy, since the machine or its clocks are: {', '.join(noisy)}."] if noisy else []


def _frame(table: Table, rows: list[dict[str, Any]]) -> pl.DataFrame:
    kinds: dict[str, Any] = {"text": pl.String, "flag": pl.Boolean}
    schema = {
        column.name: pl.Int64 if column.name == "samples" else kinds.get(column.unit, pl.Float64)
        for column in table.columns
    }
    return pl.DataFrame(
        [{name: row.get(name, _NOTHING.get(name)) for name in schema} for row in rows],
        schema=schema,
        orient="row",
    )


def _filled(name: str, table: Table, rows: list[dict[str, Any]]) -> Filled:
    """Return the table with its rows; sizes are not shown where there are none."""
    sized = any(row.get("size") for row in rows)
    columns = tuple(
        replace(column, shown=column.shown and (sized or column.name != "size"))
        for column in table.columns
    )
    return Filled(name, replace(table, columns=columns), _frame(table, rows))


def _report(
    headline: str,
    device: str,
    path: Path | None,
    table: Filled,
    *,
    warnings: tuple[str, ...] = (),
    trust: tuple[str, ...] = (),
) -> Report:
    source = {"path": str(path) if path else device, "format": "ceilings", "producer": "tracelens"}
    return Report(
        headline=headline,
        trust=trust,
        source=source,
        devices=({"device": 0, "name": device},),
        phase_source="none",
        coverage={},
        tables=(table,),
        warnings=warnings,
    )

"""Results of kernels as reports: a row for each implementation, what came of each, and failures."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import kernel as kernels
from tracelens import tools, units
from tracelens.bench import results as files
from tracelens.bench.sweep import sizes
from tracelens.tables import Column, Filled, Report, Table, build

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tracelens.bench.cell import Cell, GpuState, Row
    from tracelens.bench.results import Failed, Results

TABLES: Final = ("bench", "matrix", "failures")
_COMMON: Final = ("kernel", "operation", "dtype", "size", "quantity", "l2")
"""Columns that stand in the title where all rows agree in them."""

CELL_COLUMNS: Final = (
    Column("kernel", "kernel", "text"),
    Column("operation", "operation", "text"),
    Column("dtype", "format", "text"),
    Column("size", "shape", "text"),
)
"""What tells one cell from another."""

_WHOLE: Final = (
    "n", "calls", "flops", "bytes", "input_bytes", "sets", "flushed_bytes", "throttled", "seed",
)  # fmt: skip
_LONGEST: Final = 100
_INTENSE: Final = 50.0
"""FLOP per byte from which, where no bound is known, FLOP/s are shown rather than bytes."""

_BENCH: Final = Table(
    "bench",
    "Kernels",
    (
        Column("what", "what", "name"),
        *CELL_COLUMNS,
        Column("implementation", "implementation", "name"),
        Column("quantity", "quantity", "text"),
        Column("l2", "L2", "text"),
        Column("median_ns", "median", "ns"),
        Column("precision_share", "±", "share"),
        Column("of_ours", "× ours", "text"),
        Column("bound_share", "of limit", "share", optional=True),
        Column("flops_per_s", "FLOP/s", "flops_per_s", optional=True),
        Column("bytes_per_s", "bandwidth", "bytes_per_s", optional=True),
        Column("verdict", "than ours", "text"),
        Column("error", "error", "text"),
        Column("flag", "flag", "text"),
        Column("bound_ns", "limit", "ns", optional=True),
        Column("limited_by", "limited by", "text"),
        Column("p95_ns", "p95", "ns"),
        *(
            Column(name, name, unit, shown=False)  # type: ignore[arg-type]
            for name, unit in (
                ("shape", "text"),
                ("summary", "text"),
                ("config", "text"),
                ("clock", "text"),
                ("n", "count"),
                ("calls", "count"),
                ("settled", "flag"),
                ("low_ns", "ns"),
                ("high_ns", "ns"),
                ("mad_ns", "ns"),
                ("p5_ns", "ns"),
                ("p99_ns", "ns"),
                ("ratio", "count"),
                ("ratio_low", "count"),
                ("ratio_high", "count"),
                ("floor", "share"),
                ("errors", "text"),
                ("allowed", "text"),
                ("build_ns", "ns"),
                ("compile_ns", "ns"),
                ("flops", "flops"),
                ("bytes", "bytes"),
                ("ceiling", "text"),
                ("input_bytes", "bytes"),
                ("sets", "count"),
                ("flushed_bytes", "bytes"),
                ("throttled", "count"),
                ("sm_hz", "count"),
                ("mem_hz", "count"),
                ("power_w", "count"),
                ("temperature_c", "count"),
                ("seed", "count"),
                ("device", "text"),
                ("notes", "text"),
            )
        ),
    ),
    "Median of single calls, ± half of its 95 % interval. × ours: its time over ours, measured in "
    "turns. Error: ‖out − reference‖ / ‖reference‖ of the worst output.",
)
_FAILURES: Final = Table(
    "failures",
    "What failed",
    (
        *CELL_COLUMNS,
        Column("implementation", "implementation", "name"),
        Column("stage", "at", "text"),
        Column("error", "class", "text"),
        Column("message", "message", "text"),
        Column("shape", "shape", "text", shown=False),
        Column("command", "again", "text", shown=False),
        Column("traceback", "traceback", "text", shown=False),
    ),
    "Neither timed nor counted in any mean.",
)


def report(results: Results, path: Path | None = None) -> Report:
    """Return what was measured, what came of every implementation, and why some failed."""
    tables = [_bench(results), _matrix(results), _failures(results)]
    return Report(
        headline=_headline(results),
        trust=tuple(_trust(results)),
        source={
            "path": str(path) if path else "bench",
            "format": "bench",
            "producer": "tracelens",
            "made": results.made,
            "environment": results.environment,
            "facts": dict(_facts(results)),
        },
        devices=({"device": 0, "name": results.device},) if results.device else (),
        phase_source="none",
        coverage={},
        tables=tuple(table for table in tables if table.frame.height),
        findings=tuple(_findings(results)),
        left_out={} if results.rows or _only_checked(results) else {"bench": _why_nothing(results)},
        warnings=tuple(_warnings(results, path)),
    )


def states(results: Results) -> Iterator[tuple[Cell, str, str]]:
    """Give what came of each implementation of each cell: ok, failed, cannot, or waiting."""
    rows = {(files.place_of(row), row.implementation) for row in results.rows}
    failed = {(one.place, one.implementation): one for one in results.failed}
    for number, cell in enumerate(results.cells):
        place = files.place_of(cell)
        for name in cell.implementations:
            why = failed.get((place, name)) or failed.get((place, ""))
            if number not in results.done:
                yield cell, name, "waiting"
            elif why is not None:
                yield cell, name, _state(why)
            else:
                is_ok = (place, name) in rows or not cell.quantities
                yield cell, name, "ok" if is_ok else units.ABSENT


def times(ratio: float) -> str:
    """Return how many times as long something takes, to three figures."""
    told = f"{ratio:#.3g}".rstrip(".")
    return f"{ratio:,.0f}" if "e+" in told else told


def _state(why: Failed) -> str:
    if why.is_cannot:
        return f"cannot: {why.message}" if why.message else "cannot"
    return f"failed: {why.error or why.stage}"


def _bench(results: Results) -> Filled:
    rows = [_row(row) for row in results.rows]
    table = replace(_BENCH, note=f"{_BENCH.note}{_axes(results)}")
    filled = _filled("bench", table, rows)
    return _with_common(filled) if rows else filled


def _axes(results: Results) -> str:
    """Return what the numbers of a shape are, where that is one thing."""
    named = {"x".join(cell.shape) for cell in results.cells}
    return f" Shapes are {named.pop()}." if len(named) == 1 else ""


def _row(row: Row) -> dict[str, Any]:
    pair, during = row.pair, row.during
    has_flops = row.limited_by == "compute" or (
        not row.limited_by and row.flops >= _INTENSE * max(1, row.bytes)
    )
    return {
        **_place(row),
        "implementation": row.implementation,
        "quantity": row.quantity.replace("_", " "),
        "l2": row.l2,
        "median_ns": row.median_s * 1e9,
        "precision_share": row.precision,
        "flops_per_s": row.flops / row.median_s if has_flops and row.flops else None,
        "bytes_per_s": row.bytes / row.median_s if not has_flops and row.bytes else None,
        "bound_share": row.share,
        "of_ours": times(pair.ratio) if pair else units.ABSENT,
        "verdict": pair.verdict if pair else units.ABSENT,
        "error": _error(row),
        "flag": _flag(row),
        "bound_ns": _ns(row.bound_s),
        "limited_by": row.limited_by or units.ABSENT,
        "p95_ns": row.p95_s * 1e9,
        "summary": row.summary,
        "config": _told(row.config),
        "clock": row.clock,
        "n": row.n,
        "calls": row.calls,
        "settled": row.settled,
        "low_ns": _ns(row.low_s),
        "high_ns": _ns(row.high_s),
        "mad_ns": row.mad_s * 1e9,
        "p5_ns": row.p5_s * 1e9,
        "p99_ns": row.p99_s * 1e9,
        "ratio": pair.ratio if pair else None,
        "ratio_low": pair.low if pair else None,
        "ratio_high": pair.high if pair else None,
        "floor": pair.floor if pair else row.floor,
        "errors": _told(row.errors),
        "allowed": _told(row.allowed),
        "build_ns": row.build_s * 1e9,
        "compile_ns": row.compile_s * 1e9,
        "flops": row.flops,
        "bytes": row.bytes,
        "ceiling": row.ceiling,
        "input_bytes": row.input_bytes,
        "sets": row.sets,
        "flushed_bytes": row.flushed_bytes,
        "throttled": row.throttled,
        **_gpu(during),
        "seed": row.seed,
        "device": row.device,
        "notes": " ".join(row.notes),
    }


def _place(one: Row | Failed | Cell) -> dict[str, str]:
    return {
        "what": "",
        "kernel": one.kernel.replace("_", "-"),
        "operation": one.operation,
        "dtype": one.dtype,
        "size": sizes(one.shape),
        "shape": kernels.spell(one.shape),
    }


def _gpu(state: GpuState | None) -> dict[str, float | None]:
    names = ("sm_hz", "mem_hz", "power_w", "temperature_c")
    return {name: getattr(state, name) if state else None for name in names}


def _error(row: Row) -> str:
    if not row.errors:
        return units.ABSENT
    worst = max(row.errors.values())
    return f"{worst:.1e}" if worst else "exact"


def _flag(row: Row) -> str:
    flags = [row.flag] if row.flag else []
    flags += ["throttled"] if row.throttled else []
    flags += ["not settled"] if not row.settled else []
    return ", ".join(flags)


def _ns(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e9


def _told(values: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name}={value if isinstance(value, int) else f'{value:.6g}'}"
        for name, value in values.items()
    )


def _matrix(results: Results) -> Filled:
    """Return a row for each cell, and a column for each implementation."""
    found: dict[files.Place, dict[str, Any]] = {}
    names: dict[str, None] = {}
    for cell, name, state in states(results):
        names[name] = None
        found.setdefault(files.place_of(cell), dict(_place(cell)))[f"is_{name}"] = state
    columns: list[Column] = [
        Column("what", "what", "name"),
        *CELL_COLUMNS,
        *(Column(f"is_{name}", tools.plain(name), "text") for name in names),
        Column("shape", "shape", "text", shown=False),
    ]
    note = "A cell that failed is measured again by --retry-failed."
    table = Table("matrix", "What came of each", tuple(columns), note)
    rows = [{f"is_{name}": units.ABSENT for name in names} | row for row in found.values()]
    return _with_common(_filled("matrix", table, rows))


def _failures(results: Results) -> Filled:
    rows = [
        {
            **_place(one),
            "implementation": one.implementation or "all",
            "stage": one.stage,
            "error": one.error or units.ABSENT,
            "message": one.message,
            "command": one.command,
            "traceback": one.traceback,
        }
        for one in results.failed
    ]
    return _filled("failures", _FAILURES, rows)


def _filled(name: str, table: Table, rows: Sequence[Mapping[str, Any]]) -> Filled:
    schema = {column.name: _type(column) for column in table.columns}
    told = [{name: row.get(name) for name in schema} for row in rows]
    return build.filled(name, table, pl.DataFrame(told, schema=schema, orient="row"))


def _type(column: Column) -> Any:
    kinds: dict[str, Any] = {"text": pl.String, "name": pl.String, "flag": pl.Boolean}
    return kinds.get(column.unit, pl.Int64 if column.name in _WHOLE else pl.Float64)


def _with_common(filled: Filled) -> Filled:
    """Say once, in the title, what all rows agree in, and leave out columns that say nothing.

    What is left to tell cells apart stands in one column, which a narrow terminal shortens.
    """
    frame = filled.frame
    common = [name for name in _COMMON if name in frame.columns]
    same = {name: frame[name][0] for name in common if frame[name].n_unique() == 1}
    empty = {
        name
        for name in ("of_ours", "verdict", "error", "limited_by", "flag")
        if name in frame.columns and set(frame[name].unique()) <= {units.ABSENT, ""}
    }
    apart = [column.name for column in CELL_COLUMNS if column.name not in same]
    hidden: set[str] = {*same, *empty}
    if len(apart) > 1:
        hidden.update(apart)
        frame = frame.with_columns(what=pl.concat_str(apart, separator=" "))
    else:
        frame = frame.drop("what")
    columns = tuple(
        replace(column, shown=column.shown and column.name not in hidden)
        for column in filled.table.columns
        if column.name in frame.columns
    )
    words = [f"{value} L2" if name == "l2" else str(value) for name, value in same.items()]
    title = " · ".join([filled.table.title, *words])
    table = replace(filled.table, title=title, columns=columns)
    return replace(filled, table=table, frame=frame)


def _headline(results: Results) -> str:
    count = {"ok": 0, "failed": 0, "cannot": 0, "waiting": 0}
    for _, _, state in states(results):
        word = state.partition(":")[0]
        if word in count:
            count[word] += 1
    told = [f"{number} {word}" for word, number in count.items() if number or word == "ok"]
    names = list(dict.fromkeys(cell.kernel.replace("_", "-") for cell in results.cells))
    what = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    on = f" on {tools.plain(results.device)}" if results.device else ""
    return f"{what}{on} · {' · '.join(told)}"


def _trust(results: Results) -> Iterator[str]:
    if results.made:
        versions = results.environment.get("versions", {})
        by = [f"{name} {versions[name]}" for name in ("torch", "triton") if name in versions]
        driver = results.environment.get("driver")
        by += [f"driver {driver}"] if driver else []
        yield f"Measured {results.made[:10]}" + (f" by {', '.join(by)}" if by else "")
    origins = list(dict.fromkeys(row.ceiling for row in results.rows if row.ceiling))
    if origins:
        yield f"Limits: {'; '.join(origins)}"


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    """Give what a reader will want to know of the machine."""
    told = results.environment
    yield "device", results.device
    for name in ("driver", "cuda", "python", "processor", "platform"):
        if told.get(name):
            yield name, str(told[name])
    versions = told.get("versions")
    for name, version in versions.items() if isinstance(versions, dict) else ():
        yield str(name), str(version)
    for name in ("before", "after", "variables"):
        if isinstance(told.get(name), dict) and told[name]:
            yield name, ", ".join(f"{key} {value}" for key, value in told[name].items())
    if isinstance(told.get("revision"), dict):
        changed = ", changed" if told["revision"].get("changed") else ""
        yield "git commit", f"{told['revision'].get('commit')}{changed}"
    yield "measured", results.made
    yield "command", shlex.join(results.command)


def _warnings(results: Results, path: Path | None) -> Iterator[str]:
    if waiting := results.waiting:
        to_go_on = f": tracelens bench --resume {path} goes on" if path else ""
        yield f"{len(waiting)} of {len(results.cells)} cells were not measured{to_go_on}."
    if any(cell.device == "cpu" for cell in results.cells):
        yield (
            "Measured on the processor, ours in Triton's interpreter if it is Triton: these times "
            "say nothing about a GPU."
        )
    for text, rows in (
        ("No GPU can be that fast (time, operations or bytes are wrong)", _flagged(results)),
        ("Measured while the clock was held down", _throttled(results)),
        ("Not known as well as was asked for", [row for row in results.rows if not row.settled]),
    ):
        if rows:
            yield f"{text}: {_some(rows)}."


def _flagged(results: Results) -> list[Row]:
    return [row for row in results.rows if row.flag == "impossible"]


def _throttled(results: Results) -> list[Row]:
    return [row for row in results.rows if row.throttled]


def _some(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(_name(row) for row in rows))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _name(row: Row) -> str:
    kernel = row.kernel.replace("_", "-")
    return f"{row.implementation} of {kernel} {row.operation} {sizes(row.shape)} {row.dtype}"


def _findings(results: Results) -> Iterator[str]:
    """Give how ours compare with the others, and what measures again that which failed."""
    yield from _beside(row for row in results.rows if row.pair and row.pair.other == kernels.OURS)
    cells: dict[files.Place, list[Failed]] = {}
    for one in results.failed:
        if not one.is_cannot:
            cells.setdefault(one.place, []).append(one)
    for those in cells.values():
        first = those[0]
        where = f"{first.kernel.replace('_', '-')} {first.operation} {sizes(first.shape)}"
        told = "; ".join(map(_failure, those))
        yield f"{where} {first.dtype}: {told}. Again: {first.command}"


def _failure(one: Failed) -> str:
    """Return who failed and why, in the first line of its message."""
    why = tools.plain(one.message.strip().partition("\n")[0][:_LONGEST]).rstrip(".")
    error = tools.plain(one.error)
    told = f"{error}: {why}" if error and why else error or why
    return f"{tools.plain(one.implementation) or 'all'} failed ({told})"


def _beside(rows: Iterable[Row]) -> Iterator[str]:
    against: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        against.setdefault((row.kernel, row.implementation), []).append(row)
    for (kernel, name), mine in against.items():
        pairs = [row.pair for row in mine if row.pair]
        verdicts = [pair.verdict for pair in pairs]
        told = [
            f"{word} in {count} of {len(mine)}"
            for word, count in (
                ("faster", verdicts.count("slower")),  # the other one is
                ("slower", verdicts.count("faster")),
                ("not told apart", len(mine) - verdicts.count("slower") - verdicts.count("faster")),
            )
            if count
        ]
        least, most = (times(of(pair.ratio for pair in pairs)) for of in (min, max))
        span = least if least == most else f"{least} to {most}"
        who = tools.plain(name)
        yield (
            f"{kernel.replace('_', '-')}: ours beside {who} is {', '.join(told)}; "
            f"{who} takes {span} times as long."
        )


def _only_checked(results: Results) -> bool:
    return not any(cell.quantities for cell in results.cells)


def _why_nothing(results: Results) -> str:
    if not results.done:
        return "nothing was measured yet"
    return "all that was tried failed, or cannot be done here"

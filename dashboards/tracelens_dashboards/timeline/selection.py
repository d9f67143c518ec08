"""Statistics of a range of time: the analyses of `tracelens summarize`, of just that part."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import units
from tracelens.errors import NothingToShowError
from tracelens.tables.build import fill
from tracelens.trace.intervals import busy
from tracelens_dashboards.names import plain
from tracelens_dashboards.timeline.rows import STREAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.links.linked import Linked
    from tracelens.tables import Filled
    from tracelens_dashboards.timeline.rows import Row

TABLES: Final = ("phases", "families", "kernels")
MOST_ROWS: Final = 50
_KINDS: Final = {
    "kernel": ("kernels", "kernel_time_ns"),
    "copy": ("copies", "copy_time_ns"),
    "memset": ("memsets", "memset_time_ns"),
    "graph": ("graph_launches", "graph_time_ns"),
}
_start, _end = pl.col("start_ns"), pl.col("end_ns")


def clipped(linked: Linked, from_ns: int, to_ns: int, streams: Sequence[Row] = ()) -> Linked:
    """Return a trace with the parts of its GPU work that lie in a range of time.

    Args:
        linked: the whole trace.
        from_ns: begin of the range.
        to_ns: its end.
        streams: the streams to keep; none: all.
    """
    touches = (to_ns > _start) & ((from_ns < _end) | (_start >= from_ns))
    ops = linked.ops.lazy()
    if not streams and not linked.ops.select((~touches | _crosses(from_ns, to_ns)).any()).item():
        return linked  # its answers are known, or will be asked for again
    if streams:
        types = {"device": pl.Int32, "pid": pl.Int32, "context": pl.Int32, "stream": pl.Int32}
        keys = pl.DataFrame([row.key for row in streams], schema=types, orient="row").lazy()
        all_ops = linked.with_columns_of_ops("context", "stream").filter(touches)
        ops = all_ops.join(keys, on=STREAM, how="semi", nulls_equal=True, maintain_order="left")
        ops = ops.select(linked.ops.columns)
    inside = ops.filter(touches).with_columns(
        _start.clip(lower_bound=from_ns), _end.clip(upper_bound=to_ns)
    )
    return replace(linked, ops=inside.collect(), whole=False)


def statistics(
    linked: Linked, from_ns: int, to_ns: int, streams: Sequence[Row] = ()
) -> dict[str, Any]:
    """Return the statistics of a range of time, as JSON may hold them.

    Ops that lie partly in the range count once, and by the time inside; `crossing` says how many.
    """
    part = clipped(linked, from_ns, to_ns, streams)
    over = linked.ops.lazy().filter(_crosses(from_ns, to_ns)).select("op_id")
    inside = part.ops.lazy().select("op_id")
    crossing = over.join(inside, on="op_id", how="semi").collect().height
    devices = _devices(linked, part, streams, to_ns - from_ns)
    return {
        "from": from_ns,
        "to": to_ns,
        "totals": {
            "ops": part.ops.height,
            "crossing": crossing,
            **_by_kind(part.ops),
            **{name: sum(d[name] for d in devices) for name in ("busy_ns", "idle_ns")},
        },
        "devices": devices,
        "tables": [_table(part, name) for name in TABLES],
        "note": _note(crossing),
    }


def _crosses(from_ns: int, to_ns: int) -> pl.Expr:
    return (_start < from_ns) | (_end > to_ns)


def _devices(
    linked: Linked, part: Linked, streams: Sequence[Row], width: int
) -> list[dict[str, Any]]:
    """Return how long each device was busy in the range, those without work included."""
    known = [row.key[0] for row in streams] if streams else linked.ops["device"].unique().to_list()
    spans = busy(part.ops.lazy(), ["device"]).select("device", "busy_ns").collect()
    found = dict(spans.iter_rows())
    return [
        {
            "device": device,
            "busy_ns": found.get(device, 0),
            "idle_ns": width - found.get(device, 0),
            "busy_share": found.get(device, 0) / width,
        }
        for device in sorted(set(known), key=lambda d: (d is None, d))
    ]


def _by_kind(ops: pl.DataFrame) -> dict[str, int]:
    took = (_end - _start).sum()
    sums = ops.lazy().group_by("kind").agg(count=pl.len(), took=took).collect()
    found = {kind: (count, time) for kind, count, time in sums.iter_rows()}
    return {
        column: int(value)
        for kind, columns in _KINDS.items()
        for column, value in zip(columns, found.get(kind, (0, 0)), strict=True)
    }


def _table(part: Linked, name: str) -> dict[str, Any]:
    try:
        filled = fill(part, name)
    except NothingToShowError as error:
        return {"name": name, "title": name, "note": str(error), "columns": [], "rows": [],
                "text": []}  # fmt: skip
    return _as_json(filled)


def _as_json(filled: Filled) -> dict[str, Any]:
    frame = filled.frame.head(MOST_ROWS)
    shown = [column for column in filled.table.columns if column.shown]
    texts = [units.column(column.unit, frame[column.name]) for column in shown]
    more = filled.frame.height - frame.height
    return {
        "name": filled.name,
        "title": filled.table.title,
        "note": filled.table.note + (f" {units.count(more)} more are left out." if more else ""),
        "columns": [{"name": c.name, "heading": c.heading, "unit": c.unit} for c in shown],
        "rows": [
            {c.name: _plain(row[c.name]) for c in shown} for row in frame.iter_rows(named=True)
        ],
        "text": [[plain(cell) for cell in row] for row in zip(*texts, strict=True)],
    }


def _plain(value: object) -> object:
    return plain(value) if isinstance(value, str) else value


def _note(crossing: int) -> str:
    if not crossing:
        return "No GPU work crosses the edges of the range."
    works = "op crosses" if crossing == 1 else "ops cross"
    return (
        f"{units.count(crossing)} GPU {works} the edges of the range: counted once, with the time "
        "inside alone."
    )

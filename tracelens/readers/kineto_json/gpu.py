"""GPU work in a Kineto trace, and the collectives that some of it is part of."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.readers.kineto_json.arguments import (
    Collective,
    GpuWork,
    Shape,
    column,
    decoded,
)
from tracelens.trace.schema import COLLECTIVES, COPY_KINDS, GPU_OPS, OP_KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.readers.kineto_json.events import Events, Group

_COPY: Final = re.compile(r"\b(UnifiedHtoD|UnifiedDtoH|UnifiedDtoD|[HDAP]to[HDAP])\b")
_HIP_COPIES: Final = {
    "HostToDevice": "HtoD",
    "DeviceToHost": "DtoH",
    "DeviceToDevice": "DtoD",
    "HostToHost": "HtoH",
    "PeerToPeer": "PtoP",
}
_INTEGERS: Final = {
    "device": pl.Int32,
    "stream": pl.Int32,
    "context": pl.Int32,
    "correlation": pl.UInt32,
    "bytes": pl.Int64,
    "graph_id": pl.Int32,
    "graph_node": pl.Int64,
}
_ORDER: Final = ("start_ns", "end_ns", "device", "stream", "correlation", "name_id")
_AXES: Final = ("x", "y", "z")


class Work:
    """The GPU work of a trace.

    ``ops`` is in the schema of `gpu_ops`, with `external_id` (null where not recorded) besides;
    its `pid` is that of the launching process. ``unplaced`` counts ops of which several processes
    claim to be that.
    """

    def __init__(self, events: Events, calls: pl.DataFrame, *, everything: bool) -> None:
        self._collective_events: list[Any] = []
        kinds = ("kernel", "copy", "memset")
        parts = [self._part(events.of(kind), kind, everything=everything) for kind in kinds]
        whole = pl.concat(parts).sort(_ORDER, nulls_last=True, maintain_order=True)
        placed = _placed(whole.with_row_index("op_id"), calls, events)
        self.unplaced = placed["pid"].null_count()
        schema = dict(GPU_OPS.schema(everything=everything))
        self.ops = placed.select(*schema, "external_id").cast(schema)  # type: ignore[arg-type]
        self._members = placed.filter(pl.col("collective").is_not_null())

    def collectives(self) -> pl.DataFrame | None:
        """Return the `collectives` table, or None where the trace has none."""
        if self._members.is_empty():
            return None
        args = decoded(
            [self._collective_events[row] for row in self._members["collective"]], Collective
        )
        peers = [a.destination if a.destination is not None else a.source for a in args]
        integers = {
            "in_elements": pl.Int64,
            "out_elements": pl.Int64,
            "group_size": pl.Int32,
            "sequence": pl.Int64,
        }
        columns = {
            "op_id": self._members["op_id"],
            "peer": column(peers, pl.Int32),
            **{name: column([getattr(a, name) for a in args], t) for name, t in integers.items()},
        }
        texts = COLLECTIVES.schema().keys() - columns.keys()
        columns |= {name: pl.Series([_text(getattr(a, name)) for a in args]) for name in texts}
        return pl.DataFrame(columns).select(
            pl.col(name).cast(dtype) for name, dtype in COLLECTIVES.schema().items()
        )

    def _part(self, group: Group, kind: str, *, everything: bool) -> pl.DataFrame:
        args = decoded(group.events, GpuWork)
        external = [a.external_id if a.external_id is not None else a.old_external_id for a in args]
        copies: Sequence[str | None] = [None] * len(args)
        if kind == "copy":
            copies = [_copy_kind(event.name) for event in group.events]
        frame = group.frame.select("start_ns", "end_ns", "name_id", "pid").with_columns(
            kind=pl.lit(kind, pl.Enum(OP_KINDS)),
            copy_kind=pl.Series(copies, dtype=pl.Enum(COPY_KINDS)),
            external_id=column(external, pl.Int64),
            collective=self._collective_rows(group.events, args),
            **{
                name: column([getattr(a, name) for a in args], dtype)
                for name, dtype in _INTEGERS.items()
            },
        )
        return frame.with_columns(**_shape(group.events, kind)) if everything else frame

    def _collective_rows(self, events: Sequence[Any], args: Sequence[GpuWork]) -> pl.Series:
        """Keep the events that are part of a collective, and return their places."""
        rows: list[int | None] = [None] * len(args)
        for i, arguments in enumerate(args):
            if arguments.collective:
                rows[i] = len(self._collective_events)
                self._collective_events.append(events[i])
        return pl.Series(rows, dtype=pl.UInt32)


def _placed(ops: pl.DataFrame, calls: pl.DataFrame, events: Events) -> pl.DataFrame:
    """Return the ops with the process that launched them; the file gives a device's number."""
    processes = calls["pid"].unique().to_list()
    if len(processes) < 2:
        only = processes or events.of("op").frame["pid"].unique().to_list() or [0]
        return ops.with_columns(pid=pl.lit(only[0], pl.Int32))
    owners = calls.group_by("correlation").agg(
        owner=pl.col("pid").first(), owners=pl.col("pid").n_unique()
    )
    found = ops.join(owners, on="correlation", how="left", maintain_order="left")
    pid = pl.when(pl.col("owners") == 1).then("owner")
    return found.with_columns(pid=pid).drop("owner", "owners")


def _copy_kind(name: str) -> str:
    if found := _COPY.search(name):
        kind = found[1]
        return kind if kind in COPY_KINDS else "unknown"
    return next((kind for hip, kind in _HIP_COPIES.items() if hip in name), "unknown")


def _shape(events: Sequence[Any], kind: str) -> dict[str, pl.Series]:
    args = decoded(events, Shape) if kind == "kernel" else [Shape()] * len(events)
    found = {
        f"{what}_{axis}": column([_at(getattr(a, what), i) for a in args], pl.Int32)
        for what in ("grid", "block")
        for i, axis in enumerate(_AXES)
    }
    for name in ("registers", "shared_bytes"):
        found[name] = column([getattr(a, name) for a in args], pl.Int32)
    return found


def _at(values: list[int] | None, place: int) -> int | None:
    return values[place] if values and len(values) > place else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)

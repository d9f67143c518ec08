"""GPU work in a Kineto trace, and the collectives that some of it is part of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.readers.kineto_json.arguments import collectives, column
from tracelens.trace.schema import COLLECTIVES, GPU_OPS

if TYPE_CHECKING:
    from tracelens.readers.kineto_json.events import Events

_KINDS: Final = ("kernel", "copy", "memset")
_ORDER: Final = ("start_ns", "end_ns", "device", "stream", "correlation", "name_id")


class Work:
    """The GPU work of a trace.

    ``ops`` is in the schema of `gpu_ops`, with `external_id` (null where not recorded) besides;
    its `pid` is that of the launching process, null where several may be that.
    """

    def __init__(self, events: Events, calls: pl.DataFrame, *, everything: bool) -> None:
        whole = pl.concat([events.of(kind) for kind in _KINDS])
        ordered = whole.sort(_ORDER, nulls_last=True, maintain_order=True).with_row_index("op_id")
        placed = _placed(ordered, calls, events)
        schema = dict(GPU_OPS.schema(everything=everything))
        self.ops = placed.select(*schema, "external_id").cast(schema)  # type: ignore[arg-type]
        self._members = placed.select("op_id", "collective").drop_nulls()

    def collectives(self) -> pl.DataFrame | None:
        """Return the `collectives` table, or None where the trace has none."""
        if self._members.is_empty():
            return None
        found = collectives(self._members["collective"].to_list())
        peers = [c.source if c.destination is None else c.destination for c in found]
        columns: dict[str, Any] = {"op_id": self._members["op_id"], "peer": column(peers, pl.Int32)}
        for name, dtype in COLLECTIVES.schema().items():
            if name not in columns:
                values = [getattr(c, name) for c in found]
                columns[name] = (
                    pl.Series([_text(v) for v in values], dtype=pl.String)
                    if dtype == pl.String
                    else column(values, dtype)
                )
        return pl.DataFrame(columns).select(list(COLLECTIVES.schema()))


def _placed(ops: pl.DataFrame, calls: pl.DataFrame, events: Events) -> pl.DataFrame:
    """Return the ops with the process that launched them; the file gives a device's number.

    Of several processes it is the one that made the call with the op's correlation; where more
    than one did, or none, the one whose other work is all that the device has.
    """
    processes = calls["pid"].unique().to_list()
    if len(processes) < 2:
        only = processes or events.of("op")["pid"].unique().to_list() or [0]
        return ops.with_columns(pid=pl.lit(only[0], pl.Int32))
    owner = pl.when(pl.col("pid").n_unique() == 1).then(pl.col("pid").first())
    callers = calls.group_by("correlation").agg(caller=owner)
    found = ops.join(callers, on="correlation", how="left", maintain_order="left")
    of_devices = found.rename({"pid": "_", "caller": "pid"}).drop_nulls("pid")
    users = of_devices.group_by("device").agg(user=owner)
    placed = found.join(users, on="device", how="left", maintain_order="left")
    return placed.with_columns(pid=pl.coalesce("caller", "user")).drop("caller", "user")


def _text(value: object) -> str | None:
    return None if value is None else str(value)

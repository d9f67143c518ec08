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
    """Return the ops with the process that launched them; the file gives a device's number."""
    processes = calls["pid"].unique().to_list()
    if len(processes) < 2:
        only = processes or events.of("op")["pid"].unique().to_list() or [0]
        return ops.with_columns(pid=pl.lit(only[0], pl.Int32))
    owners = calls.group_by("correlation").agg(
        owner=pl.col("pid").first(), owners=pl.col("pid").n_unique()
    )
    found = ops.join(owners, on="correlation", how="left", maintain_order="left")
    pid = pl.when(pl.col("owners") == 1).then("owner")
    return found.with_columns(pid=pid).drop("owner", "owners")


def _text(value: object) -> str | None:
    return None if value is None else str(value)

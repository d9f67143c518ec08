"""CUDA runtime and driver calls in nsys exports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.readers.nsys.gather import cast, pid, tid
from tracelens.readers.nsys.names import own_id
from tracelens.trace.schema import API

if TYPE_CHECKING:
    from tracelens.readers.nsys.gather import Gather
    from tracelens.readers.nsys.names import Names

TABLE: Final = "CUPTI_ACTIVITY_KIND_RUNTIME"
_BACKTRACE: Final = 67
_COLUMNS: Final = {
    "start_ns": "start",
    "end_ns": "end",
    "event_class": "eventClass",
    "thread": "globalTid",
    "name_id": "nameId",
    "correlation": "correlationId",
}
_STATUS: Final = {"status": "returnValue"}


def api(gather: Gather, names: Names) -> pl.LazyFrame | None:
    """Return the `api` table, without the rows that hold call stacks (`--cudabacktrace`)."""
    if not gather.has(TABLE, ("start", "nameId", "globalTid")):
        return None

    columns = _COLUMNS | (_STATUS if gather.everything else {})
    schema = API.schema(everything=gather.everything)

    unnamed = names.id_of("(unnamed function)")

    def change(raw: pl.DataFrame) -> pl.DataFrame:
        calls = raw
        if (raw["event_class"] == _BACKTRACE).any():
            calls = raw.filter(pl.col("event_class").ne_missing(_BACKTRACE))
        calls = calls.with_columns(
            # The recording may stop inside a call, which then has no end.
            pl.col("end_ns").fill_null(pl.col("start_ns")),
            name_id=own_id("name_id").fill_null(unnamed),
            pid=pid("thread", gather.machines),
            tid=tid("thread", gather.tids),
        )
        return gather.sound(TABLE, calls).select(cast(schema))

    return names.resolved(gather.read(TABLE, columns, change))

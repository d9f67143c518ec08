"""NVTX ranges in nsys exports: push/pop and start/end, with domains and registered strings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.readers.nsys import own
from tracelens.readers.nsys.gather import cast, pid, tid
from tracelens.readers.nsys.names import own_id
from tracelens.trace.nesting import nested
from tracelens.trace.schema import RANGES

if TYPE_CHECKING:
    from tracelens.readers.nsys.gather import Gather
    from tracelens.readers.nsys.names import Names

TABLE: Final = "NVTX_EVENTS"
# ENUM_NSYS_EVENT_TYPE; 70 and 71 are ranges imported from NVTXT files.
_PUSH_POP: Final = (59, 70)
_START_END: Final = (60, 71)
_DOMAIN: Final = 75
_COLUMNS: Final = {
    "start_ns": "start",
    "end_ns": "end",
    "type": "eventType",
    "thread": "globalTid",
    "end_thread": "endGlobalTid",
    "name_id": "textId",
    "domain_id": "domainId",
    "kind": own.KIND,
    "taken_end_ns": own.END,
}


def ranges(gather: Gather, names: Names) -> pl.LazyFrame | None:
    """Return the `ranges` table, read last: ranges never closed end where everything ends."""
    if not gather.has(TABLE, ("start", "eventType", "globalTid")):
        return None
    kinds = [*_PUSH_POP, *_START_END, _DOMAIN]
    raw = gather.read(
        TABLE, _COLUMNS, lambda part: part.filter(pl.col("type").is_in(kinds)), texts=("text",)
    ).collect()
    raw = _named(raw, names).with_columns(
        pl.col("domain_id").fill_null(0),
        pid=pid("thread", gather.machines),
        tid=tid("thread", gather.tids),
        end_tid=tid("end_thread", gather.tids),
        closed=pl.col("end_ns").is_not_null(),
        end_ns=pl.coalesce("end_ns", "taken_end_ns"),
    )
    domains = _domains(raw, names)
    events = raw.lazy().filter(pl.col("type") != _DOMAIN)
    raw = _ended(gather, gather.near({TABLE: events})[TABLE].collect())
    frame = gather.sound(TABLE, raw, ("pid", "tid")).join(
        domains, on=["pid", "domain_id"], how="left"
    )
    frame = frame.with_columns(
        kind=pl.when(pl.col("type").is_in(_START_END))
        .then(pl.lit("start_end"))
        .otherwise(
            pl.col("kind").replace_strict(own.KINDS, default="push_pop", return_dtype=pl.String)
        ),
        domain=pl.when(pl.col("domain_id") == 0)
        .then(pl.lit(""))
        .otherwise(pl.coalesce("domain", pl.format("domain {}", "domain_id"))),
    )
    return nested(frame).select(cast(RANGES.schema())).lazy()


def _named(raw: pl.DataFrame, names: Names) -> pl.DataFrame:
    """Return the rows with `name_id` from the text itself or from the registered string."""
    raw = raw.with_columns(name_id=own_id("name_id"))
    aliases = names.resolve(raw["name_id"].drop_nulls().unique())
    texts = names.of_texts(raw["text"])
    return (
        raw.with_columns(pl.col("name_id").replace(aliases))
        .join(texts, on="text", how="left", maintain_order="left")
        .with_columns(
            name_id=pl.when(pl.col("text") != b"")
            .then(pl.col("text_name_id"))
            .otherwise(pl.coalesce("name_id", "text_name_id"))
        )
    )


def _domains(raw: pl.DataFrame, names: Names) -> pl.DataFrame:
    """Return domain names by process: ids are counted anew in each."""
    rows = raw.filter(pl.col("type") == _DOMAIN).unique(["pid", "domain_id"], keep="first")
    return rows.select(
        "pid",
        "domain_id",
        domain=pl.Series([names.text(i) for i in rows["name_id"]], dtype=pl.String),
    )


def _ended(gather: Gather, raw: pl.DataFrame) -> pl.DataFrame:
    unclosed = raw.height - raw["closed"].sum()
    if not unclosed:
        return raw
    gather.note(
        "note",
        f"{unclosed:,} NVTX ranges were never closed: they are taken to last until the end.",
    )
    last = gather.extent[1] if gather.extent else 0
    return raw.with_columns(pl.col("end_ns").fill_null(pl.max_horizontal("start_ns", last)))

"""What tracelens's own exports in nsys's schema add to it, so that nothing is lost on the way back.

Programs that read nsys's exports go by names of tables and columns, and see none of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.readers.nsys.gather import cast
from tracelens.trace.model import Caveat
from tracelens.trace.numbering import renumbered
from tracelens.trace.schema import KEYS, MOST_BYTES, REFERENCES
from tracelens.trace.schema import TABLES as MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.readers.nsys.gather import Gather
    from tracelens.readers.nsys.storage import Storage

NAME: Final = "tracelensNameId"
"""Column of copies, memsets and graphs: what the recorder called them."""
KIND: Final = "tracelensKind"
"""Column of NVTX_EVENTS: `KINDS` of ranges that are no NVTX ranges."""
END: Final = "tracelensEnd"
"""Column of NVTX_EVENTS: until when a range that was never closed is taken to last."""
KINDS: Final[Mapping[int, str]] = {1: "op", 2: "annotation", 3: "python"}
FACT: Final = "TRACELENS_FACT:"
CAVEAT: Final = "TRACELENS_CAVEAT:"
ROWS: Final = "TRACELENS_ROWS:"
"""META_DATA_CAPTURE has rows whose names begin so: facts, caveats, and how many rows there were."""
TABLES: Final = (*REFERENCES, "memory", "segments", "blocks", "stacks", "frames", "devices")
"""Tables of the data model that nsys's schema has no place for, or not for all their columns."""
_META: Final = "META_DATA_CAPTURE"
_EMPTY: Final = "\0"


def table(name: str) -> str:
    """Return what a table of the data model is called in an export of ours."""
    return f"TRACELENS_{name.upper()}"


def facts(storage: Storage) -> dict[str, str]:
    """Return the facts of the source that was exported."""
    return {name: value for name, value in _said(storage, FACT)}  # noqa: C416


def caveats(storage: Storage) -> tuple[Caveat, ...]:
    """Return the caveats of the source that was exported."""
    return tuple(Caveat(kind, text) for kind, text in _said(storage, CAVEAT))


def tables(gather: Gather, found: Mapping[str, pl.LazyFrame | None]) -> dict[str, pl.LazyFrame]:
    """Return the tables of the data model that the export holds as they are.

    Those that refer to others by row number are of no use where one of these has lost rows.
    """
    were = dict(_said(gather.storage, ROWS))
    numbers = {of: _numbers(found.get(of)) for of in ("gpu_ops", "ranges")}
    there = {}
    for name in TABLES:
        if table(name) not in gather.storage.tables():
            continue
        of_rows = sorted(set(REFERENCES.get(name, {}).values()))
        lost = [of for of in of_rows if were.get(of) != str(numbers[of].height)]
        if lost:
            text = f"{table(name)} was set aside: {' and '.join(lost)} have lost or gained rows."
            gather.note("damaged", text)
        else:
            there[name] = _sound(gather, name, numbers).lazy()
    return there


def _sound(gather: Gather, name: str, numbers: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return the rows of a table that joins can rely on; the others are counted."""
    schema = MODEL[name].schema()
    # SQLite writes numbers that are no integers as text, too: with 15 digits.
    texts = [column for column, dtype in schema.items() if dtype in (pl.String, pl.Float64)]
    decoded = [_decoded(text) for text in texts]
    rows = gather.read(
        table(name),
        {column: column for column in schema if column not in texts},
        lambda part: part.with_columns(decoded).select(cast(schema)),
        texts,
    ).collect()
    sound = rows
    if "size_bytes" in schema:
        fits = pl.col("size_bytes").is_between(0, MOST_BYTES).fill_null(value=True)
        sound = sound.filter(fits)
    if name in REFERENCES:
        lazy = {of: frame.lazy() for of, frame in numbers.items()}
        sound = renumbered(name, sound.lazy(), lazy).collect()
    if name in KEYS:
        sound = sound.drop_nulls(KEYS[name]).unique(KEYS[name], keep="first", maintain_order=True)
    if aside := rows.height - sound.height:
        gather.note(
            "damaged", f"{aside:,} rows of {table(name)} were set aside: they cannot be true."
        )
    return sound


def encoded(column: str) -> pl.Expr:
    """Mark texts that are empty, as what reads texts takes null and empty for the same."""
    text = pl.col(column)
    marked = (text == "") | text.str.starts_with(_EMPTY)
    return pl.when(marked).then(pl.lit(_EMPTY) + text).otherwise(text).alias(column)


def _decoded(column: str) -> pl.Expr:
    text = pl.col(column).cast(pl.String, strict=False)
    return pl.when(text != "").then(text.str.strip_prefix(_EMPTY)).alias(column)


def _said(storage: Storage, prefix: str) -> list[tuple[str, str]]:
    rows = [(str(row.get("name")), str(row.get("value"))) for row in storage.records(_META)]
    return [(name.removeprefix(prefix), value) for name, value in rows if name.startswith(prefix)]


def _numbers(frame: pl.LazyFrame | None) -> pl.DataFrame:
    """Return the numbers of a table's rows, which are in order."""
    count = 0 if frame is None else frame.select(pl.len()).collect().item()
    number = pl.int_range(count, dtype=pl.UInt32)
    return pl.select(was=number, now=number)

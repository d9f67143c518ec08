"""A Trace: the tables of one recording, where they came from, and what was wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import polars as pl


@dataclass(frozen=True)
class Source:
    """Where a trace came from.

    ``facts`` are what the recorder said of the recording, by name. The names that tracelens
    itself relies on, where a format knows them: ``epoch_ns`` (the Unix time of the recording's
    time 0), ``rank`` and ``world_size``; of an export, ``recorded_format`` (the format of what
    was recorded).
    """

    path: Path
    format: str
    producer: str | None = None
    schema_version: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Caveat:
    """One thing a reader of the numbers must know.

    ``kind`` is ``lost`` (the recorder dropped events), ``damaged`` (rows set aside),
    ``missing`` (not recorded) or ``note``.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Trace:
    """The tables of one recording as lazy frames in the schemas of `trace.schema`.

    A table that is absent was not recorded; one that is present and empty was recorded and
    holds nothing.
    """

    source: Source
    tables: Mapping[str, pl.LazyFrame]
    caveats: tuple[Caveat, ...] = ()
    resources: tuple[object, ...] = ()
    """Temporary files that the frames read from; they go when the trace does."""
    on_request: tuple[str, ...] = ()
    """Tables that are read out of the recording when they are collected: no cache keeps them."""
    entry: Path | None = None
    """The trace's folder in the cache, for what is derived from the whole trace."""

    def __contains__(self, table: str) -> bool:
        """Tell whether the table was recorded."""
        return table in self.tables

    def __getitem__(self, table: str) -> pl.LazyFrame:
        """Return the table.

        Raises:
            NothingToShowError: it was not recorded.
        """
        try:
            return self.tables[table]
        except KeyError:
            raise NothingToShowError(
                f"{self.source.path.name} holds no {table} table: it was not recorded."
            ) from None

    def get(self, table: str) -> pl.LazyFrame | None:
        """Return the table, or None where it was not recorded."""
        return self.tables.get(table)

    def with_caveats(self, *caveats: Caveat) -> Trace:
        """Return the same trace with more caveats."""
        return replace(self, caveats=(*self.caveats, *caveats))

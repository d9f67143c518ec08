"""Folders that `tracelens export --to parquet` wrote: our tables as Parquet files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from tracelens.readers import Progress, Reader, no_progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import polars as pl

    from tracelens.trace.model import Trace

MANIFEST: Final = "trace.json"
MARK: Final = "tracelens-parquet"
LAYOUT: Final = 1
"""Counts changes after which an older tracelens cannot read an export."""

_HEAD_CHARS: Final = 4096


def is_export(folder: Path) -> bool:
    """Tell whether a folder has a manifest that says it is tracelens's."""
    try:
        with (folder / MANIFEST).open(encoding="utf-8", errors="replace") as file:
            return f'"{MARK}"' in file.read(_HEAD_CHARS)
    except OSError:
        return False


def checksum(file: Path) -> str:
    """Return a hash of a file: damage inside of pages would give wrong numbers in silence."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read(path: Path, *, everything: bool = False, progress: Progress = no_progress) -> Trace:
    """Read an export; raises UnreadableError as `tables.read` does."""
    from tracelens.readers.parquet import tables

    return tables.read(path, everything=everything, progress=progress)


def on_request(path: Path) -> Mapping[str, pl.LazyFrame]:
    """Return the tables that the cache does not keep."""
    from tracelens.readers.parquet import tables

    return tables.on_request(path)


def recognises(path: Path, _head: bytes) -> bool:
    """Tell whether this is a folder with a manifest of ours."""
    return path.is_dir() and is_export(path)


READER = Reader(recognises, read, on_request)

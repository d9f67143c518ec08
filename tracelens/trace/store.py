"""The cache: traces once read, as Parquet in the user's cache folder, keyed by content.

An entry is a folder written beside its place and renamed into it, so that readers never see
half of one and two writers do no harm. Entries used longest ago go first when the cache is
larger than its limit (`TRACELENS_CACHE_LIMIT_BYTES`, 8 GiB unless set).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracelens import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from tracelens.trace.model import Trace

_MANIFEST: Final = "trace.json"
_WRITING: Final = "writing-"
_ABANDONED_S: Final = 86_400
_EDGE_BYTES: Final = 1 << 20
_DEFAULT_LIMIT_BYTES: Final = 8 << 30
_JOURNALS: Final = ("-wal", "-journal")
LAYOUT: Final = 4
"""Counts changes of what readers and links make of a file; other entries are not used."""


def folder() -> Path:
    """Return the cache folder: `TRACELENS_CACHE_DIR`, or the platform's usual place."""
    if chosen := os.environ.get("TRACELENS_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tracelens"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "tracelens" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracelens"


def key(path: Path) -> str | None:
    """Return a key of the content: size, time of change, and hash of the first and last MiB.

    None where it cannot be told (a folder is keyed by its files' sizes and times).
    """
    digest = hashlib.blake2b(f"{LAYOUT} {__version__}".encode(), digest_size=16)
    try:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            facts = file.stat()
            digest.update(f"{file.name} {facts.st_size} {facts.st_mtime_ns};".encode())
            if file == path:
                digest.update(_edges(file, facts.st_size))
                for end in _JOURNALS:
                    journal = file.with_name(file.name + end)
                    if journal.is_file():
                        seen = journal.stat()
                        digest.update(f"{end} {seen.st_size} {seen.st_mtime_ns};".encode())
    except OSError:
        return None
    return digest.hexdigest()


def load(key: str, path: Path) -> tuple[Trace, list[str]] | None:
    """Return the cached trace and the names of its tables that are read on request, or None.

    An entry that was changed since it was written is removed.
    """
    entry = folder() / key
    if not os.path.lexists(entry):
        return None  # before polars is imported: a reader may do so beside other work
    from polars.exceptions import PolarsError

    try:
        found = _read(entry, path)
        os.utime(entry)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, PolarsError):
        shutil.rmtree(entry, ignore_errors=True)
        return None
    return found


def _read(entry: Path, path: Path) -> tuple[Trace, list[str]]:
    import polars as pl

    from tracelens.trace.model import Caveat, Source, Trace
    from tracelens.trace.schema import TABLES

    manifest = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
    tables = {}
    for name, written in manifest["tables"].items():
        file = entry / f"{name}.parquet"
        tables[name] = pl.scan_parquet(file, glob=False)
        schema = tables[name].collect_schema()
        if _seen(file) != written or schema != dict(TABLES[name].schema()):
            raise ValueError(f"{file.name} is not what was written")
    caveats = tuple(Caveat(*caveat) for caveat in manifest["caveats"])
    trace = Trace(Source(path, **manifest["source"]), tables, caveats, entry=entry)
    return trace, manifest["on_request"]


def save(key: str, trace: Trace) -> Trace:
    """Write a trace to the cache in the background, and return it with its place there.

    A cache that cannot be written is no error.
    """
    from dataclasses import replace

    root = folder()
    _writer().submit(_saved, root, key, trace)
    return replace(trace, entry=root / key)


def remembered(
    trace: Trace,
    name: str,
    make: Callable[[], pl.DataFrame],
    fits: Callable[[pl.DataFrame], bool] = lambda _: True,
) -> pl.DataFrame:
    """Return a frame derived from the whole trace, made once and kept in its cache entry.

    What is kept there and no longer ``fits`` the trace is made again.
    """
    import polars as pl

    if trace.entry is None:
        return make()
    file = trace.entry / f"{name}.parquet"
    with contextlib.suppress(OSError, pl.exceptions.PolarsError):
        kept = pl.read_parquet(file, glob=False)
        if fits(kept):
            return kept
    frame = make()
    _writer().submit(_kept, file, frame)
    return frame


def flush() -> None:
    """Wait until everything is written that was to be."""
    _writer().submit(lambda: None).result()


@functools.cache
def _writer() -> ThreadPoolExecutor:
    """Return the one thread that writes: in order, beside the analysis, done before we exit."""
    return ThreadPoolExecutor(1, thread_name_prefix="cache")


def _saved(root: Path, key: str, trace: Trace) -> None:
    with contextlib.suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=_WRITING, dir=root))
        try:
            _write(beside, trace)
            with contextlib.suppress(OSError):  # another process was quicker
                beside.rename(root / key)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        _evict(root)


def _kept(file: Path, frame: pl.DataFrame) -> None:
    with contextlib.suppress(OSError):
        handle, beside = tempfile.mkstemp(dir=file.parent, suffix=".part")
        os.close(handle)
        frame.write_parquet(beside, compression="lz4", statistics=False)
        Path(beside).replace(file)


def _write(entry: Path, trace: Trace) -> None:
    tables = {}
    for name in sorted(trace.tables.keys() - set(trace.on_request)):
        file = entry / f"{name}.parquet"
        frame = trace[name]
        frame.sink_parquet(file, compression="lz4", statistics=False, maintain_order=True)
        tables[name] = _seen(file)
    source = trace.source
    manifest: dict[str, Any] = {
        "tables": tables,
        "on_request": list(trace.on_request),
        "source": {
            "format": source.format,
            "producer": source.producer,
            "schema_version": source.schema_version,
            "facts": dict(source.facts),
        },
        "caveats": [(c.kind, c.text) for c in trace.caveats],
    }
    (entry / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def _seen(file: Path) -> list[int]:
    """Return a file's size and time of change, which tell whether it was changed."""
    facts = file.stat()
    return [facts.st_size, facts.st_mtime_ns]


def _edges(file: Path, size: int) -> bytes:
    with file.open("rb") as stream:
        head = stream.read(_EDGE_BYTES)
        stream.seek(max(0, size - _EDGE_BYTES))
        return hashlib.blake2b(head + stream.read(_EDGE_BYTES)).digest()


def _evict(root: Path) -> None:
    """Remove what a killed process left, and the entries used longest ago beyond the limit."""
    for left in root.glob(f"{_WRITING}*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)
    limit = int(os.environ.get("TRACELENS_CACHE_LIMIT_BYTES", _DEFAULT_LIMIT_BYTES))
    entries = [e for e in root.iterdir() if (e / _MANIFEST).is_file()]
    newest_first = sorted(entries, key=lambda e: e.stat().st_mtime, reverse=True)
    total = 0
    for entry in newest_first:
        total += sum(f.stat().st_size for f in entry.iterdir())
        if total > limit:
            shutil.rmtree(entry, ignore_errors=True)

"""Reading a snapshot that a test wrote, as everybody does: through `open_trace`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.snapshots import dump
from tracelens.errors import UnreadableError
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from tracelens.trace.model import Trace


def read(content: Any, folder: Path, protocol: int = 4) -> Trace:
    """Write a snapshot's content and read it back."""
    return open_trace(dump(content, folder / "snapshot.pickle", protocol), cache=False)


def table(trace: Trace, name: str) -> pl.DataFrame:
    """Return a whole table."""
    return trace[name].collect()


def said(trace: Trace, kind: str) -> str:
    """Return all caveats of a kind as one text."""
    return "\n".join(caveat.text for caveat in trace.caveats if caveat.kind == kind)


def stack(trace: Trace, stack_id: int | None) -> list[tuple[str, str, int]]:
    """Return a stack's frames as (function, file, line), the innermost first."""
    rows = (
        table(trace, "stacks")
        .filter(stack_id=stack_id)
        .join(table(trace, "frames"), on="frame_id")
        .sort("depth")
    )
    return list(rows.select("function", "file", "line").iter_rows())


def written(content: bytes, folder: Path, name: str = "snapshot.pickle") -> Path:
    """Write bytes."""
    path = folder / name
    path.write_bytes(content)
    return path


def refused(path: Path) -> str:
    """Return why a file cannot be read: a line or two, without anything that harms a terminal."""
    with pytest.raises(UnreadableError) as caught:
        open_trace(path, cache=False)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 500
    return text


def refused_if_at_all(path: Path) -> str | None:
    """Return why a file cannot be read, or None if it can: both are right, a crash is not."""
    try:
        trace = open_trace(path, cache=False)
    except UnreadableError as error:
        return str(error)
    for name in trace.tables:
        table(trace, name)
    return None

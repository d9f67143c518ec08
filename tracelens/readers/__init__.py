"""Readers: one entry = one format, from a file or folder to a Trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import polars as pl

    from tracelens.trace.model import Trace


class Progress(Protocol):
    """Is told how many parts of what have been read, of how many."""

    def __call__(self, what: str, done: int, total: int, /) -> None: ...


def no_progress(_what: str, _done: int, _total: int, /) -> None:
    """Tell nobody."""


class Read(Protocol):
    """Reads a recording; with ``everything``, the columns that are read on request, too."""

    def __call__(
        self, path: Path, *, everything: bool = False, progress: Progress = no_progress
    ) -> Trace: ...


def _nothing(_: Path) -> Mapping[str, pl.LazyFrame]:
    return {}


@dataclass(frozen=True)
class Reader:
    """One format.

    ``recognises`` is given the path and the first bytes of its content (none for a folder);
    ``on_request`` returns tables too large to cache, which are read when collected. ``likely``
    tells recordings that lie in a folder from other files, which ``recognises`` claims so that
    ``read`` can say what they are.
    """

    recognises: Callable[[Path, bytes], bool]
    read: Read
    on_request: Callable[[Path], Mapping[str, pl.LazyFrame]] = _nothing
    likely: Callable[[Path, bytes], bool] | None = None

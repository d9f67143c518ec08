"""Recordings made ready to be compared, as `tracelens compare` does it; kept once made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.run import Place, Recording
from tracelens.tables.compare.reading import Task, read, side_of
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.analyses.compare.side import Side
    from tracelens_dashboards.library import Item, Library, Opened


def side(library: Library, name: str) -> Side:
    """Return a recording of the library as a side of a comparison.

    Raises:
        UnreadableError: there is none of that id, or it cannot be read.
        NothingToShowError: it holds nothing that can be compared.
    """
    return library.brief(name, "side", _side)


def _side(opened: Opened) -> Side:
    item = opened.item
    opened.trace  # noqa: B018 # says why where it must not be read, or cannot be
    recordings = tuple(Recording(path) for path in dict.fromkeys(_files(item)))
    reads = {one.path: read(Task(one.path)) for one in recordings}
    place = Place(item.folder or recordings[0].path, recordings, item.folder is not None)
    return side_of(place, reads, plain(item.title))


def _files(item: Item) -> list[Path]:
    return [path for path in (item.trace, item.memory) if path is not None]

"""What the explorer shows: the recordings below the paths given at its start, by opaque ids."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tracelens import run
from tracelens.errors import NothingToShowError, TracelensError, UnreadableError
from tracelens.links.linked import Cut, Linked, link
from tracelens.links.memory import Ask, Memory, remember
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracelens.trace.model import Trace

_OPEN: Final = 4
"""So many recordings stay in memory; the one that was asked for longest ago goes first."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Item:
    """One line of the picker: a trace, a memory snapshot, or both of one rank.

    Attributes:
        id: what URLs call it; the same for the same file, and no path.
        title: what people call it.
        trace: recording with GPU work, if there is one.
        memory: recording with memory: a snapshot, or the trace itself.
        folder: the Run folder it lies in, if run.json declares one.
        group: recordings of one group are ranks, or recorders, of one run.
    """

    id: str
    title: str
    trace: Path | None
    memory: Path | None
    folder: Path | None
    group: str


class Opened:
    """A recording that pages ask: read when first asked, and once."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self._made: dict[str, Any] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    @property
    def trace(self) -> Trace:
        """The trace; raises NothingToShowError where the recording is of memory alone."""
        if self.item.trace is None:
            raise NothingToShowError(f"{self.item.title} holds memory alone, and no GPU work.")
        path = self.item.trace
        return self.once("trace", lambda: open_trace(path))

    @property
    def linked(self) -> Linked:
        """The trace with its work attributed."""
        return self.once("linked", lambda: link(self.trace, Cut()))

    @property
    def memory(self) -> Memory:
        """The memory; raises NothingToShowError where none was recorded."""
        path = self.item.memory
        if path is None:
            raise NothingToShowError(f"{self.item.title} holds no memory events.")
        if path == self.item.trace:
            return self.once("memory", lambda: remember(self.trace, Ask()))
        return self.once("memory", lambda: remember(open_trace(path), Ask()))

    def once(self, key: str, make: Callable[[], _T]) -> _T:
        """Return what `make` gives, made once for this recording; others wait meanwhile.

        A failure is kept, too: what cannot be read is not read again for each request.
        """
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._made:
                try:
                    self._made[key] = make()
                except TracelensError as error:
                    self._made[key] = error
            found = self._made[key]
        if isinstance(found, TracelensError):
            raise found
        return found  # type: ignore[no-any-return]


class Library:
    """The recordings that were named, as they are now; safe to ask from several threads."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._lock = threading.Lock()
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._items: dict[str, Item] = {}
        self.problems: list[str] = []
        self.refresh()

    @property
    def items(self) -> list[Item]:
        """All recordings, in the order of their paths."""
        return list(self._items.values())

    def refresh(self) -> list[Item]:
        """Look again at the paths; return what was not there before."""
        found, problems = _found(self.paths)
        with self._lock:
            new = [item for item in found if item.id not in self._items]
            self._items = {item.id: item for item in found}
            self.problems = problems
        return new

    def unseen(self) -> int:
        """Return how many recordings a refresh would add, without adding them."""
        found, _ = _found(self.paths)
        return sum(item.id not in self._items for item in found)

    def open(self, name: str) -> Opened:
        """Return the recording of an id.

        Raises:
            UnreadableError: there is none of that id.
        """
        with self._lock:
            item = self._items.get(name)
            if item is None:
                raise UnreadableError("There is no such recording here (any more).")
            if name not in self._opened:
                self._opened[name] = Opened(item)
            self._opened.move_to_end(name)
            while len(self._opened) > _OPEN:
                self._opened.popitem(last=False)
            return self._opened[name]


def _found(paths: Sequence[Path]) -> tuple[list[Item], list[str]]:
    """Return the recordings below the paths, and what is wrong with some of them."""
    items: list[Item] = []
    problems: list[str] = []
    for path in paths:
        try:
            places = run.found([path])
        except TracelensError as error:
            problems.append(str(error))
            continue
        for place in places:
            items += _of_place(place)
    return items, problems


def _of_place(place: run.Place) -> list[Item]:
    known = {recording.path: run.peek(recording.path) for recording in place.recordings}
    whole, _ = run.as_run(place, known)
    folder = place.path if place.declared else None
    if whole is None:
        return [_alone(r.path, known[r.path], folder) for r in place.recordings]
    items = []
    for rank in whole.ranks:
        title = place.path.name if rank.number is None else f"{place.path.name} rank {rank.number}"
        memory = rank.snapshot or rank.trace
        items.append(Item(_id(rank.trace), title, rank.trace, memory, folder, _id(place.path)))
    return items


def _alone(path: Path, known: run.Known, folder: Path | None) -> Item:
    trace = None if known.is_snapshot else path
    title = path.name if path.parent == Path() else f"{path.parent.name}/{path.name}"
    return Item(_id(path), title, trace, path, folder, _id(path))


def _id(path: Path) -> str:
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]

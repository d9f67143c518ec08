"""What the explorer shows: the recordings below the paths given at its start, by opaque ids."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tracelens import run
from tracelens.errors import NothingToShowError, TracelensError, UnreadableError
from tracelens.links.linked import Cut, Linked, link
from tracelens.links.memory import Ask, Memory, remember
from tracelens.readers.open import is_recording, open_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tracelens.trace.model import Trace

_OPEN: Final = 4
"""So many recordings stay in memory; the one that was asked for longest ago goes first."""

_LEVELS: Final = 3
_MOST: Final = 10_000

_T = TypeVar("_T")
Stamp = tuple[tuple[str, int, int], ...]
"""Names, sizes and times of change of files: a file is read anew when they differ."""


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
        root: the folder that was named, out of which no link may lead; None for a file.
        stamp: of its files, when they were looked at.
    """

    id: str
    title: str
    trace: Path | None
    memory: Path | None
    folder: Path | None
    group: str
    root: Path | None = None
    stamp: Stamp = ()


class Opened:
    """A recording that pages ask: read when first asked, and once."""

    def __init__(self, item: Item, failed: Callable[[str], None] = lambda _: None) -> None:
        self.item = item
        self._failed = failed
        self._made: dict[str, Any] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    @property
    def trace(self) -> Trace:
        """The trace; raises NothingToShowError where the recording is of memory alone."""
        path = self.item.trace
        if path is None:
            raise NothingToShowError(f"{self.item.title} holds memory alone, and no GPU work.")
        return self.once("trace", lambda: self._read(path))

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
        return self.once("memory", lambda: remember(self._read(path), Ask(), self._beside()))

    def _beside(self) -> Trace | None:
        """Return the trace of the same run, whose ranges name phases; None if none can be read."""
        try:
            return self.trace
        except TracelensError:
            return None

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

    def _read(self, path: Path) -> Trace:
        """Open a file, unless it has become a link out of the folder that was named."""
        if _leads_out(path, self.item.root):
            raise UnreadableError(f"{path.name} is a link that leads out of the folder.")
        try:
            return open_trace(path)
        except UnreadableError as error:
            self._failed(str(error))
            raise


class Library:
    """The recordings that were named, as they are now; safe to ask from several threads."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._items: dict[str, Item] = {}
        self._problems: list[str] = []
        self._failed: dict[str, str] = {}
        self._briefs: dict[tuple[str, Stamp, str], Any] = {}
        self._peeked: dict[tuple[Path, Stamp], run.Known] = {}
        self._looked: Stamp | None = None
        self._unseen = 0
        self.refresh()

    @property
    def items(self) -> list[Item]:
        """All recordings, in the order of their paths."""
        return list(self._items.values())

    @property
    def problems(self) -> list[str]:
        """What is wrong with paths, and with recordings that were opened in vain."""
        with self._lock:
            return [*self._problems, *self._failed.values()]

    def is_failed(self, name: str) -> bool:
        """Tell whether a recording was opened in vain."""
        return name in self._failed

    def refresh(self) -> list[Item]:
        """Look again at the paths; return what is new, or has changed."""
        with self._looking:
            self._looked = _looks(self.paths)
            found, problems = self._found()
            self._unseen = 0
        with self._lock:
            new = [item for item in found if item != self._items.get(item.id)]
            self._items = {item.id: item for item in found}
            self._problems = problems
            gone = {name for name in self._opened if name not in self._items}
            for name in gone | {item.id for item in new}:
                self._opened.pop(name, None)
                self._failed.pop(name, None)
        return new

    def unseen(self) -> int:
        """Return how many recordings a refresh would add or read anew.

        Files are looked into only where names, sizes or times have changed since the last time.
        """
        with self._looking:
            looks = _looks(self.paths)
            if looks != self._looked:
                self._looked = looks
                found, _ = self._found()
                self._unseen = sum(item != self._items.get(item.id) for item in found)
            return self._unseen

    def open(self, name: str) -> Opened:
        """Return the recording of an id.

        Raises:
            UnreadableError: there is none of that id.
        """
        with self._lock:
            item = self._item(name)
            if name not in self._opened:
                self._opened[name] = self._unread(item)
            self._opened.move_to_end(name)
            while len(self._opened) > _OPEN:
                self._opened.popitem(last=False)
            return self._opened[name]

    def brief(self, name: str, key: str, make: Callable[[Opened], _T]) -> _T:
        """Return what `make` gives of a recording, kept when the recording is let go.

        A recording that no page looks at is not kept in memory for it.

        Raises:
            UnreadableError: there is none of that id.
        """
        with self._lock:
            item = self._item(name)
            at = (name, item.stamp, key)
            opened = self._opened.get(name) or self._unread(item)
        if at not in self._briefs:
            self._briefs[at] = make(opened)
        return self._briefs[at]  # type: ignore[no-any-return]

    def _item(self, name: str) -> Item:
        item = self._items.get(name)
        if item is None:
            raise UnreadableError("There is no such recording here (any more).")
        return item

    def _unread(self, item: Item) -> Opened:
        def failed(why: str) -> None:
            with self._lock:
                self._failed[item.id] = why

        return Opened(item, failed)

    def _found(self) -> tuple[list[Item], list[str]]:
        """Return the recordings below the paths, and what is wrong with some of them."""
        items: dict[str, Item] = {}
        problems: dict[str, None] = {}
        for path in self.paths:
            root = path if path.is_dir() and not is_recording(path) else None
            for place in _places(path, problems):
                for item in self._of_place(place, root, problems):
                    items.setdefault(item.id, item)
        return list(items.values()), list(problems)

    def _of_place(
        self, place: run.Place, root: Path | None, problems: dict[str, None]
    ) -> Iterator[Item]:
        outside = [r.path for r in place.recordings if _leads_out(r.path, root)]
        for path in outside:
            problems[f"{path.name} is a link that leads out of {root}: it is not shown."] = None
        recordings = tuple(r for r in place.recordings if r.path not in outside)
        place = run.Place(place.path, recordings, place.declared, place.caveats)
        known = {recording.path: self._peek(recording.path) for recording in recordings}
        whole, _ = run.as_run(place, known)
        folder = place.path if place.declared else None
        if whole is None:
            for one in recordings:
                yield _alone(one.path, known[one.path], folder, root)
            return
        for rank in whole.ranks:
            name = place.path.absolute().name
            title = name if rank.number is None else f"{name} rank {rank.number}"
            memory = rank.snapshot or rank.trace
            stamp = _stamp({rank.trace, memory})
            group = _id(place.path)
            yield Item(_id(rank.trace), title, rank.trace, memory, folder, group, root, stamp)

    def _peek(self, path: Path) -> run.Known:
        """Look into a file that was not looked into before, as it is now."""
        at = (path, _stamp({path}))
        if at not in self._peeked:
            self._peeked[at] = run.peek(path)
        return self._peeked[at]


def _places(path: Path, problems: dict[str, None], levels: int = _LEVELS) -> Iterator[run.Place]:
    """Give what lies below a path; where one folder is damaged, what lies in the others."""
    try:
        found = run.found([path])
    except TracelensError as error:
        if levels == _LEVELS or (path / run.MANIFEST).is_file():
            problems[str(error)] = None
        for child in _children(path) if levels else ():
            if child.name == run.MANIFEST:
                continue
            if is_recording(child):
                yield from run.found([child])
            elif child.is_dir():
                yield from _places(child, problems, levels - 1)
        return
    yield from found


def _alone(path: Path, known: run.Known, folder: Path | None, root: Path | None) -> Item:
    trace = None if known.is_snapshot else path
    title = path.name if path.parent == Path() else f"{path.parent.name}/{path.name}"
    return Item(_id(path), title, trace, path, folder, _id(path), root, _stamp({path}))


def _id(path: Path) -> str:
    return hashlib.sha256(os.fsencode(_real(path))).hexdigest()[:12]


def _leads_out(path: Path, root: Path | None) -> bool:
    return root is not None and not _real(path).is_relative_to(_real(root))


def _real(path: Path) -> Path:
    """Return the path without links; unlike `resolve`, links in a circle are no error."""
    return Path(os.path.realpath(path))


def _stamp(paths: Iterable[Path]) -> Stamp:
    """Return what tells whether recordings have changed; a folder's is that of its files."""
    files = [file for path in sorted(paths) for file in (path, *_children(path))]
    return tuple(stamp for file in files if (stamp := _stamped(file)))


def _stamped(file: Path) -> tuple[str, int, int] | None:
    try:
        facts = file.stat()
    except OSError:
        return None
    return (str(file), facts.st_size, facts.st_mtime_ns)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:_MOST] if folder.is_dir() else []
    except OSError:
        return []


def _looks(paths: Iterable[Path]) -> Stamp:
    """Return names, sizes and times of everything below the paths that may hold recordings."""
    found: list[tuple[str, int, int]] = []
    for path in paths:
        if stamp := _stamped(path):
            found.append(stamp)
        _look_below(str(path), _LEVELS, found)
    return tuple(sorted(found))


def _look_below(folder: str, levels: int, found: list[tuple[str, int, int]]) -> None:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if len(found) >= _MOST:
                    return
                facts = entry.stat()
                found.append((entry.path, facts.st_size, facts.st_mtime_ns))
                if levels > 1 and entry.is_dir():
                    _look_below(entry.path, levels - 1, found)
    except OSError:
        return

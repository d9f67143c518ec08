"""A Run: the recordings of one job, by rank, found in a folder or named in its run.json."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from tracelens import registry
from tracelens.errors import UnreadableError, UsageError
from tracelens.readers.open import is_recording, unpacking

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

MANIFEST: Final = "run.json"
SNAPSHOTS: Final = ("torch-snapshot", "torch-memory-timeline")
"""Formats of recordings that hold memory alone."""

_MOST: Final = 10_000
_LEVELS: Final = 2
_HEAD_BYTES: Final = 4096
_BLOCK_BYTES: Final = 1 << 20
_SAID_BYTES: Final = 1 << 12
_LARGEST: Final = 2**31
_SUFFIXES: Final = (
    ".gz", ".zst", ".zip", ".json", ".sqlite", ".db", ".nsys-rep", ".qdrep", ".pickle", ".pkl",
    ".tracelens", ".trace", ".pt", ".csv", ".ncu-rep",
)  # fmt: skip
_REPORTS: Final = (".nsys-rep", ".qdrep")
_OF_NCU: Final = (".csv", ".ncu-rep")
_RANK: Final = re.compile(r"(?i)(?<![a-z])rank[ ._=-]?(\d+)")
_TORCHTITAN: Final = re.compile(r"(\d{6})_step_")
_NUMBERED: Final = re.compile(r"(.*[._-])(\d+)", re.DOTALL)
_DISTRIBUTED: Final = re.compile(rb'"distributedInfo"\s*:\s*\{')
_SAID: Final = re.compile(rb'"(rank|world_size)"\s*:\s*(\d+)')


@dataclass(frozen=True)
class Recording:
    """One file or folder that can be read, and its rank where run.json tells it."""

    path: Path
    rank: int | None = None


@dataclass(frozen=True)
class Place:
    """What a path that was named stands for: a recording, or those that lie together.

    ``declared`` tells that run.json says that they are one run.
    """

    path: Path
    recordings: tuple[Recording, ...]
    declared: bool = False
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """What a recording says of itself: its format, and the facts of `trace.model.Source`."""

    format: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def rank(self) -> int | None:
        """The rank that recorded it; None where it was alone, or does not say."""
        return None if self.world_size == 1 else _number(self.facts.get("rank", ""))

    @property
    def world_size(self) -> int | None:
        """How many ranks the job had, where recorded."""
        return _number(self.facts.get("world_size", ""))

    @property
    def is_snapshot(self) -> bool:
        """Whether it holds memory alone."""
        return self.format in SNAPSHOTS


@dataclass(frozen=True)
class Rank:
    """The recordings of one rank; ``number`` is None where the job has one process only."""

    number: int | None
    trace: Path
    snapshot: Path | None = None


@dataclass(frozen=True)
class Run:
    """The recordings of one job, rank by rank; ``world_size`` is that of the job, if known."""

    path: Path
    ranks: tuple[Rank, ...]
    world_size: int | None = None
    caveats: tuple[str, ...] = ()


def found(paths: Iterable[Path]) -> list[Place]:
    """Return what the paths stand for: recordings as they are, folders as what lies in them.

    Raises:
        UnreadableError: a folder holds no recording, or its run.json cannot be understood.
    """
    places: list[Place] = []
    seen: set[Path] = set()
    for path in paths:
        if not _is_folder(path) or is_recording(path):
            inside = [Place(path, (Recording(path),))]
        else:
            inside = list(_in_folder(path))
        if not any(place.recordings for place in inside):
            if any(place.declared for place in inside):
                raise UnreadableError(
                    f"The Run folder {path} holds no recording: no profiler ran, or each failed "
                    f"({MANIFEST} tells). Capture with one, as: tracelens capture … --with torch"
                )
            raise UnreadableError(
                f"The folder {path} holds no recording that tracelens can read. "
                "Name a file, such as one made by: nsys export --type sqlite FILE.nsys-rep"
            )
        for place in inside:
            new = tuple(r for r in place.recordings if r.path not in seen)
            seen.update(r.path for r in new)
            if new:
                places.append(replace(place, recordings=new))
    return places


def as_run(place: Place, known: Mapping[Path, Known]) -> tuple[Run | None, tuple[str, ...]]:
    """Return the run that recordings that lie together are, if they are one.

    They are where run.json says so, where their traces are those of distinct ranks of one job,
    and where a single trace and memory snapshots lie together.

    Args:
        place: the recordings.
        known: what is known of those that could be read; the others are no part of the run.

    Returns:
        the run, and lines on why there is none where one could be expected.
    """
    there = [r for r in place.recordings if r.path in known]
    ranks = _ranks(place, there, known)
    traces = [r.path for r in there if not known[r.path].is_snapshot]
    snapshots = [r.path for r in there if known[r.path].is_snapshot]
    if not traces or (len(place.recordings) < 2 and not place.declared):
        return None, ()
    is_lost = len(there) < len(place.recordings) and ranks[traces[0]] is not None
    if not place.declared and (len(traces) > 1 or not (snapshots or is_lost)):
        why_not = _why_no_run(place, traces, ranks, known)
        if why_not is not None:
            return None, (why_not,) if why_not else ()
    chosen, aside = _one_per_rank(traces, ranks, known)
    beside, unplaced = _beside(chosen, snapshots, ranks)
    run = Run(
        place.path,
        tuple(Rank(n, chosen[n], beside.get(n)) for n in sorted(chosen, key=_rank_order)),
        max((s for path in chosen.values() if (s := known[path].world_size)), default=None),
        (*place.caveats, *aside, *unplaced),
    )
    return run, ()


def rank_of(place: Place, path: Path, known: Known) -> int | None:
    """Return the rank of one recording: what it says, else run.json, else its name."""
    return _ranks(place, [r for r in place.recordings if r.path == path], {path: known})[path]


def only(place: Place, rank: int) -> Place:
    """Return the trace of one rank alone.

    Raises:
        UsageError: there is none, or there are several.
    """
    known = {recording.path: peek(recording.path) for recording in place.recordings}
    there = [r for r in place.recordings if not known[r.path].is_snapshot]
    ranks = _ranks(place, there, known)
    mine = [r.path for r in there if ranks[r.path] == rank]
    if not mine:
        listed = sorted({r for r in ranks.values() if r is not None})
        others = f"Ranks: {_listed(listed)}." if listed else "No recording says its rank."
        raise UsageError(f"{place.path} holds no recording of rank {rank}. {others}")
    if not place.declared and len({_family(known[path]) for path in mine}) < len(mine):
        names = " and ".join(path.name for path in mine)
        raise UsageError(f"{names} are all of rank {rank}: name one of them.")
    chosen, _ = _one_per_rank(mine, ranks, known)
    return Place(chosen[rank], (Recording(chosen[rank]),))


def peek(path: Path) -> Known:
    """Return the format and rank of a recording without reading it all, as far as they show.

    torch.profiler writes what it knows of ranks before the events, or behind them.
    """
    if path.is_dir():
        return Known("")
    try:
        with unpacking(path) as file:
            head = file.read(_HEAD_BYTES)
            readers = (n for n in registry.names("reader") if _recognises(n, path, head))
            reader = next(readers, "")
            if reader == "torch_snapshot":
                return Known(SNAPSHOTS[0])
            facts = _distributed(head, file) if reader == "kineto_json" else {}
            return Known(reader.replace("_", "-"), facts)
    except (OSError, EOFError, ValueError, UnreadableError):
        return Known("")  # who reads it will say what is wrong


def _recognises(reader: str, path: Path, head: bytes) -> bool:
    return bool(registry.load("reader", reader).recognises(path, head))


def _distributed(head: bytes, file: Any) -> dict[str, str]:
    """Return the rank and world size that a Kineto trace tells, read as far as needed."""
    seen = head
    while block := file.read(_BLOCK_BYTES):
        seen += block
        if place := _DISTRIBUTED.search(seen):
            seen = seen[place.start() :] + file.read(_SAID_BYTES)
            break
        seen = seen[-_SAID_BYTES:] if len(seen) > 2 * _BLOCK_BYTES else seen
    if place := _DISTRIBUTED.search(seen):
        said = _SAID.findall(seen[place.start() :][: 4 * _SAID_BYTES])
        return {key.decode(): value.decode() for key, value in reversed(said)}
    return {}


def _in_folder(folder: Path) -> Iterator[Place]:
    """Give the recordings up to two levels down, those that lie together in one place.

    Folders that are named after ranks hold what would otherwise lie in the folder around them.
    """
    by_folder: dict[Path, list[Recording]] = {}
    level = [folder]
    for _ in range(_LEVELS):
        deeper: list[Path] = []
        for parent in level:
            if _is_file(parent / MANIFEST) and (declared := _declared(parent)):
                yield declared
                continue
            for child in _children(parent):
                if child.name == MANIFEST:
                    continue
                if is_recording(child) and not _is_exported(child):
                    of_rank = parent != folder and _RANK.fullmatch(parent.name)
                    owner = parent.parent if of_rank else parent
                    by_folder.setdefault(owner, []).append(Recording(child))
                elif child.is_dir():
                    deeper.append(child)
        level = deeper
    for place, recordings in by_folder.items():
        yield Place(place, tuple(sorted(recordings, key=lambda r: r.path)))


def _is_exported(path: Path) -> bool:
    """Tell whether the export of a report of nsys lies beside it, as nsys itself leaves it."""
    export = path.with_suffix(".sqlite")
    if path.suffix not in _REPORTS:
        return False
    try:
        return export.stat().st_mtime >= path.stat().st_mtime
    except OSError:
        return False


def _declared(folder: Path) -> Place | None:
    """Return what run.json says that lies in the folder; None if it lists no recordings.

    A capture does not list what Nsight Compute measured, which is no recording of the program: it
    is found where there is nothing else.
    """
    file = folder / MANIFEST
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(
            f"{file} cannot be understood: {error}. Mend it, or remove it: the recordings beside "
            "it are then found by themselves."
        ) from error
    listed = said.get("recordings") if isinstance(said, dict) else None
    if not isinstance(listed, list):
        return None
    recordings, caveats = [], []
    if not listed:
        measured = (child for child in _children(folder) if child.suffix in _OF_NCU)
        recordings = [Recording(child) for child in measured if is_recording(child)]
    for entry in listed:
        if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
            continue
        path = folder / entry["path"]
        rank = entry.get("rank")
        if not path.resolve().is_relative_to(folder.resolve()):
            caveats.append(f"{MANIFEST} names {entry['path']}, which is not in its folder.")
        elif is_recording(path):
            known = rank if type(rank) is int and 0 <= rank < _LARGEST else None
            recordings.append(Recording(path, known))
        elif not path.exists():
            caveats.append(f"{MANIFEST} names {entry['path']}, which is not there.")
    return Place(folder, tuple(recordings), declared=True, caveats=tuple(caveats))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, say: opening it will tell
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder that may not be entered
        return False


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:_MOST]
    except OSError:
        return []


def _ranks(
    place: Place, recordings: Sequence[Recording], known: Mapping[Path, Known]
) -> dict[Path, int | None]:
    """Return each recording's rank: what it says itself, else run.json, else its name."""
    ranks: dict[Path, int | None] = {}
    for recording in recordings:
        own = known[recording.path]
        named = _in_name(recording.path, place.path) if own.world_size != 1 else None
        candidates = (own.rank, recording.rank, named)
        ranks[recording.path] = next((r for r in candidates if r is not None), None)
    unknown = [
        r.path
        for r in recordings
        if ranks[r.path] is None and known[r.path].world_size != 1 and not known[r.path].is_snapshot
    ]
    if len(unknown) == sum(not known[r.path].is_snapshot for r in recordings):
        ranks |= _counted(unknown)
    return ranks


def _in_name(path: Path, folder: Path) -> int | None:
    """Return the rank that the name of a file, or of its folder inside the run's, tells."""
    if found := _TORCHTITAN.match(path.name):
        return int(found[1])
    names = [path.name, *([path.parent.name] if path.parent not in (folder, path) else [])]
    said = (found for name in names if (found := _RANK.search(name)))
    return next((_number(found[1]) for found in said), None)


def _counted(paths: Sequence[Path]) -> dict[Path, int]:
    """Return the ranks of files that differ in a last number alone, which counts from 0."""
    numbered = {path: _NUMBERED.fullmatch(_stem(path)) for path in paths}
    found = {path: match for path, match in numbered.items() if match}
    numbers = {path: int(match[2]) for path, match in found.items()}
    alike = len({(path.parent, match[1]) for path, match in found.items()}) == 1
    if len(found) < len(paths) or not alike:
        return {}
    if len(paths) < 2 or sorted(numbers.values()) != list(range(len(paths))):
        return {}
    return numbers


def _stem(path: Path) -> str:
    name = path.name
    while name.endswith(_SUFFIXES):
        name = name.rpartition(".")[0]
    return name


def _family(known: Known) -> str:
    """Return which recorder made it: nsys, kineto, ..."""
    return known.format.partition("-")[0]


def _one_per_rank(
    traces: Sequence[Path], ranks: Mapping[Path, int | None], known: Mapping[Path, Known]
) -> tuple[dict[int | None, Path], list[str]]:
    """Return one trace of each rank: of several recorders' that of nsys, which disturbs least."""
    chosen: dict[int | None, Path] = {}
    aside = []
    for path in sorted(traces, key=lambda p: (_family(known[p]) != "nsys", p)):
        kept = chosen.setdefault(ranks[path], path)
        if kept != path:
            of = "" if ranks[path] is None else f" of rank {ranks[path]}"
            aside.append(f"{path.name} is set aside: {kept.name} is a recording{of}, too.")
    return chosen, aside


def _why_no_run(
    place: Place,
    traces: Sequence[Path],
    ranks: Mapping[Path, int | None],
    known: Mapping[Path, Known],
) -> str | None:
    """Return why traces are not those of the ranks of one job; None if they are.

    It is empty where none of them says that they are.
    """
    apart = f"so that {place.path} is not read as one run"
    silent = [path for path in traces if ranks[path] is None]
    if silent:
        telling = any(known[path].rank is not None for path in traces)
        return f"{silent[0].name} does not say its rank, {apart}." if telling else ""
    by_rank: dict[tuple[str, int | None], Path] = {}
    for path in traces:
        other = by_rank.setdefault((_family(known[path]), ranks[path]), path)
        if other != path:
            both = f"{other.name} and {path.name} are both of rank {ranks[path]}"
            return f"{both}, {apart}: move one of them, or name the files."
    sizes = sorted({size for path in traces if (size := known[path].world_size)})
    if len(sizes) > 1:
        return f"The recordings are of jobs of {sizes[0]} and of {sizes[-1]} ranks, {apart}."
    return None if len({ranks[path] for path in traces}) > 1 else ""


def _beside(
    chosen: Mapping[int | None, Path],
    snapshots: Sequence[Path],
    ranks: Mapping[Path, int | None],
) -> tuple[dict[int | None, Path], list[str]]:
    """Return the snapshot of each rank that has one, and lines on those that are not used."""
    beside: dict[int | None, Path] = {}
    said = []
    alone = next(iter(chosen)) if len(chosen) == 1 else None
    for path in sorted(snapshots, reverse=True):
        rank = ranks[path]
        if len(chosen) == 1 and (rank is None or alone is None):
            rank = alone
        elif rank is None:
            said.append(f"{path.name} is not used: nothing tells which rank's memory it is of.")
            continue
        if rank not in chosen:
            said.append(f"{path.name} is not used: rank {rank} has no trace.")
        elif rank in beside:
            said.append(f"{path.name} is set aside: {beside[rank].name} is the later snapshot.")
        else:
            beside[rank] = path
    return beside, said[::-1]


def _rank_order(rank: int | None) -> int:
    return -1 if rank is None else rank


def _listed(numbers: Sequence[int]) -> str:
    """Return numbers as text, those in a row as from-to."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]} to {p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) < _LARGEST else None

"""Reading what was named: many recordings side by side, and those of one run as one report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.cli import _progress
from tracelens.errors import NothingToShowError, TracelensError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tracelens.executors import Failed
    from tracelens.links.linked import Cut
    from tracelens.run import Place
    from tracelens.tables import Report
    from tracelens.tables.reduced import Reduced


def reports(
    paths: Sequence[Path],
    names: tuple[str, ...],
    cut: Cut,
    *,
    rank: int | None = None,
    scheduler: str | None = None,
    cache: bool = True,
) -> list[Report]:
    """Return a report on each run and on each recording that is no part of one.

    Args:
        paths: recordings, and folders of some.
        names: the tables wanted; none: those that suit.
        cut: what part to look at.
        rank: the only rank to look at.
        scheduler: the address of a dask scheduler whose workers are to read.
        cache: use the cache of recordings once read.

    Raises:
        TracelensError: nothing could be read, or not what was named.
    """
    from tracelens import run

    places = run.found(paths)
    if rank is not None:
        places = [run.only(place, rank) for place in places]
    recordings = [recording.path for place in places for recording in place.recordings]
    if len(recordings) == 1 and scheduler is None and not places[0].declared:
        return [_one(recordings[0], names, cut, cache=cache)]
    answers = _read(recordings, names, cut, scheduler=scheduler, cache=cache)
    if not any(_is_read(answer) for answer in answers.values()):
        raise _error(*next(iter(answers.items())))
    found = [report for place in places for report in _of_place(place, answers, names)]
    if not found:
        raise _only_memory(recordings[0])
    return found


def _one(path: Path, names: Sequence[str], cut: Cut, *, cache: bool) -> Report:
    """Return the report on one recording; without names, of the tables that suit it."""
    from tracelens import run
    from tracelens.links.linked import link
    from tracelens.readers.open import open_trace
    from tracelens.tables import build

    with _progress.shown(f"Reading {path.name}") as progress:
        trace = open_trace(path, cache=cache, progress=progress)
    if run.Known(trace.source.format).is_snapshot:
        raise _only_memory(path)
    linked = link(trace, cut)
    return build.report(linked, names or build.defaults(linked))


def _only_memory(path: Path) -> NothingToShowError:
    return NothingToShowError(
        f"{path.name} is a memory snapshot: it holds no GPU work. Type: tracelens memory {path}"
    )


def _read(
    paths: Sequence[Path], names: tuple[str, ...], cut: Cut, *, scheduler: str | None, cache: bool
) -> dict[Path, Reduced | Failed]:
    """Return what each recording was reduced to, or why it was not."""
    from tracelens import executors
    from tracelens.tables.reduced import Task, reduced

    tasks = [Task(path, path.absolute(), names, cut, cache) for path in paths]
    with _progress.shown("Reading") as progress:
        answers = executors.each(
            reduced,
            tasks,
            scheduler=scheduler,
            done=lambda done, total: progress(f"{total} recordings", done, total),
        )
    return dict(zip(paths, answers, strict=True))


def _of_place(
    place: Place, answers: Mapping[Path, Reduced | Failed], names: tuple[str, ...]
) -> Iterator[Report]:
    """Give the reports on recordings that lie together: one, if they are one run."""
    from dataclasses import replace

    from tracelens import run
    from tracelens.executors import Failed
    from tracelens.tables import of_run
    from tracelens.tables.reduced import Reduced

    mine = {recording.path: answers[recording.path] for recording in place.recordings}
    failed = {path: answer for path, answer in mine.items() if isinstance(answer, Failed)}
    parts = {path: answer for path, answer in mine.items() if isinstance(answer, Reduced)}
    if len(mine) == 1 and failed and not place.declared:
        raise _error(*next(iter(failed.items())))
    known = {path: part.known for path, part in parts.items()}
    lines = [_line(place, path, failure) for path, failure in failed.items()]
    whole, why_not = run.as_run(place, known)
    if whole is not None:
        yield of_run.report(whole, parts, names, lines)
        return
    for path, part in parts.items():
        if part.work is not None:
            report = of_run.only(part.work.report, names or part.work.suits)
            yield replace(report, warnings=(*report.warnings, *why_not, *lines))
            why_not, lines = (), []
        else:
            lines.append(f"{path.name} is a memory snapshot: tracelens memory {path} shows it.")


def _line(place: Place, path: Path, failure: Failed) -> str:
    from tracelens import run

    rank = run.rank_of(place, path, run.Known(""))
    who = path.name if rank is None else f"rank {rank} ({path.name})"
    return f"{who} could not be read: {failure.text}"


def _is_read(answer: Reduced | Failed) -> bool:
    from tracelens.executors import Failed

    return not isinstance(answer, Failed)


def _error(path: Path, answer: object) -> Exception:
    from tracelens.executors import Failed

    if isinstance(answer, Failed) and isinstance(answer.error, TracelensError):
        return answer.error
    text = answer.text if isinstance(answer, Failed) else ""
    return RuntimeError(f"{path.name} could not be read: {text}")

"""What a report is made of: from paths to runs, with their work, memory and circumstances."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from tracelens.cli import _progress, _reading
from tracelens.errors import NothingToShowError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.capture.folder import Manifest
    from tracelens.links.linked import Cut, Linked
    from tracelens.links.memory import Memory
    from tracelens.reports.subject import Run
    from tracelens.run import Known, Place
    from tracelens.tables import Report
    from tracelens.trace.model import Trace

_NO_MEMORY: Final = (
    "memory was not recorded: a snapshot of torch.cuda.memory holds it, torch.profiler with "
    "profile_memory=True, and nsys profile --cuda-memory-usage=true"
)
_KERNELS: Final = "kernels were measured by themselves: nothing else was recorded"
_NO_WORK: Final = "a memory snapshot alone: GPU work was not recorded"


class Gatherer:
    """Reads what was named; ``names`` are the tables of GPU work that are wanted."""

    def __init__(self, names: tuple[str, ...], cut: Cut, *, cache: bool) -> None:
        self._names = names
        self._cut = cut
        self._cache = cache
        self._places: list[Place] = []

    def runs(self, paths: Sequence[Path]) -> list[Run]:
        """Return the runs that lie at the paths, in order, under labels that tell them apart.

        Raises:
            TracelensError: one of the paths cannot be read, or there is nothing in any of them.
        """
        from tracelens import run
        from tracelens.bench import results

        kernels = [path for path in paths if results.are_results(path)]
        others = [path for path in paths if path not in kernels]
        found = [one for place in run.found(others) for one in self._of(place)]
        found += [_of_kernels(path) for path in kernels]
        if all(one.is_empty for one in found):
            reasons = dict.fromkeys(one.why_empty for one in found)
            paths_said = ", ".join(one.path for one in found)
            raise NothingToShowError(f"Nothing to report of {paths_said}: {'; '.join(reasons)}.")
        labels = _labels([one.path for one in found])
        return [replace(one, label=label) for one, label in zip(found, labels, strict=True)]

    def comparison(self, runs: Sequence[Run]) -> Report:
        """Return how the runs differ from the first of them.

        Raises:
            TracelensError: they cannot be compared.
        """
        from tracelens import executors
        from tracelens.executors import Failed
        from tracelens.tables import compare
        from tracelens.tables.compare.reading import Read, Task, read, side_of

        if any(run.bench for run in runs):
            return _beside(runs)
        files = list(dict.fromkeys(r.path for place in self._places for r in place.recordings))
        tasks = [Task(file, self._cut.phase_rules, self._cache) for file in files]
        answers = executors.each(read, tasks)
        for answer in answers:
            if isinstance(answer, Failed):
                raise answer.error or NothingToShowError(f"a recording was not read: {answer.text}")
        reads = {f: a for f, a in zip(files, answers, strict=True) if isinstance(a, Read)}
        sides = [
            side_of(place, {r.path: reads[r.path] for r in place.recordings}, run.label)
            for place, run in zip(self._places, runs, strict=True)
        ]
        return compare.report(sides)

    def _of(self, place: Place) -> Iterator[Run]:
        """Give the runs of one place; files are hashed while others are read."""
        from tracelens.reports import provenance

        recordings = [recording.path for recording in place.recordings]
        with ThreadPoolExecutor(1) as aside:
            hashes = {path: aside.submit(provenance.files, path) for path in recordings}
            if len(recordings) == 1 and not place.declared:
                found = [(self._single(recordings[0]), recordings)]
            else:
                found = list(self._together(place))
            for run, of in found:
                files = tuple(file for path in of for file in hashes[path].result())
                self._places.append(_part(place, of))
                yield replace(run, files=files, manifest=_manifest(place))

    def _single(self, path: Path) -> Run:
        """Return what one recording tells."""
        from tracelens.links.linked import link
        from tracelens.reports.subject import Run
        from tracelens.run import Known
        from tracelens.tables import build

        trace = self._opened(path)
        if Known(trace.source.format).is_snapshot:
            held = self._report(self._remembered(trace))
            return Run("", str(path), memory=held, why_not={"work": _NO_WORK})
        linked = link(trace, self._cut)
        _ahead(linked)
        names = tuple(dict.fromkeys((*self._names, *build.defaults(linked))))
        work = build.report(linked, names)
        memory, why_not = self._beside_work(trace)
        return Run("", str(path), work, memory, linked=linked, why_not=why_not)

    def _beside_work(self, trace: Trace) -> tuple[Report | None, dict[str, str]]:
        """Return the report on the memory of a trace that holds GPU work, or why there is none."""
        if "memory" not in trace:
            return None, {"memory": _NO_MEMORY}
        try:
            return self._report(self._remembered(trace)), {}
        except NothingToShowError as error:
            return None, {"memory": str(error)}

    def _together(self, place: Place) -> Iterator[tuple[Run, list[Path]]]:
        """Give the runs of recordings that lie together, and the recordings of each."""
        from tracelens import run

        known = {recording.path: run.peek(recording.path) for recording in place.recordings}
        snapshots = [path for path, what in known.items() if what.is_snapshot]
        whole, _ = run.as_run(place, known)
        if whole is not None:
            yield self._job(place, known, snapshots), list(known)
            return
        for path in known:
            yield self._single(path), [path]

    def _job(self, place: Place, known: dict[Path, Known], snapshots: list[Path]) -> Run:
        """Return what the recordings of one job tell together."""
        from tracelens import run
        from tracelens.links.linked import link
        from tracelens.reports.subject import Run

        work = self._whole(place)
        whole, _ = run.as_run(place, known)
        ranks = whole.ranks if whole else ()
        trace = self._opened(ranks[0].trace) if len(ranks) == 1 else None
        memories = [self._remembered(self._opened(path), trace) for path in snapshots]
        highest = max(memories, key=_peak, default=None)
        return Run(
            "",
            str(place.path),
            work,
            self._report(highest) if highest else None,
            others=max(0, len(memories) - 1),
            linked=link(trace, self._cut) if trace else None,
            why_not={} if memories else {"memory": _NO_MEMORY},
        )

    def _whole(self, place: Place) -> Report:
        """Return the report on a job; raises NothingToShowError."""
        found = _reading.reports([place.path], self._names, self._cut, cache=self._cache)
        mine = [report for report in found if str(report.source["path"]) == str(place.path)]
        return (mine or found)[0]

    def _opened(self, path: Path) -> Trace:
        from tracelens.readers.open import open_trace

        with _progress.shown(f"Reading {path.name}") as progress:
            return open_trace(path, cache=self._cache, progress=progress)

    def _remembered(self, trace: Trace, beside: Trace | None = None) -> Memory:
        from tracelens.links.memory import Ask, remember

        return remember(trace, Ask(phase_rules=self._cut.phase_rules), beside)

    @staticmethod
    def _report(memory: Memory) -> Report:
        from tracelens.reports.sections.memory import TABLES
        from tracelens.tables import build
        from tracelens.tables.memory_report import MEMORY

        return build.report_on(memory, TABLES, MEMORY)


def _of_kernels(path: Path) -> Run:
    """Return what a file of results of kernels tells."""
    from tracelens.bench import results, results_shown
    from tracelens.reports import provenance
    from tracelens.reports.subject import Run

    return Run(
        "",
        str(path),
        bench=results_shown.report(results.load(path), path),
        files=tuple(provenance.files(path)),
        why_not={"work": _KERNELS, "memory": _KERNELS},
    )


def _beside(runs: Sequence[Run]) -> Report:
    """Return how results of kernels differ from the first of them.

    Raises:
        UsageError: not all of them are results of kernels.
        NothingToShowError: they have no cell in common.
    """
    from tracelens.bench import compared, results

    if not all(run.bench for run in runs):
        raise UsageError("recordings are not compared with results of kernels")
    files = [results.load(Path(run.path)) for run in runs]
    sides = [compared.Side(run.label, (one,)) for run, one in zip(runs, files, strict=True)]
    return compared.report(sides)


def _ahead(linked: Linked) -> None:
    """Look for the sizes of launches beside the rest: rules need them, and it is a second reading.

    What cannot be told of them is said by the rules themselves.
    """
    from tracelens.analyses.launch_shapes import launch_shapes

    ahead = ThreadPoolExecutor(1)
    ahead.submit(launch_shapes, linked)
    ahead.shutdown(wait=False)


def _part(place: Place, paths: Sequence[Path]) -> Place:
    """Return a place with some of its recordings alone."""
    if len(paths) == len(place.recordings):
        return place
    kept = tuple(recording for recording in place.recordings if recording.path in paths)
    return replace(place, path=paths[0], recordings=kept, declared=False)


def _manifest(place: Place) -> Manifest | None:
    """Return what run.json says, if a capture wrote it."""
    from tracelens.capture import folder

    if not place.declared:
        return None
    try:
        return folder.load(place.path)
    except UsageError:
        return None  # somebody else's: its recordings are read all the same


def _peak(memory: Memory) -> int:
    from tracelens.analyses.memory.devices import devices

    return max(devices(memory)["peak_active_bytes"].to_list(), default=0)


def _labels(paths: Sequence[str]) -> list[str]:
    """Return names of runs: their file names, or as much of their paths as tells them apart."""
    parts = [PurePath(path).parts for path in paths]
    for count in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{path} ({number})" for number, path in enumerate(paths, start=1)]

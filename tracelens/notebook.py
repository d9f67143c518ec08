"""A recording in a notebook: every analysis one attribute away, as a frame or a table to look at.

For example::

    run = tracelens.open("run.sqlite")
    run  # what was captured, how far to trust it, GPU time by phase
    run.kernels()  # any analysis, as a polars frame
    run.table("kernels")  # the same with headings and units, as `tracelens summarize` shows it
    run.cut(step=3).phases()
    run.memory.live()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, overload

import polars as pl

from tracelens import registry
from tracelens import run as runs
from tracelens.errors import NothingToShowError, TracelensError, UsageError
from tracelens.links.linked import Cut, link
from tracelens.readers.open import open_trace
from tracelens.render import Options, _notebook
from tracelens.tables import Report, build

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Any

    from tracelens.analyses.compare.side import Side
    from tracelens.findings import Finding, Looked
    from tracelens.links.linked import Linked
    from tracelens.links.memory import Ask
    from tracelens.links.memory import Memory as Replayed
    from tracelens.render import Renderer
    from tracelens.tables import Filled
    from tracelens.tables.compare.reading import Read
    from tracelens.trace.model import Trace

TOP: Final = 20
"""Rows that a table shows unless told otherwise; its frame has all."""
_OF_ALL_RANKS: Final = ("ranks", "collectives", "memory_by_phase")
"""What has to be asked of all ranks together, since each waits for others."""
_ATTRIBUTIONS: Final = ("launch", "execution")


class NoSuchAnalysisError(UsageError, AttributeError):
    """There is no analysis of that name; an AttributeError too, as Python expects of attributes."""


def open(  # noqa: A001 (it is called as tracelens.open)
    path: str | os.PathLike[str],
    *,
    phase: str | Sequence[str] = (),
    phases: Mapping[str, str] | None = None,
    step: int | None = None,
    device: int | None = None,
    within: str | None = None,
    attribution: str = "launch",
    rank: int | None = None,
    cache: bool = True,
) -> Recording:
    """Open a recording, or the folder of a run, to ask it questions.

    Args:
        path: a file of any format that tracelens reads, or a folder: what lies together there is
            one run, with a memory snapshot beside its trace, and with as many ranks as there are.
        phase: only GPU work of this phase, or of these; `(none)` for work in none.
        phases: phase -> regular expression of the names of ranges that are this phase; comes
            before the built-in rules.
        step: only work launched in this step, from 0.
        device: only work of this CUDA device.
        within: only work launched inside this range, or with `#N` behind it its instance N.
        attribution: where a kernel counts: in the phase that launched it (`launch`), or in the one
            that it ran in (`execution`).
        rank: only the recording of this rank.
        cache: take the recording from the cache if it is there, and leave it there.

    Raises:
        UnreadableError: there is nothing at the path, or nothing that can be read.
        UsageError: the folder holds several runs, or what was asked for is not there.
    """
    where = _path(path)
    cut = _cut(
        Cut(phase_rules=_rules(phases)),
        phase=phase,
        step=step,
        device=device,
        within=within,
        attribution=attribution,
    )
    places = runs.found([where])
    if rank is not None:
        places = [runs.only(place, rank) for place in places]
    if len(places) > 1:
        raise UsageError(_which(where, [place.path for place in places]))
    (place,) = places
    if len(place.recordings) == 1 and not place.declared:
        return _opened(_single(place, cut, cache=cache))
    known = {one.path: runs.peek(one.path) for one in place.recordings}
    whole, why_not = runs.as_run(place, known)
    if whole is not None:
        return _of_run(whole, place, cut, cache=cache)
    if len(place.recordings) == 1:
        return _opened(_single(place, cut, cache=cache))
    raise UsageError(" ".join((_which(where, list(known)), *why_not)))


class _Answers:
    """What has the analyses of a room as attributes."""

    _room: ClassVar[str]

    @property
    def analyses(self) -> tuple[str, ...]:
        """The names of all analyses, each of which is a method without arguments."""
        return registry.names(self._room)

    def ask(self, analysis: str) -> pl.DataFrame:
        """Return the frame of an analysis, by its name."""
        raise NotImplementedError

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.analyses})

    def __getattr__(self, name: str) -> Callable[[], pl.DataFrame]:
        known = {} if name.startswith("_") else registry.entries(self._room)
        if name not in known:
            said = registry.unknown("analysis", name, known) if known else name
            raise NoSuchAnalysisError(said)

        def asked() -> pl.DataFrame:
            return self.ask(name)

        asked.__name__ = asked.__qualname__ = name
        asked.__doc__ = known[name].load().run.__doc__
        return asked


@dataclass(frozen=True, repr=False, eq=False)
class Recording(_Answers):
    """A recording, or those of the ranks of one run, ready for questions.

    Every analysis is a method without arguments that returns a polars frame; `analyses` names
    them, and so does completion. Frames of several ranks are put together, with the column
    `rank` first. An analysis raises NothingToShowError where the recording cannot answer it.
    """

    _room: ClassVar = "analysis"

    _file: _File
    _place: runs.Place
    part: Cut
    """What part of the recording is looked at."""
    _snapshot: _File | None = None
    _run: runs.Run | None = None
    _members: Mapping[int | None, Recording] | None = None

    @property
    def path(self) -> Path:
        """The recording's file, or the folder of several ranks."""
        return self._run.path if self._run else self._file.path

    @property
    def rank_numbers(self) -> tuple[int | None, ...]:
        """The ranks of the run; empty for a single recording."""
        return tuple(self._members or ())

    @property
    def captured(self) -> tuple[str, ...]:
        """What `tracelens capture` says of its run: time of a step, its bound, overhead, memory."""
        from tracelens.capture import folder, summary

        if not self._place.declared:
            return ()
        try:
            said = summary.lines(folder.load(self._place.path))
            return tuple(" ".join(line.split()) for line in said)
        except UsageError:  # a run.json of one's own
            return ()

    @property
    def trace(self) -> Trace:
        """The tables as they were recorded; see docs/schema.md."""
        self._alone("trace")
        return self._file.trace

    @cached_property
    def linked(self) -> Linked:
        """The recording with its GPU work attributed, which is what analyses are asked about."""
        trace = self.trace
        if runs.Known(trace.source.format).is_snapshot:
            raise NothingToShowError(
                f"{self.path.name} is a memory snapshot: it holds no GPU work. Ask its .memory."
            )
        return link(trace, self.part)

    @cached_property
    def memory(self) -> Memory:
        """Its memory: that of the snapshot beside it, or of the recording itself."""
        from tracelens.links.memory import Ask

        self._alone("memory")
        ask = Ask(device=self.part.device, phase_rules=self.part.phase_rules)
        return Memory(self._file, ask, self._snapshot)

    def rank(self, number: int) -> Recording:
        """Return the recording of one rank of the run; raises UsageError if there is none."""
        members = self._members or {}
        if number not in members:
            listed = ", ".join(map(str, members)) or "none, it is a single recording"
            raise UsageError(f"{self.path.name} has no rank {number!r}. Ranks: {listed}.")
        return members[number]

    def cut(
        self,
        *,
        phase: str | Sequence[str] | None = None,
        step: int | None = None,
        device: int | None = None,
        within: str | None = None,
        attribution: str | None = None,
    ) -> Recording:
        """Return a part of the recording; what is not given stays as it is. See `open`."""
        part = _cut(
            self.part,
            phase=phase,
            step=step,
            device=device,
            within=within,
            attribution=attribution,
        )
        members = self._members
        if members is not None:
            members = {n: replace(one, part=part) for n, one in members.items()}
        return replace(self, part=part, _members=members)

    def ask(self, analysis: str) -> pl.DataFrame:
        """Return the frame of an analysis, by its name.

        Raises:
            UsageError: there is no such analysis.
            NothingToShowError: the recording cannot answer it.
        """
        name = _plain(analysis)
        answer = registry.load(self._room, name)
        if self._members is None:
            return _framed(answer(self.linked))
        if name in _OF_ALL_RANKS:
            return self.table(name).frame
        return self._of_ranks(answer)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables, in the order in which a report shows them."""
        return build.all_tables()

    def table(self, name: str, *, top: int | None = TOP) -> TableView:
        """Return a table as `tracelens summarize --table NAME` shows it.

        Args:
            name: the table's name, or that of the report of nsys that it stands for.
            top: rows to show; None: all. `frame` always has all.

        Raises:
            UsageError: there is no such table.
            NothingToShowError: the recording cannot answer it.
        """
        own = build.resolve(_plain(name))
        if self._members is None:
            return TableView(build.fill(self.linked, own), top)
        report = self._reported((own,))
        if not report.tables:
            raise NothingToShowError(report.left_out.get(own, f"No rank has a table {own}."))
        return TableView(report.tables[0], top)

    def report(self, *tables: str, top: int | None = TOP) -> ReportView:
        """Return a report of the named tables, or of those that suit the recording."""
        names = tuple(dict.fromkeys(build.resolve(_plain(name)) for name in tables))
        return ReportView(self._reported(names), top)

    def findings(self) -> Findings:
        """Return what stands out, the costliest first, and what could not be looked at."""
        from tracelens import findings

        return Findings(self.path.name, findings.look(self.linked))

    def compare(self, *others: Recording, by: str | Sequence[str] = ("kernel",)) -> ReportView:
        """Return the report of `tracelens compare`: this is the baseline, and each other one B.

        Args:
            others: recordings, whole.
            by: what to take them apart by: phase, family, kernel, range, op or step.

        Raises:
            UsageError: there is no other, one of them is cut, or there is no such `by`.
        """
        from tracelens.tables import compare

        sides = _sides((self, *others))
        names = (by,) if isinstance(by, str) else tuple(by)
        return ReportView(replace(compare.report(sides, names), hints=()), TOP)

    def to_parquet(self, folder: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write the tables, with launches and phases, as a folder of Parquet files.

        Raises:
            UsageError: it is there already (``force`` replaces an earlier export), or cannot be
                written.
        """
        from tracelens import exports

        self._alone("to_parquet()")
        exporter: exports.Exporter = registry.load("exporter", "parquet")
        output = _path(folder)
        exports.check_free(exporter, output, self.path, force=force)
        linked = link(open_trace(self.path, everything=True), self.part)
        with exports.whole(exporter, output) as draft:
            exporter.write(linked, draft)
        return output

    def __repr__(self) -> str:
        return repr(self._overview)

    def _repr_html_(self) -> str:
        return self._overview._repr_html_()

    @cached_property
    def _overview(self) -> ReportView:
        if self._holds_memory_alone:
            return self.memory.report()
        names = () if self._members else _first(build.defaults(self.linked))
        report = self._reported(names)
        trust = (*report.trust, *self.captured)
        return ReportView(replace(report, trust=trust, findings=(), hints=self._hints()), TOP)

    def _hints(self) -> tuple[str, ...]:
        """Return what to type next."""
        hints = [".kernels()", '.table("kernels")', ".findings()", ".cut(step=0)"]
        if self._members:
            hints = [".kernels()", '.table("collectives")', f".rank({self.rank_numbers[0]})"]
        if self._snapshot is not None:
            hints.append(f".memory ({self._snapshot.path.name})")
        return (*hints, ".analyses")

    @property
    def _holds_memory_alone(self) -> bool:
        return self._members is None and runs.Known(self.trace.source.format).is_snapshot

    def _reported(self, names: tuple[str, ...]) -> Report:
        if self._members is None:
            return build.report(self.linked, names or build.defaults(self.linked))
        from tracelens.executors import Failed, guarded
        from tracelens.tables import of_run
        from tracelens.tables.reduced import Task, reduced

        assert self._run is not None  # noqa: S101 (members are those of a run)
        ranks = self._run.ranks
        files = [rank.trace for rank in ranks]
        files += [rank.snapshot for rank in ranks if rank.snapshot is not None]
        parts, failed = {}, []
        for path in files:
            task = Task(path, path.absolute(), names, self.part, self._file.cache)
            answer = guarded(reduced, task)
            if isinstance(answer, Failed):
                failed.append(f"{path.name} could not be read: {answer.text}")
            else:
                parts[path] = answer
        read = tuple(
            replace(rank, snapshot=rank.snapshot if rank.snapshot in parts else None)
            for rank in ranks
            if rank.trace in parts
        )
        if not read:
            raise NothingToShowError("; ".join(failed))
        return of_run.report(replace(self._run, ranks=read), parts, names, failed)

    def _of_ranks(self, answer: Callable[[Linked], Any]) -> pl.DataFrame:
        """Return the frames of all ranks that can answer, in one."""
        frames, why = [], ""
        for number, member in (self._members or {}).items():
            try:
                frame = _framed(answer(member.linked))
            except NothingToShowError as error:
                why = str(error)
                continue
            rank = pl.lit(number, pl.Int32).alias("rank")
            frames.append(frame.select(rank, pl.exclude("rank")))
        if not frames:
            raise NothingToShowError(why)
        return pl.concat(frames, how="vertical_relaxed")

    def _alone(self, what: str) -> None:
        if self._members is not None:
            raise UsageError(
                f"{self.path.name} has {len(self._members)} ranks: .{what} is of one of them, "
                f"such as .rank({self.rank_numbers[0]})."
            )


class Memory(_Answers):
    """The memory of a recording, ready for questions: its analyses are methods, as those of it."""

    _room: ClassVar = "memory_analysis"

    def __init__(self, file: _File, ask: Ask, snapshot: _File | None = None) -> None:
        self._file = file
        self._asked = ask
        self._snapshot = snapshot

    @cached_property
    def replayed(self) -> Replayed:
        """The allocator's events, replayed and attributed."""
        from tracelens.links.memory import remember

        if self._snapshot is None:
            return remember(self._file.trace, self._asked)
        return remember(self._snapshot.trace, self._asked, self._file.trace)

    def at(
        self,
        moment: str | int | None = None,
        *,
        group: str | None = None,
        device: int | None = None,
        categories: Mapping[str, str] | None = None,
    ) -> Memory:
        """Return the same memory at another moment, or put together in another way.

        Args:
            moment: `peak`, `oom`, `end`, the number of a step (its peak), or `event N`.
            group: `stack`, `phase` or `file`.
            device: only memory of this CUDA device.
            categories: category -> regular expression of lines of call stacks.
        """
        given = {
            "at": None if moment is None else str(moment),
            "group": group,
            "device": device,
            "categories": _rules(categories) if categories is not None else None,
        }
        changed: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        return Memory(self._file, replace(self._asked, **changed), self._snapshot)

    def ask(self, analysis: str) -> pl.DataFrame:
        """Return the frame of an analysis of memory, by its name."""
        return _framed(registry.load(self._room, _plain(analysis))(self.replayed))

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables of memory."""
        from tracelens.tables.memory_report import MEMORY

        return build.all_tables(MEMORY)

    def table(self, name: str, *, top: int | None = TOP) -> TableView:
        """Return a table as `tracelens memory --table NAME` shows it."""
        from tracelens.tables.memory_report import MEMORY

        own = build.resolve(_plain(name), MEMORY.tables)
        return TableView(build.fill_on(self.replayed, own, MEMORY), top)

    def report(self, *tables: str, top: int | None = TOP) -> ReportView:
        """Return a report of the named tables, or of those that suit the recording."""
        from tracelens.tables.memory_report import MEMORY, defaults

        names = [build.resolve(_plain(name), MEMORY.tables) for name in tables]
        report = build.report_on(self.replayed, names or defaults(self.replayed), MEMORY)
        return ReportView(replace(report, hints=(".live()", '.table("largest")')), top)

    def __repr__(self) -> str:
        return repr(self.report(top=5))

    def _repr_html_(self) -> str:
        return self.report(top=5)._repr_html_()


@dataclass(frozen=True, repr=False, eq=False)
class TableView:
    """A table that notebooks show with headings and units; `frame` has its numbers."""

    filled: Filled
    top: int | None = TOP

    @property
    def name(self) -> str:
        """Its name, as for `summarize --table`."""
        return self.filled.name

    @property
    def frame(self) -> pl.DataFrame:
        """All of its rows, in base units: ns, bytes, shares of 1."""
        return self.filled.frame

    def to(self, format: str) -> str:  # noqa: A002 (as the option --format)
        """Return it in a format of `summarize`: text, markdown, latex, csv, json or html."""
        return _rendered(_only(self.filled), format, self.top)

    def __repr__(self) -> str:
        return self.to("text").rstrip("\n")

    def _repr_html_(self) -> str:
        return _notebook.of_table(self.filled, self.top)


@dataclass(frozen=True, repr=False, eq=False)
class ReportView:
    """A report that notebooks show: headline, trust, tables and what stands out."""

    report: Report
    top: int | None = TOP

    def to(self, format: str) -> str:  # noqa: A002 (as the option --format)
        """Return it in a format of `summarize`: text, markdown, latex, csv, json or html."""
        return _rendered(self.report, format, self.top)

    def __repr__(self) -> str:
        return self.to("text").rstrip("\n")

    def _repr_html_(self) -> str:
        return _notebook.of_report(self.report, self.top)


class Findings(Sequence["Finding"]):
    """What stands out of a recording, the costliest first.

    ``could_not`` tells of each rule that could not look why (rule -> reason).
    """

    could_not: Mapping[str, str]

    def __init__(self, name: str, looked: Looked) -> None:
        self._title = f"What stands out of {name}"
        self._found = looked.findings
        self.could_not = looked.could_not

    @overload
    def __getitem__(self, place: int) -> Finding: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Finding, ...]: ...
    def __getitem__(self, place: int | slice) -> Finding | tuple[Finding, ...]:
        return self._found[place]

    def __len__(self) -> int:
        return len(self._found)

    def _lines(self) -> list[str]:
        found = [f"{one.says} {one.change}".strip() for one in self._found] or ["Nothing."]
        return [*found, *(f"Could not look ({rule}): {w}" for rule, w in self.could_not.items())]

    def __repr__(self) -> str:
        return "\n".join((self._title, *(f"• {line}" for line in self._lines())))

    def _repr_html_(self) -> str:
        return _notebook.of_points(self._title, self._lines())


class _File:
    """A recording that is read when it is first needed, and then kept."""

    def __init__(self, path: Path, cache: bool) -> None:
        self.path = path
        self.cache = cache

    @cached_property
    def trace(self) -> Trace:
        return open_trace(self.path, cache=self.cache)


def _opened(recording: Recording) -> Recording:
    """Return a recording that is known to be readable, and to hold what was asked for."""
    if not runs.Known(recording.trace.source.format).is_snapshot:
        _ = recording.linked
    return recording


def _sides(recordings: Sequence[Recording]) -> list[Side]:
    """Return recordings as sides of a comparison."""
    from tracelens.tables.compare.reading import Task, read, sides

    if len(recordings) < 2:
        raise UsageError("There is one run; name what to compare it with: run.compare(other).")
    places: list[tuple[str, runs.Place]] = []
    reads: dict[Path, Read] = {}
    for recording in recordings:
        rules = recording.part.phase_rules
        if recording.part != Cut(phase_rules=rules):
            raise UsageError(f"{recording.path.name} is cut; compare whole recordings.")
        place, cache = recording._place, recording._file.cache  # noqa: SLF001 (of this file)
        places.append(("", place))
        reads |= {one.path: read(Task(one.path, rules, cache)) for one in place.recordings}
    return sides(places, reads)


def _single(place: runs.Place, cut: Cut, *, cache: bool) -> Recording:
    return Recording(_File(place.recordings[0].path, cache), place, cut)


def _of_run(run: runs.Run, place: runs.Place, cut: Cut, *, cache: bool) -> Recording:
    members = {
        rank.number: Recording(
            _File(rank.trace, cache),
            runs.Place(rank.trace, (runs.Recording(rank.trace),)),
            cut,
            None if rank.snapshot is None else _File(rank.snapshot, cache),
        )
        for rank in run.ranks
    }
    first = replace(next(iter(members.values())), _place=place)
    if len(members) == 1:
        return _opened(first)
    return replace(first, _snapshot=None, _run=run, _members=members)


def _first(tables: Sequence[str]) -> tuple[str, ...]:
    """Return the tables of a summary that fit into a first look."""
    return tuple(name for name in tables if name != "kernels")


def _which(path: Path, found: Sequence[Path]) -> str:
    names = ", ".join(one.name for one in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f"{path} holds {len(found)} recordings that are no one run: open one of {names}{more}."


def _path(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise UsageError(f"{path!r} is no path of a recording.") from None


def _cut(cut: Cut, *, phase: object, attribution: object, **given: object) -> Cut:
    """Return the cut with what was given; None is not."""
    changed: dict[str, Any] = {}
    if phase is not None:
        several = (phase,) if isinstance(phase, str) else phase
        if not isinstance(several, Sequence) or not all(isinstance(p, str) for p in several):
            raise UsageError(f"phase={phase!r}: the name of a phase, or a list of names.")
        changed["phases"] = tuple(several)
    if attribution is not None:
        if attribution not in _ATTRIBUTIONS:
            raise UsageError(f"attribution={attribution!r}: launch or execution.")
        changed["attribution"] = attribution
    for name, value in given.items():
        kind = str if name == "within" else int
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise UsageError(f"{name}={value!r} is no {kind.__name__}.")
        if value is not None:
            changed[name] = value
    return replace(cut, **changed)


def _rules(rules: object) -> dict[str, str]:
    if rules is None:
        return {}
    if not isinstance(rules, Mapping) or not all(
        isinstance(text, str) for pair in rules.items() for text in pair
    ):
        raise UsageError(f"{rules!r}: a mapping from names to regular expressions.")
    return dict(rules)


def _plain(name: object) -> str:
    if not isinstance(name, str):
        raise UsageError(f"{name!r} is no name; names are texts.")
    return name.replace("-", "_")


def _framed(answer: object) -> pl.DataFrame:
    if not isinstance(answer, pl.DataFrame):
        raise TracelensError("That analysis gives no frame.")
    return answer


def _rendered(report: Report, format: str, top: int | None) -> str:  # noqa: A002 (as --format)
    renderer: Renderer = registry.load("renderer", format)
    return renderer.render([report], Options(top=top, width=100))


def _only(filled: Filled) -> Report:
    """Return a report of one table and nothing else."""
    return Report("", (), {}, (), "", {}, (filled,))

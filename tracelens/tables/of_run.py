"""The report on a run of several ranks, from what each rank's recordings were reduced to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import registry, units
from tracelens.analyses import memory_by_phase
from tracelens.analyses.collectives import by_group
from tracelens.findings import Looked, Ranks, joined, look, rules
from tracelens.findings.skewed_ranks import slow
from tracelens.links.collectives import matched
from tracelens.tables import Column, Report, build, findings
from tracelens.tables.reduced import OF_RANKS
from tracelens.tables.standout import MOST, sentences
from tracelens.tables.trust import named_gpus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tracelens.run import Run
    from tracelens.tables import Filled, Table
    from tracelens.tables.reduced import Held, Reduced, Work

_RANK: Final = Column("rank", "rank", "count")
_JOINED: Final = "memory_by_phase"
_MOST_LINES: Final = 4


@dataclass(frozen=True)
class _Member:
    """One rank, and what was recorded of it."""

    number: int | None
    path: Path
    work: Work
    held: Held | None
    snapshot: Path | None


def report(
    run: Run, parts: Mapping[Path, Reduced], names: Sequence[str], failed: Sequence[str] = ()
) -> Report:
    """Return the report on a run.

    Args:
        run: what lies together.
        parts: what each of its recordings was reduced to.
        names: the tables that were asked for; none: those that suit the run.
        failed: lines on the ranks that could not be read.
    """
    members = list(_members(run, parts))
    said = (*run.caveats, *failed)
    if len(members) == 1 and not failed:
        return _alone(members[0], names, said)
    return _Ranks(run, members).report(names or OF_RANKS, said)


def only(report: Report, names: Sequence[str]) -> Report:
    """Return a report of some of its tables, in the order of the names."""
    there = {filled.name: filled for filled in report.tables}
    return replace(
        report,
        tables=tuple(there[name] for name in names if name in there),
        left_out={name: report.left_out[name] for name in names if name in report.left_out},
    )


def _members(run: Run, parts: Mapping[Path, Reduced]) -> Iterator[_Member]:
    for rank in run.ranks:
        work = parts[rank.trace].work
        held = parts[rank.snapshot].held if rank.snapshot else None
        if work is not None:
            yield _Member(rank.number, rank.trace, work, held, rank.snapshot)


def _alone(member: _Member, names: Sequence[str], said: Iterable[str]) -> Report:
    """Return the report on one trace, with what a snapshot beside it tells."""
    shown = only(member.work.report, names or member.work.suits)
    tables = {filled.name: filled for filled in shown.tables}
    left_out = dict(shown.left_out)
    if member.held and (not names or _JOINED in names):
        tables[_JOINED] = _filled(_JOINED, _joined(member))
        left_out.pop(_JOINED, None)
    if member.held and "ranks" in tables:
        tables["ranks"] = _filled("ranks", _with_peak(member))
    looked = joined([shown.found, *([member.held.found] if member.held else [])])
    if findings.NAME in tables:
        tables[findings.NAME] = _of_findings(looked)
    order = (*names, *tables) if names else tables
    return replace(
        shown,
        tables=tuple(tables[name] for name in dict.fromkeys(order) if name in tables),
        left_out=left_out,
        warnings=(*shown.warnings, *said),
        findings=sentences(looked, None if findings.NAME in names else MOST),
        found=looked,
    )


class _Ranks:
    """Several ranks side by side."""

    def __init__(self, run: Run, members: Sequence[_Member]) -> None:
        self._run = run
        self._members = members
        labelled = [_of(member.work.collectives, member) for member in members]
        self._collectives = matched(pl.concat(labelled))
        self._ranks = _with_waiting(pl.concat(map(_with_peak, members)), self._collectives)
        self._side_by_side = Ranks(self._ranks, self._collectives)
        self._together = look(self._side_by_side, "ranks")
        self._looked = self._found()

    def report(self, names: Sequence[str], said: Iterable[str]) -> Report:
        """Return the report with the named tables."""
        tables, left_out = [], {}
        for name in names:
            table, why = self._table(name)
            if table is not None:
                tables.append(table)
            if why:
                left_out[name] = why
        reports = {m.number: m.work.report for m in self._members}
        coverage: Counter[str] = Counter()
        for one in reports.values():
            coverage.update(one.coverage)
        sources = {one.phase_source for one in reports.values()}
        return Report(
            headline=self._headline(),
            trust=tuple(self._trust()),
            source=self._source(),
            devices=tuple(
                {"rank": n, **device} for n, one in reports.items() for device in one.devices
            ),
            phase_source=sources.pop() if len(sources) == 1 else "mixed",
            coverage=dict(coverage),
            tables=tuple(tables),
            findings=sentences(self._looked, None if findings.NAME in names else MOST),
            found=self._looked,
            hints=self._hints(names),
            left_out=left_out,
            warnings=(*said, *_by_text({n: r.warnings for n, r in reports.items()})),
        )

    def _table(self, name: str) -> tuple[Filled | None, str]:
        """Return a table of all ranks, if any has it, and why some have not."""
        if name == "ranks":
            return _filled(name, self._ranks), ""
        if name == "collectives" and self._collectives.height:
            return _of_one_group(_filled(name, by_group(self._collectives))), ""
        if name == _JOINED and any(m.held for m in self._members):
            joined = [_joined(member) for member in self._members if member.held]
            without = [m.number for m in self._members if not m.held]
            return _filled(name, pl.concat(joined)), _ranks_say(without, "has no snapshot")
        tables: dict[int | None, Filled] = {}
        reasons: dict[int | None, list[str]] = {}
        if name == findings.NAME:
            tables[None] = _of_findings(self._looked, self._together)
        for member in self._members:
            told = member.work.report
            reasons[member.number] = [told.left_out[name]] if name in told.left_out else []
            if filled := next((t for t in told.tables if t.name == name), None):
                tables[member.number] = filled
        why = "; ".join(_by_text(reasons))
        if not tables or name == "collectives":  # which is of all ranks, or of none
            return None, why
        numbers = pl.Series(list(tables), dtype=pl.Int32)
        return build.side_by_side(_RANK, numbers, list(tables.values()), "all ranks"), why

    def _headline(self) -> str:
        parts = [self._run.path.absolute().name, self._counted()]
        producers = {str(m.work.report.source["producer"]) for m in self._members}
        parts += [" and ".join(sorted(producers))]
        counts: Counter[str] = Counter()
        for member in self._members:
            counts.update(member.work.gpus)
        parts += named_gpus(counts)
        kernels = int(self._ranks["kernels"].sum())
        parts.append(f"{units.count(kernels)} kernel{'s' * (kernels != 1)}")
        if (self._ranks["span_ns"] > 0).any():
            parts.append(f"GPU busy {_from_to(self._ranks['busy_share'])}")
        if late := slow(self._side_by_side):
            parts.append(f"rank {late['rank']} is the slow one")
        return " · ".join(parts)

    def _counted(self) -> str:
        size = self._run.world_size
        count = len(self._members)
        of = f" of {size}" if size and size > count else ""
        return f"{count}{of} rank{'s' * ((size or count) != 1)}"

    def _trust(self) -> Iterator[str]:
        lines = _by_text({m.number: m.work.report.trust for m in self._members})
        yield from lines[:_MOST_LINES]
        if len(lines) > _MOST_LINES:
            yield f"{len(lines) - _MOST_LINES} more lines: --rank N shows those of a rank"
        lone = self._collectives["transfer_ns"].null_count()
        if lone and len(self._members) > 1:
            total = units.count(self._collectives.height)
            yield (
                f"{units.count(lone)} of {total} collectives have no counterpart on every rank "
                "of their group: their waiting is not known"
            )
        size = self._run.world_size
        if size and size > len(self._members):
            unknown = "waiting for the others counts as transfer"
            yield (
                f"{len(self._members)} of {size} ranks were read: "
                f"{unknown if len(self._members) > 1 else 'waiting is not known'}"
            )

    def _found(self) -> Looked:
        """Return what holds of the ranks together, and of the one whose GPU idles most."""
        idlest = min(self._members, key=lambda m: (_share(m.work.ranks), m.number or 0))
        return joined([_of_rank(idlest), self._together])

    def _hints(self, names: Sequence[str]) -> tuple[str, ...]:
        hints = {
            f"--rank {self._members[0].number}": True,
            "--table steps": any(m.work.ranks["steps"].sum() for m in self._members),
            f"--table {_JOINED}": any(m.held for m in self._members),
            "--table kernels": True,
            "--table all": True,
            "--format markdown": True,
        }
        return tuple(hint for hint, fits in hints.items() if fits and hint.split()[-1] not in names)

    def _source(self) -> dict[str, object]:
        producers = {m.work.report.source["producer"] for m in self._members}
        return {
            "path": str(self._run.path),
            "format": "run",
            "producer": producers.pop() if len(producers) == 1 else None,
            "schema_version": None,
            "world_size": self._run.world_size,
            "ranks": [_told(member) for member in self._members],
        }


def _of_rank(member: _Member) -> Looked:
    """Return what was found in the recordings of one rank, which each sentence names."""
    looked = joined([member.work.report.found, *([member.held.found] if member.held else [])])
    others = rules("ranks")
    mine = (found for found in looked.findings if found.rule not in others)
    named = (replace(found, says=f"Rank {member.number}: {found.says}") for found in mine)
    return Looked(
        tuple(named),
        {
            rule: f"rank {member.number}: {why}"
            for rule, why in looked.could_not.items()
            if rule not in others
        },
    )


def _told(member: _Member) -> dict[str, object]:
    told = member.work.report
    return {
        "rank": member.number,
        **told.source,
        "snapshot": str(member.snapshot) if member.snapshot else None,
        "phase_source": told.phase_source,
        "coverage": told.coverage,
    }


def _of(frame: pl.DataFrame, member: _Member) -> pl.DataFrame:
    """Return a frame with the rank that the run knows."""
    return frame.with_columns(rank=pl.lit(member.number, pl.Int32))


def _filled(name: str, frame: pl.DataFrame) -> Filled:
    table: Table = registry.load("table", name)
    return build.filled(name, table, frame)


def _of_findings(looked: Looked, shown: Looked | None = None) -> Filled:
    """Return the table of what was found, or of the part that is to be shown."""
    table = findings.with_reasons(findings.TABLE, looked)
    return build.filled(findings.NAME, table, findings.frame(shown or looked))


def _of_one_group(filled: Filled) -> Filled:
    """Return the table of collectives without the group's columns, where there is one alone."""
    if filled.frame.select("group", "group_ranks").n_unique() > 1:
        return filled
    same = ("group", "group_size")
    columns = (replace(c, shown=c.shown and c.name not in same) for c in filled.table.columns)
    return replace(filled, table=replace(filled.table, columns=tuple(columns)))


def _joined(member: _Member) -> pl.DataFrame:
    held = memory_by_phase.HELD if member.held is None else member.held.by_phase
    frame = held if isinstance(held, pl.DataFrame) else pl.DataFrame(schema=held)
    work = member.work
    return memory_by_phase.joined(work.by_phase, frame, member.number, whole=work.whole)


def _with_peak(member: _Member) -> pl.DataFrame:
    """Return the rank's row with the snapshot's peak, where the trace knows none."""
    row = _of(member.work.ranks, member)
    if member.held is None or row.height > 1:
        return row
    unknown = pl.col("peak_memory_bytes").is_null()
    return row.with_columns(
        peak_memory_bytes=pl.coalesce("peak_memory_bytes", pl.lit(member.held.peak_bytes)),
        memory_source=pl.when(unknown).then(pl.lit("snapshot")).otherwise("memory_source"),
    )


def _with_waiting(ranks: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of ranks with how long each waited, and how often it came last."""
    key = ["rank", "process"]
    waits = (
        found.filter(pl.col("transfer_ns").is_not_null())
        .group_by(key)
        .agg(
            waiting_ns=pl.col("waiting_ns").sum(),
            arrives_last=pl.col("is_last").sum().cast(pl.Int64),
        )
    )
    bare = ranks.drop("waiting_ns", "arrives_last")
    return bare.join(waits, on=key, how="left", nulls_equal=True).select(ranks.columns).sort(key)


def _by_text(said: Mapping[int | None, Sequence[str]]) -> list[str]:
    """Return texts with the ranks that they are of, each text once."""
    ranks: dict[str, list[int | None]] = {}
    for rank, texts in said.items():
        for text in texts:
            ranks.setdefault(text, []).append(rank)
    if len(said) > 1 and all(len(of) == len(said) for of in ranks.values()):
        return list(ranks)
    return [f"rank{'s' * (len(of) > 1)} {_listed(of)}: {text}" for text, of in ranks.items()]


def _ranks_say(ranks: Sequence[int | None], what: str) -> str:
    return f"rank {_listed(ranks)} {what}" if ranks else ""


def _listed(ranks: Sequence[int | None]) -> str:
    return ", ".join(map(str, ranks))


def _from_to(shares: pl.Series) -> str:
    """Return shares as text: from the least to the most, or the one that all are."""
    least, most = (units.share(float(x)) for x in (shares.min(), shares.max()))  # type: ignore[arg-type]
    return least if least == most else f"{least.removesuffix(' %')} to {most}"


def _share(ranks: pl.DataFrame) -> float:
    return float(ranks["busy_share"].sum())

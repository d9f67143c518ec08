"""From a trace made ready to a report: the tables that were asked for, and how far to trust them.

A `Topic` says which rooms hold the tables and analyses, and what is said around them: GPU work
here, memory in `tables.memory_report`.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import polars as pl

from tracelens import registry
from tracelens.analyses.gaps import gaps
from tracelens.errors import NothingToShowError, UsageError
from tracelens.links.ops import ops_of
from tracelens.tables import Column, Filled, Report, Table
from tracelens.tables import findings as found
from tracelens.tables.standout import MOST, looked_at, sentences
from tracelens.tables.trust import headline, is_one_at_a_time, trust

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracelens.findings import Looked
    from tracelens.links.linked import Linked
    from tracelens.tables import Course
    from tracelens.trace.model import Trace

DEFAULT: Final = ("overview", "kernels")
"""What a summary shows when no table was named."""
MEASURED_APART: Final = ("families", "kernel_counters")
"""The same of kernels that were measured one at a time, whose times add up to no run."""

MOST_TELLING: Final = (*DEFAULT, *MEASURED_APART, "cpu_phases")
"""A summary without a row in any of these has nothing to show."""

_EXECUTION_NOTE: Final = (
    "A kernel belongs to the phase that launched it, not to the one it ran in",
    (
        "By execution: a kernel counts in the phase that the CPU was in when it ran, which is "
        "wrong wherever the GPU runs behind"
    ),
)

_MANY_OPS: Final = 5_000_000
"""From so many on memory counts for more than time: one question after the other."""

ORDER: Final = (
    "totals", "overview", "ranks", "collectives", "phases", "families", "kernels", "graphs",
    "ranges", "ops", "ops_by_shape", "modules", "module_classes", "steps", "memory_by_phase",
    "memory_by_op", "copies", "memsets", "gaps", "longest_gaps", "launch_delay", "api", "streams",
    "devices", "synchronisations", "launch_shapes", "findings",
)  # fmt: skip
"""The order of tables where all are shown; those of other distributions come after."""

_OF_OPS: Final = ("ops", "ops_by_shape")


class Subject(Protocol):
    """A trace made ready for questions."""

    @property
    def trace(self) -> Trace:
        """The trace itself."""
        ...

    @property
    def phase_source(self) -> str:
        """What tells the phases: ranges, inferred or none."""
        ...

    def coverage(self) -> Mapping[str, int]:
        """Return how many events came by their phase in which way."""
        ...


Of = TypeVar("Of", bound=Subject)


@dataclass(frozen=True)
class Topic(Generic[Of]):
    """What a report is about.

    ``tables`` and ``analyses`` are the rooms, ``order`` that of the tables where all are shown;
    those of other distributions come after. ``look`` asks the rules; `costly` tells whether to ask
    those, too, that take long. The rest makes the sentences of a report.
    """

    tables: str
    analyses: str
    order: Sequence[str]
    headline: Callable[[Of], str]
    trust: Callable[[Of], tuple[str, ...]]
    look: Callable[[Of, bool], Looked]
    hints: Callable[[Of, Sequence[str]], tuple[str, ...]]
    why_empty: Callable[[Of, str], str]
    shown_as: Callable[[Of, Table], Table] = lambda _, table: table
    prepare: Callable[[Of], None] = lambda _: None
    courses: Callable[[Of], tuple[Course, ...]] = lambda _: ()


def resolve(name: str, room: str = "table") -> str:
    """Return a table's own name, given that or the name of the NVIDIA report it stands for.

    Raises:
        UsageError: no table has that name.
    """
    plain = name.replace("-", "_")
    tables = registry.entries(room)
    if plain in tables:
        return plain
    aliases = {alias: own for own, entry in tables.items() for alias in entry.load().stands_for}
    if plain in aliases:
        return aliases[plain]
    raise UsageError(registry.unknown("table", name, {**dict.fromkeys(tables), **aliases}))


def all_tables(topic: Topic[Any] | None = None) -> tuple[str, ...]:
    """Return the names of all tables, in the order in which a report shows them."""
    topic = topic or GPU_WORK
    known = registry.names(topic.tables)
    return (*topic.order, *(name for name in known if name not in topic.order))


def fill(linked: Linked, name: str) -> Filled:
    """Run a table's analysis.

    Raises:
        NothingToShowError: the trace cannot answer it.
    """
    return fill_on(linked, name, GPU_WORK)


def fill_on(of: Of, name: str, topic: Topic[Of]) -> Filled:
    """Run the analysis of a table of any topic; raises NothingToShowError."""
    table: Table = registry.load(topic.tables, name)
    if table.analysis == found.NAME:
        looked = topic.look(of, True)
        return filled(name, found.with_reasons(table, looked), found.frame(looked))
    frame = registry.load(topic.analyses, table.analysis)(of)
    if table.note_of is not None:
        table = replace(table, note=f"{table.note} {table.note_of(of)}", note_of=None)
    made = filled(name, table, frame)
    return replace(made, table=topic.shown_as(of, made.table)) if topic else made


def filled(name: str, table: Table, frame: pl.DataFrame) -> Filled:
    """Return a table with its rows; optional columns that say nothing are not shown."""
    frame = frame.select([column.name for column in table.columns])
    columns = tuple(
        replace(c, shown=c.shown and not (c.optional and _says_nothing(frame[c.name])))
        for c in table.columns
    )
    return Filled(name, replace(table, columns=columns), frame)


def defaults(linked: Linked) -> tuple[str, ...]:
    """Return what a summary shows when no table was named.

    Without kernels that is, after the empty tables that say why, whatever else was recorded.
    """
    if is_one_at_a_time(linked):
        return MEASURED_APART
    if linked.ops.filter(pl.col("kind").is_in(["kernel", "graph"])).height:
        return DEFAULT
    kinds = set(linked.ops["kind"].unique().cast(pl.String))
    have = {"copies": "copy" in kinds, "memsets": "memset" in kinds}
    have |= {table: table in linked.trace for table in ("ranges", "api")}
    have = {"cpu_phases": "ops" in linked.trace, **have}
    return (*DEFAULT, *(table for table, there in have.items() if there))


def report(linked: Linked, names: Sequence[str]) -> Report:
    """Return a report of the named tables; those that cannot be made are in `left_out`."""
    return report_on(linked, names, GPU_WORK)


def report_on(of: Of, names: Sequence[str], topic: Topic[Of]) -> Report:
    """Return a report on any topic."""
    filled: list[Filled] = []
    left_out: dict[str, str] = {}
    topic.prepare(of)
    for name in names:
        try:
            table = fill_on(of, name, topic)
        except NothingToShowError as error:
            left_out[name] = str(error)
        else:
            if table.frame.is_empty():
                left_out[name] = topic.why_empty(of, name)
            filled.append(table)
    source = of.trace.source
    devices = of.trace.get("devices")
    whole = found.NAME in names
    looked = topic.look(of, whole)
    return Report(
        headline=topic.headline(of),
        trust=topic.trust(of),
        source={
            "path": str(source.path),
            "format": source.format,
            "producer": source.producer,
            "schema_version": source.schema_version,
            **({"facts": dict(source.facts)} if source.facts else {}),
        },
        devices=() if devices is None else tuple(devices.collect().to_dicts()),
        phase_source=of.phase_source,
        coverage=of.coverage(),
        tables=tuple(filled),
        findings=sentences(looked, None if whole else MOST),
        hints=topic.hints(of, names),
        left_out=left_out,
        warnings=tuple(caveat.text for caveat in of.trace.caveats),
        courses=topic.courses(of),
        found=looked,
    )


def _gaps_ahead(linked: Linked) -> None:
    """Look for gaps beside the rest: every report needs them, and they take longest."""
    if linked.ops.height < _MANY_OPS:
        ahead = ThreadPoolExecutor(1)
        ahead.submit(gaps, linked)
        ahead.shutdown(wait=False)


def _by_attribution(linked: Linked, table: Table) -> Table:
    if not linked.by_execution:
        return table
    return replace(table, note=table.note.replace(*_EXECUTION_NOTE))


def _hints(linked: Linked, names: Sequence[str]) -> tuple[str, ...]:
    """Return options that show more of this very trace."""
    possible = {
        "--table gaps": linked.ops.height > 1,
        "--table ops": "ops" in linked.trace,
        "--table steps": linked.steps.height > 0,
        "--table ranges": "ranges" in linked.trace,
        "--phase backward": "backward" in linked.ops["phase"].unique().cast(pl.String),
        "--step 0": linked.steps.height > 1 and linked.spans is None,
        "--table all": True,
        "--format markdown": True,
    }
    return tuple(hint for hint, fits in possible.items() if fits and hint.split()[-1] not in names)


def combined(reports: Sequence[Report]) -> Report:
    """Return one more report: the tables that all runs have, with a row per run side by side.

    Rows stand in the order of the first run that has them; the run is the first column.
    """
    runs = _run_labels(reports)
    column = Column("run", "run", "text")
    tables = []
    for first in reports[0].tables:
        same = [next((t for t in r.tables if t.name == first.name), None) for r in reports]
        alike = [t for t in same if t is not None and t.frame.columns == first.frame.columns]
        if len(alike) == len(reports):
            tables.append(side_by_side(column, pl.Series(runs), alike, "all runs"))
    return Report(
        headline=f"All {len(reports)} runs: {', '.join(runs)}",
        trust=(),
        source={"path": "combined", "format": "combined", "producer": None, "schema_version": None},
        devices=(),
        phase_source="",
        coverage={},
        tables=tuple(tables),
    )


def side_by_side(column: Column, labels: pl.Series, filled: Sequence[Filled], of: str) -> Filled:
    """Return one table of several: rows that name the same thing stand together.

    ``column`` is one more column, which holds each table's label.
    """
    table = filled[0].table
    things = [c.name for c in table.columns if c.unit in ("text", "name")][:1]
    frames = [
        t.frame.select(
            pl.lit(labels[i], labels.dtype).alias(column.name), pl.lit(i).alias("_table"), pl.all()
        ).with_row_index("_order")
        for i, t in enumerate(filled)
    ]
    both = pl.concat(frames, how="vertical_relaxed")
    place = pl.col("_order").min()
    ordered = both.with_columns(_place=place.over(things) if things else pl.col("_order"))
    frame = ordered.sort("_place", "_table", "_order", maintain_order=True)
    shown = {c.name for t in filled for c in t.table.columns if c.shown}
    columns = tuple(replace(c, shown=c.name in shown) for c in table.columns)
    at = next((i + 1 for i, c in enumerate(columns) if c.unit in ("text", "name")), 0)
    columns = (*columns[:at], column, *columns[at:])
    title = f"{table.title}, {of}"
    return Filled(
        filled[0].name,
        replace(table, columns=columns, title=title),
        frame.select([c.name for c in columns]),
    )


def _run_labels(reports: Sequence[Report]) -> list[str]:
    """Return what tells the runs apart: file names without what they all begin and end with."""
    paths = [str(r.source["path"]) for r in reports]
    names = [PurePath(path).name for path in paths]
    if len(set(names)) < len(names):
        names = paths
    begin = _common(names)
    end = _common([name[begin:][::-1] for name in names])
    short = [name[begin : len(name) - end] for name in names]
    return short if all(short) and len(set(short)) == len(short) else names


def _common(texts: Sequence[str]) -> int:
    """Return how many characters all the texts begin with."""
    alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return sum(1 for _ in alike)


def _says_nothing(values: pl.Series) -> bool:
    filled = values.drop_nulls()
    if values.dtype == pl.String:
        return not (filled.str.len_bytes() > 0).any()
    return not (filled != 0).any()


def _why_empty(linked: Linked, name: str) -> str:
    trace = linked.trace
    if name in _OF_OPS and ops_of(linked) is None:
        recorded = trace.source.facts.get("recorded_format", trace.source.format)
        by_nsys = recorded.startswith("nsys")
        emits = "torch.autograd.profiler.emit_nvtx under nsys, or torch.profiler, records them"
        how = emits if by_nsys else "torch.profiler's ProfilerActivity.CPU records them"
        return f"PyTorch's ops were not recorded: {how}"
    needed, flag = {"ranges": ("ranges", "nvtx"), "api": ("api", "cuda")}.get(
        name, ("gpu_ops", "cuda")
    )
    if needed not in trace and name not in _OF_OPS:
        what = {"ranges": "ranges were", "api": "CUDA calls were", "gpu_ops": "GPU work was"}
        return f"{what[needed]} not recorded (nsys profile --trace={flag} does)"
    what = {"copies": "copy", "memsets": "memset", "graphs": "graph launch", "api": "CUDA call"}
    what |= {"ranges": "range", "gaps": "idle time", "longest_gaps": "idle time"}
    what |= dict.fromkeys(_OF_OPS, "op")
    what["synchronisations"] = "call that waits"
    if name == found.NAME:
        return "no rule found anything worth a change"
    thing = what.get(name, "kernel")
    if any(caveat.kind == "damaged" for caveat in trace.caveats):
        return f"no {thing} could be read (the file is damaged: see the warnings)"
    where = "of the recording" if linked.whole else "of the part that was asked for"
    return f"there is no {thing} among the events {where}"


GPU_WORK: Final[Topic[Linked]] = Topic(
    tables="table",
    analyses="analysis",
    order=ORDER,
    headline=headline,
    trust=trust,
    look=lambda linked, costly: looked_at(linked, costly=costly),
    hints=_hints,
    why_empty=_why_empty,
    shown_as=_by_attribution,
    prepare=_gaps_ahead,
)
"""Where the GPU's time went: the tables of `tracelens summarize`."""

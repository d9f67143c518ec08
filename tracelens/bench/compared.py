"""Results of kernels side by side: which cells are slower, by more than noise, and which failed.

Rows are matched by kernel, operation, shape, format, implementation, quantity and state of the
cache. Files of one name are measurements of the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, median
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

from tracelens import kernel as kernels
from tracelens import tools, units
from tracelens.analyses.compare import noise
from tracelens.bench import results as files
from tracelens.bench.results_shown import CELL_COLUMNS
from tracelens.bench.sweep import sizes
from tracelens.errors import NothingToShowError, UsageError
from tracelens.tables import Column, Report, Table, build

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tracelens.analyses.compare.gate import Gate
    from tracelens.bench.cell import Row
    from tracelens.bench.results import Results

Key = tuple[files.Place, str, str, str]
"""Cell, implementation, quantity and state of the cache."""

Verdict = Literal["slower", "faster", "no difference", "not known", "only in A", "only in B"]

LEVEL: Final = 0.01
"""How often at most a table of measurements that are alike holds any false verdict."""

_LEVEL_OF_ROWS: Final = 0.05
_MUCH: Final = 0.01
_VERSIONS: Final = ("torch", "triton")
_GATES: Final = ("total", "kernel")

_TABLE: Final = Table(
    "compare_bench",
    "Kernels",
    (
        *CELL_COLUMNS,
        Column("implementation", "implementation", "name"),
        Column("quantity", "quantity", "text"),
        Column("l2", "L2", "text"),
        Column("a_ns", "A", "ns", scale="time"),
        Column("b_ns", "B", "ns", scale="time"),
        Column("change", "change", "change"),
        Column("verdict", "verdict", "text"),
        Column("interval", "interval", "text"),
        Column("floor", "noise", "share"),
        Column("low", "interval from", "change", shown=False),
        Column("high", "interval to", "change", shown=False),
        Column("a_n", "A samples", "count", shown=False),
        Column("b_n", "B samples", "count", shown=False),
        Column("why", "why", "text", shown=False),
        Column("shape", "axes", "text", shown=False),
    ),
    "Medians; the intervals of the changes hold for the whole table at once, with 99 % "
    "confidence. Noise: how far the same differs from itself.",
)
_GATE_TABLE: Final = Table(
    "compare_gates",
    "Gates",
    (
        Column("gate", "gate", "name"),
        Column("outcome", "outcome", "text"),
        Column("said", "measured", "text"),
    ),
    "A regression is above its limit and more than noise.",
)
TABLES: Final = ("compare_gates", "compare_bench")
_COMMON: Final = ("kernel", "operation", "dtype", "size", "quantity", "l2")


@dataclass(frozen=True)
class Side:
    """Measurements of the same.

    Attributes:
        label: what it is called.
        measured: one file or several.
    """

    label: str
    measured: tuple[Results, ...]

    def rows(self) -> dict[Key, list[Row]]:
        """Return the rows of each key, one of each file that has it."""
        found: dict[Key, list[Row]] = {}
        for one in self.measured:
            for row in one.rows:
                key = (files.place_of(row), row.implementation, row.quantity, row.l2)
                found.setdefault(key, []).append(row)
        return found

    def why_not(self, key: Key) -> str:
        """Return why it has no row of a key, where that is known."""
        for one in self.measured:
            for failed in one.failed:
                if failed.place == key[0] and failed.implementation in ("", key[1]):
                    return f"{failed.stage}: {failed.error or failed.message}"
        return ""


@dataclass(frozen=True)
class Compared:
    """One row of one side, and its counterpart.

    Attributes:
        key: of both.
        a_s: median of the first side; None: it has none.
        b_s: of the other.
        low: where the interval of the ratio begins; None: not known.
        high: where it ends.
        floor: how far from 1 the ratio of the same to itself is.
        verdict: what comes of it.
        why: why one is missing.
        a_n: samples of the first side.
        b_n: of the other.
    """

    key: Key
    a_s: float | None
    b_s: float | None
    low: float | None = None
    high: float | None = None
    floor: float = 0.0
    verdict: Verdict = "not known"
    why: str = ""
    a_n: int = 0
    b_n: int = 0

    @property
    def ratio(self) -> float | None:
        """The other side's time over the first's."""
        return self.b_s / self.a_s if self.a_s and self.b_s else None

    @property
    def is_ours(self) -> bool:
        """Whether it is of our implementation."""
        return self.key[1] == kernels.OURS


def compared(a: Side, b: Side, level: float = LEVEL) -> list[Compared]:
    """Return every row of two sides, judged, in the order of the first.

    The interval of a ratio is made of those of the two medians (G. Y. Zou and A. Donner,
    "Construction of confidence limits about effect measures: a general approach", Statistics in
    Medicine 27, 2008), on the logarithm, widened from 95 % to what the whole table needs
    (Bonferroni). With three files or more of each side the files are the samples, since one start
    of a program differs from another by more than its own samples tell.

    A difference counts if the interval does not hold 1 and it is above the floor: the noise that
    each measured of itself against itself, and of our own rows also how much the baselines, which
    are the same on both sides, differ (where the versions are the same).
    """
    mine, others = a.rows(), b.rows()
    keys = [*mine, *(key for key in others if key not in mine)]
    pairs = sum(key in mine and key in others for key in keys)
    drift = _drift(a, b)
    found = []
    for key in keys:
        if key in mine and key in others:
            found.append(_judged(key, mine[key], others[key], level / pairs, drift))
        else:
            found.append(_alone(key, a, b, mine, others))
    return found


def report(sides: Sequence[Side], gates: Sequence[Gate] = ()) -> Report:
    """Return the report on two sides or more, each beside the first.

    Raises:
        UsageError: there are fewer than two, or a gate is none of kernels.
        NothingToShowError: they have no row in common.
    """
    if len(sides) < 2:
        raise UsageError("There is one file: name the baseline, and what to compare with it.")
    a, *others = sides
    found = {b.label: compared(a, b) for b in others}
    if not any(one.ratio for rows in found.values() for one in rows):
        raise NothingToShowError(
            "These results have nothing in common: no kernel in the same operation, shape, format, "
            "implementation, quantity and state of the cache."
        )
    rows = [{**_row(one), "run": label} for label, mine in found.items() for one in mine]
    table = _TABLE if len(others) == 1 else _with_run(_TABLE)
    tables = [_shown(table, rows)]
    if gates:
        judged_ones = [one for mine in found.values() for one in judged(mine, gates)]
        tables.insert(0, _filled(_GATE_TABLE, [dict(one) for one in judged_ones]))
    return Report(
        headline=" · ".join(_headline(label, mine, len(others)) for label, mine in found.items()),
        trust=tuple(_trust(sides)),
        source={"path": " ".join(side.label for side in sides), "format": "bench",
                "producer": "tracelens"},
        devices=tuple({"device": i, "name": one} for i, one in enumerate(_devices(sides))),
        phase_source="none",
        coverage={},
        tables=tuple(tables),
        warnings=tuple(_warnings(sides)),
    )  # fmt: skip


def judged(rows: Sequence[Compared], gates: Sequence[Gate]) -> list[dict[str, str]]:
    """Return what comes of each gate: our worst row among those that it is about.

    Raises:
        UsageError: a gate is about something else than `total` or `kernel:NAME`.
    """
    found = []
    for gate in gates:
        if gate.what not in _GATES:
            raise UsageError(
                f"--gate {gate.text!r}: of results of kernels there are total and kernel:NAME."
            )
        name = (gate.name or "").replace("-", "_")
        mine = [one for one in rows if one.is_ours and name in ("", one.key[0][0])]
        found.append({"gate": gate.text, **_outcome(mine, gate)})
    return found


def _outcome(rows: Sequence[Compared], gate: Gate) -> dict[str, str]:
    known = [one for one in rows if one.ratio]
    lost = [one for one in rows if one.verdict == "only in A"]
    if lost:
        return {"outcome": "regression", "said": f"{_name(lost[0].key)} is missing: {lost[0].why}"}
    if not known:
        return {"outcome": "not judged", "said": "nothing of it was measured on both sides"}
    worst = max(known, key=lambda one: _beyond(one, gate))
    is_over = any(one.verdict == "slower" and _beyond(one, gate) > 0 for one in known)
    said = f"{_name(worst.key)}: {_change(worst)} ({worst.verdict})"
    return {"outcome": "regression" if is_over else "passed", "said": said}


def _beyond(one: Compared, gate: Gate) -> float:
    """Return by how much a row is above a gate's limit, in its unit; less than zero: below."""
    if one.verdict != "slower" or one.ratio is None or one.a_s is None or one.b_s is None:
        return -math.inf if one.ratio is None else min(0.0, one.ratio - 1) - gate.limit
    more = one.ratio - 1 if gate.unit == "share" else (one.b_s - one.a_s) * 1e9
    return more - gate.limit


def _judged(key: Key, a: Sequence[Row], b: Sequence[Row], level: float, drift: float) -> Compared:
    one, other = _middle(a), _middle(b)
    floors = [floor for row in (*a, *b) if (floor := _floor(row)) is not None]
    floor = max([*floors, drift if key[1] == kernels.OURS else 0.0])
    low, high = _interval(a, b, level)
    found = Compared(
        key, one, other, low, high, floor, a_n=sum(row.n for row in a), b_n=sum(row.n for row in b)
    )
    if low is None or high is None:
        return found
    change = abs(math.log(other / one))
    verdict: Verdict = "no difference"
    if (low > 1 or high < 1) and change > math.log1p(floor):
        verdict = "slower" if low > 1 else "faster"
    return replace(found, verdict=verdict)


def _alone(
    key: Key, a: Side, b: Side, mine: Mapping[Key, list[Row]], others: Mapping[Key, list[Row]]
) -> Compared:
    if key in mine:
        return Compared(key, _middle(mine[key]), None, verdict="only in A", why=b.why_not(key))
    return Compared(key, None, _middle(others[key]), verdict="only in B", why=a.why_not(key))


def _middle(rows: Sequence[Row]) -> float:
    """Return the typical time; of several files the geometric mean of their medians."""
    if len(rows) == 1:
        return rows[0].median_s
    return math.exp(fmean(math.log(row.median_s) for row in rows))


def _floor(row: Row) -> float | None:
    return row.pair.floor if row.pair else row.floor


def _interval(
    a: Sequence[Row], b: Sequence[Row], level: float
) -> tuple[float | None, float | None]:
    if min(len(a), len(b)) >= noise.LEAST:
        logs = [[math.log(row.median_s) for row in side] for side in (a, b)]
        (found,) = noise.of_rows([(logs[0], logs[1])], level)
        if found.low is None or found.high is None:
            return None, None
        return math.exp(found.low), math.exp(found.high)
    one, other = _reach(a), _reach(b)
    if one is None or other is None:
        return None, None
    normal = NormalDist()
    wider = normal.inv_cdf(1 - level / 2) / normal.inv_cdf(1 - _LEVEL_OF_ROWS / 2)
    middle = math.log(_middle(b) / _middle(a))
    below, above = (wider * math.hypot(x, y) for x, y in ((other[0], one[1]), (other[1], one[0])))
    return math.exp(middle - below), math.exp(middle + above)


def _reach(rows: Sequence[Row]) -> tuple[float, float] | None:
    """Return how far the interval of a side reaches below and above it, in logarithms."""
    below = above = 0.0
    for row in rows:
        if row.low_s is None or row.high_s is None or row.low_s <= 0:
            return None
        below += math.log(row.median_s / row.low_s) ** 2
        above += math.log(row.high_s / row.median_s) ** 2
    return math.sqrt(below) / len(rows), math.sqrt(above) / len(rows)


def _drift(a: Side, b: Side) -> float:
    """Return how much baselines differ that are the same on both sides: the typical one."""
    if len(_told(a, "versions") | _told(b, "versions")) > 1:
        return 0.0
    mine, others = a.rows(), b.rows()
    ratios = [
        abs(math.log(_middle(others[key]) / _middle(rows)))
        for key, rows in mine.items()
        if key in others and key[1] != kernels.OURS
    ]
    return math.expm1(median(ratios)) if ratios else 0.0


def _told(side: Side, name: str) -> set[str]:
    """Return what the files of a side say of something, each once."""
    found = set()
    for one in side.measured:
        told = one.environment.get(name)
        if name == "versions" and isinstance(told, dict):
            told = ", ".join(f"{name} {told[name]}" for name in _VERSIONS if name in told)
        if told:
            found.add(str(told))
    return found


def _row(one: Compared) -> dict[str, Any]:
    (kernel, operation, shape, dtype), implementation, quantity, l2 = one.key
    low, high = (None if x is None else x - 1 for x in (one.low, one.high))
    return {
        "kernel": kernel.replace("_", "-"),
        "operation": operation,
        "dtype": dtype,
        "size": sizes(dict(shape)),
        "implementation": implementation,
        "quantity": quantity.replace("_", " "),
        "l2": l2,
        "a_ns": None if one.a_s is None else one.a_s * 1e9,
        "b_ns": None if one.b_s is None else one.b_s * 1e9,
        "change": None if one.ratio is None else one.ratio - 1,
        "verdict": f"{one.verdict} ({one.why})" if one.why else one.verdict,
        "interval": units.ABSENT
        if low is None
        else f"{100 * low:+.1f} to {100 * (high or 0):+.1f} %",
        "floor": one.floor if one.ratio else None,
        "low": low,
        "high": high,
        "a_n": one.a_n,
        "b_n": one.b_n,
        "why": one.why,
        "shape": kernels.spell(dict(shape)),
    }


def _shown(table: Table, rows: Sequence[dict[str, Any]]) -> Any:
    """Return the table; what all rows agree in stands in its title."""
    filled = _filled(table, rows)
    same = {name: rows[0][name] for name in _COMMON if len({row[name] for row in rows}) == 1}
    columns = tuple(
        replace(column, shown=column.shown and column.name not in same) for column in table.columns
    )
    words = [f"{value} L2" if name == "l2" else str(value) for name, value in same.items()]
    title = " · ".join([table.title, *words])
    return replace(filled, table=replace(table, title=title, columns=columns))


def _with_run(table: Table) -> Table:
    return replace(table, columns=(Column("run", "B is", "text"), *table.columns))


def _filled(table: Table, rows: Iterable[Mapping[str, Any]]) -> Any:
    kinds: dict[str, Any] = {"text": pl.String, "name": pl.String, "count": pl.Int64}
    schema = {column.name: kinds.get(column.unit, pl.Float64) for column in table.columns}
    told = [{name: row.get(name) for name in schema} for row in rows]
    return build.filled(table.analysis, table, pl.DataFrame(told, schema=schema, orient="row"))


def _headline(label: str, rows: Sequence[Compared], sides: int) -> str:
    mine = [one for one in rows if one.is_ours] or list(rows)
    who = "ours" if any(one.is_ours for one in rows) else "all"
    slower = [one for one in mine if one.verdict == "slower"]
    faster = [one for one in mine if one.verdict == "faster"]
    lost = [one for one in mine if one.verdict == "only in A"]
    told = []
    if slower:
        worst = max(slower, key=lambda one: one.ratio or 0)
        told.append(f"{len(slower)} slower (worst {_name(worst.key)}: {_change(worst)})")
    if faster:
        best = min(faster, key=lambda one: one.ratio or 0)
        told.append(f"{len(faster)} faster (best {_name(best.key)}: {_change(best)})")
    told += [f"{len(lost)} missing"] if lost else []
    same = sum(one.verdict == "no difference" for one in mine)
    told += [f"{same} no difference"] if same else []
    of = f"{label}: " if sides > 1 else ""
    return tools.plain(f"{of}{who}: {', '.join(told) or 'nothing that could be judged'}")


def _name(key: Key) -> str:
    (kernel, operation, shape, dtype), _, quantity, l2 = key
    what = "" if quantity == "kernel_time" else f" {quantity.replace('_', ' ')}"
    cache = "" if l2 == "cold" else f" {l2}"
    return f"{kernel.replace('_', '-')} {operation} {sizes(dict(shape))} {dtype}{what}{cache}"


def _change(one: Compared) -> str:
    return units.column("change", [(one.ratio or 1) - 1])[0]


def _devices(sides: Sequence[Side]) -> list[str]:
    return list(dict.fromkeys(one.device for side in sides for one in side.measured))


def _trust(sides: Sequence[Side]) -> Iterator[str]:
    for letter, side in zip("ABCDEFGH", sides, strict=False):
        days = sorted({one.made[:10] for one in side.measured})
        of = f"{len(side.measured)} files" if len(side.measured) > 1 else days[0]
        on = ", ".join(dict.fromkeys(one.device for one in side.measured))
        versions = "; ".join(sorted(_told(side, "versions")))
        yield tools.plain(
            f"{letter}: {side.label}, {of}, {on}" + (f", {versions}" if versions else "")
        )


def _warnings(sides: Sequence[Side]) -> Iterator[str]:
    for side in sides[1:]:
        if (drift := _drift(sides[0], side)) > _MUCH:
            yield (
                f"{side.label}: baselines that are the same on both sides differ by "
                f"{units.share(drift)} typically: the machine does. Ours differ only if by more."
            )
    if len(_devices(sides)) > 1:
        yield f"Measured on different devices: {', '.join(_devices(sides))}."
    for name, what in (("driver", "drivers"), ("versions", "versions")):
        told = sorted(set().union(*(_told(side, name) for side in sides)))
        if len(told) > 1:
            yield f"Measured with different {what}: {' and '.join(told)}."
    for side in sides:
        throttled = sum(row.throttled > 0 for one in side.measured for row in one.rows)
        if throttled:
            yield f"{side.label}: {throttled} rows were measured while the clock was held down."

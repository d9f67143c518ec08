"""Kernels by name as rows of a grid: the table `kernels` of a summary, a page at a time."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import registry, units
from tracelens.errors import UsageError
from tracelens.links.linked import NO_PHASE
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tracelens.links.linked import Linked
    from tracelens_dashboards.library import Opened

MOST_ROWS: Final = 500
"""No page is longer."""

TOOK: Final = pl.col("end_ns") - pl.col("start_ns")
_COLUMNS: Final = (
    "short_name", "family", "calls", "total_ns", "share", "mean_ns", "median_ns", "min_ns",
    "max_ns", "std_ns",
)  # fmt: skip


@dataclass(frozen=True)
class Ask:
    """Which rows, in which order: what the URL says, checked.

    Attributes:
        kernel: of this name_id alone.
        q: whose name holds this text, or that of what launched them.
        families: of these families alone; empty: of all.
        phases: launched in these phases alone; `(none)` is one, too.
        where: filters of columns, as the grid writes them (JSON).
        sort: the column that they stand in order of; empty: as usual.
        descending: the largest first.
        first: the first row of the page.
        last: the row behind its last one.
    """

    kernel: int | None = None
    q: str = ""
    families: tuple[str, ...] = ()
    phases: tuple[str, ...] = ()
    where: str = ""
    sort: str = ""
    descending: bool = True
    first: int = 0
    last: int = MOST_ROWS


def asked(opened: Opened, query: Mapping[str, str], sort: str) -> Ask:
    """Return what a query asks for.

    Args:
        opened: the recording, whose phases and families are known.
        query: name -> value.
        sort: the name under which the query holds the order.

    Raises:
        UsageError: it names rows that no grid asks for.
    """
    phases = [*opened.linked.rules.phases(), NO_PHASE]
    column, _, way = query.get(sort, "").partition(".")
    first, last = _whole(query, "first", 0), _whole(query, "last", MOST_ROWS)
    kernel = query.get("kernel", "")
    return Ask(
        kernel=int(kernel) if re.fullmatch(r"-?[0-9]{1,9}", kernel) else None,
        q=query.get("filter", "")[:200].casefold(),
        families=_listed(query, "family", sorted(set(opened.linked.names["family"]))),
        phases=_listed(query, "phase", phases),
        where=query.get("where", "")[:4_000],
        sort=column,
        descending=way != "asc",
        first=first,
        last=min(last, first + MOST_ROWS),
    )


def _listed(query: Mapping[str, str], name: str, known: Sequence[str]) -> tuple[str, ...]:
    said = set(query.get(name, "").split(","))
    return tuple(one for one in known if one in said)


def _whole(query: Mapping[str, str], name: str, usual: int) -> int:
    said = query.get(name, str(usual))
    if not re.fullmatch(r"[0-9]{1,10}", said):
        raise UsageError(f"{name} is no number of a row: {plain(said, 40)}")
    return int(said)


@dataclass(frozen=True)
class Names:
    """The table `kernels` of a trace, or of some phases, with name_id and `texts`: as it is shown.

    ``split`` holds of each row the phases and their parts of its time, the largest first.
    """

    frame: pl.DataFrame
    texts: Mapping[str, list[str]]
    split: list[list[tuple[str, float]]]


def cut(opened: Opened, phases: tuple[str, ...]) -> Linked:
    """Return the trace, or that of it which was launched in some phases."""
    linked = opened.linked
    if not phases:
        return linked

    def make() -> Linked:
        return replace(linked, ops=linked.ops.filter(in_phases(phases)), whole=False)

    return opened.once(f"kernels of {sorted(phases)}", make)


def in_phases(phases: tuple[str, ...]) -> pl.Expr:
    """Return whether an op was launched in one of some phases; `(none)` is one, too."""
    fits = pl.col("phase").cast(pl.String).is_in(list(phases)).fill_null(value=False)
    return fits | pl.col("phase").is_null() if NO_PHASE in phases else fits


def names(opened: Opened, phases: tuple[str, ...] = ()) -> Names:
    """Return the kernels by name, most time first."""
    return opened.once(f"kernel names of {sorted(phases)}", lambda: _names(cut(opened, phases)))


def _names(linked: Linked) -> Names:
    table = registry.load("table", "kernels")
    known = linked.names.filter(pl.col("kind") == "kernel")
    ids = known.unique("name", keep="first").select("name", "name_id")
    frame = registry.load("analysis", "kernels")(linked).join(
        ids, on="name", how="left", maintain_order="left", validate="m:1"
    )
    shown = {column.name: column.unit for column in table.columns}
    texts = {
        name: [plain(text) for text in units.column(shown[name], frame[name])] for name in _COLUMNS
    }
    return Names(frame, texts, _split(linked, frame))


def _split(linked: Linked, frame: pl.DataFrame) -> list[list[tuple[str, float]]]:
    by_phase = (
        linked.ops.lazy()
        .filter(pl.col("kind") == "kernel")
        .group_by("name_id", pl.col("phase").cast(pl.String).fill_null(NO_PHASE))
        .agg(took=TOOK.sum())
        .with_columns(share=pl.col("took") / pl.col("took").sum().over("name_id"))
        .sort("name_id", "took", "phase", descending=[False, True, False])
        .collect()
    )
    found: dict[int, list[tuple[str, float]]] = {}
    for name_id, phase, share in by_phase.select("name_id", "phase", "share").iter_rows():
        found.setdefault(name_id, []).append((phase, share))
    return [found.get(name_id, []) for name_id in frame["name_id"]]


def name_order(opened: Opened, ask: Ask) -> pl.Series:
    """Return the rows of `names` that fit, in order."""
    frame = names(opened, ask.phases).frame.with_row_index("row")
    if ask.families:
        frame = frame.filter(pl.col("family").is_in(list(ask.families)))
    if ask.q:
        frame = frame.filter(holds(frame["name"], ask.q) | holds(frame["short_name"], ask.q))
    if ask.sort in _COLUMNS:
        frame = frame.sort(ask.sort, "row", descending=[ask.descending, False], nulls_last=True)
    return frame["row"]


def name_page(opened: Opened, ask: Ask) -> dict[str, Any]:
    """Return a page of names as JSON may hold it, and how many rows there are."""
    known, order = names(opened, ask.phases), name_order(opened, ask)
    frame, rows = known.frame, []
    for row in order[ask.first : ask.last]:
        cells = {name: texts[row] for name, texts in known.texts.items()}
        full = plain(frame["name"][row], 1_000)
        one = {"id": str(frame["name_id"][row]), "name": full, "split": known.split[row]}
        rows.append({**one, **cells})
    took = int(frame["total_ns"].gather(order).sum())
    calls = int(frame["calls"].gather(order).sum())
    said = f"{units.count(order.len())} names, {units.count(calls)} calls, {units.time(took)}"
    return {"rows": rows, "total": order.len(), "said": said}


def names_csv(opened: Opened, ask: Ask) -> Iterator[str]:
    """Give the CSV of all names that fit, in ns."""
    frame = names(opened, ask.phases).frame[name_order(opened, ask)]
    columns = [column.name for column in registry.load("table", "kernels").columns]
    yield without_formulas(frame.select(columns), head=True)


def holds(texts: pl.Series, wanted: str) -> pl.Series:
    """Tell which texts hold another one, whatever its case."""
    return pl.Series([wanted in (text or "").casefold() for text in texts], dtype=pl.Boolean)


def without_formulas(frame: pl.DataFrame, *, head: bool) -> str:
    """Return rows as CSV in which no spreadsheet takes a name for a formula.

    Args:
        frame: the rows.
        head: whether the names of the columns come first.
    """
    texts = pl.col(pl.String, pl.Categorical, pl.Enum).cast(pl.String)
    return frame.with_columns(texts.str.replace(r"^([=+\-@\t\r])", "'$1")).write_csv(
        include_header=head, line_terminator="\r\n"
    )

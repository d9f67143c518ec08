"""Single kernel calls as rows of a grid, with what launched them: all of a recording's, in order.

Sorting and filtering is done here: two million calls take tenths of a second, and only a page of
them is made into texts.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import units
from tracelens.analyses.steps import with_step
from tracelens.errors import NothingToShowError
from tracelens_dashboards import flame
from tracelens_dashboards.kernel_rows import TOOK, holds, in_phases, without_formulas
from tracelens_dashboards.launch_shapes import launch_shapes
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tracelens.links.linked import Linked
    from tracelens_dashboards.kernel_rows import Ask
    from tracelens_dashboards.library import Opened

LAUNCHERS: Final = ("op", "range", "module")
_ORDERS: Final = 4
"""So many orders of calls are kept: each is one number per call."""

_CSV_ROWS: Final = 50_000
_READ_AT_ONCE: Final = 30_000_000
"""Of files of fewer bytes launch shapes are read with the first page, of others when asked for."""

_COLUMNS: Final = (
    "short_name", "family", "start_ns", "took_ns", "phase", "step", "device", "stream", *LAUNCHERS,
)  # fmt: skip
_FILTERED: Final = ("start_ns", "took_ns", "step", "device", "stream", *LAUNCHERS)
_FACTORS: Final = {"start_ns": 1e6, "took_ns": 1e3}
"""What a number of a filter stands for: the grid shows starts in ms and durations in µs."""


class Calls:
    """All kernel calls of a recording, with what launched them; orders asked for are kept."""

    def __init__(self, opened: Opened) -> None:
        linked = opened.linked
        self._orders: OrderedDict[Ask, pl.Series] = OrderedDict()
        self._lock = threading.Lock()
        launchers, self.labels = _launchers(opened)
        stream = linked.with_columns_of_ops("stream").select("stream").collect()
        self.frame = linked.ops.hstack([with_step(linked)["step"], stream["stream"]]).hstack(
            launchers
        )
        self.names = linked.names.filter(pl.col("kind") == "kernel")
        self.first_ns = _first(linked)

    def order(self, ask: Ask) -> pl.Series:
        """Return the op_ids of the calls that fit, in order."""
        key = replace(ask, first=0, last=0)
        with self._lock:
            if key in self._orders:
                self._orders.move_to_end(key)
                return self._orders[key]
        found = self._ordered(ask)
        with self._lock:
            self._orders[key] = found
            while len(self._orders) > _ORDERS:
                self._orders.popitem(last=False)
        return found

    def _ordered(self, ask: Ask) -> pl.Series:
        fitting = self.frame.lazy().filter(pl.col("kind") == "kernel", *self._conditions(ask))
        column = ask.sort if ask.sort in _COLUMNS else "start_ns"
        descending = ask.descending if ask.sort in _COLUMNS else False
        return (
            fitting.select("op_id", key=self._key(column))
            .sort("key", "op_id", descending=[descending, False], nulls_last=True)
            .select("op_id")
            .collect()["op_id"]
        )

    def _key(self, column: str) -> pl.Expr:
        if column == "took_ns":
            return TOOK
        if column in LAUNCHERS:
            rank = pl.Series(self.labels, dtype=pl.String).rank("dense")
            places = pl.int_range(rank.len(), dtype=pl.Int32, eager=True)
            return pl.col(column).replace_strict(places, rank, default=None)
        if column in ("short_name", "family"):
            rank = self.names[column].rank("dense")
            return pl.col("name_id").replace_strict(self.names["name_id"], rank, default=None)
        return pl.col(column)

    def _conditions(self, ask: Ask) -> Iterator[pl.Expr]:
        if ask.kernel is not None:
            yield pl.col("name_id") == ask.kernel
        if ask.phases:
            yield in_phases(ask.phases)
        if ask.families:
            fits = self.names["family"].is_in(list(ask.families))
            yield pl.col("name_id").is_in(self.names["name_id"].filter(fits).implode())
        if ask.q:
            yield self._named(ask.q)
        yield from (self._filtered(column, model) for column, model in _filters(ask.where))

    def _named(self, text: str) -> pl.Expr:
        fits = holds(self.names["name"], text) | holds(self.names["short_name"], text)
        named = pl.col("name_id").is_in(self.names["name_id"].filter(fits).implode())
        return pl.any_horizontal(named, *(self._launched(name, text) for name in LAUNCHERS))

    def _launched(self, column: str, text: str) -> pl.Expr:
        places = holds(pl.Series(self.labels, dtype=pl.String), text).arg_true()
        return pl.col(column).is_in(places.cast(pl.Int32).implode()).fill_null(value=False)

    def _filtered(self, column: str, model: Mapping[str, Any]) -> pl.Expr:
        if column in LAUNCHERS:
            return self._launched(column, str(model.get("filter", "")).casefold())
        value = (
            TOOK
            if column == "took_ns"
            else pl.col(column) - (self.first_ns if column == "start_ns" else 0)
        )
        return _compared(value, model, _FACTORS.get(column, 1)).fill_null(value=False)

    def rows(self, op_ids: pl.Series) -> pl.DataFrame:
        """Return calls with all that the grid shows as values, in the order given."""
        labels = pl.Series(self.labels, dtype=pl.String)
        some = self.frame[op_ids]
        return some.join(
            self.names.select("name_id", "name", "short_name", "family"),
            on="name_id", how="left", maintain_order="left", validate="m:1",
        ).with_columns(
            *(labels.gather(some[name]).alias(name) for name in LAUNCHERS), took_ns=TOOK
        )  # fmt: skip


def calls(opened: Opened) -> Calls:
    """Return the calls of a recording, put together once."""
    return opened.once("kernel calls", lambda: Calls(opened))


def call_page(opened: Opened, ask: Ask, *, shapes: bool) -> dict[str, Any]:
    """Return a page of calls as JSON may hold it, and how many rows there are.

    ``shapes`` tells to read launch shapes, however large the recording is.
    """
    known = calls(opened)
    order = known.order(ask)
    page = order[ask.first : ask.last]
    frame = known.rows(page)
    height = known.frame.height
    path = opened.trace.source.path
    shapes = shapes or (path.is_file() and path.stat().st_size <= _READ_AT_ONCE)
    shown = {
        "id": [str(op_id) for op_id in page],
        "short_name": [plain(name) for name in frame["short_name"].fill_null("(unnamed)")],
        "name": [plain(name, 1_000) for name in frame["name"].fill_null("(unnamed)")],
        "family": units.column("text", frame["family"]),
        "start_ns": [f"{(ns - known.first_ns) / 1e6:,.6f}" for ns in frame["start_ns"]],
        "took_ns": [f"{ns / 1e3:,.3f}" for ns in frame["took_ns"]],
        "phase": units.column("text", frame["phase"].cast(pl.String)),
        **{name: units.column("count", frame[name]) for name in ("step", "device", "stream")},
        **{name: [_name(text) for text in frame[name]] for name in LAUNCHERS},
        **_shape_texts(opened, page, shapes=shapes),
    }
    rows = [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]
    said = f"{units.count(order.len())} calls"
    return {
        "rows": rows,
        "total": order.len(),
        "said": said,
        "shapes": shapes,
        "launchers": [name for name in LAUNCHERS if known.frame[name].null_count() < height],
    }


def _shape_texts(opened: Opened, page: pl.Series, *, shapes: bool) -> dict[str, list[str]]:
    texts = {name: [""] * page.len() for name in ("grid", "block", "registers", "shared_bytes")}
    found = launch_shapes(opened) if shapes else None
    if found is None or found.is_empty():
        return texts
    some = found[page]
    for name in ("grid", "block"):
        sides = some.select(f"{name}_{axis}" for axis in "xyz")
        texts[name] = [
            units.ABSENT if None in row else " × ".join(map(units.count, row))
            for row in sides.iter_rows()
        ]
    texts["registers"] = units.column("count", some["registers"])
    texts["shared_bytes"] = units.column("bytes", some["shared_bytes"])
    return texts


def _launchers(opened: Opened) -> tuple[pl.DataFrame, tuple[str, ...]]:
    try:
        found = flame.launchers(opened)
    except NothingToShowError:
        nothing = pl.repeat(None, opened.linked.ops.height, dtype=pl.Int32, eager=True)
        return pl.DataFrame(dict.fromkeys(LAUNCHERS, nothing)), ()
    return found, flame.forest(opened, "thread").labels


def _first(linked: Linked) -> int:
    """Return when the recording's first event began, as the timeline counts from there."""
    tables = (linked.trace.get(name) for name in ("gpu_ops", "api", "ranges"))
    firsts = [t.select(pl.col("start_ns").min()).collect().item() for t in tables if t is not None]
    return min((ns for ns in firsts if ns is not None), default=0)


def _name(text: str | None) -> str:
    return units.ABSENT if text is None else plain(text)


def _filters(where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give the column filters of a grid that are known, as the grid writes them (JSON)."""
    try:
        found = json.loads(where) if where else {}
    except (ValueError, RecursionError):
        found = {}
    for column, model in found.items() if isinstance(found, dict) else ():
        if column in _FILTERED and isinstance(model, dict):
            yield column, model


def _compared(value: pl.Expr, model: Mapping[str, Any], factor: float) -> pl.Expr:
    """Return the condition of a filter of numbers; what is not known of it holds always."""
    parts = model.get("conditions")
    if isinstance(parts, list):
        each = [_compared(value, part, factor) for part in parts[:4] if isinstance(part, dict)]
        either = model.get("operator") == "OR"
        return pl.any_horizontal(each) if either else pl.all_horizontal(each)
    low, high = (_number(model.get(bound), factor) for bound in ("filter", "filterTo"))
    kind = model.get("type")
    if kind in ("blank", "notBlank"):
        return value.is_null() if kind == "blank" else value.is_not_null()
    if kind == "inRange" and low is not None and high is not None:
        return value.is_between(low, high)
    compared = _COMPARED.get(str(kind))
    return pl.lit(value=True) if compared is None or low is None else compared(value, low)


def _number(said: object, factor: float) -> float | None:
    try:
        number = float(said) * factor if isinstance(said, int | float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


_COMPARED: Final[Mapping[str, Callable[[pl.Expr, float], pl.Expr]]] = {
    "equals": lambda value, bound: value == bound,
    "notEqual": lambda value, bound: value != bound,
    "greaterThan": lambda value, bound: value > bound,
    "greaterThanOrEqual": lambda value, bound: value >= bound,
    "lessThan": lambda value, bound: value < bound,
    "lessThanOrEqual": lambda value, bound: value <= bound,
}


def calls_csv(opened: Opened, ask: Ask) -> Iterator[str]:
    """Give the CSV of all calls that fit, in ns, in parts."""
    known = calls(opened)
    order = known.order(ask)
    shapes = launch_shapes(opened)
    for first in range(0, max(order.len(), 1), _CSV_ROWS):
        some = order[first : first + _CSV_ROWS]
        frame = known.rows(some).select(
            "op_id", "name", "short_name", "family", "start_ns", "took_ns", "device", "stream",
            "phase", "step", *LAUNCHERS,
        )  # fmt: skip
        if shapes.height:
            frame = frame.hstack(shapes[some])
        yield without_formulas(frame, head=first == 0)

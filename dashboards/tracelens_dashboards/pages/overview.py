"""What was captured, and the answer first: step time, GPU busy and idle, what each phase does."""

from __future__ import annotations

import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from dash import MATCH, ClientsideFunction, Input, Output, State, dcc, html

from tracelens import units
from tracelens.analyses.totals import totals
from tracelens.errors import NothingToShowError, TracelensError
from tracelens.tables import build
from tracelens.tables.memory_report import MEMORY
from tracelens.tables.trust import gpus, named_gpus
from tracelens_dashboards import about, comparison, palette, parts, standing_out
from tracelens_dashboards.figures import overview as figures
from tracelens_dashboards.names import plain
from tracelens_dashboards.pages import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import dash

    from tracelens.links.linked import Linked
    from tracelens.tables import Column
    from tracelens_dashboards.library import Library, Opened

_FIRST: Final = "facts"
_MEMORY: Final = "memory_fact"
"""The parts that tell why a file cannot be read: of the trace, and of a snapshot beside it."""

_KERNELS: Final = 10
_GAPS: Final = 5
_LINES: Final = 5
_STEPS: Final = 400


@dataclass(frozen=True)
class _Part:
    """One part of the page; what makes it returns None where there is nothing of it.

    Nothing makes the comparison, which is of the whole library. What is drawn comes after the
    first text has been painted: to load plotly holds the browser up.
    """

    make: Callable[[Opened], Any] | None
    wide: bool = False
    of_memory: bool = False
    is_drawn: bool = False


def _layout(opened: Opened, _asked: dict[str, str]) -> Any:
    """Return the frame: each part comes by a request of its own, the quick ones first."""
    of = opened.item.id
    slots = {name: _slot(name, of) for name in PARTS}
    painted = dcc.Store(id={"page": "overview", "painted": "yes", "of": of})
    top = [slots.pop(name) for name in (_FIRST, _MEMORY)]
    said = [slots.pop(name) for name in ("wrong", "wrong_memory")]
    return html.Div(
        [
            painted,
            html.H1(plain(opened.item.title)),
            html.Div(top, className="facts"),
            parts.cards(
                html.Div(
                    parts.card("What stands out", html.Div(said, className="all-that-stands-out")),
                    className="part wide",
                ),
                *slots.values(),
            ),
        ]
    )


def _slot(name: str, of: str) -> Any:
    part = PARTS[name]
    return html.Div(
        parts.waiting() if name == _FIRST else None,
        id={"page": "overview", "late" if part.is_drawn else "part": name, "of": of},
        className="part wide" if part.wide else "part",
    )


def _register(app: dash.Dash, library: Library) -> None:
    at = {"page": "overview", "of": MATCH}
    text, drawn, painted = {**at, "part": MATCH}, {**at, "late": MATCH}, {**at, "painted": "yes"}
    in_browser: Any = app.clientside_callback
    in_browser(
        ClientsideFunction("shell", "painted"),
        Output(painted, "data"),
        Input({**at, "part": _FIRST}, "children"),
        Input({**at, "part": "wrong"}, "children"),
    )

    @app.callback(Output(text, "children"), Input(text, "id"))
    def _part(asked: dict[str, str]) -> Any:
        return _shown(library, asked["part"], asked["of"])

    @app.callback(
        Output(drawn, "children"),
        Input(painted, "data"),
        State(drawn, "id"),
        prevent_initial_call=True,
    )
    def _drawn(_painted: bool, asked: dict[str, str]) -> Any:
        return _shown(library, asked["late"], asked["of"])


def _shown(library: Library, name: str, of: str) -> Any:
    """Return a part, or why it cannot be shown: it never takes the others down."""
    part = PARTS[name]
    tells = name == _FIRST
    try:
        opened = library.open(of)
        tells = tells or (name == _MEMORY and opened.item.memory != opened.item.trace)
        if part.make is None:
            return comparison.card(library, opened.item)
        return _made(opened, name, part.make)
    except NothingToShowError as error:
        return parts.nothing(str(error)) if name == _FIRST else None
    except TracelensError as error:
        return parts.problem(str(error)) if tells else None
    except Exception as error:  # noqa: BLE001 # the other parts still tell what they know
        traceback.print_exception(error)
        return parts.problem(f"This part failed: {type(error).__name__}: {error}")


def ahead(opened: Opened) -> None:
    """Compute what the page shows first, before a browser asks."""
    with suppress(TracelensError):
        _made(opened, _FIRST, _facts)


def _made(opened: Opened, name: str, make: Callable[[Opened], Any]) -> Any:
    """Return a part, made once.

    The facts come first and the others one by one: side by side they would all be late.
    """
    if name != _FIRST and opened.item.trace is not None:
        ahead(opened)
    topic = "memory" if PARTS[name].of_memory else "trace"
    with opened.once(f"overview of {topic}", threading.Lock):
        return opened.once(f"overview {name}", lambda: make(opened))


def _facts(opened: Opened) -> Any:
    """Return the numbers that one looks for first."""
    if opened.item.trace is None:
        return None
    linked = opened.linked
    return [fact for make in (_step, _busy, _kernel_time, _on) if (fact := make(linked))]


def _step(linked: Linked) -> Any:
    """Return the median step: what the table `ranks` shows, without the rest of that table."""
    steps = linked.steps
    if steps.is_empty():
        return None
    many = units.count(steps.height)
    note = f"median of {many} steps, on the CPU" if steps.height > 1 else "one step, on the CPU"
    took = (steps["end_ns"] - steps["start_ns"]).median()
    return parts.fact("Step", units.column("ns", [took])[0], note)


def _busy(linked: Linked) -> Any:
    sums = totals(linked).row(0, named=True)
    if not sums["span_ns"]:
        return parts.fact("GPU", units.ABSENT, "no work on a GPU was recorded")
    busy = sums["busy_ns"] / sums["span_ns"]
    idle = units.time(sums["idle_ns"])
    return parts.fact(
        "GPU busy", units.share(busy), f"of {units.time(sums['span_ns'])}; {idle} idle"
    )


def _kernel_time(linked: Linked) -> Any:
    sums = totals(linked).row(0, named=True)
    if not sums["kernels"]:
        return None
    return parts.fact(
        "Kernels", units.count(sums["kernels"]), f"{units.time(sums['kernel_time_ns'])} in all"
    )


def _on(linked: Linked) -> Any:
    names = named_gpus(gpus(linked))
    source = linked.trace.source
    return parts.fact("Recorded on", ", ".join(names) or "CPU", source.producer or source.format)


def _memory_fact(opened: Opened) -> Any:
    if opened.item.memory is None:
        return None
    memory = opened.memory
    row = build.fill_on(memory, "devices", MEMORY).frame.sort("peak_active_bytes", descending=True)
    top = row.row(0, named=True)
    where = f"in {top['peak_phase']}" if top["peak_phase"] else ""
    where += f" of step {top['peak_step']}" if top["peak_step"] is not None else ""
    failed = int(row["oom_events"].sum())
    note = "; ".join(text for text in (where, "out of memory" if failed else "") if text)
    return parts.fact("Memory peak", units.size(top["peak_active_bytes"]), note)


def _wrong(opened: Opened) -> Any:
    if opened.item.trace is None:
        return None
    return standing_out.of_trace(opened.item.id, opened.linked)


def _wrong_memory(opened: Opened) -> Any:
    if opened.item.memory is None:
        return None
    return standing_out.of_memory(opened.item.id, opened.memory)


def _stack(opened: Opened) -> Any:
    """Return what each phase does: on the GPU, or on the CPU where there is no work of a GPU."""
    if opened.item.trace is None:
        return None
    linked = opened.linked
    name = "families" if _has_kernels(linked) else "cpu_phases"
    filled = build.fill(linked, name)
    if filled.frame.is_empty():
        return None
    figure = getattr(figures, name)(filled.frame)
    said = filled.table.title
    phases = filled.frame["phase"].n_unique()
    return parts.card(
        "What each phase does" if name == "families" else "What each phase does on the CPU",
        parts.picture(
            figure,
            parts.table(filled, decorate=_coloured),
            name="overview-stack",
            says=said,
            height=170 + 34 * phases,
        ),
        note=filled.table.note,
    )


def _kernels(opened: Opened) -> Any:
    if opened.item.trace is None or not _has_kernels(opened.linked):
        return None
    linked = opened.linked
    ids = standing_out.kernel_ids(linked)
    pages = standing_out.pages()

    def decorate(row: Mapping[str, Any], column: Column) -> parts.Cell | None:
        if column.name == "short_name" and "kernels" in pages:
            return parts.Cell(parts.place(opened.item.id, "kernels", kernel=ids.get(row["name"])))
        return _coloured(row, column)

    filled = parts.only(
        build.fill(linked, "kernels"),
        ("short_name", "family", "calls", "total_ns", "share", "median_ns"),
    )
    return parts.card("Top kernels", parts.table(filled, top=_KERNELS, decorate=decorate))


def _idle(opened: Opened) -> Any:
    """Return idle time by cause, and the longest times with their place."""
    if opened.item.trace is None:
        return None
    linked = opened.linked
    causes = build.fill(linked, "gaps")
    if causes.frame.is_empty():
        return None
    shown = ("device", "cause", "gaps", "idle_ns", "share", "median_ns", "longest_ns")
    longest = parts.only(
        build.fill(linked, "longest_gaps"),
        ("idle_ns", "cause", "before_name", "after_name", "start_ns", "end_ns"),
        hidden=("start_ns", "end_ns"),
    )

    def decorate(row: Mapping[str, Any], column: Column) -> parts.Cell | None:
        if column.name != "idle_ns" or "timeline" not in standing_out.pages():
            return None
        return parts.Cell(standing_out.around(opened.item.id, row["start_ns"], row["end_ns"]))

    return parts.card(
        "Why the GPU idles",
        html.Div(
            [
                html.Div([parts.heading("By cause"), parts.table(parts.only(causes, shown))]),
                html.Div(
                    [
                        parts.heading("The longest"),
                        parts.table(longest, top=_GAPS, decorate=decorate),
                    ]
                ),
            ],
            className="beside-one-another",
        ),
    )


def _steps(opened: Opened) -> Any:
    if opened.item.trace is None or opened.linked.steps.is_empty():
        return None
    filled = build.fill(opened.linked, "steps")
    first = filled.frame.filter(pl.col("pid") == filled.frame["pid"][0]).head(_STEPS)
    return parts.card(
        "Steps",
        parts.picture(
            figures.steps(first),
            parts.table(filled, top=50),
            name="overview-steps",
            says=filled.table.title,
            height=260,
        ),
        note=filled.table.note,
    )


def _memory(opened: Opened) -> Any:
    if opened.item.memory is None:
        return None
    memory = opened.memory
    told = parts.only(
        build.fill_on(memory, "devices", MEMORY),
        ("device", "peak_active_bytes", "peak_phase", "peak_step", "end_active_bytes",
         "peak_reserved_bytes", "oom_events", "peak_index"),
        hidden=("peak_index",),
    )  # fmt: skip

    def decorate(row: Mapping[str, Any], column: Column) -> parts.Cell | None:
        if column.name != "peak_active_bytes" or "memory" not in standing_out.pages():
            return None
        return parts.Cell(parts.place(opened.item.id, "memory", at=row["peak_index"]))

    live = build.fill_on(memory, "live", MEMORY)
    held = [parts.heading(live.table.title), parts.table(live, top=_LINES)]
    return parts.card(
        "Memory", parts.table(told, decorate=decorate), *(held if live.frame.height else [])
    )


def _has_kernels(linked: Linked) -> bool:
    sums = totals(linked).row(0, named=True)
    return bool(sums["kernels"] or sums["graph_launches"])


def _coloured(row: Mapping[str, Any], column: Column) -> parts.Cell | None:
    if column.name == "family":
        return parts.Cell(colour=palette.family(row["family"]))
    if column.name == "phase":
        return parts.Cell(colour=palette.phase(row["phase"]))
    return None


PARTS: Final = {
    _FIRST: _Part(_facts),
    _MEMORY: _Part(_memory_fact, of_memory=True),
    "wrong": _Part(_wrong),
    "wrong_memory": _Part(_wrong_memory, of_memory=True),
    "stack": _Part(_stack, is_drawn=True),
    "steps": _Part(_steps, is_drawn=True),
    "runs": _Part(None, wide=True),
    "kernels": _Part(_kernels, wide=True),
    "idle": _Part(_idle, wide=True),
    "memory": _Part(_memory, wide=True, of_memory=True),
    "captured": _Part(about.card, wide=True),
}

PAGE = Page(title="Overview", order=0, layout=_layout, register=_register)

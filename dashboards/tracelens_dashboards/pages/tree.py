"""The tree of ranges, modules and PyTorch ops as a flame graph, with the GPU work of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
from dash import ClientsideFunction, Input, Output, dcc, html

from tracelens import registry, units
from tracelens.errors import NothingToShowError
from tracelens.tables import build
from tracelens_dashboards import answers, flame, palette, parts
from tracelens_dashboards.figures.flame import bars
from tracelens_dashboards.forest import MEASURES, added
from tracelens_dashboards.links import in_timeline
from tracelens_dashboards.names import plain
from tracelens_dashboards.pages import Page

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dash

    from tracelens.links.linked import Linked
    from tracelens.tables import Column, Filled
    from tracelens_dashboards.flame import Placing
    from tracelens_dashboards.forest import Forest, Measure, Numbers
    from tracelens_dashboards.library import Library, Opened

_KEYS: Final = (
    ("click, Enter", "look at that bar alone"),
    ("Esc", "one level up"),
    ("f", "everything"),
    ("/", "search by name"),
)
_KINDS: Final = {
    "range": "#8b6fd0",
    "module": "#1f9a72",
    "op": "#d97706",
    "thread": palette.NONE,
    "none": palette.NONE,
}
_WHOLE: Final = {"gpu": "All GPU work", "cpu": "All threads", "calls": "All calls"}
_KERNELS: Final = 15
_LONGEST_SEARCH: Final = 200
_NOTE: Final = (
    "What the program did, and the GPU work that it launched meanwhile. Below a bar stands what "
    "ran inside it; where nothing stands below, the time is the bar's own."
)


@dataclass(frozen=True)
class _Ask:
    """What part of which tree to show: the state in the URL, checked."""

    view: str
    by: Measure
    backward: Placing
    alike: bool
    root: int | None
    q: str

    @property
    def heavy_first(self) -> bool:
        """Whether nodes of one name are one, the widest first."""
        return self.view == "aggregated"

    @property
    def placing(self) -> Placing:
        """Where backward stands: CPU time is each thread's own."""
        return "thread" if self.by == "cpu" else self.backward

    def tree(self, opened: Opened) -> Forest:
        """Return the tree that is asked for; raises NothingToShowError."""
        if self.heavy_first:
            return flame.merged(opened, self.placing, alike=self.alike)
        return flame.forest(opened, self.placing)


def _ask(opened: Opened, asked: Mapping[str, str]) -> _Ask:
    """Return what a query asks for; what it does not say, or says wrong, is as usual."""
    usual: Measure = "gpu" if opened.linked.ops.height else "cpu"
    measures: dict[str, Measure] = {by: by for by in MEASURES}
    root = asked.get("root", "")
    ask = _Ask(
        view="ordered" if asked.get("view") == "ordered" else "aggregated",
        by=measures.get(asked.get("by", ""), usual),
        backward="waiting" if asked.get("backward") == "waiting" else "forward",
        alike=asked.get("alike") != "0",
        root=int(root) if re.fullmatch(r"[0-9]{1,9}", root) else None,
        q=asked.get("q", "")[:_LONGEST_SEARCH],
    )
    inside = ask.root is not None and ask.root < len(ask.tree(opened))
    return ask if inside else replace(ask, root=None)


def _bars(opened: Opened, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return what the script draws and tabulates: bars as columns, names once each."""
    ask = _ask(opened, asked)
    of = ask.tree(opened)
    drawn = bars(of, ask.by, ask.root, heavy_first=ask.heavy_first)
    node = drawn["node"].cast(pl.Int64).fill_null(-1).to_numpy()
    path = of.path(ask.root)[:-1]
    used, name = np.unique(of.label[[*path, *np.maximum(node, 0)]], return_inverse=True)
    whole = int(of.own[ask.by].sum())
    unit = "count" if ask.by == "calls" else "ns"
    tints = _tints(opened, ask, of)
    columns = {
        "name": np.where(node >= 0, name[len(path) :], -1),
        "kind": np.where(node >= 0, of.kind[node], -1),
        **{what: np.where(node >= 0, codes[node], -1) for what, (_, codes) in tints.items()},
    }
    return {
        "by": ask.by,
        "view": ask.view,
        "whole": _WHOLE[ask.by],
        "whole_text": _text(unit, whole),
        "sum_text": _text(unit, drawn["value"][0]),
        "path": [[n, int(name[place])] for place, n in enumerate(path)],
        "names": [plain(of.labels[label]) for label in used],
        "kinds": [[kind, _KINDS[kind]] for kind in flame.KINDS],
        **{f"{what}_names": names for what, (names, _) in tints.items()},
        "hits": _hits(of, ask, whole, unit),
        "bars": {
            **{what: drawn[what].to_list() for what in drawn.columns},
            **{what: codes.tolist() for what, codes in columns.items()},
            "text": units.column(unit, drawn["value"]),
            "share": units.column("share", drawn["value"] / max(whole, 1)),
            "own_text": units.column(unit, drawn["own"]),
            **{
                f"{measure}_text": units.column("ns", drawn[f"{measure}_ns"])
                for measure in ("gpu", "cpu")
                if measure != ask.by
            },
        },
    }


def _hits(of: Forest, ask: _Ask, whole: int, unit: str) -> dict[str, Any] | None:
    """Return how much the nodes hold whose names fit the search, none of it twice."""
    if not ask.q:
        return None
    wanted = ask.q.casefold()
    fitting = [wanted in plain(label).casefold() for label in of.labels]
    fits = np.array(fitting, bool)[of.label]
    held = int(of.whole[ask.by][of.outermost(fits)].sum())
    return {
        "nodes": int(fits.sum()),
        "text": _text(unit, held),
        "share": units.share(held / max(whole, 1)),
    }


def _tints(opened: Opened, ask: _Ask, of: Forest) -> dict[str, tuple[list[str], Numbers]]:
    """Return of each node its phase and family: names, and the place of each in them, or -1.

    The phase is that in which the node began (its longest call did), where ranges name phases;
    phases otherwise and families are those that most of its GPU time is of.
    """
    merged = ask.alike if ask.heavy_first else None

    def make() -> dict[str, tuple[list[str], Numbers]]:
        linked = opened.linked
        families = linked.ops.select("name_id", "kind").join(
            linked.names.select("name_id", "kind", "family"),
            on=["name_id", "kind"], how="left", maintain_order="left",
        )["family"]  # fmt: skip
        began = flame.phases(opened)
        if began is None:
            phase = _most(linked, of, linked.ops["phase"].cast(pl.String))
        else:
            names, code = _coded(began)
            phase = names, code[of.longest]
        return {"phase": phase, "family": _most(linked, of, families)}

    return opened.once(f"tree tints {ask.placing} {merged}", make)


def _coded(texts: pl.Series) -> tuple[list[str], Numbers]:
    usual = list(palette.PHASES)
    names = sorted(
        texts.drop_nulls().unique(),
        key=lambda name: (usual.index(name) if name in usual else len(usual), name),
    )
    place = dict(zip(names, range(len(names)), strict=True))
    return names, texts.replace_strict(place, default=-1, return_dtype=pl.Int64).to_numpy()


def _most(linked: Linked, of: Forest, texts: pl.Series) -> tuple[list[str], Numbers]:
    """Return of each node the text of the GPU ops that took most of its GPU time."""
    took = (linked.ops["end_ns"] - linked.ops["start_ns"]).to_numpy()
    names, code = _coded(texts)
    return names, _dominant(of, code, took)


def _dominant(of: Forest, code: Numbers, took: Numbers) -> Numbers:
    """Return of each node the code of the GPU ops that took most of its GPU time; -1: none."""
    best, most = np.full(len(of), -1), np.zeros(len(of), np.int64)
    for one in np.unique(code):
        mine = code == one
        held = of.inside(added(of.leaf[mine], took[mine], len(of)))
        best, most = np.where(held > most, one, best), np.maximum(held, most)
    return best


def _detail(opened: Opened, ask: _Ask) -> list[Any]:
    """Return what is known of the node that is looked at, and its kernels."""
    of, linked = ask.tree(opened), opened.linked
    if ask.root is None:
        filled = build.fill(linked, "kernels")
        return [_kernels(opened, filled, "All kernels")]
    part = replace(linked, ops=linked.ops.filter(pl.Series(of.work(ask.root))), whole=False)
    table = registry.load("table", "kernels")
    filled = build.filled("kernels", table, registry.load("analysis", "kernels")(part))
    name = plain(of.labels[of.label[ask.root]])
    return [_facts(opened, ask, part, ask.root), _kernels(opened, filled, f"Kernels of {name}")]


def _facts(opened: Opened, ask: _Ask, part: Linked, node: int) -> Any:
    of = ask.tree(opened)
    gpu, calls, took = int(of.whole["gpu"][node]), int(of.own["calls"][node]), int(of.took[node])
    all_gpu = int(of.own["gpu"].sum())
    each = f"{units.count(calls)} calls, {units.time(took / calls)} each" if calls > 1 else ""
    found = [
        parts.fact("GPU time", units.time(gpu), f"{units.share(gpu / max(all_gpu, 1))} of all"),
        parts.fact("Its own GPU time", units.time(int(of.own["gpu"][node])), "without bars below"),
        parts.fact("Kernels", units.count(int(of.inside(of.kernels)[node])), _phases(part)),
        parts.fact("Open on the CPU", units.time(took), each),
    ]
    longest = flame.call(opened, int(of.longest[node]))
    if longest is None:
        return html.Div(parts.facts(*found), className="part wide")
    range_id, start, end = longest
    href = in_timeline(opened, "ranges", range_id, start, end)
    where = "See its longest call in the timeline" if calls > 1 else "See it in the timeline"
    link = dcc.Link(where, href=href, className="tree-link")
    return html.Div([parts.facts(*found), link], className="part wide")


def _phases(part: Linked) -> str:
    """Return what share of the GPU time each phase has, where there are several."""
    took = pl.col("end_ns") - pl.col("start_ns")
    held = part.ops.group_by(pl.col("phase").cast(pl.String)).agg(took=took.sum())
    rows = held.sort("took", "phase", descending=[True, False]).filter(pl.col("took") > 0)
    total = max(int(rows["took"].sum()), 1)
    shares = [f"{name or units.NOTHING} {units.share(ns / total)}" for name, ns in rows.iter_rows()]
    return ", ".join(shares)


def _kernels(opened: Opened, filled: Filled, title: str) -> Any:
    names = opened.linked.names.filter(pl.col("kind") == "kernel")
    ids = dict(names.select("name", "name_id").iter_rows())

    def linking(row: Mapping[str, Any], column: Column) -> parts.Cell | None:
        if column.name != "short_name" or row["name"] not in ids:
            return None
        return parts.Cell(parts.place(opened.item.id, "kernels", kernel=ids[row["name"]]))

    if filled.frame.is_empty():
        return parts.card(title, parts.nothing("No kernel was launched in it."), wide=True)
    return parts.card(title, parts.table(filled, top=_KERNELS, decorate=linking), wide=True)


def _text(unit: str, value: int) -> str:
    return units.column(unit, [value])[0]


def _layout(opened: Opened, _asked: dict[str, str]) -> Any:
    """Return the container; `assets/tree.js` fills it, and reads the rest from the URL."""
    if "ranges" not in opened.linked.trace:
        raise NothingToShowError(flame.why_nothing(opened.linked))
    of: Any = {"data-recording": opened.item.id}
    return html.Div(
        [
            parts.heading("Ranges, modules and ops", _NOTE),
            html.Div(parts.waiting(), id="tree", key=opened.item.id, **of),
            dcc.Store(id="tree-page", data=opened.item.id),
            dcc.Store(id="tree-started"),
            dcc.Store(id="tree-chosen"),
            html.Div(id="tree-detail", className="cards"),
        ],
        className="tree-page",
    )


def _register(app: dash.Dash, library: Library) -> None:
    answers.add(app, library, "tree", {"bars": _bars})
    add: Any = app.clientside_callback
    add(
        ClientsideFunction("tree", "start"),
        Output("tree-started", "data"),
        Input("tree-page", "data"),
    )

    @app.callback(
        Output("tree-detail", "children"),
        Input("tree-chosen", "data"),
        prevent_initial_call=True,
    )
    def _chosen(chosen: dict[str, str] | None) -> Any:
        """Show what was chosen; the script says which recording, and with what state."""
        if not chosen:
            return []
        opened = library.open(str(chosen.get("recording")))
        return _detail(opened, _ask(opened, chosen))


PAGE = Page(
    title="Ranges and ops",
    order=3,
    layout=_layout,
    needs="trace",
    register=_register,
    keys=_KEYS,
)

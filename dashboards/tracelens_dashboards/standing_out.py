"""What stands out of a recording: what the toolkit's rules found, each with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl
from dash import dcc, html

from tracelens import registry
from tracelens.analyses.longest_gaps import longest_gaps
from tracelens.tables import memory_report
from tracelens.tables import trust as trusted
from tracelens.tables.standout import looked_at, looked_at_memory
from tracelens_dashboards import parts
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tracelens.findings import Finding
    from tracelens.links.linked import Linked
    from tracelens.links.memory import Memory

    Place = tuple[str, str]
    """What a link says, and where it leads."""

_LONGEST: Final = 1_000
_MOST_CAVEATS: Final = 6
_MARGIN: Final = 2.0
"""So many times its length is shown on either side of what a link leads to."""


def pages() -> tuple[str, ...]:
    """Return the names of the pages there are: no link leads to any other."""
    return registry.names("page")


def around(recording: str, start_ns: int, end_ns: int) -> str:
    """Return the address of a time in the timeline, with something of what is beside it."""
    margin = int(_MARGIN * max(1, end_ns - start_ns))
    return parts.place(recording, "timeline", **{"from": start_ns - margin, "to": end_ns + margin})


def kernel_ids(linked: Linked) -> dict[str, int]:
    """Return the name_id of each kernel's full name."""
    kernels = linked.names.filter(pl.col("kind") == "kernel")
    return dict(kernels.select("name", "name_id").iter_rows())


def of_trace(recording: str, linked: Linked) -> Any:
    """Return what stands out of GPU work, and how far to trust the numbers."""
    found = looked_at(linked).findings
    told = [_of_finding(one, _places(recording, linked, one)) for one in found if not _warns(one)]
    losses = [c.text for c in linked.trace.caveats if c.kind in ("lost", "damaged")]
    lost = [_item(text, tone="warn") for text in losses[:_MOST_CAVEATS]]
    trust = [_item(line, tone="quiet") for line in trusted.trust(linked)]
    return html.Ul([*told, *lost, *trust], className="standing-out")


def of_memory(recording: str, memory: Memory) -> Any:
    """Return what stands out of the memory, and how far to trust the numbers."""
    found = [_of_finding(one) for one in looked_at_memory(memory).findings]
    if found and "memory" in pages():
        link = dcc.Link("Show the memory", href=parts.place(recording, "memory"))
        found[0].children += [" ", link]
    trust = [_item(f"Memory: {line}", tone="quiet") for line in memory_report.trust(memory)]
    return html.Ul([*found, *trust], className="standing-out")


def said(found: Finding) -> str:
    """Return what a finding says and what to change; its table stands on a page here."""
    change = "" if "--table" in found.change else found.change
    return f"{found.says} {change}".strip()


def _warns(found: Finding) -> bool:
    """Tell whether a finding is of the recorder's warnings, which are told one by one."""
    return found.rule == "lost_events"


def _of_finding(found: Finding, places: Sequence[Place] = ()) -> Any:
    return _item(said(found), places, tone="finding")


def _item(text: str, places: Sequence[Place] = (), *, tone: str) -> Any:
    """Return one line, with links to what it is about."""
    links = [html.Span([" ", dcc.Link(label, href=href)]) for label, href in places]
    return html.Li([plain(text, _LONGEST), *links], className=tone)


def _places(recording: str, linked: Linked, found: Finding) -> Sequence[Place]:
    by_table = _BY_TABLE.get(found.evidence[0].table) if found.evidence else None
    shown = _RULES.get(found.rule) or by_table
    if shown is None or shown[0] not in pages():
        return []
    return list(shown[1](recording, linked, found))


def _longest_gap(recording: str, linked: Linked, found: Finding) -> Iterator[Place]:
    """Show the longest idle time of the rule's cause."""
    rows = longest_gaps(linked)
    if cause := _CAUSES.get(found.rule):
        rows = rows.filter(pl.col("cause") == cause)
    for row in rows.head(1).iter_rows(named=True):
        yield "Show the longest", around(recording, row["start_ns"], row["end_ns"])


def _first(label: str, ops: pl.Expr) -> Any:
    """Return a rule: show the longest op of some kind in the timeline."""

    def find(recording: str, linked: Linked, _found: Finding) -> Iterator[Place]:
        took = pl.col("end_ns") - pl.col("start_ns")
        found = linked.ops.lazy().filter(ops).top_k(1, by=took).collect()
        for start_ns, end_ns in found.select("start_ns", "end_ns").iter_rows():
            yield label, around(recording, start_ns, end_ns)

    return find


def _most_launched(recording: str, linked: Linked, found: Finding) -> Iterator[Place]:
    phase = pl.col("phase").cast(pl.String).eq_missing(pl.lit(found.subject, pl.String))
    kernels = linked.ops.lazy().filter(pl.col("kind") == "kernel", phase).group_by("name_id").len()
    for name_id in kernels.top_k(1, by="len").collect()["name_id"]:
        yield "Show the most frequent", parts.place(recording, "kernels", kernel=name_id)


def _kernel(recording: str, linked: Linked, found: Finding) -> Iterator[Place]:
    name_id = kernel_ids(linked).get(found.subject or "")
    if name_id is not None:
        yield "Show the longest of them", parts.place(recording, "kernels", kernel=name_id)


def _overlap(recording: str, linked: Linked, _found: Finding) -> Iterator[Place]:
    """Show where work began longest before what ran on the device had ended."""
    before = pl.col("end_ns").cum_max().shift().over("device")
    both = pl.min_horizontal("end_ns", before) - pl.col("start_ns")
    ops = linked.ops.lazy().select("device", "start_ns", "end_ns").sort("device", "start_ns")
    found = ops.with_columns(both=both).top_k(1, by="both").collect()
    for start_ns, length in found.select("start_ns", "both").iter_rows():
        yield "Show the longest", around(recording, start_ns, start_ns + length)


_CAUSES: Final = {
    "launch_bound": "launch_bound",
    "cpu_bound": "no_api_call",
    "queued_gaps": "queued",
    "synchronising_calls": "synchronising",
}
_RULES: Final[Mapping[str, tuple[str, Any]]] = {
    **dict.fromkeys((*_CAUSES, "idle_between_steps"), ("timeline", _longest_gap)),
    "whole_graphs": ("timeline", _first("Show one", pl.col("kind") == "graph")),
    "tiny_kernels": ("kernels", _most_launched),
    "for_loop_optimizer": ("kernels", _most_launched),
    "unclassified": ("kernels", _kernel),
    "overlapping_work": ("timeline", _overlap),
    "unattributed": (
        "timeline",
        _first("Show what is not", pl.col("how").is_in(("none", "unlinked", "ambiguous"))),
    ),
}
"""Rule -> the page that shows what it found, and what finds the places there."""

_BY_TABLE: Final[Mapping[str, tuple[str, Any]]] = {
    "kernels": ("kernels", _kernel),
    "launch_shapes": ("kernels", _kernel),
}
"""The same for rules that are not known, by the table of their evidence."""

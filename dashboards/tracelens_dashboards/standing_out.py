"""What stands out of a recording: the sentences of the toolkit, each with the place it is about."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from dash import dcc, html

from tracelens import registry
from tracelens.analyses.longest_gaps import longest_gaps
from tracelens.tables import memory_findings, memory_report, standout
from tracelens.tables import trust as trusted
from tracelens_dashboards import parts
from tracelens_dashboards.names import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tracelens.links.linked import Linked
    from tracelens.links.memory import Memory

    Place = tuple[str, str]
    """What a link says, and where it leads."""

_LONGEST: Final = 1_000
_MOST_CAVEATS: Final = 6
_SEE: Final = re.compile(r"\s*See --table (\w+)\.")
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
    losses = [c.text for c in linked.trace.caveats if c.kind in ("lost", "damaged")]
    found = [_item([text], "finding", recording, linked) for text in standout.findings(linked)]
    lost = [_item([text], "warn") for text in losses[:_MOST_CAVEATS]]
    trust = [_item(_clauses(line), "quiet", recording, linked) for line in trusted.trust(linked)]
    return html.Ul([*found, *lost, *trust], className="standing-out")


def of_memory(recording: str, memory: Memory) -> Any:
    """Return what stands out of the memory, and how far to trust the numbers."""
    found = [_item([text], "finding") for text in memory_findings.findings(memory)]
    if found and "memory" in pages():
        link = dcc.Link("Show the memory", href=parts.place(recording, "memory"))
        found[0].children += [" ", link]
    lines = memory_report.trust(memory)
    trust = [_item(_clauses(f"Memory: {line}"), "quiet") for line in lines]
    return html.Ul([*found, *trust], className="standing-out")


def _clauses(line: str) -> list[str]:
    return line.split(" · ")


def _item(
    clauses: Sequence[str], tone: str, recording: str = "", linked: Linked | None = None
) -> Any:
    """Return one line; what it says of the command line is replaced by links."""
    said: list[Any] = []
    for text in clauses:
        places = _places(recording, linked, text) if linked else ()
        links = [html.Span([" ", dcc.Link(label, href=href)]) for label, href in places]
        said += [" · "] * bool(said) + [plain(_SEE.sub("", text), _LONGEST), *links]
    return html.Li(said, className=tone)


def _places(recording: str, linked: Linked, text: str) -> Sequence[Place]:
    known = pages()
    for pattern, page, find in _RULES:
        if page in known and (match := re.search(pattern, text)):
            return list(find(recording, linked, match))
    return ()


def _longest_gap(recording: str, linked: Linked, _said: re.Match[str]) -> Iterator[Place]:
    for row in longest_gaps(linked).head(1).iter_rows(named=True):
        yield "Show the longest", around(recording, row["start_ns"], row["end_ns"])


def _first(label: str, ops: Callable[[re.Match[str]], pl.Expr]) -> Any:
    """Return a rule: show the longest op of some kind in the timeline."""

    def find(recording: str, linked: Linked, said: re.Match[str]) -> Iterator[Place]:
        took = pl.col("end_ns") - pl.col("start_ns")
        found = linked.ops.lazy().filter(ops(said)).top_k(1, by=took).collect()
        for start_ns, end_ns in found.select("start_ns", "end_ns").iter_rows():
            yield label, around(recording, start_ns, end_ns)

    return find


def _most_launched(recording: str, linked: Linked, said: re.Match[str]) -> Iterator[Place]:
    phase = pl.col("phase").cast(pl.String) == said[1]
    kernels = linked.ops.lazy().filter(pl.col("kind") == "kernel", phase).group_by("name_id").len()
    for name_id in kernels.top_k(1, by="len").collect()["name_id"]:
        yield "Show the most frequent", parts.place(recording, "kernels", kernel=name_id)


def _unclassified(recording: str, linked: Linked, _said: re.Match[str]) -> Iterator[Place]:
    others = linked.names.lazy().filter(pl.col("kind") == "kernel", pl.col("family") == "other")
    took = (pl.col("end_ns") - pl.col("start_ns")).sum()
    kernels = linked.ops.lazy().filter(pl.col("kind") == "kernel").group_by("name_id").agg(t=took)
    found = kernels.join(others, on="name_id", how="semi").top_k(1, by="t").collect()
    for name_id in found["name_id"]:
        yield "Show the longest of them", parts.place(recording, "kernels", kernel=name_id)


def _overlap(recording: str, linked: Linked, _said: re.Match[str]) -> Iterator[Place]:
    """Show where work began longest before what ran on the device had ended."""
    before = pl.col("end_ns").cum_max().shift().over("device")
    both = pl.min_horizontal("end_ns", before) - pl.col("start_ns")
    ops = linked.ops.lazy().select("device", "start_ns", "end_ns").sort("device", "start_ns")
    found = ops.with_columns(both=both).top_k(1, by="both").collect()
    for start_ns, length in found.select("start_ns", "both").iter_rows():
        yield "Show the longest", around(recording, start_ns, start_ns + length)


_NOWHERE: Final = ("none", "unlinked", "ambiguous")
_RULES: Final[Sequence[tuple[str, str, Any]]] = (
    (r"^The GPU idles ", "timeline", _longest_gap),
    (
        r"ran inside CUDA graphs",
        "timeline",
        _first("Show one", lambda _: pl.col("kind") == "graph"),
    ),
    (r"^(\S+) launches .* on average", "kernels", _most_launched),
    (r"\(family other\)|[1-9].* unclassified$", "kernels", _unclassified),
    (r"^work overlaps on ", "timeline", _overlap),
    (
        r"of GPU time attributed.*(?:in no phase|ambiguous|not recorded)",
        "timeline",
        _first("Show what is not", lambda _: pl.col("how").is_in(_NOWHERE)),
    ),
)

"""Tables and figures as files of their own, for a paper: CSV, Markdown, LaTeX, SVG, an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.render import csv, latex
from tracelens.render._shape import shown
from tracelens.render.markdown import code, grid, plain
from tracelens.reports import Facts, Figure, Grid, Heading
from tracelens.reports.drawing import as_file
from tracelens.reports.tikz import picture
from tracelens.tables import Column, Filled, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Document

INDEX: Final = "index.md"
_TIKZ: Final = r"% Needs \usepackage{tikz}. To fit a column: \resizebox{\columnwidth}{!}{...}"


def files(document: Document) -> dict[str, str]:
    """Return the content of each file by its path; tables are whole in CSV, and cut elsewhere."""
    found = {INDEX: "\n".join(_index(document)) + "\n"}
    for filled in map(as_filled, document.blocks()):
        if filled is not None:
            table = shown(filled, document.top)
            found[f"tables/{filled.name}.csv"] = csv.of_one(filled)
            found[f"tables/{filled.name}.md"] = "\n\n".join(grid(table)) + "\n"
            found[f"tables/{filled.name}.tex"] = latex.alone(filled, document.top)
    for block in document.blocks():
        if isinstance(block, Figure):
            found[f"figures/{block.name}.svg"] = as_file(block)
            found[f"figures/{block.name}.tex"] = f"{_TIKZ}\n{picture(block)}\n"
    return found


def as_filled(block: object) -> Filled | None:
    """Return a block as a table under its name in the document; None if it is none."""
    if isinstance(block, Grid):
        return Filled(block.name, block.filled.table, block.filled.frame)
    if isinstance(block, Facts):
        columns = (Column("what", "what", "text"), Column("value", "value", "text"))
        frame = pl.DataFrame(block.rows, schema=["what", "value"], orient="row")
        return Filled(block.name, Table(block.name, block.title, columns, ""), frame)
    return None


def _index(document: Document) -> Iterator[str]:
    yield f"# {plain(document.title)}: tables and figures"
    yield ""
    yield "CSV holds every row and column, in ns and bytes; Markdown and LaTeX hold what the report"
    yield "shows. Tables in LaTeX need the package booktabs, figures tikz."
    for section in document.sections:
        lines = [line for block in section.blocks for line in _entry(block)]
        if lines:
            yield from ("", f"## {plain(section.title)}", "", *lines)


def _entry(block: object) -> Iterator[str]:
    if isinstance(block, Heading):
        yield f"- {plain(block.text)}:"
    if isinstance(block, Figure):
        name = f"figures/{block.name}"
        yield f"- {plain(block.title)}: [SVG](<{name}.svg>), [TikZ](<{name}.tex>)"
    elif (filled := as_filled(block)) is not None:
        name = f"tables/{filled.name}"
        links = ", ".join(f"[{kind}](<{name}.{kind}>)" for kind in ("csv", "md", "tex"))
        yield f"- {plain(filled.table.title)} ({code(filled.name)}): {links}"

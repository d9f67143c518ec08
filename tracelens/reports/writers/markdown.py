"""Markdown as GitHub shows it, with figures as SVG files beside it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING
from urllib.parse import quote

from tracelens.render._shape import one_line, shown
from tracelens.render.markdown import code, grid, plain, sentence
from tracelens.reports import Facts, Figure, Grid, Heading, Paragraph, Points
from tracelens.reports.drawing import as_file
from tracelens.reports.writers import Written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block, Document


def write(document: Document, folder: str) -> Written:
    """Return a document as Markdown."""
    figures = [b for b in document.blocks() if isinstance(b, Figure)] if folder else []
    beside = {f"{figure.name}.svg": as_file(figure) for figure in figures}
    return Written("\n\n".join(_Page(document, folder).paragraphs()) + "\n", beside)


class _Page:
    def __init__(self, document: Document, folder: str) -> None:
        self._document = document
        self._folder = folder
        self._tables = itertools.count(1)
        self._figures = itertools.count(1)

    def paragraphs(self) -> Iterator[str]:
        yield f"# {plain(self._document.title)}"
        if one_line(self._document.date):
            yield sentence(self._document.date)
        for section in self._document.sections:
            yield f"## {plain(section.title)}"
            for block in section.blocks:
                yield from self._block(block)
        if self._document.left_out:
            yield "## Sections that could not be made"
            reasons = self._document.left_out.items()
            yield "\n".join(f"- {sentence(f'{title}: {why}')}" for title, why in reasons)

    def _block(self, block: Block) -> Iterator[str]:
        match block:
            case Heading():
                yield f"### {plain(block.text)}"
            case Paragraph() if not one_line(block.text):
                return
            case Paragraph(kind="note"):
                yield f"*{plain(block.text)}*"
            case Paragraph():
                said = sentence(block.text)
                yield f"**{said}**" if block.kind == "warning" else said
            case Points():
                yield "\n".join(_points(block))
            case Facts():
                yield f"**Table {next(self._tables)}.** {plain(block.title)} ({code(block.name)})"
                yield "\n".join(_facts(block))
            case Grid():
                title = plain(block.filled.table.title)
                yield f"**Table {next(self._tables)}.** {title} ({code(block.name)})"
                yield from grid(shown(block.filled, self._document.top))
            case Figure():
                yield from self._figure(block)

    def _figure(self, figure: Figure) -> Iterator[str]:
        if not self._folder:
            return
        title = plain(figure.title)
        yield f"![{title}](<{quote(self._folder)}/{figure.name}.svg>)"
        note = f" {plain(figure.note)}" if figure.note else ""
        yield f"**Figure {next(self._figures)}.** {title}.{note}"


def _points(block: Points) -> Iterator[str]:
    for point in block.points:
        yield f"- {sentence(point.text)}"
        yield from (f"  - {sentence(text)}" for text in point.below)


def _facts(block: Facts) -> Iterator[str]:
    yield "| what | |"
    yield "| --- | --- |"
    yield from (f"| {plain(name)} | {plain(value)} |" for name, value in block.rows)

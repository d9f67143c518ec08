"""One HTML file without scripts: figures inside, light or dark, fit to print."""

from __future__ import annotations

import itertools
from html import escape
from typing import TYPE_CHECKING, Final

from tracelens.render._shape import clean, shown
from tracelens.render.html import HEAD, STYLE, grid, paragraph, text
from tracelens.reports import Facts, Figure, Grid, Heading, Paragraph, Point, Points
from tracelens.reports.writers import Written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block, Document

_STYLE: Final = """\
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem;
  border-bottom: 1px solid var(--line); } h3 { margin: 1.4rem 0 .3rem; font-size: 1rem; }
figure { margin: 1rem 0; } figcaption { color: var(--faint); font-size: .9rem; }
figcaption b { color: var(--ink); font-weight: 600; }
nav { columns: 16rem; margin: 1rem 0; font-size: .9rem; }
nav a { color: var(--faint); display: block; break-inside: avoid; }
p { max-width: 60rem; } li { max-width: 60rem; margin: .25rem 0; }
td code { white-space: nowrap; }
.facts th { vertical-align: top; } .facts td { white-space: normal; overflow-wrap: anywhere; }
@media print { a { color: inherit; text-decoration: none; } nav { display: none; }
  h2, h3, figcaption { break-after: avoid; } figure:has(svg), tr { break-inside: avoid; }
  td code { white-space: normal; } td, th { padding: .1rem .35rem; white-space: normal; } }
"""


def write(document: Document, folder: str) -> Written:  # noqa: ARG001 (nothing lies beside it)
    """Return a document as one page that loads nothing and runs nothing."""
    styles = dict.fromkeys(b.style for b in document.blocks() if isinstance(b, Figure))
    head = HEAD.format(title=text(document.title), style=STYLE + _STYLE + "".join(styles))
    return Written(head + "\n".join(_Page(document).lines()) + "\n</body>\n</html>\n")


class _Page:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._tables = itertools.count(1)
        self._figures = itertools.count(1)

    def lines(self) -> Iterator[str]:
        yield f"<h1>{text(self._document.title)}</h1>"
        if self._document.date:
            yield paragraph(self._document.date, "note")
        named = [(section.name, text(section.title)) for section in self._document.sections]
        yield "<nav>" + "".join(f'<a href="#{n}">{title}</a>' for n, title in named) + "</nav>"
        for section in self._document.sections:
            yield f'<h2 id="{section.name}">{text(section.title)}</h2>'
            for block in section.blocks:
                yield from self._block(block)
        if self._document.left_out:
            yield "<h2>Sections that could not be made</h2>"
            reasons = (Point(f"{title}: {why}") for title, why in self._document.left_out.items())
            yield from _points(Points(tuple(reasons)))

    def _block(self, block: Block) -> Iterator[str]:
        match block:
            case Heading():
                yield f"<h3><code>{escape(clean(block.text))}</code></h3>"
            case Paragraph():
                yield paragraph(block.text, block.kind)
            case Points():
                yield from _points(block)
            case Facts():
                yield "<figure>"
                yield self._caption("Table", self._tables, block.title, block.name)
                yield '<div class="wide"><table class="facts"><tbody>'
                yield from (_fact(name, value) for name, value in block.rows)
                yield "</tbody></table></div></figure>"
            case Grid():
                yield from self._grid(block)
            case Figure():
                yield f"<figure>\n{block.svg}"
                note = f"{block.title}. {block.note}" if block.note else f"{block.title}."
                yield f"{self._caption('Figure', self._figures, note)}</figure>"

    def _grid(self, block: Grid) -> Iterator[str]:
        table = shown(block.filled, self._document.top)
        yield "<figure>"
        yield self._caption("Table", self._tables, table.title, block.name)
        yield from grid(table, block.filled)
        yield from (paragraph(said, "note") for said in (table.cut, table.note) if said)
        yield "</figure>"

    @staticmethod
    def _caption(what: str, numbers: Iterator[int], title: str, name: str = "") -> str:
        named = f" (<code>{text(name)}</code>)" if name else ""
        return f"<figcaption><b>{what} {next(numbers)}.</b> {text(title)}{named}</figcaption>"


def _points(block: Points) -> Iterator[str]:
    yield "<ul>"
    for point in block.points:
        below = "".join(f"<li>{text(said)}</li>" for said in point.below)
        yield f"<li>{text(point.text)}{f'<ul>{below}</ul>' if below else ''}</li>"
    yield "</ul>"


def _fact(name: str, value: str) -> str:
    return f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>'

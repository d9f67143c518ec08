"""Bars that add up, as an SVG inside of a page: no script, and the page's own colours."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from tracelens.render._shape import clean, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.tables.bars import Bar

_WIDTH: Final = 1000
_LEFT: Final = 150
_RIGHT: Final = 90
_BAR: Final = 20
_ROW: Final = 28
_LABEL: Final = 22  # letters that stand in the margin
_LETTER: Final = 7  # of one letter, about
STYLE: Final = """\
.bars { width: 100%; height: auto; margin: .5rem 0 0; font: 13px system-ui, sans-serif; }
.bars text { fill: var(--ink); } .bars .inside { fill: #fff; font-size: 12px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: .2rem 0 .6rem;
  font-size: 13px; }
.legend span::before { content: ""; display: inline-block; width: 10px; height: 10px;
  margin-right: 6px; border-radius: 2px; background: var(--of); print-color-adjust: exact; }
"""


def drawn(title: str, bars: Sequence[Bar]) -> Iterator[str]:
    """Give the lines of a drawing: a bar per row, all on one scale from zero, and a legend."""
    most = max((sum(p.length for p in bar.parts) for bar in bars), default=0)
    if most <= 0:
        return
    height = _ROW * len(bars)
    yield f'<svg class="bars" viewBox="0 0 {_WIDTH} {height}" role="img">'
    yield f"<title>{_text(title)}</title>"
    for row, bar in enumerate(bars):
        yield from _bar(bar, row * _ROW, (_WIDTH - _LEFT - _RIGHT) / most)
    yield "</svg>"
    parts = {p.name: p.colour for bar in bars for p in bar.parts if p.length > 0}
    yield legend(list(parts.items()))


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Return names with their colours as a line of HTML."""
    spans = (f'<span style="--of:{colour}">{_text(name)}</span>' for name, colour in entries)
    return f'<p class="legend">{"".join(spans)}</p>'


def _bar(bar: Bar, top: int, scale: float) -> Iterator[str]:
    middle = top + _BAR / 2 + 5
    label = _text(shorten(clean(bar.label), _LABEL))
    yield f'<text x="{_LEFT - 10}" y="{middle}" text-anchor="end">{label}</text>'
    x = float(_LEFT)
    for part in bar.parts:
        width = part.length * scale
        if width <= 0:
            continue
        yield (
            f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}" '
            f'fill="{part.colour}"><title>{_text(f"{bar.label}, {part.name}: {part.said}")}'
            "</title></rect>"
        )
        if width > _LETTER * (len(part.name) + 2):
            yield f'<text class="inside" x="{x + 6:.1f}" y="{middle}">{_text(part.name)}</text>'
        x += width
    yield f'<text x="{x + 8:.1f}" y="{middle}">{_text(bar.said)}</text>'


def _text(text: str) -> str:
    return escape(clean(text))

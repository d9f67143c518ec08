"""Tables as strings, before a format puts them on its page: what is shown, cut and shortened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from rich.cells import cell_len

from tracelens import units

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from tracelens.tables import Column, Filled, Report

MORE = "…"
_NAME_CELLS = 33  # what a name keeps before columns are left out for it
_TEXT_CELLS = 14  # `too few steps`, `-6.9 to +6.9 %`
_WHOLE = 1 + 1e-6  # what shares of one whole may add up to, with rounding
_SELECTORS = "\ufe0e\ufe0f"


@dataclass(frozen=True)
class Strip:
    """One column as it is shown: its values and, for each, the text that stands for it."""

    column: Column
    values: Sequence[object]
    cells: Sequence[str]

    @property
    def is_number(self) -> bool:
        """Whether the cells are aligned to the right and never shortened."""
        return self.column.unit in units.NUMERIC

    @property
    def is_name(self) -> bool:
        """Whether the cells are names out of the trace, to be read letter by letter."""
        return self.column.unit == "name"

    @property
    def heading(self) -> str:
        """The heading, safe to print."""
        return clean(self.column.heading)

    @cached_property
    def width(self) -> int:
        """The terminal columns that the longest cell takes."""
        return max(cells(self.heading), max(map(cells, self.cells), default=0))

    @property
    def least(self) -> int:
        """The terminal columns below which the strip cannot be read."""
        if self.is_number:
            return self.width
        floor = _NAME_CELLS if self.is_name else _TEXT_CELLS
        return min(self.width, max(floor, cells(self.heading)))

    def shortened(self, width: int) -> Strip:
        """Return the strip with every cell at most `width` wide."""
        return replace(self, cells=[shorten(cell, width) for cell in self.cells])


@dataclass(frozen=True)
class Shown:
    """One table as it is shown.

    ``cut`` says which rows are missing, or that there are none; it is empty if all are there.
    ``dropped`` says which columns did not fit, and is empty if all did.
    """

    name: str
    title: str
    note: str
    strips: tuple[Strip, ...]
    cut: str = ""
    dropped: str = ""


def with_rows(report: Report) -> list[Filled]:
    """Return the tables to show: an empty one gives way to the reason why it is empty."""
    full = [t for t in report.tables if t.frame.height or t.name not in report.left_out]
    return full or list(report.tables)


def reasons(report: Report) -> list[str]:
    """Return why tables are missing, those with one reason together."""
    tables: dict[str, list[str]] = {}
    for name, why in report.left_out.items():
        tables.setdefault(why, []).append(name)
    return [f"{', '.join(names)}: {why}" for why, names in tables.items()]


def shown(filled: Filled, top: int | None) -> Shown:
    """Return the shown columns of a table and its first `top` rows (None or 0: all)."""
    head = filled.frame.head(top) if top else filled.frame
    columns = [column for column in filled.table.columns if column.shown]
    held = {column.name: head[column.name].to_list() for column in columns}
    strips = (_strip(c, held[c.name], _beside(c, columns, held)) for c in columns)
    return Shown(
        name=filled.name,
        title=one_line(filled.table.title),
        note=one_line(filled.table.note),
        strips=tuple(strips),
        cut=_cut(filled, head.height),
    )


def fit(table: Shown, width: int, gap: int) -> Shown:
    """Return the table at most `width` wide: names are shortened, then columns are left out.

    The last column goes first; the first column and the first number stay.
    """
    strips = list(table.strips)
    while sum(strip.least + gap for strip in strips) - gap > width:
        spare = _least_important(strips)
        if spare is None:
            break
        del strips[spare]
    widths = _share_out(strips, width - gap * (len(strips) - 1))
    return replace(
        table,
        strips=tuple(s.shortened(w) for s, w in zip(strips, widths, strict=True)),
        dropped=_dropped(table, {strip.column.name for strip in strips}),
    )


def clean(text: str) -> str:
    r"""Return a text in which nothing acts on a terminal or a page.

    Control characters, escapes, line ends and characters that turn the direction of writing are
    spelled out, as ``\x1b``. Variation selectors, which widen the character before them, are left
    out.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
        if c not in _SELECTORS
    )


def cells(text: str) -> int:
    """Return how many terminal columns a clean text takes at most."""
    return len(text) if text.isascii() else sum(map(cell_len, text))


def one_line(text: str) -> str:
    """Return a sentence of ours on one line, safe to print."""
    return clean(" ".join(text.split()))


def shorten(text: str, width: int) -> str:
    """Return a text at most `width` terminal columns wide, with `…` in the middle if need be.

    Kernel names tell apart at both ends: what it is at the front, which tiling at the back.
    """
    if cells(text) <= width:
        return text
    back = (width - 1) * 2 // 5
    front = width - 1 - back
    return f"{first(text, front)}{MORE}{first(text[::-1], back)[::-1]}"


def first(text: str, width: int) -> str:
    """Return as much of a text as fits, never half a wide character."""
    end = min(len(text), width)
    while cells(text[:end]) > width:
        end -= 1
    return text[:end]


def pad(text: str, width: int, *, right: bool) -> str:
    """Return a text filled up with spaces to `width` terminal columns."""
    blank = " " * (width - cells(text))
    return blank + text if right else text + blank


def path_of(report: Report) -> str:
    """Return where a report's trace lies, as its heading."""
    return clean(str(report.source.get("path", "")))


def _beside(
    column: Column, columns: Iterable[Column], held: Mapping[str, Sequence[object]]
) -> list[object]:
    """Return the values of the columns that share the scale of one."""
    alike = (c.name for c in columns if column.scale and c.scale == column.scale and c != column)
    return [value for name in alike for value in held[name]]


def _strip(column: Column, values: Sequence[object], beside: Iterable[object]) -> Strip:
    texts = units.column(column.unit, values, beside)
    return Strip(column, values, [clean(text) for text in texts])


def _cut(filled: Filled, height: int) -> str:
    missing = filled.frame.height - height
    if not missing:
        return "" if height else "no rows"
    rows = "row" if missing == 1 else "rows"
    return f"{MORE} and {missing:,} more {rows}{_share_of_cut(filled, height)}"


def _share_of_cut(filled: Filled, height: int) -> str:
    """Return what the missing rows amount to, where the column `share` is of one whole."""
    if not any(c.name == c.heading == c.unit == "share" for c in filled.table.columns):
        return ""
    shares = filled.frame["share"]
    if shares.sum() > _WHOLE:  # as where each of several ranks has a whole of its own
        return ""
    return f" (share {units.share(float(shares[height:].sum()))})"


def _dropped(table: Shown, kept: Container[str]) -> str:
    missing = [strip.heading for strip in table.strips if strip.column.name not in kept]
    if not missing:
        return ""
    return f"Too narrow for: {', '.join(missing)}; --table {table.name} --format csv has them."


def _least_important(strips: Sequence[Strip]) -> int | None:
    """Return the place of the last column that may be left out."""
    first_number = next((i for i, strip in enumerate(strips) if strip.is_number), 0)
    spare = [i for i in range(len(strips)) if i not in (0, first_number)]
    return spare[-1] if spare else None


def _share_out(strips: Sequence[Strip], room: int) -> list[int]:
    """Return a width for each strip: numbers get theirs, names share what is left evenly."""
    widths = [strip.width for strip in strips]
    flexible = sorted((i for i, s in enumerate(strips) if not s.is_number), key=lambda i: widths[i])
    room -= sum(width for width, s in zip(widths, strips, strict=True) if s.is_number)
    for done, i in enumerate(flexible):
        widths[i] = max(1, min(widths[i], room // (len(flexible) - done)))
        room -= widths[i]
    return widths

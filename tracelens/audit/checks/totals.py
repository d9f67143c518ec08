"""Counts under a heading or in a row called Total are the sum of the others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.audit import quantities
from tracelens.audit.printed import number, plain
from tracelens.audit.verdicts import Check, Checked, Verdict, stated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.audit.sheets import Audited, Row, Sheet

_TOTAL: Final = re.compile(r"\W*(?:total|sum|all|overall|合计|总计)\W*", re.IGNORECASE)
_FEWEST: Final = 2

Counts = tuple[int, ...]


def find(audited: Audited) -> Iterator[Checked]:
    """Check totals of whole counts, and of fractions such as 7/8, by rows and by columns."""
    for sheet in audited.sheets:
        if not sheet.guide.not_to_sum:
            yield from _by_column(sheet)
            yield from _by_row(sheet)


def _by_row(sheet: Sheet) -> Iterator[Checked]:
    last = len(sheet.grid.headings) - 1
    if last < _FEWEST or not _TOTAL.fullmatch(plain(sheet.grid.headings[last])):
        return
    for row in sheet.rows:
        parts = [_fraction(row, i) for i in range(1, last)]
        yield from _checked(row, row.cells[last], _fraction(row, last), parts)


def _by_column(sheet: Sheet) -> Iterator[Checked]:
    *rows, last = sheet.rows or (None,)
    if last is None or len(rows) < _FEWEST or not _TOTAL.fullmatch(plain(last.cells[0] or "-")):
        return
    for i in range(1, len(sheet.grid.headings)):
        read = _fraction if i in last.fractions else _count
        parts = [read(row, i) for row in rows if row is not None]
        yield from _checked(last, last.cells[i], read(last, i), parts)


def _checked(
    row: Row, cell: str, total: Counts | None, parts: Sequence[Counts | None]
) -> Iterator[Checked]:
    there = [part for part in parts if part is not None]
    if total is None or len(there) != len(parts) or len(there) < _FEWEST:
        return
    sums = tuple(map(sum, zip(*there, strict=True)))
    says = " + ".join("/".join(map(str, part)) for part in there[:12])
    verdict = Verdict.CONSISTENT if sums == total else Verdict.INCONSISTENT
    how = f"{says} = {'/'.join(map(str, sums))}, claimed {plain(cell)}"
    yield stated(
        row, f"total {plain(cell)}", verdict, how, total[0], sums[0], unit=quantities.COUNT
    )


def _fraction(row: Row, i: int) -> Counts | None:
    return row.fractions.get(i)


def _count(row: Row, i: int) -> Counts | None:
    """Return a whole number of no other quantity than a count."""
    of = [one for one in row.values if one.column == i]
    one = number(row.cells[i])
    is_count = all(value.quantity == quantities.COUNT for value in of) and of
    if one is None or not is_count or one.relation != "=" or not float(one.value).is_integer():
        return None
    return (int(one.value),)


CHECK = Check(find)

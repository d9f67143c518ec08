"""Columns that the mapping says are the sum of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.audit.printed import plain
from tracelens.audit.verdicts import Check, Checked, equal, said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.mapping import Sum
    from tracelens.audit.sheets import Audited, Row, Value


def find(audited: Audited) -> Iterator[Checked]:
    """Check the sums of the mapping."""
    for sheet, row in audited.rows():
        for one in sheet.guide.sums:
            yield from _checked(row, one)


def _checked(row: Row, one: Sum) -> Iterator[Checked]:
    total, parts = _named(row, one.total), [_named(row, name) for name in one.parts]
    there = [part for part in parts if part is not None]
    if total is None or len(there) != len(parts):
        return
    spans = [part.span for part in there]
    whole = spans[0]
    for span in spans[1:]:
        whole = whole + span
    yield equal(row, total, [whole], " + ".join(said(part) for part in there))


def _named(row: Row, name: str) -> Value | None:
    return next((v for v in row.values if name in {v.name, v.alias, plain(v.name)}), None)


CHECK = Check(find)

"""A speed-up over the row that says 1.00x is the ratio of the two rows' times or rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens.audit import quantities
from tracelens.audit.checks import _partners
from tracelens.audit.verdicts import Check, Checked, equal, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.audit.sheets import Audited, Row, Sheet, Value

_ONE: Final = frozenset({"1", "1.0", "1.00", "1.000"})


def find(audited: Audited) -> Iterator[Checked]:
    """Check the speed-ups of tables with one time or rate a row, where one row is the measure."""
    for sheet in audited.sheets:
        for rows in _groups(sheet):
            yield from _in_group(rows)


def _groups(sheet: Sheet) -> list[list[Row]]:
    """Return the rows of a table that are measured on the same."""
    groups: dict[tuple[tuple[str, tuple[float, ...]], ...], list[Row]] = {}
    for row in sheet.rows:
        groups.setdefault(tuple(sorted(row.settings.items())), []).append(row)
    return list(groups.values())


def _in_group(rows: Sequence[Row]) -> Iterator[Checked]:
    found = [(row, *pair) for row in rows if (pair := _pair(row))]
    bases = [one for one in found if one[1].text.rstrip("x× ") in _ONE]
    if len(bases) != 1 or len({measure.column for _, _, measure in found}) != 1:
        return
    (base, _, of_base), *_ = bases
    for row, claim, measure in found:
        if row is base or measure.unit_known != of_base.unit_known or claim.percent:
            continue
        is_rate = measure.quantity in quantities.RATES
        top, bottom = (measure, of_base) if is_rate else (of_base, measure)
        ratio = top.span / bottom.span
        meets = (ratio**-1).meets(claim.span) and not ratio.meets(claim.span)
        remark = "that is the other way round" if meets else ""
        yield equal(row, claim, [ratio], f"{said(top)} / {said(bottom)}", remark=remark)


def _pair(row: Row) -> tuple[Value, Value] | None:
    """Return a row's only speed-up, and the only time or else rate beside it."""
    claims = _partners.without_bounds(row.of(quantities.SPEEDUP))
    times = _partners.without_bounds(_partners.times(row))
    measures = times or _partners.without_bounds(row.of(*quantities.RATES))
    if len(claims) != 1 or len(measures) != 1 or claims[0].formula:
        return None
    return claims[0], measures[0]


CHECK = Check(find)

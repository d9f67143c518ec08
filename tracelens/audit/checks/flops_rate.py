"""FLOP/s are the operations of a row's shape, divided by the time that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens.audit import quantities
from tracelens.audit.checks import _partners
from tracelens.audit.verdicts import Check, Checked, equal, said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited, Row, Sheet, Value

_OF_ONE_SHAPE: Final = ("gemm", "attention")


def find(audited: Audited) -> Iterator[Checked]:
    """Check every rate beside a time, where the operations are known without assumptions."""
    for sheet, row in audited.rows():
        times = [one for one in _partners.times(row) if one.unit_known]
        for rate in _partners.without_bounds(row.of(quantities.FLOPS_PER_S)):
            time = _partners.partner(rate, times)
            if (
                time is not None
                and not rate.formula
                and (checked := _checked(sheet, row, rate, time))
            ):
                yield checked


def _checked(sheet: Sheet, row: Row, rate: Value, time: Value) -> Checked | None:
    found = sheet.work_of(row, time.part)
    if found is None:
        return None
    kind, work = found
    if not sheet.work.get("kind") and kind not in _OF_ONE_SHAPE:
        return None
    if work.assumed and kind != "attention":
        return None
    ways = [(time.span.into(flops), says) for flops, says in work.ways]
    ways.sort(key=lambda way: (not way[0].meets(rate.span), abs(way[0].at - rate.span.at)))
    span, says = ways[0]
    return equal(row, rate, [span], f"{says} / {said(time)}")


CHECK = Check(find)

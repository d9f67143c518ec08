"""No efficiency is above 100 %, and a share of the peak is the rate divided by that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens import hardware
from tracelens.audit import gpus, quantities
from tracelens.audit.checks import _partners
from tracelens.audit.verdicts import Check, Checked, Verdict, equal, said, stated
from tracelens.audit.wording import amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited, Row, Value

_OF_PEAK: Final = re.compile(r"\bmfu\b|\bhfu\b|% of peak|peak %", re.IGNORECASE)
_MAY_EXCEED: Final = re.compile(r"scal|speed|cpu|relative|vs\b|compared", re.IGNORECASE)


def find(audited: Audited) -> Iterator[Checked]:
    """Check every efficiency and utilisation."""
    for _, row in audited.rows():
        for value in row.of(quantities.EFFICIENCY):
            if not value.unit_known or value.relation == "<":
                continue
            if not _MAY_EXCEED.search(value.name) and (not value.is_bound or value.span.low > 1):
                yield _below_all(row, value)
            if _OF_PEAK.search(value.name) and (checked := _of_peak(row, value)):
                yield checked


def _below_all(row: Row, value: Value) -> Checked:
    above = value.span.low > 1
    return stated(
        row, f"{value.name} {value.text}",
        Verdict.IMPOSSIBLE if above else Verdict.CONSISTENT,
        f"{value.text} is {'above' if above else 'at most'} 100 %",
        value.span.at, 1.0, unit=quantities.EFFICIENCY,
    )  # fmt: skip


def _of_peak(row: Row, value: Value) -> Checked | None:
    rates = [o for o in _partners.without_bounds(row.of(quantities.FLOPS_PER_S)) if o.unit_known]
    rate = _partners.partner(value, rates) or (rates[0] if len(rates) == 1 else None)
    if rate is None or value.is_bound or not value.gpus:
        return None
    peaks = {
        peak * count: None
        for one in value.gpus
        for name in value.dtypes or tuple(one.matmul_flops_per_s)
        for peak in (one.rate(hardware.MATMUL + name), one.sparse_flops_per_s.get(name))
        for count in (1.0, *row.settings.get("gpus", ()))
        if peak
    }
    if not peaks:
        return None
    ways = [rate.span.times(1 / peak) for peak in peaks]
    nearest = min(peaks, key=lambda peak: abs(rate.span.at / peak - value.span.at))
    how = f"{said(rate)} / {amount(quantities.FLOPS_PER_S, nearest)} of {gpus.say(value.gpus)}"
    return equal(row, value, [rate.span.times(1 / nearest), *ways], how)


CHECK = Check(find)

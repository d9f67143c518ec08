"""No work is done faster than the GPU's highest rate: operations by time stay below its peak."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.audit import gpus, quantities
from tracelens.audit.checks import _partners
from tracelens.audit.interval import exact
from tracelens.audit.verdicts import Check, Checked, Verdict, said, stated
from tracelens.audit.wording import amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.interval import Interval
    from tracelens.audit.sheets import Audited, Row, Sheet, Value


def find(audited: Audited) -> Iterator[Checked]:
    """Hold every rate, and every time of known work, against the peak."""
    for sheet, row in audited.rows():
        for rate in row.of(quantities.FLOPS_PER_S):
            if rate.unit_known and rate.relation != "<":
                yield _of_rate(row, rate)
        for time in row.of(quantities.TIME):
            if checked := _of_time(sheet, row, time):
                yield checked


def _of_rate(row: Row, rate: Value) -> Checked:
    claim = f"{rate.name} {rate.text}"
    if not rate.gpus:
        return stated(row, claim, Verdict.UNCHECKED, "the GPU is not known")
    return _held(row, claim, "", rate.span, rate)


def _of_time(sheet: Sheet, row: Row, time: Value) -> Checked | None:
    if not time.unit_known or time.per_unit or time.relation == ">" or time.second:
        return None
    if time.statistic not in {*_partners.CENTRAL, "min"}:
        return None
    if not sheet.work.get("kind") and not _partners.is_of_the_whole(time):
        return None
    found = sheet.work_of(row, time.part)
    if found is None or time.span.high <= 0:
        return None
    _, work = found
    claim = f"{time.name} {time.text}"
    if not time.gpus:
        return stated(row, claim, Verdict.UNCHECKED, "the GPU is not known")
    flops, says = min(work.ways)
    assumed = f" ({work.assumed} assumed)" if work.assumed else ""
    taken = time.text if time.is_bound else said(time)
    how = f"{says} = {amount(quantities.FLOPS, flops)}{assumed} / {taken}"
    reached = exact(flops) / (exact(time.span.at) if time.is_bound else time.span)
    return _held(row, claim, f"{how} = ", reached, time)


def _held(row: Row, claim: str, how: str, rate: Interval, value: Value) -> Checked:
    """Hold the least rate that a claim can stand for against the most generous peak."""
    least, reached = rate.low, rate.at
    sparse, on = value.sparse, value.gpus
    count = max(row.settings.get("gpus", (1.0,)))
    limit = gpus.matmul_limit(on, value.dtypes, sparse=sparse) * count
    stated_peak = gpus.matmul_stated(on, value.dtypes, sparse=sparse) * count
    if not limit:
        formats = ", ".join(value.dtypes)
        return stated(row, claim, Verdict.UNCHECKED, f"no peak of {gpus.say(on)} in {formats}")
    formats = "/".join(value.dtypes) if value.dtypes else "its fastest format"
    many = f"{count:.0f} " if count > 1 else ""
    peak = f"{amount(quantities.FLOPS_PER_S, stated_peak)} of {many}{gpus.say(on)} in {formats}"
    peak += " with 2:4 sparsity" if sparse else ""
    achieved = amount(quantities.FLOPS_PER_S, reached)
    impossible = least > limit
    counted = not (
        value.quantity == quantities.FLOPS_PER_S and _partners.EFFECTIVE.search(value.name)
    )
    ending = f"{reached / stated_peak:.0%} of {peak}"
    if stated_peak < least <= limit:
        ending += ", which only a clock above the stated one explains"
    return stated(
        row,
        claim,
        _verdict(impossible, counted),
        f"{how}{achieved}, {ending}",
        reached,
        stated_peak,
        unit=quantities.FLOPS_PER_S,
    )


def _verdict(impossible: bool, counted: bool) -> Verdict:
    """Return the verdict; a rate that counts work which is not done may be above the peak."""
    if not impossible:
        return Verdict.CONSISTENT
    return Verdict.IMPOSSIBLE if counted else Verdict.UNCHECKED


CHECK = Check(find)

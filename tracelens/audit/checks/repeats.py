"""One thing measured twice must not have two values: the same series with the same settings.

What differs by no more than the tolerance of the mapping (5 %) is the noise of measuring.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tracelens.audit.verdicts import Check, Checked, Verdict, said, stated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.audit.sheets import Audited, Row, Value

_Key = tuple[str, str, tuple[tuple[str, tuple[float, ...]], ...]]


def find(audited: Audited) -> Iterator[Checked]:
    """Check the series of the mapping over all tables."""
    found: dict[_Key, list[tuple[Row, Value]]] = defaultdict(list)
    for _, row in audited.rows():
        for value in row.values:
            if value.series and not value.is_bound:
                settings = tuple(sorted(row.settings.items()))
                found[value.series, value.quantity, settings].append((row, value))
    for same in found.values():
        if len(same) > 1:
            yield from _checked(same, audited.guide.tolerance)


def _checked(same: Sequence[tuple[Row, Value]], tolerance: float) -> Iterator[Checked]:
    """Hold each value against the one that most of them agree with, the earliest of those."""

    def agree(one: Value, other: Value) -> bool:
        around = one.span.times(1 + tolerance), one.span.times(1 / (1 + tolerance))
        return other.span.low <= around[0].high and around[1].low <= other.span.high

    votes = [sum(agree(value, other) for _, other in same) for _, value in same]
    measure = same[votes.index(max(votes))]
    for row, value in same:
        if value is measure[1]:
            continue
        fine = agree(measure[1], value)
        place = f"table {measure[0].table}, row {measure[0].number}"
        how = f"{said(value)} here, {said(measure[1])} in {place} for the same ({value.series})"
        yield stated(
            row, f"{value.name} {value.text}",
            Verdict.CONSISTENT if fine else Verdict.INCONSISTENT,
            how, value.span.at, measure[1].span.at, unit=value.quantity,
        )  # fmt: skip


CHECK = Check(find)

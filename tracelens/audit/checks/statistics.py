"""Statistics of one thing agree: least to most in order, total and mean, deviation and range."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from tracelens.audit import quantities, wording
from tracelens.audit.verdicts import Check, Checked, Verdict, equal, said, stated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracelens.audit.sheets import Audited, Row, Value

_ORDER: Final = ("min", "median", "p90", "p95", "p99", "p999", "max")
_BETWEEN: Final = ("min", "mean", "max")


def find(audited: Audited) -> Iterator[Checked]:
    """Check the statistics of each thing that a row measures."""
    for _, row in audited.rows():
        groups: dict[tuple[str, frozenset[str], bool], dict[str, Value]] = defaultdict(dict)
        for value in row.values:
            if value.statistic and not value.is_bound and not value.second:
                key = (value.quantity, value.tags, value.unit_known)
                groups[key].setdefault(value.statistic, value)
        for (quantity, tags, _), found in groups.items():
            yield from _in_order(row, found)
            yield from _total(row, found, quantity)
            yield from _spread(row, found, groups.get((quantities.SHARE, tags, True), {}))


def _in_order(row: Row, found: Mapping[str, Value]) -> Iterator[Checked]:
    for order in (_ORDER, _BETWEEN):
        there = [found[name] for name in order if name in found]
        for low, high in itertools.pairwise(there):
            fine = low.span.low <= high.span.high * (1 + 1e-9)
            sign = "≤" if fine else ">"
            yield stated(
                row, f"{low.name} {low.text}",
                Verdict.CONSISTENT if fine else Verdict.INCONSISTENT,
                f"{low.name} {said(low)} {sign} {high.name} {said(high)}",
                low.span.at, high.span.at, unit=low.quantity,
            )  # fmt: skip


def _total(row: Row, found: Mapping[str, Value], quantity: str) -> Iterator[Checked]:
    counts = [one for one in row.of(quantities.COUNT) if not one.is_bound]
    if quantity == quantities.TIME and len(counts) == 1 and {"total", "mean"} <= set(found):
        (count,), mean, total = counts, found["mean"], found["total"]
        if mean.unit_known and total.unit_known:
            how = f"{wording.figure(_whole(count))} · {said(mean)}"
            yield equal(row, total, [mean.span.times(_whole(count))], how)


def _spread(row: Row, found: Mapping[str, Value], shares: Mapping[str, Value]) -> Iterator[Checked]:
    """Check std against the range (T. Popoviciu, 1935), and cv = std / mean."""
    std, mean = found.get("std"), found.get("mean")
    low, high = found.get("min"), found.get("max")
    if std and low and high:
        # Of n values it is range / 2 · sqrt(n / (n - 1)) at most, and n is two at least.
        most = (high.span.high - low.span.low) / 2**0.5
        fine = std.span.low <= most * (1 + 1e-9)
        how = f"{std.name} {said(std)}, at most ({said(high)} - {said(low)}) / √2"
        verdict = Verdict.CONSISTENT if fine else Verdict.INCONSISTENT
        yield stated(
            row, f"{std.name} {std.text}", verdict, how, std.span.at, most, unit=std.quantity
        )
    cv = shares.get("cv") or found.get("cv")
    if std and mean and cv and std is not cv:
        yield equal(row, cv, [std.span / mean.span], f"{said(std)} / {said(mean)}")


def _whole(count: Value) -> float:
    return round(count.span.at)


CHECK = Check(find)

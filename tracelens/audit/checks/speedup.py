"""A speed-up or reduction is the ratio of two columns of its row, the right way round."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tracelens.audit import quantities
from tracelens.audit.checks import _partners
from tracelens.audit.interval import Interval, exact
from tracelens.audit.verdicts import Check, Checked, Verdict, equal, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.audit.sheets import Audited, Row, Value

_ONE: Final = exact(1.0)
_OF_SPEED: Final = (
    quantities.TIME, quantities.TOKENS_PER_S, quantities.ITEMS_PER_S, quantities.REQUESTS_PER_S,
    quantities.FLOPS_PER_S, quantities.BYTES_PER_S,
)  # fmt: skip
_OVER: Final = frozenset({"vs", "over", "versus", "against", "than"})
_OF_SIZE: Final = (quantities.BYTES, quantities.TIME)


def find(audited: Audited) -> Iterator[Checked]:
    """Check every speed-up and reduction whose two columns are clear."""
    for sheet in audited.sheets:
        unsure: dict[int, list[Checked]] = defaultdict(list)
        for row in sheet.rows:
            for claim in row.of(quantities.SPEEDUP, quantities.REDUCTION):
                pair = _compared(row, claim)
                if pair and _partners.compared(*pair):
                    yield _checked(row, claim, *pair)
                elif pair:
                    unsure[claim.column].append(_checked(row, claim, *pair))
        for found in unsure.values():
            yield from _if_they_are_compared(found)


def _if_they_are_compared(found: list[Checked]) -> Iterator[Checked]:
    """Give verdicts on two columns of which no heading tells that they are compared.

    If half of the rows show that they are, the others are wrong; else nothing is known.
    """
    fine = sum(one.verdict == Verdict.CONSISTENT for one in found)
    for one in found:
        known = one.verdict == Verdict.CONSISTENT or fine * 2 >= len(found)
        yield one if known else replace(one, verdict=Verdict.UNCHECKED)


def _compared(row: Row, claim: Value) -> tuple[Value, Value] | None:
    """Return the two numbers that a claim compares; None: it is not clear."""
    if claim.is_bound or claim.formula or not claim.unit_known:
        return None
    kinds = _OF_SPEED if claim.quantity == quantities.SPEEDUP else _OF_SIZE
    return next((pair for kind in kinds if (pair := _pair(claim, _candidates(row, kind)))), None)


def _candidates(row: Row, kind: str) -> list[Value]:
    among = _partners.times(row) if kind == quantities.TIME else row.of(kind)
    return [one for one in _partners.without_bounds(among) if not one.formula]


def _pair(claim: Value, among: Sequence[Value]) -> tuple[Value, Value] | None:
    """Return the two numbers that a claim is the ratio of, in the order of their columns."""
    pair = _by_tags(claim, among)
    if pair is None or pair[0].unit_known != pair[1].unit_known or pair[0] is pair[1]:
        return None
    return pair if pair[0].column <= pair[1].column else (pair[1], pair[0])


def _by_tags(claim: Value, among: Sequence[Value]) -> tuple[Value, Value] | None:
    """Return what a heading shows to be compared: `Fwd Speedup`, `Speedup vs PyTorch`."""
    over = _OVER & claim.tags
    tags = claim.tags - _OVER
    fits = [one for one in among if tags <= one.tags]
    if len(fits) == 2 and not over:
        return fits[0], fits[1]
    bases = [one for one in among if one.tags & (tags if over else _partners.BEFORE)]
    news = [one for one in among if one.tags & _partners.AFTER] if over else fits
    news = [one for one in news if one not in bases and not one.tags & _partners.BEFORE]
    if len(bases) != 1 or len(news) != 1 or not tags:
        return None
    return bases[0], news[0]


def _checked(row: Row, claim: Value, first: Value, second: Value) -> Checked:
    order = _partners.compared(first, second)
    pairs = [order] if order else [(first, second), (second, first)]
    ways = [way for before, after in pairs for way in _ways(claim, before, after)]
    found = next((way for way in ways if way[0].meets(claim.span)), ways[0])
    if found[0].meets(claim.span) or order is None:
        return equal(row, claim, [found[0]], found[1])
    inverse = next((w for w in _ways(claim, *reversed(order)) if w[0].meets(claim.span)), None)
    remark = "that is the other way round" if inverse else ""
    return equal(row, claim, [found[0]], found[1], remark=remark)


def _ways(claim: Value, before: Value, after: Value) -> Iterator[tuple[Interval, str]]:
    """Give the ways that a gain is counted, with their arithmetic."""
    is_rate = before.quantity in quantities.RATES
    top, bottom = (after, before) if is_rate else (before, after)
    ratio = top.span / bottom.span
    says = f"{said(top)} / {said(bottom)}"
    if not claim.percent:
        yield ratio, says
    elif claim.quantity == quantities.REDUCTION:
        yield _ONE - ratio**-1, f"1 - {said(bottom)} / {said(top)}"
    else:
        yield ratio - _ONE, f"{says} - 1"
        yield _ONE - ratio**-1, f"1 - {said(bottom)} / {said(top)}"
        yield ratio, says


CHECK = Check(find)

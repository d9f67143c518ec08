"""Verdicts: what a check says of a number, with the arithmetic that led to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tracelens.audit import quantities, wording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tracelens.audit.interval import Interval
    from tracelens.audit.sheets import Audited, Row, Value


class Verdict(StrEnum):
    """How a claim stands; the first holds for a row where any number of it is so."""

    IMPOSSIBLE = "physically impossible"
    INCONSISTENT = "inconsistent"
    CONSISTENT = "consistent"
    UNCHECKED = "cannot be checked"


@dataclass(frozen=True)
class Checked:
    """What one check says of one number.

    Attributes:
        row: where it stands; a row of table 0 is a line of text.
        claim: the number with its heading.
        arithmetic: how it was recomputed, in one line.
        verdict: how it stands.
        claimed, computed: both numbers in base units; None: there is no one number.
        unit: of both: a quantity.
    """

    row: Row
    claim: str
    arithmetic: str
    verdict: Verdict
    claimed: float | None = None
    computed: float | None = None
    unit: str = ""

    @property
    def margin(self) -> float | None:
        """By which part of the computed number the claimed one is above it."""
        if self.claimed is None or not self.computed or not math.isfinite(self.computed):
            return None
        found = self.claimed / self.computed - 1
        return found if math.isfinite(found) else None


@dataclass(frozen=True)
class Check:
    """One thing that must hold; `find` gives what it says of every number that it concerns."""

    find: Callable[[Audited], Iterable[Checked]]


def equal(
    row: Row,
    value: Value,
    computed: Iterable[Interval],
    how: str,
    *,
    remark: str = "",
    bad: Verdict = Verdict.INCONSISTENT,
) -> Checked:
    """Say whether a number can be what follows from others, in any of the ways it may be counted.

    ``how`` is the arithmetic without its result.
    """
    ways = list(computed)
    fits = [one for one in ways if one.meets(value.span)]
    nearest = fits[0] if fits else min(ways, key=lambda one: _distance(one, value.span))
    result = wording.amount(value.quantity, nearest.at, percent=value.percent)
    ending = f" ({remark})" if remark and not fits else ""
    return Checked(
        row=row,
        claim=f"{value.name} {value.text}",
        arithmetic=f"{how} = {result}, claimed {value.text}{ending}",
        verdict=Verdict.CONSISTENT if fits else bad,
        claimed=value.span.at,
        computed=nearest.at,
        unit=value.quantity,
    )


def stated(
    row: Row, claim: str, verdict: Verdict, arithmetic: str, *numbers: float | None, unit: str = ""
) -> Checked:
    """Return a verdict on something else than one number; numbers are claimed, then computed."""
    claimed, computed = (*numbers, None, None)[:2]
    return Checked(row, claim, arithmetic, verdict, claimed, computed, unit)


def said(value: Value) -> str:
    """Return a number as a term of arithmetic, with its unit."""
    if value.unit_known and value.quantity != quantities.NUMBER:
        return wording.amount(value.quantity, value.span.at, percent=value.percent)
    return value.text


def _distance(one: Interval, other: Interval) -> float:
    gap = max(one.low - other.high, other.low - one.high)
    return gap if math.isfinite(gap) else math.inf

"""Statements that the mapping gives a formula for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.audit import formula, names, quantities, wording
from tracelens.audit.checks import _text
from tracelens.audit.printed import number
from tracelens.audit.verdicts import Check, Checked, Verdict, stated
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.interval import Interval
    from tracelens.audit.mapping import Claim
    from tracelens.audit.sheets import Audited


def find(audited: Audited) -> Iterator[Checked]:
    """Check the claims of the mapping."""
    known = names.of_guide(audited)
    for nth, claim in enumerate(audited.guide.claims, 1):
        computed = formula.value(claim.formula, known)
        printed = number(claim.claimed)
        if printed is None:
            raise UsageError(f"claimed = {claim.claimed!r} of {claim.says[:40]!r} is no number.")
        quantity = printed.quantity
        span = printed.span(printed.scale)
        fine = _holds(claim, span, computed)
        bad = Verdict.IMPOSSIBLE if claim.impossible else Verdict.INCONSISTENT
        percent = quantity == quantities.SHARE
        result = wording.amount(quantity, computed.at, percent=percent)
        claimed = "claimed" if claim.relation == "=" else f"claimed {claim.relation}"
        because = f" ({claim.because})" if claim.because else ""
        yield stated(
            _text.of_line(claim.line, claim.says, nth),
            f"{claim.says}: {claim.claimed}",
            Verdict.CONSISTENT if fine else bad,
            f"{claim.formula} = {result}, {claimed} {claim.claimed}{because}",
            span.at,
            computed.at,
            unit=quantity,
        )


def _holds(claim: Claim, span: Interval, computed: Interval) -> bool:
    if claim.relation == "at least":
        return span.low <= computed.high
    if claim.relation == "at most":
        return span.high >= computed.low
    return span.meets(computed)


CHECK = Check(find)

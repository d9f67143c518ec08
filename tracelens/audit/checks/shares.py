"""Shares of one whole: each part divided by its share gives the same whole, and none exceed it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.audit import quantities, wording
from tracelens.audit.interval import common
from tracelens.audit.verdicts import Check, Checked, Verdict, said, stated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.interval import Interval
    from tracelens.audit.sheets import Audited, Row, Value

_OF_A_WHOLE: Final = re.compile(
    r"^(?:time|share|% of total|percent|time ?\(?%\)?|% ?time)", re.IGNORECASE
)
_FEWEST: Final = 2


def find(audited: Audited) -> Iterator[Checked]:
    """Check tables with a column of shares and one of totals."""
    for sheet in audited.sheets:
        found = [(row, *pair) for row in sheet.rows if (pair := _pair(row))]
        if len(found) >= _FEWEST:
            yield from _of_one_whole(found)


def _pair(row: Row) -> tuple[Value, Value] | None:
    shares = [o for o in row.of(quantities.SHARE) if _OF_A_WHOLE.match(o.name) and not o.is_bound]
    totals = [o for o in row.of(quantities.TIME) if o.statistic == "total" and o.unit_known]
    if len(shares) != 1 or len(totals) != 1 or shares[0].span.low <= 0:
        return None
    return shares[0], totals[0]


def _of_one_whole(found: list[tuple[Row, Value, Value]]) -> Iterator[Checked]:
    wholes = [total.span / share.span for _, share, total in found]
    for i, (row, share, total) in enumerate(found):
        others = common(wholes[:i] + wholes[i + 1 :])
        whole = others or _most_common(wholes)
        if whole is None:
            continue
        fine = wholes[i].meets(whole)
        part = total.span.at / whole.at
        how = (
            f"{said(total)} / {wording.amount(quantities.TIME, whole.at)}, the whole by the "
            f"other rows, = {wording.amount(quantities.SHARE, part)}, claimed {share.text}"
        )
        yield stated(
            row, f"{share.name} {share.text}",
            Verdict.CONSISTENT if fine else Verdict.INCONSISTENT,
            how, share.span.at, part, unit=quantities.SHARE,
        )  # fmt: skip


def _most_common(wholes: list[Interval]) -> Interval | None:
    """Return the whole that most rows agree on; None: no two thirds do."""
    best = max(wholes, key=lambda one: sum(one.meets(other) for other in wholes))
    agree = [other for other in wholes if best.meets(other)]
    return common(agree) if len(agree) * 3 > len(wholes) * 2 else None


CHECK = Check(find)

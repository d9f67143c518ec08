"""A change in per cent is the ratio of its numbers less one: `drops by 48 % (80.6 -> 41.8)`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.audit import quantities
from tracelens.audit.checks import _text
from tracelens.audit.interval import Interval, exact
from tracelens.audit.printed import begin, number
from tracelens.audit.verdicts import Check, Checked, Verdict, stated
from tracelens.audit.wording import amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited, Row

_NUMBER: Final = r"[~≈]?\d[\d,]*(?:\.\d+)?\s?[A-Za-zµ/]{0,6}"
_CHANGE: Final = re.compile(
    r"\b(?:drops?|dropped|reduces?|reduced|reduction|decreases?|decreased|falls?|fell|saves?|saved|"
    r"lowers?|lowered|shrinks?|shrank|cuts?|increases?|increased|rises?|rose|grows?|grew|"
    r"improves?|improved|gains?|gained|up|down)\s(?:\w+\s){0,3}?(?:by\s)?"
    r"(?P<percent>[~≈]?\s?\d{1,4}(?:\.\d+)?\s?%)[^.;|%]{0,60}?"
    rf"(?P<before>(?<![\d.,]){_NUMBER})\s*(?:->|→|=>)\s*(?P<after>{_NUMBER})"
)
_ONE: Final = exact(1.0)


def find(audited: Audited) -> Iterator[Checked]:
    """Check changes in words that give both numbers."""
    for row, text in _text.passages(audited):
        for match in _CHANGE.finditer(text):
            if checked := _checked(row, match):
                yield checked


def _checked(row: Row, match: re.Match[str]) -> Checked | None:
    (before, _), (after, _) = begin(match["before"].strip()), begin(match["after"].strip())
    percent = number(match["percent"])
    if before is None or after is None or percent is None or not before.value or not after.value:
        return None
    claimed = percent.span(percent.scale)
    first, second = before.span(1.0, 0), after.span(1.0, 0)
    ratios = [_size(second / first - _ONE), _size(first / second - _ONE)]
    found = next((one for one in ratios if one.meets(claimed)), ratios[0])
    verdict = Verdict.CONSISTENT if found.meets(claimed) else Verdict.INCONSISTENT
    how = (
        f"|{match['after'].strip()} / {match['before'].strip()} - 1| = "
        f"{amount(quantities.SHARE, found.at)}, claimed {match['percent'].strip()}"
    )
    return stated(row, match[0], verdict, how, claimed.at, found.at, unit=quantities.SHARE)


def _size(change: Interval) -> Interval:
    return -change if change.high < 0 else change


CHECK = Check(find)

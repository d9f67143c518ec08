"""A percentage beside two counts is the one divided by the other: `98.0 % (498/508)`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.audit import quantities
from tracelens.audit.checks import _text
from tracelens.audit.interval import exact
from tracelens.audit.printed import number
from tracelens.audit.verdicts import Check, Checked, Verdict, equal, stated
from tracelens.audit.wording import amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited, Row

_PERCENT: Final = r"(?P<percent>[~≈]?\s?\d{1,3}(?:\.\d+)?\s?%)"
_COUNTS: Final = r"(?P<part>\d[\d,]*)\s?(?:/|of|out of)\s?(?P<whole>\d[\d,]*)(?![\d.,]*\d)"
_BESIDE: Final = (
    re.compile(
        rf"{_PERCENT}[^()\d%|;]{{0,40}}\(\s*{_COUNTS}\s*(?:passed|tests?|runs?|cases|files|ok|done)?\s*\)"
    ),
    re.compile(
        rf"(?<![\d.,]){_COUNTS}[^()\d%|;]{{0,20}}\(\s*{_PERCENT}(?:passed|tests?|runs?|cases|files|ok|done)?\s*\)"
    ),
    re.compile(rf"(?<![\d.,]){_COUNTS}\s*=\s*{_PERCENT}"),
)
_OF_COUNTS: Final = re.compile(r"rate|success|pass|accuracy|share|%|percent", re.IGNORECASE)


def find(audited: Audited) -> Iterator[Checked]:
    """Check percentages beside counts in words, and in two columns of one row."""
    for row, text in _text.passages(audited):
        for pattern in _BESIDE:
            for match in pattern.finditer(text):
                yield _in_words(row, match)
    for _, row in audited.rows():
        yield from _in_columns(row)


def _in_words(row: Row, match: re.Match[str]) -> Checked:
    part, whole = (int(match[name].replace(",", "")) for name in ("part", "whole"))
    claimed = number(match["percent"])
    says = f"{part:,} / {whole:,}"
    if claimed is None or not whole:
        return stated(row, match[0], Verdict.UNCHECKED, f"{says} is no share")
    span, share = claimed.span(claimed.scale), exact(part / whole)
    verdict = Verdict.CONSISTENT if share.meets(span) else Verdict.INCONSISTENT
    how = f"{says} = {amount(quantities.SHARE, part / whole)}, claimed {match['percent'].strip()}"
    return stated(row, match[0], verdict, how, span.at, share.at, unit=quantities.SHARE)


def _in_columns(row: Row) -> Iterator[Checked]:
    shares = [
        one
        for one in row.of(quantities.SHARE)
        if _OF_COUNTS.search(one.name) and one.column not in row.fractions
    ]
    if len(shares) == 1 and len(row.fractions) == 1 and not shares[0].is_bound:
        ((part, whole),) = row.fractions.values()
        yield equal(row, shares[0], [exact(part / whole)], f"{part:,} / {whole:,}")


CHECK = Check(find)

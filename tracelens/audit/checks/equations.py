"""Arithmetic that is written out must come to what is said: `6,807 × 4 = 27,228`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.audit import quantities, wording
from tracelens.audit.checks import _text
from tracelens.audit.formula import value as worked_out
from tracelens.audit.printed import begin
from tracelens.audit.verdicts import Check, Checked, Verdict, stated
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited, Row

_FIGURE: Final = r"\d[\d,]*(?:\.\d+)?"
_EQUATION: Final = re.compile(
    rf"(?:(?<![\w.,\-/=^])|(?<=[A-Za-z]=))(?P<left>{_FIGURE}(?:\s*(?:[×*÷/+]|\s[x−–-]\s)\s*(?:[A-Za-z_]\w*\s*=\s*)?{_FIGURE})+)"
    r"\s*=\s*(?:\*\*)?"
    rf"(?P<right>[~≈]?\s?{_FIGURE}\s?(?:[%x×+]|[kKMGT]?i?B\b|[A-Za-z]+/s\b)?)(?!\s*[×*÷/^=])"
)
_EFFICIENCY: Final = re.compile(r"efficien|utili[sz]", re.IGNORECASE)
_OPERATORS: Final = {"×": "*", "÷": "/", "x": "*", "−": "-", "–": "-"}


def find(audited: Audited) -> Iterator[Checked]:
    """Check every equation of plain numbers, in text and in cells."""
    for row, text in _text.passages(audited):
        for match in _EQUATION.finditer(text):
            if checked := _checked(row, match):
                yield checked


def _checked(row: Row, match: re.Match[str]) -> Checked | None:
    left = re.sub(r"[A-Za-z_]\w*\s*=\s*", "", match["left"])
    for sign, operator in _OPERATORS.items():
        left = left.replace(sign, operator)
    claimed, _ = begin(match["right"].strip())
    if claimed is None:
        return None
    try:
        result = worked_out(left.replace(",", ""), {})
    except UsageError:
        return None
    percent = claimed.quantity == quantities.SHARE
    span = claimed.span(claimed.scale if percent else 1.0, claimed.trailing)
    if claimed.relation == ">":  # `= 58+`
        span = claimed.span(1.0)
    fine = result.meets(span)
    said = wording.amount("", result.at, percent=percent)
    how = f"{match['left'].strip()} = {said}, claimed {match['right'].strip()}"
    verdict = Verdict.CONSISTENT if fine else Verdict.INCONSISTENT
    if percent and span.low > 1 and _EFFICIENCY.search(match.string[: match.start()]):
        verdict, how = Verdict.IMPOSSIBLE, f"{how}: no efficiency is above 100 %"
    return stated(row, match[0], verdict, how, span.at, result.at)


CHECK = Check(find)

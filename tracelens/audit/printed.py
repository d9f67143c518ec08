"""Numbers as people print them: `1.17M tok/s`, `~2 ms`, `<4.5`, `80.6 -> 82.5`, `498/508`."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import Final, Literal

from tracelens.audit import quantities
from tracelens.audit.interval import Interval
from tracelens.audit.repair import repaired

Relation = Literal["=", "~", "<", ">"]

_LONGEST: Final = 200
_LARGEST: Final = 1e30
_REMEMBERED: Final = 4096  # a cell is asked a dozen times
_MULTIPLES: Final = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
_DIGITS: Final = (
    r"(?:\d{1,3}(?:[,_'\u202f\u00a0]\d{3})+(?!\d)(?:\.\d*)?"  # 12,345.6
    r"|\d{1,3}(?:,\d{3,4})*,\d{3}(?!\d)"  # 2,0971,520: a comma in the wrong place
    r"|0,\d+(?!\d)|\d+,\d{1,2}(?![\d,])"  # 0,513: a decimal comma
    r"|\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3}(?![\w.]))?"
)
_BEFORE: Final = re.compile(
    r"\s*(?:(?P<relation>[~≈<>≤≥=]=?|about|around|approx\.?|ca\.?|up to|over|under)\s*)?"
    r"(?P<sign>[-−–]|\+)?\s?",
    re.IGNORECASE,
)
_NUMBER: Final = re.compile(_DIGITS)
_UNIT: Final = re.compile(r"\s?([%×]|[A-Za-zµμ]+(?:\s?/\s?[A-Za-z]+| per [A-Za-z]+)?)")
_MULTIPLE: Final = re.compile(r"([kKMBGT])(?=$|[\s),;+|]|[x×]\b)\s?")
_MARKUP: Final = re.compile(r"\*\*|__|`|~~|</?\w+>|\\(?=\W)")
_SPREAD: Final = re.compile(r"\s*(?:±|\+/-|\+-)\s*" + _DIGITS)
_PAIR: Final = re.compile(r"\s*(?:->|→|=>|⇒)\s*")
_FRACTION: Final = re.compile(r"\s*(\d[\d,]*)\s*/\s*(\d[\d,]*)(?![\d.,]*\d)(?!\s*[A-Za-z]*/)")
_ABSENT: Final = re.compile(
    r"[-–—.?\s]*|n\.?/?a\.?|nan|none|null|-1(?:\.0*)?|(?:c?uda ?)?oom|out of memory|err|error|"
    r"fail|failed|failure|-?inf(?:inity)?|tbd|skipped|timeout|❌.*",
    re.IGNORECASE,
)
_RELATIONS: Final[dict[str, Relation]] = {
    "<": "<", "≤": "<", "<=": "<", "under": "<", "up to": "<",
    ">": ">", "≥": ">", ">=": ">", "over": ">", "=": "=", "==": "=",
}  # fmt: skip


@dataclass(frozen=True)
class Printed:
    """A number with its unit, as it is printed.

    Attributes:
        value: the number, multiples such as `K` included, in the unit that was printed.
        ulp: what one more in the last digit would be.
        relation: `=`; `~` for about; `<` and `>` for bounds.
        quantity: what the unit is of; empty without a unit.
        scale: base units in one of the printed unit.
        multiple: `k`, `m`, ... if one was printed: 12K may stand for 12,000 or 12,288.
        trailing: how many zeros a whole number ends in; they may be rounding.
        rest: what else stands in the cell.
    """

    value: float
    ulp: float
    relation: Relation = "="
    quantity: str = ""
    scale: float = 1.0
    multiple: str = ""
    trailing: int = 0
    rest: str = ""

    def span(self, scale: float, rounded_to: int | None = None) -> Interval:
        """Return all that the number can stand for, times `scale`.

        A number may have been rounded, or cut off after its last digit, as many programs do.
        ``rounded_to`` is how many zeros at the end of a whole number are rounding; without it,
        none of a number that claims to be exact and all of one that says `about`.
        """
        value, size = self.value, abs(self.value)
        zeros = self.trailing if rounded_to is None and self.relation == "~" else rounded_to or 0
        ulp = self.ulp * 10 ** min(zeros, self.trailing)
        if self.relation == "<":
            return Interval(-math.inf, value * scale, value * scale)
        if self.relation == ">":
            return Interval(value * scale, math.inf, value * scale)
        down, up = (ulp, ulp) if self.relation == "~" else (ulp / 2, ulp)
        low, high = (size - down) * scale, (size + up) * scale
        return (
            Interval(low, high, value * scale)
            if value >= 0
            else Interval(-high, -low, value * scale)
        )


@functools.lru_cache(_REMEMBERED)
def plain(text: str) -> str:
    """Return a cell without the marks that make it bold or code."""
    return _MARKUP.sub("", repaired(text[:_LONGEST])).strip()


@functools.lru_cache(_REMEMBERED)
def is_absent(text: str) -> bool:
    """Tell whether a cell says that there is no number: a dash, n/a, OOM, -1."""
    return _ABSENT.fullmatch(plain(text)) is not None


@functools.lru_cache(_REMEMBERED)
def number(text: str) -> Printed | None:
    """Return the number that a text begins with, if it is all that it says in figures."""
    said = plain(text)
    if len(text) > _LONGEST or is_absent(said):
        return None
    said = _SPREAD.sub("", said, count=1)
    found, end = begin(said)
    if found is None:
        return None
    rest = said[end:]
    in_words = re.sub(r"\([^)]*\)", "", rest)
    if re.search(r"\d", in_words) or in_words.lstrip().startswith(("/", ":", "-")):
        return None
    return Printed(**{**vars(found), "rest": rest.strip()})


def begin(said: str, at: int = 0) -> tuple[Printed | None, int]:
    """Return the number with its unit that stands at a place, and where it ends."""
    before = _BEFORE.match(said, at)
    start = before.end() if before else at
    digits = _NUMBER.match(said, start)
    if digits is None or (start and said[start - 1].isalpha()):
        return None, at
    value, ulp, trailing = _read(digits[0])
    if not value <= _LARGEST:
        return None, at
    end = digits.end()
    multiple, end = _multiple(said, end)
    factor = _MULTIPLES.get(multiple, 1.0)
    quantity, scale, end = _unit(said, end)
    if not quantity and said[end : end + 1] == "+":
        end, relation = end + 1, ">"
    else:
        relation = _relation(before["relation"] if before else None)
    sign = -1 if before and before["sign"] in {"-", "−", "–"} else 1
    return (
        Printed(
            sign * value * factor, ulp * factor, relation, quantity, scale, multiple, trailing  # type: ignore[arg-type]
        ),
        end,
    )  # fmt: skip


@functools.lru_cache(_REMEMBERED)
def pair(text: str) -> tuple[Printed, Printed] | None:
    """Return both numbers of `80.6 -> 82.5 GB`; a unit after the second is that of both."""
    parts = _PAIR.split(plain(text))
    if len(parts) != 2:
        return None
    first, second = number(parts[0]), number(parts[1])
    if first is None or second is None:
        return None
    if not first.quantity and second.quantity:
        first = Printed(**{**vars(first), "quantity": second.quantity, "scale": second.scale})
    return first, second


@functools.lru_cache(_REMEMBERED)
def fraction(text: str) -> tuple[int, int] | None:
    """Return the counts of `35/40 done`."""
    found = _FRACTION.match(plain(text))
    if found is None or re.search(r"\d", plain(text)[found.end() :]):
        return None
    part, whole = (int(digits.replace(",", "")) for digits in found.groups())
    return (part, whole) if whole else None


def _read(digits: str) -> tuple[float, float, int]:
    """Return value, unit of the last digit, and zeros at the end of a whole number."""
    mantissa, _, exponent = digits.lower().partition("e")
    if re.fullmatch(r"0,\d+|\d+,\d{1,2}", mantissa):
        mantissa = mantissa.replace(",", ".")
    mantissa = re.sub(r"[,_'\u202f\u00a0]", "", mantissa)
    whole, _, decimals = mantissa.partition(".")
    power = int(exponent or 0)
    trailing = len(whole) - len(whole.rstrip("0")) if "." not in mantissa else 0
    trailing = trailing if whole.strip("0") else 0
    try:
        return float(f"{mantissa}e{power}"), 10.0 ** (power - len(decimals)), trailing
    except OverflowError:
        return math.inf, math.inf, 0


def _multiple(said: str, at: int) -> tuple[str, int]:
    found = _MULTIPLE.match(said, at)
    if found:
        return found[1].lower(), found.end()
    return "", at


def _unit(said: str, at: int) -> tuple[str, float, int]:
    found = _UNIT.match(said, at)
    while found:
        known = quantities.unit(found[1])
        if known:
            return *known, found.end()
        shorter = re.match(r"\s?([A-Za-zµμ]+)(?=\s?/| per )", found[0])
        if shorter is None:
            break
        known = quantities.unit(shorter[1])
        return (*known, at + shorter.end()) if known else ("", 1.0, at)
    return "", 1.0, at


def _relation(said: str | None) -> Relation:
    if said is None:
        return "="
    return _RELATIONS.get(said.lower(), "~")

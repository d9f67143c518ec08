"""Bytes per second are bytes by time, and never more than the GPU's memory moves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.audit import gpus, quantities
from tracelens.audit.checks import _partners
from tracelens.audit.verdicts import Check, Checked, Verdict, equal, said, stated
from tracelens.audit.wording import amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited, Row, Value

_NOT_OF_MEMORY: Final = re.compile(
    r"bus|alg|nvlink|pci|net|infiniband|host|h2d|d2h|l1|l2|shared|cache|disk", re.IGNORECASE
)
_OF_LINKS: Final = re.compile(r"all.?reduce|nccl|collective|nvlink|pcie|network", re.IGNORECASE)
_MOVED: Final = re.compile(r"bytes|size|traffic|moved|transfer|read|writ|data", re.IGNORECASE)
_COUNTED: Final = (1.0, 2.0)  # a copy reads and writes


def find(audited: Audited) -> Iterator[Checked]:
    """Check every bandwidth against the memory's, and against bytes and a time beside it."""
    for sheet, row in audited.rows():
        for rate in row.of(quantities.BYTES_PER_S):
            if _OF_LINKS.search(sheet.title):
                continue
            if not rate.unit_known or rate.relation == "<" or _NOT_OF_MEMORY.search(rate.name):
                continue
            if rate.gpus:
                yield _of_memory(row, rate)
            if not rate.is_bound and not rate.formula and (checked := _of_bytes(row, rate)):
                yield checked


def _of_memory(row: Row, rate: Value) -> Checked:
    count = max(row.settings.get("gpus", (1.0,)))
    limit = gpus.bandwidth_limit(rate.gpus) * count
    caches = max((one.l2_bytes or 0 for one in rate.gpus), default=0)
    moved = [one.span.high for one in row.of(quantities.BYTES) if _MOVED.search(one.name)]
    impossible = rate.span.low > limit
    how = f"{said(rate)} is {rate.span.at / limit:.0%} of the memory of {gpus.say(rate.gpus)}"
    how += f" ({amount(quantities.BYTES_PER_S, limit)} at most)"
    verdict = Verdict.IMPOSSIBLE if impossible else Verdict.CONSISTENT
    if impossible and moved and min(moved) <= caches:
        verdict, how = Verdict.UNCHECKED, f"{how}; so few bytes may stay in the L2 cache"
    elif impossible and _partners.EFFECTIVE.search(rate.name):
        verdict, how = (
            Verdict.UNCHECKED,
            f"{how}; an effective rate counts bytes that are not moved",
        )
    return stated(
        row, f"{rate.name} {rate.text}", verdict, how, rate.span.at, limit, unit=rate.quantity
    )


def _of_bytes(row: Row, rate: Value) -> Checked | None:
    times = [one for one in _partners.times(row) if one.unit_known]
    time = _partners.partner(rate, times)
    moved = [o for o in row.of(quantities.BYTES) if _MOVED.search(o.name) and o.unit_known]
    if time is None or len(moved) != 1:
        return None
    (size,) = moved
    binary = _binary(size)
    ways = [(size.span / time.span).times(n * b) for n in _COUNTED for b in binary]
    return equal(row, rate, ways, f"{said(size)} / {said(time)}")


def _binary(size: Value) -> tuple[float, ...]:
    """Return the factors that a size may be larger by: MB are often MiB."""
    power = next(
        (p for p, unit in enumerate("kmgt", 1) if f"{unit}b" in f"{size.name} {size.text}".lower()),
        0,
    )
    return (1.0, 1.024**power)


CHECK = Check(find)

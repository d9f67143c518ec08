"""Requests or tokens per second are how many were served, divided by how long that took."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.audit import quantities, wording
from tracelens.audit.checks import _partners
from tracelens.audit.verdicts import Check, Checked, equal, said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited

_COUNTED: Final = {
    quantities.REQUESTS_PER_S: re.compile(r"request|quer|prompt", re.IGNORECASE),
    quantities.TOKENS_PER_S: re.compile(r"tok", re.IGNORECASE),
}


def find(audited: Audited) -> Iterator[Checked]:
    """Check every rate that stands beside one count of the same and one whole time."""
    for _, row in audited.rows():
        times = [
            t for t in row.of(quantities.TIME) if t.unit_known and _partners.OF_ALL.search(t.name)
        ]
        for rate in row.of(*_COUNTED):
            counts = [c for c in row.of(quantities.COUNT) if _COUNTED[rate.quantity].search(c.name)]
            if len(times) == len(counts) == 1 and not rate.is_bound:
                (time,), (count,) = times, counts
                how = f"{wording.figure(count.span.at)} / {said(time)}"
                yield equal(row, rate, [count.span / time.span], how)


CHECK = Check(find)

"""Requests per second times latency are the requests in flight: never more than there are clients.

J. D. C. Little, *A Proof for the Queuing Formula L = λW*, Operations Research 9(3), 1961.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.audit import quantities, wording
from tracelens.audit.checks import _partners
from tracelens.audit.verdicts import Check, Checked, Verdict, said, stated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited


def find(audited: Audited) -> Iterator[Checked]:
    """Check every rate of requests that stands beside a latency."""
    for _, row in audited.rows():
        times = [t for t in _partners.times(row) if t.unit_known]
        for rate in row.of(quantities.REQUESTS_PER_S):
            time = _partners.partner(rate, times)
            if time is None or rate.is_bound:
                continue
            flying = rate.span * time.span
            how = f"{said(rate)} · {said(time)} = {wording.figure(flying.at)} in flight"
            claim = f"{rate.name} {rate.text}"
            most = row.settings.get("concurrency")
            if most is None:
                fine = flying.below(1.0)
                verdict = Verdict.CONSISTENT if fine else Verdict.UNCHECKED
                ending = "one at a time is enough" if fine else "how many there are is not said"
                yield stated(row, claim, verdict, f"{how}; {ending}")
                continue
            verdict = Verdict.CONSISTENT if flying.below(max(most)) else Verdict.IMPOSSIBLE
            bound = time.span.into(max(most))
            yield stated(
                row, claim, verdict, f"{how}, of {max(most):.0f} at most",
                rate.span.at, bound.at, unit=rate.quantity,
            )  # fmt: skip


CHECK = Check(find)

"""Tokens or items per second are what a batch holds, divided by the time that it takes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from tracelens.audit import quantities, wording
from tracelens.audit.checks import _partners
from tracelens.audit.verdicts import Check, Checked, Verdict, equal, said, stated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited, Row, Value


def find(audited: Audited) -> Iterator[Checked]:
    """Check every throughput that stands beside a time."""
    for _, row in audited.rows():
        times = [one for one in _partners.times(row) if one.unit_known]
        for rate in row.of(quantities.TOKENS_PER_S, quantities.ITEMS_PER_S):
            time = _partners.partner(rate, times)
            if time is not None and not rate.is_bound and not rate.formula:
                yield _checked(row, rate, time)


def _checked(row: Row, rate: Value, time: Value) -> Checked:
    items = _items(row, rate.quantity)
    what = "tokens" if rate.quantity == quantities.TOKENS_PER_S else "items"
    if not items:
        return stated(
            row,
            f"{rate.name} {rate.text}",
            Verdict.UNCHECKED,
            f"how many {what} are in a batch is not known; {rate.text} in {said(time)} would be "
            f"{wording.figure((rate.span * time.span).at)}",
        )
    ways = [time.span.into(count) for count in items]
    fitting = next(
        (n for n, way in zip(items, ways, strict=True) if way.meets(rate.span)), items[0]
    )
    how = f"{wording.figure(fitting)} {what} / {said(time)}"
    return equal(row, rate, [time.span.into(fitting)], how)


def _items(row: Row, quantity: str) -> list[float]:
    """Return how many tokens or items a batch holds, each way that they may be counted.

    All GPUs may be counted or one; decoding gives one token a sequence.
    """
    settings = row.settings
    batches = settings.get("batch", ())
    gpus = settings.get("gpus", (1.0,))
    if quantity == quantities.ITEMS_PER_S:
        counts = list(batches)
    else:
        seqs = settings.get("seq", ())
        counts = [b * s for b, s in itertools.product(batches, seqs)]
        new = settings.get("new_tokens", ())
        counts += [b * n for b, n in itertools.product(batches, new)]
        counts += [b * (s + n) for b, s, n in itertools.product(batches, seqs, new)]
        counts += list(settings.get("m", ())) if not counts else []
    steps = settings.get("accumulation", (1.0,))
    counts += list(batches) if quantity == quantities.TOKENS_PER_S and counts else []
    for times in (gpus, steps):
        counts += [count * n for count in counts for n in times if n > 1]
    return counts


CHECK = Check(find)

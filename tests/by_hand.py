"""What a torch.profiler trace tells, worked out event by event in plain Python.

Slow, and by other means than tracelens: a sweep over the events of each thread.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Event = dict[str, Any]
_GPU = ("kernel", "gpu_memcpy", "gpu_memset")


def ns(event: Event, key: str = "ts") -> int:
    """Return a time of an event in nanoseconds."""
    return round(event[key] * 1_000)


@dataclass
class Trace:
    """The events of a trace by category."""

    by_cat: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))

    @property
    def gpu_work(self) -> list[Event]:
        """Kernels, copies and memsets."""
        return [event for cat in _GPU for event in self.by_cat[cat]]

    def launching(self) -> Iterator[tuple[Event, Event, tuple[Event, ...]]]:
        """Give each GPU event, its call, and the ops around that call, the outermost first."""
        calls = {e["args"]["correlation"]: e for cat in ("cuda_runtime", "cuda_driver")
                 for e in self.by_cat[cat]}  # fmt: skip
        work = [(calls[e["args"]["correlation"]], e) for e in self.gpu_work]
        around = self.around([call for call, _ in work], self.by_cat["cpu_op"])
        for (call, event), ops in zip(work, around, strict=True):
            yield event, call, ops

    def around(self, moments: Sequence[Event], spans: Sequence[Event]) -> list[tuple[Event, ...]]:
        """Return, of each event, the spans of its thread that are open when it begins."""
        marks = [(e["tid"], ns(e), 1, ns(e) + ns(e, "dur"), i) for i, e in enumerate(spans)]
        # At one time what ends comes first, then what begins, the longest first.
        ordered = sorted(
            [(tid, end, 0, 0, i) for tid, _, _, end, i in marks]
            + [(tid, begin, 1, -end, i) for tid, begin, _, end, i in marks]
            + [(e["tid"], ns(e), 2, 0, i) for i, e in enumerate(moments)]
        )
        found: list[tuple[Event, ...]] = [()] * len(moments)
        open_now: list[int] = []
        for _, _, what, _, i in ordered:
            if what == 0:
                open_now.remove(i)
            elif what == 1:
                open_now.append(i)
            else:
                found[i] = tuple(spans[j] for j in open_now)
        return found


def read(path: Path) -> Trace:
    """Read a trace as JSON."""
    trace = Trace()
    for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]:
        trace.by_cat[event.get("cat", "")].append(event)
    return trace


def took(events: Sequence[Event]) -> int:
    """Return the sum of durations."""
    return sum(ns(event, "dur") for event in events)

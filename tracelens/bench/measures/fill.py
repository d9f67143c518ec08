"""Writing the device's memory: a large buffer filled with one number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.bench.buffers import floats, sizes
from tracelens.bench.case import Case, Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracelens.bench.case import Target


def _cases(target: Target) -> Iterator[Case]:
    for size in sizes(target, buffers=1):

        def build(on: Target, size: int = size) -> Callable[[], object]:
            made = floats(on, size)
            return lambda: made.fill_(1.5)

        yield Case("fill", "bytes_per_s", size, build, size, {"bytes": size})


MEASURE = Measure(_cases)

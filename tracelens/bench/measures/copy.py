"""Copying within the device's memory: bytes read and bytes written, both counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.bench.buffers import floats, sizes
from tracelens.bench.case import Case, Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracelens.bench.case import Target


def _cases(target: Target) -> Iterator[Case]:
    for size in sizes(target, buffers=2):

        def build(on: Target, size: int = size) -> Callable[[], object]:
            given = floats(on, size)
            made = on.torch.empty_like(given)
            return lambda: made.copy_(given)

        yield Case("copy", "bytes_per_s", 2 * size, build, 2 * size, {"bytes": 2 * size})


MEASURE = Measure(_cases)

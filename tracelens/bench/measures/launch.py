"""Launching kernels that do next to nothing: what each costs the GPU, and what the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.bench.case import Case, Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracelens.bench.case import Target


def _cases(target: Target) -> Iterator[Case]:
    if target.is_gpu:
        note = "from one kernel of a full queue to the next"
        yield Case("launch", "s", 0, _tiny, clock="queued", note=note)
    yield Case("call", "s", 0, _tiny, clock="host", note="an in-place addition by PyTorch")


def _tiny(on: Target) -> Callable[[], object]:
    one = on.torch.zeros(1, device=on.device)
    return lambda: one.add_(1.0)


MEASURE = Measure(_cases)

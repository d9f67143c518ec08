"""Churn: most allocations are freed again at once, and new memory is taken from CUDA for some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens import units
from tracelens.analyses.memory.churn import SHORT, churn
from tracelens.analyses.memory.devices import devices
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.memory import Memory

_SHARE: Final = 0.5
_SEGMENTS: Final = 10
"""Taken from CUDA: a cudaMalloc waits for the GPU, a block of PyTorch's allocator costs nothing."""


def _find(memory: Memory) -> Iterator[Finding]:
    if memory.lives.is_empty() or memory.events.is_empty():
        raise NothingToShowError("no allocations were recorded")
    found = churn(memory)
    share = float(found["share"].sum()) / max(1, devices(memory).height)
    segments = int(found["segments"].sum())
    if share < _SHARE or segments < _SEGMENTS:
        return
    row = found.row(0, named=True)
    taken = int(found["segment_bytes"].sum())
    where = f"{row['phase'] or 'no phase'}{', ' + row['site'] if row['site'] else ''}"
    yield Finding(
        rule="churn",
        says=(
            f"{units.share(share)} of allocations are freed within {SHORT} others, and {segments} "
            f"cudaMallocs ({units.size(taken)}) were made for them, most in {where}."
        ),
        evidence=(
            Evidence("churn", "of allocations", share, "share"),
            Evidence("churn", "cudaMallocs for short-lived blocks", segments, "count"),
            Evidence("churn", "taken by them", taken, "bytes"),
        ),
        change="Warm up before recording; call no empty_cache.",
        cost_bytes=taken,
        subject=row["site"],
    )


FINDING = Rule(_find, about="memory")

"""Fragmentation: memory that the allocator holds at the peak, and that nothing uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses.memory.fragmentation import fragmentation
from tracelens.findings import Evidence, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.memory import Memory

_SHARE: Final = 0.15
_BYTES: Final = 256 << 20
"""PyTorch's allocator rounds segments up to 2 and 20 MiB: some is always in no use."""


def _find(memory: Memory) -> Iterator[Finding]:
    found = fragmentation(memory).filter(pl.col("at") == "peak")
    for row in found.sort("unused_bytes", descending=True).head(1).iter_rows(named=True):
        if row["unused_share"] < _SHARE or row["unused_bytes"] < _BYTES:
            continue
        yield Finding(
            rule="fragmentation",
            says=(
                f"At the peak {units.size(row['unused_bytes'])} "
                f"({units.share(row['unused_share'])} of what is reserved) are in no use, in "
                f"pieces of {units.size(row['largest_free_bytes'])} at most."
            ),
            evidence=(
                Evidence("fragmentation", "reserved and in no use", row["unused_bytes"], "bytes"),
                Evidence("fragmentation", "of what is reserved", row["unused_share"], "share"),
                Evidence(
                    "fragmentation", "between live blocks", row["inactive_split_bytes"], "bytes"
                ),
                Evidence("fragmentation", "largest free piece", row["largest_free_bytes"], "bytes"),
            ),
            change="Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True.",
            cost_bytes=row["unused_bytes"],
            gain_bytes=row["unused_bytes"],
            assumption="the allocator held no more than was active",
        )


FINDING = Rule(_find, about="memory")

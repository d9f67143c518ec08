"""Unaligned products: matrices of 16 bits whose odd sizes only slow kernels can compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import is_worth, kernels, many, share_of_kernels, time_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_UNALIGNED: Final = r"(?i)(?:b?f16|h\d+gemm)\w*_align[12](?:\D|$)"
"""CUTLASS names the elements that it can read at once: 8 of 16 bits where sizes allow it."""


def _find(linked: Linked) -> Iterator[Finding]:
    found = kernels(linked)
    slow = found.filter(
        pl.col("family").is_in(["gemm", "conv"]), pl.col("name").str.contains(_UNALIGNED)
    )
    time_ns, whole_ns = time_of(slow), time_of(found)
    if not is_worth(linked, time_ns):
        return
    yield Finding(
        rule="unaligned_gemms",
        says=(
            f"Odd sizes slow {many(int(slow['count'].sum()), 'product')} in 16 bits: "
            f"{units.time(time_ns)}, {units.share(time_ns / whole_ns)} of kernel time."
        ),
        evidence=(
            Evidence("kernels", "time of kernels named align1 or align2", time_ns, "ns"),
            share_of_kernels("of kernel time", time_ns, whole_ns),
        ),
        change="Pad sizes to multiples of 8 (50,257 words to 50,304).",
        cost_ns=time_ns,
        assumption="how fast kernels for aligned sizes would be, this recording does not tell",
        subject=str(slow.sort("time_ns", descending=True)["name"][0]),
    )


FINDING = Rule(_find)

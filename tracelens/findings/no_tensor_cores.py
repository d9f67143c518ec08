"""No tensor cores: matrix products in 16 bits that the vector units compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import (
    capability,
    gpu_name,
    is_worth,
    kernels,
    many,
    share_of_kernels,
    time_of,
)
from tracelens.hardware import device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_VECTOR: Final = (
    r"(?i)(?:^|_)(?:simt_)?hgemm|simt_\w*gemm_(?:b?f16|half)|"
    r"gemm(?:SN|k1|_kernel1x1)\w*<.*(?:half|bfloat16)|(?:b?f16){2}\w*_ffma"
)
"""What names say for certain. Products of a matrix and a vector (gemv) wait for memory, and need no
tensor cores."""

_FIRST_WITH_THEM: Final = {"fp16": 7.0, "bf16": 8.0}


def _find(linked: Linked) -> Iterator[Finding]:
    found = kernels(linked)
    slow = found.filter(
        pl.col("family").is_in(["gemm", "conv"]), pl.col("name").str.contains(_VECTOR)
    )
    time_ns, whole_ns = time_of(slow), time_of(found)
    if not is_worth(linked, time_ns):
        return
    wide = slow["name"].str.contains(r"(?i)bf16|bfloat16").all()
    if capability(linked) < _FIRST_WITH_THEM["bf16" if wide else "fp16"]:
        return
    rates = device(gpu_name(linked))
    half = rates.matmul_flops_per_s.get("fp16") if rates else None
    vector = rates.vector_flops_per_s if rates else None
    speedup = half / (2 * vector) if half and vector else None
    yield Finding(
        rule="no_tensor_cores",
        says=(
            f"16-bit products without tensor cores take {units.time(time_ns)}, "
            f"{units.share(time_ns / whole_ns)} of kernel time "
            f"({many(int(slow['count'].sum()), 'call')})."
        ),
        evidence=(
            Evidence("kernels", "time of such kernels", time_ns, "ns"),
            share_of_kernels("of kernel time", time_ns, whole_ns),
        ),
        change="Make sizes multiples of 8, and storage contiguous.",
        cost_ns=time_ns,
        gain_ns=round(time_ns * (1 - 1 / speedup)) if speedup and speedup > 1 else None,
        assumption=(
            "they ran faster as the data sheet's rates of tensor cores and vector units are"
            if speedup
            else "this GPU's rates are not known"
        ),
        subject=str(slow.sort("time_ns", descending=True)["name"][0]),
    )


FINDING = Rule(_find)

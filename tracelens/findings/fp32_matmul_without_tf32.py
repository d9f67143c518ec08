"""fp32 matrix products without TF32: computed by the vector units, on a GPU with tensor cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.errors import NothingToShowError
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

_FP32: Final = r"(?i)(?:^|_)sgemm|simt_sgemm|convolve_sgemm|f32f32_f32f32_f32\w*ffma"
"""cuBLAS and CUTLASS call products of the vector units sgemm, cuDNN ffma: tensor cores' names hold
tensorop, tf32, or a digit before gemm (s1688gemm)."""

_FIRST_WITH_TF32: Final = 8.0
_LEAST_SPEEDUP: Final = 1.2
"""Of TF32's rate over fp32's: on GeForce they are about the same, and nothing is to be gained."""


def _find(linked: Linked) -> Iterator[Finding]:
    found = kernels(linked)
    slow = found.filter(
        pl.col("family").is_in(["gemm", "conv"]), pl.col("name").str.contains(_FP32)
    )
    time_ns, whole_ns = time_of(slow), time_of(found)
    if not is_worth(linked, time_ns) or capability(linked) < _FIRST_WITH_TF32:
        return
    name = gpu_name(linked)
    rates = device(name)
    tf32, fp32 = (rates.matmul_flops_per_s.get(d) if rates else None for d in ("tf32", "fp32"))
    if not tf32 or not fp32:
        raise NothingToShowError(f"what TF32 gains on {name or 'this GPU'} is not known")
    speedup = tf32 / fp32
    if speedup < _LEAST_SPEEDUP:
        return
    share = time_ns / whole_ns
    yield Finding(
        rule="fp32_matmul_without_tf32",
        says=(
            f"fp32 products without tensor cores take {units.time(time_ns)}, {units.share(share)} "
            f"of kernel time ({many(int(slow['count'].sum()), 'call')})."
        ),
        evidence=(
            Evidence("kernels", "time of sgemm kernels", time_ns, "ns"),
            share_of_kernels("of kernel time", time_ns, whole_ns),
            Evidence("devices", "TF32's rate over fp32's, by the data sheet", speedup, "count"),
        ),
        change='Allow TF32: torch.set_float32_matmul_precision("high").',
        cost_ns=time_ns,
        gain_ns=round(time_ns * (1 - 1 / speedup)),
        assumption=(
            f"they ran {speedup:.1f} times as fast, as the data sheet's rates of TF32 and fp32 are"
        ),
        subject=str(slow.sort("time_ns", descending=True)["name"][0]),
    )


FINDING = Rule(_find)

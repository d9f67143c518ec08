"""What the GPU itself counted of its kernels (Nsight Compute): operations and bytes.

Operations are counted as the roofline of Nsight Compute counts them (its section files
`SpeedOfLight_RooflineChart.section` and `SpeedOfLight_HierarchicalSingleRooflineChart.section`,
installed with it): achieved work is (add + mul + 2 fma instructions per cycle) times
`smsp__cycles_elapsed.avg.per_second`, achieved traffic `dram__bytes.sum.per_second`. Those are
rates; here they are amounts: instructions per cycle times `smsp__cycles_elapsed.avg`, and bytes
per second times `gpu__time_duration.sum`, where the sums themselves were not recorded.

Tensor cores have counters of their own, `sm__ops_path_tensor_src_*`: "math ops executed in Tensor
path" (`ncu --query-metrics`), two per multiplication and addition.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracelens.links.linked import Linked
    from tracelens.trace.model import Trace

SCHEMA: Final = {
    "op_id": pl.UInt32,
    "flops": pl.Int64,
    "bytes": pl.Int64,
    "fp64_flops": pl.Int64,
    "fp32_flops": pl.Int64,
    "fp16_flops": pl.Int64,
    "tensor_ops": pl.Int64,
    "matmul": pl.Boolean,
    "format": pl.String,
    "dtype": pl.String,
    "sm_throughput": pl.Float64,
    "memory_throughput": pl.Float64,
    "occupancy": pl.Float64,
    "l2_hit_rate": pl.Float64,
}
"""The columns of `counted`; shares are 0 to 1."""

_MOST: Final = 2.0**62
_INSTRUCTIONS: Final = "sass_thread_inst_executed_op_{}_pred_on.sum"
_PER_CYCLE: Final = ".per_cycle_elapsed"
_FLOPS: Final = {
    "fp64": {"dadd": 1, "dmul": 1, "dfma": 2},
    "fp32": {"fadd": 1, "fmul": 1, "ffma": 2},
    "fp16": {"hadd": 2, "hmul": 2, "hfma": 4},
}
"""Operations of one instruction of one thread. Those of half precision work on two numbers."""
_TENSOR: Final = re.compile(r"sm__ops_path_tensor_src_((?:bf|fp|tf|int)\d+)(\w*)\.sum")
_FORMATS: Final = {
    "bf16": "bf16", "fp16": "fp16", "tf32": "tf32", "fp8": "fp8", "fp64": "fp64", "int8": "int8",
}  # fmt: skip
_PRODUCTS: Final = ("gemm", "conv", "attention")
_VECTOR_FORMATS: Final = {"float64": "fp64", "float32": "fp32", "float16": "fp16"}
_PIPES: Final = (
    "sm__inst_executed_pipe_tensor.sum",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
)
_CYCLES: Final = ("smsp__cycles_elapsed.avg", "sm__cycles_elapsed.avg")
_DURATION: Final = ("gpu__time_duration.sum", "gpu__time_duration.avg")
_SHARES: Final = {
    "sm_throughput": ("sm__throughput.avg.pct_of_peak_sustained_elapsed",),
    "memory_throughput": (
        "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed",
        "gpu__compute_memory_throughput.max.pct_of_peak_sustained_elapsed",
        "gpu__compute_memory_access_throughput.avg.pct_of_peak_sustained_elapsed",
    ),
    "occupancy": ("sm__warps_active.avg.pct_of_peak_sustained_active",),
    "l2_hit_rate": ("lts__t_sector_hit_rate.pct",),
}


def counted(trace: Trace) -> pl.DataFrame | None:
    """Return a row per GPU op that was measured (`SCHEMA`); None: the trace has no counters.

    - `flops`: of tensor cores, double and single precision, and of half precision where there are
      additions or multiplications: compilers use HFMA2 to move constants, too, so that alone it
      says nothing. Null where one kind of operations was not measured.
    - `bytes`: to and from the GPU's memory (DRAM), null where not measured.
    - `matmul`: whether most operations are those of tensor cores; `format` is then theirs.
    - `dtype`: the precision of most other operations.
    """
    table = trace.get("op_counters")
    if table is None:
        return None
    wanted = (
        pl.col("name").is_in([*_PIPES, *_CYCLES, *_DURATION, *sum(_SHARES.values(), ())])
        | pl.col("name").str.starts_with("dram__bytes")
        | pl.col("name").str.contains(r"sass_thread_inst_executed_op_[dfh]\w+_pred_on\.sum")
        | pl.col("name").str.contains(_TENSOR.pattern)
    )
    long = table.filter(wanted).select("op_id", "name", "value").collect()
    every = table.select(pl.col("op_id").unique().sort()).collect()
    wide = every.join(
        long.pivot("name", index="op_id", values="value", aggregate_function="first"),
        on="op_id",
        how="left",
        maintain_order="left",
    )
    return _sums(wide)


def of_linked(linked: Linked) -> pl.DataFrame | None:
    """Return `counted` of a linked trace.

    Kernels that are matrix products by their names are so without tensor cores, too.
    """
    return linked.once("counted", _of_linked)


def _of_linked(linked: Linked) -> pl.DataFrame | None:
    found = counted(linked.trace)
    if found is None:
        return None
    products = linked.names.filter(pl.col("family").is_in(_PRODUCTS)).select("name_id", "kind")
    named = linked.ops.join(products, on=["name_id", "kind"], how="semi").select(
        "op_id", product=pl.lit(value=True)
    )
    vector = pl.col("product") & ~pl.col("matmul") & (pl.col("flops") > 0)
    is_product = vector.fill_null(value=False)
    return (
        found.join(named, on="op_id", how="left", maintain_order="left")
        .with_columns(
            matmul=pl.col("matmul") | is_product,
            format=pl.when(is_product)
            .then(pl.col("dtype").replace_strict(_VECTOR_FORMATS, default=None))
            .otherwise("format"),
        )
        .drop("product")
    )


def _sums(wide: pl.DataFrame) -> pl.DataFrame:
    have = set(wide.columns)
    tensor = _tensor(have)
    kinds = {f"{kind}_flops": _vector(parts, have) for kind, parts in _FLOPS.items()}
    shares = {name: _first(metrics, have) / 100 for name, metrics in _SHARES.items()}
    half = sum((_counted(name, have).fill_null(0) for name in ("hadd", "hmul")), start=pl.lit(0.0))
    # Without counters of operations, all that can be known is that tensor cores did nothing.
    idle = _first(_PIPES, have) <= 0
    no_tensor = pl.when(idle).then(0.0) if not tensor else pl.sum_horizontal(tensor.values())
    found = wide.select(
        "op_id",
        **kinds,
        **shares,
        **{f"_{name}": value for name, value in tensor.items()},
        tensor_ops=no_tensor,
        bytes=_bytes(have),
        half=half,
    ).with_columns(
        flops=pl.col("tensor_ops")
        + pl.col("fp64_flops")
        + pl.col("fp32_flops")
        + pl.when(pl.col("half") > 0).then(pl.col("fp16_flops").fill_null(0)).otherwise(0.0)
    )
    is_matmul = (pl.col("tensor_ops") * 2 > pl.col("flops")) & (pl.col("tensor_ops") > 0)
    most = pl.concat_list([f"_{name}" for name in tensor]).list.arg_max() if tensor else None
    names = pl.Series(list(tensor), dtype=pl.String)
    is_double = pl.col("fp64_flops") * 2 > pl.col("flops")
    is_half = (pl.col("half") > 0) & (pl.col("fp16_flops") * 2 > pl.col("flops"))
    whole = ("flops", "bytes", "fp64_flops", "fp32_flops", "fp16_flops", "tensor_ops")
    return found.with_columns(
        matmul=is_matmul.fill_null(value=False),
        format=pl.when(is_matmul).then(
            pl.lit(None, pl.String)
            if most is None
            else most.replace_strict(dict(enumerate(names)), return_dtype=pl.String, default=None)
        ),
        dtype=pl.when(is_double)
        .then(pl.lit("float64"))
        .when(is_half)
        .then(pl.lit("float16"))
        .when(pl.col("fp32_flops") > 0)
        .then(pl.lit("float32")),
    ).select(
        (_whole(name) if name in whole else pl.col(name)).cast(dtype)
        for name, dtype in SCHEMA.items()
    )


def _whole(name: str) -> pl.Expr:
    sound = pl.col(name).is_between(0, _MOST)
    return pl.when(sound).then(pl.col(name).round()).cast(pl.Int64).alias(name)


def _tensor(have: Iterable[str]) -> dict[str, pl.Expr]:
    """Return the operations of tensor cores by number format.

    Of counters that are part of one another (all of a format, its sparse ones) the widest count.
    """
    found = {name.removesuffix(".sum"): m for name in have if (m := _TENSOR.fullmatch(name))}
    widest = [n for n in found if not any(n != o and n.startswith(f"{o}_") for o in found)]
    by_format: dict[str, list[str]] = {}
    for name in sorted(widest):
        if found[name][1] in _FORMATS:
            by_format.setdefault(_FORMATS[found[name][1]], []).append(f"{name}.sum")
    return {
        name: pl.sum_horizontal(*(pl.col(metric) for metric in metrics))
        for name, metrics in sorted(by_format.items())
    }


def _vector(parts: dict[str, int], have: set[str]) -> pl.Expr:
    """Return the operations of one precision; null unless all its instructions were counted."""
    total = pl.lit(0.0)
    for name, each in parts.items():
        total += _counted(name, have) * each
    return total


def _counted(instruction: str, have: set[str]) -> pl.Expr:
    """Return how many instructions of a kind the threads of a kernel executed."""
    names = [f"{unit}__{_INSTRUCTIONS.format(instruction)}" for unit in ("smsp", "sm")]
    per_cycle = _first([f"{name}{_PER_CYCLE}" for name in names], have)
    return pl.coalesce(_first(names, have), per_cycle * _first(_CYCLES, have))


def _bytes(have: set[str]) -> pl.Expr:
    """Return the bytes to and from memory."""
    both = _first(["dram__bytes_read.sum"], have) + _first(["dram__bytes_write.sum"], have)
    rate = _first(["dram__bytes.sum.per_second"], have) * _first(_DURATION, have) / 1e9
    return pl.coalesce(_first(["dram__bytes.sum"], have), both, rate)


def _first(names: Sequence[str], have: set[str]) -> pl.Expr:
    """Return the first of these metrics that was measured."""
    there = [pl.col(name) for name in names if name in have]
    return pl.coalesce(*there, pl.lit(None, pl.Float64)) if there else pl.lit(None, pl.Float64)

"""A small report made by hand, which every renderer's tests tell their stories with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from tracelens.tables import Column, Filled, Report, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

PHASES = Table(
    analysis="phases",
    title="GPU time by phase",
    columns=(
        Column("phase", "phase", "text"),
        Column("kernels", "kernels", "count"),
        Column("kernel_time_ns", "GPU time", "ns"),
        Column("busy_ns", "busy", "ns", shown=False),
        Column("share", "share", "share"),
    ),
    note="A kernel belongs to the phase that launched it, not the one it ran during.",
)

KERNELS = Table(
    analysis="kernels",
    title="GPU time by kernel",
    columns=(
        Column("name", "full name", "name", shown=False),
        Column("short_name", "kernel", "name"),
        Column("family", "family", "text"),
        Column("calls", "calls", "count"),
        Column("total_ns", "total", "ns"),
        Column("share", "share", "share"),
        Column("mean_ns", "mean", "ns"),
        Column("median_ns", "median", "ns"),
        Column("min_ns", "min", "ns"),
        Column("max_ns", "max", "ns"),
    ),
    note="Durations are those of single launches.",
)

PHASE_ROWS: list[tuple[Any, ...]] = [
    ("forward", 5536, 165_900_000, 165_000_000, 0.275),
    ("backward", 9912, 344_000_000, 343_000_000, 0.570),
    ("optimizer", 14208, 91_300_000, 91_000_000, 0.151),
    (None, 74, 2_800_000, 2_800_000, 0.004),
]

GEMM = "ampere_sgemm_128x64_tn"
CUTLASS = (
    "void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_256x128_16x3_nn_align4>"
    "(cutlass_80_tensorop_s1688gemm_256x128_16x3_nn_align4::Params)"
)
KERNEL_ROWS: list[tuple[Any, ...]] = [
    (GEMM, GEMM, "gemm", 1440, 244_000_000, 0.404, 169_444.4, 170_016, 96_000, 301_000),
    (CUTLASS, CUTLASS[5:75], "gemm", 720, 180_000_000, 0.298, 250_000.0, 250_100, 240_000, 260_000),
    ("adam<int>(float*)", "adam", "optimizer", 14208, 91_300_000, 0.151, 6426.0, 6400, 1248, 9000),
    ("a|b_`c`", "a|b_`c`", "other", 1, 3_104, 0.00001, 3104.0, None, 3104, 3104),
]


def filled(name: str, table: Table, rows: Sequence[tuple[Any, ...]]) -> Filled:
    """Return a table with rows given in the order of its columns."""
    types: dict[str, Any] = {
        "text": pl.String,
        "name": pl.String,
        "count": pl.Int64,
        "ns": pl.Int64,
        "share": pl.Float64,
        "flag": pl.Boolean,
        "bytes": pl.Int64,
        "bytes_per_s": pl.Float64,
    }
    schema = {c.name: pl.Float64 if c.name == "mean_ns" else types[c.unit] for c in table.columns}
    return Filled(name, table, pl.DataFrame(rows, schema=schema, orient="row"))


def phases() -> Filled:
    return filled("phases", PHASES, PHASE_ROWS)


def kernels() -> Filled:
    return filled("kernels", KERNELS, KERNEL_ROWS)


def named(*names: str) -> Filled:
    """Return a table of one row for each name."""
    table = Table(
        analysis="ranges",
        title="Ranges",
        columns=(Column("name", "range", "name"), Column("instances", "instances", "count")),
        note="",
    )
    return filled("ranges", table, [(name, i) for i, name in enumerate(names)])


def report(*tables: Filled, path: str = "run.sqlite", **changed: Any) -> Report:
    """Return a report of the tables, with something to say in every place."""
    fields: dict[str, Any] = {
        "headline": "nsys 2025.3 · NVIDIA A100 · 29,730 kernels · GPU busy 604 ms (39 %)",
        "trust": ("attributed 99.8 %", "nothing lost"),
        "source": {"path": path, "format": "nsys-sqlite", "schema_version": "3.20.3"},
        "devices": ({"device": 0, "name": "NVIDIA A100"},),
        "phase_source": "ranges",
        "coverage": {"gpu_ops": 29730, "own_thread": 19741},
        "findings": ("The GPU idles 61 % of the window: the optimizer issues 1,776 kernels.",),
        "hints": ("--table kernels", "tracelens explore FILE"),
        "left_out": {"ranges": "no NVTX ranges were recorded"},
        "warnings": ("CUDA graphs were traced whole; their kernels are not known.",),
    }
    return Report(tables=tables, **{**fields, **changed})

"""Memory sets: what the table `memsets` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="memsets",
    title="Memory sets",
    columns=(
        Column("device", "device", "count"),
        Column("calls", "calls", "count"),
        Column("total_ns", "total", "ns"),
        Column("bytes", "set", "bytes"),
        Column("mean_ns", "mean", "ns"),
        Column("median_ns", "median", "ns"),
        Column("min_ns", "min", "ns"),
        Column("max_ns", "max", "ns"),
        Column("std_ns", "std", "ns"),
    ),
    note=("Sets that a kernel does count as kernels."),
)

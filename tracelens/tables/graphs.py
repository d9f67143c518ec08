"""CUDA graphs launched as a whole: what the table `graphs` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="graphs",
    title="CUDA graphs launched as a whole",
    columns=(
        Column("graph_id", "graph", "count"),
        Column("device", "device", "count"),
        Column("calls", "calls", "count"),
        Column("total_ns", "total", "ns"),
        Column("mean_ns", "mean", "ns"),
        Column("median_ns", "median", "ns"),
        Column("min_ns", "min", "ns"),
        Column("max_ns", "max", "ns"),
        Column("std_ns", "std", "ns"),
    ),
    note=(
        "What ran inside a graph was not recorded: nsys profile --cuda-graph-trace=node records "
        "it, and slows the program down."
    ),
)

"""CUDA graphs launched as a whole: what the table `graphs` shows."""

from tracelens.tables import DURATIONS, Column, Table

TABLE = Table(
    analysis="graphs",
    title="CUDA graphs launched as a whole",
    columns=(
        Column("graph_id", "graph", "count"),
        Column("device", "device", "count"),
        Column("calls", "calls", "count"),
        Column("total_ns", "total", "ns"),
        *DURATIONS,
    ),
    note=(
        "What ran inside a graph was not recorded: nsys profile --cuda-graph-trace=node records "
        "it, and slows the program down."
    ),
)

"""Kinds of work by phase: what the table `families` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="families",
    title="Kinds of work by phase",
    columns=(
        Column("phase", "phase", "text"),
        Column("family", "family", "text"),
        Column("kernels", "kernels", "count"),
        Column("kernel_time_ns", "time", "ns"),
        Column("graph_time_ns", "graph time", "ns", optional=True),
        Column("share_of_phase", "share of phase", "share"),
    ),
    note=(
        "Share is of the phase's kernel and graph time. gemm is matrix multiplication; "
        "attention kernels are counted apart."
    ),
)

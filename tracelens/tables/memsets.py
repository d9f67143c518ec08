"""Memory sets: what the table `memsets` shows."""

from tracelens.tables import DURATIONS, Column, Table

TABLE = Table(
    analysis="memsets",
    title="Memory sets",
    columns=(
        Column("device", "device", "count"),
        Column("calls", "calls", "count"),
        Column("total_ns", "total", "ns"),
        Column("bytes", "set", "bytes"),
        *DURATIONS,
    ),
    note=("Sets that a kernel does count as kernels."),
)

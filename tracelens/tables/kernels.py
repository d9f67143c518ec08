"""GPU time by kernel: what the table `kernels` shows."""

from tracelens.tables import DURATIONS, Column, Table

TABLE = Table(
    analysis="kernels",
    title="GPU time by kernel",
    columns=(
        Column("short_name", "kernel", "name"),
        Column("name", "full name", "name", shown=False),
        Column("family", "family", "text"),
        Column("calls", "calls", "count"),
        Column("total_ns", "total", "ns"),
        Column("share", "share", "share"),
        *DURATIONS,
    ),
    note=("Share is of all kernel time shown here; durations are of single launches."),
    stands_for=(
        "cuda_gpu_kern_sum",
        "gpukernsum",
    ),
)

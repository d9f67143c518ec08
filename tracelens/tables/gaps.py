"""Idle GPU time by cause: what the table `gaps` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="gaps",
    title="Idle GPU time by cause",
    columns=(
        Column("device", "device", "count"),
        Column("cause", "cause", "text"),
        Column("gaps", "gaps", "count"),
        Column("idle_ns", "idle", "ns"),
        Column("share", "share", "share"),
        Column("median_ns", "median", "ns"),
        Column("longest_ns", "longest", "ns"),
        Column("before_name", "longest: after", "name"),
        Column("after_name", "longest: before", "name"),
    ),
    note=(
        "Share is of the device's idle time between its first and last op. launch_bound: the "
        "thread was launching as fast as it could. synchronising: it waited in a CUDA call. "
        "no_api_call: it was busy on the CPU. queued: it had launched already."
    ),
    stands_for=("gpu_gaps",),
)

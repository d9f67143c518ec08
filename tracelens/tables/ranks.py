"""Ranks of a job: what the table `ranks` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="ranks",
    title="Ranks",
    columns=(
        Column("rank", "rank", "count"),
        Column("process", "process", "count", optional=True),
        Column("steps", "steps", "count", shown=False),
        Column("step_median_ns", "step", "ns"),
        Column("busy_ns", "busy", "ns"),
        Column("idle_ns", "idle", "ns"),
        Column("comm_time_ns", "comm", "ns", optional=True),
        Column("comm_overlapped_ns", "overlapped", "ns", optional=True),
        Column("comm_exposed_ns", "exposed", "ns", optional=True),
        Column("waiting_ns", "waiting", "ns", optional=True),
        Column("peak_memory_bytes", "memory", "bytes", optional=True),
        Column("arrives_last", "last", "count", optional=True),
        Column("busy_share", "busy", "share", shown=False),
        Column("exposed_share", "exposed share", "share", shown=False),
        Column("span_ns", "span", "ns", shown=False),
        Column("kernels", "kernels", "count", shown=False),
        Column("collectives", "collectives", "count", shown=False),
        Column("comm_busy_ns", "comm busy", "ns", shown=False),
        Column("memory_source", "memory by", "text", shown=False),
    ),
    note=(
        "step: median on the CPU. comm: sum of its kernels; overlapped: while other kernels ran, "
        "exposed: the rest. waiting: longer than the quickest rank took for the same collective, "
        "so for others; last: how often nobody came later. memory: the peak. Clocks of ranks are "
        "never compared."
    ),
)

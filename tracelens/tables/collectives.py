"""Collectives by process group and kind: what the table `collectives` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="collectives",
    title="Collectives",
    columns=(
        Column("kind", "kind", "text"),
        Column("group", "group", "text", optional=True),
        Column("description", "description", "text", shown=False),
        Column("group_ranks", "members", "text", shown=False),
        Column("group_size", "ranks", "count", optional=True),
        Column("rank", "rank", "count"),
        Column("process", "process", "count", optional=True),
        Column("calls", "calls", "count"),
        Column("bytes", "bytes", "bytes", optional=True),
        Column("total_ns", "time", "ns"),
        Column("transfer_ns", "transfer", "ns", optional=True),
        Column("waiting_ns", "waiting", "ns", optional=True),
        Column("bus_bandwidth_bytes_per_s", "busbw", "bytes_per_s", optional=True),
        Column("transfer_bus_bandwidth_bytes_per_s", "of transfer", "bytes_per_s", optional=True),
        Column("algorithm_bandwidth_bytes_per_s", "algbw", "bytes_per_s", optional=True),
        Column("arrives_last", "last", "count", optional=True),
        Column("slow_rank", "slow rank", "count"),
        Column("matched_calls", "matched", "count", shown=False),
    ),
    note=(
        "bytes: of whole buffers. algbw: bytes over time; busbw: that times the factor of "
        "nccl-tests, so that it compares with a link. transfer: what the rank that came last took, "
        "which waited for nobody; waiting: the rest of the time. Only durations are compared: "
        "clocks of hosts differ."
    ),
)

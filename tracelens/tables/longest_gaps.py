"""Longest idle times of the GPU: what the table `longest_gaps` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="longest_gaps",
    title="Longest idle times of the GPU",
    columns=(
        Column("idle_ns", "idle", "ns"),
        Column("cause", "cause", "text"),
        Column("before_name", "after", "name"),
        Column("after_name", "before", "name"),
        Column("call", "last call", "text"),
        Column("device", "device", "count"),
        Column("thread", "thread", "count", shown=False),
        Column("start_ns", "start", "ns", shown=False),
        Column("end_ns", "end", "ns", shown=False),
    ),
    note=("call is the last CUDA call of the launching thread before it launched the next op."),
)

"""CUDA streams: what the table `streams` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="streams",
    title="CUDA streams",
    columns=(
        Column("device", "device", "count"),
        Column("pid", "process", "count"),
        Column("context", "context", "count", shown=False),
        Column("stream", "stream", "count"),
        Column("ops", "ops", "count"),
        Column("kernels", "kernels", "count"),
        Column("busy_ns", "busy", "ns"),
        Column("beside_ns", "beside", "ns"),
        Column("self_overlap_ns", "self-overlap", "ns"),
        Column("total_ns", "total", "ns", shown=False),
        Column("span_ns", "span", "ns", shown=False),
    ),
    note=(
        "busy: union of the work of the stream. beside: how long other streams of the device "
        "were busy meanwhile. self-overlap: how much its own work overlaps."
    ),
)

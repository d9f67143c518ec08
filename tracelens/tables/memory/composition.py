"""Live memory by category over time: what the table `composition` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="composition",
    title="Live memory by category over time",
    columns=(
        Column("device", "device", "count", optional=True),
        Column("index", "event", "count"),
        Column("time_ns", "time", "ns", shown=False),
        Column("group", "category or phase", "text"),
        Column("bytes", "bytes", "bytes"),
    ),
    note=(
        "Categories by rule, or phases with --group phase. The rows of one event add up to what "
        "was active after it."
    ),
)

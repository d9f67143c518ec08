"""Short-lived allocations: what the table `churn` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="churn",
    title="Short-lived allocations",
    columns=(
        Column("device", "device", "count", optional=True),
        Column("allocations", "allocations", "count"),
        Column("share", "share", "share"),
        Column("bytes", "bytes in all", "bytes"),
        Column("life_ns", "life (median)", "ns"),
        Column("segments", "cudaMallocs", "count"),
        Column("segment_bytes", "taken for them", "bytes"),
        Column("peak_bytes", "at the peak", "bytes"),
        Column("phase", "phase", "text"),
        Column("site", "line", "name"),
    ),
    note=(
        "Freed again before ten more allocations. Share is of all allocations of the device. "
        "Where the allocator had no room for them, it took segments from the device, which waits; "
        "at the peak: what of them was live then."
    ),
)

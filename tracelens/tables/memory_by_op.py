"""GPU memory by PyTorch op: what the table `memory_by_op` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="memory_by_op",
    title="GPU memory by PyTorch op",
    columns=(
        Column("op", "op", "name"),
        Column("phase", "phase", "text"),
        Column("device", "device", "count", optional=True),
        Column("at_peak_bytes", "at peak", "bytes"),
        Column("share_of_peak", "of peak", "share"),
        Column("allocated_bytes", "allocated", "bytes"),
        Column("allocations", "allocations", "count"),
        Column("freed_bytes", "freed", "bytes"),
        Column("net_bytes", "net", "bytes"),
    ),
    note=(
        "At peak: allocated by the op and live when most was allocated. Freed: while the op ran, "
        "whoever had allocated it; net: allocated less that. Bytes as the allocator rounds them up."
    ),
)

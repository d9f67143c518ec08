"""Memory outside the allocator: what the table `outside` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="outside",
    title="Outside the caching allocator",
    columns=(
        Column("device", "device", "count"),
        Column("index", "event", "count"),
        Column("total_bytes", "device memory", "bytes"),
        Column("free_bytes", "free", "bytes"),
        Column("reserved_bytes", "reserved", "bytes"),
        Column("outside_bytes", "outside", "bytes"),
    ),
    note=(
        "Device memory less what was free and what the allocator held at an out-of-memory error: "
        "CUDA's context, NCCL, libraries' workspaces, and other processes."
    ),
)

"""Memory by phase and step: what the table `phases` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="phases",
    title="Memory by phase",
    columns=(
        Column("device", "device", "count", optional=True),
        Column("phase", "phase", "text"),
        Column("step", "step", "count"),
        Column("peak_active_bytes", "peak", "bytes"),
        Column("end_active_bytes", "end", "bytes"),
        Column("peak_reserved_bytes", "reserved", "bytes"),
        Column("allocations", "allocations", "count"),
        Column("allocated_bytes", "allocated", "bytes"),
        Column("first_index", "first event", "count", shown=False),
    ),
    note=(
        "A phase's peak counts what was there when it began; allocated is all that it asked for, "
        "freed or not. (none): events in no phase."
    ),
)

"""Memory of each device: what the table `devices` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="devices",
    title="Memory by device",
    columns=(
        Column("device", "device", "count"),
        Column("events", "events", "count"),
        Column("baseline_active_bytes", "before", "bytes"),
        Column("peak_active_bytes", "peak", "bytes"),
        Column("peak_index", "peak at event", "count"),
        Column("peak_phase", "phase", "text"),
        Column("peak_step", "step", "count", optional=True),
        Column("end_active_bytes", "end", "bytes"),
        Column("baseline_reserved_bytes", "reserved before", "bytes", shown=False),
        Column("peak_reserved_bytes", "reserved at most", "bytes"),
        Column("end_reserved_bytes", "reserved at end", "bytes"),
        Column("end_rounded_bytes", "allocated at end, rounded", "bytes", shown=False),
        Column("oom_events", "out of memory", "count", optional=True),
        Column("truncated", "truncated", "flag"),
    ),
    note=(
        "Bytes are those asked for, and active ones count until the free is complete: a peak is "
        "slightly below max_memory_allocated(), which counts blocks as rounded up. Truncated: "
        "the ring that held the events was full, and the oldest are gone."
    ),
)

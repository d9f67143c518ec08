"""Memory over time: what the table `timeline` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="timeline",
    title="Memory over time",
    columns=(
        Column("device", "device", "count", optional=True),
        Column("index", "event", "count"),
        Column("time_ns", "time", "ns", shown=False),
        Column("allocated_bytes", "allocated", "bytes"),
        Column("active_bytes", "active", "bytes"),
        Column("reserved_bytes", "reserved", "bytes"),
        Column("phase", "phase", "text"),
        Column("step", "step", "count"),
        Column("action", "what happened", "text"),
    ),
    note=(
        "At most 2,500 events of each device, chosen so that every peak and low is there. The "
        "first row is what was held before the first event."
    ),
)

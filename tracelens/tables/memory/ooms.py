"""Out-of-memory errors: what the table `ooms` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="ooms",
    title="Out of memory",
    columns=(
        Column("device", "device", "count", optional=True),
        Column("index", "event", "count"),
        Column("phase", "phase", "text"),
        Column("step", "step", "count", optional=True),
        Column("requested_bytes", "requested", "bytes"),
        Column("active_bytes", "active", "bytes"),
        Column("reserved_bytes", "reserved", "bytes"),
        Column("free_bytes", "free on device", "bytes"),
        Column("unused_bytes", "free in segments", "bytes"),
        Column("largest_free_bytes", "largest piece", "bytes"),
        Column("verdict", "verdict", "text"),
        Column("site", "line", "name"),
    ),
    note=(
        "The state at the error, not at the snapshot. Real exhaustion: more was asked for than was "
        "free; fragmentation: enough was free, in pieces; process limit: the device had room, and "
        "the process was not allowed it."
    ),
)

"""Out-of-memory errors: what the table `ooms` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="ooms",
    title="Out of memory",
    columns=(
        Column("device", "device", "count", optional=True),
        Column("index", "event", "count"),
        Column("phase", "phase", "text", shown=False),
        Column("step", "step", "count", shown=False),
        Column("requested_bytes", "requested", "bytes"),
        Column("verdict", "verdict", "text"),
        Column("free_bytes", "device free", "bytes"),
        Column("unused_bytes", "own free", "bytes"),
        Column("largest_free_bytes", "in pieces of", "bytes"),
        Column("active_bytes", "active", "bytes"),
        Column("reserved_bytes", "reserved", "bytes"),
        Column("site", "line", "name", shown=False),
    ),
    note=(
        "The state at the error itself. Own free: in the allocator's segments. Real exhaustion: "
        "too little was free; fragmentation: enough, in pieces; process limit: the device had room."
    ),
)

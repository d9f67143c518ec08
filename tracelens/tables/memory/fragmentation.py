"""Fragmentation by three numbers: what the table `fragmentation` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="fragmentation",
    title="Fragmentation",
    columns=(
        Column("device", "device", "count", optional=True),
        Column("at", "at", "text"),
        Column("index", "event", "count", shown=False),
        Column("reserved_bytes", "reserved", "bytes"),
        Column("active_bytes", "active", "bytes"),
        Column("unused_bytes", "(1) unused", "bytes"),
        Column("unused_share", "of reserved", "share"),
        Column("inactive_split_bytes", "(2) inactive split", "bytes"),
        Column("stranded_bytes", "(3) stranded", "bytes"),
        Column("size_bytes", "for a request of", "bytes"),
        Column("largest_free_bytes", "largest piece", "bytes"),
    ),
    note=(
        "(1) reserved less active; (2) free pieces of segments that hold live blocks, too, and so "
        "cannot go back to the device; (3) free pieces too small for the request, which is that of "
        "the error, or else the largest of the recording."
    ),
)

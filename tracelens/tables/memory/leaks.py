"""Blocks that outlive the next step: what the table `leaks` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="leaks",
    title="Blocks that outlive the next step",
    columns=(
        Column("device", "device", "count", optional=True),
        Column("bytes", "bytes", "bytes"),
        Column("blocks", "blocks", "count"),
        Column("steps", "steps", "count"),
        Column("steps_watched", "of steps", "count"),
        Column("bytes_per_step", "per step", "bytes"),
        Column("grows", "grows", "flag"),
        Column("phase", "phase", "text"),
        Column("site", "line", "name"),
        Column("via", "by way of", "text", optional=True),
    ),
    note=(
        "Allocated in one step and still active after the next. What several steps leave behind "
        "grows; what the first alone leaves is most often state that is made once."
    ),
)

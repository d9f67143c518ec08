"""The largest allocations: what the table `largest` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="largest",
    title="Largest allocations",
    columns=(
        Column("device", "device", "count", optional=True),
        Column("bytes", "bytes", "bytes"),
        Column("count", "times", "count"),
        Column("phase", "phase", "text"),
        Column("site", "line", "name"),
        Column("index", "first event", "count", shown=False),
        Column("stack", "stack", "text", shown=False),
    ),
    note=("The line is the innermost one of user code: libraries' are skipped; (none): no frames."),
)

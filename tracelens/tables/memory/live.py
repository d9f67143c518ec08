"""What was live at one moment: what the table `live` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="live",
    title="Live memory",
    columns=(
        Column("device", "device", "count", optional=True),
        Column("at", "at", "text", shown=False),
        Column("index", "event", "count", shown=False),
        Column("bytes", "bytes", "bytes"),
        Column("share", "share", "share"),
        Column("blocks", "blocks", "count"),
        Column("category", "category by rule", "text"),
        Column("phase", "phase", "text", optional=True),
        Column("site", "line", "name", optional=True),
        Column("via", "by way of", "text", optional=True),
        Column("stack", "stack", "text", shown=False),
    ),
    note=(
        "Categories follow from call stacks and phases, by rule (see --category); (none): no rule "
        "fits. The phase is the one that allocated."
    ),
)

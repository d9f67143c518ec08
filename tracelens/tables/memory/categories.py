"""Live memory by category: what the table `categories` of `tracelens memory` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="categories",
    title="Live memory by category",
    columns=(
        Column("device", "device", "count", optional=True),
        Column("at", "at", "text"),
        Column("index", "event", "count", shown=False),
        Column("category", "category by rule", "text"),
        Column("bytes", "bytes", "bytes"),
        Column("share", "share", "share"),
        Column("blocks", "blocks", "count"),
    ),
    note=(
        "Categories follow from rules on call stacks and phases; (none) fits no rule. The rows "
        "add up to what was active."
    ),
)

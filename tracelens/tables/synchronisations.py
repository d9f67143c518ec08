"""Calls that wait for the GPU: what the table `synchronisations` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="synchronisations",
    title="Calls that wait for the GPU",
    columns=(
        Column("call", "call", "text"),
        Column("op", "op", "name", optional=True),
        Column("range", "range", "name", optional=True),
        Column("in_step", "in a step", "flag", shown=False),
        Column("calls", "calls", "count"),
        Column("idle_ns", "GPU idle after", "ns"),
        Column("cpu_ns", "CPU time", "ns"),
        Column("thread", "thread", "count", shown=False),
    ),
    note=(
        "GPU idle after: until the thread that had waited launched again; their sum is that of "
        "the cause synchronising in the table gaps."
    ),
)

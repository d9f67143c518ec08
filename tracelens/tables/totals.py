"""GPU work in all: what the table `totals` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="totals",
    title="GPU work in all",
    columns=(
        Column("kernels", "kernels", "count"),
        Column("kernel_time_ns", "kernel time", "ns"),
        Column("busy_ns", "GPU busy", "ns"),
        Column("copies", "copies", "count"),
        Column("copy_time_ns", "copy time", "ns"),
        Column("graph_launches", "graph launches", "count", optional=True),
        Column("graph_time_ns", "graph time", "ns", optional=True),
        Column("span_ns", "span", "ns"),
        Column("idle_ns", "idle", "ns"),
        Column("memsets", "memsets", "count", shown=False),
        Column("memset_time_ns", "memset time", "ns", shown=False),
    ),
    note=(
        "Times of one kind are sums of durations. Busy is the union of all GPU work per "
        "device, idle the rest between its first and last op."
    ),
)

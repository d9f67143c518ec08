"""Training steps: what the table `steps` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="steps",
    title="Training steps",
    columns=(
        Column("step", "step", "count"),
        Column("name", "range", "text", optional=True),
        Column("pid", "process", "count"),
        Column("duration_ns", "duration", "ns"),
        Column("kernels", "kernels", "count"),
        Column("kernel_time_ns", "kernel time", "ns"),
        Column("busy_ns", "GPU busy", "ns"),
        Column("idle_ns", "GPU idle", "ns"),
        Column("forward_ns", "forward", "ns", optional=True),
        Column("backward_ns", "backward", "ns", optional=True),
        Column("optimizer_ns", "optimizer", "ns", optional=True),
        Column("other_ns", "other", "ns", optional=True),
        Column("start_ns", "start", "ns", shown=False),
        Column("source", "found by", "text", shown=False),
    ),
    note=(
        "Duration is on the CPU; busy and idle are of the GPU work that the step launched. "
        "Times by phase are sums of kernel durations."
    ),
)

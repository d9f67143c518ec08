"""From launch to start of kernels: what the table `launch_delay` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="launch_delay",
    title="From launch to start of kernels",
    columns=(
        Column("short_name", "kernel", "name"),
        Column("name", "full name", "name", shown=False),
        Column("calls", "calls", "count"),
        Column("api_mean_ns", "api mean", "ns"),
        Column("api_median_ns", "api median", "ns"),
        Column("queued", "queued", "count"),
        Column("queue_mean_ns", "queue mean", "ns"),
        Column("queue_median_ns", "queue median", "ns"),
        Column("queue_max_ns", "queue max", "ns"),
        Column("kernel_mean_ns", "kernel mean", "ns"),
        Column("total_mean_ns", "total mean", "ns"),
        Column("total_ns", "total", "ns", shown=False),
    ),
    note=(
        "api: time in the launching call. queue: from its end to the kernel start, of the "
        "launches that queued at all. total: start of the call to the end of the kernel."
    ),
    stands_for=(
        "cuda_kern_exec_sum",
        "kernexecsum",
        "cuda_kern_exec_trace",
    ),
)

"""PyTorch's ops: what the table `ops` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="ops",
    title="PyTorch ops",
    columns=(
        Column("name", "op", "name"),
        Column("calls", "calls", "count"),
        Column("self_gpu_time_ns", "GPU self", "ns"),
        Column("share", "share", "share"),
        Column("gpu_time_ns", "GPU total", "ns"),
        Column("kernels", "kernels", "count"),
        Column("flops_per_s", "FLOP/s", "flops_per_s", optional=True),
        Column("self_cpu_ns", "CPU self", "ns"),
        Column("cpu_ns", "CPU total", "ns"),
        Column("flops", "FLOP", "flops", optional=True),
        Column("dtype", "type", "text", optional=True),
        Column("forward", "gradient of", "name", optional=True),
        Column("shapes", "shapes", "count", optional=True),
        Column("self_kernels", "kernels self", "count", shown=False),
        Column("by_external_id", "by External id", "count", optional=True),
    ),
    note=(
        "Total includes ops inside, self does not; GPU self adds up to all GPU work. FLOP from "
        "input shapes (matrix products, convolutions, attention), FLOP/s over GPU time."
    ),
)

"""PyTorch's ops by the shapes of their inputs: what the table `ops_by_shape` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="ops_by_shape",
    title="PyTorch ops by shape",
    columns=(
        Column("name", "op", "name"),
        Column("shapes", "input shapes", "name"),
        Column("dtype", "type", "text", optional=True),
        Column("calls", "calls", "count"),
        Column("self_gpu_time_ns", "GPU self", "ns"),
        Column("gpu_time_ns", "GPU total", "ns"),
        Column("kernels", "kernels", "count"),
        Column("flops", "FLOP", "flops", optional=True),
        Column("flops_per_s", "FLOP/s", "flops_per_s", optional=True),
        Column("self_cpu_ns", "CPU self", "ns"),
        Column("cpu_ns", "CPU total", "ns"),
        Column("dims", "dimensions as recorded", "text", shown=False),
        Column("types", "types as recorded", "text", shown=False),
    ),
    note=(
        "Total includes ops inside, self does not. FLOP of all calls, from their input shapes; "
        "FLOP/s over the GPU time of the calls."
    ),
)

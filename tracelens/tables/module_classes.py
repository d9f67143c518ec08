"""nn.Modules by class: what the table `module_classes` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="module_classes",
    title="nn.Modules by class",
    columns=(
        Column("path", "path", "name", shown=False),
        Column("module", "class", "name"),
        Column("instances", "instances", "count"),
        Column("calls", "calls", "count"),
        Column("gpu_time_ns", "GPU time", "ns"),
        Column("gpu_share", "of all", "share"),
        Column("forward_ns", "forward", "ns"),
        Column("backward_ns", "backward", "ns", optional=True),
        Column("self_gpu_time_ns", "GPU self", "ns"),
        Column("allocated_bytes", "allocated", "bytes", optional=True),
        Column("kept_bytes", "kept", "bytes", optional=True),
        Column("cpu_ns", "CPU time", "ns"),
        Column("forward_kernels", "fwd kernels", "count"),
        Column("backward_kernels", "bwd kernels", "count", optional=True),
        Column("depth", "depth", "count", shown=False),
    ),
    note=(
        "Instances at like places of the tree together. Modules inside are included, in self they "
        "are not. Backward goes to the module whose op it differentiates. Kept: allocated in "
        "forward and not freed in it."
    ),
)

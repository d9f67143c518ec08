"""The tree of nn.Modules: what the table `modules` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="modules",
    title="nn.Modules",
    columns=(
        Column("path", "path", "name", shown=False),
        Column("module", "module", "name"),
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
        "Modules inside are included, in self they are not. Backward goes to the module whose op "
        "it differentiates. Kept: allocated in forward and not freed in it. Alike ones together: "
        "--table module_classes."
    ),
)

"""GPU work by phase: what the table `phases` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="phases",
    title="GPU work by phase",
    columns=(
        Column("phase", "phase", "text"),
        Column("kernels", "kernels", "count"),
        Column("kernel_time_ns", "kernel time", "ns"),
        Column("busy_ns", "GPU busy", "ns"),
        Column("graph_launches", "graph launches", "count", shown=False, optional=True),
        Column("graph_time_ns", "graph time", "ns", optional=True),
        Column("copies", "copies", "count"),
        Column("copy_time_ns", "copy time", "ns"),
        Column("share", "share", "share"),
    ),
    note=(
        "Share is of all kernel and graph time. A kernel belongs to the phase that launched "
        "it, not to the one it ran in; the rows add up to the totals."
    ),
    stands_for=(
        "nvtx_gpu_proj_sum",
        "nvtxgpuproj",
    ),
)

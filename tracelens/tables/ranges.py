"""GPU work by named range: what the table `ranges` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="ranges",
    title="GPU work by named range",
    columns=(
        Column("name", "range", "name"),
        Column("domain", "domain", "text", optional=True),
        Column("instances", "count", "count"),
        Column("cpu_ns", "CPU time", "ns"),
        Column("kernels", "kernels", "count"),
        Column("kernel_time_ns", "kernel time", "ns"),
        Column("gpu_span_ns", "GPU span", "ns"),
    ),
    note=(
        "GPU work launched inside a range counts for it, and for the ranges around it; work "
        "of the autograd thread counts for the range that waited for it. Rows overlap."
    ),
    stands_for=(
        "nvtx_kern_sum",
        "nvtxkernsum",
        "nvtx_sum",
        "nvtx_pushpop_sum",
        "nvtxppsum",
    ),
)

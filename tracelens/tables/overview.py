"""GPU time by phase: what the table `overview` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="overview",
    title="GPU time by phase",
    columns=(
        Column("phase", "phase", "text"),
        Column("kernels", "kernels", "count"),
        Column("kernel_time_ns", "GPU time", "ns"),
        Column("graph_time_ns", "in graphs", "ns", optional=True),
        Column("share", "share", "share"),
        Column("matmul", "matmul", "share", optional=True),
        Column("attention", "attn", "share", optional=True),
        Column("elementwise", "elementw", "share", optional=True),
        Column("optimizer", "optim", "share", optional=True),
        Column("norm_softmax", "norm", "share", optional=True),
        Column("reduction", "reduce", "share", optional=True),
        Column("copy", "copy", "share", optional=True),
        Column("comm", "comm", "share", optional=True),
        Column("graph", "graph", "share", optional=True),
        Column("rest", "rest", "share", optional=True),
    ),
    note=(
        "Shares on the right are of the phase. A kernel belongs to the phase that launched "
        "it, not to the one it ran in."
    ),
)

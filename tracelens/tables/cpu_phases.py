"""What the CPU did in each phase: what the table `cpu_phases` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="cpu_phases",
    title="CPU time of PyTorch ops by phase",
    columns=(
        Column("phase", "phase", "text"),
        Column("calls", "ops", "count"),
        Column("self_cpu_ns", "CPU time", "ns"),
        Column("share", "share", "share"),
        Column("matmul", "matmul", "share"),
        Column("flops", "FLOP", "flops", optional=True),
        Column("flops_per_s", "FLOP/s", "flops_per_s", optional=True),
    ),
    note=(
        "Time inside of ops, each without the ops inside it; where the GPU computes, it is the "
        "time to launch. Matmul: matrix products, convolutions, fused attention."
    ),
)

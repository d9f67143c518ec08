"""GPU work and memory by phase and step: what the table `memory_by_phase` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="memory_by_phase",
    title="GPU work and memory by phase and step",
    columns=(
        Column("phase", "phase", "text"),
        Column("step", "step", "count"),
        Column("step_name", "name", "text", shown=False),
        Column("rank", "rank", "count", optional=True),
        Column("device", "device", "count", optional=True),
        Column("kernels", "kernels", "count"),
        Column("kernel_time_ns", "kernel time", "ns"),
        Column("peak_active_bytes", "peak memory", "bytes"),
        Column("end_active_bytes", "at its end", "bytes"),
    ),
    note=(
        "Bytes as PyTorch's allocator gave them out; a phase's peak counts what it found. Work and "
        "memory of two recordings meet by phase and step, never by their clocks."
    ),
)

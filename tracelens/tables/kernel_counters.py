"""Kernels as the GPU counted them: what the table `kernel_counters` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="kernel_counters",
    title="Kernels by the GPU's counters",
    columns=(
        Column("short_name", "kernel", "name"),
        Column("name", "full name", "name", shown=False),
        Column("family", "family", "text", shown=False),
        Column("launches", "calls", "count"),
        Column("total_ns", "time", "ns"),
        Column("sm_throughput", "SM", "share", optional=True),
        Column("memory_throughput", "memory", "share", optional=True),
        Column("flops_per_s", "FLOP/s", "flops_per_s", optional=True),
        Column("bytes_per_s", "DRAM/s", "bytes_per_s", optional=True),
        Column("occupancy", "occupancy", "share", optional=True),
        Column("l2_hit_rate", "L2 hits", "share", optional=True),
        Column("intensity", "FLOP/byte", "flops_per_byte", optional=True),
        Column("format", "tensor cores", "text", optional=True),
        Column("bytes", "DRAM bytes", "bytes", optional=True),
        Column("flops", "FLOP", "flops", optional=True),
        Column("share", "share", "share", shown=False),
        Column("fp64_flops", "FLOP in fp64", "flops", shown=False),
        Column("fp32_flops", "FLOP in fp32", "flops", shown=False),
        Column("fp16_flops", "FLOP in fp16", "flops", shown=False),
        Column("tensor_ops", "operations of tensor cores", "flops", shown=False),
    ),
    note=(
        "SM and memory are the busiest unit of each, as a share of its peak; means over time. "
        "FLOP are instructions executed, padding included; DRAM bytes are of a cold cache, and "
        "without what a kernel leaves in L2."
    ),
)

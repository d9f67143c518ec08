"""Ops below the roofline, most time lost first: what the table `roofline` shows."""

from tracelens.links.gpu_ceilings import said_of_ceilings
from tracelens.tables import Column, Table

TABLE = Table(
    analysis="roofline",
    title="Roofline by op and shape",
    columns=(
        Column("name", "op", "text"),
        Column("shapes", "input shapes", "text", optional=True),
        Column("time_ns", "GPU time", "ns"),
        Column("lost_ns", "lost", "ns", optional=True),
        Column("share_of_ceiling", "of ceiling", "share", optional=True),
        Column("bound", "bound by", "text", optional=True),
        Column("intensity", "FLOP/byte", "flops_per_byte"),
        Column("flops_per_s", "FLOP/s", "flops_per_s"),
        Column("bytes_per_s", "bytes/s", "bytes_per_s"),
        Column("ceiling", "ceiling", "text", optional=True),
        Column("verdict", "note", "text", optional=True),
        Column("remark", "counted as", "text", optional=True),
        Column("calls", "calls", "count"),
        Column("dtype", "type", "text", optional=True),
        Column("source", "known by", "text"),
        Column("kernels", "kernels", "count", shown=False),
        Column("share", "share", "share", shown=False),
        Column("flops", "FLOP", "flops", shown=False),
        Column("bytes", "bytes", "bytes", shown=False),
        Column("bound_ns", "at least", "ns", shown=False),
        Column("format", "format", "text", shown=False),
        Column("certain", "format is certain", "flag", shown=False),
        Column("causal", "causal half alone", "flag", shown=False),
        Column("dims", "dimensions as recorded", "text", shown=False),
        Column("types", "types as recorded", "text", shown=False),
    ),
    note=(
        "Lost is the time above the bound: FLOP at their ceiling or bytes at the memory's "
        "bandwidth, whichever takes longer. Bytes: every operand read once, every result written "
        "once. Latency: kernels below 5 µs that reach less than half of their ceiling."
    ),
    note_of=said_of_ceilings,
)

"""All GPU work below the roofline: what the table `roofline_totals` shows."""

from tracelens.links.gpu_ceilings import said_of_ceilings
from tracelens.tables import Column, Table

TABLE = Table(
    analysis="roofline_totals",
    title="Roofline in all",
    columns=(
        Column("known_share", "known", "share"),
        Column("flops", "FLOP", "flops"),
        Column("bytes", "bytes", "bytes"),
        Column("intensity", "FLOP/byte", "flops_per_byte"),
        Column("mfu", "MFU", "share", optional=True),
        Column("mbu", "MBU", "share", optional=True),
        Column("mfu_of_span", "MFU with idle", "share", optional=True),
        Column("mbu_of_span", "MBU with idle", "share", optional=True),
        Column("lost_ns", "lost", "ns", optional=True),
        Column("unknown", "not known", "name", optional=True),
        Column("busy_ns", "GPU busy", "ns", shown=False),
        Column("time_ns", "GPU time", "ns", shown=False),
        Column("known_ns", "of known cost", "ns", shown=False),
        Column("bound", "mostly", "text", shown=False),
        Column("bound_ns", "at least", "ns", shown=False),
        Column("span_ns", "span", "ns", shown=False),
        Column("impossible", "impossible", "count", optional=True),
        Column("gpu", "GPU", "text", shown=False),
        Column("ceilings", "ceilings", "text", shown=False),
    ),
    note=(
        "Of the GPU time, so much is of known cost. With idle: over the time from the first to "
        "the last GPU work."
    ),
    note_of=said_of_ceilings,
)

"""Phases below the roofline: what the table `roofline_phases` shows."""

from tracelens.links.gpu_ceilings import said_of_ceilings
from tracelens.tables import Column, Table

TABLE = Table(
    analysis="roofline_phases",
    title="Roofline by phase",
    columns=(
        Column("phase", "phase", "text"),
        Column("busy_ns", "GPU busy", "ns"),
        Column("known_share", "known", "share"),
        Column("flops", "FLOP", "flops"),
        Column("bytes", "bytes", "bytes"),
        Column("intensity", "FLOP/byte", "flops_per_byte"),
        Column("mfu", "MFU", "share", optional=True),
        Column("mbu", "MBU", "share", optional=True),
        Column("bound_ns", "at least", "ns", optional=True),
        Column("lost_ns", "lost", "ns", optional=True),
        Column("bound", "mostly", "text", optional=True),
        Column("impossible", "impossible", "count", optional=True),
        Column("time_ns", "GPU time", "ns", shown=False),
        Column("known_ns", "of known cost", "ns", shown=False),
    ),
    note=(
        "MFU: matrix products at the peak of their number format, over the time that the GPU was "
        "busy; MBU: bytes at the memory's bandwidth. Known: share of GPU time whose FLOP and bytes "
        "are known. At least: what that would take at the ceilings."
    ),
    note_of=said_of_ceilings,
)

"""Kernels by the size of their launch: what the table `launch_shapes` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="launch_shapes",
    title="Kernels by the size of their launch",
    columns=(
        Column("short_name", "kernel", "name"),
        Column("family", "family", "text", shown=False),
        Column("grid", "grid", "text"),
        Column("block", "block", "text"),
        Column("calls", "calls", "count"),
        Column("total_ns", "total", "ns"),
        Column("share", "share", "share"),
        Column("waves", "waves", "count"),
        Column("blocks_per_sm", "per SM", "count"),
        Column("blocks", "blocks", "count", shown=False),
        Column("threads", "threads", "count", shown=False),
        Column("registers", "registers", "count", shown=False),
        Column("shared_bytes", "shared", "bytes", shown=False),
        Column("sm_count", "SMs", "count", shown=False),
        Column("device", "device", "count", shown=False),
        Column("name", "full name", "name", shown=False),
    ),
    note=(
        "Waves: blocks of the grid over those that fit on all multiprocessors at once, by "
        "registers, shared memory and threads of a block."
    ),
)

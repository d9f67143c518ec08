"""GPUs: what the table `devices` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="devices",
    title="GPUs",
    columns=(
        Column("device", "device", "count"),
        Column("name", "GPU", "name"),
        Column("kernels", "kernels", "count"),
        Column("streams", "streams", "count"),
        Column("busy_ns", "busy", "ns"),
        Column("idle_ns", "idle", "ns"),
        Column("busy_share", "busy", "share"),
        Column("sm_count", "SMs", "count"),
        Column("capability", "capability", "text"),
        Column("memory_bytes", "memory", "bytes"),
        Column("bandwidth_bytes_per_s", "bandwidth", "bytes_per_s"),
        Column("processes", "processes", "count", shown=False),
        Column("span_ns", "span", "ns", shown=False),
    ),
    note=("Busy share is of the time between the first and last op of the device."),
)

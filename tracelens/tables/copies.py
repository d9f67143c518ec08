"""Memory copies: what the table `copies` shows."""

from tracelens.tables import Column, Table

TABLE = Table(
    analysis="copies",
    title="Memory copies",
    columns=(
        Column("kind", "direction", "text"),
        Column("calls", "calls", "count"),
        Column("bytes", "moved", "bytes"),
        Column("total_ns", "time", "ns"),
        Column("bandwidth_bytes_per_s", "bandwidth", "bytes_per_s"),
    ),
    note=(
        "Bandwidth is bytes over the summed time of the copies. Memory sets stand in the "
        "table memsets."
    ),
    stands_for=(
        "cuda_gpu_mem_time_sum",
        "gpumemtimesum",
        "cuda_gpu_mem_size_sum",
        "gpumemsizesum",
    ),
)

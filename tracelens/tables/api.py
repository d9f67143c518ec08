"""CUDA API calls: what the table `api` shows."""

from tracelens.tables import DURATIONS, Column, Table

TABLE = Table(
    analysis="api",
    title="CUDA API calls",
    columns=(
        Column("name", "function", "name"),
        Column("calls", "calls", "count"),
        Column("total_ns", "total", "ns"),
        Column("share", "share", "share"),
        *DURATIONS,
    ),
    note=("Share is of the time in all CUDA calls, on every thread; calls overlap with GPU work."),
    stands_for=(
        "cuda_api_sum",
        "cudaapisum",
    ),
)

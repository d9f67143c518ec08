"""Tables of Nsight Compute by hand: what `ncu --page raw --csv` prints, a few launches long."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LAUNCH = (
    "ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream",
    "Block Size", "Grid Size", "Device", "CC",
)  # fmt: skip
UNITS = {
    "gpu__time_duration.sum": "ns",
    "dram__bytes.sum": "byte",
    "dram__bytes.sum.per_second": "byte/s",
    "smsp__cycles_elapsed.avg": "cycle",
    "launch__registers_per_thread": "register/thread",
    "launch__shared_mem_per_block": "byte/block",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "%",
}
NOTHING = {
    f"smsp__sass_thread_inst_executed_op_{kind}{op}_pred_on.sum": "0"
    for kind in "dfh"
    for op in ("add", "mul", "fma")
} | {"sm__ops_path_tensor_src_bf16_dst_fp32.sum": "0"}
"""Counters of operations, none of which happened."""


def instructions(**counts: int) -> dict[str, str]:
    """Return counters of instructions: ``ffma=10``; those not given are 0."""
    return NOTHING | {
        f"smsp__sass_thread_inst_executed_op_{op}_pred_on.sum": f"{count:,}"
        for op, count in counts.items()
    }


@dataclass
class Ncu:
    """A table; ``units`` are those of metrics that `UNITS` has not, or has otherwise."""

    units: dict[str, str] = field(default_factory=dict)
    before: str = ""
    device: str = "NVIDIA H200"
    rows: list[dict[str, str]] = field(default_factory=list)

    def launch(
        self,
        name: str,
        ns: int | str = 1_000,
        metrics: Mapping[str, str] | None = None,
        *,
        grid: tuple[int, int, int] = (1, 1, 1),
        block: tuple[int, int, int] = (128, 1, 1),
        stream: int = 7,
    ) -> Ncu:
        """Add a launch of a kernel that took so long; metrics are texts, as ncu writes them."""
        took = f"{ns:,}" if isinstance(ns, int) else ns
        launch = (len(self.rows), 41, "python3", "host", name, 1, stream, block, grid, 0, "9.0")
        known = {
            "device__attribute_display_name": self.device,
            "gpu__time_duration.sum": took,
        }
        row = dict(zip(LAUNCH, map(str, launch), strict=True))
        self.rows.append({**row, **known, **(metrics or {})})
        return self

    def text(self) -> str:
        """Return the table as ncu prints it."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row)) or [*LAUNCH]
        out = io.StringIO()
        units = {**UNITS, **self.units}
        write = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow
        write(columns)
        write([units.get(name, "") for name in columns])
        for row in self.rows:
            write([row.get(name, "") for name in columns])
        return self.before + out.getvalue()

    def write(self, path: Path) -> Path:
        """Write the table to a file."""
        path.write_text(self.text(), encoding="utf-8")
        return path

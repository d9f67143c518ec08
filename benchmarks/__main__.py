"""Measure the budgets and print a table; `--write` puts it into docs/performance.md.

usage: python -m benchmarks [--quick] [--runs N] [--slow-peers] [--data DIR] [--write]

--quick leaves out the 2.6 GB recording; --slow-peers waits up to seven minutes for nvtxgpuproj.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import inputs
from benchmarks.measure import Cost, cost
from benchmarks.page import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[1]
TRACELENS: Final = [sys.executable, "-m", "tracelens"]
REPEAT: Final = 140
_PEER_TIMEOUT_S: Final = 420
HTA: Final = "HolisticTraceAnalysis==0.5.0"
_HTA_PROGRAM: Final = """
import sys
from hta.trace_analysis import TraceAnalysis
TraceAnalysis(trace_files={0: sys.argv[1]}).get_gpu_kernel_breakdown(visualize=False)
"""


def _brief(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


@dataclass(frozen=True)
class Row:
    """One budget: what was run, what it may cost, what it costs, and what the peer needs."""

    what: str
    budget: str
    ours: Cost
    peer: str = ""
    peer_cost: Cost | None = None

    def cells(self) -> list[str]:
        """Return the row as cells of a table."""
        peer = ratio = ""
        if self.peer_cost:
            least = "" if self.peer_cost.finished else "> "
            peer = f"`{self.peer}` {least}{_brief(self.peer_cost.seconds)} s"
            ratio = f"{least}{_brief(self.peer_cost.seconds / self.ours.seconds)}×"
        spread = f"{self.ours.seconds:.2f} s ({self.ours.fastest:.2f} to {self.ours.slowest:.2f})"
        return [self.what, self.budget, spread, f"{self.ours.mebibytes:.0f} MiB", peer, ratio]


def made(make: Callable[..., Path], *arguments: object) -> Path:
    """Run a function in a process of its own: children count what their parent had in memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(make, *arguments).result()


class Bench:
    """The measurements, each a method that gives rows."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.data: Path = options.data
        self.data.mkdir(parents=True, exist_ok=True)
        self.cache = Path(tempfile.mkdtemp(prefix="tracelens-bench-"))

    def rows(self) -> Iterator[Row]:
        """Give every row, printing nothing."""
        yield from self.start_up()
        yield from self.two_million()
        yield from self.few_kernels()
        yield from self.torch_profiler()
        yield from self.snapshot()
        if not self.options.quick:
            yield from self.twenty_million()

    def start_up(self) -> Iterator[Row]:
        """Commands that only talk."""
        for arguments in (["--help"], ["list"]):
            yield Row(
                f"`tracelens {' '.join(arguments)}`",
                "≤ 0.15 s",
                cost([*TRACELENS, *arguments], runs=self.options.runs),
            )

    def two_million(self) -> Iterator[Row]:
        """The ordinary large recording: cold, cached, and from nsys's own Parquet."""
        export = made(inputs.grown, self.data, REPEAT)
        size = f"{export.stat().st_size / 1e6:.0f} MB, 2.0 M kernels"
        cold = self.summarize(export, cold=True)
        yield Row(
            f"`summarize`, {size}, nothing cached",
            "≤ 2.0 s, 900 MB",
            cold,
            *self.nsys("nvtxkernsum", export),
        )
        if self.options.slow_peers:
            yield Row("the same", "", cold, *self.nsys("nvtxgpuproj", export))
        yield Row("the same, cached", "≤ 0.7 s", self.summarize(export, cold=False))
        folder = made(inputs.parquet_folder, export)
        yield Row(
            "the same from an nsys Parquet folder", "≤ 0.7 s", self.summarize(folder, cold=True)
        )
        yield Row(
            "the same, every table as JSON, cached",
            "",
            self.summarize(export, "--format", "json", cold=False),
        )

    def few_kernels(self) -> Iterator[Row]:
        """A recording of which nearly nothing matters."""
        export = made(inputs.few_kernels_much_else, self.data)
        size = f"{export.stat().st_size / 1e6:.0f} MB, 1,000 kernels"
        yield Row(
            f"`summarize`, {size}, nothing cached",
            "≤ 0.7 s",
            self.summarize(export, cold=True),
            *self.nsys("nvtxkernsum", export),
        )

    def torch_profiler(self) -> Iterator[Row]:
        """A trace by torch.profiler, and four times as much."""
        for repeat, budget in ((4, "≤ 1.0 s, 300 MB"), (16, "")):
            trace = made(inputs.torch_trace, self.data, repeat)
            events = f"{repeat * 50} k events"
            yield Row(
                f"`summarize`, torch.profiler, {trace.stat().st_size / 1e6:.0f} MB, {events}, cold",
                budget,
                self.summarize(trace, cold=True),
                *(self.hta(trace) if budget else ()),
            )
            if budget:
                took = self.run("roofline", trace, cold=True)
                yield Row("the same, `tracelens roofline`", "≤ 1.5 s", took)
        yield Row("the same, cached", "", self.summarize(trace, cold=False))

    def snapshot(self) -> Iterator[Row]:
        """A memory snapshot of a long history, child process included."""
        for entries, budget in ((1_000_000, "≤ 2.5 s"), (4_000_000, "")):
            path = made(inputs.grown_snapshot, self.data, entries)
            size = f"{path.stat().st_size / 1e6:.0f} MB, {entries // 1_000_000} M events"
            runs = self.options.runs if budget else 1
            yield Row(
                f"`tracelens memory`, snapshot of {size}, cold",
                budget,
                self.run("memory", path, cold=True, runs=runs),
            )

    def twenty_million(self) -> Iterator[Row]:
        """Ten times as much: time must grow no faster, and memory slower."""
        export = made(inputs.grown, self.data, 10 * REPEAT)
        size = f"{export.stat().st_size / 1e9:.1f} GB, 20 M kernels"
        yield Row(
            f"`summarize`, {size}, nothing cached",
            "≤ 20 s, 3 GB",
            self.summarize(export, cold=True, runs=1),
        )

    def summarize(self, path: Path, *options: str, cold: bool, runs: int | None = None) -> Cost:
        """Weigh `summarize`."""
        return self.run("summarize", path, *options, cold=cold, runs=runs)

    def run(
        self, command: str, path: Path, *options: str, cold: bool, runs: int | None = None
    ) -> Cost:
        """Weigh a command; a warm one is run once before."""
        environment = {"TRACELENS_CACHE_DIR": str(self.cache)}
        arguments = [*TRACELENS, command, str(path), *options]
        if not cold:
            cost(arguments, runs=1, environment=environment)
        forget = (lambda: shutil.rmtree(self.cache, ignore_errors=True)) if cold else None
        return cost(
            arguments, runs=runs or self.options.runs, before=forget, environment=environment
        )

    def nsys(self, report: str, export: Path) -> tuple[str, Cost | None]:
        """Weigh `nsys stats` on the same file, where it is installed."""
        nsys = shutil.which("nsys")
        if nsys is None:
            return "", None
        command = [nsys, "stats", "-r", report, "-f", "csv", "-q", str(export)]
        return f"nsys stats {report}", cost(command, runs=1, timeout_s=_PEER_TIMEOUT_S)

    def hta(self, trace: Path) -> tuple[str, Cost | None]:
        """Weigh Meta's Holistic Trace Analysis on the same file: its kernel breakdown."""
        python = self.data / "hta" / "bin" / "python"
        if not python.exists():
            venv = [sys.executable, "-m", "venv", str(python.parents[1])]
            pip = [str(python), "-m", "pip", "install", "--quiet", HTA]
            if (
                subprocess.run(venv, check=False).returncode
                or subprocess.run(pip, check=False).returncode
            ):
                return "", None
        packed = trace.with_suffix(".json.gz")
        if not packed.exists():
            with trace.open("rb") as plain, gzip.open(packed, "wb", compresslevel=1) as file:
                shutil.copyfileobj(plain, file)
        return HTA, cost([str(python), "-c", _HTA_PROGRAM, str(packed)], runs=1)


def circumstances() -> str:
    """Return one sentence on what was measured where."""
    from importlib.metadata import version

    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}, polars {version('polars')}; the file is in the page cache; "
        "median of the runs (fastest to slowest), memory is the largest resident set."
    )


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--slow-peers", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "benchmarks")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        "| what | budget | tracelens | memory | peer | ratio |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    print("\n".join(lines))
    for row in Bench(options).rows():
        lines.append(f"| {' | '.join(row.cells())} |")
        print(lines[-1], flush=True)
    lines += ["", circumstances()]
    print(lines[-1])
    if options.write:
        write("python -m benchmarks", lines)


if __name__ == "__main__":
    main()

"""Measure how long reports of a large recording take, in each format; `--write` notes it.

usage: python -m benchmarks.report [--runs N] [--data DIR] [--write]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import inputs
from benchmarks.__main__ import REPEAT, ROOT, Bench, Row, circumstances, made
from benchmarks.page import write

if TYPE_CHECKING:
    from collections.abc import Iterator


def rows(bench: Bench, folder: Path) -> Iterator[Row]:
    """Give a row for each format; only the first one reads the recording itself."""
    export = made(inputs.grown, bench.data, REPEAT)
    size = f"{export.stat().st_size / 1e6:.0f} MB, 2.0 M kernels"
    page, source = str(folder / "r.html"), str(folder / "r.tex")
    told = bench.run("report", export, "-o", page, "--force", cold=True)
    yield Row(f"`report` as HTML, {size}, nothing cached", "≤ 5 s", told)
    cached = bench.run("report", export, "-o", page, "--force", cold=False)
    yield Row("the same, cached", "", cached)
    attached = ("-o", source, "--attach", str(folder / "attached"), "--force")
    yield Row(
        "the same as LaTeX, with every table and figure attached, cached",
        "",
        bench.run("report", export, *attached, cold=False),
    )


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "benchmarks")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = ["| what | budget | tracelens | memory |", "| --- | --- | ---: | ---: |"]
    print("\n".join(lines))
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(Bench(options), Path(folder)):
            lines.append(f"| {' | '.join(row.cells()[:4])} |")
            print(lines[-1], flush=True)
    load = f"Load {before:.1f} before, {os.getloadavg()[0]:.1f} after."
    lines += ["", f"{circumstances()} {load}"]
    print(lines[-1])
    if options.write:
        write("python -m benchmarks.report", lines)


if __name__ == "__main__":
    main()

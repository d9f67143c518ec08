"""What docs/kernels-h200.md states: the cells that are measured, their targets, and its tables.

usage: python -m benchmarks.kernels plan RESULTS      (then: tracelens bench --resume RESULTS)
       python -m benchmarks.kernels page RESULTS

`plan` writes a file of results with nothing measured in it; `page` prints the tables of one that
was measured, as Markdown. A target is of our implementation: a rate, a time, or a share of the
speed of another implementation of the same cell.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracelens import __version__, hardware, units
from tracelens.bench import results, sweep
from tracelens.bench.cell import Cell
from tracelens.kernel import OURS, find, parse_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.bench.cell import Row
    from tracelens.bench.results import Results

SDPA: Final = ("sdpa-flash", "sdpa-cudnn")
EAGER: Final = ("eager", "compile")
"""Compiling takes seconds: it is measured in one size of each kernel."""


@dataclass(frozen=True)
class Asked:
    """One cell.

    Attributes:
        targets: `>= 3.6 TB/s`, `>= 680 TFLOP/s`, `<= 5.5 ms`, or `>= 0.9 x sdpa-cudnn`.
    """

    kernel: str
    operation: str
    shape: str
    dtype: str
    others: tuple[str, ...]
    targets: tuple[str, ...] = ()
    l2: tuple[str, ...] = field(default=("cold",))


def asked() -> list[Asked]:
    """Return all cells, the most important first."""
    return [*attention(), *rows(), *quantised(), *products(), *sparse()]


def attention() -> Iterator[Asked]:
    """Give every shape of the baselines that the targets were set by, and the course's."""
    rates = {
        (4, 8192, 128, 0): ">= 520 TFLOP/s", (2, 16384, 128, 0): ">= 520 TFLOP/s",
        (4, 8192, 128, 1): ">= 490 TFLOP/s", (2, 16384, 128, 1): ">= 490 TFLOP/s",
        (1, 16384, 64, 0): ">= 390 TFLOP/s",
    }  # fmt: skip
    backward = {
        (4, 8192, 128, 0): ">= 390 TFLOP/s", (2, 16384, 128, 0): ">= 390 TFLOP/s",
        (4, 8192, 128, 1): ">= 390 TFLOP/s", (2, 16384, 128, 1): ">= 390 TFLOP/s",
    }  # fmt: skip
    yield Asked(
        "flash_attention", "forward_backward",
        "batch=1,heads=16,queries=16384,head_dim=64,causal=1", "bf16", SDPA, ("<= 5.5 ms",),
    )  # fmt: skip
    yield Asked(
        "flash_attention", "forward_backward",
        "batch=4,heads=16,queries=2048,head_dim=64", "bf16", (*EAGER, *SDPA),
    )  # fmt: skip
    sizes = ((4, 16, 2048, 64), (16, 16, 2048, 64), (4, 16, 8192, 128), (2, 16, 16384, 128),
             (1, 16, 16384, 64), (32, 32, 4096, 128))  # fmt: skip
    for batch, heads, queries, d in sizes:
        for causal in (0, 1):
            shape = f"batch={batch},heads={heads},queries={queries},head_dim={d},causal={causal}"
            key = batch, queries, d, causal
            given = (rates[key],) if key in rates else ()
            targets = (*given, ">= 1.5 x sdpa-flash", ">= 0.9 x sdpa-cudnn")
            yield Asked("flash_attention", "forward", shape, "bf16", SDPA, targets)
            given = (backward[key],) if key in backward else ()
            targets = (*given, ">= 0.8 x sdpa-cudnn")
            yield Asked("flash_attention", "backward", shape, "bf16", SDPA, targets)
    for blocks, limit in ((800, "<= 25 µs"), (1600, "<= 40 µs"), (3200, "<= 70 µs")):
        yield Asked(
            "block_sparse_attention", "forward", f"blocks={blocks}", "fp16", ("unfused",),
            (limit,), ("hot", "cold"),
        )  # fmt: skip


def rows() -> Iterator[Asked]:
    """Give what is bound by memory."""
    sizes = ("8192x8192", "4096x16384", "8192x32768")
    for size in sizes:
        others = EAGER if size == sizes[0] else ("eager",)
        for kernel in ("softmax", "rmsnorm", "layernorm"):
            yield Asked(kernel, "forward", size, "bf16", others, (">= 3.6 TB/s",))
        for kernel in ("rmsnorm", "layernorm"):
            yield Asked(kernel, "backward", size, "bf16", others, (">= 2.8 TB/s",))
    yield Asked("cross_entropy", "in-place", "8192x128256", "bf16", EAGER, ("<= 1.9 ms",))
    yield Asked("linear_cross_entropy", "forward-backward", "8192x768x50257", "bf16", ("eager",))
    yield Asked("adamw", "step", "537", "fp32", ("foreach", "fused"), (">= 3.8 TB/s",))


def quantised() -> Iterator[Asked]:
    """Give quantisation and what follows a product; 3.82 TB/s is 90 % of a copy's 4.25."""
    for to in ("int8", "fp8"):
        for size in ("16384x8192", "65536x18944"):
            yield Asked("quant", to, size, "bf16", ("eager",), (">= 3.6 TB/s",))
        for of in (8, 6, 10) if to == "int8" else (8,):
            yield Asked("quant_slide", to, f"16384x8192x{of}", "bf16", EAGER, (">= 3.82 TB/s",))
    yield Asked("dequant_bias", "forward", "16384x8192", "int32", ("eager",))


def products() -> Iterator[Asked]:
    """Give matrix products, grouped ones, and experts."""
    yield Asked("matmul", "forward", "8192x8192x8192", "bf16", ("cublas",), (">= 680 TFLOP/s",))
    scaled = ("scaled-mm", "scaled-mm-accurate", "accurate")
    yield Asked("matmul", "forward", "8192x8192x8192", "fp8", scaled, (">= 1150 TFLOP/s",))
    yield Asked("matmul", "forward", "4096x4096x4096", "bf16", ("cublas",))
    yield Asked("matmul", "forward", "4096x4096x4096", "fp8", scaled)
    yield Asked("matmul", "forward", "4095x4097x1000", "bf16", ("cublas",))
    grouped = ("grouped-mm", "eager")
    for shape, target in (
        ("32768x16x4096x4096", ">= 600 TFLOP/s"), ("32768x16x4096x4096x120", ">= 1 x grouped-mm"),
        ("128x128x7168x2048", ">= 1 x grouped-mm"), ("2048x128x7168x2048", ">= 1 x grouped-mm"),
    ):  # fmt: skip
        yield Asked("grouped_matmul", "forward", shape, "bf16", grouped, (target,))
    yield Asked("moe", "forward", "8192x2048x8192x16x2", "bf16", ("grouped-mm", "eager"))


def sparse() -> Iterator[Asked]:
    """Give products with 2:4 weights, whose operations are counted as if they were dense."""
    for operation, of, target in (
        ("int8_product", 4, ">= 1.5 x eager"), ("int8_product", 8, ">= 1 x eager"),
        ("fp8_product", 4, ">= 1 x eager"),
    ):  # fmt: skip
        yield Asked(
            "sparse_linear", operation, f"8192x8192x8192x{of}", "bf16", ("default", "eager"),
            (target,),
        )  # fmt: skip
    yield Asked("fp8_linear", "forward", "8192x8192x8192", "bf16", ("eager", "cublas"))


def plan() -> Results:
    """Return results with nothing measured."""
    return results.Results(
        cells=tuple(_cell(one) for one in asked()),
        made=datetime.now().astimezone().isoformat(timespec="seconds"),
        command=("python", "-m", "benchmarks.kernels"),
        tracelens=__version__,
        environment=sweep.circumstances(),
    )


def _cell(one: Asked) -> Cell:
    l2: Any = one.l2
    return Cell(
        kernel=one.kernel,
        operation=one.operation,
        shape=parse_shape(find(one.kernel), one.shape),
        dtype=one.dtype,
        implementations=(OURS, *one.others),
        l2=l2,
        precision=0.005,
        budget_s=0.6,
        ceilings=os.environ.get("TRACELENS_CEILINGS", ""),
    )


def page(found: Results) -> str:
    """Return the tables, one for each kernel."""
    lines: list[str] = []
    for kernel in dict.fromkeys(one.kernel for one in asked()):
        lines += ["", f"## {kernel.replace('_', ' ')}", "", *_HEAD]
        for one in (one for one in asked() if one.kernel == kernel):
            place = results.place_of(_cell(one))
            mine = [row for row in found.rows if results.place_of(row) == place]
            lines += [
                _line(one, [row for row in mine if row.l2 == state], state) for state in one.l2
            ]
    return "\n".join(lines).strip() + "\n"


_HEAD: Final = (
    "| what | ours | rate | measured limit | physical limit | others | target |",
    "| --- | ---: | ---: | ---: | ---: | --- | --- |",
)


def _line(one: Asked, rows_: list[Row], state: str) -> str:
    ours = next((row for row in rows_ if row.implementation == OURS), None)
    what = f"{one.operation} {_short(one)} {one.dtype}{', hot L2' if state == 'hot' else ''}"
    if ours is None:
        return f"| {what} | not measured | | | | | {'; '.join(one.targets)} |"
    others = "<br>".join(
        f"{row.implementation} {_time(row.median_s)} ({_ratio(row)})"
        for row in rows_
        if row is not ours
    )
    verdicts = "<br>".join(_verdict(text, ours, rows_) for text in one.targets)
    share = "" if ours.share is None else f"{100 * ours.share:.0f} %{'*' * bool(ours.flag)}"
    spread = "" if ours.precision is None else f" ±{100 * ours.precision:.1f} %"
    return (
        f"| {what} | {_time(ours.median_s)}{spread} | {_rate(ours)} | {share} | {_physical(ours)} "
        f"| {others} | {verdicts} |"
    )


def _physical(row: Row) -> str:
    """Return the least time by the data sheet, and its share of what it took."""
    device = hardware.device(row.device)
    work = find(row.kernel).operations[row.operation].work(row.shape, row.dtype)
    least = hardware.bound([work], device) if device else None
    if least is None:
        return ""
    return f"{_time(least.seconds)}, {100 * least.seconds / row.median_s:.0f} %"


def _short(one: Asked) -> str:
    """Return a shape as it was asked for, as people write it."""
    shape = _cell(one).shape
    if one.kernel == "flash_attention":
        sizes = [shape[name] for name in ("batch", "heads", "queries", "head_dim")]
        return f"{' × '.join(map(str, sizes))}{' causal' if shape['causal'] else ''}"
    if one.kernel == "block_sparse_attention":
        return f"{shape['blocks']} blocks of {shape['block']}², d {shape['head_dim']}"
    return " × ".join(f"{size}" for size in shape.values())


def _verdict(text: str, ours: Row, rows_: list[Row]) -> str:
    """Return a target, and whether it was met; shares of others go by the medians."""
    found = re.fullmatch(r"(>=|<=) ([\d.]+) (TB/s|TFLOP/s|ms|µs|% of limit|x (\S+))", text)
    if found is None:
        raise ValueError(text)
    wanted, unit, other = float(found[2]), found[3], found[4]
    if other:
        theirs = next((row for row in rows_ if row.implementation == other), None)
        value = theirs.median_s / ours.median_s if theirs else None
    else:
        value = {
            "TB/s": ours.bytes / ours.median_s / 1e12,
            "TFLOP/s": ours.flops / ours.median_s / 1e12,
            "ms": ours.median_s * 1e3,
            "µs": ours.median_s * 1e6,
            "% of limit": None if ours.share is None else 100 * ours.share,
        }[unit]
    if value is None:
        return f"{text}: not known"
    met = value >= wanted if found[1] == ">=" else value <= wanted
    return f"{text}: {'met' if met else '**not met**'} ({_three(value)})"


def _three(value: float) -> str:
    """Return a number to three figures, none of them in powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _time(seconds: float) -> str:
    return units.column("ns", [seconds * 1e9])[0]


def _rate(row: Row) -> str:
    if row.limited_by == "memory":
        return units.column("bytes_per_s", [row.bytes / row.median_s])[0]
    return units.column("flops_per_s", [row.flops / row.median_s])[0]


def _ratio(row: Row) -> str:
    if row.pair is None:
        return ""
    if row.pair.verdict in ("no difference", "too few rounds"):
        return row.pair.verdict
    return f"{row.pair.ratio:.2f}×"


def main() -> int:
    """Write a plan, or print a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("plan", "page"))
    parser.add_argument("results", type=Path)
    given = parser.parse_args()
    if given.what == "plan":
        results.save(plan(), given.results)
    else:
        print(page(results.load(given.results)), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

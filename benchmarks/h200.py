"""Capture the workloads whose figures docs/h200.md states, and make its tables of the Run folders.

usage: python -m benchmarks.h200 run PART... --out DIR [--device cpu] [--limit SECONDS]
       python -m benchmarks.h200 tables --out DIR

A part is some captures, each into a folder of its own below DIR; those that are done are left, so
that parts may be spread over several sessions on a machine. `tables` prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracelens import units
from tracelens.capture import folder as folders
from tracelens.capture import summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SIZES: Final = ("small", "medium", "large", "xl", "2.7b")
STEPS: Final = ("--warmup", "3", "--steps", "10")
TIMED: Final = ("--with", "timer")
TRACED: Final = ("--with", "timer", "--with", "torch", "--warmup", "3", "--steps", "3")


@dataclass(frozen=True)
class Capture:
    """One line of a table: its folder's name and what stands behind `tracelens capture`."""

    name: str
    words: tuple[str, ...]


def training() -> Iterator[Capture]:
    """Give sizes, contexts, formats and modes of a training step."""
    for size in SIZES:
        for dtype in ("fp32", "tf32", "bf16"):
            kind = ("--dtype", dtype, *(("--autocast",) if dtype == "bf16" else ()))
            recorders = TIMED if dtype == "tf32" else TRACED
            yield _gpt2(size, 256, f"{dtype}-train", *kind, *recorders)
    for mode in ("forward", "forward-backward"):
        for size in SIZES:
            yield _gpt2(size, 256, f"fp32-{mode}", "--mode", mode, *TIMED)
    for context in (128, 512, 1024):
        for size in SIZES:
            yield _gpt2(size, context, "tf32-train", "--dtype", "tf32", *TIMED)


def course() -> Iterator[Capture]:
    """Give what the course's answers have on an H100: its own models, and attention by itself."""
    for context in (128, 512):
        for size in SIZES:
            yield _course(size, context, "fp32")
    for size in ("small", "xl"):
        yield _course(size, 512, "tf32", "--compile", "default")
    for length in (1024, 4096, 16384):
        for d in (16, 64, 128):
            shape = ("--d", str(d), "--seq", str(length), "--batch", "8", "--heads", "1")
            yield Capture(f"attention-course-d{d}-{length}", ("attention", *shape, *TIMED))


def compiled() -> Iterator[Capture]:
    """Give eager against torch.compile."""
    for size in ("small", "xl"):
        for mode in ("none", "default", "reduce-overhead", "max-autotune"):
            kind = ("--dtype", "bf16", "--autocast", "--compile", mode)
            yield _gpt2(size, 256, f"compile-{mode}", *kind, *TIMED)


def attention() -> Iterator[Capture]:
    """Give naive attention against PyTorch's fused ones, over lengths."""
    for implementation in ("naive", "sdpa-flash", "sdpa-cudnn"):
        for length in (1024, 4096, 16384):
            shape = ("--batch", "1", "--heads", "16", "--d", "64", "--seq", str(length))
            words = ("attention", *shape, "--dtype", "bf16")
            name = f"attention-{implementation}-{length}"
            yield Capture(name, (*words, "--implementation", implementation, *TIMED))


def samples() -> Iterator[Capture]:
    """Give the recordings that samples/ holds, but for that of two GPUs: `two_gpus`."""
    steps = ("--warmup", "2", "--steps", "2")
    memory = ("--with", "memory", *steps)
    yield _gpt2("xl", 256, "sample", "--with", "timer", "--with", "torch:shapes", *memory)
    stacks = ("--with", "timer", "--with", "torch:shapes,stacks,memory,modules", *memory)
    yield _gpt2("small", 512, "sample", "--dtype", "bf16", "--autocast", *stacks)
    graph = ("--dtype", "bf16", "--autocast", "--cuda-graph", "--with", "timer", "--with", "torch")
    yield _gpt2("small", 512, "graph-sample", *graph, *steps)
    counters = ("--with", "torch:shapes", "--with", "ncu:roofline,launches=150")
    yield _gpt2(
        "small", 256, "counters", "--layers", "1", *counters, "--warmup", "1", "--steps", "1"
    )


def two_gpus() -> Iterator[Capture]:
    """Give what takes two GPUs: data-parallel training in its ways, and all-reduce."""
    model = ("ddp-medium", "--batch", "8", "--ctx", "512", "--dtype", "bf16", "--autocast")
    recorders = ("--with", "timer", "--with", "torch", "--warmup", "3", "--steps", "2")
    for way in ("torch", "naive", "flat", "overlapped", "bucketed"):
        yield Capture(f"ddp-{way}", (*model, "--strategy", way, *recorders))
    for size in ("1mb", "10mb", "100mb", "1gb"):
        yield Capture(f"allreduce-{size}", (f"allreduce-{size}", *TIMED))


PARTS: Final = {
    one.__name__: one for one in (training, course, compiled, attention, samples, two_gpus)
}


def run(captures: list[Capture], out: Path, device: str, limit_s: float) -> None:
    """Run those captures that are not done yet, until the time is used up."""
    deadline = time.monotonic() + limit_s
    for number, one in enumerate(captures, 1):
        if time.monotonic() > deadline:
            print(f"Time is up before {one.name}; run the same again.")
            return
        path = out / one.name
        if (path / "run.json").is_file() and _is_done(path):
            continue
        command = [sys.executable, "-m", "tracelens", "capture", *one.words]
        if "--steps" not in one.words:
            command += STEPS
        command += ["--device", device, "-o", str(path), "--force"]
        status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
        print(f"{number}/{len(captures)} {one.name}: {status}", flush=True)


def tables(out: Path) -> Iterator[str]:
    """Give the lines of a table with a row per Run folder."""
    heads = ("run", "step", "tokens/s", "peak", "bound", "backward / forward", "matmul: forward",
             "backward", "all")  # fmt: skip
    yield f"| {' | '.join(heads)} |"
    yield f"| --- |{' ---: |' * (len(heads) - 1)}"
    for path in sorted(out.iterdir()):
        if (path / "run.json").is_file():
            yield f"| {' | '.join(_cells(path))} |"


def _cells(path: Path) -> list[str]:
    made = folders.load(path)
    failed = next((p for p in made.passes if p.state != "done"), None)
    step = summary.step_ns(made)
    if step is None:
        why = f"{failed.state}: {failed.why}" if failed else units.ABSENT
        return [path.name, why.replace("|", "/"), *[units.ABSENT] * 7]
    peaks = [p.peak_bytes for p in made.passes if p.peak_bytes]
    bound = summary.bound_seconds(made)
    items = made.cost.get("items") or 0
    return [
        path.name,
        units.time(step),
        f"{items / step * 1e9:,.0f}",
        units.size(max(peaks)) if peaks else units.ABSENT,
        f"{bound * 1e9 / step:.0%}" if bound else units.ABSENT,
        *_phases(path),
    ]


def _phases(path: Path) -> list[str]:
    """Return backward over forward, and the matmul share of forward, backward and the whole."""
    if not folders.load(path).recordings:
        return [units.ABSENT] * 4
    command = ["summarize", str(path), "--table", "phases", "--table", "families", "-f", "json"]
    said = subprocess.run(
        [sys.executable, "-m", "tracelens", *command], check=False, capture_output=True, text=True
    )
    if said.returncode:
        return [units.ABSENT] * 4
    found = json.loads(said.stdout)["tables"]
    spent = {row["phase"]: row["kernel_time_ns"] for row in found["phases"]}
    products: dict[Any, int] = {}
    for row in found["families"]:
        if row["family"] == "gemm":
            products[row["phase"]] = products.get(row["phase"], 0) + row["kernel_time_ns"]
    ratio = _part(spent, "backward", spent.get("forward", 0), "{:.2f}")
    whole = sum(spent.values())
    share = f"{sum(products.values()) / whole:.0%}" if whole else units.ABSENT
    shares = [_part(products, phase, spent.get(phase, 0)) for phase in ("forward", "backward")]
    return [ratio, *shares, share]


def _part(of: Mapping[str, int], phase: str, whole: int, form: str = "{:.0%}") -> str:
    return form.format(of.get(phase, 0) / whole) if whole else units.ABSENT


def _is_done(path: Path) -> bool:
    return all(p.state == "done" for p in folders.load(path).passes)


def _gpt2(size: str, context: int, name: str, *words: str) -> Capture:
    full = (f"gpt2-{size}", "--ctx", str(context), *words)
    return Capture(f"gpt2-{size}-ctx{context}-{name}", full)


def _course(size: str, context: int, dtype: str, *words: str) -> Capture:
    full = (f"gpt2-cs336-{size}", "--ctx", str(context), "--dtype", dtype, *words, *TIMED)
    return Capture("-".join((f"cs336-{size}-ctx{context}", dtype, *words[1:])), full)


def main() -> int:
    """Run parts, or print tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("what", choices=["run", "tables"])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", type=float, default=540, help="seconds")
    asked = parser.parse_args()
    if asked.what == "tables":
        print("\n".join(tables(asked.out)))
        return 0
    asked.out.mkdir(parents=True, exist_ok=True)
    wanted = [one for part in asked.parts or PARTS for one in PARTS[part]()]
    run(wanted, asked.out, asked.device, asked.limit)
    return 0


if __name__ == "__main__":
    sys.exit(main())

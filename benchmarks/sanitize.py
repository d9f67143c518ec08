"""Run every kernel under NVIDIA's compute-sanitizer: `python -m benchmarks.sanitize [--write]`.

memcheck looks for accesses out of bounds and leaks of them into neighbours, racecheck for races in
shared memory. Each tensor has memory of its own (PyTorch's caching is off), so that an access
beyond its end is one beyond an allocation. Sizes are small and odd. Needs a GPU and
compute-sanitizer, which comes with CUDA.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

LOG: Final = Path(__file__).parents[1] / "docs" / "kernels-sanitizer.md"
TOOLS: Final = ("memcheck", "racecheck")
CONTROL: Final = "specialised warps that do nothing"
"""No kernel of ours: what a tool says of it, it says of how Triton starts specialised warps."""

CASES: Final[dict[str, tuple[tuple[str, str, str], ...]]] = {
    CONTROL: (("", "", ""),),
    "adamw": (("step", "millions=1", "fp32"), ("step", "millions=1", "bf16")),
    "block_sparse_attention": (
        ("forward", "blocks=10,query_blocks=5,head_dim=64,block=64", "fp16"),
        ("forward", "blocks=20,query_blocks=4,head_dim=64", "fp16"),
        ("backward", "blocks=10,query_blocks=5,head_dim=64,block=64", "fp16"),
    ),
    "cross_entropy": (("in-place", "33x5003", "bf16"), ("forward", "33x5003", "bf16")),
    "dequant_bias": (("forward", "33x1003", "int32"),),
    "flash_attention": (
        *(
            (operation, f"batch=1,heads=2,queries={queries},keys={keys},head_dim={d},causal=1", of)
            for operation in ("forward", "backward")
            for queries, keys, d, of in (
                (200, 333, 64, "bf16"), (333, 200, 128, "bf16"), (130, 65, 80, "fp16"),
            )
        ),
        ("forward", "batch=1,heads=4,queries=257,head_dim=128,kv_heads=2", "bf16"),
    ),
    "fp8_linear": (("forward", "rows=65,out=272,in=336", "bf16"),),
    "grouped_matmul": (
        ("forward", "rows=333,groups=5,k=264,n=328,skew=80", "bf16"),
        ("forward", "rows=7,groups=5,k=264,n=328", "bf16"),
        ("backward", "rows=333,groups=5,k=264,n=328,skew=80", "bf16"),
    ),
    "layernorm": (("forward", "33x1003", "bf16"), ("backward", "33x1003", "bf16")),
    "linear_cross_entropy": (("forward-backward", "tokens=65,width=136,classes=1003", "bf16"),),
    "matmul": (
        ("forward", "300x520x264", "bf16"), ("forward", "257x129x77", "bf16"),
        ("forward", "304x528x272", "fp8"), ("backward", "300x520x264", "bf16"),
    ),
    "moe": (("forward", "tokens=65,d=136,d_ff=264,experts=5,top_k=2", "bf16"),),
    "quant": (("int8", "33x1003", "bf16"), ("fp8", "33x1003", "bf16")),
    "quant_slide": (("int8", "33x1003", "bf16"), ("fp8", "33x1003", "bf16")),
    "rmsnorm": (("forward", "33x1003", "bf16"), ("backward", "33x1003", "bf16")),
    "softmax": (
        ("forward", "33x1003", "bf16"), ("backward", "33x1003", "bf16"),
        ("forward", "3x70001", "bf16"),
    ),
    "sparse_linear": (("int8", "rows=128,out=256,in=512", "bf16"),),
}  # fmt: skip
"""Kernel -> operation, shape, format."""


def main() -> int:
    """Run what is asked; the exit status is 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", metavar="KERNEL", help="run the cases of this kernel, and end")
    parser.add_argument("--only", metavar="KERNEL,...", help="these kernels alone")
    parser.add_argument("--write", action="store_true", help=f"write docs/{LOG.name}")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each process")
    asked = parser.parse_args()
    if asked.one:
        return run(asked.one)
    only = asked.only.split(",") if asked.only else [*CASES]
    jobs = [(tool, kernel) for tool in TOOLS for kernel in only]
    with ThreadPoolExecutor(asked.processes) as pool:
        found = list(pool.map(lambda job: check(*job, asked.limit), jobs))
    text = page(found)
    print(text)
    if asked.write:
        LOG.write_text(text, encoding="utf-8")
    return int(any(not one["clean"] for one in found))


def run(kernel: str) -> int:
    """Run our implementation of each case of a kernel, twice."""
    import torch

    if kernel == CONTROL:
        from benchmarks import sanitize_control

        sanitize_control.run()
        print(f"ran {kernel}", flush=True)
        return 0
    from tracelens.kernel import OURS, find, parse_shape

    if kernel == "flash_attention":
        from tracelens_kernels._attention import dense

        dense._SHORT = 0  # noqa: SLF001 (these are too short for the path that is looked at)
    known = find(kernel)
    for operation, text, dtype in CASES[kernel]:
        shape = parse_shape(known, text)
        one = known.operations[operation]
        call = one.implementations[OURS].build(one.inputs(shape, dtype, "cuda", 1), shape)
        for _ in range(2):
            call()
        torch.cuda.synchronize()
        print(f"ran {kernel} {operation} {text} {dtype}", flush=True)
    return 0


def check(tool: str, kernel: str, limit: float) -> dict[str, Any]:
    """Run the cases of a kernel under a tool."""
    command = [
        "compute-sanitizer", "--tool", tool, "--print-limit", "5",
        sys.executable, "-m", "benchmarks.sanitize", "--one", kernel,
    ]  # fmt: skip
    variables = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=variables, timeout=limit, check=False
        )
        said, status = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        said, status = f"{_text(error.stdout)}\nended after {limit:g} s", -1
    summary = re.findall(r"={3,} ((?:ERROR|RACECHECK) SUMMARY: .+)", said)
    ran = len(re.findall(r"^ran ", said, re.MULTILINE))
    print(tool, kernel, status, ran, *summary[-1:], flush=True, file=sys.stderr)
    clean = (
        status == 0 and ran == len(CASES[kernel])
        and bool(summary) and bool(re.search(r": 0 (errors|hazards)", summary[-1]))
    )  # fmt: skip
    return {
        "tool": tool, "kernel": kernel, "cases": len(CASES[kernel]), "ran": ran, "clean": clean,
        "summary": summary[-1] if summary else "no summary", "said": said,
    }  # fmt: skip


def _text(said: bytes | str | None) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""


ABOUT: Final = """
Racecheck reports hazards in kernels for Hopper. All that it displays, five a kernel, lie in the
shared memory by which Triton tells specialised warps what to run: one access stands at the
kernel's first line or at its `gl.warp_specialize`, the other in the code that Triton puts
before both. In the machine code of the products (64 × 64 tiles, where the addresses agree) the
accesses are those of that state and of the arguments that are handed over, and a barrier of all
threads stands between writing and reading. We take them for false, but have not proven it: a
kernel that specialises warps and does nothing else, listed below, has none. Results are the
same in every run, but for dq, whose sums are not ordered. What racecheck says of
`sparse_linear` is of cuSPARSELt's own kernels; in smaller sizes (64 × 128 × 256) memcheck
reports reads out of bounds in one of these, too.
"""
"""What is to be known of the table."""


def page(found: list[dict[str, Any]]) -> str:
    """Return the log as Markdown."""
    import torch
    import triton

    lines = [
        "# The kernels under compute-sanitizer", "",
        "Written by `python -m benchmarks.sanitize --write`, which has the cases: small and odd",
        "sizes, both directions, each tensor in an allocation of its own.", "",
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__},",
        f"{_version()}.", *ABOUT.splitlines(), "",
        "| kernel | tool | cases | what the tool says |", "| --- | --- | ---: | --- |",
    ]  # fmt: skip
    for one in sorted(found, key=lambda row: (row["kernel"], row["tool"])):
        ran = f"{one['ran']} of {one['cases']}"
        lines.append(f"| {one['kernel']} | {one['tool']} | {ran} | {one['summary']} |")
    for one in found:
        if not one["clean"]:
            said = one["said"].splitlines()
            shown = said if len(said) < 80 else [*said[:40], "...", *said[-30:]]
            lines += ["", f"## {one['kernel']}, {one['tool']}", "", "```", *shown, "```"]
    return "\n".join(lines) + "\n"


def _version() -> str:
    said = subprocess.run(["compute-sanitizer", "--version"], capture_output=True, check=False)
    found = re.search(r"Version ([\d.]+)", said.stdout.decode())
    return f"compute-sanitizer {found[1]}" if found else "compute-sanitizer"


if __name__ == "__main__":
    sys.exit(main())

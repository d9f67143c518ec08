"""Targets and results by hand, through their real files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tracelens import targets

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.targets import Graded, Targets

H100 = "NVIDIA H100 80GB HBM3"
LADDER = """
[grades]
of = ["attention", "moe"]
letters = { A = "> 80 %", B = "> 70 %", C = "> 60 %", D = "> 40 %" }
"""
BOTH = f"""{LADDER}
[[target]]
name = "attention"
metric = "latency"
config = {{ kernel = "attention" }}
reference = "10 ms"
pass = "> 60 % of reference"
group = "attention"

[[target]]
name = "experts"
metric = "flops_per_s"
config = {{ kernel = "moe" }}
reference = "500 TFLOP/s"
pass = "> 70 % of reference"
group = "moe"
"""


def loaded(folder: Path, text: str) -> Targets:
    """Return the targets of a TOML text."""
    file = folder / "targets.toml"
    file.write_text(text, encoding="utf-8")
    return targets.load(file)


def one(**more: str) -> str:
    """Return a target in TOML; values are TOML, too, and `passing` is its `pass`."""
    said = {"name": '"it"', "metric": '"latency"', **more}
    if (rule := said.pop("passing", None)) is not None:
        said["pass"] = rule
    return "[[target]]\n" + "\n".join(f"{key} = {value}" for key, value in said.items())


def row(value: float, unit: str = "ms", metric: str = "latency", **more: Any) -> dict[str, Any]:
    """Return a row of results."""
    return {"name": "ours", "metric": metric, "value": value, "unit": unit, **more}


def written(folder: Path, *rows: dict[str, Any], gpu: str | None = H100) -> Path:
    """Write rows of results to a file."""
    file = folder / "results.json"
    file.write_text(json.dumps({"gpu": gpu, "rows": rows}), encoding="utf-8")
    return file


def graded(folder: Path, text: str, *rows: dict[str, Any], gpu: str | None = H100) -> Graded:
    """Return what becomes of rows by targets."""
    runs = targets.measured([written(folder, *rows, gpu=gpu)]) if rows else []
    return targets.grade(loaded(folder, text), runs)

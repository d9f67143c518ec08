"""A sweep on a GPU of what faults, asserts, hangs and takes too much memory: the rest is timed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracelens import registry
from tracelens.bench import sweep
from tracelens.bench.cell import Cell

if TYPE_CHECKING:
    from collections.abc import Iterator

torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
KERNEL = '''
"""Doubles, in several ways, most of them bad."""
import torch
import triton
import triton.language as tl
from tracelens.kernel import Implementation, Kernel, Operation
from tracelens.workload import Work


@triton.jit
def far(p, BLOCK: tl.constexpr):
    tl.store(p + tl.arange(0, BLOCK).to(tl.int64) + (1 << 45), 1.0)


def inputs(shape, dtype, device, seed):
    draw = torch.Generator(device).manual_seed(seed)
    return {"x": torch.rand(shape["n"], generator=draw, device=device)}


def by(how):
    return lambda given, shape: lambda: {"y": how(given["x"])}


def faults(x):
    far[(1,)](x, BLOCK=128)
    return x + x


def asserts(x):
    return x[torch.full_like(x, x.numel() + 5).long()]


def hangs(x):
    for _ in range(1000):
        torch.cuda._sleep(1 << 40)
    return x + x


def large(x):
    return torch.empty(1 << 40, device=x.device)


KERNEL = Kernel(
    axes={"n": None},
    shapes=({"n": 1 << 26},),
    dtypes=("fp32",),
    operations={
        "forward": Operation(
            work=lambda shape, dtype: Work("double", shape["n"], 8 * shape["n"], "fp32", False),
            inputs=inputs,
            reference=lambda given, shape: {"y": given["x"].double() * 2},
            implementations={
                "tracelens": Implementation("x + x", by(lambda x: x + x)),
                "eager": Implementation("x * 2", by(lambda x: x * 2)),
                "wrong": Implementation("x * 3", by(lambda x: x * 3)),
                **{one.__name__: Implementation("bad", by(one))
                   for one in (faults, asserts, large, hangs)},
            },
        )
    },
    function=lambda: None,
)
'''


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    """Give a cell of a kernel of another distribution, with all of its implementations."""
    told = tmp_path / "made_up-1.0.dist-info"
    told.mkdir()
    (tmp_path / "made_up_gpu.py").write_text(KERNEL, encoding="utf-8")
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[tracelens.kernel]\nmade_up_gpu = made_up_gpu:KERNEL\n")
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, root, root / "kernels"))))
    yield Cell(
        kernel="made_up_gpu",
        operation="forward",
        shape={"n": 1 << 26},
        dtype="fp32",
        implementations=("tracelens", "faults", "wrong", "asserts", "eager", "large", "hangs"),
        budget_s=0.5,
        precision=0.02,
    )
    registry.entries.cache_clear()
    sys.modules.pop("made_up_gpu", None)


def test_what_is_bad_costs_itself_alone(made_up: Cell) -> None:
    found = sweep.measured(made_up, silence_s=15)

    assert {row.implementation: row.errors for row in found.rows} == {
        "tracelens": {"y": 0.0},
        "eager": {"y": 0.0},
    }
    (pair,) = [row.pair for row in found.rows if row.pair]
    assert pair.verdict == "no difference"  # both read once and write once
    assert {one.implementation: (one.stage, one.error) for one in found.failures} == {
        "faults": ("build", "AcceleratorError"),
        "asserts": ("build", "AcceleratorError"),
        "large": ("build", "OutOfMemoryError"),
        "wrong": ("check", "WrongError"),
        "hangs": ("process", "Timeout"),
    }

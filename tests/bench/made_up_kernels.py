"""Kernels that are right, wrong, half written, slow, noisy or crash, all on the CPU."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from tracelens.kernel import Implementation, Kernel, Operation, Tuning
from tracelens.workload import Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracelens.kernel import Shape, Tensors

SHAPE = {"rows": 8, "columns": 32}


def _inputs(shape: Shape, _dtype: str, device: str, seed: int) -> Tensors:
    draw = torch.Generator(device).manual_seed(seed)
    size = (shape["rows"], shape["columns"])
    return {"x": torch.randn(size, generator=draw, device=device)}


def _reference(inputs: Tensors, _shape: Shape) -> Tensors:
    x = inputs["x"].double()
    return {"y": x + 1, "sign": inputs["x"].sign()}


def _work(shape: Shape, _dtype: str) -> Work:
    elements = shape["rows"] * shape["columns"]
    return Work("add", flops=elements, bytes=12 * elements, matmul=False)


def outputs(x: Any) -> dict[str, Any]:
    """Return what is right, written into memory of its own."""
    y = torch.empty_like(x)
    torch.add(x, 1, out=y)
    return {"y": y, "sign": x.sign()}


def made(body: Callable[[Any], object], summary: str = "made up") -> Implementation:
    """Return an implementation whose call does this with x."""
    return Implementation(summary, lambda inputs, _shape: lambda: body(inputs["x"]))


def half(x: Any) -> dict[str, Any]:
    """Write all but the last row."""
    found = {"y": torch.empty_like(x), "sign": x.sign()}
    found["y"][:-1] = x[:-1] + 1
    return found


def scribbling(x: Any) -> dict[str, Any]:
    """Give what is right, and leave the input changed."""
    found = outputs(x)
    x[0, 0] += 1
    return found


def one_bit(x: Any) -> dict[str, Any]:
    """Get an exact output wrong in one element."""
    found = outputs(x)
    found["sign"][0, 0] *= -1
    return found


def crashing(_x: Any) -> dict[str, Any]:
    """End the process."""
    os.abort()


def failing(_x: Any) -> dict[str, Any]:
    """Raise as CUDA would."""
    raise RuntimeError("no kernel image is available")


def slow(x: Any) -> dict[str, Any]:
    """Take 2 ms more."""
    time.sleep(2e-3)
    return outputs(x)


def _remembering(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    known = outputs(inputs["x"])
    return lambda: known


def _late(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    """Be right ten times, then fail."""
    left = [10]

    def call() -> Tensors:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("out of luck")
        return outputs(inputs["x"])

    return call


def _turning(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    """Be right ten times, then wrong."""
    left = [10]

    def call() -> Tensors:
        left[0] -= 1
        found = outputs(inputs["x"])
        return found if left[0] >= 0 else {**found, "y": found["y"] + 1}

    return call


RIGHT = made(outputs, "torch.add")
IMPLEMENTATIONS = {
    "eager": made(lambda x: {"y": x + 1, "sign": x.sign()}, "plain PyTorch"),
    "tracelens": RIGHT,
    "same": RIGHT,
    "slow": made(slow),
    "wrong": made(lambda x: {**outputs(x), "y": x + 1.01}),
    "half": made(half),
    "shape": made(lambda x: {**outputs(x), "y": (x + 1)[:-1]}),
    "one-bit": made(one_bit),
    "nothing": made(lambda _x: {}),
    "none": made(lambda _x: None),
    "without-sign": made(lambda x: {"y": x + 1}),
    "scribbling": made(scribbling),
    "remembering": Implementation("gives what it gave before", _remembering),
    "failing": made(failing),
    "crashing": made(crashing),
    "late": Implementation("fails late", _late),
    "turning": Implementation("turns wrong", _turning),
    "unable": replace(RIGHT, why_not=lambda _shape, _dtype: "needs another GPU"),
}
"""By name, what may be measured of the kernel."""

KERNEL = Kernel(
    axes={"rows": 8, "columns": 32},
    shapes=(SHAPE,),
    dtypes=("fp32",),
    operations={
        "forward": Operation(
            work=_work,
            inputs=_inputs,
            reference=_reference,
            implementations=IMPLEMENTATIONS,
            exact=("sign",),
        )
    },
    tuning={
        "forward": Tuning(
            key=lambda shape, dtype: f"columns={shape['columns']} {dtype}",
            default=lambda _shape, _dtype: {"block": 32},
            coarse=lambda _shape, _dtype: [{"block": 32}, {"block": 64}],
        )
    },
    function=lambda: outputs,
)


def _half_in_place(inputs: Tensors, _shape: Shape) -> Callable[[], Tensors]:
    return lambda: {"x": inputs["x"].mul_(0.5)}


IN_PLACE = replace(
    KERNEL,
    operations={
        "forward": Operation(
            work=_work,
            inputs=_inputs,
            reference=lambda inputs, _shape: {"x": inputs["x"].double() / 2},
            implementations={
                "tracelens": Implementation("torch.mul", _half_in_place),
                "eager": Implementation("torch.mul", _half_in_place),
            },
            in_place=("x",),
        )
    },
    tuning={},
)
"""A kernel that overwrites what it is given."""

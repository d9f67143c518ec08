"""What is measured: which cases a device has, and that each computes what it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tracelens import registry
from tracelens.bench import child
from tracelens.bench.case import Case, Target
from tracelens.bench.measures import matmul

GIB = 2**30
CPU = Target(torch, "cpu", quick=True, free_bytes=8 * GIB)


def gpu(capability: tuple[int, int] = (9, 0), *, free: int = 80 * GIB, quick: bool = True,
        l2: int = 50 * 2**20) -> Target:  # fmt: skip
    return Target(torch, "cuda:0", quick, free, l2, capability)


def formats(target: Target) -> set[str]:
    return {one.name.removeprefix("matmul.") for one in child.cases(target) if "matmul" in one.name}


def of(target: Target, name: str) -> list[Case]:
    return [one for one in child.cases(target) if one.name == name]


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((7, 0), {"fp64", "fp32", "fp16"}),
        ((7, 5), {"fp64", "fp32", "fp16", "int8"}),
        ((8, 0), {"fp64", "fp32", "tf32", "bf16", "fp16", "int8"}),
        ((8, 9), {"fp64", "fp32", "tf32", "bf16", "fp16", "int8", "fp8"}),
        ((12, 0), {"fp64", "fp32", "tf32", "bf16", "fp16", "int8", "fp8"}),
    ],
)
def test_a_gpu_multiplies_in_the_formats_that_its_tensor_cores_have(
    capability: tuple[int, int], expected: set[str]
) -> None:
    assert formats(gpu(capability)) == expected


def test_the_processor_has_no_transfers_and_no_launches() -> None:
    names = {one.name for one in child.cases(CPU)}

    assert names == {"copy", "read", "fill", "call", "matmul.fp64", "matmul.fp32", "matmul.bf16"}


def test_a_copy_counts_what_is_read_and_what_is_written_and_a_sum_what_is_read() -> None:
    (copy,), (read,), (fill,) = (of(gpu(), name) for name in ("copy", "read", "fill"))

    assert (copy.work, read.work, fill.work) == (2 * GIB, GIB, GIB)


def test_buffers_are_far_larger_than_the_cache_and_leave_half_of_the_memory() -> None:
    for name, buffers in (("copy", 2), ("read", 1)):
        for target in (gpu(free=GIB), gpu(free=16 * GIB, quick=False)):
            for one in of(target, name):
                assert one.needs_bytes <= target.free_bytes // 2
                assert one.needs_bytes >= buffers * 4 * target.l2_bytes
    assert not of(gpu(free=2**28), "copy")


def test_matrices_take_turns_beyond_the_cache() -> None:
    for one in of(gpu(l2=126 * 2**20), "matmul.int8"):
        n = one.size["n"]
        assert one.work == 2 * n**3
        assert one.needs_bytes > 2 * 126 * 2**20


@pytest.mark.parametrize("case", list(child.cases(CPU)), ids=lambda case: case.name)
def test_every_case_of_the_processor_runs(case: Case) -> None:
    call = case.build(CPU)

    call()
    call()


@pytest.mark.parametrize("dtype", ["fp64", "fp32", "bf16", "int8", "fp8"])
def test_a_product_is_the_product(dtype: str) -> None:
    a, b = matmul._matrix(CPU, dtype, 64), matmul._matrix(CPU, dtype, 64)

    made: Any = matmul._multiply(torch, dtype, "cpu")(a, b)

    other = b.t() if dtype in ("int8", "fp8") else b  # the transpose is what these want
    expected = a.double() @ other.double()
    torch.testing.assert_close(made.double(), expected, rtol=0.02, atol=0.2)


def test_int8_matrices_hold_the_whole_range() -> None:
    numbers = matmul._matrix(CPU, "int8", 256)

    assert int(numbers.min()) == -127
    assert int(numbers.max()) == 127


def test_fp32_products_use_no_tf32_and_tf32_ones_do() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        matmul._product(CPU, "tf32", 8)
        with_tf32 = torch.get_float32_matmul_precision()
        matmul._product(CPU, "fp32", 8)
        without = torch.get_float32_matmul_precision()
    finally:
        torch.set_float32_matmul_precision(before)

    assert (with_tf32, without) == ("high", "highest")


def test_a_copy_copies_and_a_sum_sums() -> None:
    (copy,), (read,) = of(CPU, "copy"), of(CPU, "read")

    made: Any = copy.build(CPU)()
    total: Any = read.build(CPU)()

    assert made.numel() * 4 * 2 == copy.work
    assert 0.49 < float(made.mean()) < 0.51
    assert float(total) == pytest.approx(read.work / 4 / 2, rel=0.01)


def test_a_measure_is_a_file_with_a_sentence() -> None:
    entries = registry.entries("measure")

    assert {"copy", "read", "fill", "matmul", "launch", "transfer"} <= entries.keys()
    assert all(entry.summary for entry in entries.values())

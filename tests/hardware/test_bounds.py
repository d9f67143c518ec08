"""Ceilings of GPUs, and the least time that work takes below them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens import hardware
from tracelens.workload import Cost, Work

H200 = hardware.device("NVIDIA H200")
works = st.builds(
    Work,
    part=st.just("part"),
    flops=st.integers(0, 10**18),
    bytes=st.integers(0, 10**15),
    dtype=st.sampled_from(["fp32", "tf32", "bf16", "fp16"]),
    matmul=st.booleans(),
)


def test_a_large_product_is_bound_by_arithmetic_and_a_copy_by_memory() -> None:
    assert H200 is not None
    product = Work("matmul", flops=2 * 8192**3, bytes=3 * 8192**2 * 2, dtype="bf16")
    copy = Work("copy", bytes=2 * 2**31, dtype="bf16", matmul=False)

    assert hardware.bound([product], H200) == hardware.Bound(2 * 8192**3 / 989.4e12, "compute")
    assert hardware.bound([copy], H200) == hardware.Bound(2 * 2**31 / 4.8e12, "memory")


def test_the_parts_of_a_step_follow_one_another_each_with_its_own_ceiling() -> None:
    assert H200 is not None
    cost = Cost(
        phases={
            "forward": [Work("matmul", flops=989_400_000_000, dtype="bf16")],
            "optimizer": [Work("adamw", bytes=48_000_000_000, matmul=False)],
        },
        memory={},
    )

    found = hardware.step_bound(cost, H200)

    assert found is not None
    assert found.seconds == pytest.approx(0.001 + 0.010)
    assert found.limited_by == "memory"


def test_a_format_that_the_device_does_not_have_leaves_no_bound() -> None:
    old = hardware.device("Tesla V100-SXM2-16GB")
    assert old is not None

    assert hardware.bound([Work("matmul", flops=1, dtype="bf16")], old) is None


@given(st.lists(works, max_size=6))
def test_a_bound_is_never_below_what_all_operations_or_all_bytes_take(parts: list[Work]) -> None:
    assert H200 is not None

    found = hardware.bound(parts, H200)

    assert found is not None
    bytes_alone = sum(p.bytes for p in parts) / H200.bandwidth_bytes_per_s
    assert found.seconds >= bytes_alone * (1 - 1e-9)
    assert found.seconds <= sum(
        b.seconds for p in parts if (b := hardware.bound([p], H200))
    ) * (1 + 1e-9) + 1e-30  # fmt: skip

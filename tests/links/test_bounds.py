"""Work held against ceilings: what bounds it, how near it came, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens import hardware
from tracelens.links.bounds import Judged, Piece, judge

MS = 1_000_000


def on(name: str = "NVIDIA H200") -> hardware.Ceilings:
    found = hardware.ceilings(name)
    assert found is not None
    return found


H200 = on()
TERA = 10**12


def product(**changed: Any) -> Piece:
    """Return a product in bf16 that takes 1 ms."""
    piece = Piece(time_ns=MS, calls=1, kernels=1, flops=0, bytes=0, matmul=True, format="bf16")
    return replace(piece, **changed)


def test_a_product_is_bound_by_arithmetic_and_reaches_a_share_of_it() -> None:
    peak = H200.matmul_flops_per_s["bf16"]

    found = judge(product(flops=int(peak * 0.0006), bytes=10_000), H200)

    assert (found.bound, found.ceiling, found.verdict) == ("compute", "matmul.bf16", "")
    assert found.share == pytest.approx(0.6)
    assert found.bound_ns == pytest.approx(0.6 * MS, rel=1e-5)


def test_work_with_few_operations_is_bound_by_memory() -> None:
    found = judge(product(matmul=False, format=None, flops=10**6, bytes=int(2.4e9)), H200)

    assert (found.bound, found.ceiling) == ("memory", "bandwidth")
    assert found.share == pytest.approx(0.5)
    assert found.matmul_ns is None


def test_short_kernels_far_from_their_ceiling_are_bound_by_latency() -> None:
    short = product(time_ns=3_000, matmul=False, format=None, bytes=3_000)

    assert judge(short, H200).bound == "latency"
    # Four kernels of 3 µs each, or one that reaches its ceiling.
    assert judge(replace(short, time_ns=12_000, kernels=4), H200).bound == "latency"
    assert judge(replace(short, time_ns=12_000), H200).bound == "memory"
    assert judge(replace(short, bytes=12_000_000), H200).bound == "memory"


def test_more_operations_than_the_gpu_can_do_are_impossible_and_no_achievement() -> None:
    found = judge(product(flops=2 * TERA), H200)

    assert found.verdict == "impossible"
    assert not found.is_possible
    assert found.share is None


def test_a_clock_above_the_stated_one_is_above_the_data_sheet() -> None:
    found = judge(product(flops=int(H200.matmul_flops_per_s["bf16"] * 0.00103)), H200)

    assert found.verdict == "above the data sheet"
    assert found.share == pytest.approx(1.03)
    assert found.bound_ns == MS  # no time was lost


def test_what_fits_into_the_cache_may_exceed_the_memorys_bandwidth() -> None:
    # 40 MB twice in 10 µs: 8 TB/s, where the memory does 4.8.
    twice = Piece(time_ns=10_000, calls=2, kernels=2, flops=0, bytes=80_000_000)

    found = judge(twice, H200)

    assert (found.verdict, found.share, found.bound_ns) == ("from cache", None, 10_000)


def test_what_does_not_fit_into_the_cache_is_impossible() -> None:
    cache = H200.device.l2_bytes if H200.device else None
    assert cache is not None
    # The cache holds what is read and keeps what is written: twice its size is spared at most.
    through = int(4.8e12 * 0.001)

    within = judge(Piece(MS, 1, 1, 0, through + 2 * cache), H200)
    beyond = judge(Piece(MS, 1, 1, 0, int(through * 1.03) + 2 * cache + 10**7), H200)

    assert within.verdict == "from cache"
    assert beyond.verdict == "impossible"


def test_operands_that_may_be_one_tensor_count_once_before_anything_is_called_impossible() -> None:
    # exp_avg_sq.addcmul_(grad, grad): 4 × 1.5 GB would be 6 TB/s.
    adam = Piece(MS, 1, 1, 0, 6_000_000_000, alike_bytes=1_500_000_000)

    found = judge(adam, H200)

    assert (found.verdict, found.bytes) == ("operands are one tensor", 4_500_000_000)
    assert found.share == pytest.approx(4.5 / 4.8)
    # x · y at a possible rate are two tensors.
    assert judge(replace(adam, time_ns=2 * MS), H200).bytes == 6_000_000_000


def test_a_format_that_the_gpu_does_not_have_has_no_bound() -> None:
    found = judge(product(flops=TERA, bytes=100, format="fp3"), H200)

    assert (found.bound, found.bound_ns, found.share) == (None, None, None)


def test_without_ceilings_nothing_is_said() -> None:
    assert judge(product(flops=TERA, bytes=5), None) == Judged(bytes=5)


def test_without_bytes_a_product_is_held_against_arithmetic_alone() -> None:
    found = judge(product(flops=TERA // 2, bytes=None), H200)

    assert (found.bound, found.bytes) == ("compute", None)
    assert found.share == pytest.approx(0.5e15 / H200.matmul_flops_per_s["bf16"])


amounts = st.none() | st.integers(0, 2**53)
pieces = st.builds(
    Piece,
    time_ns=st.integers(0, 2**50),
    calls=st.integers(1, 1000),
    kernels=st.integers(1, 1000),
    flops=amounts,
    bytes=amounts,
    matmul=st.booleans(),
    format=st.sampled_from(["bf16", "fp32", "tf32", None, "fp3"]),
    vector=st.booleans(),
)


@given(pieces)
def test_no_share_is_above_what_can_be_and_no_more_time_is_needed_than_it_took(
    piece: Piece,
) -> None:
    found = judge(piece, H200)

    if found.bound_ns is not None:
        assert 0 <= found.bound_ns <= piece.time_ns
    if found.share is not None:
        assert found.is_possible
        assert 0 <= found.share < 1.2

"""Times held against ceilings: the share that is reached, and what cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tracelens import hardware
from tracelens.bench.roof import Roof, roof
from tracelens.workload import Work

H200 = hardware.device("NVIDIA H200")
assert H200 is not None
STATED = hardware.of_device(H200)
MEASURED = replace(
    STATED,
    bandwidth_bytes_per_s=4.25e12,
    matmul_flops_per_s={**STATED.matmul_flops_per_s, "bf16": 7e14},
    origin="measured",
    measured=frozenset({"bandwidth", "matmul.bf16"}),
)
COPY = Work("copy", bytes=8_500_000_000, matmul=False)
PRODUCT = Work("matmul", flops=7 * 10**14, bytes=10**9, dtype="bf16")


def test_bytes_are_held_against_the_measured_bandwidth() -> None:
    found = roof(COPY, 4e-3, MEASURED, in_cache=False)

    assert found == Roof(pytest.approx(2e-3), "memory", "measured", pytest.approx(0.5), "")


def test_products_are_held_against_the_rate_of_their_format() -> None:
    found = roof(PRODUCT, 1.25, MEASURED, in_cache=False)

    assert (found.limited_by, found.share) == ("compute", pytest.approx(0.8))


@pytest.mark.parametrize(
    ("seconds", "flag"),
    [
        (2.1e-3, ""),
        (1.9e-3, "above the measured ceiling"),
        (1.75e-3, "above the data sheet"),
        (1.0e-3, "impossible"),
    ],
)
def test_what_is_faster_than_the_ceilings_is_flagged(seconds: float, flag: str) -> None:
    assert roof(COPY, seconds, MEASURED, in_cache=False).flag == flag


def test_what_may_lie_in_the_cache_is_not_held_against_the_memory() -> None:
    assert roof(COPY, 1e-6, MEASURED, in_cache=True) == Roof()
    assert roof(PRODUCT, 0.5, MEASURED, in_cache=True).flag == "impossible"
    assert roof(PRODUCT, 1.25, MEASURED, in_cache=True).share == pytest.approx(0.8)
    # Nor is what it computes on the way a bound that tells anything.
    assert roof(replace(COPY, flops=10**9), 1e-3, MEASURED, in_cache=True) == Roof()


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert roof(COPY, 1.0, None, in_cache=False) == Roof()
    assert roof(replace(PRODUCT, dtype="fp3"), 1.0, MEASURED, in_cache=False) == Roof()
    assert roof(Work("nothing"), 1.0, MEASURED, in_cache=False) == Roof()

"""Quantities and thresholds as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens.targets.quantities import Quantity, quantity, threshold


@pytest.mark.parametrize(
    ("said", "value", "dimension"),
    [
        ("4.5 ms", 4.5e6, "time"),
        ("4.5ms", 4.5e6, "time"),
        ("0.8 s", 8e8, "time"),
        ("12 us", 12_000, "time"),
        ("12 µs", 12_000, "time"),
        ("640 TFLOP/s", 640e12, "flops_per_s"),
        ("1.2 PFLOP/s", 1.2e15, "flops_per_s"),
        ("640 TFLOPS", 640e12, "flops_per_s"),
        ("3.35 TB/s", 3.35e12, "bytes_per_s"),
        ("80 GiB", 80 * 2**30, "bytes"),
        ("80 GB", 80e9, "bytes"),
        ("70 %", 0.7, "share"),
        ("1.4 x", 1.4, "ratio"),
        ("538 ktokens/s", 538e3, "rate"),
        ("1_490_000 tokens/s", 1.49e6, "rate"),
        ("1e-3", 1e-3, "number"),
    ],
)
def test_a_quantity_is_in_the_base_unit_of_its_dimension(
    said: str, value: float, dimension: str
) -> None:
    found = quantity(said)

    assert math.isclose(found.value, value)
    assert found.dimension == dimension


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "no number"),
        ("ms", "no number"),
        ("4 parsec", "unit 'parsec'"),
        ("1e999 ms", "too large"),
        ("4 ms" * 100, "no number"),
        ("4..5 ms", "no number"),
        ("nan", "no number"),
    ],
)
def test_what_is_no_quantity_says_why(said: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        quantity(said)


@pytest.mark.parametrize(
    ("said", "inside", "edge", "outside", "edge_holds"),
    [
        ("< 4.5 ms", 4.4e6, 4.5e6, 4.6e6, False),
        ("<= 4.5 ms", 4.4e6, 4.5e6, 4.6e6, True),
        ("> 70 %", 0.71, 0.7, 0.69, False),
        (">= 70 %", 0.71, 0.7, 0.69, True),
        ("≥ 70 %", 0.71, 0.7, 0.69, True),
    ],
)
def test_a_threshold_holds_on_its_side(
    said: str, inside: float, edge: float, outside: float, *, edge_holds: bool
) -> None:
    rule = threshold(said)

    assert rule.holds(inside)
    assert rule.holds(edge) == edge_holds
    assert not rule.holds(outside)


def test_what_differs_by_rounding_alone_is_equal() -> None:
    assert 0.1 + 0.2 != 0.3
    assert not threshold("> 30 %").holds(0.1 + 0.2)
    assert threshold(">= 60 %").holds(0.6000000000000001 - 2e-16)


@given(st.floats(1e-12, 1e15), st.floats(1e-12, 1e15), st.sampled_from(["<", "<=", ">", ">="]))
def test_of_two_values_the_better_one_holds_if_the_other_does(
    a: float, b: float, operator: str
) -> None:
    rule = threshold(f"{operator} 3.25")
    better, worse = (min(a, b), max(a, b)) if rule.is_upper else (max(a, b), min(a, b))

    assert rule.holds(better) or not rule.holds(worse)


@pytest.mark.parametrize(
    "said", ["> 70 % of reference", "> 70 % of the reference", ">70 % reference"]
)
def test_a_share_of_the_reference_is_relative(said: str) -> None:
    assert threshold(said).relative
    assert threshold(said).limit == Quantity(0.7, "share")


def test_a_speed_up_over_the_reference_is_relative() -> None:
    rule = threshold("> 1.4 x reference")

    assert (rule.relative, rule.limit) == (True, Quantity(1.4, "ratio"))
    assert str(rule) == "> 1.4 x reference"
    assert not threshold("> 1.4 x").relative


@pytest.mark.parametrize(
    ("said", "why"),
    [("4.5 ms", "begins with none"), ("< 70 % of reference", "more of the reference is better")],
)
def test_what_is_no_threshold_says_why(said: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        threshold(said)

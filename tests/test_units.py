"""Units: a column of numbers reads as one, and reads back as what it was."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens import units

FACTORS = {suffix.strip(): factor for ladder in units.LADDERS.values() for factor, suffix in ladder}
LADDERS = sorted(units.LADDERS)

whole = st.integers(-(2**62), 2**62)
broken = st.floats(-1e15, 1e15, allow_subnormal=False)
columns = st.lists(whole | broken, min_size=1, max_size=12)


def parsed(text: str) -> tuple[float, float]:
    """Return what a formatted number says, and the worth of its last digit."""
    figure, _, suffix = text.lstrip("<>").partition(" ")
    factor = 0.01 if suffix == "%" else FACTORS[suffix]
    places = len(figure.partition(".")[2])
    return float(figure.replace(",", "")) * factor, factor * 10.0**-places


def test_a_column_has_one_unit_and_one_number_of_decimals() -> None:
    column = units.column("ns", [165_900_000, 344_000_000, 91_300_000, 2_800_000])

    assert column == ["165.9 ms", "344.0 ms", "91.3 ms", "2.8 ms"]


def test_the_unit_follows_the_typical_value_not_the_largest() -> None:
    column = units.column("ns", [1_200_000, 6_400, 3_100])

    assert column == ["1,200.0 µs", "6.4 µs", "3.1 µs"]


def test_a_value_too_large_for_the_typical_unit_raises_the_unit_of_all() -> None:
    column = units.column("ns", [90_000_000_000, 6_400, 3_100])

    assert column == ["90,000.0 ms", "<0.1 ms", "<0.1 ms"]


@pytest.mark.parametrize("unit", sorted(units.NUMERIC))
def test_what_is_not_known_is_a_dash_and_never_a_zero(unit: str) -> None:
    assert units.column(unit, [None, math.nan, 0])[:2] == [units.ABSENT] * 2
    assert units.column(unit, [None, math.nan, 0])[2].startswith("0")


def test_a_missing_name_is_told_from_a_missing_number() -> None:
    assert units.column("text", ["forward", None, 3]) == ["forward", "(none)", "3"]
    assert units.column("flag", [True, False, None]) == ["yes", "no", units.ABSENT]


def test_whole_numbers_of_the_first_step_are_exact() -> None:
    assert units.count(2**62) == f"{2**62:,}"
    assert units.time(913) == "913 ns"
    assert units.size(0) == "0 B"


def test_numbers_for_sentences() -> None:
    assert units.time(165_900_000) == "165.9 ms"
    assert units.time(1_544_000_000) == "1.54 s"
    assert units.count(29_730) == "29,730"
    assert units.size(3 * 2**29) == "1.50 GiB"
    assert units.rate(1.5567e12) == "1.56 TB/s"
    assert units.time(None) == units.ABSENT
    assert units.rate(math.inf) == "∞"


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0, "0 %"),
        (0.00001, "<0.1 %"),
        (0.0273, "2.7 %"),
        (0.27, "27 %"),
        (0.9996, ">99.9 %"),
        (1 - 1e-12, "100 %"),
        (1, "100 %"),
        (-0.02, "-2.0 %"),
    ],
)
def test_a_share_is_neither_nothing_nor_all_unless_it_is(fraction: float, text: str) -> None:
    assert units.share(fraction) == text


def test_shares_have_a_decimal_where_one_of_the_column_is_small() -> None:
    assert units.column("share", [0.275, 0.571]) == ["28 %", "57 %"]
    assert units.column("share", [0.275, 0.571, 0.004]) == ["27.5 %", "57.1 %", "0.4 %"]


@given(st.sampled_from(LADDERS), columns)
def test_numbers_read_back_within_their_last_digit(unit: str, values: list[float]) -> None:
    for value, text in zip(values, units.column(unit, values), strict=True):
        read, last = parsed(text)
        assert read == pytest.approx(value, abs=last, rel=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1))
def test_shares_read_back_within_their_last_digit(values: list[float]) -> None:
    for value, text in zip(values, units.column("share", values), strict=True):
        read, last = parsed(text)
        assert read == pytest.approx(value, abs=last)


@given(st.sampled_from([*LADDERS, "share"]), columns)
def test_a_larger_number_never_reads_as_smaller(unit: str, values: list[float]) -> None:
    shown = [parsed(text)[0] for text in units.column(unit, sorted(values))]

    assert shown == sorted(shown)


@given(st.sampled_from([*LADDERS, "share"]), columns)
def test_nothing_but_zero_reads_as_zero(unit: str, values: list[float]) -> None:
    for value, text in zip(values, units.column(unit, values), strict=True):
        assert bool(parsed(text)[0]) == bool(value)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="'12' is no number"):
        units.column("count", ["12"])


def test_a_difference_says_whether_it_is_more_or_less() -> None:
    assert units.column("more_ns", [1_200_000, -340_000, 0, None]) == [
        "+1.20 ms", "-0.34 ms", "0.00 ms", units.ABSENT,
    ]  # fmt: skip
    assert units.column("change", [0.041, -0.02, 0]) == ["+4.1 %", "-2.0 %", "0.0 %"]
    assert units.column("more_bytes", [1024, -2048]) == ["+1.00 KiB", "-2.00 KiB"]

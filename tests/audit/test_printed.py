"""Numbers as people print them, and all that they can stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens.audit.interval import exact
from tracelens.audit.printed import fraction, is_absent, number, pair


@pytest.mark.parametrize(
    ("text", "value", "quantity"),
    [
        ("1,307.05", 1307.05, ""),
        ("1.17M", 1.17e6, ""),
        ("538K tokens/s", 538e3, "tokens_per_s"),
        ("12K", 12e3, ""),
        ("**16.46**", 16.46, ""),
        ("`0.460 ms`", 0.460e-3, "time"),
        ("488.742 μs", 488.742e-6, "time"),
        ("812.4s", 812.4, "time"),
        ("30 seconds", 30, "time"),
        ("43.0%", 0.43, "share"),
        ("0.99x", 0.99, "ratio"),
        ("433√ó better", 433, "ratio"),  # × read as Mac Roman
        ("433Ã— better", 433, "ratio"),  # × read as Windows-1252
        ("989 TFLOPS", 989e12, "flops_per_s"),
        ("1.19 PFLOP/s", 1.19e15, "flops_per_s"),
        ("3.35 TB/s", 3.35e12, "bytes_per_s"),
        ("80 GB", 80e9, "bytes"),
        ("6.25 MiB", 6.25 * 2**20, "bytes"),
        ("0,513", 0.513, ""),
        ("12,5", 12.5, ""),
        ("12 345".replace(" ", "\u202f"), 12345, ""),
        ("513.36 ± 0.41 ms", 513.36e-3, "time"),
        ("~2 ms", 2e-3, "time"),
        ("<4.5", 4.5, ""),
        ("1e-3", 1e-3, ""),
        ("-3.5", -3.5, ""),
        ("2,0971,520", 20971520, ""),
    ],
)
def test_a_number_is_read_with_its_unit(text: str, value: float, quantity: str) -> None:
    found = number(text)

    assert found is not None
    assert found.value * found.scale == pytest.approx(value)
    assert found.quantity == quantity


@pytest.mark.parametrize(
    "text", ["", "—", "-", "N/A", "n/a", "OOM", "nan", "-1", "-1.0", "failed", "null", "❌ OOM"]
)
def test_what_failed_is_absent_and_no_number(text: str) -> None:
    assert is_absent(text)
    assert number(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "8192x8192", "3-4 hours", "v2.1.0", "2.0 TB/s (40 GB) / 1.5", "gpt2", "1.2 ms/token", "7/8",
        "1e999", "2026-01-26", "9" * 400, "1" + "0" * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_single_number_is_none(text: str) -> None:
    assert number(text) is None


def test_pairs_and_fractions() -> None:
    both = pair("80.6 -> 82.5 GB")

    assert both is not None
    assert [one.value * one.scale for one in both] == pytest.approx([80.6e9, 82.5e9])
    assert fraction("35/40 ⚠️") == (35, 40)
    assert fraction("**8/8** ✅") == (8, 8)
    assert fraction("8/0") is None
    assert fraction("1/2/3") is None
    assert fraction("2026/01/26") is None


def test_a_number_stands_for_what_rounds_to_it_or_is_cut_off_to_it() -> None:
    found = number("0.99x")
    assert found is not None

    span = found.span(1.0, 0)

    assert (span.low, span.at, span.high) == pytest.approx((0.985, 0.99, 1.0))


def test_about_stands_for_more_and_a_bound_for_all_on_its_side() -> None:
    about, below, above = number("~500"), number("<4.5"), number("58+")
    assert about
    assert below
    assert above

    assert about.span(1.0).meets(exact(420))
    assert not about.span(1.0).meets(exact(390))
    assert below.span(1.0).meets(exact(-1e9))
    assert not below.span(1.0).meets(exact(4.6))
    assert above.span(1.0).meets(exact(1e9))
    assert not above.span(1.0).meets(exact(57))


@given(st.floats(1e-3, 1e9), st.integers(0, 6))
def test_what_was_rounded_is_within_what_the_print_stands_for(value: float, digits: int) -> None:
    text = f"{value:,.{digits}f}"
    found = number(text)
    if found is None:
        assert not text.strip("0.,")[:1].isdigit() or float(text.replace(",", "")) == 0
        return

    assert found.span(1.0, 0).meets(exact(value))


@given(st.floats(1e-3, 1e9), st.integers(0, 6))
def test_what_was_cut_off_is_within_what_the_print_stands_for(value: float, digits: int) -> None:
    cut = int(value * 10**digits) / 10**digits
    found = number(f"{cut:.{digits}f}")

    assert found is not None
    assert found.span(1.0, 0).meets(exact(value))


@given(st.text(max_size=60))
def test_any_text_is_read_or_left(text: str) -> None:
    number(text)
    pair(text)
    fraction(text)

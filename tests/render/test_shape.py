"""What every renderer shares: names shortened and cleaned, rows cut, columns left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.render import story
from tracelens.render._shape import cells, clean, fit, shorten, shown

wide = st.text(alphabet=st.sampled_from("aé日本😀\u0301한"))


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("ampere_sgemm_128x64_tn", "ampere…4_tn"),
        ("日本語のカーネル名", "日本語…ル名"),
        ("ampere", "ampere"),
    ],
)
def test_a_name_keeps_both_ends(name: str, short: str) -> None:
    assert shorten(name, 11) == short


@given(wide, st.integers(1, 20))
def test_a_shortened_name_fits(name: str, width: int) -> None:
    assert cell_len(shorten(name, width)) <= cells(shorten(name, width)) <= width


@given(st.text())
def test_nothing_that_acts_is_left_of_a_text(text: str) -> None:
    assert clean(text).isprintable()
    assert clean(clean(text)) == clean(text)


def test_a_lone_surrogate_can_be_written() -> None:
    assert clean("a\udcff").encode() == rb"a\udcff"


def test_cut_rows_are_counted_without_a_share_too() -> None:
    assert shown(story.named("a", "b"), 1).cut == "… and 1 more row"
    assert shown(story.named("a", "b"), 2).cut == ""


def test_the_name_and_the_first_number_stay_however_narrow() -> None:
    fitted = fit(shown(story.kernels(), None), 20, 2)

    assert [strip.column.name for strip in fitted.strips] == ["short_name", "calls"]
    assert fitted.strips[1].cells == ["1,440", "720", "14,208", "1"]

"""Drawings for LaTeX: the same shapes in the same places, in the colours of the drawing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens.reports import Figure
from tracelens.reports.tikz import _thinned, picture

BLUE = "{rgb,255:red,0;green,0;blue,255}"
RED = "{rgb,255:red,255;green,0;blue,0}"


def drawn(inside: str, style: str = "") -> list[str]:
    """Return the orders for what is inside of a drawing of class `d`, 1000 by 100."""
    svg = f'<svg class="d" viewBox="0 0 1000 100">{inside}</svg>'
    lines = picture(Figure("name", "title", svg, style)).splitlines()
    assert lines[0].startswith(r"\begin{tikzpicture}")
    assert lines[1] == r"\useasboundingbox (0,0) rectangle (1000,100);"
    assert lines[-1] == r"\end{tikzpicture}"
    return lines[2:-1]


def test_a_rectangle_keeps_its_corners_and_its_colour() -> None:
    assert drawn('<rect x="10" y="20" width="30" height="5" fill="#0000ff"/>') == [
        rf"\path[fill={BLUE}] (10,20) rectangle (40,25);"
    ]


def test_a_path_of_steps_goes_where_svg_goes() -> None:
    (order,) = drawn('<path d="M1 90H50V10H99V90Z" fill="#00f"/>')

    assert order.endswith("(1,90) -- (50,90) -- (50,10) -- (99,10) -- (99,90) -- cycle;")


def test_two_strokes_of_one_path_are_two() -> None:
    orders = drawn('<path d="M0 0L5 5M7 7L9 9" fill="none" stroke="#f00"/>')

    assert [re.findall(r"\(.*\)", order)[0] for order in orders] == [
        "(0,0) -- (5,5)",
        "(7,7) -- (9,9)",
    ]


@pytest.mark.parametrize(
    ("style", "colour"),
    [
        (".d .a { fill: #f00 }", RED),
        ("rect { fill: #f00 }", RED),
        (".a { fill: #f00 } rect { fill: #00f }", RED),  # a class counts for more than a tag
        (".e .a { fill: #00f } .d rect { fill: #f00 }", RED),  # there is no .e around it
        (".d .a { fill: var(--alarm) }", "{rgb,255:red,154;green,91;blue,0}"),
    ],
)
def test_rules_of_style_hold_as_in_css(style: str, colour: str) -> None:
    (order,) = drawn('<rect class="a" x="0" y="0" width="1" height="1"/>', style)

    assert f"[fill={colour}]" in order


def test_what_is_neither_filled_nor_drawn_is_left_out() -> None:
    assert drawn('<rect x="0" y="0" width="1" height="1" fill="none"/>') == []


def test_a_text_keeps_its_place_and_hostile_letters_are_escaped() -> None:
    (order,) = drawn(
        r'<text x="5" y="6" text-anchor="end" font-size="13px">\input{x} &lt;a&gt;</text>'
    )

    assert "anchor=base east" in order
    assert order.endswith(r"at (5,6) {\textbackslash{}input\{x\} \textless{}a\textgreater{}};")


def test_titles_are_not_set() -> None:
    assert drawn("<title>said on hover</title>") == []


@given(
    st.lists(
        st.tuples(st.floats(0, 20, allow_nan=False), st.floats(-5, 5, allow_nan=False)),
        min_size=1,
        max_size=80,
    ).map(lambda places: sorted(places, key=lambda place: place[0]))
)
def test_thinning_keeps_ends_and_extremes_and_at_most_four_places_of_a_unit(
    places: list[tuple[float, float]],
) -> None:
    thin = _thinned(places)

    assert (thin[0], thin[-1]) == (places[0], places[-1])
    remaining = iter(places)
    assert all(place in remaining for place in thin)  # in order
    for unit in range(21):
        before = [y for x, y in places if int(x) == unit]
        after = [y for x, y in thin if int(x) == unit]
        assert len(after) <= 4
        assert not before or (min(before), max(before)) == (min(after), max(after))

"""The roofline drawn: as a page, as an image, and as an SVG inside of a page."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asking import Shell, linked
from tracelens import hardware
from tracelens.render._roofline_svg import drawn, standalone
from tracelens.tables import Filled, build
from tracelens.tables.roofline import TABLE
from tracelens.tables.roofline_plot import MOST_POINTS, decades, plot, rate_said

SAMPLE = Path(__file__).parents[2] / "samples" / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz"
H200 = hardware.ceilings("NVIDIA H200")


def filled(*points: tuple[float | None, float | None], name: str = "aten::mm") -> Filled:
    """Return the table `roofline` with a row for each FLOP/byte and FLOP/s."""
    whole = {
        "name": name, "shapes": "4x4", "dtype": "bfloat16", "format": "bf16", "time_ns": 10,
        "share": 0.1, "bound": "compute", "verdict": "", "dims": "",
    }  # fmt: skip
    columns = {column.name: pl.lit(whole.get(column.name)) for column in TABLE.columns}
    frame = pl.DataFrame(
        points, schema={"intensity": pl.Float64, "flops_per_s": pl.Float64}, orient="row"
    )
    rest = {name: value for name, value in columns.items() if name not in frame.columns}
    return Filled("roofline", TABLE, frame.with_columns(**rest))


def test_a_page_holds_every_op_and_all_that_it_needs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("plotly")
    page = tmp_path / "roofline.html"

    said = Shell(capsys)("roofline", SAMPLE, "--figure", page)

    text = page.read_text(encoding="utf-8")
    assert said.status == 0
    for words in ("2048x768, 768x50257", "bf16 matmul, 989.4 TFLOP\\u002fs", "memory, 4.80 TB"):
        assert words.replace("\\u002f", "/") in text.replace("\\u002f", "/")
    assert not re.search(r"<script[^>]+src=", text)


def test_the_html_of_the_table_holds_the_drawing(capsys: pytest.CaptureFixture[str]) -> None:
    page = Shell(capsys)("summarize", SAMPLE, "-t", "roofline", "-f", "html").out
    other = Shell(capsys)("summarize", SAMPLE, "-t", "roofline_phases", "-f", "html").out

    assert page.count('<svg class="roofline"') == 1
    assert page.count("<circle") > 50
    assert "bf16 matmul, 989.4 TFLOP/s" in page
    assert '<svg class="roofline"' not in other


def test_points_stand_where_their_numbers_say_and_lines_meet_at_the_ridge() -> None:
    found = plot(filled((10.0, 1e12), (1000.0, 5e14)), H200, "title")
    assert found is not None
    assert H200 is not None
    svg = ET.fromstring(standalone(found))  # noqa: S314 (our own text)
    tag = "{http://www.w3.org/2000/svg}"

    circles = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in svg.iter(f"{tag}circle")]
    sloped, flat = [
        tuple(float(line.get(end, 0)) for end in ("x1", "y1", "x2", "y2"))
        for line in svg.iter(f"{tag}line")
        if line.get("class") == "roof"
    ]

    (left, low), (right, high) = sorted(circles)
    assert left < right
    assert low > high  # up is less in an SVG
    # The slope ends where the level begins: at the ridge.
    assert sloped[2:] == pytest.approx(flat[:2], abs=0.2)
    assert flat[1] == pytest.approx(flat[3])
    # One decade of FLOP/byte along the slope is one decade of FLOP/s.
    across = (right - left) / 2
    up = (low - high) / 2.69897
    slope = (sloped[1] - sloped[3]) / (sloped[2] - sloped[0])
    assert slope == pytest.approx(up / across, rel=0.01)


def test_without_ceilings_there_are_points_without_lines() -> None:
    found = plot(filled((10.0, 1e12)), None, "title")

    assert found is not None
    text = standalone(found)
    assert text.count("<circle") == 1
    assert 'class="roof"' not in text


def test_what_has_no_place_on_two_log_axes_is_not_drawn() -> None:
    assert plot(filled((0.0, 0.0), (None, 1e9), (3.0, None)), H200, "title") is None
    many = plot(filled(*[(1.0 + i, 1e9) for i in range(MOST_POINTS + 50)]), H200, "title")
    assert many is not None
    assert len(many.points) == MOST_POINTS


def test_names_are_text_and_nothing_else() -> None:
    found = plot(filled((10.0, 1e12), name="<script>&\x1b[31m\u202e"), H200, "<b>title</b>")
    assert found is not None

    text = standalone(found)

    ET.fromstring(text)  # noqa: S314 (our own text)
    assert "<script>" not in text
    assert "<b>" not in text
    assert "\x1b" not in text


def test_the_frame_behind_the_drawing_is_the_tables() -> None:
    table = build.fill(linked(SAMPLE), "roofline")

    found = plot(table, H200, "title")

    assert found is not None
    assert found.frame["time_ns"].is_sorted(descending=True)
    shown = set(found.frame["shapes"]) - set(table.frame["shapes"])
    assert not shown
    assert [roof.name for roof in found.roofs] == ["bf16 matmul", "fp32 vector"]


@given(st.lists(st.tuples(st.floats(1e-6, 1e9), st.floats(1.0, 1e16)), min_size=1, max_size=8))
def test_whatever_the_numbers_everything_stands_inside_the_drawing(
    points: list[tuple[float | None, float | None]],
) -> None:
    found = plot(filled(*points), H200, "title")
    assert found is not None

    for line in drawn(found):
        for name, most in (("cx", 1000), ("cy", 520), ("x1", 1000), ("y1", 520), ("y2", 520)):
            for value in re.findall(rf'\b{name}="([^"]+)"', line):
                assert -0.1 <= float(value) <= most + 0.1
    assert all(found.x[0] <= value <= found.x[1] for value in decades(found.x))


def test_rates_are_said_without_empty_decimals() -> None:
    assert [rate_said(x) for x in (1e12, 989.4e12, 1e15, 1.5e9)] == [
        "1 TFLOP/s", "989.4 TFLOP/s", "1,000 TFLOP/s", "1.5 GFLOP/s",
    ]  # fmt: skip

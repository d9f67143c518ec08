"""Memory over time as renderers draw it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from tests.render.story import phases, report
from tracelens import registry
from tracelens.render import Options
from tracelens.render._course import ROWS, drawn
from tracelens.render._course_svg import drawn as drawn_svg
from tracelens.tables import Course

MIB = 1 << 20


def course(
    active: list[int],
    reserved: list[int | None] | None = None,
    phase: list[str | None] | None = None,
    step: list[int | None] | None = None,
    **changed: Any,
) -> Course:
    """Return a course with an event every millisecond; sizes are in MiB."""
    count = len(active)
    frame = pl.DataFrame(
        {
            "x": [n * 1_000_000 for n in range(count)],
            "active_bytes": [size * MIB for size in active],
            "reserved_bytes": [
                None if size is None else size * MIB for size in reserved or [None] * count
            ],
            "phase": phase or [None] * count,
            "step": step or [None] * count,
        },
        schema={
            "x": pl.Int64,
            "active_bytes": pl.Int64,
            "reserved_bytes": pl.Int64,
            "phase": pl.String,
            "step": pl.Int32,
        },
    )
    top = max(active)
    fields: dict[str, Any] = {
        "title": "Memory active",
        "unit": "ns",
        "peak_x": active.index(top) * 1_000_000,
        "peak_bytes": top * MIB,
    }
    return Course(frame=frame, **{**fields, **changed})


def plot(lines: list[str]) -> list[str]:
    """Return what stands right of the scale."""
    return [line.partition("│")[2] or line.partition("┤")[2] for line in lines[1 : ROWS + 1]]


def test_a_column_is_as_high_as_its_most_and_the_peak_is_marked() -> None:
    lines = drawn(course([0, 2, 8, 4, 4]), 60, colour=False)

    heights = [sum(row[i : i + 1] == "█" for row in plot(lines)) for i in range(40)]
    assert max(heights) == ROWS
    assert heights[-1] == ROWS // 2
    mark = lines[0].index("▼")
    assert lines[0][mark:] == "▼ peak 8.00 MiB"
    assert plot(lines)[0][mark - lines[1].index("┤") - 1] == "█"


def test_a_single_event_of_a_moment_is_not_lost_among_many() -> None:
    quiet = [1] * 5000
    quiet[3210] = 100

    lines = drawn(course(quiet), 80, colour=False)

    assert plot(lines)[0].count("█") == 1


def test_the_scale_begins_at_what_was_always_held_where_little_changes() -> None:
    lines = drawn(course([90, 95, 100, 90]), 60, colour=False)

    assert lines[ROWS].startswith("  90.0 MiB ┤")
    assert lines[1].startswith(" 100.0 MiB ┤")
    assert drawn(course([10, 95, 100, 10]), 60, colour=False)[ROWS].startswith("   0.0 MiB ┤")


def test_what_is_reserved_stands_above_what_is_active() -> None:
    lines = drawn(course([0, 2, 2, 2], [8, 8, 8, 8]), 60, colour=False)

    rows = plot(lines)
    assert set(rows[0].strip()) == {"╌"}
    assert "╌" not in "".join(rows[1:])


def test_phases_and_steps_stand_below() -> None:
    lines = drawn(
        course(
            [1] * 40,
            phase=["forward"] * 10 + ["backward"] * 10 + ["forward"] * 10 + [None] * 10,
            step=[0] * 20 + [1] * 20,
        ),
        100,
        colour=False,
    )

    assert re.fullmatch(r" +╵forward +╵backward +╵forward +", lines[-2] + " ")
    assert re.fullmatch(r" +╵step 0 +╵step 1", lines[-1])


def test_labels_without_room_are_left_out() -> None:
    names: list[str | None] = ["forward", "backward"] * 200

    lines = drawn(course([1] * 400, phase=names), 80, colour=False)

    assert len(lines) == ROWS + 2


def test_errors_stand_on_the_axis() -> None:
    lines = drawn(course([1, 2, 3, 4], errors_x=(1_000_000,)), 80, colour=False)

    assert "✗" in lines[ROWS + 1]
    assert lines[-1].strip() == "✗ out of memory"


def test_events_without_time_are_counted() -> None:
    lines = drawn(course([1, 2, 3], unit="count"), 80, colour=False)

    assert lines[ROWS + 1].endswith("2,000,001 events")


@pytest.mark.parametrize("width", [80, 100, 140, 400])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("peak", [0, 20, 39])
def test_no_line_is_wider_than_the_terminal(width: int, *, colour: bool, peak: int) -> None:
    sizes = [1] * 40
    sizes[peak] = 9

    lines = drawn(course(sizes, phase=["forward"] * 40), width, colour=colour)

    plain = [re.sub(r"\x1b\[\d+m", "", line) for line in lines]
    assert max(map(len, plain)) <= width
    assert any("peak 9.00 MiB" in line for line in plain)
    assert ("\x1b[" in "".join(lines)) is colour


def test_a_page_has_the_course_as_a_drawing_that_runs_nothing() -> None:
    held = course([0, 2, 8, 4], [8, 8, 8, None], phase=["<b>", "<b>", None, None], note="Peaks: 8")

    page = registry.load("renderer", "html").render([report(phases(), courses=(held,))], Options())

    assert '<svg class="course"' in page
    assert "peak 8.00 MiB" in page
    assert "dashed: reserved. Peaks: 8" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<script" not in page


def test_the_line_of_a_page_s_drawing_holds_its_height_until_the_next_moment() -> None:
    svg = "\n".join(drawn_svg(course([0, 8, 8])))

    # From the bottom at 248 up to the top at 28, half way.
    assert re.search(r'class="edge" d="M80\.0 248\.0H539\.0V28\.0H998\.0V28\.0"', svg)


def test_what_was_active_is_drawn_by_category() -> None:
    rows = [(0, "gradients", MIB), (1, "gradients", MIB), (1, "</svg>", 7 * MIB), (2, None, MIB)]
    groups = pl.DataFrame(rows, schema=["place", "group", "bytes"], orient="row")

    svg = "\n".join(drawn_svg(replace(course([1, 8, 1]), groups=lambda: groups)))

    # The largest sum first, from the bottom at 248 up: 1, 8 and 1 MiB.
    assert 'd="M80.0 248.0H80V220.5H539V28.0H998V220.5H998.0V248.0Z"' in svg
    assert '<span style="--of:#d97706">gradients</span>' in svg
    assert "no rule fits" in svg
    assert svg.count("</svg>") == 1


def test_markdown_holds_the_drawing_as_text() -> None:
    text = registry.load("renderer", "markdown").render(
        [report(phases(), phases(), courses=(course([1, 2, 3]),))], Options()
    )

    assert "```text\nMemory active" in text

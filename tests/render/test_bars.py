"""Bars in a page: the numbers of the table above which they stand, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from tests.render import story
from tracelens import registry
from tracelens.render import Options
from tracelens.render.html import RENDERER
from tracelens.tables import Filled
from tracelens.tables.bars import bars_of


def table(name: str, rows: list[dict[str, Any]], room: str = "table") -> Filled:
    """Return a table of the toolkit; columns that a row does not name are null."""
    declared = registry.load(room, name)
    frame = pl.DataFrame(
        [{column.name: row.get(column.name) for column in declared.columns} for row in rows]
    )
    return Filled(name, declared, frame)


def phases(phase: str = "forward") -> Filled:
    return table(
        "overview",
        [
            {"phase": phase, "kernels": 3, "kernel_time_ns": 80, "graph_time_ns": 20}
            | {"share": 0.5, "matmul": 0.75, "norm_softmax": 0.25},
            {"phase": "optimizer", "kernels": 1, "kernel_time_ns": 50, "share": 0.5, "rest": 1.0},
        ],
    )


def rendered(filled: Filled) -> str:
    return RENDERER.render([story.report(filled)], Options())


def test_a_phase_is_a_bar_of_the_kinds_of_its_work() -> None:
    bars = bars_of(phases())

    lengths = [{p.name: p.length for p in bar.parts if p.length} for bar in bars]
    assert lengths == [{"matmul": 75, "norm/softmax": 25}, {"rest": 50}]
    assert [bar.said for bar in bars] == ["100 ns", "50 ns"]


def test_bars_are_drawn_on_one_scale() -> None:
    text = rendered(phases())

    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', text)]
    assert widths == [570.0, 190.0, 380.0]
    assert "<title>forward, matmul: 75 ns, 75 %</title>" in text
    assert text.count("<svg") == 1


def test_a_step_is_busy_and_idle() -> None:
    steps = table("steps", [{"step": 4, "busy_ns": 30, "idle_ns": 10}])

    (bar,) = bars_of(steps)

    assert bar.label == "step 4"
    assert [(p.name, p.length) for p in bar.parts] == [("GPU busy", 30), ("GPU idle", 10)]


def test_what_is_reserved_is_active_or_free() -> None:
    row = {"at": "peak", "device": 1, "reserved_bytes": 100, "active_bytes": 60}
    row |= {"unused_bytes": 40, "inactive_split_bytes": 10}

    (bar,) = bars_of(table("fragmentation", [row], "memory_table"))

    assert bar.label == "peak · device 1"
    assert [p.length for p in bar.parts] == [60, 10, 30]


@pytest.mark.parametrize("rows", [[], [{"step": n, "busy_ns": 1, "idle_ns": 1} for n in range(41)]])
def test_none_and_too_many_bars_are_not_drawn(rows: list[dict[str, Any]]) -> None:
    steps = table("steps", rows or [{"step": 0}])
    steps = steps if rows else replace(steps, frame=steps.frame.clear())

    assert "<svg" not in rendered(steps)


def test_nothing_is_drawn_where_no_time_was_spent() -> None:
    idle = table("steps", [{"step": 0, "busy_ns": 0, "idle_ns": None}])

    assert "<svg" not in rendered(idle)


def test_names_stay_text() -> None:
    text = rendered(phases("</title><script>x</script>\u202e"))

    assert "<script" not in text
    assert "&lt;/title&gt;&lt;script&gt;" in text
    assert "\u202e" not in text

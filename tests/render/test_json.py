"""JSON: the contract that programs rely on."""

from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

import tracelens
from tests.render import story
from tracelens.render import Options
from tracelens.render.json import RENDERER
from tracelens.tables import Column, Filled, Report, Table


def rendered(*reports: Report, **options: Any) -> Any:
    return json.loads(RENDERER.render(reports, Options(**options)))


def test_one_report_is_one_object() -> None:
    document = rendered(story.report(story.phases()))

    assert list(document) == [
        "tracelens",
        "schema",
        "source",
        "devices",
        "phase_source",
        "coverage",
        "tables",
        "findings",
        "found",
        "could_not_look",
        "left_out",
        "warnings",
    ]
    assert document["tracelens"] == tracelens.__version__
    assert document["schema"] == 1
    assert document["source"]["path"] == "run.sqlite"
    assert document["left_out"] == {"ranges": "no NVTX ranges were recorded"}
    assert document["tables"]["phases"][3] == {
        "phase": None,
        "kernels": 74,
        "kernel_time_ns": 2_800_000,
        "busy_ns": 2_800_000,
        "share": 0.004,
    }


def test_several_reports_are_runs() -> None:
    document = rendered(story.report(path="a"), story.report(path="b"))

    assert list(document) == ["tracelens", "schema", "runs"]
    assert [run["source"]["path"] for run in document["runs"]] == ["a", "b"]


def test_top_cuts_nothing() -> None:
    assert len(rendered(story.report(story.kernels()), top=1)["tables"]["kernels"]) == 4


def test_integers_stay_integers() -> None:
    text = RENDERER.render([story.report(story.kernels())], Options())

    assert '"total_ns": 244000000,' in text


def test_numbers_that_json_cannot_hold_are_null() -> None:
    frame = pl.DataFrame({"mean": [math.nan, math.inf, 1.5], "parts": [[math.nan], [2.0], []]})
    table = Table("t", "T", (Column("mean", "mean", "ns"), Column("parts", "parts", "text")), "")

    rows = rendered(story.report(Filled("t", table, frame)))["tables"]["t"]

    assert rows == [
        {"mean": None, "parts": [None]},
        {"mean": None, "parts": [2.0]},
        {"mean": 1.5, "parts": []},
    ]


def test_a_path_that_is_not_utf_8_can_be_written() -> None:
    text = RENDERER.render([story.report(path="a\udcff")], Options())

    assert text.encode()
    assert json.loads(text)["source"]["path"] == "a\udcff"


def test_any_mapping_will_do() -> None:
    document = rendered(story.report(source=MappingProxyType({"path": "a", "facts": (1, 2)})))

    assert document["source"] == {"path": "a", "facts": [1, 2]}


@given(st.lists(st.text()))
def test_names_come_back_as_they_were(names: list[str]) -> None:
    rows = rendered(story.report(story.named(*names)))["tables"]["ranges"]

    assert [row["name"] for row in rows] == names

"""CSV: one table, read back exactly."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.render import story
from tracelens.errors import NothingToShowError, UsageError
from tracelens.render import Options
from tracelens.render.csv import RENDERER
from tracelens.tables import Column, Filled, Report, Table


def rendered(*reports: Report, **options: Any) -> str:
    return RENDERER.render(reports, Options(**options))


def test_every_row_and_column_is_there_in_raw_numbers() -> None:
    text = rendered(story.report(story.phases()), top=1)

    assert text.split("\r\n") == [
        "phase,kernels,kernel_time_ns,busy_ns,share",
        "forward,5536,165900000,165000000,0.275",
        "backward,9912,344000000,343000000,0.57",
        "optimizer,14208,91300000,91000000,0.151",
        ",74,2800000,2800000,0.004",
        "",
    ]


def test_two_tables_are_refused_and_named() -> None:
    with pytest.raises(UsageError, match=r"--table NAME, one of: phases, kernels\."):
        rendered(story.report(story.phases(), story.kernels()))


def test_no_table_is_refused_with_the_reason() -> None:
    with pytest.raises(NothingToShowError, match="ranges: no NVTX ranges were recorded"):
        rendered(story.report())


def test_several_inputs_are_told_apart_by_their_path() -> None:
    reports = [story.report(story.named("k"), path=path) for path in ("a,1", "b")]

    assert rendered(*reports) == 'path,name,instances\r\n"a,1",k,0\r\nb,k,0\r\n'


def test_several_inputs_need_the_same_table() -> None:
    with pytest.raises(UsageError, match="there are 2"):
        rendered(story.report(story.phases()), story.report(story.kernels()))


def test_a_path_that_is_not_utf_8_can_be_written() -> None:
    reports = [story.report(story.named(), path="a\udcff"), story.report(story.named("k"))]

    assert rendered(*reports).encode()


def test_what_is_not_known_is_empty_and_lists_are_json() -> None:
    frame = pl.DataFrame({"ns": [math.nan], "on": [True], "stack": [["a", "b"]]})
    columns = (
        Column("ns", "time", "ns"),
        Column("on", "on", "flag"),
        Column("stack", "stack", "text"),
    )

    text = rendered(story.report(Filled("t", Table("t", "T", columns, ""), frame)))

    assert text == 'ns,on,stack\r\n,true,"[""a"", ""b""]"\r\n'


@given(st.lists(st.text()))
def test_names_come_back_as_they_were(names: list[str]) -> None:
    text = rendered(story.report(story.named(*names)))

    head, *rows = csv.reader(io.StringIO(text, newline=""))
    assert head == ["name", "instances"]
    assert rows == [[inert(name), str(i)] for i, name in enumerate(names)]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_spreadsheet_computes_a_name(sign: str) -> None:
    text = rendered(story.report(story.named(f"{sign}HYPERLINK(1)"), path=f"{sign}1"))

    _, (name, _) = csv.reader(io.StringIO(text, newline=""))
    assert name == f"'{sign}HYPERLINK(1)"


def test_a_negative_number_stays_a_number() -> None:
    frame = pl.DataFrame({"ns": [-5], "share": [-0.5]})
    columns = (Column("ns", "time", "ns"), Column("share", "share", "share"))

    text = rendered(story.report(Filled("t", Table("t", "T", columns, ""), frame)))

    assert text == "ns,share\r\n-5,-0.5\r\n"


def inert(name: str) -> str:
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else name

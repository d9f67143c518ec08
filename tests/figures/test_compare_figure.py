"""The figure of a comparison: bars from A to B that add up, and names that are but text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.asking import Shell
from tests.loops import Kernel, Loop, side
from tracelens.analyses.compare.explain import whole
from tracelens.figures.compare import bars

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("plotly", reason="no plotly: figures are an extra")


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell."""
    return Shell(capsys)


def test_the_bars_lead_from_one_run_to_the_other(tmp_path: Path) -> None:
    gemms = [Kernel("sgemm", [took] * 4, phase=f"p{i}") for i, took in enumerate((5_000, 7_000))]
    many = [Kernel(f"other_{i}_kernel", [300 + i] * 4) for i in range(30)]
    a = side(Loop(gemms[:1]).write_nsys(tmp_path / "a.sqlite"))
    b = side(Loop([*gemms, *many]).write_nsys(tmp_path / "b.sqlite"))
    labels, lengths = bars(a, b)

    assert (labels[0], labels[-1]) == ("A: a.sqlite", "B: b.sqlite")
    assert lengths[0] == whole(a)
    assert sum(lengths[:-1]) == lengths[-1] == whole(b)


def test_runs_that_are_alike_have_no_bars_between(tmp_path: Path) -> None:
    a = side(Loop([Kernel("sgemm", [1_000] * 3)]).write_nsys(tmp_path / "a.sqlite"))

    assert bars(a, a)[0] == ["A: a.sqlite", "B: a.sqlite"]


def test_a_figure_is_one_page_in_which_names_are_text(shell: Shell, tmp_path: Path) -> None:
    loops = [Loop([Kernel("gemm", [took] * 3)]) for took in (1_000, 2_000)]
    paths = [loop.write_nsys(tmp_path / f"{i}.sqlite") for i, loop in enumerate(loops)]
    page = tmp_path / "figure.html"
    named = [f"<img>{i}={path}" for i, path in enumerate(paths)]
    said = shell("compare", *named, "--figure", page)
    text = page.read_text()

    assert said.status == 0
    assert "<img>" not in text
    assert "&lt;img&gt;0" in text or "\\u0026lt;img" in text
    assert shell("compare", *paths, paths[0], "--figure", tmp_path / "b.html").status == 2

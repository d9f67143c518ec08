"""`tracelens summarize --figure`: GPU time by phase and kind of work as a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.asking import Shell
from tests.browsers import installed
from tests.build import Nsys

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return a shell in which to run tracelens."""
    return Shell(capsys)


def recording(path: Path, phase: str = "forward") -> Path:
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    main.push(phase, 1_000, 300_000)
    main.kernel("ampere_sgemm_128x64_tn", at=2_000, run=(3_000, 103_000))
    main.kernel("softmax_warp_forward", at=3_000, run=(110_000, 120_000))
    return trace.write(path)


def test_a_page_holds_the_phases_and_all_that_it_needs(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    page = tmp_path / "phases.html"

    said = shell("summarize", recording(tmp_path / "run.sqlite"), "--figure", page)

    text = page.read_text(encoding="utf-8")
    assert said.status == 0
    assert "GPU time by phase" in said.out
    for name in ("forward", "matmul", "norm\\u002fsoftmax"):
        assert name in text.replace("norm/", "norm\\u002f")
    assert not re.search(r"<script[^>]+src=", text)


def test_a_figure_adds_no_table(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    path, page = recording(tmp_path / "run.sqlite"), tmp_path / "phases.html"

    plain = shell("summarize", path, "--table", "kernels")
    drawn = shell("summarize", path, "--table", "kernels", "--figure", page)

    assert drawn.out == plain.out
    assert page.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("form", "begins"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_images_are_drawn_by_a_browser(
    shell: Shell, tmp_path: Path, form: str, begins: bytes
) -> None:
    pytest.importorskip("kaleido")
    if installed() is None:
        pytest.skip("no Chrome or Chromium is on PATH")
    image = tmp_path / f"phases.{form}"

    assert shell("summarize", recording(tmp_path / "run.sqlite"), "--figure", image).status == 0
    assert image.read_bytes().startswith(begins)


def test_what_cannot_be_drawn_is_said(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    path = recording(tmp_path / "run.sqlite")
    idle = Nsys()
    idle.thread("python", pid=1, tid=1).push("forward", 0, 10)
    empty = idle.write(tmp_path / "idle.sqlite")
    page = tmp_path / "x.html"

    for words, status, says in (
        ([path, "--figure", tmp_path / "x.gif"], 2, "its name must end in .html, .svg, .png"),
        ([path, empty, "--figure", page], 2, "--figure draws one recording, and there are 2"),
        ([empty, "--figure", page], 4, "There is nothing to draw"),
    ):
        said = shell("summarize", *words)
        assert (said.status, page.exists()) == (status, False)
        assert says in said.err

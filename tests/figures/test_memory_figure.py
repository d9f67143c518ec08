"""Figures of memory: complete pages, and images where a browser can draw them."""

from __future__ import annotations

import builtins
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import Shell
from tests.browsers import installed
from tests.snapshots import Snapshot, training

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return a shell in which to run tracelens."""
    return Shell(capsys)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the snapshot of two steps of training."""
    return training(steps=2).write(tmp_path / "train.pickle")


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Pretend that a package is not installed."""
    found = builtins.__import__

    def refused(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return found(name, *rest, **more)

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refused)


def test_a_page_holds_all_that_it_needs(shell: Shell, path: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    page = tmp_path / "peak.html"

    said = shell("memory", path, "--figure", page)

    text = page.read_text(encoding="utf-8")
    assert said.status == 0
    for name in ("optimizer temporaries", "activations", "gradients", "reserved"):
        assert name in text
    assert "peak 16.0 MiB in optimizer" in text
    assert not re.search(r"<script[^>]+src=", text)


def test_memory_may_be_drawn_by_phase(shell: Shell, path: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    page = tmp_path / "peak.html"

    assert shell("memory", path, "--figure", page, "--group", "phase").status == 0
    assert "before the recording" in page.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("form", "begins"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_images_are_drawn_by_a_browser(
    shell: Shell, path: Path, tmp_path: Path, form: str, begins: bytes
) -> None:
    pytest.importorskip("kaleido")
    if installed() is None:
        pytest.skip("no Chrome or Chromium is on PATH")
    image = tmp_path / f"peak.{form}"

    said = shell("memory", path, "--figure", image)

    assert said.status == 0
    assert image.read_bytes().startswith(begins)


@pytest.mark.parametrize(("package", "form"), [("plotly", "html"), ("kaleido", "png")])
def test_what_is_not_installed_is_said_with_how_to_install_it(
    shell: Shell, path: Path, monkeypatch: pytest.MonkeyPatch, package: str, form: str
) -> None:
    pytest.importorskip("plotly")
    without(monkeypatch, package)
    image = path.with_name(f"peak.{form}")

    said = shell("memory", path, "--figure", image)

    assert said.status == 2
    assert re.search(rf"needs? {package}: pip install 'tracelens-gpu\[images\]'", said.err)
    assert not image.exists()


def test_a_figure_overwrites_nothing_unasked(shell: Shell, path: Path, tmp_path: Path) -> None:
    page = tmp_path / "peak.html"
    page.write_text("mine", encoding="utf-8")

    said = shell("memory", path, "--figure", page)

    assert said.status == 2
    assert page.read_text(encoding="utf-8") == "mine"


def test_names_run_nothing_in_a_figure(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.alloc(1000, stack=("a.py:1 f",))
    gpu.alloc(1000, stack=("a.py:1 f",))
    path = snapshot.write(tmp_path / "x.pickle")
    page = tmp_path / "x.html"

    shell("memory", path, "--figure", page, "--category", "</script><img src=x>=a.py")

    assert "</script><img" not in page.read_text(encoding="utf-8")


def test_one_figure_is_of_one_recording(shell: Shell, tmp_path: Path) -> None:
    for rank in range(2):
        training(steps=1).write(tmp_path / f"rank{rank}.pickle")

    said = shell("memory", tmp_path, "--figure", tmp_path / "x.html")

    assert said.status == 2
    assert "--figure draws one recording, and there are 2" in said.err

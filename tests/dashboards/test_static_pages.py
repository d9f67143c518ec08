"""The HTML of `tracelens summarize` and `tracelens memory`: one file, opened without a network."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import Shell
from tests.dashboards.recordings import PAYLOADS
from tests.dashboards.recordings import training as recording
from tests.snapshots import MIB, Snapshot, training

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST_BYTES = 200_000


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return a shell in which to run tracelens."""
    return Shell(capsys)


@pytest.fixture
def offline(tab: Callable[..., Any]) -> Any:
    """Give a page of a browser without a network; all that it asks for is in `page.asked`."""
    page = tab(offline=True)
    page.asked = []
    page.complaints = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda said: page.complaints.append(said.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    return page


def summary(shell: Shell, folder: Path) -> Path:
    page = folder / "summary.html"
    path = recording(folder / "run.sqlite", kernel=PAYLOADS[0])
    tables = ["--table", "overview", "--table", "steps", "--table", "kernels"]
    assert shell("summarize", path, *tables, "--format", "html", "-o", page).status == 0
    return page


def memory(shell: Shell, folder: Path) -> Path:
    page = folder / "memory.html"
    path = training(steps=2).write(folder / "train.pickle")
    assert shell("memory", path, "--table", "all", "--format", "html", "-o", page).status == 0
    return page


@pytest.mark.parametrize(("made", "pictures"), [(summary, 2), (memory, 2)])
def test_the_page_opens_from_a_file_and_asks_for_nothing(
    shell: Shell, tmp_path: Path, offline: Any, made: Any, pictures: int
) -> None:
    path = made(shell, tmp_path)

    offline.goto(path.as_uri())

    text = path.read_text(encoding="utf-8")
    assert offline.locator("svg").count() == pictures
    assert offline.locator("svg").first.bounding_box()["height"] > 40
    assert offline.asked == [path.as_uri()]
    assert offline.complaints == []
    assert not re.search(r"(?:https?:)?//[a-z]", text)
    assert "default-src 'none'" in text
    assert len(text) < MOST_BYTES


def test_names_in_pictures_run_nothing(shell: Shell, tmp_path: Path, offline: Any) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    for line, name in enumerate(PAYLOADS):
        with snapshot.range(name):
            gpu.alloc((line + 1) * MIB, stack=(f"x.py:{line + 1} {name}",))
    path, page = snapshot.write(tmp_path / "x.pickle"), tmp_path / "x.html"
    rules = [word for name in PAYLOADS[:3] for word in ("--category", f"{name.replace('=', '')}=x")]
    assert shell("memory", path, *rules, "--format", "html", "-o", page).status == 0

    offline.goto(page.as_uri())

    assert offline.locator(".legend span").count() > 0
    assert offline.evaluate("() => window.__hacked") is None
    assert offline.locator("script, img").count() == 0
    assert offline.complaints == []

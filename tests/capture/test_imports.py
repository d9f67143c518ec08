"""Something is done as soon as a module has been imported, once, and importing stays as it was."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

from tracelens.capture.imports import when_imported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Give what has happened; a module named `late_one` says when it is run."""
    done: list[str] = []
    monkeypatch.setattr(sys, "tracelens_done", done, raising=False)
    text = "import sys\nsys.tracelens_done.append('run')\nvalue = 1\n"
    (tmp_path / "late_one.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    yield done
    sys.modules.pop("late_one", None)
    assert sys.meta_path == finders


def says(done: list[str], what: str) -> Callable[[], None]:
    def say() -> None:
        assert sys.modules["late_one"].value == 1
        done.append(what)

    return say


def test_it_is_done_right_after_the_module_has_run(late: list[str]) -> None:
    when_imported("late_one", says(late, "first"))
    when_imported("late_one", says(late, "second"))
    assert late == []

    module = importlib.import_module("late_one")
    importlib.import_module("late_one")
    assert late[0] == "run"
    assert sorted(late[1:]) == ["first", "second"]
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    assert module.__spec__ is not None
    assert module.__spec__.loader is module.__loader__


def test_asking_whether_a_module_is_there_is_not_importing_it(late: list[str]) -> None:
    when_imported("late_one", says(late, "done"))
    assert importlib.util.find_spec("late_one") is not None
    assert late == []

    importlib.import_module("late_one")
    assert late == ["run", "done"]


def test_what_has_been_imported_is_done_at_once(late: list[str]) -> None:
    importlib.import_module("late_one")
    when_imported("late_one", says(late, "done"))

    assert late == ["run", "done"]

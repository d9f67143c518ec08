"""Rooms: which files of a folder are things of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens import registry

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_file_is_a_thing_if_it_has_the_constant_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "a_room"
    room.mkdir()
    files = {
        "__init__": "THING = None",
        "chair": '"""A chair: to sit on. It has legs."""\nTHING = 1',
        "table": '"""A table."""\nTHING: int = 2',
        "things": '"""A list of them."""\nTHINGS = (1, 2)',
        "inside": '"""One in a function."""\ndef f():\n    THING = 3',
    }
    for name, text in files.items():
        (room / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.ROOMS, "thing", registry.Room("a_room", "THING"))

    found = registry.entries("thing")

    assert {name: one.summary for name, one in found.items()} == {
        "chair": "A chair: to sit on. It has legs.",
        "table": "A table.",
    }
    assert registry.load("thing", "table") == 2

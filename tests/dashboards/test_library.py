"""Which recordings the explorer shows, what it tells of the others, and when it looks again."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.dashboards.recordings import training
from tracelens.errors import NothingToShowError, UnreadableError

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("dash")

from tracelens_dashboards import library as rooms
from tracelens_dashboards.library import Library


def test_ids_say_nothing_of_paths_and_stay_the_same(tmp_path: Path) -> None:
    path = training(tmp_path / "secret-project.sqlite")

    first, again = Library([path]).items[0], Library([tmp_path]).items[0]

    assert first.id == again.id
    assert len(first.id) == 12
    assert "secret" not in first.id


def test_one_damaged_file_leaves_the_others(tmp_path: Path) -> None:
    good = training(tmp_path / "good.sqlite")
    bad = training(tmp_path / "bad.sqlite")
    bad.write_bytes(bad.read_bytes()[:16] + bytes(5_000))
    library = Library([tmp_path])
    by_title = {item.trace: item.id for item in library.items}

    assert library.open(by_title[good]).linked.ops.height == 4
    assert library.problems == []
    with pytest.raises(UnreadableError):
        _ = library.open(by_title[bad]).linked
    assert len(library.problems) == 1
    assert "bad.sqlite" in library.problems[0]
    assert library.is_failed(by_title[bad])


def test_a_damaged_run_folder_leaves_its_neighbours(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        training(tmp_path / name / "run.sqlite")
    (tmp_path / "one" / "run.json").write_text("{not json")

    library = Library([tmp_path])

    assert [item.title for item in library.items] == ["one/run.sqlite", "two/run.sqlite"]
    assert len(library.problems) == 1
    assert "run.json" in library.problems[0]


def test_a_path_that_is_not_there_is_told_and_no_more(tmp_path: Path) -> None:
    good = training(tmp_path / "good.sqlite")

    library = Library([tmp_path / "absent", good])

    assert [item.trace for item in library.items][-1] == good


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = training(tmp_path / "outside.sqlite")
    inside = tmp_path / "given"
    inside.mkdir()
    own = training(inside / "own.sqlite")
    (inside / "link.sqlite").symlink_to(outside)
    (inside / "beside.sqlite").symlink_to(own)

    library = Library([inside])

    assert {item.trace for item in library.items} == {own} or len(library.items) == 1
    assert any("link.sqlite is a link" in problem for problem in library.problems)


def test_a_file_that_becomes_a_link_later_is_not_read(tmp_path: Path) -> None:
    outside = training(tmp_path / "outside.sqlite")
    inside = tmp_path / "given"
    inside.mkdir()
    own = training(inside / "own.sqlite")
    library = Library([inside])
    own.unlink()
    own.symlink_to(outside)

    with pytest.raises(UnreadableError, match="leads out"):
        _ = library.open(library.items[0].id).trace


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "0" * 12, "/etc/passwd"])
def test_nothing_but_known_ids_can_be_opened(tmp_path: Path, name: str) -> None:
    library = Library([training(tmp_path / "run.sqlite")])

    with pytest.raises(UnreadableError, match="no such recording"):
        library.open(name)


def test_new_and_changed_recordings_are_counted_until_someone_looks(tmp_path: Path) -> None:
    first = training(tmp_path / "a.sqlite")
    library = Library([tmp_path])
    opened = library.open(library.items[0].id)
    assert library.unseen() == 0

    training(tmp_path / "b.sqlite")
    os.utime(first, ns=(1, 1))

    assert library.unseen() == 2
    assert len(library.items) == 1
    assert len(library.refresh()) == 2
    assert library.unseen() == 0
    assert library.open(opened.item.id) is not opened


def test_watching_reads_no_file_that_has_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path / "a.sqlite")
    library = Library([tmp_path])
    looked: list[Path] = []
    peek = rooms.run.peek
    monkeypatch.setattr(rooms.run, "peek", lambda path: looked.append(path) or peek(path))

    for _ in range(3):
        assert library.unseen() == 0
    assert looked == []
    new = training(tmp_path / "b.sqlite")
    for _ in range(3):
        assert library.unseen() == 1

    assert looked == [new]


def test_a_recording_is_read_once_however_many_ask(tmp_path: Path) -> None:
    library = Library([training(tmp_path / "run.sqlite")])
    opened = library.open(library.items[0].id)
    made: list[int] = []
    gate = threading.Barrier(4)

    def ask() -> None:
        gate.wait()
        opened.once("thing", lambda: made.append(1))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert made == [1]


def test_what_cannot_be_shown_is_not_asked_for_again(tmp_path: Path) -> None:
    library = Library([training(tmp_path / "run.sqlite")])
    opened = library.open(library.items[0].id)
    asked: list[int] = []

    def fails() -> Any:
        asked.append(1)
        raise NothingToShowError("There is nothing.")

    for _ in range(2):
        with pytest.raises(NothingToShowError):
            opened.once("thing", fails)

    assert asked == [1]


def test_only_the_last_few_stay_in_memory_and_briefs_are_kept(tmp_path: Path) -> None:
    for number in range(6):
        training(tmp_path / f"{number}.sqlite")
    library = Library([tmp_path])
    first = library.open(library.items[0].id)
    told: list[str] = []

    for item in library.items[1:]:
        library.open(item.id)
    for _ in range(2):
        library.brief(first.item.id, "thing", lambda opened: told.append(opened.item.id))

    assert library.open(first.item.id) is not first
    assert told == [first.item.id]

"""What is no recording, or no longer one: an exit status, and a line that says what to do."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import sqlite3
import stat
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.asking import Said, Shell
from tests.build import Nsys, training_step
from tracelens.readers import open as opening

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.asking import Nobody


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell to run commands in."""
    return Shell(capsys)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty folder for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def good(path: Path, *, wal: bool = False) -> Path:
    trace = Nsys()
    training_step(trace)
    return trace.write(path, wal=wal)


def refused(said: Said, *words: str) -> None:
    """Assert that nothing was shown, for a reason of one or two lines with these words."""
    assert (said.status, said.out) == (3, "")
    assert 1 <= len(said.err.strip().splitlines()) <= 2
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"\0" * 5_000, "nsys export"),
        (b"hello, this is a log\n" * 100, "nsys export"),
        (b"\x7fELF\x02\x01\x01" + bytes(500), "nsys export"),
        (json.dumps({"a": [1, 2]}).encode(), "JSON"),
        (b"SQLite format 3", "nsys export"),
        (b"SQLite format 3\0", "Export it again"),
        (b"SQLite format 3\0" + b"\xff" * 8_000, "Export it again"),
        (b"SQLite format 3\0" + bytes(8_000), "nsys export"),
        (b"\x1f\x8b", "unpacked"),
        (b"\x1f\x8b\x08\x00garbage" * 50, "unpacked"),
        (gzip.compress(b"", mtime=0), ""),
        (gzip.compress(b"not a database" * 50, mtime=0), "nsys export"),
        (gzip.compress(gzip.compress(b"SQLite format 3\0", mtime=0), mtime=0), "nsys export"),
        (b"\x28\xb5\x2f\xfd" + b"garbage" * 50, "unpacked"),
        (b"PAR1" + bytes(100) + b"PAR1", "nsys export"),
        (b"ARROW1\0\0" + bytes(100), "nsys export"),
    ],
)
@pytest.mark.parametrize("name", ["run.sqlite", "run.gz"])
def test_a_file_of_another_kind_is_refused(  # noqa: PLR0917
    tmp_path: Path, shell: Shell, scratch: Path, content: bytes, word: str, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    refused(shell("summarize", path), name, word)
    assert list(scratch.iterdir()) == []


def test_the_database_of_another_program_is_named_by_its_tables(
    tmp_path: Path, shell: Shell
) -> None:
    path = tmp_path / "History"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE urls (id INTEGER PRIMARY KEY, url TEXT, visit_count INTEGER)")
        db.execute("CREATE TABLE visits (id INTEGER PRIMARY KEY, visit_time INTEGER)")

    refused(shell("summarize", path), "urls, visits", "nsys export")


@pytest.mark.parametrize(
    "tables",
    [
        ["META_DATA_EXPORT (name TEXT, value TEXT)", "META_DATA_CAPTURE (name TEXT, value TEXT)"],
        ["TARGET_INFO_GPU (id INTEGER, name TEXT)", "ProcessStreams (globalPid INTEGER)"],
        [],
    ],
)
def test_an_export_that_was_not_finished_is_to_be_made_again(
    tmp_path: Path, shell: Shell, tables: list[str]
) -> None:
    path = tmp_path / "run.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE made (up)")
        db.execute("DROP TABLE made")
        for table in tables:
            db.execute(f"CREATE TABLE {table}")

    refused(shell("summarize", path), "nsys export")


def bind(name: str) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as end:
        end.bind(name)


@pytest.mark.parametrize("make", [os.mkfifo, bind])
def test_a_pipe_or_socket_is_not_waited_for(
    tmp_path: Path, shell: Shell, make: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # sockets have short names only
    make("pipe.sqlite")

    refused(shell("summarize", "pipe.sqlite"), "is no file")
    refused(shell("summarize", tmp_path), "holds no recording")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/urandom", "/dev/tty"])
def test_a_device_is_not_read(shell: Shell, device: str) -> None:
    refused(shell("summarize", device))


def test_pipes_in_the_folder_of_an_export_are_passed_over(tmp_path: Path, shell: Shell) -> None:
    trace = Nsys()
    training_step(trace)
    folder = trace.write_parquet(tmp_path / "run_dir")
    (folder / "NVTX_EVENTS.parquet").unlink()
    os.mkfifo(folder / "NVTX_EVENTS.parquet")
    (folder / "CUPTI_ACTIVITY_KIND_MEMCPY.parquet").unlink()
    (folder / "CUPTI_ACTIVITY_KIND_MEMCPY.parquet").mkdir()

    said = shell("summarize", folder, "--format", "json")

    assert said.status == 0
    assert said.json["tables"]["totals"][0]["kernels"] == 9
    assert said.json["tables"]["totals"][0]["copies"] == 0


def test_a_folder_without_recordings_says_so(tmp_path: Path, shell: Shell) -> None:
    (tmp_path / "notes.txt").write_text("no recording")
    loop = tmp_path / "a" / "b"
    loop.mkdir(parents=True)
    (loop / "again").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone").symlink_to("nowhere")

    refused(shell("summarize", tmp_path), "holds no recording")
    refused(shell("summarize", tmp_path / "self"))
    refused(shell("summarize", tmp_path / "gone"))


def test_a_recording_in_a_folder_that_links_to_itself_is_found(
    tmp_path: Path, shell: Shell
) -> None:
    good(tmp_path / "run.sqlite")
    (tmp_path / "again").symlink_to(tmp_path)

    assert shell("summarize", tmp_path).status == 0


def test_what_may_not_be_read_says_how_to_change_that(nobody: Nobody, shell: Shell) -> None:
    folder, as_nobody = nobody
    path = good(folder / "run.sqlite")
    assert shell("summarize", path).status == 0
    path.chmod(0)
    locked = folder / "locked"
    locked.mkdir(mode=0)

    with as_nobody():
        refused(shell("summarize", path), "chmod")
        refused(shell("summarize", locked))


def test_a_file_that_vanishes_while_it_is_read_is_no_bug(
    tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = good(tmp_path / "run.sqlite")
    head = opening._head

    def read_and_remove(file: Path) -> bytes:
        found = head(file)
        file.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(opening, "_head", read_and_remove)

    refused(shell("summarize", path), "run.sqlite")


def test_a_bomb_of_nothing_is_refused_at_its_first_block(
    tmp_path: Path, shell: Shell, scratch: Path
) -> None:
    bomb = tmp_path / "run.sqlite.gz"
    one = gzip.compress(bytes(16 << 20), 9)
    bomb.write_bytes(one * 500)  # 8 GB of zeros in 8 MB
    since = time.monotonic()

    refused(shell("summarize", bomb))
    assert time.monotonic() - since < 5
    assert list(scratch.iterdir()) == []


def test_a_bomb_that_begins_well_stops_where_the_disk_would_be_full(
    tmp_path: Path, shell: Shell, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "run.sqlite.gz"
    whole = good(tmp_path / "run.sqlite").read_bytes()
    bomb.write_bytes(gzip.compress(whole) + gzip.compress(bytes(16 << 20), 9) * 500)
    room = shutil.disk_usage(scratch)._replace(free=(1 << 30) + (64 << 20))

    def usage(_: object) -> object:
        used = sum(f.stat().st_size for f in scratch.rglob("*") if f.is_file())
        return room._replace(free=room.free - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)

    refused(shell("summarize", bomb), "no room", "TMPDIR")
    assert list(scratch.iterdir()) == []


def test_a_full_folder_for_temporary_files_is_named(
    tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "run.sqlite.gz"
    packed.write_bytes(gzip.compress(good(tmp_path / "run.sqlite").read_bytes()))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))

    refused(shell("summarize", packed, "--no-cache"))


# --- Reports of Nsight Systems, which nsys alone can read -----------------------------------------


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Give what looks like a report."""
    path = tmp_path / "run.nsys-rep"
    path.write_bytes(b"NSYS report" * 100)
    return path


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Put an nsys on PATH; in the lines, $OUT is the file that it is to write."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "nsys"
    text = ["#!/bin/sh", 'while [ "$1" != "-o" ]; do shift; done', 'OUT="$2"', *lines]
    script.write_text("\n".join(text) + "\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_without_nsys_the_line_to_type_is_given(
    tmp_path: Path, shell: Shell, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    refused(shell("summarize", report), "nsys export --type sqlite run.nsys-rep")


def test_an_nsys_that_works_exports_the_report(
    tmp_path: Path, shell: Shell, report: Path, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    export = good(tmp_path / "run.sqlite")
    fake(tmp_path, monkeypatch, f'cp "{export}" "$OUT"')

    said = shell("summarize", report, "--format", "json", "--no-cache")

    assert said.status == 0
    assert said.json["source"]["path"] == str(report)
    assert said.json["tables"]["totals"][0]["kernels"] == 9


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (["echo 'Importer error status: the report is too new.' >&2", "exit 1"], "too new"),
        (["exit 0"], "cannot export"),
        (["kill -9 $$"], "cannot export"),
        (['head -c 5000 /dev/urandom > "$OUT"'], "nsys export"),
        (['echo half > "$OUT"', "echo 'ran out of memory'", "exit 3"], "ran out of memory"),
        (["head -c 3000000 /dev/zero | tr '\\0' x", "exit 1"], "cannot export"),
    ],
)
def test_an_nsys_that_fails_is_quoted(  # noqa: PLR0917
    tmp_path: Path,
    shell: Shell,
    report: Path,
    monkeypatch: pytest.MonkeyPatch,
    scratch: Path,
    lines: list[str],
    word: str,
) -> None:
    fake(tmp_path, monkeypatch, *lines)

    refused(shell("summarize", report), word)
    assert list(scratch.iterdir()) == []


def test_an_nsys_that_hangs_is_ended_with_all_its_children(
    tmp_path: Path, shell: Shell, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, f"sleep 300 & echo $! > {tmp_path}/child", "wait")
    monkeypatch.setattr(opening, "_EXPORT_SECONDS", 0.5)
    since = time.monotonic()

    refused(shell("summarize", report), "did not finish")

    assert time.monotonic() - since < 10
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    deadline = time.monotonic() + 5
    while child.exists() and ") Z " not in child.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert time.monotonic() < deadline

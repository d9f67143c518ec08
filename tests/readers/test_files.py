"""Files and folders: packed, odd of name, not writable, with journals; nothing is left beside."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import Shell, linked, table
from tests.build import Nsys, training_step
from tracelens.errors import UnreadableError
from tracelens.readers.open import open_trace
from tracelens.trace import store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.asking import Nobody


@pytest.fixture
def trace() -> Nsys:
    """Give a step of training."""
    made = Nsys()
    made.device(0, "NVIDIA H200")
    training_step(made)
    return made


def times(path: Path) -> dict[str | None, int]:
    return {row["phase"]: row["kernel_time_ns"] for row in table(linked(path), "phases")}


TRUE: Mapping[str | None, int] = {"forward": 750, "backward": 700, "optimizer": 260, None: 0}


def zstd(data: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd as library
    else:
        from backports import zstd as library
    packed: bytes = library.compress(data)
    return packed


@pytest.mark.parametrize(
    "name",
    [
        "what?.sqlite",
        "run#2.sqlite",
        "a b%20c.sqlite",
        "прогон-№1.sqlite",
        "run;x=1&mode=rw.sqlite",
        "no-suffix",
        "run.db.json",
        "[run]*.sqlite",
    ],
)
def test_any_name_will_do(tmp_path: Path, trace: Nsys, name: str) -> None:
    folder = tmp_path / "a ?#%25 folder"
    folder.mkdir()

    assert times(trace.write(folder / name)) == TRUE


def test_a_name_that_is_not_utf_8_will_do(tmp_path: Path, trace: Nsys) -> None:
    plain = trace.write(tmp_path / "run.sqlite")
    odd = tmp_path / os.fsdecode(b"caf\xe9.sqlite")
    try:
        plain.rename(odd)
    except OSError:
        pytest.skip("this file system wants names in UTF-8")

    assert times(odd) == TRUE


@pytest.mark.parametrize("name", ["run_pqtdir", "what?#[dir]*", "a b/день"])
@pytest.mark.parametrize("write", ["write_parquet", "write_arrow"])
def test_folders_of_any_name_will_do(tmp_path: Path, trace: Nsys, write: str, name: str) -> None:
    assert times(getattr(trace, write)(tmp_path / name)) == TRUE


@pytest.mark.parametrize("write", ["write_parquet", "write_arrow"])
def test_a_folder_gives_every_table_that_the_sqlite_file_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trace: Nsys, write: str
) -> None:
    main = trace.thread("python")
    main.push("gemm", 2_400, 2_500, domain="cuBLAS", registered=True)
    main.push("open", 2_450, None)
    main.push("request", 2_460, 2_600, kind="start_end")
    main.graph(graph_id=7, at=2_410, run=(2_500, 2_600))
    main.memset(bytes=10, at=2_420, run=(2_600, 2_601))
    training_step(trace, at=5_000)
    trace.diagnostic("Not all CUDA events might have been collected.")
    shell = Shell(capsys)

    def asked(path: Path) -> Any:
        document = shell("summarize", path, "--table", "all", "--format", "json", "--no-cache").json
        del document["source"]["path"], document["source"]["format"]
        return document

    folder = asked(getattr(trace, write)(tmp_path / "run_dir"))
    sqlite = asked(trace.write(tmp_path / "run.sqlite"))

    assert len(folder["tables"]) > 10
    assert folder == sqlite


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstd)])
def test_a_packed_file_is_read_as_if_it_were_not(
    tmp_path: Path, trace: Nsys, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    plain = trace.write(tmp_path / "run.sqlite")
    packed = tmp_path / f"run.sqlite{suffix}"
    packed.write_bytes(pack(plain.read_bytes()))
    plain.unlink()

    assert times(packed) == TRUE
    assert open_trace(packed, cache=False).source.path == packed
    assert [file.name for file in tmp_path.iterdir()] == [packed.name]


def test_a_packed_file_needs_no_suffix_to_be_known(tmp_path: Path, trace: Nsys) -> None:
    plain = trace.write(tmp_path / "run.sqlite")
    packed = tmp_path / "run"
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    assert times(packed) == TRUE


def test_memory_events_of_a_packed_file_are_still_there_when_asked_for(
    tmp_path: Path, trace: Nsys
) -> None:
    trace.memory_usage(5, 1024, 0x7F00)
    packed = tmp_path / "run.sqlite.gz"
    packed.write_bytes(gzip.compress(trace.write(tmp_path / "run.sqlite").read_bytes()))

    for _ in range(2):  # read, then from the cache
        assert open_trace(packed)["memory"].collect().height == 1
        store.flush()


def test_what_stands_in_the_write_ahead_log_counts(tmp_path: Path, trace: Nsys) -> None:
    path = trace.write(tmp_path / "run.sqlite", wal=True)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    assert set(before) == {"run.sqlite", "run.sqlite-wal"}
    assert times(path) == TRUE
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_folder_that_may_not_be_written_to_is_read(nobody: Nobody, trace: Nsys) -> None:
    folder, as_nobody = nobody
    paths = [trace.write(folder / f"run{wal}.sqlite", wal=wal) for wal in (False, True)]
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    assert times(paths[0]) == TRUE  # whatever is imported is imported by somebody with rights

    with as_nobody():
        assert times(paths[0]) == times(paths[1]) == TRUE


@pytest.mark.parametrize("wal", [False, True])
def test_nothing_is_written_beside_the_input(
    tmp_path: Path, trace: Nsys, capsys: pytest.CaptureFixture[str], *, wal: bool
) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    path = trace.write(folder / "run.sqlite", wal=wal)
    before = {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.iterdir()}
    shell = Shell(capsys)

    assert shell("summarize", path).status == 0
    assert shell("summarize", path, "--no-cache", "--table", "all").status == 0

    after = {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.iterdir()}
    assert after == before


def test_a_file_that_may_not_be_read_says_how_to_change_that(nobody: Nobody, trace: Nsys) -> None:
    folder, as_nobody = nobody
    path = trace.write(folder / "run.sqlite")
    assert times(path) == TRUE
    path.chmod(0)

    with as_nobody(), pytest.raises(UnreadableError, match="chmod u\\+r"):
        open_trace(path)


def test_a_missing_file_is_named_with_the_nearest_one(tmp_path: Path, trace: Nsys) -> None:
    trace.write(tmp_path / "run.sqlite")

    with pytest.raises(
        UnreadableError, match=r"no file .*runn\.sqlite.*Did you mean .*run\.sqlite"
    ):
        open_trace(tmp_path / "runn.sqlite")


def test_a_link_to_a_file_is_the_file(tmp_path: Path, trace: Nsys) -> None:
    link = tmp_path / "latest"
    link.symlink_to(trace.write(tmp_path / "run.sqlite"))

    assert times(link) == TRUE


def test_no_temporary_file_outlives_the_trace(
    tmp_path: Path, trace: Nsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc
    import tempfile

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    packed = tmp_path / "run.sqlite.gz"
    packed.write_bytes(gzip.compress(trace.write(tmp_path / "run.sqlite", wal=True).read_bytes()))

    for path in (tmp_path / "run.sqlite", packed):
        times(path)
        gc.collect()
        assert list(scratch.iterdir()) == []


def test_reading_leaves_no_warning_behind(tmp_path: Path, trace: Nsys) -> None:
    """Temporary folders are removed on purpose, not by the garbage collector with a complaint."""
    import subprocess

    path = trace.write(tmp_path / "run.sqlite")
    command = [sys.executable, "-X", "dev", "-m", "tracelens", "summarize", path, "--no-cache"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "ResourceWarning" not in done.stderr


def test_progress_is_told_table_by_table(tmp_path: Path, trace: Nsys) -> None:
    told: list[tuple[str, int, int]] = []
    path = trace.write(tmp_path / "run.sqlite")

    open_trace(path, cache=False, progress=lambda *what: told.append(what))

    assert ("CUPTI_ACTIVITY_KIND_KERNEL", 1, 1) in told
    assert all(0 < done <= total for _, done, total in told)


def test_large_tables_are_read_in_pieces_and_come_out_whole(
    tmp_path: Path, trace: Nsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows a piece, and more pieces than stay in memory: the same trace."""
    from tracelens.readers.nsys import gather, sqlite

    path = trace.write(tmp_path / "run.sqlite", shuffle=5)
    names = ("totals", "phases", "families", "kernels", "ranges", "api", "copies", "gaps")
    whole = [table(linked(path), name) for name in names]
    monkeypatch.setattr(sqlite, "PIECE_ROWS", 2)
    monkeypatch.setattr(gather, "SPILL_PARTS", 2)

    assert [table(linked(path), name) for name in names] == whole


def test_scattered_row_ids_are_read_all_the_same(tmp_path: Path, trace: Nsys) -> None:
    import sqlite3
    from contextlib import closing

    path = trace.write(tmp_path / "run.sqlite")
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET rowid = rowid * 1000000000 - 5000000000")

    assert times(path) == TRUE


def test_an_export_can_be_opened_from_many_threads(tmp_path: Path, trace: Nsys) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path = trace.write(tmp_path / "run.sqlite")
    copies = [shutil.copy(path, tmp_path / f"{number}.sqlite") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(times, copies))

    assert found == [TRUE] * 4

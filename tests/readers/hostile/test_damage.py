"""Damaged exports: what can be read is shown, what cannot is said, and nothing runs for ever."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import struct
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.asking import Said, Shell, column, linked, the_row
from tests.build import Nsys, training_step
from tests.readers.hostile import fuzz
from tracelens.errors import TracelensError
from tracelens.readers.nsys import sqlite
from tracelens.readers.open import open_trace
from tracelens.trace import store

if TYPE_CHECKING:
    from pathlib import Path

KERNELS = "CUPTI_ACTIVITY_KIND_KERNEL"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell to run commands in."""
    return Shell(capsys)


@pytest.fixture
def long_run(tmp_path: Path) -> Path:
    """Give an export of some hundred pages: 2,000 kernels of 10 ns."""
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 100_000)
    for number in range(2_000):
        at = 20 * number
        main.kernel("gemm", at=at, run=(at + 2, at + 12))
    return trace.write(tmp_path / "whole.sqlite")


def understood(said: Said) -> None:
    """Assert that a command ended as it should, whatever it was given."""
    assert said.status in (0, 3, 4), said.err
    if said.status:
        assert said.out == ""
        assert 1 <= len(said.err.strip().splitlines()) <= 2


def test_an_export_cut_off_at_any_page_shows_what_is_left(
    tmp_path: Path, long_run: Path, shell: Shell
) -> None:
    data = long_run.read_bytes()
    page = int.from_bytes(data[16:18], "big")
    shown = []
    for end in range(0, len(data), page * 3):
        path = tmp_path / f"cut{end}.sqlite"
        path.write_bytes(data[:end])
        said = shell("summarize", path, "--format", "json", "--no-cache")
        understood(said)
        if said.status == 0:
            shown.append(said.json["tables"]["totals"][0]["kernels"])
            assert any("cut off" in warning for warning in said.json["warnings"])

    assert shown == sorted(shown)
    assert len(set(shown)) > 5
    assert shown[-1] > 1_900


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.8, 0.999])
@pytest.mark.parametrize(
    "name", ["gpt2-xl-ctx256-a100-fwd-bwd", "trixi-v100-2023", "mordred-rtx6000-2021"]
)
def test_a_recording_cut_off_anywhere_shows_what_is_left(
    tmp_path: Path, corpus: Path, shell: Shell, name: str, share: float
) -> None:
    data = (corpus / "nsys" / f"{name}.sqlite").read_bytes()
    path = tmp_path / "cut.sqlite"
    path.write_bytes(data[: int(len(data) * share)])

    said = shell("summarize", path, "--format", "json", "--no-cache")

    understood(said)
    if share > 0.9:
        assert said.status == 0
        assert any("cut off" in warning for warning in said.json["warnings"])


def test_around_a_damaged_page_everything_else_is_read(
    tmp_path: Path, long_run: Path, shell: Shell
) -> None:
    data = bytearray(long_run.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    with closing(sqlite3.connect(long_run)) as db:
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (KERNELS,)
        ).fetchone()
    first_cell = int.from_bytes(data[(root - 1) * page + 12 :][:2], "big")
    (leaf,) = struct.unpack_from(">I", data, (root - 1) * page + first_cell)
    data[(leaf - 1) * page : leaf * page] = b"\xff" * page
    path = tmp_path / "holed.sqlite"
    path.write_bytes(data)

    said = shell("summarize", path, "--format", "json", "--no-cache")

    assert said.status == 0
    assert 1_400 < said.json["tables"]["totals"][0]["kernels"] < 2_000
    assert any(KERNELS in w and "damaged" in w for w in said.json["warnings"])


def test_a_tree_that_holds_one_page_many_times_is_not_read_for_ever(
    tmp_path: Path, long_run: Path, shell: Shell
) -> None:
    """Every child of the root is the first one: rows would come again and again."""
    data = bytearray(long_run.read_bytes())
    page = int.from_bytes(data[16:18], "big")
    with closing(sqlite3.connect(long_run)) as db:
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (KERNELS,)
        ).fetchone()
    at = (root - 1) * page
    cells = int.from_bytes(data[at + 3 : at + 5], "big")
    for number in range(cells):
        (cell,) = struct.unpack_from(">H", data, at + 12 + 2 * number)
        if number == 0:
            (leaf,) = struct.unpack_from(">I", data, at + cell)
        struct.pack_into(">I", data, at + cell, leaf)
    struct.pack_into(">I", data, at + 8, leaf)
    path = tmp_path / "bomb.sqlite"
    path.write_bytes(data)

    said = shell("summarize", path, "--format", "json", "--no-cache")

    understood(said)
    if said.status == 0:
        assert said.json["warnings"]


def test_a_table_without_row_ids_is_read_whole(tmp_path: Path, shell: Shell) -> None:
    path = _step(tmp_path)
    with closing(sqlite3.connect(path)) as db, db:
        columns = [c for (c,) in db.execute(f"SELECT name FROM pragma_table_info('{KERNELS}')")]
        db.execute(f"ALTER TABLE {KERNELS} RENAME TO old")
        db.execute(
            f"CREATE TABLE {KERNELS} ({', '.join(columns)}, PRIMARY KEY (start, correlationId))"
            " WITHOUT ROWID"
        )
        db.execute(f"INSERT INTO {KERNELS} SELECT * FROM old")
        db.execute("DROP TABLE old")

    assert shell("summarize", path, "-f", "json").json["tables"]["totals"][0]["kernels"] == 9


def test_a_column_named_rowid_is_no_row_id(tmp_path: Path) -> None:
    path = _step(tmp_path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"ALTER TABLE {KERNELS} ADD COLUMN RowId TEXT")
        db.execute(f"UPDATE {KERNELS} SET RowId = 'x' WHERE start % 3")

    assert the_row(linked(path), "totals")["kernels"] == 9


@pytest.mark.parametrize("step", [2**58, 10**12, 300_000])
def test_scattered_row_ids_make_no_million_pieces(tmp_path: Path, step: int) -> None:
    path = _step(tmp_path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE {KERNELS} SET rowid = -rowid * {step}")

    assert len(sqlite.SqliteStorage(path).pieces(KERNELS, ["start"])) == 1
    assert the_row(linked(path), "totals")["kernels"] == 9


@pytest.mark.parametrize("honest", [True, False])
def test_a_view_in_place_of_a_table_is_not_run(
    tmp_path: Path, shell: Shell, *, honest: bool
) -> None:
    """It may compute without end. A dishonest file calls its view a table."""
    path = _step(tmp_path)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    view = f"CREATE VIEW {KERNELS} AS {endless} SELECT i AS start, i AS end FROM n"
    with closing(sqlite3.connect(path)) as db, db:
        if honest:
            db.execute(f"DROP TABLE {KERNELS}")
            db.execute(view)
        else:
            db.execute("PRAGMA writable_schema = ON")
            db.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (view, KERNELS))

    said = shell("summarize", path, "--format", "json", "--no-cache")

    understood(said)
    if said.status == 0:
        assert said.json["tables"]["totals"][0]["kernels"] == 0


def test_a_journal_may_not_have_sqlite_delete_another_file(tmp_path: Path) -> None:
    """A hot journal names a super-journal, which SQLite removes when it has been played back."""
    path = _step(tmp_path)
    victim = tmp_path / "precious.txt"
    victim.write_text("do not delete\0")
    name = str(victim).encode()
    page = path.read_bytes()[16:18]
    header = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + struct.pack(
        ">IIIII", 0, 1, 5, 512, int.from_bytes(page, "big")
    )
    total = sum(byte if byte < 128 else byte - 256 for byte in name)
    tail = struct.pack(">I", 2**30 // int.from_bytes(page, "big") + 1) + name
    tail += struct.pack(">II", len(name), total & 0xFFFFFFFF) + header[:8]
    path.with_name("run.sqlite-journal").write_bytes(header.ljust(512, b"\0") + tail)

    assert the_row(linked(path), "totals")["kernels"] == 9
    assert victim.exists()


def test_a_log_that_cannot_be_read_is_said(tmp_path: Path, shell: Shell) -> None:
    trace = Nsys()
    training_step(trace)
    path = trace.write(tmp_path / "run.sqlite", wal=True)
    log = tmp_path / "run.sqlite-wal"
    data = bytearray(log.read_bytes())
    for cut in (0, 1, 31, 32, 200, len(data) // 2, len(data) - 1):
        log.write_bytes(data[:cut])
        understood(shell("summarize", path, "--no-cache", "--format", "json"))


def test_a_log_for_whose_copy_there_is_no_room_is_said(
    tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Nsys()
    training_step(trace)
    path = trace.write(tmp_path / "run.sqlite", wal=True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    said = shell("summarize", path, "--no-cache", "--format", "json")

    assert said.status == 0
    assert any("run.sqlite-wal" in w and "No space" in w for w in said.json["warnings"])


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_a_packed_file_cut_off_shows_what_was_unpacked(
    tmp_path: Path, long_run: Path, shell: Shell, share: float
) -> None:
    data = gzip.compress(long_run.read_bytes())
    path = tmp_path / "run.sqlite.gz"
    path.write_bytes(data[: int(len(data) * share)])

    said = shell("summarize", path, "--format", "json", "--no-cache")

    understood(said)
    if share > 0.5:
        assert said.status == 0
        assert any("in part only" in warning for warning in said.json["warnings"])


def test_a_packed_file_whose_checksum_is_wrong_says_so(
    tmp_path: Path, long_run: Path, shell: Shell
) -> None:
    data = bytearray(gzip.compress(long_run.read_bytes()))
    data[-8] ^= 0xFF
    path = tmp_path / "run.sqlite.gz"
    path.write_bytes(data)

    said = shell("summarize", path, "--format", "json", "--no-cache")

    assert said.status == 0
    assert any("in part only" in warning for warning in said.json["warnings"])


def test_a_packed_file_of_several_members_is_one_file(tmp_path: Path, long_run: Path) -> None:
    data = long_run.read_bytes()
    path = tmp_path / "run.sqlite.gz"
    path.write_bytes(
        b"".join(gzip.compress(data[i : i + 9_999]) for i in range(0, len(data), 9_999))
    )

    assert the_row(linked(path), "totals")["kernels"] == 2_000


# --- The cache ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["a file", "no parent", "device"])
def test_a_cache_folder_that_cannot_be_one_changes_nothing(
    tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    place = {"a file": tmp_path / "file", "no parent": tmp_path / "file" / "x"}
    monkeypatch.setenv("TRACELENS_CACHE_DIR", str(place.get(cache, "/dev/null")))

    for _ in range(2):
        assert shell("summarize", _step(tmp_path)).status == 0


@pytest.mark.parametrize("table", ["gpu_ops", "api", "ranges", "names", "launches"])
def test_an_entry_of_other_columns_is_not_used(tmp_path: Path, shell: Shell, table: str) -> None:
    import polars as pl

    path = _step(tmp_path)
    first = shell("summarize", path, "--format", "json")
    (entry,) = store.folder().iterdir()
    for frame in (
        pl.DataFrame({"start_ns": ["text"], "other": [1.5]}),
        pl.DataFrame(),
        pl.read_parquet(entry / f"{table}.parquet").select(pl.all().cast(pl.String)),
    ):
        frame.write_parquet(entry / f"{table}.parquet")
        again = shell("summarize", path, "--format", "json")

        assert (again.status, again.out) == (first.status, first.out)


def test_a_cache_full_of_garbage_changes_nothing(tmp_path: Path, shell: Shell) -> None:
    path = _step(tmp_path)
    first = shell("summarize", path, "--format", "json").out
    (entry,) = store.folder().iterdir()
    for manifest in ("", "null", "[]", "{}", '{"tables": ["../../etc"]}', "\0", '{"tables": 1}'):
        (entry / "trace.json").write_text(manifest)
        (store.folder() / f"writing-{len(manifest)}").write_text("junk")

        assert shell("summarize", path, "--format", "json").out == first


# --- Folders of Parquet and Arrow files -----------------------------------------------------------


@pytest.mark.parametrize("write", ["write_parquet", "write_arrow"])
@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "gone"])
def test_a_damaged_file_costs_its_own_table_only(
    tmp_path: Path, shell: Shell, write: str, damage: str
) -> None:
    trace = Nsys()
    training_step(trace)
    for number, table in enumerate(("NVTX_EVENTS", "CUPTI_ACTIVITY_KIND_RUNTIME", "StringIds")):
        folder = getattr(trace, write)(tmp_path / f"run{number}")
        (file,) = folder.glob(f"{table}.*")
        data = file.read_bytes()
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes({"cut": data[: len(data) // 2], "empty": b""}.get(damage, b"x" * 500))

        said = shell("summarize", folder, "--format", "json", "--no-cache")

        assert said.status == 0
        assert said.json["tables"]["totals"][0]["kernels"] == 9
        assert said.json["tables"]["totals"][0]["kernel_time_ns"] == 1_710
        assert damage == "gone" or any(table in w for w in said.json["warnings"])


@pytest.mark.parametrize("other", ["text", "struct", "list", "null", "float"])
def test_a_column_of_another_type_costs_itself_only(
    tmp_path: Path, shell: Shell, other: str
) -> None:
    import polars as pl

    values = {
        "text": pl.lit("x"), "struct": pl.struct(a=1), "list": pl.concat_list(pl.lit(1)),
        "null": pl.lit(None), "float": pl.lit(1.5),
    }  # fmt: skip
    trace = Nsys()
    training_step(trace)
    folder = trace.write_parquet(tmp_path / "run")
    for table in (
        KERNELS,
        "StringIds",
        "NVTX_EVENTS",
        "ThreadNames",
        "CUPTI_ACTIVITY_KIND_RUNTIME",
    ):
        file = folder / f"{table}.parquet"
        whole = pl.read_parquet(file)
        for name in whole.columns:
            whole.with_columns(values[other].alias(name)).write_parquet(file)
            understood(shell("summarize", folder, "--format", "json", "--no-cache"))
        whole.write_parquet(file)


@pytest.mark.parametrize("names", [[], ["data.parquet"], ["StringIds.parquet"]])
def test_a_folder_of_other_peoples_parquet_is_refused(
    tmp_path: Path, shell: Shell, names: list[str]
) -> None:
    import polars as pl

    folder = tmp_path / "data"
    folder.mkdir()
    for name in names:
        pl.DataFrame({"id": [1, 2], "price": [1.5, 2.5]}).write_parquet(folder / name)

    said = shell("summarize", folder)

    assert said.status in (3, 4)
    assert len(said.err.strip().splitlines()) <= 2


# --- Everything else ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_few_of_the_fuzzers_cases(tmp_path: Path, kind: str) -> None:
    """The long run is `python -m tests.readers.hostile.fuzz --cases 10000`."""
    import random

    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = fuzz.KINDS[kind][0](random.Random(f"{kind} {number}"), folder)  # noqa: S311

        assert fuzz.judged(path, kind, every=number == 0).complaints == []


def test_errors_are_ours_alone(tmp_path: Path) -> None:
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, path = fuzz.made(7, number, folder)
        try:
            trace = open_trace(path, cache=False)
        except TracelensError:
            continue
        column(linked(path), "phases", "phase", "kernels")
        assert trace["names"].collect()["name_id"].is_unique().all()


def _step(folder: Path) -> Path:
    trace = Nsys()
    training_step(trace)
    return trace.write(folder / "run.sqlite")

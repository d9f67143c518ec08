"""The cache: a second look is the same as the first, and never a stale or broken one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.asking import table
from tests.build import Nsys, training_step
from tracelens.links.linked import link
from tracelens.readers import open as opening
from tracelens.readers.open import open_trace as opened_meanwhile
from tracelens.trace import schema, store

if TYPE_CHECKING:
    from tracelens.trace.model import Trace

TABLES = ("totals", "phases", "families", "kernels", "api", "gaps", "streams", "devices")


def open_trace(path: Path, *, cache: bool = True, everything: bool = False) -> Trace:
    """Open a recording, and wait until the cache is written."""
    trace = opened_meanwhile(path, cache=cache, everything=everything)
    store.flush()
    return trace


@pytest.fixture
def cache() -> Path:
    """Give the cache folder of this test."""
    return Path(os.environ["TRACELENS_CACHE_DIR"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give an export with a bit of everything."""
    trace = Nsys("3.20.3")
    trace.device(0, "NVIDIA H200")
    training_step(trace, at=training_step(trace).end_ns)
    trace.thread("python").push("open", 4_000, None)
    trace.memory_usage(5, 1024, 0x7F00)
    trace.gpu_metric("SMs Active", 10, 40)
    trace.diagnostic("Not all CUDA events might have been collected.")
    trace.capture_option("COMMAND", "python")
    return trace.write(tmp_path / "run.sqlite")


def everything(trace: Trace) -> object:
    of = link(trace)
    found = (trace.source, trace.caveats, *(table(of, name) for name in TABLES))
    store.flush()
    return found


def test_a_second_look_equals_the_first(path: Path) -> None:
    uncached, first = everything(open_trace(path, cache=False)), everything(open_trace(path))

    for _ in range(2):
        assert everything(open_trace(path)) == first == uncached


def test_a_second_look_does_not_read_the_recording(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = everything(open_trace(path))
    monkeypatch.setattr(opening, "_recognised", lambda _: pytest.fail("it was read again"))

    assert everything(open_trace(path)) == first


def test_what_is_read_on_request_is_there_on_a_second_look(path: Path) -> None:
    for _ in range(2):
        trace = open_trace(path)
        assert trace["memory"].collect()["size_bytes"].to_list() == [1024]
        assert trace["counters"].collect()["value"].to_list() == [40.0]


def test_a_changed_file_is_read_again(tmp_path: Path, path: Path) -> None:
    before = everything(open_trace(path))
    trace = Nsys()
    trace.thread("python").kernel("other", at=0, run=(1, 2))
    trace.write(path)

    assert everything(open_trace(path)) != before
    assert table(link(open_trace(path)), "kernels")[0]["name"] == "other"


def test_a_file_of_the_same_size_and_other_content_is_read_again(tmp_path: Path) -> None:
    for took in (10, 20):
        trace = Nsys()
        trace.thread("python").kernel("k", at=0, run=(100, 100 + took))
        path = trace.write(tmp_path / "run.sqlite")
        os.utime(path, ns=(10**18, 10**18))

        assert table(link(open_trace(path)), "totals")[0]["kernel_time_ns"] == took


def test_a_write_ahead_log_that_grew_is_read_again(tmp_path: Path, path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    one = trace.write(tmp_path / "wal.sqlite", wal=True)
    half = Path(f"{one}-wal").read_bytes()
    Path(f"{one}-wal").unlink()
    without = table(link(open_trace(one)), "totals")[0]["kernels"]
    Path(f"{one}-wal").write_bytes(half)

    assert without == 4
    assert table(link(open_trace(one)), "totals")[0]["kernels"] == 9


def test_a_folder_whose_file_changed_is_read_again(tmp_path: Path) -> None:
    import shutil

    for took in (10, 20):
        trace = Nsys()
        trace.thread("python").kernel("k", at=0, run=(100, 100 + took))
        shutil.rmtree(tmp_path / "run_pqtdir", ignore_errors=True)
        folder = trace.write_parquet(tmp_path / "run_pqtdir")

        assert table(link(open_trace(folder)), "totals")[0]["kernel_time_ns"] == took


@pytest.mark.parametrize(
    "damage", ["truncated", "garbage", "holed", "gone", "manifest", "not json"]
)
def test_a_broken_entry_is_not_used(path: Path, cache: Path, damage: str) -> None:
    first = everything(open_trace(path))
    (entry,) = cache.iterdir()
    ops = entry / "gpu_ops.parquet"
    if damage == "truncated":
        ops.write_bytes(ops.read_bytes()[:-20])
    elif damage == "garbage":
        ops.write_bytes(b"x" * 1000)
    elif damage == "holed":
        whole = bytearray(ops.read_bytes())
        whole[8:60] = b"\xa5" * 52
        ops.write_bytes(whole)
    elif damage == "gone":
        ops.unlink()
    elif damage == "manifest":
        (entry / "trace.json").write_text("{}")
    else:
        (entry / "trace.json").write_bytes(b"\xff{")

    assert everything(open_trace(path)) == first


def test_a_broken_entry_is_replaced(
    path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = everything(open_trace(path))
    (entry,) = cache.iterdir()
    (entry / "trace.json").write_text("{}")
    everything(open_trace(path))
    monkeypatch.setattr(opening, "_recognised", lambda _: pytest.fail("it was read again"))

    assert everything(open_trace(path)) == first


def test_without_cache_nothing_is_written_to_it(path: Path, cache: Path) -> None:
    everything(open_trace(path, cache=False))
    open_trace(path, everything=True)

    assert list(cache.iterdir()) == []


def test_two_copies_of_a_file_each_say_their_own_path(tmp_path: Path, path: Path) -> None:
    import shutil

    other = Path(shutil.copy2(path, tmp_path / "copy.sqlite"))

    assert open_trace(path).source.path == path
    assert open_trace(other).source.path == other
    assert open_trace(path).source.path == path


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    monkeypatch.setenv("TRACELENS_CACHE_DIR", str(in_the_way))

    assert everything(open_trace(path)) == everything(open_trace(path, cache=False))


def test_the_entry_used_longest_ago_goes_first(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Nsys()
    training_step(trace)
    paths = [trace.write(tmp_path / f"{number}.sqlite") for number in range(3)]
    for age, each in zip((30, 20), paths, strict=False):
        open_trace(each)
        newest = max(cache.iterdir(), key=lambda entry: entry.stat().st_mtime)
        os.utime(newest, (1e9 - age, 1e9 - age))
    size = sum(file.stat().st_size for file in cache.glob("*/*")) // 2
    oldest = min(cache.iterdir(), key=lambda entry: entry.stat().st_mtime)
    monkeypatch.setenv("TRACELENS_CACHE_LIMIT_BYTES", str(int(2.5 * size)))

    open_trace(paths[2])

    assert not oldest.exists()
    assert len(list(cache.iterdir())) == 2


def test_two_processes_may_read_one_file_at_once(path: Path, cache: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: everything(open_trace(path)), range(4)))

    assert found == [everything(open_trace(path, cache=False))] * 4
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("limit", ["", "lots"])
def test_a_limit_that_is_no_number_breaks_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("TRACELENS_CACHE_LIMIT_BYTES", limit)

    assert open_trace(path)["gpu_ops"].collect().height == 20


def test_what_is_kept_beside_the_trace_may_be_broken_too(path: Path, cache: Path) -> None:
    first = everything(open_trace(path))
    (entry,) = cache.iterdir()
    for file in entry.iterdir():
        if file.name not in ("trace.json", *(f"{name}.parquet" for name in schema.TABLES)):
            file.write_bytes(b"PAR1 nothing")

    assert everything(open_trace(path)) == first


def test_the_cache_is_written_to_the_folder_of_the_moment(
    tmp_path: Path, path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing goes on in the background; the folder is the one that was set when it began."""
    import threading

    released = threading.Event()
    store._writer().submit(released.wait)
    opened_meanwhile(path)
    monkeypatch.setenv("TRACELENS_CACHE_DIR", str(tmp_path / "another"))
    released.set()
    store.flush()

    assert len(list(cache.iterdir())) == 1
    assert not (tmp_path / "another").exists()

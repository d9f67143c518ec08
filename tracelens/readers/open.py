"""Opening a recording: recognised by content, unpacked if packed, from the cache if known."""

from __future__ import annotations

import functools
import gzip
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final

from tracelens import registry
from tracelens.errors import UnreadableError
from tracelens.readers import Progress, no_progress
from tracelens.trace.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import polars as pl

    from tracelens.readers import Reader
    from tracelens.trace.model import Trace

_HEAD_BYTES: Final = 4096
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZIP: Final = b"PK\x03\x04"
_PACKED: Final = (".gz", ".zst", ".zip")
_REPORT_SUFFIXES: Final = (".nsys-rep", ".qdrep")
_SPACE_KEPT_BYTES: Final = 1 << 30
_COPY_BYTES: Final = 16 << 20
_EXPORT_SECONDS: Final = 600


def open_trace(
    path: Path,
    *,
    everything: bool = False,
    cache: bool = True,
    progress: Progress = no_progress,
) -> Trace:
    """Read a recording of any known format.

    Args:
        path: a file (plain, .gz, .zst or alone in a .zip) or the folder of a columnar export.
        everything: read the columns that are read on request, too; such a trace is not cached.
        cache: take the trace from the cache folder if it is there, and leave it there.
        progress: called with (what, parts done, parts in all) while reading.

    Raises:
        UnreadableError: there is nothing at the path, it may not be read, or it is damaged or
            in no known format. The message says what to do.
    """
    from tracelens.trace import store
    from tracelens.trace.model import Caveat

    _check_kind(path)
    cache = cache and not everything
    key = store.key(path) if cache else None
    if key and (known := store.load(key, path)):
        trace, on_request = known
        tables = {**trace.tables, **_deferred(path, on_request)}
        return replace(trace, tables=tables, on_request=tuple(on_request))
    try:
        reader, content, kept = _recognised(path)
        trace = reader.read(content, everything=everything, progress=progress)
    except OSError as error:
        # It vanished while it was read, or there is no room for temporary files.
        raise UnreadableError(f"{path.name} cannot be read: {error}.") from error
    trace = replace(
        trace,
        source=replace(trace.source, path=path),
        resources=(*trace.resources, kept),
    )
    if isinstance(kept, _Unpacked) and kept.broken:
        trace = trace.with_caveats(Caveat("damaged", kept.broken))
    return store.save(key, trace) if key else trace


def _deferred(path: Path, tables: Iterable[str]) -> dict[str, pl.LazyFrame]:
    """Return tables that are read out of the recording when they are collected."""
    import polars as pl

    from tracelens.trace.schema import TABLES

    def read(table: str) -> pl.DataFrame:
        reader, content, kept = _recognised(path)
        _ = kept
        frame = reader.on_request(content).get(table)
        return (reader.read(content)[table] if frame is None else frame).collect()

    return {
        name: pl.defer(functools.partial(read, name), schema=dict(TABLES[name].schema()))
        for name in tables
    }


def is_recording(path: Path) -> bool:
    """Tell whether a file or folder looks like something that `open_trace` can read."""
    try:
        _check_kind(path)
        head = b"" if path.is_dir() else _head(path)
    except (UnreadableError, OSError):
        return False
    if path.is_file() and (_is_report(path, head) or head.startswith((_GZIP, _ZSTD, _ZIP))):
        return _is_report(path, head) or path.suffix in _PACKED
    readers = [registry.load("reader", name) for name in registry.names("reader")]
    with suppress(OSError):
        return any((reader.likely or reader.recognises)(path, head) for reader in readers)
    return False


@contextmanager
def unpacking(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open a file to look at what is in it, unpacked on the way if it is packed."""
    head = _head(path)
    opener = _opener(head) if head.startswith((_GZIP, _ZSTD, _ZIP)) else Path.open
    with opener(path, "rb") as file:
        yield file


def _check_kind(path: Path) -> None:
    """Refuse pipes and devices: reading one may never end."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UnreadableError(f"{path} is no file. Save what it holds to a file, and name that.")


def _recognised(path: Path) -> tuple[Reader, Path, object]:
    """Return the format's reader, the file to read and what keeps that file alive."""
    if path.is_dir():
        return _reader_of(path, path, b"", None)
    head = _head(path)
    if _is_report(path, head):
        exported, kept = _exported(path)
        return _reader_of(path, exported, _head(exported), kept)
    if head.startswith((_GZIP, _ZSTD, _ZIP)):
        unpacked, kept = _unpacked(path, head)
        return _reader_of(path, unpacked, _head(unpacked), kept)
    return _reader_of(path, path, head, None)


def _reader_of(path: Path, content: Path, head: bytes, kept: object) -> tuple[Reader, Path, object]:
    for name in registry.names("reader"):
        reader: Reader = registry.load("reader", name)
        if reader.recognises(content, head):
            return reader, content, kept
    raise UnreadableError(_unknown(path, head))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise UnreadableError(f"There is no file {path}. {_near(path)}".strip()) from None
    except PermissionError:
        raise UnreadableError(
            f"{path} may not be read. Give yourself permission: chmod u+r {path.name}"
        ) from None
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}.") from error


def _near(path: Path) -> str:
    from difflib import get_close_matches

    if not path.parent.is_dir():
        return f"There is no folder {path.parent}, either."
    near = get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
    return f"Did you mean {path.with_name(near[0])}?" if near else ""


def _unknown(path: Path, head: bytes) -> str:
    name = path.name
    if path.is_dir():
        return (
            f"{name} is a folder without recordings. Name a file, an nsys Parquet or Arrow "
            "export, or a folder made by tracelens export --to parquet."
        )
    if not head:
        return f"{name} is empty. Record or export it again."
    return (
        f"{name} is in no format that tracelens knows: it reads Nsight Systems exports "
        "(nsys export --type sqlite FILE.nsys-rep), torch.profiler's JSON "
        "(prof.export_chrome_trace), memory snapshots (torch.cuda.memory._dump_snapshot) and "
        "Nsight Compute's tables (ncu --import FILE.ncu-rep --page raw --csv)."
    )


def _is_report(path: Path, head: bytes) -> bool:
    return path.suffix in _REPORT_SUFFIXES and not head.startswith(b"SQLite format 3")


def _exported(path: Path) -> tuple[Path, object]:
    """Let the nsys on this machine export a report; raises UnreadableError with its words."""
    command = f"nsys export --type sqlite {path.name}"
    nsys = shutil.which("nsys")
    if nsys is None:
        raise UnreadableError(
            f"{path.name} is an Nsight Systems report, which only nsys itself can read, and nsys "
            f"is not on PATH. Where it is, type: {command}"
        )
    folder = Scratch()
    out = folder.path / "export.sqlite"
    arguments = [nsys, "export", "--type", "sqlite", "--force-overwrite", "true", "-o", str(out)]
    said = _said([*arguments, str(path.absolute())], folder.path / "log")
    if said or not out.is_file() or not out.stat().st_size:
        reason = next((line for line in reversed(said) if line.strip()), "no reason given.")
        raise UnreadableError(
            f"{path.name} is an Nsight Systems report, and this machine's nsys cannot export it: "
            f"{reason.strip()[:200]} Where it was recorded, type: {command}"
        )
    return out, folder


def _said(command: Sequence[str], log: Path) -> list[str]:
    """Run a command and return what it said, in lines, if it failed; nothing if it did not.

    It writes to a file, not to a pipe, and is ended with all that it started: nsys is a script
    around others, which would keep a pipe open.
    """
    try:
        with (
            log.open("wb") as output,
            subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            ) as process,
        ):
            try:
                status = process.wait(_EXPORT_SECONDS)
            except BaseException:
                _end(process)
                raise
    except OSError as error:
        return [f"{error}."]
    except subprocess.TimeoutExpired:
        return [f"it did not finish within {_EXPORT_SECONDS} s."]
    if not status:
        return []
    with log.open("rb") as written:
        written.seek(max(0, log.stat().st_size - _HEAD_BYTES))
        said = written.read().decode("utf-8", "replace").splitlines()
    return [f"it ended with status {status}.", *said]


def _end(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


@dataclass
class _Unpacked:
    """The folder of an unpacked file, and what was wrong with the packed one."""

    folder: Scratch
    broken: str = ""


def _unpacked(path: Path, head: bytes) -> tuple[Path, object]:
    """Stream a packed file to a temporary one; what was unpacked before an error is used."""
    kept = _Unpacked(Scratch())
    out = kept.folder.path / path.stem  # messages name it
    opener = _opener(head)
    with out.open("wb") as plain:
        try:
            with opener(path, "rb") as packed:
                _copy(packed, plain, path)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, _zstd_error()) as error:
            if not plain.tell():
                raise UnreadableError(f"{path.name} cannot be unpacked: {error}.") from error
            kept.broken = (
                f"{path.name} could be unpacked in part only ({error}). "
                "What follows covers what could be read."
            )
    return out, kept


def _copy(packed: IO[bytes] | gzip.GzipFile, plain: IO[bytes], path: Path) -> None:
    # Not read(): what it has unpacked before an error would be lost.
    read = getattr(packed, "read1", packed.read)
    while block := read(_COPY_BYTES):
        if not plain.tell():
            _reader_of(path, Path(plain.name), block[:_HEAD_BYTES], None)
        if shutil.disk_usage(plain.name).free < _SPACE_KEPT_BYTES + len(block):
            raise UnreadableError(
                f"There is no room to unpack {path.name} in {tempfile.gettempdir()}. "
                "Set TMPDIR to a folder on a larger disk."
            )
        try:
            plain.write(block)
        except OSError as error:
            raise UnreadableError(
                f"{path.name} cannot be unpacked in {tempfile.gettempdir()}: {error}. "
                "Set TMPDIR to a folder on a larger disk."
            ) from error


def _opener(head: bytes) -> Callable[[Path, str], AbstractContextManager[IO[bytes]]]:
    if head.startswith(_GZIP):
        return gzip.open  # type: ignore[return-value]
    return _from_archive if head.startswith(_ZIP) else _zstd_opener()


@contextmanager
def _from_archive(path: Path, _mode: str) -> Iterator[IO[bytes]]:
    """Open the one file in an archive."""
    with zipfile.ZipFile(path) as archive:
        inside = [entry for entry in archive.infolist() if not entry.is_dir()]
        if any(PurePosixPath(entry.filename).name == "data.pkl" for entry in inside):
            raise UnreadableError(
                f"{path.name} is a checkpoint of a PyTorch model, not a recording. For memory, "
                "record and dump a snapshot: torch.cuda.memory._record_memory_history()"
            )
        if len(inside) != 1:
            raise UnreadableError(
                f"{path.name} holds {len(inside)} files. Unpack it, and name one of them or the "
                "folder."
            )
        if inside[0].flag_bits & 1:
            raise UnreadableError(f"{path.name} is encrypted: unpack it, and name what it holds.")
        with archive.open(inside[0]) as packed:
            yield packed


def _zstd_opener() -> Callable[[Path, str], IO[bytes]]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.open  # type: ignore[return-value]


def _zstd_error() -> type[Exception]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdError

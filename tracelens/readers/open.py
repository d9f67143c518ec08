"""Opening a recording: recognised by content, unpacked if packed, from the cache if known."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from tracelens import registry
from tracelens.errors import UnreadableError
from tracelens.readers import Progress, no_progress
from tracelens.trace.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracelens.readers import Reader
    from tracelens.trace.model import Trace

_HEAD_BYTES: Final = 4096
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PACKED: Final = (".gz", ".zst")
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
        path: a file (plain, .gz or .zst) or the folder of a columnar export.
        everything: read the columns that are read on request, too; such a trace is not cached.
        cache: take the trace from the cache folder if it is there, and leave it there.
        progress: called with (what, parts done, parts in all) while reading.

    Raises:
        UnreadableError: there is nothing at the path, it may not be read, or it is damaged or
            in no known format. The message says what to do.
    """
    from tracelens.trace import store

    cache = cache and not everything
    key = store.key(path) if cache and path.exists() else None
    if key and (known := store.load(key, path)):
        trace, reader = known
        tables = registry.load("reader", reader).on_request(path) if reader else {}
        return replace(trace, tables={**trace.tables, **tables})
    name, reader, content, kept = _recognised(path)
    trace = reader.read(content, everything=everything, progress=progress)
    trace = replace(
        trace,
        source=replace(trace.source, path=path),
        resources=(*trace.resources, kept),
    )
    return store.save(key, trace, name if content == path else "") if key else trace


def is_recording(path: Path) -> bool:
    """Tell whether a file or folder looks like something that `open_trace` can read."""
    try:
        head = b"" if path.is_dir() else _head(path)
    except UnreadableError:
        return False
    if path.is_file() and (_is_report(path, head) or head.startswith((_GZIP, _ZSTD))):
        return _is_report(path, head) or path.suffix in _PACKED
    return any(
        registry.load("reader", name).recognises(path, head) for name in registry.names("reader")
    )


def _recognised(path: Path) -> tuple[str, Reader, Path, object]:
    """Return the format's name, its reader, the file to read and what keeps that file alive."""
    if path.is_dir():
        return _reader_of(path, path, b"", None)
    head = _head(path)
    if _is_report(path, head):
        exported, kept = _exported(path)
        return _reader_of(path, exported, _head(exported), kept)
    if head.startswith((_GZIP, _ZSTD)):
        unpacked, kept = _unpacked(path, head)
        return _reader_of(path, unpacked, _head(unpacked), kept)
    return _reader_of(path, path, head, None)


def _reader_of(
    path: Path, content: Path, head: bytes, kept: object
) -> tuple[str, Reader, Path, object]:
    for name in registry.names("reader"):
        reader: Reader = registry.load("reader", name)
        if reader.recognises(content, head):
            return name, reader, content, kept
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
        return f"{name} is a folder without recordings. Name a file, or an nsys Parquet export."
    if not head:
        return f"{name} is empty. Record or export it again."
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return (
            f"{name} looks like JSON. This version reads Nsight Systems exports only; "
            "make one with: nsys export --type sqlite FILE.nsys-rep"
        )
    return (
        f"{name} is in no format that tracelens knows ({', '.join(registry.names('reader'))}). "
        "From an Nsight Systems report, make one with: nsys export --type sqlite FILE.nsys-rep"
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
    try:
        done = subprocess.run(  # noqa: S603
            [*arguments, str(path.absolute())],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_EXPORT_SECONDS,
            check=False,
        )
        said = (done.stdout + done.stderr).strip().splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        said = [str(error)]
    if not out.is_file() or not out.stat().st_size:
        reason = next((line for line in reversed(said) if line.strip()), "no reason given")
        raise UnreadableError(
            f"{path.name} is an Nsight Systems report, and this machine's nsys cannot export it: "
            f"{reason.strip()[:200]} Where it was recorded, type: {command}"
        )
    return out, folder


def _unpacked(path: Path, head: bytes) -> tuple[Path, object]:
    """Stream a packed file to a temporary one; what was unpacked before an error is used."""
    folder = Scratch()
    out = folder.path / path.stem
    opener = gzip.open if head.startswith(_GZIP) else _zstd_opener()
    try:
        with opener(path, "rb") as packed, out.open("wb") as plain:
            _copy(packed, plain, path)
    except (OSError, EOFError, _zstd_error()) as error:
        if not out.is_file() or not out.stat().st_size:
            raise UnreadableError(f"{path.name} cannot be unpacked: {error}.") from error
    return out, folder


def _copy(packed: IO[bytes], plain: IO[bytes], path: Path) -> None:
    while block := packed.read(_COPY_BYTES):
        if shutil.disk_usage(plain.name).free < _SPACE_KEPT_BYTES + len(block):
            raise UnreadableError(
                f"There is no room to unpack {path.name} in {tempfile.gettempdir()}. "
                "Set TMPDIR to a folder on a larger disk."
            )
        plain.write(block)


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

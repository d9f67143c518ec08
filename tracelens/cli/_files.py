"""Files that commands read and write: recordings in folders, output never half-written."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracelens.errors import UsageError
from tracelens.exports import put

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_OURS: Final = (".csv", ".md", ".svg", ".tex")


def recordings(paths: Iterable[Path]) -> list[Path]:
    """Return the recordings among the paths: files as they are, folders as what they hold.

    Raises:
        UnreadableError: a folder holds no recording, or its run.json cannot be understood.
    """
    from tracelens import run

    return [recording.path for place in run.found(paths) for recording in place.recordings]


def is_single(path: Path) -> bool:
    """Tell whether the path is one recording (or nothing at all), not a folder of some."""
    from tracelens.readers.open import is_recording

    return not _is_folder(path) or is_recording(path)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, say: opening it will tell
        return False


def check_free(output: Path | None, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse, before any work is done, to write over an input, or over a file without ``force``."""
    if output is None:
        return
    if any(path.exists() and output.exists() and path.samefile(output) for path in inputs):
        raise UsageError(f"{output} is the recording itself: write to another file.")
    if output.exists() and not force:
        raise UsageError(f"{output} exists already; --force overwrites it.")
    if not output.absolute().parent.is_dir():
        raise UsageError(
            f"There is no folder {output.absolute().parent} to write {output.name} to."
        )


def check_folder_free(folder: Path, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse, before any work is done, to write into a folder that holds what is not ours.

    A folder that holds anything is replaced with ``force`` alone, and only if no input lies in it
    and nothing in it is of another kind than what is written here.
    """
    if not folder.absolute().parent.is_dir():
        raise UsageError(
            f"There is no folder {folder.absolute().parent} to write {folder.name} to."
        )
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name another one.")
    inside = [path for path in folder.rglob("*") if not path.is_dir()]
    if not inside:
        return
    if not force:
        raise UsageError(f"{folder} holds files already; --force replaces it.")
    strange = [path for path in inside if path.suffix not in _OURS]
    if strange or any(path.resolve().is_relative_to(folder.resolve()) for path in inputs):
        what = strange[0].relative_to(folder) if strange else "a recording"
        raise UsageError(f"{folder} holds {what}, which --force does not remove: name another one.")


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a folder of their own, whole or not at all; what it held goes."""
    beside: Path | None = None
    try:
        beside = Path(
            tempfile.mkdtemp(prefix=f".{folder.name[:100]}-", dir=folder.absolute().parent)
        )
        draft = beside / "new"
        for name, text in files.items():
            file = draft / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode("utf-8", "surrogateescape"))
        put(draft, folder, beside / "old")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}.") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def write(output: Path, text: str) -> None:
    """Write a text to a file whole or not at all."""
    write_bytes(output, text.encode("utf-8", "surrogateescape"))


def write_bytes(output: Path, content: bytes) -> None:
    """Write a file whole or not at all: beside its place, then renamed into it."""
    beside: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{output.name}-", dir=output.absolute().parent)
        beside = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)
        beside.replace(output)
    except OSError as error:
        if beside:
            beside.unlink(missing_ok=True)
        raise UsageError(f"{output} cannot be written: {error.strerror or error}.") from error

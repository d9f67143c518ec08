"""Exporters: one entry = one format that other programs open, made of a linked trace."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracelens.links.linked import Linked


class Progress(Protocol):
    """Is told how many parts of what have been written, of how many."""

    def __call__(self, what: str, done: int, total: int, /) -> None: ...


def no_progress(_what: str, _done: int, _total: int, /) -> None:
    """Tell nobody."""


class Write(Protocol):
    """Writes what a trace was cut to, to a path at which there is nothing or an empty folder."""

    def __call__(
        self, linked: Linked, path: Path, /, *, progress: Progress = no_progress
    ) -> None: ...


def _nobodys(_: Path) -> bool:
    return False


@dataclass(frozen=True)
class Exporter:
    """One format.

    ``suffix`` ends the name of an export that was given none; ``folder`` tells that it is a
    folder of files; ``use`` says, with ``{path}`` in it, what to do with the export. ``is_ours``
    tells whether a folder is such an export, which may be replaced.
    """

    write: Write
    suffix: str
    use: str
    folder: bool = False
    is_ours: Callable[[Path], bool] = _nobodys


def check_free(exporter: Exporter, output: Path, source: Path, *, force: bool) -> None:
    """Refuse, before any work is done, an output that must not or cannot be written.

    Raises:
        UsageError: it exists and ``force`` was not given; it is the recording itself; or it is a
            folder that this exporter did not write, which is never replaced.
    """
    if not output.absolute().parent.is_dir():
        raise UsageError(
            f"There is no folder {output.absolute().parent} to write {output.name} to."
        )
    if not os.path.lexists(output):
        return
    if _same(output, source):
        raise UsageError(f"{output} is the recording itself; name another output with -o.")
    if not force:
        raise UsageError(f"{output} exists already; --force overwrites it, -o names another.")
    if output.is_dir() and not (exporter.folder and _replaceable(exporter, output)):
        raise UsageError(
            f"{output} is a folder that holds other things, which --force does not remove. "
            "Name another output with -o."
        )
    if exporter.folder and not output.is_dir():
        raise UsageError(f"{output} is a file, and this export is a folder. Name another with -o.")


@contextmanager
def whole(exporter: Exporter, output: Path) -> Iterator[Path]:
    """Give a path beside the output to write to, and rename it into place if all went well.

    Raises:
        UsageError: the output cannot be written.
    """
    beside: Path | None = None
    try:
        beside = Path(
            tempfile.mkdtemp(prefix=f".{output.name[:100]}-", dir=output.absolute().parent)
        )
        draft = beside / output.name
        if exporter.folder:
            draft.mkdir()
        yield draft
        put(draft, output, beside / f"{output.name}~")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror or error}.") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def put(draft: Path, output: Path, old: Path) -> None:
    """Rename the draft into place; a folder that stands there steps aside first."""
    if not output.is_dir():
        draft.replace(output)
        return
    output.rename(old)
    try:
        draft.rename(output)
    except OSError:
        old.rename(output)
        raise


def _same(output: Path, source: Path) -> bool:
    return output.exists() and source.exists() and output.samefile(source)


def _replaceable(exporter: Exporter, folder: Path) -> bool:
    return exporter.is_ours(folder) or not any(folder.iterdir())

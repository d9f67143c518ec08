"""Which files a report was made of: their names, sizes and SHA-256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracelens.errors import UnreadableError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class File:
    """A file that was read, and the lowercase hexadecimal SHA-256 of its bytes."""

    name: str
    size_bytes: int
    sha256: str


def files(path: Path) -> list[File]:
    """Return the files that a recording consists of: itself, or of a folder all in it.

    Raises:
        UnreadableError: one of them cannot be read.
    """
    if not path.is_dir():
        return [_file(path, path.name)]
    inside = sorted(child for child in path.rglob("*") if child.is_file())
    return [_file(child, str(child.relative_to(path.parent))) for child in inside]


def _file(path: Path, name: str) -> File:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return File(name, path.stat().st_size, digest)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}.") from error

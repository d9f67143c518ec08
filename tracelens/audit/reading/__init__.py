"""Readers of claims: one file = one format, from the text of a file to tables and sentences."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.audit.document import MOST_CELLS, too_many_cells
from tracelens.errors import NothingToShowError, UnreadableError

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.audit.document import Document

LARGEST_BYTES: Final = 64 << 20
_BINARY: Final = (
    b"\x00",
    b"\x1f\x8b",
    b"SQLite format",
    b"PK\x03\x04",
    b"%PDF",
    b"\x28\xb5\x2f\xfd",
)


def read(path: Path) -> Document:
    """Return what a file of claims says; the format is recognised by content, not by name.

    Raises:
        UnreadableError: it cannot be read, is no text, or is larger than 64 MiB.
        NothingToShowError: it holds no table.
    """
    text = decoded(path)
    document = _parsed(path, text)
    if not document.grids and not document.text:
        raise NothingToShowError(f"{path} is empty: there is nothing to audit.")
    if sum(len(grid.headings) * len(grid.rows) for grid in document.grids) > MOST_CELLS:
        raise too_many_cells(str(path))
    return document


def decoded(path: Path) -> str:
    """Return the text of a file; bytes that are no UTF-8 are replaced.

    Raises:
        UnreadableError: it cannot be read, is no text, or is larger than 64 MiB.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        why = error.strerror or str(error)
        raise UnreadableError(f"{path} cannot be read: {why}.") from error
    except ValueError as error:  # a NUL in the name
        raise UnreadableError(f"{str(path)!r} cannot be read: {error}.") from error
    if len(content) > LARGEST_BYTES:
        raise UnreadableError(f"{path} is larger than 64 MiB. Audit a part of it.")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    if content.startswith(_BINARY[1:]) or b"\x00" in content[:65536]:
        raise UnreadableError(
            f"{path} is no text. `tracelens audit` reads Markdown, CSV and JSON of claims; "
            "`tracelens summarize` reads recordings."
        )
    return content.decode("utf-8-sig", "replace")


def _parsed(path: Path, text: str) -> Document:
    from tracelens.audit.reading import csv, json, markdown

    suffix = path.suffix.lower()
    begins = text.lstrip()[:1]
    if begins in {"{", "["} and suffix not in {".md", ".markdown"}:
        try:
            return json.parse(str(path), text)
        except UnreadableError:
            if suffix in {".json", ".jsonl"}:
                raise
    if suffix in {".json", ".jsonl"}:
        raise UnreadableError(f"{path} is no JSON: it begins with neither {{ nor [.")
    if suffix in {".csv", ".tsv"} or (suffix not in {".md", ".markdown"} and _looks_like_csv(text)):
        return csv.parse(str(path), text)
    return markdown.parse(str(path), text)


def _looks_like_csv(text: str) -> bool:
    """Tell whether the first lines have the same number of commas or tabs, more than one."""
    lines = [line for line in text[:20000].splitlines()[:-1] or [text] if line.strip()][:5]
    if len(lines) < 2 or any(re.match(r"\s*(#|\||```|[-*] )", line) for line in lines):
        return False
    return any(
        lines[0].count(mark) >= 2 and len({line.count(mark) for line in lines}) == 1
        for mark in (",", "\t", ";")
    )

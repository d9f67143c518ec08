"""Writing what was measured into docs/performance.md, or another page, between its marks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
END: Final = "<!-- end -->"


def write(command: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Replace what the command wrote the last time; raises ValueError where it has no place."""
    begin = f"<!-- begin: {command} -->"
    head, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ends, tail = rest.partition(END)
    if not (found and ends):
        raise ValueError(f"{page.name} has no place for {command}: {begin} and {END}.")
    text = "\n".join(lines)
    page.write_text(f"{head}{begin}\n{text}\n{END}{tail}", encoding="utf-8")

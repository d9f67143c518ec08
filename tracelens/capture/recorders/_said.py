"""What profilers say: the log of a pass, and the line that tells why something failed."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from tracelens import tools

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LONGEST: Final = 200_000
_TELLING: Final = ("error", "failed", "cannot", "could not", "unable", "illegal", "unrecognised")


def log(folder: Path, recorder: str) -> Path:
    """Return the file that a pass prints to, the profiler and the program."""
    return folder / "logs" / f"{recorder}.log"


def text_of(file: Path) -> str:
    """Return the end of a log; nothing if there is none."""
    with contextlib.suppress(OSError), file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - _LONGEST))
        return opened.read().decode("utf-8", "replace")
    return ""


def meaning(text: str, meanings: Mapping[str, str]) -> str:
    """Return what the first of some known words means that is in a text; empty if none is."""
    return next((means for words, means in meanings.items() if words in text), "")


def reason(answer: tools.Answer, meanings: Mapping[str, str]) -> str:
    """Return why a program failed, in its own words, or in clearer ones where those are known."""
    if known := meaning(answer.text, meanings):
        return known
    said = lines(answer)
    words = (telling(said) or (said or [""])[-1]).rstrip(".")
    return ", ".join(filter(None, [answer.failure, words])) or "it gave no reason"


def telling(said: list[str]) -> str:
    """Return the last line that speaks of an error."""
    found = (line for line in reversed(said) if any(word in line.lower() for word in _TELLING))
    return next(found, "")


def lines(answer: tools.Answer) -> list[str]:
    """Return the lines that a program printed, but for blank ones and its progress."""
    said = [tools.plain(line) for line in answer.text.replace("\r", "\n").splitlines()]
    return [line for line in said if line and not line.startswith(("Processing [", "Exporting "))]

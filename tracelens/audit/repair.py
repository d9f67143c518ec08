"""Signs that were read in a wrong encoding and written so, put right: × as two letters, say.

A multiplication sign or an arrow inside a number matters here, the rest of the text does not: only
signs that stand in numbers and units are put right, and lines stay lines.
"""

from __future__ import annotations

import re
from typing import Final

_SIGNS: Final = "×÷→µμ±≈≤≥–—−σ²³✓✅❌"
_WRONG: Final = ("cp1252", "mac_roman", "latin-1")


def _spoilt() -> dict[str, str]:
    found = {}
    for sign in _SIGNS:
        for encoding in _WRONG:
            try:
                found[sign.encode().decode(encoding)] = sign
            except UnicodeDecodeError:
                continue
    return found


_SPOILT: Final = _spoilt()
_ANY: Final = re.compile("|".join(map(re.escape, sorted(_SPOILT, key=len, reverse=True))))


def repaired(text: str) -> str:
    """Return a text with the signs of numbers as they were meant."""
    if text.isascii():
        return text
    return _ANY.sub(lambda found: _SPOILT[found[0]], text)

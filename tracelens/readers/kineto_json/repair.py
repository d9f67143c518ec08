"""Text that should be JSON and is not: what recorders and broken-off writes leave, mended.

Kineto has written names with backslashes and quotes as they came, `inf` and `nan` for quotients,
and stops in the middle when its process is killed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTROL: Final = bytes(range(0x20))
_AS_SPACES: Final = bytes.maketrans(_CONTROL, b" " * len(_CONTROL))
_SPACE_BYTES: Final = b"\t\n\r"
_ESCAPE: Final = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|(\\)')
_NO_NUMBER: Final = re.compile(
    rb"([:,\[]\s*)[-+]?(?:nan|infinity|inf|n/a|undefined|none)(?=\s*[,}\]])", re.IGNORECASE
)
_TRAILING_COMMA: Final = re.compile(rb",(?=\s*[}\]])")
_EVENT_STARTS: Final = re.compile(
    rb'[,\[]\s*(?=\{\s*"(?:ph|name|cat|pid|tid|ts|dur|id|s|bp|args)"\s*:)'
)
_ENDS_TRIED: Final = 4


def repaired(text: bytes) -> tuple[bytes, list[str]]:
    """Return the text with what is never JSON replaced, and what was replaced, counted."""
    said: list[str] = []
    text = _as_utf8(text, said)
    strange = len(text) - len(text.translate(None, _CONTROL.translate(None, _SPACE_BYTES)))
    if strange:
        said.append(f"{strange:,} control characters were taken as spaces.")
    text = text.translate(_AS_SPACES)
    for pattern, replacement, what in (
        (
            _NO_NUMBER,
            rb"\1null",
            "values that are no numbers (NaN, Infinity) were taken as missing",
        ),
        (_TRAILING_COMMA, b"", "commas too many were left out"),
    ):
        text, count = pattern.subn(replacement, text)
        if count:
            said.append(f"{count:,} {what}.")
    lone = sum(1 for found in _ESCAPE.finditer(text) if found[1])
    if lone:
        text = _ESCAPE.sub(lambda found: rb"\\" if found[1] else found[0], text)
        said.append(f"{lone:,} backslashes that escape nothing were taken as they stand.")
    return text, said


def closed(text: bytes) -> Iterator[tuple[bytes, list[str]]]:
    """Give the beginnings of a text that was cut off, closed, the longest first."""
    text = text.rstrip()
    is_list = text.startswith(b"[")
    end = b"]" if is_list else b"]}"
    yield text.rstrip(b", ") + end, ["The file is cut off at its end."]
    if not is_list:
        yield text[: text.rfind(b"]") + 1] + b"}", ["The file is cut off behind its events."]
    starts = [found.start() for found in _EVENT_STARTS.finditer(text)]
    if starts:
        kept = text[: starts[-1] + (text[starts[-1]] == ord("["))]
        yield kept + end, ["The file is cut off: its last event is lost, and what came after."]


def pieces(text: bytes) -> Iterator[bytes]:
    """Give the text from the start of each event to the next, mended where it is no JSON."""
    begin = max(0, text.find(b'"traceEvents"'))
    starts = [found.end() for found in _EVENT_STARTS.finditer(text, begin)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield _mended(text[start:end].rstrip(b" ,"))


def _mended(piece: bytes) -> bytes:
    """Return a piece cut behind its object, with quotes inside of strings escaped."""
    piece = _escaped(piece)
    ends = [found.end() for found in re.finditer(rb"\}", piece)]
    for end in ends[: -_ENDS_TRIED - 1 : -1]:
        if piece[:end].count(b"{") == piece[:end].count(b"}"):
            return piece[:end]
    return piece


def _escaped(piece: bytes) -> bytes:
    """Escape quotes that neither begin nor end a string, as told by what stands beside them."""

    def escaped(found: re.Match[bytes]) -> bytes:
        before = piece[: found.start()].rstrip()[-1:]
        after = piece[found.end() :].lstrip()[:1]
        begins = before in (b"{", b"[", b",", b":")
        ends = after in (b",", b":", b"}", b"]", b"")
        return found[0] if begins or ends else b'\\"'

    return re.sub(rb'(?<!\\)"', escaped, piece)


def _as_utf8(text: bytes, said: list[str]) -> bytes:
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if text.startswith(mark):
            said.append("The file is UTF-16 and was read as such.")
            return text.decode(encoding, "replace").encode()
    text = text.removeprefix(b"\xef\xbb\xbf")
    try:
        text.decode()
    except UnicodeDecodeError:
        replaced = text.decode(errors="replace")
        said.append(f"{replaced.count(chr(0xFFFD)):,} bytes that are no UTF-8 were replaced.")
        return replaced.encode()
    return text

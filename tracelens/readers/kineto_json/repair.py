"""Text that should be JSON and is not: what recorders and broken-off writes leave, mended.

Kineto has written names with backslashes and quotes as they came, `inf` and `nan` for quotients,
and stops in the middle when its process is killed.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_NUMBER: Final = re.compile(
    rb'(":\s*)[-+]?(?:nan|infinity|inf|n/a|undefined|none)(?=\s*[,}])', re.IGNORECASE
)
_EVENT: Final = re.compile(
    rb'(?<!:)(?<!:[ \t\n])\{\s*"(?:ph|name|cat|pid|tid|ts|dur|id|s|bp|args)"\s*:'
)
_EVENTS: Final = re.compile(rb'"traceEvents"\s*:\s*\[')
_BEHIND: Final = re.compile(r"trailing characters \(byte (\d+)\)")
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+|"', re.DOTALL)
_VALUE: Final = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null")
_NAME: Final = re.compile(
    rb'(\{\s*(?:"(?:ph|cat|s|id)"\s*:\s*(?:"[^"]*"|\d+)\s*,\s*)*"name"\s*:\s*")'
    rb'(.*?)("\s*,\s*"(?:pid|ph)"\s*:)',
    re.DOTALL,
)
_QUOTE: Final = re.compile(rb'(?<!\\)"')
_SPACE_AROUND: Final = 40
"""Bytes around a quote in which what stands beside it is looked for."""


def plain(text: bytes) -> tuple[bytes, list[str]]:
    """Return the text as UTF-8 without a mark, and with words for missing numbers taken as null."""
    said: list[str] = []
    text = text.removeprefix(b"\xef\xbb\xbf")
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        said.append("The file is UTF-16 and was read as such.")
        text = text.decode("utf-16", "replace").encode()
    text, count = _NO_NUMBER.subn(rb"\1null", text)
    if count:
        said.append(
            f"{count:,} values that are no numbers (NaN, Infinity, N/A) were taken as missing."
        )
    return text, said


def ended(text: bytes, problem: str) -> Iterator[tuple[bytes, str]]:
    """Give the text without what stands behind its end, or with the end that was cut off.

    Args:
        text: what should be JSON.
        problem: what the decoder said of it.
    """
    if found := _BEHIND.search(problem):
        end = int(found[1])
        what = f"{len(text[end:].strip()):,} bytes behind the end of the trace were left out."
        yield text[:end], what
        return
    is_list = text.lstrip().startswith(b"[")
    end_of = b"]" if is_list else b"]}"
    text = text.rstrip(b"\0 \t\r\n")
    yield text.rstrip(b", \t\r\n") + end_of, "The file is cut off at its end."
    if text.endswith(b"}"):
        return
    if not is_list:
        yield text[: text.rfind(b"]") + 1] + b"}", "The file is cut off behind its events."
    starts = [found.start() for found in _EVENT.finditer(text)]
    if starts:
        kept = text[: starts[-1]].rstrip(b", \t\r\n")
        yield kept + end_of, "The file is cut off: its last event is lost, and what came after."


def pieces(text: bytes) -> list[bytes]:
    """Return the text from the start of each event to the next."""
    found = _EVENTS.search(text)
    starts = [event.start() for event in _EVENT.finditer(text, found.end() if found else 0)]
    if not starts:
        return []
    parts = [text[start:end] for start, end in itertools.pairwise(starts)]
    last = text[starts[-1] :]  # and what stands behind the events
    return [*(part.rstrip(b", \t\r\n") for part in parts), mended(last) or last]


def surroundings(text: bytes) -> bytes:
    """Return what stands before the events of a trace, as an object."""
    found = _EVENTS.search(text)
    head = text[: found.start()].rstrip(b", \t\r\n") + b"}" if found else b"{}"
    return mended(head) or b"{}"


def mended(piece: bytes) -> bytes | None:
    """Return the object that a piece of text begins with, as JSON; None where it cannot be made.

    What follows the object is left out; a name is taken as it stands between its quotes, and other
    texts by which quotes stand beside a comma, colon or bracket.
    """
    for text in _attempts(piece):
        try:
            msgspec.json.decode(text, type=msgspec.Raw)
        except (msgspec.DecodeError, RecursionError):
            continue
        return text
    return None


def _attempts(piece: bytes) -> Iterator[bytes]:
    yield _rewritten(piece)
    named = _NAME.sub(lambda found: found[1] + _literal(found[2]) + found[3], piece, count=1)
    if named != piece:
        yield _rewritten(named)
    yield _rewritten(_escaped(named))


def _rewritten(piece: bytes) -> bytes:
    """Write the first object of a piece again, token by token, with what JSON would have."""
    written: list[bytes] = []
    depth = 0
    for found in _TOKEN.finditer(piece):
        token = found[0]
        last = written[-1] if written else b""
        if token[:1] == b'"':
            token = b'"' + _literal(token[1:-1]) + b'"' if len(token) > 1 else token
        elif token in b"}],":
            if last == b":":
                written.append(b"null")
            elif last == b",":
                written.pop()
            if token == b"," and last in (b"[", b"{"):
                continue
        elif token not in b"{[:" and not _VALUE.fullmatch(token):
            token = b"null"
        written.append(token)
        depth += (token in (b"{", b"[")) - (token in (b"}", b"]"))
        if depth <= 0:
            break
    return b"".join(written)


def _literal(text: bytes) -> bytes:
    """Return what stands between two quotes as JSON: as it is if it is, else taken literally."""
    try:
        msgspec.json.decode(b'"' + text + b'"', type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.dumps(text.decode(errors="replace"), ensure_ascii=False)[1:-1].encode()
    return text


def _escaped(piece: bytes) -> bytes:
    """Escape quotes that neither begin nor end a text, as told by what stands beside them."""

    def escaped(found: re.Match[bytes]) -> bytes:
        before = piece[max(0, found.start() - _SPACE_AROUND) : found.start()].rstrip()[-1:]
        after = piece[found.end() : found.end() + _SPACE_AROUND].lstrip()[:1]
        begins = before in (b"{", b"[", b",", b":")
        ends = after in (b",", b":", b"}", b"]", b"")
        return found[0] if begins or ends else b'\\"'

    return _QUOTE.sub(escaped, piece)

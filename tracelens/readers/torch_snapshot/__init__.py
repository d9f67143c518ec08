"""PyTorch memory snapshots (torch.cuda.memory._dump_snapshot) and profiler memory timelines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.readers import Progress, Reader, no_progress

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.trace.model import Trace

_PICKLE: Final = re.compile(
    rb"\x80[\x02-\x05]|\([dl]p\d+\n|[}\]]q.|c[a-zA-Z_][\w.]*\n[\w.]+\n[()pq}\]tR.0-9]", re.DOTALL
)
_KEYS: Final = tuple(
    b'"%s"' % key
    for key in (b"segments", b"device_traces", b"allocator_settings", b"external_annotations")
)
_KINETO: Final = b'"traceEvents"'
_SEGMENTS: Final = re.compile(rb'\[\s*\{[^{}\[\]]*"total_size"')
_TIMELINE: Final = re.compile(rb"\[\s*\[")
_PAGE: Final = re.compile(rb"<!doctype html|<html", re.IGNORECASE)
_MARKS: Final = re.compile(rb"segments|device_traces|total_size|\[\s*\[")
_CHECKPOINT: Final = b"PK\x03\x04"


def recognises(path: Path, head: bytes) -> bool:
    """Tell whether this is a pickle, or JSON of a snapshot or of a memory timeline.

    Pickles of other things, model checkpoints and web pages are ours, too: `read` says what
    they are.
    """
    if path.is_dir():
        return False
    if _PICKLE.match(head) or _PAGE.match(head.lstrip()):
        return True
    if head.startswith(_CHECKPOINT):
        return b"data.pkl" in head
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _TIMELINE.match(text) or _SEGMENTS.match(text):
        return True
    keys = [place for key in _KEYS if (place := text.find(key)) >= 0]
    kineto = text.find(_KINETO)
    return text.startswith(b"{") and bool(keys) and (kineto < 0 or min(keys) < kineto)


def likely(path: Path, head: bytes) -> bool:
    """Tell whether a file in a folder is one of ours, by a key that stands at the beginning."""
    return recognises(path, head) and not _PAGE.match(head.lstrip()) and bool(_MARKS.search(head))


def read(path: Path, *, everything: bool = False, progress: Progress = no_progress) -> Trace:
    """Read a snapshot or a timeline.

    The file is opened by a child process alone, which executes nothing that it finds there and
    is limited in memory and time.

    Raises:
        UnreadableError: it is damaged, names anything that could run code, needs more memory or
            time than it may, or is something else. The message says what to do.
    """
    _ = everything
    from tracelens.readers.torch_snapshot.process import Child

    with Child(path) as child:
        progress("snapshot", 0, 2)
        # Importing polars takes as long as a small snapshot: side by side.
        from tracelens.readers.torch_snapshot.handed import Handed
        from tracelens.readers.torch_snapshot.tables import snapshot, timeline

        handed = Handed(child.scratch, child.lines())
        progress("snapshot", 1, 2)
        made = snapshot if handed.kind == "snapshot" else timeline
        trace = made(path, handed)
    progress("snapshot", 2, 2)
    return trace


READER = Reader(recognises, read, likely=likely)

"""Nsight Compute: counters of single kernels, from `ncu --page raw --csv` or a .ncu-rep."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.readers import Progress, Reader, no_progress

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.trace.model import Trace

_REPORT: Final = b"NVR\0"
_HEAD: Final = re.compile(rb'^(?:\xef\xbb\xbf)?"?ID"?,"?Process ID"?,', re.MULTILINE)
_SAID: Final = re.compile(rb"(?:\xef\xbb\xbf)?==(?:PROF|WARNING|ERROR)== ")


def recognises(path: Path, head: bytes) -> bool:
    """Tell whether this is a report of ncu, or a table that it printed."""
    if path.is_dir():
        return False
    return head.startswith(_REPORT) or likely(path, head) or bool(_SAID.match(head))


def likely(path: Path, head: bytes) -> bool:
    """Tell whether a file in a folder is one of ours.

    Of a report and the table of it, it is the table: ncu is not needed to read that.
    """
    if head.startswith(_REPORT):
        return path.suffix == ".ncu-rep" and not path.with_suffix(".csv").is_file()
    return bool(_HEAD.search(head))


def read(path: Path, *, everything: bool = False, progress: Progress = no_progress) -> Trace:
    """Read a table or a report.

    Raises:
        UnreadableError: it is another table of ncu, damaged, or a report that nothing here can
            read. The message says what to do.
    """
    from tracelens.readers.ncu import report, sheet
    from tracelens.readers.ncu.tables import trace_of

    progress("counters", 0, 2)
    with path.open("rb") as file:
        is_report = file.read(len(_REPORT)) == _REPORT
    found = report.read(path) if is_report else sheet.read(path)
    progress("counters", 1, 2)
    trace = trace_of(path, found, everything=everything)
    progress("counters", 2, 2)
    return trace


READER = Reader(recognises, read, likely=likely)

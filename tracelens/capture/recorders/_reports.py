"""What nsys has left, made into what can be read: imported, exported, and looked at."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from tracelens import tools
from tracelens.capture.recorders import _said
from tracelens.errors import CaptureError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import polars as pl

REPORT: Final = "run.nsys-rep"
EXPORT: Final = "run.sqlite"
STREAM: Final = "run.qdstrm"
"""What nsys leaves where it cannot make a report itself."""

PATIENCE_S: Final = 300.0
"""How long importing and exporting may take, and `SECONDS_PER_MIB` more for each MiB."""
SECONDS_PER_MIB: Final = 2.0

_SHOWN: Final = ("ranges", "gpu_ops", "api")
_MEANINGS: Final = {
    "No space left on device": "the disk is full",
    "database or disk is full": "the disk is full",
    "BadStreamException": "the disk is full, or the file is damaged",
    "Qdstrm file is incomplete": "nsys was ended before the recording was whole",
    "Unknown runtime API function index": "it does not know the CUDA version of the program",
}


def stream_in(places: Iterable[Path]) -> Path | None:
    """Return the recording that waits to be imported; nsys leaves it behind if it cannot move it.

    Args:
        places: the Run folder, and the folder of nsys's own files.
    """
    found = (file for place in places for file in sorted(place.glob("*.qdstrm")))
    return next((file for file in found if is_there(file)), None)


def import_(stream: Path, importer: tools.Tool, folder: Path) -> Path:
    """Turn what nsys streamed into a report in the folder, and return that.

    Raises:
        CaptureError: the importer failed; the text says why. The stream is kept.
    """
    half = folder / f"half.{REPORT}"
    half.unlink(missing_ok=True)
    answer = _ask([importer.path, "-i", str(stream), "-o", str(half)], stream, folder)
    if answer.failure or not is_there(half):
        half.unlink(missing_ok=True)
        is_old = "API function index" in answer.text
        newer = f" Install an nsys newer than {importer.release}." if is_old else ""
        raise CaptureError(
            f"QdstrmImporter {importer.version} could not import {stream.name}: "
            f"{_said.reason(answer, _MEANINGS)}.{newer} The file is kept: {stream}. "
            f"By hand: {by_hand(stream)}"
        )
    return half.replace(folder / REPORT)


def export(report: Path, exporters: Sequence[tools.Tool], *, has_steps: bool) -> tools.Tool:
    """Export a report beside it; return the nsys that did.

    Args:
        report: what nsys recorded.
        exporters: nsys, each tried until one gives an export that is whole.
        has_steps: whether only steps were recorded.

    Raises:
        CaptureError: none could; the text says why. The report is kept.
    """
    half = report.with_name(f"half.{EXPORT}")
    why_not = []
    for nsys in exporters:
        half.unlink(missing_ok=True)
        out = ["--type=sqlite", "--force-overwrite=true", f"--output={half}"]
        answer = _ask([nsys.path, "export", *out, str(report)], report, report.parent)
        fault = _fault(half, answer, has_steps=has_steps)
        if not fault:
            half.replace(report.with_name(EXPORT))
            return nsys
        half.unlink(missing_ok=True)
        why_not.append(f"nsys {nsys.version} gave no whole export: {fault}")
    tried = "; ".join(why_not) or "no nsys that works is here"
    raise CaptureError(f"{report.name} is kept, but {tried}. By hand: {_export_by_hand()}")


def by_hand(stream: Path) -> str:
    """Return the commands that make an export of what nsys streamed."""
    return f"QdstrmImporter -i {stream.name} -o {REPORT} && {_export_by_hand()}"


def is_there(path: Path) -> bool:
    """Tell whether there is a file with something in it."""
    return path.is_file() and path.stat().st_size > 0


def _export_by_hand() -> str:
    return f"nsys export --type sqlite -o {EXPORT} {REPORT}"


def _fault(half: Path, answer: tools.Answer, *, has_steps: bool) -> str:
    """Return what is wrong with an export: nsys ends with status 0 even on a full disk."""
    from tracelens.readers.open import open_trace

    said = _said.reason(answer, _MEANINGS)
    if answer.failure or not is_there(half):
        return said
    try:
        trace = open_trace(half)
        rows = sum(_rows(trace[name]) for name in _SHOWN if name in trace)
    except UnreadableError as error:
        return f"{error} (nsys: {said})"
    if rows:
        return ""
    steps = ": the recorded steps made none" if has_steps else ""
    return f"it holds no range and no GPU work{steps}"


def _rows(table: pl.LazyFrame) -> int:
    import polars as pl

    return int(table.select(pl.len()).collect().item())


def _ask(command: Sequence[str], source: Path, folder: Path) -> tools.Answer:
    """Run nsys or its importer on a file; what it says goes to the log of the pass, too."""
    patience_s = PATIENCE_S + SECONDS_PER_MIB * (source.stat().st_size >> 20)
    answer = tools.ask(*command, patience_s=patience_s)
    lines = ["", f"$ {' '.join(command)}", *_said.lines(answer)[-20:], answer.failure]
    with contextlib.suppress(OSError), _said.log(folder, "nsys").open("a", encoding="utf-8") as log:
        log.write("\n".join(lines).rstrip() + "\n")
    return answer

"""torch.profiler: operators, CUDA calls and kernels, with shapes, stacks and memory on request."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracelens import __version__
from tracelens.capture import job
from tracelens.capture.recorder import Made, Recorder, Session
from tracelens.errors import CaptureError, TracelensError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracelens.capture.recorder import Wanted

SQLITE: Final = "run.sqlite"
_GZIP_LEVEL: Final = 4
"""Half the time of zlib's usual 6, and a tenth more bytes."""
_COPY_BYTES: Final = 4 << 20
_TAIL_BYTES: Final = 64


class Torch(Recorder):
    """Records the steps with `torch.profiler`, into one Chrome trace per process."""

    name = "torch"
    options: Mapping[str, str] = {
        "shapes": "Sizes, strides and types of every operator's inputs; a few µs an operator, and "
        "inputs live on until the profiler lets go of them.",
        "stacks": "Every call of Python, and so the line that an operator was called from; slows "
        "Python several times over, and the trace grows about tenfold.",
        "memory": "Every allocation and release, with the total; about 1 µs each. On by default on "
        "the CPU, where the memory recorder cannot run; memory=off leaves it out.",
        "modules": "Which nn.Module each operator belongs to; taken from the stacks, so it costs "
        "what `stacks` does.",
        "flops": "Floating-point operations of products and convolutions as torch counts them; "
        "costs what `shapes` does, which it turns on.",
    }

    def unusable(self, wanted: Wanted) -> str | None:
        """Return why it cannot record: torch is absent from where a workload would run."""
        import importlib.util

        if wanted.processes is not None and importlib.util.find_spec("torch") is None:
            return "torch is not installed here: pip install 'tracelens-gpu[capture]'."
        return None

    def files(self, wanted: Wanted) -> list[str]:
        """Return the names of the traces, and of what is made of them on a GPU."""
        count = wanted.processes or 1
        ranks = [None] if count == 1 else list(range(count))
        suffixes = [trace_name, sqlite_name] if wanted.device == "cuda" else [trace_name]
        return [name(rank) for name in suffixes for rank in ranks]

    def session(self, wanted: Wanted, rank: int | None) -> Session:
        """Return the profiler of a process."""
        return _Session(wanted, rank)

    def finish(self, wanted: Wanted, say: Callable[[str], None]) -> list[Made]:
        """Write a GPU's recording in nsys's schema, too, unless there is one of nsys's own.

        Raises:
            CaptureError: there is no trace.
        """
        traces = {_rank(file): file for file in wanted.folder.glob("trace*.json.gz")}
        if not traces:
            raise CaptureError(
                "torch.profiler wrote no trace: the program ended before the first recorded step."
            )
        answered = {
            made.path for one in job.outcomes(job.Job(self.name, wanted)) for made in one.made
        }
        made = [Made(f.name, rank) for rank, f in traces.items() if f.name not in answered]
        if wanted.device == "cuda" and not _is_of_nsys(wanted.folder / SQLITE):
            for rank, file in sorted(traces.items(), key=lambda item: item[1]):
                made += _in_nsys_schema(file, rank, say)
        return made


def trace_name(rank: int | None) -> str:
    """Return the name of a rank's trace."""
    return "trace.json.gz" if rank is None else f"trace.rank{rank}.json.gz"


def sqlite_name(rank: int | None) -> str:
    """Return the name of a rank's trace in nsys's schema."""
    return SQLITE if rank is None else f"run.rank{rank}.sqlite"


class _Session(Session):
    """The profiler of one process: prepared one step ahead, so that its own start costs no step.

    Kernels of steps before the window are none of the trace: the window waits for the device
    before it begins.
    """

    def __init__(self, wanted: Wanted, rank: int | None) -> None:
        self._wanted = wanted
        self._rank = rank
        self._profiler: Any = None
        self._is_prepared = False
        self._is_recording = False
        self._made: list[Made] = []

    def open(self) -> None:
        # What a pass before this one left is not to be taken for its own.
        (self._wanted.folder / trace_name(self._rank)).unlink(missing_ok=True)

    def warm(self) -> None:
        self._prepare()

    def begin(self) -> None:
        self._prepare()
        self._profiler.start_trace()
        self._is_recording = True
        self._profiler.add_metadata_json("tracelens", json.dumps(self._about()))

    def end(self) -> None:
        self._stop()

    def close(self, error: BaseException | None) -> list[Made]:  # noqa: ARG002 (as all are called)
        self._stop()
        return self._made

    def _prepare(self) -> None:
        if not self._is_prepared:
            self._profiler = _profiler(self._wanted)
            self._profiler.prepare_trace()
            self._is_prepared = True

    def _stop(self) -> None:
        if self._is_recording:
            self._is_recording = False
            self._profiler.stop_trace()
            name = trace_name(self._rank)
            export(self._profiler, self._wanted.folder / name)
            self._profiler = None  # its events take more memory than the trace
            self._made = [Made(name, self._rank)]

    def _about(self) -> dict[str, Any]:
        """Return what the trace is to say of how it came about."""
        about: dict[str, Any] = {"version": __version__, "recorder": dict(self._wanted.options)}
        if (file := os.environ.get(job.JOB)) and Path(file).is_file():
            mine = job.load(Path(file))
            about |= {"workload": mine.workload, "options": mine.options}
        return about


def _profiler(wanted: Wanted) -> Any:
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if wanted.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    has_stacks = wanted.is_on("stacks") or wanted.is_on("modules")
    has_flops = wanted.is_on("flops")
    return profile(
        activities=activities,
        record_shapes=wanted.is_on("shapes") or has_flops,
        with_stack=has_stacks,
        profile_memory=wanted.is_on("memory", default=wanted.device == "cpu"),
        with_modules=wanted.is_on("modules"),
        with_flops=has_flops,
    )


def export(profiler: Any, file: Path) -> None:
    """Write a profiler's trace, packed, beside its place, and put it there once it is whole.

    Raises:
        CaptureError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".trace-", dir=file.parent) as beside:
            plain, packed = Path(beside, "trace.json"), Path(beside, file.name)
            profiler.export_chrome_trace(str(plain))
            if not _is_whole(plain):
                raise CaptureError(f"{file} could not be written: the disk may be full.")
            with plain.open("rb") as whole, gzip.open(packed, "wb", _GZIP_LEVEL) as out:
                shutil.copyfileobj(whole, out, _COPY_BYTES)
            packed.replace(file)
    except OSError as error:
        raise CaptureError(f"{file} could not be written: {error.strerror or error}.") from error


def _is_whole(trace: Path) -> bool:
    """Whether a trace comes to its end: Kineto does not look whether all could be written."""
    if not trace.exists():
        return False
    with trace.open("rb") as written:
        size = written.seek(0, os.SEEK_END)
        written.seek(max(0, size - _TAIL_BYTES))
        return written.read().rstrip().endswith(b"}")


def _in_nsys_schema(trace: Path, rank: int | None, say: Callable[[str], None]) -> list[Made]:
    from tracelens import exports, registry
    from tracelens.links.linked import Cut, link
    from tracelens.readers.open import open_trace

    output = trace.with_name(sqlite_name(rank))
    exporter: exports.Exporter = registry.load("exporter", "nsys-sqlite")
    try:
        linked = link(open_trace(trace, everything=True), Cut())
        if linked.ops.is_empty():
            say(
                f"{trace.name} holds no work of the GPU: it did none, or CUPTI may not record "
                "here, or another profiler does; the log of the pass says more."
            )
        with exports.whole(exporter, output) as draft:
            exporter.write(linked, draft)
    except TracelensError as error:
        say(f"{output.name} was not made of {trace.name}: {error}")
        return []
    return [Made(output.name, rank, is_recording=False)]


def _is_of_nsys(file: Path) -> bool:
    """Whether a file is there that is no export of ours, which an earlier pass may have left."""
    if not file.exists():
        return False
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        ) as db:
            said = "SELECT 1 FROM META_DATA_CAPTURE WHERE name LIKE 'TRACELENS%' LIMIT 1"
            return db.execute(said).fetchone() is None
    except sqlite3.Error:
        return True


def _rank(trace: Path) -> int | None:
    number = trace.name.removeprefix("trace").removesuffix(".json.gz").removeprefix(".rank")
    return int(number) if number.isdecimal() else None


RECORDER = Torch()

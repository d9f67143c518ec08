"""Measuring the ceilings of a device: processes are started, heard, and replaced if they die."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracelens import __version__, tools
from tracelens.bench import job, processes
from tracelens.bench.job import Job
from tracelens.errors import CaptureError
from tracelens.hardware.measured import Failed, Measured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracelens.bench.job import Line
    from tracelens.hardware.measured import Result

CHILD: Final = ("-m", "tracelens.bench.child")
QUICK_S: Final = 240.0
LONG_S: Final = 1200.0
"""How long a process may take; what it has not come to by then is not measured."""

_DEATHS: Final = 5


@dataclass
class _Heard:
    """What the processes have answered so far."""

    device: str = ""
    is_gpu: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    begun: str | None = None
    said: str | None = None
    passed: int = 0
    over: bool = False


def measure(
    device: str, say: Callable[[str], None], *, quick: bool = False, ranks: int | None = None
) -> Measured:
    """Measure everything on a device, and an all-reduce if there are several GPUs.

    Args:
        device: `auto` (the first GPU, or else the processor), `cpu`, or the number of a GPU.
        say: told how far it has come.
        quick: in fewer sizes and less time.
        ranks: of the all-reduce; None: as many as there are GPUs, or none if one was named.

    Raises:
        CaptureError: torch is not installed, there is no such GPU, or nothing could be measured.
    """
    if importlib.util.find_spec("torch") is None:
        raise CaptureError(
            "Measuring needs PyTorch: pip install 'tracelens-gpu[capture]' (or torch itself)."
        )
    made = datetime.now().astimezone().isoformat(timespec="seconds")
    heard = _Heard()
    asked = Job(device=device, quick=quick)
    limit_s = QUICK_S if quick else LONG_S
    for _ in range(_DEATHS):
        _listen(replace(asked, skip=heard.passed), heard, say, limit_s)
        if heard.over:
            break
    else:
        heard.failed.append(Failed("the rest", f"{_DEATHS} processes that measured died"))
    if ranks is None:
        ranks = int(heard.facts.get("gpus", 1)) if device == "auto" else 1
    if ranks > 1:
        say(f"all_reduce among {ranks} processes")
        _all_reduce(asked, heard, ranks, limit_s)
    if not heard.results:
        why = heard.failed[0].why if heard.failed else "no reason was given"
        raise CaptureError(f"Nothing could be measured: {why}")
    return Measured(
        device=heard.device,
        made=made,
        results=heard.results,
        failed=heard.failed,
        quick=quick,
        environment=heard.facts,
        tracelens=__version__,
    )


def _listen(asked: Job, heard: _Heard, say: Callable[[str], None], limit_s: float) -> None:
    """Run one process, and take in its answers until it ends.

    Raises:
        CaptureError: it died before it came to measure.
    """
    command = [sys.executable, *CHILD, job.encode(asked)]
    with tempfile.TemporaryFile() as chatter:
        process = subprocess.Popen(  # noqa: S603 (our own program)
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=chatter,
            start_new_session=True,
        )
        ended = threading.Event()

        def end() -> None:
            ended.set()
            processes.end(process)

        watch = threading.Timer(limit_s, end)
        watch.start()
        try:
            with process:
                for text in process.stdout or ():
                    _take(job.said(text), heard, say)
        finally:
            watch.cancel()
            if process.poll() is None:
                processes.end(process)
                process.wait()
        if heard.over:
            return
        late = f"it was ended after {limit_s:g} s" if ended.is_set() else ""
        why = late or processes.last_words(chatter, process.returncode)
    if heard.begun is None and not heard.passed:
        raise CaptureError(f"Nothing can be measured here: {why}")
    if heard.begun is not None:
        heard.failed.append(Failed(heard.begun, f"the process died: {why}"))
        heard.passed += 1
        heard.begun = None
    if late:
        heard.failed.append(Failed("the rest", late))
        heard.over = True


def _take(line: Line, heard: _Heard, say: Callable[[str], None]) -> None:
    """Take in one answer."""
    heard.facts |= line.facts
    if line.device is not None:
        if not heard.device:
            say(f"Measuring {tools.plain(line.device)}")
        heard.device, heard.is_gpu = line.device, line.is_gpu
    elif line.begun is not None:
        if line.begun != heard.said:
            say(line.begun)
        heard.begun = heard.said = line.begun
        return
    elif line.over:
        heard.over = True
    else:
        heard.results += [line.result] if line.result else []
        heard.failed += [line.failed] if line.failed else []
        heard.passed += 1
    heard.begun = None


def _all_reduce(asked: Job, heard: _Heard, ranks: int, limit_s: float) -> None:
    """Measure an all-reduce among processes of its own."""
    backend = "nccl" if heard.is_gpu else "gloo"
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answers"
        program = ["-m", "tracelens.bench.ranks", job.encode(replace(asked, backend=backend))]
        why = _run([sys.executable, *launcher, *program, str(file)], limit_s)
        lines = file.read_bytes().splitlines() if file.is_file() else []
    heard.results += [found for text in lines if (found := job.said(text).result)]
    if why:
        heard.failed.append(Failed("all_reduce", why))


def _run(command: Sequence[str], limit_s: float) -> str:
    """Run a program of ours; return why it failed, or nothing."""
    variables = {**os.environ}
    variables.setdefault("OMP_NUM_THREADS", "1")  # as torchrun itself would, with a warning
    with tempfile.TemporaryFile() as chatter:
        process = subprocess.Popen(  # noqa: S603 (our own program)
            command,
            stdin=subprocess.DEVNULL,
            stdout=chatter,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=variables,
        )
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"it was ended after {limit_s:g} s"
        finally:
            if process.poll() is None:
                processes.end(process)
                process.wait()
        return processes.last_words(chatter, status) if status else ""

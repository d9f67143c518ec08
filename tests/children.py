"""Workloads written in a test, and the processes that run them in a pass, as a capture does."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

from tracelens.capture import job
from tracelens.capture.recorder import Wanted
from tracelens.marks.ranges import RECORDING

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.capture.job import Outcome

TINY: Final = {"m": 8, "n": 8, "k": 8, "dtype": "fp32", "repeats": 2}
_WORKLOAD: Final = """
    from dataclasses import dataclass
    import os, time
    import torch
    import tracelens
    from tracelens.errors import UsageError
    from tracelens.workload import Workload

    RANK = int(os.environ.get("RANK", 0))

    @dataclass(frozen=True, kw_only=True)
    class Written(Workload):
        def program(self, device):
            built(device)
            return self

        def step(self):
            global at
            with tracelens.step():
                step(at)
            at += 1

    at = 0
    WORKLOAD = Written

    def built(device):
        pass

    def step(number):
        with tracelens.phase("forward"):
            torch.ones(3) + number

"""


def distribution(folder: Path, text: str) -> Path:
    """Make a distribution that adds a workload named `written`, by an entry point.

    Args:
        folder: where; put it on PYTHONPATH.
        text: functions `built(device)` and `step(number)` where they are not to be as above.
    """
    info = folder / "written-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: written\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tracelens.workload]\nwritten = written:WORKLOAD\n")
    module = textwrap.dedent(_WORKLOAD) + textwrap.dedent(text)
    (folder / "written.py").write_text(module)
    return folder


def of_workload(
    recorder: str, folder: Path, workload: str = "matmul", *, seed: int = 0, **wanted: Any
) -> job.Job:
    """Return a pass over a workload on the CPU: by default 2 + 3 steps of a tiny product."""
    asked = Wanted(folder, "cpu", **{"warmup": 2, "steps": 3, **wanted})
    return job.Job(recorder, asked, workload, TINY if workload == "matmul" else {}, seed=seed)


def started(one: job.Job, site: Path | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start the processes of a pass."""
    environment = {**os.environ, job.JOB: str(job.save(one)), "OMP_NUM_THREADS": "1"}
    environment |= {"TORCH_CPP_LOG_LEVEL": "ERROR"}
    if one.recorder != "timer":
        environment[RECORDING] = one.recorder
    if site:
        others = [path for path in [environment.get("PYTHONPATH")] if path]
        environment["PYTHONPATH"] = os.pathsep.join([str(site), *others])
    command = [sys.executable, "-m", "tracelens.capture.child"]
    if (count := one.wanted.processes or 1) > 1:
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(one: job.Job, site: Path | None = None, **options: Any) -> tuple[int, list[Outcome], str]:
    """Run a pass; return its exit status, what its processes answered, and what they printed."""
    with started(one, site, **options) as process:
        out, err = process.communicate(timeout=60)
    assert out == ""
    return process.returncode, job.outcomes(one), err

"""Programs of a user, written in a test, and run as a pass of a capture runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.marks.recorded import paths
from tracelens import registry
from tracelens.capture import job, plan
from tracelens.capture.recorder import Wanted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOOP: Final = """
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 1)

        def forward(self, x):
            return self.second(self.first(x).relu())

    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = [torch.randn(2, 4) for _ in range(20)]
"""
TRAIN: Final = """
    for batch in data:
        loss = model(batch).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print("end of the program")
"""
STEP: Final = [
    "step",
    "step > forward",
    "step > forward > Model",
    "step > forward > Model > first",
    "step > forward > Model > second",
    "step > backward",
    "step > backward > Model",
    "step > backward > Model > second",
    "step > backward > Model > first",
    "step > optimizer",
]


@dataclass(frozen=True)
class Ran:
    """What came of a program."""

    outcomes: list[job.Outcome]
    output: str
    status: int
    folder: Path

    @property
    def outcome(self) -> job.Outcome:
        """What its only process answered."""
        (only,) = self.outcomes
        return only

    def marks(self, name: str = "trace.json.gz") -> list[str]:
        """Return the marks that were recorded."""
        return paths(self.folder / name)


def ran(
    folder: Path,
    program: str,
    *,
    recorder: str = "torch",
    command: Sequence[str] = (sys.executable, "program.py"),
    stop: bool = True,
    variables: dict[str, str] | None = None,
    **wanted: Any,
) -> Ran:
    """Run a program under a recorder: 1 warm-up and 2 recorded steps unless told otherwise."""
    run = folder / "run"
    run.mkdir()
    (folder / "program.py").write_text(textwrap.dedent(program))
    asked = Wanted(run, "cpu", **{"warmup": 1, "steps": 2, "processes": None, **wanted})
    one = job.Job(recorder, asked, stop=stop)
    planned = plan.Planned(recorder, registry.load("recorder", recorder), {})
    request = plan.Request("program", program=tuple(command))
    own = {**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})}
    done = subprocess.run(
        command,
        cwd=folder,
        env=plan.environment(request, planned, job.save(one), own),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return Ran(job.outcomes(one), done.stdout, done.returncode, run)

"""What the measuring process is asked, and the lines that it answers, one JSON object each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from tracelens.hardware.measured import Failed, Result  # noqa: TC001 (msgspec reads the annotations)


@dataclass(frozen=True)
class Job:
    """What is asked of a process.

    Attributes:
        device: `auto`, `cpu`, or the number of a GPU.
        quick: fewer sizes, and less time for each.
        skip: how many cases an earlier process has come through, or died of.
        backend: of torch.distributed, where ranks are asked.
    """

    device: str = "auto"
    quick: bool = False
    skip: int = 0
    backend: str = "gloo"


@dataclass(frozen=True)
class Line:
    """One answer.

    Attributes:
        begun: name of the case that is next.
        result: of the case that was begun.
        failed: why there is none.
        device: what is measured; said once, first.
        facts: circumstances; said first and last.
        is_gpu: whether it is no CPU.
        over: whether this is the last line.
    """

    begun: str | None = None
    result: Result | None = None
    failed: Failed | None = None
    device: str | None = None
    is_gpu: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    over: bool = False


def encode(job: Job) -> str:
    """Return a job as one argument of a command line."""
    return msgspec.json.encode(job).decode()


def decode(text: str) -> Job:
    """Return the job of an argument."""
    return msgspec.json.decode(text, type=Job)


def line(answer: Line) -> bytes:
    """Return an answer as a line."""
    return msgspec.json.encode(answer) + b"\n"


def said(text: bytes) -> Line:
    """Return the answer of a line."""
    return msgspec.json.decode(text, type=Line)

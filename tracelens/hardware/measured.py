"""Files of measured ceilings: what a machine was seen to reach, when, and by which software.

A file is one JSON object, written by `tracelens bench ceilings`; the attributes of `Measured` are
its keys. `place` says where the user's own file of a GPU is kept.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from tracelens.errors import UnreadableError

SCHEMA: Final = 1
KIND: Final = "ceilings"
_LARGEST_BYTES: Final = 64 << 20

Unit = Literal["bytes_per_s", "flops_per_s", "s"]


@dataclass(frozen=True)
class Result:
    """One thing measured in one size.

    Attributes:
        name: `copy`, `read`, `fill`, `to_device`, `to_host` (bandwidths), `matmul.bf16`, ...,
            `launch` (time from one launch to the next), `call` (time that the host is held by a
            launch), `all_reduce`.
        unit: of `value`: a rate by the median time, or the median time itself.
        value: what was reached.
        median_s: median time of once.
        mad_s: median absolute deviation of the samples from it, not scaled.
        samples_s: every sample, in their order; where many were run between two clock readings,
            one sample is the time of one.
        size: what was done: `{"bytes": …}` that are moved (read and written), `{"m", "n", "k"}`,
            `{"bytes", "ranks"}`.
        clock: what was read.
        settled: whether the median was known to the wanted precision when it ended.
        note: what else is to be known: the backend, the kind of memory.
    """

    name: str
    unit: Unit
    value: float
    median_s: float
    mad_s: float
    samples_s: list[float]
    size: dict[str, int]
    clock: Literal["CUDA events", "wall clock"]
    settled: bool = True
    note: str = ""


@dataclass(frozen=True)
class Failed:
    """A thing that could not be measured, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Measured:
    """What a machine was seen to reach.

    Attributes:
        device: what CUDA calls the GPU; the processor's name where there is none.
        made: local time with its offset, ISO 8601.
        results: of every thing in every size.
        failed: what could not be measured.
        quick: whether it was measured in fewer sizes and less time.
        environment: versions, driver, and clocks, power and temperature as they were found.
        kind: `ceilings`.
        schema: 1.
        tracelens: the version that wrote it.
    """

    device: str
    made: str
    results: list[Result]
    failed: list[Failed] = field(default_factory=list)
    quick: bool = False
    environment: dict[str, Any] = field(default_factory=dict)
    kind: str = KIND
    schema: int = SCHEMA
    tracelens: str = ""

    @property
    def said(self) -> str:
        """When and on what it was measured, in a few words."""
        driver = self.environment.get("driver")
        by = f", driver {driver}" if isinstance(driver, str) and driver else ""
        return f"measured {self.made[:10]} on {self.device}{by}"


def folder() -> Path:
    """Return the user's data folder: `TRACELENS_DATA_DIR`, or the platform's usual place."""
    if chosen := os.environ.get("TRACELENS_DATA_DIR"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "tracelens"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "tracelens" / "data"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tracelens"


def place(device: str) -> Path:
    """Return where the user's own file of a GPU is, or would be."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", device).strip("-")[:60] or "unnamed"
    if plain.replace("-", " ") != device:  # two GPUs may have names that differ in what is lost
        plain += "-" + hashlib.blake2b(device.encode("utf-8", "replace"), digest_size=4).hexdigest()
    return folder() / "ceilings" / f"{plain}.json"


def encode(measured: Measured) -> str:
    """Return what a file of it holds."""
    return msgspec.json.format(msgspec.json.encode(measured), indent=1).decode() + "\n"


def load(file: Path) -> Measured:
    """Return what a file says.

    Raises:
        UnreadableError: it cannot be read, is damaged, is of something else, or is of a newer
            tracelens.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise UnreadableError(f"{file} cannot be read: {error.strerror or error}.") from error
    if len(content) > _LARGEST_BYTES:
        raise UnreadableError(f"{file} is too large for a file of measured ceilings.")
    try:
        _check_kind(content)
        found = msgspec.json.decode(content, type=Measured)
        _check_numbers(found)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableError(
            f"{file} is no file of measured ceilings: {error}. "
            "`tracelens bench ceilings -o FILE` writes one."
        ) from error
    return found


class _Head(msgspec.Struct):
    kind: str = ""
    schema: int = 0


def _check_kind(content: bytes) -> None:
    head = msgspec.json.decode(content, type=_Head)
    if head.kind != KIND:
        raise ValueError(f"its kind is {head.kind[:40]!r}" if head.kind else "it has no kind")
    if head.schema != SCHEMA:
        raise ValueError(f"it has schema {head.schema}, and this tracelens knows {SCHEMA}")


def _check_numbers(found: Measured) -> None:
    for one in found.results:
        numbers = (one.value, one.median_s, *one.samples_s)
        if not all(math.isfinite(number) and number > 0 for number in numbers):
            raise ValueError(f"{one.name[:40]!r} has a number that is not above zero")

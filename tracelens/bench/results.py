"""Files of what kernels were measured to take: rows, failures, and the circumstances of both.

A file is one JSON object, written by `tracelens bench KERNEL` anew after every cell; the
attributes of `Results` are its keys.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import shlex
import zlib
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec

from tracelens import kernel as kernels
from tracelens.bench.cell import Cell, Failure, Row  # noqa: TC001 (msgspec reads the annotations)
from tracelens.errors import CaptureError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

KIND: Final = "bench"
SCHEMA: Final = 1
_LARGEST_BYTES: Final = 512 << 20
_HEAD_BYTES: Final = 256
_MOST: Final = 2**63
"""Counts are below it: tables hold them in 64 bits."""

Place = tuple[str, str, tuple[tuple[str, int], ...], str]
"""Kernel, operation, shape and format: a file has one cell of each."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why an implementation of a cell has no rows, and what measures that cell again.

    Attributes:
        kernel: as in the cell, and so are `operation`, `shape` and `dtype`.
        implementation: see `Failure`, as the next four; "": all of the cell.
        stage: `cannot`: it says so itself; else how far it came.
        error: class of the exception; the signal, or `Timeout`, where the process was lost.
        message: what it says.
        traceback: the last frames.
        command: a command line.
    """

    kernel: str
    operation: str
    shape: dict[str, int]
    dtype: str
    implementation: str
    stage: str
    error: str = ""
    message: str = ""
    traceback: str = ""
    command: str = ""

    @property
    def is_cannot(self) -> bool:
        """Whether it was not tried, since the implementation says that it cannot."""
        return self.stage == "cannot"

    @property
    def place(self) -> Place:
        """Which cell it is of."""
        return self.kernel, self.operation, tuple(self.shape.items()), self.dtype


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was measured, and what is still to be.

    Attributes:
        cells: all that was asked for.
        done: numbers of the cells that have been measured, or have failed.
        rows: of these cells.
        failed: and why some have none.
        device: what CUDA calls the GPU; the processor's name; "": nothing was measured yet.
        made: when it was begun, local time with its offset, ISO 8601.
        command: the command line.
        environment: versions, driver, git commit, variables, the GPU before and after.
        kind: `bench`.
        schema: 1.
        tracelens: the version that wrote it.
    """

    cells: tuple[Cell, ...]
    done: tuple[int, ...] = ()
    rows: tuple[Row, ...] = ()
    failed: tuple[Failed, ...] = ()
    device: str = ""
    made: str = ""
    command: tuple[str, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)
    kind: str = KIND
    schema: int = SCHEMA
    tracelens: str = ""

    @property
    def waiting(self) -> tuple[int, ...]:
        """The numbers of the cells that are still to be measured."""
        return tuple(number for number in range(len(self.cells)) if number not in self.done)

    def with_cell(
        self, number: int, rows: Iterable[Row], failures: Iterable[Failure], /, **changed: Any
    ) -> Results:
        """Return it with a cell done, in place of what it may have held of that cell."""
        cell = self.cells[number]
        mine = place_of(cell)
        failed = (failed_of(cell, failure) for failure in failures)
        return replace(
            self,
            done=tuple(sorted({*self.done, number})),
            rows=(*(row for row in self.rows if place_of(row) != mine), *rows),
            failed=(*(one for one in self.failed if one.place != mine), *failed),
            **changed,
        )

    def without_failed(self) -> Results:
        """Return it with the cells that failed to be measured again; what cannot be, is not."""
        again = {one.place for one in self.failed if not one.is_cannot}
        done = [number for number in self.done if place_of(self.cells[number]) not in again]
        return replace(self, done=tuple(done))

    def only(self, names: Collection[str]) -> Results:
        """Return what it has of these kernels."""
        kept = [number for number, cell in enumerate(self.cells) if cell.kernel in names]
        return replace(
            self,
            cells=tuple(self.cells[number] for number in kept),
            done=tuple(new for new, number in enumerate(kept) if number in self.done),
            rows=tuple(row for row in self.rows if row.kernel in names),
            failed=tuple(one for one in self.failed if one.kernel in names),
        )


def place_of(one: Cell | Row) -> Place:
    """Return which cell it is, or is of."""
    return one.kernel, one.operation, tuple(one.shape.items()), one.dtype


def failed_of(cell: Cell, failure: Failure) -> Failed:
    """Return a failure with the cell that it is of."""
    return Failed(
        kernel=cell.kernel,
        operation=cell.operation,
        shape=cell.shape,
        dtype=cell.dtype,
        command=command_of(cell),
        **{name: getattr(failure, name) for name in failure.__dataclass_fields__},
    )


def command_of(cell: Cell) -> str:
    """Return the command line that measures a cell again, by itself."""
    others = [name for name in cell.implementations if name != kernels.OURS]
    parts = ["tracelens", "bench", cell.kernel.replace("_", "-"), "--operation", cell.operation]
    parts += ["--shapes", kernels.spell(cell.shape), "--dtype", cell.dtype]
    parts += ["--baseline", ",".join(others) or "none"]
    parts += ["--quantity", ",".join(cell.quantities), "--l2", ",".join(cell.l2)]
    parts += ["--device", cell.device] if cell.device != "auto" else []
    parts += ["--seed", str(cell.seed)] if cell.seed else []
    parts += ["--default-config"] if cell.config == "default" else []
    return shlex.join(parts)


def encode(results: Results) -> bytes:
    """Return what a file of it holds; a row or failure is a line of it."""
    told = msgspec.to_builtins(replace(results, cells=(), rows=(), failed=()))
    lists = {name: getattr(results, name) for name in ("cells", "rows", "failed")}
    parts = [
        msgspec.json.encode(name) + b": " + _list(lists[name])
        if name in lists
        else msgspec.json.encode(name) + b": " + msgspec.json.encode(value)
        for name, value in sorted(told.items(), key=lambda one: _ORDER.get(one[0], len(_ORDER)))
    ]
    return b"{\n" + b",\n".join(parts) + b"\n}\n"


def save(results: Results, file: Path) -> None:
    """Write a file, beside its place and renamed into it, so that whoever reads it finds it whole.

    It is packed if its name ends in `.gz`.

    Raises:
        CaptureError: it cannot be written.
    """
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        beside.write_bytes(_packed(encode(results)) if file.suffix == ".gz" else encode(results))
        beside.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise CaptureError(f"{file} cannot be written: {error.strerror or error}.") from error


def are_results(file: Path) -> bool:
    """Tell whether a file says that it is one of results of kernels; it may be damaged still."""
    try:
        with _opened(file) as stream:
            head = stream.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return False  # a folder, or what opening it will tell
    return f'"kind":"{KIND}"'.encode() in b"".join(head.split())


def load(file: Path) -> Results:
    """Return what a file says.

    Raises:
        UnreadableError: it cannot be read, is damaged, is of something else, or is of a newer
            tracelens.
    """
    try:
        with _opened(file) as stream:
            content = stream.read(_LARGEST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise UnreadableError(f"{file} cannot be read: {why}.") from error
    try:
        return _decoded(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableError(
            f"{file} holds no results of `tracelens bench KERNEL`: {error}."
        ) from error


_ORDER: Final = {
    name: number
    for number, name in enumerate(
        ("kind", "schema", "tracelens", "made", "device", "command", "environment", "done", "cells",
         "failed", "rows")
    )
}  # fmt: skip


def _opened(file: Path) -> IO[bytes]:
    """Open a file, packed by gzip or not."""
    stream = file.open("rb")
    if stream.peek(2)[:2] != b"\x1f\x8b":
        return stream
    stream.close()
    return gzip.open(file, "rb")  # type: ignore[return-value]


def _packed(content: bytes) -> bytes:
    """Pack it, the same at any time."""
    return gzip.compress(content, mtime=0)


class _Head(msgspec.Struct):
    kind: str = ""
    schema: int = 0


def _list(values: tuple[object, ...]) -> bytes:
    lines = b",\n ".join(msgspec.json.encode(value) for value in values)
    return b"[\n " + lines + b"\n]" if lines else b"[]"


def _decoded(content: bytes) -> Results:
    if len(content) > _LARGEST_BYTES:
        raise ValueError("it is too large")
    head = msgspec.json.decode(content, type=_Head)
    if head.kind != KIND:
        raise ValueError(f"its kind is {head.kind[:40]!r}" if head.kind else "it has no kind")
    if head.schema != SCHEMA:
        raise ValueError(f"it has schema {head.schema}, and this tracelens knows {SCHEMA}")
    found = msgspec.json.decode(content, type=Results)
    for row in found.rows:
        _check(row)
    if any(not 0 <= number < len(found.cells) for number in found.done):
        raise ValueError("a cell is done that there is not")
    return found


def _check(row: Row) -> None:
    times = (row.median_s, *row.samples_s)
    if not all(math.isfinite(one) and one > 0 for one in times):
        raise ValueError(f"{row.implementation[:40]!r} has a time that is not above zero")
    counts = (row.n, row.calls, row.flops, row.bytes, row.input_bytes, row.sets, row.flushed_bytes,
              row.throttled, row.seed)  # fmt: skip
    if not all(0 <= one < _MOST for one in counts):
        raise ValueError(f"{row.implementation[:40]!r} has a count that is below zero or too large")
    if row.low_s is not None and row.high_s is not None and not row.low_s <= row.high_s:
        raise ValueError(f"{row.implementation[:40]!r} has an interval that ends before it begins")

"""Asking a trace: from a file or a builder to rows of a table and phases of kernels."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tracelens.__main__ import run
from tracelens.links.linked import Cut, Linked, link
from tracelens.readers.open import open_trace
from tracelens.tables import build
from tracelens.trace import store

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from tests.build import Nsys
    from tracelens.trace.model import Trace

Row = dict[str, Any]
Nobody = tuple[Path, Callable[[], AbstractContextManager[None]]]
"""What the fixture `nobody` gives: a folder, and a context in which one is not root."""


def opened(trace: Nsys, folder: Path) -> Trace:
    """Return what the reader makes of the trace, by way of an SQLite export and without cache."""
    return open_trace(trace.write(folder / "run.sqlite"), cache=False)


def linked(trace: Nsys | Path, folder: Path | None = None, **cut: Any) -> Linked:
    """Return a file, or a trace by way of a file in ``folder``, with its work attributed."""
    if folder is None:
        return link(open_trace(trace, cache=False), Cut(**cut))  # type: ignore[arg-type]
    return link(opened(trace, folder), Cut(**cut))  # type: ignore[arg-type]


def table(of: Linked, name: str) -> list[Row]:
    """Return the rows of a table."""
    return build.fill(of, name).frame.to_dicts()


def nearly(rows: Sequence[Row]) -> list[Row]:
    """Round what is no integer: sums of floats depend on their order in the last digits."""
    return [
        {k: float(f"{v:.9g}") if isinstance(v, float) else v for k, v in row.items()}
        for row in rows
    ]


def the_row(of: Linked, name: str) -> Row:
    """Return the only row of a table."""
    (row,) = table(of, name)
    return row


def column(of: Linked, name: str, key: str, value: str) -> Row:
    """Return one column of a table by another one."""
    return {row[key]: row[value] for row in table(of, name)}


def phase_of(of: Linked) -> dict[str, tuple[str | None, str]]:
    """Return kernel name -> its phase, and how it came by it; every name must stand once."""
    ops = of.ops.join(of.names, on=["name_id", "kind"], how="left")
    found = ops.select("name", pl.col("phase").cast(pl.String), pl.col("how").cast(pl.String))
    assert found["name"].is_unique().all()
    return {name: (phase, how) for name, phase, how in found.iter_rows()}


def texts(trace: Trace, frame: str, *columns: str) -> list[tuple[Any, ...]]:
    """Return some columns of a table of the trace, with `name` in place of `name_id`."""
    named = trace[frame].join(trace["names"], on="name_id", how="left", maintain_order="left")
    return named.select(columns).collect().rows()


@dataclass(frozen=True)
class Said:
    """What a command wrote, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it wrote, parsed."""
        return json.loads(self.out)


class Shell:
    """Runs commands in this process, as a shell would."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: object) -> Said:
        """Run `tracelens` with the arguments."""
        self._capture.readouterr()
        status = run([str(argument) for argument in arguments])
        store.flush()
        said = self._capture.readouterr()
        return Said(status, said.out, said.err)

"""Counters of Nsight Compute, recorded apart, given to the kernels of a trace that they are of.

Two recordings of one program launch the same kernels in the same order. Kernels are paired where
the whole order agrees: the function's own name, grid and block, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.classify.normalise import parts
from tracelens.errors import NothingToShowError
from tracelens.links.launch_shapes import SHAPE, launch_shapes
from tracelens.links.linked import link
from tracelens.trace.intervals import window
from tracelens.trace.model import Caveat
from tracelens.trace.schema import OP_COUNTERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.links.linked import Linked
    from tracelens.trace.model import Trace

_SIZES: Final = SHAPE[:6]
_KEY: Final = ("head", *_SIZES)


@dataclass(frozen=True)
class Joined:
    """A trace with counters, where they are of its kernels.

    Attributes:
        trace: the trace; with `op_counters` where `kernels` is not 0.
        kernels: how many of its kernels have counters.
        said: how many were paired, or why none were.
    """

    trace: Trace
    kernels: int
    said: str


def joined(trace: Trace, apart: Trace) -> Joined:
    """Give the counters of a recording by Nsight Compute to the kernels of a trace.

    The kernels of the whole trace, or of each of its steps, must be those that were measured, in
    the same order; either may be longer: ncu stops after as many launches as were asked for. Where
    it was told to measure some kernels alone, those with other names are passed over. The counters
    of one step go to every step that has the same kernels.

    Args:
        trace: of a program.
        apart: of the same program, with `op_counters`.
    """
    measured = _kernels(link(apart))
    linked = link(trace)
    name = apart.source.path.name
    whole = _kernels(linked).join(measured, on="head", how="semi", maintain_order="left")
    steps = [some for some in _steps(linked, whole) if _fits(some, measured)]
    fitting = [whole] if _fits(whole, measured) else []
    if _pairs(steps, measured) > _pairs(fitting, measured):
        fitting = steps
    if not fitting:
        why = _why_not(whole if whole.height else _kernels(linked), measured)
        said = (
            f"Counters of {name} are not joined to these kernels: {why}. "
            f"tracelens roofline {name} shows them by kernel."
        )
        return Joined(trace.with_caveats(Caveat("note", said)), 0, said)
    pairs = pl.concat(
        pl.DataFrame({"op_id": some["op_id"][:count], "was": measured["op_id"][:count]})
        for some in fitting
        for count in [min(some.height, measured.height)]
    )
    counters = (
        apart["op_counters"]
        .rename({"op_id": "was"})
        .join(pairs.lazy(), on="was", how="inner")
        .select(list(OP_COUNTERS.schema()))
    )
    said = (
        f"{pairs.height:,} of {linked.ops.filter(pl.col('kind') == 'kernel').height:,} kernels "
        f"have the counters of {name}: the same names{_and_sizes(measured)} in the same order. "
        "Operations and bytes are what the GPU counted, in runs of single kernels with cold "
        "caches; times are those of the trace."
    )
    known = replace(trace, tables={**trace.tables, "op_counters": counters})
    return Joined(known.with_caveats(Caveat("note", said)), pairs.height, said)


def _pairs(fitting: Sequence[pl.DataFrame], measured: pl.DataFrame) -> int:
    return sum(min(some.height, measured.height) for some in fitting)


def _kernels(linked: Linked) -> pl.DataFrame:
    """Return op_id and what tells kernels apart, in the order of their launches."""
    try:
        sizes = launch_shapes(linked).select(_SIZES)
    except NothingToShowError:
        empty = [pl.lit(None, pl.Int32).alias(name) for name in _SIZES]
        sizes = linked.ops.select(empty)
    heads = linked.names.filter(pl.col("kind") == "kernel").select(
        "name_id", head=pl.col("name").map_elements(_head, return_dtype=pl.String)
    )
    return (
        linked.ops.hstack(sizes)
        .filter(pl.col("kind") == "kernel")
        .join(heads, on="name_id", how="left", maintain_order="left")
        .sort(pl.coalesce("launch_ns", "start_ns"), "start_ns", "op_id")
        .select("op_id", *_KEY)
    )


def _head(name: str) -> str:
    """Return a function's own name: scopes and arguments are spelt differently."""
    found = parts(name)
    inner = found.inner.partition("<")[0] if found.head == "Kernel2" else ""
    return f"{found.head}<{inner}>" if inner else found.head


def _steps(linked: Linked, whole: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Give those of the kernels that each step launched."""
    for pid, start, end in linked.steps.select("pid", "start_ns", "end_ns").iter_rows():
        inside = window(linked.ops, "launch_ns", ((pid, start, end),)).select("op_id")
        yield whole.join(inside, on="op_id", how="semi", maintain_order="left")


def _fits(mine: pl.DataFrame, measured: pl.DataFrame) -> bool:
    count = min(mine.height, measured.height)
    return count > 0 and _first_difference(mine, measured) is None


def _first_difference(mine: pl.DataFrame, measured: pl.DataFrame) -> int | None:
    """Return the first place at which two orders of kernels differ; sizes count where known."""
    count = min(mine.height, measured.height)
    differs = pl.Series([False]).new_from_index(0, count)
    for name in _KEY:
        differs |= (mine[name][:count] != measured[name][:count]).fill_null(value=False)
    return differs.arg_max() if differs.any() else None


def _why_not(mine: pl.DataFrame, measured: pl.DataFrame) -> str:
    if mine.is_empty() or measured.is_empty():
        return "one of the recordings has no kernels"
    place = _first_difference(mine, measured) or 0
    one, other = (_said(some, place) for some in (mine, measured))
    return f"kernel {place + 1} is {one} in the one recording and {other} in the other"


def _said(kernels: pl.DataFrame, place: int) -> str:
    row = kernels.row(place, named=True)
    grid, block = ([row[f"{what}_{axis}"] for axis in "xyz"] for what in ("grid", "block"))
    return row["head"][:60] if None in (*grid, *block) else f"{row['head'][:60]} {grid} {block}"


def _and_sizes(measured: pl.DataFrame) -> str:
    return ", grids and blocks" if measured["grid_x"].null_count() < measured.height else ""

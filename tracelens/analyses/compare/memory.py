"""The memory of two runs side by side: peaks by device, and which categories and lines grew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.errors import NothingToShowError

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

    from tracelens.analyses.compare.side import Memory, Side

PEAKS: Final[dict[str, PolarsDataType]] = {
    "device": pl.Int32,
    "what": pl.String,
    "a_bytes": pl.Int64,
    "b_bytes": pl.Int64,
    "difference_bytes": pl.Int64,
    "change": pl.Float64,
}
_HEADS: Final = {"peak_active_bytes": "peak active", "peak_reserved_bytes": "peak reserved"}


def peaks(a: Side, b: Side) -> pl.DataFrame:
    """Return a row per device and kind of peak: `PEAKS`.

    Devices are told apart by their order, since a run may use any of the GPUs that are there.

    Raises:
        NothingToShowError: one of the sides has no memory recorded.
    """
    mine, other = (
        _placed(memory.peaks)
        .unpivot(list(_HEADS), index="device", variable_name="what", value_name="bytes")
        .with_columns(pl.col("what").replace(_HEADS))
        for memory in _both(a, b)
    )
    return _side_by_side(mine, other, ["device", "what"]).select(
        pl.col(name).cast(of) for name, of in PEAKS.items()
    )


def held(a: Side, b: Side) -> pl.DataFrame:
    """Return what was live at the peaks, by category and line, the largest difference first.

    Columns: device, category, site, a_bytes, b_bytes, difference_bytes and change. Differences add
    up to that of the active peaks, to the byte. Raises NothingToShowError as `peaks` does.
    """
    key = ["device", "category", "site"]
    mine, other = (
        _placed(memory.held).group_by(key).agg(pl.col("bytes").sum()) for memory in _both(a, b)
    )
    both = _side_by_side(mine, other, key, absent=0)
    return both.sort(pl.col("difference_bytes").abs(), *key, descending=[True, *[False] * 3])


def highest(side: Side, column: str = "peak_active_bytes") -> int | None:
    """Return the highest peak of any device; None where none is known."""
    if side.memory is None:
        return None
    found = side.memory.peaks[column].drop_nulls()
    return int(found.max()) if found.len() else None  # type: ignore[arg-type]


def why_unlike(a: Side, b: Side) -> str:
    """Return why bytes of the two sides do not mean the same; empty where they do."""
    if a.memory is None or b.memory is None or a.memory.kind == b.memory.kind:
        return ""
    says = {
        "snapshot": "bytes that the program asked for",
        "totals": "blocks as the allocator rounds them up",
        "deltas": "what CUDA itself gave out",
        "sums": "the profiler's sums by category",
    }
    one, two = (says.get(memory.kind, memory.kind) for memory in (a.memory, b.memory))
    return f"memory is not counted alike: A has {one}, B {two}"


def _both(a: Side, b: Side) -> tuple[Memory, Memory]:
    missing = [name for name, side in (("A", a), ("B", b)) if side.memory is None]
    if a.memory is None or b.memory is None:
        raise NothingToShowError(
            f"no memory was recorded of {' and '.join(missing)} (a snapshot beside the trace, or "
            "profile_memory=True of torch.profiler)"
        )
    return a.memory, b.memory


def _placed(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with devices counted from 0, in their order."""
    return frame.with_columns(device=(pl.col("device").rank("dense") - 1).cast(pl.Int32))


def _side_by_side(
    mine: pl.DataFrame, other: pl.DataFrame, key: list[str], absent: int | None = None
) -> pl.DataFrame:
    both = mine.rename({"bytes": "a_bytes"}).join(
        other.rename({"bytes": "b_bytes"}), on=key, how="full", coalesce=True, nulls_equal=True
    )
    if absent is not None:
        both = both.with_columns(pl.col("a_bytes", "b_bytes").fill_null(absent))
    difference = pl.col("b_bytes") - pl.col("a_bytes")
    change = pl.when(pl.col("a_bytes") != 0).then(difference / pl.col("a_bytes"))
    return both.with_columns(difference_bytes=difference, change=change).sort(key)

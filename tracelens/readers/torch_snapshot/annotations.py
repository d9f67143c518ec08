"""The ranges that record_function and the optimizers left in a snapshot (external_annotations).

Each is a START and an END on a device, without an id: an END closes the last START of its name.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.trace.nesting import nested
from tracelens.trace.schema import RANGES

if TYPE_CHECKING:
    from tracelens.readers.torch_snapshot.caveats import Said
    from tracelens.readers.torch_snapshot.handed import Handed

_MOST_US: Final = 2**62 // 1000
_MOST_DEVICE: Final = 2**31 - 1


def paired(handed: Handed, said: Said) -> tuple[pl.DataFrame, list[str]] | None:
    """Return a row per START, and the texts of the names, in order of name_id.

    None where no annotations were recorded. `tid` is the device. What was never closed ends with
    the last annotation. ENDs without a START are counted.
    """
    found = handed.whole("annotations")
    if found is None:
        return None
    sound = found.filter(
        pl.col("name") >= 0,
        pl.col("stage") >= 0,
        pl.col("device").is_between(0, _MOST_DEVICE),
        pl.col("time_us").is_between(0, _MOST_US),
    )
    said.add("annotations", found.height - sound.height)
    rows = _paired(sound, handed.texts, said)
    names: dict[str, int] = {}
    for row in rows:
        names.setdefault(handed.texts[row[1]], len(names))
    frame = pl.DataFrame(
        [(device, names[handed.texts[name]], *times) for device, name, *times in rows],
        schema={
            "tid": pl.Int32, "name_id": pl.Int32, "start_ns": pl.Int64, "end_ns": pl.Int64,
            "closed": pl.Boolean,
        },
        orient="row",
    )  # fmt: skip
    return frame, list(names)


def ranges(pairs: pl.DataFrame, last_ns: int | None) -> pl.DataFrame:
    """Return the `ranges` table; a range that was never closed ends with the last event, too."""
    last = pl.when(~pl.col("closed")).then(pl.lit(last_ns, pl.Int64))
    whole = nested(
        pairs.with_columns(pl.max_horizontal("end_ns", last), pid=pl.lit(0, pl.Int32))
    ).with_columns(end_tid=pl.lit(None, pl.Int32), kind=pl.lit("annotation"), domain=pl.lit(""))
    return whole.select(pl.col(n).cast(t) for n, t in RANGES.schema().items())


def _paired(
    sound: pl.DataFrame, texts: list[str], said: Said
) -> list[tuple[int, int, int, int, bool]]:
    """Return device, name, start, end and whether it was closed, of every START."""
    last_us = sound["time_us"].max()
    last_ns = last_us * 1000 if isinstance(last_us, int) else 0
    rows: list[tuple[int, int, int, int, bool]] = []
    began: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for device, name, stage, time_us in sound.select(
        "device", "name", "stage", "time_us"
    ).iter_rows():
        time_ns, starts = time_us * 1000, began[device, name]
        if texts[stage] == "START":
            starts.append(time_ns)
        elif texts[stage] != "END":
            said.add("annotations", 1)
        elif starts:
            start_ns = starts.pop()
            rows.append((device, name, start_ns, max(start_ns, time_ns), True))
        else:
            said.unbegun += 1
    for (device, name), starts in began.items():
        rows.extend((device, name, start, max(start, last_ns), False) for start in starts)
    return rows

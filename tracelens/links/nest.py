"""Ranges of one kind nested among themselves: what is open at a time, and sums over what is inside.

Rows stand thread by thread and lane by lane in order of start, so that what lies inside a range
follows it directly: a sum over it is a difference of two running sums, however deep it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.trace.intervals import at
from tracelens.trace.nesting import nested, timeline

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRACK: Final = ("pid", "tid", "lane")
_PLACE: Final = pl.UInt32


@dataclass(frozen=True)
class Nest:
    """Ranges with their places.

    ``frame`` has the ranges' own columns and `row` (its number), `parent` (the row of the
    innermost range around it on its lane), `until` (the row behind the last one inside), `lane`
    and `depth`.
    """

    frame: pl.DataFrame

    def __getitem__(self, column: str) -> pl.Series:
        """Return one column of the ranges."""
        return self.frame[column]

    def innermost(self, moments: pl.DataFrame) -> pl.Series:
        """Return the row of the range open at each moment that began last, or null.

        Args:
            moments: pid, tid and time_ns; where one of them is null, so is the answer.
        """
        asked = moments.select("pid", "tid", "time_ns").with_row_index("place").drop_nulls()
        threads = asked.partition_by("pid", "tid", as_dict=True)
        parts = [pl.DataFrame(schema={"place": _PLACE, "row": _PLACE})]
        for pid, tid, tracks in self._threads():
            if (mine := threads.get((pid, tid))) is not None:
                parts.append(mine.select("place", row=self._open(tracks, mine["time_ns"])))
        found = pl.concat(parts)
        nothing = pl.repeat(None, moments.height, dtype=_PLACE, eager=True)
        return nothing.scatter(found["place"], found["row"]).rename("row")

    def inside(self, values: pl.Series) -> pl.Series:
        """Return, of a number for each range, the sum over the range and what lies inside."""
        sums = pl.concat([pl.Series([0], dtype=values.dtype), values.cum_sum().rename("")])
        return (sums.gather(self["until"]) - sums.gather(self["row"])).rename(values.name)

    def outermost(self, *labels: str) -> pl.Series:
        """Tell of each range whether none around it bears the same labels."""
        # What bears them and ended after this one began lies around it: they nest.
        reached = pl.col("end_ns").cum_max().shift().over(*_TRACK, *labels)
        fits = (pl.col("start_ns") >= reached).fill_null(value=True)
        return self.frame.select(outermost=fits)["outermost"]

    def inherited(self, values: pl.Series) -> pl.Series:
        """Return each range's value, or that of the innermost range around it that has one."""
        around = self["parent"]
        # Each round looks twice as far up as the one before.
        while around.null_count() < around.len():
            above = values.gather(around)
            values = values.to_frame("own").select(pl.coalesce("own", above))["own"]
            around = around.gather(around)
        return values

    def _threads(self) -> Iterator[tuple[int, int, list[pl.DataFrame]]]:
        """Give pid and tid of each thread, and the ranges of each of its lanes."""
        columns = ("start_ns", "end_ns", "depth", "parent")
        slim = self.frame.select(*_TRACK, *columns, range_id="row")
        for (pid, tid), thread in slim.partition_by(
            "pid", "tid", as_dict=True, maintain_order=True
        ).items():
            yield pid, tid, thread.partition_by("lane", maintain_order=True)

    def _open(self, tracks: list[pl.DataFrame], times: pl.Series) -> pl.Series:
        """Return the row that is open at each time on any of a thread's lanes, the last begun."""
        found = at(*timeline(tracks[0]), times)
        for track in tracks[1:]:
            other = at(*timeline(track), times)
            later = self["start_ns"].gather(other) > self["start_ns"].gather(found)
            found = pl.select(row=pl.when(later).then(other).otherwise(pl.coalesce(found, other)))[
                "row"
            ]
        return found


def nest(ranges: pl.DataFrame) -> Nest:
    """Nest ranges among themselves, whatever other ranges lie between them.

    Args:
        ranges: start_ns, end_ns, pid and tid, and any other columns but those of `Nest`.
    """
    bare = ranges.drop("depth", "lane", "parent", strict=False)
    whole = nested(bare.rename({"range_id": "_range_id"}, strict=False))
    ordered = whole.sort(*_TRACK, "range_id").with_row_index("row")
    places = ordered.sort("range_id")["row"]
    return Nest(
        ordered.with_columns(
            parent=places.gather(ordered["parent"]),
            until=_until(ordered),
        )
        .drop("range_id")
        .rename({"_range_id": "range_id"}, strict=False)
    )


def _until(ordered: pl.DataFrame) -> pl.Series:
    """Return the row behind the last range that lies inside each one: that starts after its end."""
    parts = [pl.Series("until", [], dtype=_PLACE)]
    for track in ordered.partition_by(*_TRACK, maintain_order=True):
        behind = track["start_ns"].search_sorted(track["end_ns"], side="left")
        first = track["row"][0]
        parts.append((behind.cast(_PLACE) + first).rename("until"))
    return pl.select(until=pl.max_horizontal(pl.concat(parts), ordered["row"] + 1))["until"]

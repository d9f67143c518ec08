"""What several rules need of GPU work: kernels by name, idle time by cause, facts of the GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens import units
from tracelens.analyses.families import by_name
from tracelens.analyses.gaps import gaps
from tracelens.analyses.totals import totals
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

LEAST_IDLE: Final = 0.05
"""Of the span. Steps of one program differ by some percent: what is less is lost among them."""

LEAST_SHARE: Final = 0.05
"""Of kernel and graph time: to do away with less would not show beside the noise of steps."""

_LEAST_OF_SPAN: Final = 0.01
"""Where the GPU mostly idles or copies, even all of the kernels are of no account."""


def kernels(linked: Linked) -> pl.DataFrame:
    """Return phase, name, short_name, family, count and time_ns of kernels, by phase and name.

    Raises:
        NothingToShowError: no kernel was recorded.
    """
    ran = by_name(linked).filter(pl.col("kind") == "kernel")
    if ran.is_empty():
        raise NothingToShowError("no kernel was recorded")
    key = ["phase", "name_id", "kind"]
    found = ran.group_by(key, maintain_order=True).agg(pl.col("count", "time_ns").sum())
    named = found.join(linked.names, on=["name_id", "kind"], how="left", maintain_order="left")
    return named.with_columns(pl.col("phase").cast(pl.String))


def time_of(found: pl.DataFrame) -> int:
    """Return the time of rows of `kernels`."""
    return int(found["time_ns"].sum())


def step_count(linked: Linked) -> int:
    """Return how many steps each process did, at least 1."""
    by_process: list[int] = linked.steps.group_by("pid").len()["len"].to_list()
    return max(1, *by_process, 1)


def per_step(linked: Linked, count: int, thing: str) -> str:
    """Return a number of things as text: by the step, where there are several."""
    steps = step_count(linked)
    return many(count // steps, thing) + (" a step" if steps > 1 else "")


def is_worth(linked: Linked, time_ns: int) -> bool:
    """Tell whether a part of kernel time is worth a word: of all work, and of the window."""
    sums = totals(linked).row(0, named=True)
    work_ns = sums["kernel_time_ns"] + sums["graph_time_ns"]
    return time_ns > 0 and time_ns >= max(LEAST_SHARE * work_ns, _LEAST_OF_SPAN * sums["span_ns"])


def many(count: int, thing: str) -> str:
    """Return a number of things as text: `1 gap`, `2 gaps`."""
    return f"{units.count(count)} {thing}{'s' * (count != 1)}"


def share_of_kernels(says: str, time_ns: int, of_ns: int, table: str = "kernels") -> Evidence:
    """Return evidence that a part of all kernel time is."""
    return Evidence(table, says, time_ns / of_ns, "share")


class Idle:
    """The idle time of one cause."""

    def __init__(self, linked: Linked, cause: str) -> None:
        """Look the cause up.

        Raises:
            NothingToShowError: there is no work, or what it waited for was not recorded.
        """
        if linked.ops.is_empty():
            raise NothingToShowError("no GPU work was recorded")
        if linked.trace.get("api") is None:
            raise NothingToShowError(
                "no CUDA calls were recorded, so that nothing tells what the GPU waited for"
            )
        found = gaps(linked)
        mine = found.filter(pl.col("cause") == cause)
        whole = int(found["idle_ns"].sum())
        unknown = int(found.filter(pl.col("cause") == "unknown")["idle_ns"].sum())
        if unknown > whole / 2:
            raise NothingToShowError(
                f"the launches that ended {units.share(unknown / whole)} of the idle time were not "
                "recorded"
            )
        self.span_ns = int(totals(linked)["span_ns"][0])
        self.idle_ns = int(mine["idle_ns"].sum())
        self.gaps = int(mine["gaps"].sum())

    @property
    def share(self) -> float:
        """The part of the span."""
        return self.idle_ns / self.span_ns if self.span_ns else 0.0

    def says(self) -> str:
        """Return how long the GPU idles, of what."""
        return f"The GPU idles {units.time(self.idle_ns)} ({units.share(self.share)})"

    def evidence(self) -> tuple[Evidence, ...]:
        """Return time, share and number of the gaps."""
        return (
            Evidence("gaps", "idle time of this cause", self.idle_ns, "ns"),
            Evidence("gaps", "gaps of this cause", self.gaps, "count"),
            Evidence("totals", "of the span from first to last op", self.share, "share"),
        )


def devices(linked: Linked) -> pl.DataFrame:
    """Return what is known of the GPUs that did the work: rows of `devices`, one per number."""
    table = linked.trace.get("devices")
    if table is None:
        return pl.DataFrame()
    used = linked.ops["device"].drop_nulls().unique().to_list()
    found = table.filter(pl.col("device").is_in(used)).collect()
    return found.unique("device", keep="first", maintain_order=True)


def capability(linked: Linked) -> float:
    """Return the least compute capability of the GPUs that did the work, as 9.0.

    Raises:
        NothingToShowError: it was not recorded.
    """
    facts = devices(linked)
    told = facts["capability"].drop_nulls().cast(pl.Float64, strict=False) if facts.width else None
    if told is None or told.drop_nulls().is_empty():
        raise NothingToShowError("the GPU's compute capability was not recorded")
    return float(told.drop_nulls().min())  # type: ignore[arg-type]


def gpu_name(linked: Linked) -> str:
    """Return the name of the first GPU that did work; empty where not recorded."""
    facts = devices(linked)
    names = facts["name"].drop_nulls() if facts.width else pl.Series([], dtype=pl.String)
    return str(names[0]) if names.len() else ""

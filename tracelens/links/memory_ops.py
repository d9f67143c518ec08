"""Which PyTorch op each allocator event belongs to, by the thread and time that were recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from tracelens.links.linked import Linked
    from tracelens.links.ops import TorchOps

# They do nothing but allocate, for the op around them.
_ALLOCATING: Final = (
    r"^aten::(?:empty|empty_like|empty_strided|empty_quantized|new_empty|new_empty_strided"
    r"|resize_|resize_as_|set_|_efficientzerotensor)$"
)


def allocating(ops: TorchOps, events: pl.DataFrame) -> pl.Series:
    """Return of each event the row of the op that it belongs to, or null.

    That is the innermost one open on its thread that does more than allocate; if all of them do
    nothing else, the innermost.

    Args:
        ops: the trace's.
        events: pid, tid and time_ns.
    """
    plain = ops.names.filter(pl.col("name").str.contains(_ALLOCATING))["name_id"]
    tree = ops.nest
    telling = tree.frame.select(row=pl.when(~pl.col("name_id").is_in(plain.implode())).then("row"))
    meant = tree.inherited(telling["row"])
    innermost = tree.innermost(events)
    return pl.select(row=pl.coalesce(meant.gather(innermost), innermost))["row"]


def launching_phase(linked: Linked, events: pl.DataFrame) -> pl.Series:
    """Return of each event the phase of what its thread launched next; null where it did not.

    For recordings whose phases are inferred from launches: an op allocates before it launches.
    """
    launches = linked.ops.filter(pl.col("launch_ns").is_not_null()).select(
        "pid", "phase", tid="launch_tid", time_ns="launch_ns"
    )
    asked = events.select("pid", "tid", "time_ns").with_row_index("place")
    found = asked.sort("time_ns").join_asof(
        launches.sort("time_ns"),
        on="time_ns",
        by=["pid", "tid"],
        strategy="forward",
        check_sortedness=False,
    )
    return found.sort("place")["phase"]

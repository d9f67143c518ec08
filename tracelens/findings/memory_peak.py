"""Memory peak: what was live then, by category and by the line of user code that holds most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import units
from tracelens.analyses.memory.devices import devices
from tracelens.analyses.memory.live import live, live_at
from tracelens.errors import NothingToShowError
from tracelens.findings import Evidence, Finding, Rule
from tracelens.links.moments import named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.memory import Memory

_SHARE: Final = 0.1
"""Of the peak: less than a tenth moves no peak that matters."""

_KNOWN: Final = {
    "activation": "Checkpoint activations, or use smaller batches.",
    "gradient": "Set gradients to None before forward, or shard them.",
    "optimizer_state": "Shard the optimizer's state, or keep it in 8 bits.",
    "parameter": "Hold parameters in 16 bits, or shard them (FSDP).",
    "temporary": "Compute in place, in parts, or fused.",
}


def _find(memory: Memory) -> Iterator[Finding]:
    if memory.kind == "deltas":
        raise NothingToShowError("CUDA's own allocations were recorded, and tensors were not")
    at = "end" if memory.events.is_empty() else "peak"
    moments = list(named(memory, at))
    if not moments:
        raise NothingToShowError("nothing was allocated")
    top = max(moments, key=lambda moment: moment.active_bytes)
    asked_for = memory.ask.at.strip().lower() == "peak" and at == "peak"
    rows = live(memory) if asked_for else live_at(memory, top)
    held = rows.filter(pl.col("device") == top.device)
    whole = top.active_bytes
    if not whole or held.is_empty():
        return
    category, line = (_most(held, by, _SHARE * whole) for by in ("category", "site"))
    parts = [_category(category, whole), _line(line, whole)]
    if not any(parts):
        return
    change = next((c for name, c in _KNOWN.items() if _is(category, name)), "")
    addressed = category if category and change else line or category or {"bytes": 0, "what": ""}
    facts = devices(memory).row(by_predicate=pl.col("device") == top.device, named=True)
    when = _when(facts) if at == "peak" else " live at the end"
    yield Finding(
        rule="memory_peak",
        says=f"The peak of {units.size(whole)}{when}: {', '.join(p for p in parts if p)}.",
        evidence=(
            *(
                Evidence("live", f"{part['what']} at the peak", part["bytes"], "bytes")
                for part in (category, line)
                if part
            ),
            Evidence("devices", "active at the peak", whole, "bytes"),
        ),
        change=change,
        cost_bytes=whole,
        gain_bytes=int(addressed["bytes"]) or None,
        assumption=f"none of {_plain(addressed['what'])} was live then, and nothing took its place",
        subject=line["what"] if line else None,
    )


def _most(held: pl.DataFrame, by: str, least: float) -> dict[str, Any] | None:
    """Return what holds most: its name and bytes; None where nothing is named, or holds much."""
    sums = held.drop_nulls(by).group_by(what=by).agg(pl.col("bytes").sum())
    worth = sums.filter(pl.col("bytes") >= least)
    rows = worth.sort("bytes", "what", descending=[True, False]).head(1).to_dicts()
    return rows[0] if rows else None


def _is(category: dict[str, Any] | None, name: str) -> bool:
    return category is not None and name in str(category["what"]).lower().replace(" ", "_")


def _category(row: dict[str, Any] | None, whole: int) -> str:
    if row is None:
        return ""
    return f"{units.share(row['bytes'] / whole)} are {_plain(row['what'])}"


def _plain(what: str) -> str:
    return what.removesuffix(" (inferred)")


def _line(row: dict[str, Any] | None, whole: int) -> str:
    if row is None:
        return ""
    return f"{row['what']} holds {units.share(row['bytes'] / whole)}"


def _when(row: dict[str, Any]) -> str:
    step = "" if row["peak_step"] is None else f" of step {row['peak_step']}"
    return f" in {row['peak_phase']}{step}" if row["peak_phase"] else step.replace(" of", " in")


FINDING = Rule(_find, about="memory")

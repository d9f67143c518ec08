"""Synchronising calls: the GPU idles since the launching thread waited for it before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from tracelens import units
from tracelens.analyses.synchronisations import synchronisations
from tracelens.findings import Evidence, Finding, Rule
from tracelens.findings._work import LEAST_IDLE, Idle, many

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracelens.links.linked import Linked


def _find(linked: Linked) -> Iterator[Finding]:
    idle = Idle(linked, "synchronising")
    if idle.share < LEAST_IDLE:
        return
    calls = synchronisations(linked)
    if (linked.steps["source"] == "ranges").all():
        # What stands outside of steps that somebody marked, as a checkpoint, costs no step.
        calls = calls.filter(pl.col("in_step").fill_null(value=True))
    idle_ns = int(calls["idle_ns"].sum())
    if idle_ns < LEAST_IDLE * idle.span_ns:
        return
    row = calls.row(0, named=True)
    share = idle_ns / idle.span_ns
    most = units.share(row["idle_ns"] / idle_ns)
    yield Finding(
        rule="synchronising_calls",
        says=(
            f"The GPU idles {units.time(idle_ns)} ({units.share(share)}) after calls that wait for "
            f"it, {most} after {_named(row)} ({many(row['calls'], 'call')})."
        ),
        evidence=(
            Evidence("synchronisations", "idle time after calls that wait", idle_ns, "ns"),
            Evidence("synchronisations", "of it after that call", row["idle_ns"], "ns"),
            Evidence("totals", "of the span from first to last op", share, "share"),
        ),
        change=_change(row),
        cost_ns=idle_ns,
        gain_ns=idle_ns,
        assumption="the thread did not wait, and had launched the next work by then",
        subject=row["call"],
    )


def _named(row: Mapping[str, Any]) -> str:
    if row["op"]:
        return f"{row['call']} of {row['op']}"
    return f"{row['call']} in {row['range']}" if row["range"] else str(row["call"])


def _change(row: Mapping[str, Any]) -> str:
    call = row["call"].lower()
    if "alloc" in call or "free" in call:
        return "Allocate once, before the loop (no empty_cache)."
    if row["op"] or "stream" in call:
        return "Read values off the GPU every many steps only."
    if "memcpy" in call:
        return "Copy from pinned memory, non_blocking=True."
    return "Leave it out: a stream keeps its order."


FINDING = Rule(_find)

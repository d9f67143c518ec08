"""How each table of a comparison is shown: columns, headings, units and notes."""

from __future__ import annotations

from typing import Final

from tracelens.tables import Column, Table

_CALLS = (
    Column("a_calls", "A calls", "count", shown=False),
    Column("b_calls", "B calls", "count", shown=False),
)
_SHOWN_CALLS = (Column("a_calls", "A calls", "count"), Column("b_calls", "B calls", "count"))
_TIMES = (
    Column("a_ns", "A", "ns", scale="time"),
    Column("b_ns", "B", "ns", scale="time"),
    Column("difference_ns", "difference", "more_ns", scale="time"),
    Column("change", "change", "change"),
)
_VERDICT = (
    Column("verdict", "verdict", "text"),
    Column("interval", "interval", "text"),
    Column("low_ns", "interval from", "more_ns", shown=False),
    Column("high_ns", "interval to", "more_ns", shown=False),
)
# Beside a long name the last columns give way first in a narrow terminal.
_BESIDE_NAMES = (
    *(column for column in _TIMES if column.name != "difference_ns"),
    _VERDICT[0],
    _TIMES[2],
    *_VERDICT[1:],
    *_SHOWN_CALLS,
)
_SUMS = (
    Column("a_total_ns", "A in all", "ns", shown=False),
    Column("b_total_ns", "B in all", "ns", shown=False),
)
_PER_STEP: Final = "Times are those of a step on one GPU."
_NOISE: Final = "Verdicts hold for the whole table at once, with 99 % confidence."

TABLES: Final = {
    "compare_gates": Table(
        analysis="compare_gates",
        title="Gates",
        columns=(
            Column("gate", "gate", "name"),
            Column("outcome", "outcome", "text"),
            Column("said", "measured", "text"),
            Column("a", "A", "count", shown=False),
            Column("b", "B", "count", shown=False),
            Column("unit", "unit", "text", shown=False),
        ),
        note="A regression is above its limit and more than noise.",
    ),
    "compare": Table(
        analysis="compare",
        title="Per step",
        columns=(Column("what", "", "text"), *_TIMES, *_VERDICT),
        note=(
            "Busy is the union of GPU work inside the steps, idle the rest of them; kernel time "
            "the sum of durations, overlap counted twice."
        ),
    ),
    "compare_explained": Table(
        analysis="compare_explained",
        title="What explains the difference",
        columns=(
            Column("what", "", "text"),
            Column("part", "part", "text", shown=False),
            Column("phase", "phase", "text", shown=False),
            Column("family", "family or cause", "text", shown=False),
            *_TIMES[:3],
            Column("share", "of it", "change"),
            Column("verdict", "verdict", "text"),
            Column("mostly", "mostly by", "text"),
            Column("slower_ns", "same kernels", "more_ns", shown=False),
            Column("calls_ns", "more calls", "more_ns", shown=False),
            Column("replaced_ns", "other kernels", "more_ns", shown=False),
            Column("hidden_ns", "less overlap", "more_ns", shown=False),
            Column("idle_ns", "idle", "more_ns", shown=False),
        ),
        note="Rows add up to the difference of the recorded steps.",
    ),
    "compare_phase": Table(
        analysis="compare_phase",
        title="By phase",
        columns=(Column("phase", "phase", "text"), *_CALLS, *_TIMES, *_VERDICT, *_SUMS),
        note=f"Sums of durations of GPU work (without any: ops on the CPU). {_PER_STEP} {_NOISE}",
    ),
    "compare_family": Table(
        analysis="compare_family",
        title="By phase and kind of work",
        columns=(
            Column("phase", "phase", "text"),
            Column("family", "family", "text"),
            *_TIMES,
            *_VERDICT,
            *_SHOWN_CALLS,
            *_SUMS,
        ),
        note=f"Sums of the durations of GPU work. {_PER_STEP} {_NOISE}",
    ),
    "compare_kernel": Table(
        analysis="compare_kernel",
        title="By kernel",
        columns=(
            Column("kernel", "kernel (was → is)", "name"),
            Column("family", "family", "text", shown=False),
            *_BESIDE_NAMES,
            Column("matched", "matched by", "text", optional=True),
            Column("was", "names in A", "name", shown=False),
            Column("now", "names in B", "name", shown=False),
            *_SUMS,
        ),
        note=f"{_PER_STEP} {_NOISE}",
    ),
    "compare_range": Table(
        analysis="compare_range",
        title="By range, on the CPU",
        columns=(Column("name", "range", "name"), *_BESIDE_NAMES, *_SUMS),
        note=f"A range inside another one counts in both. {_PER_STEP} {_NOISE}",
    ),
    "compare_op": Table(
        analysis="compare_op",
        title="By PyTorch op",
        columns=(Column("name", "op", "name"), *_BESIDE_NAMES, *_SUMS),
        note=(
            "GPU work that the op launched itself (without any on the CPU: its own time there). "
            f"{_PER_STEP} {_NOISE}"
        ),
    ),
    "compare_step": Table(
        analysis="compare_step",
        title="Step by step",
        columns=(
            Column("step", "step", "count"),
            *_TIMES[:3],
            Column("change", "change", "change"),
            Column("a_left_out", "left out of A", "text", optional=True),
            Column("b_left_out", "left out of B", "text", optional=True),
            Column("a_name", "name in A", "name", shown=False),
            Column("b_name", "name in B", "name", shown=False),
        ),
        note="By their place in the recording. Single steps are noise: no verdict is made of them.",
    ),
    "compare_memory": Table(
        analysis="compare_memory",
        title="Memory",
        columns=(
            Column("device", "device", "count"),
            Column("what", "", "text"),
            Column("a_bytes", "A", "bytes", scale="size"),
            Column("b_bytes", "B", "bytes", scale="size"),
            Column("difference_bytes", "difference", "more_bytes", scale="size"),
            Column("change", "change", "change"),
        ),
        note="Devices are told apart by their order.",
    ),
    "compare_memory_held": Table(
        analysis="compare_memory_held",
        title="What was live at the peaks",
        columns=(
            Column("category", "category", "text"),
            Column("site", "line", "name"),
            Column("a_bytes", "A", "bytes", scale="size"),
            Column("b_bytes", "B", "bytes", scale="size"),
            Column("difference_bytes", "difference", "more_bytes", scale="size"),
            Column("change", "change", "change"),
            Column("device", "device", "count", shown=False),
        ),
        note="Rows add up to the difference of the active peaks.",
    ),
}
"""Name -> table; in JSON, too. Numbers are of A, the baseline, and B."""

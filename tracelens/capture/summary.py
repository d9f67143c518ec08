"""What a capture says of itself in the end: step time, its noise, its bound, overhead, memory."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from tracelens import units

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracelens.capture.folder import Manifest, Pass

_TIMER = "timer"


def lines(manifest: Manifest) -> list[str]:
    """Return a line on each thing that is known of the run besides its recordings."""
    found = [
        ("Step", _step(manifest)),
        ("Bound", _bound(manifest)),
        ("Overhead", _overhead(manifest)),
        ("Memory", _memory(manifest)),
        ("Missing", _missing(manifest)),
    ]
    return [f"{name:<9} {text}" for name, text in found if text]


def steps(one: Pass) -> str:
    """Return how many steps a pass recorded and how long they took."""
    if not one.steps_ns:
        return ""
    count = len(one.steps_ns)
    what = "step" if count == 1 else "steps"
    return f"{count} {what}, median {units.time(median(one.steps_ns))}"


def step_ns(manifest: Manifest) -> float | None:
    """Return the median time of a step without a profiler; None where none was timed."""
    timer = _pass(manifest, _TIMER)
    return median(timer.steps_ns) if timer and timer.steps_ns else None


def bound_seconds(manifest: Manifest) -> float | None:
    """Return the least time of a step by formula on the GPU; None where that is not known."""
    bounds = manifest.cost.get("bounds") or {}
    if manifest.device != "cuda" or not bounds or None in bounds.values():
        return None
    return float(sum(bound["seconds"] for bound in bounds.values()))


def overheads(manifest: Manifest) -> dict[str, float]:
    """Return by how much each recorder slows a step down: 0.1 is a tenth more time."""
    alone = step_ns(manifest)
    if not alone:
        return {}
    recorded = {p.recorder: p.steps_ns for p in manifest.passes if p.recorder != _TIMER}
    return {name: median(times) / alone - 1 for name, times in recorded.items() if times}


def _step(manifest: Manifest) -> str:
    timer = _pass(manifest, _TIMER)
    if timer is None or not timer.steps_ns:
        return ""
    from tracelens.capture import noise

    found = noise.of(timer.steps_ns)
    text = f"{units.time(found.median_ns)} without a profiler ({noise.sentence(found)})"
    items = manifest.cost.get("items")
    if items:
        rate = items / found.median_ns * 1e9
        text += f" · {_figure(rate)} {manifest.cost['unit']}/s"
    return text


def _bound(manifest: Manifest) -> str:
    seconds, took = bound_seconds(manifest), step_ns(manifest)
    if seconds is None:
        return ""
    of = manifest.cost["bound_of"]
    worst = max(manifest.cost["bounds"].values(), key=lambda bound: bound["seconds"])
    text = f"{units.time(seconds * 1e9)} at least, by formula on {of} ({worst['limited_by']})"
    if took:
        text += f": the step reaches {seconds * 1e9 / took:.0%} of it"
    return text


def _overhead(manifest: Manifest) -> str:
    return ", ".join(f"{name} {share:+.1%}" for name, share in overheads(manifest).items())


def _memory(manifest: Manifest) -> str:
    peak = max((p.peak_bytes for p in manifest.passes if p.peak_bytes is not None), default=None)
    formula = manifest.cost.get("memory_bytes")
    parts = [
        f"{units.size(peak)} at the peak" if peak is not None else "",
        f"{units.size(formula)} by formula ({_kinds(manifest.cost['memory'])})" if formula else "",
    ]
    return ", ".join(filter(None, parts))


def _kinds(memory: dict[str, Any]) -> str:
    largest = sorted(memory.items(), key=lambda kind: -kind[1])
    return ", ".join(f"{name} {units.size(size)}" for name, size in largest if size)


def _missing(manifest: Manifest) -> str:
    lost = [p for p in manifest.passes if p.state != "done"]
    return "; ".join(f"{p.recorder} ({_why(p)})" for p in lost)


def _why(one: Pass) -> str:
    return f"{one.state}: {one.why}" if one.why else one.state


def _pass(manifest: Manifest, recorder: str) -> Pass | None:
    return next((p for p in manifest.passes if p.recorder == recorder), None)


def _figure(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def plan_lines(cost: dict[str, Any], notes: Iterable[str], passes: Sequence[str]) -> list[str]:
    """Return what `--dry-run` prints."""
    found = list(passes)
    if cost:
        found.append(
            f"Cost of a step by formula: {units.column('flops', [cost['flops']])[0]}, "
            f"{cost['parameters']:,} parameters, {cost['items']:,} {cost['unit']}"
        )
        found.append(
            f"Memory by formula: {units.size(cost['memory_bytes'])} ({_kinds(cost['memory'])})"
        )
        bounds = cost["bounds"]
        if bounds and None not in bounds.values():
            least = sum(bound["seconds"] for bound in bounds.values())
            found.append(f"A step takes {units.time(least * 1e9)} at least on {cost['bound_of']}.")
    return [*found, *notes]

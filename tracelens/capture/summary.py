"""What a capture says of itself in the end: step time, its noise, its bound, overhead, memory."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from tracelens import units
from tracelens.capture import noise

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


@dataclass(frozen=True)
class Overhead:
    """By how much a recorder slows a step down; ``share`` 0.1 is a tenth more time.

    ``is_noise`` tells that the medians with and without it cannot be told apart: their 95 %
    confidence intervals overlap.
    """

    recorder: str
    share: float
    is_noise: bool


def overheads(manifest: Manifest) -> list[Overhead]:
    """Return what each recorder costs, beside the timer's steps."""
    timer = _pass(manifest, _TIMER)
    if timer is None or not timer.steps_ns:
        return []
    alone = noise.of(timer.steps_ns)
    found = []
    for one in manifest.passes:
        if one.recorder == _TIMER or not one.steps_ns:
            continue
        under = noise.of(one.steps_ns)
        apart = (
            under.median_low_ns > alone.median_high_ns or under.median_high_ns < alone.median_low_ns
        )
        share = under.median_ns / alone.median_ns - 1
        found.append(Overhead(one.recorder, share, is_noise=not apart))
    return found


def _step(manifest: Manifest) -> str:
    timer = _pass(manifest, _TIMER)
    if timer is None or not timer.steps_ns:
        return ""
    found = noise.of(timer.steps_ns)
    text = f"{units.time(found.median_ns)} without a profiler ({noise.sentence(found)})"
    items = manifest.cost.get("items")
    if items:
        text += f" · {_rate(items / found.median_ns * 1e9, manifest.cost['unit'])}"
    return text


def _bound(manifest: Manifest) -> str:
    seconds, took = bound_seconds(manifest), step_ns(manifest)
    if seconds is None:
        return ""
    worst = max(manifest.cost["bounds"].values(), key=lambda bound: bound["seconds"])
    text = (
        f"{units.time(seconds * 1e9)} at least, by formula on {_bound_of(manifest.cost)} "
        f"({worst['limited_by']})"
    )
    if took:
        text += f": the step reaches {seconds * 1e9 / took:.0%} of it"
    return " ".join([text, *(f"({caveat})" for caveat in manifest.cost.get("bound_caveats", ()))])


def _bound_of(cost: dict[str, Any]) -> str:
    """Return the GPU whose ceilings a bound is by, and where these are from."""
    by = cost.get("bound_by")
    return f"{cost['bound_of']}, {by}" if by else str(cost["bound_of"])


def _overhead(manifest: Manifest) -> str:
    return ", ".join(
        f"{one.recorder} not told from the noise" if one.is_noise
        else f"{one.recorder} {one.share:+.1%} of a step"
        for one in overheads(manifest)
    )  # fmt: skip


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


def _rate(per_s: float, unit: str) -> str:
    if unit == "bytes":
        return units.rate(per_s)
    return f"{per_s:,.0f} {unit}/s" if per_s >= 100 else f"{per_s:.3g} {unit}/s"


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
            found.append(f"A step takes {units.time(least * 1e9)} at least on {_bound_of(cost)}.")
    return [*found, *notes]

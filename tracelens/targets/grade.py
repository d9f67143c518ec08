"""Judging runs by targets: passed or not, what share of the reference, and which letter."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, Literal

from tracelens import hardware
from tracelens.targets import limits
from tracelens.targets.quantities import Quantity, Threshold, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tracelens.targets.file import Ladder, Needs, Target, Targets
    from tracelens.targets.limits import Limit
    from tracelens.targets.measured import Measured, Reading
    from tracelens.targets.quantities import Dimension

Verdict = Literal[
    "excellent", "pass", "warn", "fail", "measured", "not measured",
    "impossible target", "impossible measurement",
]  # fmt: skip
"""`measured`: there is no threshold, only a reference."""

FAILED: Final = ("fail", "impossible measurement")
"""What a gate does not let through."""
_NEAR: Final = 1e-9
_ALL: Final = 1 + _NEAR
_CLOSE: Final = 0.9
_ROUNDING: Final = 0.01


@dataclass(frozen=True)
class Judged:
    """What became of a target, by one run.

    Attributes:
        target: which one.
        run: the run's name; None: none was measured that the target is for.
        gpu: the run's, or the target's.
        reading: what was measured.
        verdict: how it was judged.
        of_reference: performance as a share of the reference's.
        letter: for that share; None: not graded.
        reference: the value that is 100 %.
        limit: the best value that the GPU can reach, where it is known.
        sure: whether the measurement's confidence interval lies on one side of the threshold;
            None: there is none.
        why: what makes it impossible, or what else is to be said; with the arithmetic.
    """

    target: Target
    run: str | None
    gpu: str | None
    reading: Reading | None
    verdict: Verdict
    of_reference: float | None = None
    letter: str | None = None
    reference: float | None = None
    limit: float | None = None
    sure: bool | None = None
    why: str = ""

    @property
    def dimension(self) -> Dimension:
        """Of the metric's values."""
        return self.reading.dimension if self.reading else self.target.dimension or "number"


@dataclass(frozen=True)
class Group:
    """The grade of a group: that of its lowest share of the reference.

    ``measured`` of ``targets`` have been measured; ``why`` says why there is no letter.
    """

    name: str
    targets: int
    measured: int
    share: float | None = None
    letter: str | None = None
    why: str = ""


@dataclass(frozen=True)
class Graded:
    """All targets judged, the groups graded, and the letter of the whole.

    ``aside`` are targets for GPUs on which nothing was measured.
    """

    judged: tuple[Judged, ...]
    groups: tuple[Group, ...] = ()
    letter: str | None = None
    why: str = ""
    aside: tuple[Target, ...] = ()


def grade(targets: Targets, runs: Sequence[Measured]) -> Graded:
    """Judge runs by targets: one row for each target and run that it is for.

    Without runs, all targets are held against what their GPUs can do.
    """
    aside = tuple(one for one in targets.targets if runs and not _has_gpu(one, runs))
    ladder = targets.ladder
    judged = tuple(
        row for one in targets.targets if one not in aside for row in _of_target(one, runs, ladder)
    )
    if ladder is None:
        return Graded(judged, aside=aside)
    groups = tuple(_group(name, judged, ladder) for name in ladder.of)
    missing = [group for group in groups if group.letter is None]
    if not groups or missing:
        why = "; ".join(f"{group.name}: {group.why}" for group in missing)
        return Graded(judged, groups, None, why or "no target is in a group", aside)
    lowest = min(group.share for group in groups if group.share is not None)
    return Graded(judged, groups, ladder.letter(lowest), "", aside)


def _group(name: str, judged: Sequence[Judged], ladder: Ladder) -> Group:
    """Return the grade of a group; what cannot be believed leaves it without a letter."""
    mine = [row for row in judged if row.target.group == name]
    measured = [row for row in mine if row.reading is not None]
    counts = (len({_key(row) for row in mine}), len({_key(row) for row in measured}))
    shares = [row.of_reference for row in measured if row.letter is not None]
    if any(row.verdict == "impossible measurement" for row in mine):
        return Group(name, *counts, why="a measurement is impossible")
    if not measured:
        return Group(name, *counts, why="nothing was measured")
    lowest = min((share for share in shares if share is not None), default=None)
    if lowest is None:
        return Group(name, *counts, why="nothing has a possible reference")
    return Group(name, *counts, lowest, ladder.letter(lowest))


def _key(row: Judged) -> tuple[str, str | None]:
    return (row.target.name, row.target.gpu)


def _of_target(target: Target, runs: Sequence[Measured], ladder: Ladder | None) -> Iterator[Judged]:
    found = False
    for one in runs:
        if _is_meant(target, one) and (reading := one.read(target)) is not None:
            found = True
            yield _judged(target, one, reading, _reference(target, one, runs), ladder)
    if not found:
        yield _unmeasured(target)


def _has_gpu(target: Target, runs: Sequence[Measured]) -> bool:
    return target.gpu is None or any(limits.is_on(target.gpu, one.gpu) for one in runs)


def _is_meant(target: Target, one: Measured) -> bool:
    if target.run is not None and not fnmatchcase(one.name, target.run):
        return False
    if target.gpu is not None and not limits.is_on(target.gpu, one.gpu):
        return False
    if target.needs is not None and target.needs.config and one.config:
        if not _agrees(target.needs.config, one.config):
            return False
        if one.needs is not None and not _is_same_work(target.needs, one.needs):
            return False  # forward alone, say
    return _has(target.config, one.config)


def _is_same_work(asked: Needs, done: Needs) -> bool:
    """Tell whether two costs have the same operations, but for rounding, in every format."""
    wanted, has = (_operations(needs) for needs in (asked, done))
    return wanted.keys() == has.keys() and all(
        abs(wanted[key] - has[key]) <= _ROUNDING * wanted[key] for key in wanted
    )


def _operations(needs: Needs) -> Counter[tuple[str, bool]]:
    counts: Counter[tuple[str, bool]] = Counter()
    for part in needs.parts:
        counts[part.dtype, part.matmul] += part.flops
    return counts


def _agrees(wanted: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Tell whether what both name is the same: a target is for the work it was reckoned for."""
    has = _plain(config)
    return all(has.get(name, value) == value for name, value in _plain(wanted).items())


def _has(wanted: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    has = _plain(config)
    return all(name in has and has[name] == value for name, value in _plain(wanted).items())


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by their names in Python; the workload's too, which is a file's name."""
    plain = {name.replace("-", "_"): value for name, value in config.items()}
    if isinstance(plain.get("workload"), str):
        plain["workload"] = plain["workload"].replace("-", "_")
    return plain


def _reference(target: Target, one: Measured, runs: Sequence[Measured]) -> float | None:
    """Return the value that is 100 %: as the target says, or of the run that it names.

    Of several runs the best counts: a reference is what can be had.
    """
    said = target.reference
    if said is None:
        return None
    if said.value is not None:
        return said.value.value
    wanted = {**target.config, **said.config}
    values = [
        reading.value
        for other in runs
        if other is not one
        and other.gpu == one.gpu
        and _has(wanted, other.config)
        and (said.run is None or fnmatchcase(other.name, said.run))
        and (reading := other.read(target)) is not None
    ]
    if not values:
        return None
    return min(values) if target.lower else max(values)


def _unmeasured(target: Target) -> Judged:
    devices = limits.gpus(target.gpu) if target.gpu else ()
    best = limits.limit(target.metric, target.dimension, target.needs, devices)
    said = target.reference.value.value if target.reference and target.reference.value else None
    why = _beyond(target, best, said)
    return Judged(
        target,
        None,
        target.gpu,
        None,
        "impossible target" if why else "not measured",
        reference=said,
        limit=best.value if best else None,
        why=why or _close(target, best, said),
    )


def _judged(
    target: Target,
    one: Measured,
    reading: Reading,
    reference: float | None,
    ladder: Ladder | None,
) -> Judged:
    device = hardware.device(one.gpu) if one.gpu else None
    devices = (device,) if device else limits.gpus(target.gpu) if target.gpu else ()
    needs = target.needs or one.needs
    best = limits.limit(target.metric, reading.dimension, needs, devices)
    of = _share(target, reading, reference)
    why = _unbelievable(target, reading, best)
    beyond = _beyond(target, best, reference)
    verdict: Verdict = "impossible measurement"
    if not why:
        verdict = "impossible target" if beyond else _verdict(target, reading, of)
    believed = not why and _is_possible(best, reference, reading.dimension)
    letter = ladder.letter(of) if ladder and of is not None and believed else None
    return Judged(
        target,
        one.name,
        one.gpu,
        reading,
        verdict,
        of,
        letter,
        reference,
        best.value if best else None,
        _is_sure(target, reading, reference),
        why or beyond or _missing(target, reading, reference) or _odd(one, reading, needs),
    )


def _share(target: Target, reading: Reading, reference: float | None) -> float | None:
    """Return performance as a share of the reference's."""
    if reference is None or reading.value <= 0 or reference <= 0:
        return None
    return reference / reading.value if target.lower else reading.value / reference


def _verdict(target: Target, reading: Reading, of: float | None) -> Verdict:
    if target.passes is None and target.excellent is None:
        return "measured"
    if reading.dimension != (target.dimension or reading.dimension):
        return "not measured"
    steps: tuple[tuple[Verdict, Threshold | None], ...] = (
        ("excellent", target.excellent),
        ("pass", target.passes),
        ("warn", target.warns),
    )
    for verdict, rule in steps:
        if rule is None:
            continue
        value = of if rule.relative else reading.value
        if value is None:
            return "not measured"
        if rule.holds(value):
            return verdict
    return "measured" if target.passes is None else "fail"


def _missing(target: Target, reading: Reading, reference: float | None) -> str:
    """Say why what was measured could not be judged."""
    rules = [rule for rule in (target.passes, target.excellent) if rule]
    if reading.dimension != (target.dimension or reading.dimension):
        return f"{target.metric} was measured as {reading.dimension}, not as {target.dimension}"
    if reference is None and target.reference and any(rule.relative for rule in rules):
        return "its reference was not measured"
    return ""


def _odd(one: Measured, reading: Reading, needs: Needs | None) -> str:
    return limits.remark(reading.value, reading.dimension, needs, one.gpu) if one.gpu else ""


def _is_sure(target: Target, reading: Reading, reference: float | None) -> bool | None:
    """Tell whether both ends of the interval are on the same side of what is needed."""
    rule = target.passes
    if rule is None or reading.low is None or reading.high is None:
        return None
    needed = _needed(target, rule, reference)
    if needed is None:
        return None
    return needed.holds(reading.low) == needed.holds(reading.high)


def _needed(target: Target, rule: Threshold, reference: float | None) -> Threshold | None:
    """Return a threshold of the metric's own values."""
    if not rule.relative:
        return rule
    if reference is None or rule.limit.value <= 0:
        return None
    value = reference / rule.limit.value if target.lower else reference * rule.limit.value
    operator: Literal["<", "<=", ">", ">="] = rule.operator
    if target.lower:
        operator = "<=" if rule.operator == ">=" else "<"
    return Threshold(operator, Quantity(value, target.dimension or "number"))


def _unbelievable(target: Target, reading: Reading, best: Limit | None) -> str:
    """Return why a measurement cannot be true; nothing if it can."""
    value = shown(reading.value, reading.dimension)
    if target.metric.endswith("share") and reading.dimension == "share" and reading.value > _ALL:
        return f"{value} is more than all"
    if best is None or not _exceeds(reading.dimension, reading.value, best.value):
        return ""
    rate = best.rate(reading.value) if reading.dimension == "time" else ""
    return f"{value} was measured{f' ({rate})' if rate else ''}, but {best.says}"


def _beyond(target: Target, best: Limit | None, reference: float | None) -> str:
    """Return why a target cannot be met; nothing if it can, as far as is known."""
    if target.passes is None or best is None:
        return ""
    needed = _needed(target, target.passes, reference)
    if needed is None or needed.is_upper != (needed.limit.dimension == "time"):
        return ""
    if needed.holds(best.value):
        return ""
    rate = best.rate(needed.limit.value) if needed.is_upper else ""
    at = f" ({rate})" if rate else ""
    return f"{target.passes} is asked for{at}, but {best.says}"


def _close(target: Target, best: Limit | None, reference: float | None) -> str:
    """Say so where a target leaves hardly anything to lose."""
    if target.passes is None or best is None:
        return ""
    needed = _needed(target, target.passes, reference)
    if needed is None or needed.limit.value <= 0 or best.value <= 0:
        return ""
    share = needed.limit.value / best.value
    share = 1 / share if target.lower else share
    if not _CLOSE <= share <= 1:
        return ""
    return f"{target.passes} asks for {share:.0%} of what is possible: {best.says}"


def _is_possible(best: Limit | None, reference: float | None, dimension: Dimension) -> bool:
    """Tell whether the reference is something that the GPU can do."""
    return best is None or reference is None or not _exceeds(dimension, reference, best.value)


def _exceeds(dimension: Dimension, value: float, best: float) -> bool:
    """Tell whether a value is better than the best, by more than rounding."""
    if math.isclose(value, best, rel_tol=_NEAR):
        return False
    return value < best if dimension == "time" else value > best

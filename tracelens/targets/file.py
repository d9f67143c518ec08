"""Files of targets: thresholds for metrics of configurations, as TOML or JSON."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tracelens import workload
from tracelens.errors import TracelensError, UnreadableError, UsageError
from tracelens.targets.quantities import LOWER_IS_BETTER, METRICS, Quantity, quantity, threshold
from tracelens.workload import DTYPES, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tracelens.targets.quantities import Dimension, Threshold

SCHEMA: Final = 1
_LARGEST_BYTES: Final = 8 << 20
_TYPO: Final = 0.8
_LARGEST: Final = 10**30


@dataclass(frozen=True)
class Needs:
    """What the work of a target takes at least.

    Attributes:
        parts: floating-point operations, and the bytes that have to cross the memory bus.
        items: tokens, or whatever is counted, that are worked through; 0: not known.
        memory_bytes: all that is touched; what of it fits into the L2 cache need not be moved.
        by: whose formulas these are, for a sentence.
        config: the options that they were reckoned for, `workload` among them; empty: not known.
    """

    parts: tuple[Work, ...]
    items: int = 0
    memory_bytes: int = 0
    by: str = "as the target says"
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """What a measurement is compared with: a value, or a measured run.

    ``config`` are options that differ from the target's own; ``run`` is a pattern of its name.
    """

    value: Quantity | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    run: str | None = None


@dataclass(frozen=True)
class Target:
    """A metric of a configuration on a GPU, and what it has to be.

    Attributes:
        name: what it is called in reports.
        metric: one of `quantities.METRICS`, or any that rows of results have.
        lower: whether less is better.
        dimension: of the metric's values; None: what the rows say.
        gpu: which GPU it holds for; None: any.
        config: options that a run must have to be meant.
        run: a pattern that the run's name must match.
        phase: of which phase the share is.
        family: of which kind of work the share is.
        passes: what is needed; None: it is graded alone.
        excellent: what is more than needed.
        warns: what misses `passes` and is no failure yet.
        reference: what counts as 100 %.
        group: in which group its share of the reference is graded.
        required: whether a gate demands that it was measured.
        needs: what the work takes at least.
        note: a remark.
    """

    name: str
    metric: str
    lower: bool
    dimension: Dimension | None
    gpu: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    run: str | None = None
    phase: str | None = None
    family: str | None = None
    passes: Threshold | None = None
    excellent: Threshold | None = None
    warns: Threshold | None = None
    reference: Reference | None = None
    group: str | None = None
    required: bool = False
    needs: Needs | None = None
    note: str = ""


@dataclass(frozen=True)
class Ladder:
    """Letters and the shares of the reference that they take, the best first.

    ``of`` are the groups that count for the overall letter; it is that of the lowest of them.
    """

    letters: tuple[tuple[str, Threshold], ...]
    otherwise: str = "F"
    of: tuple[str, ...] = ()

    def letter(self, share: float) -> str:
        """Return the letter of a share of the reference."""
        return next((one for one, rule in self.letters if rule.holds(share)), self.otherwise)


@dataclass(frozen=True)
class Targets:
    """A file of targets."""

    path: Path
    title: str
    targets: tuple[Target, ...]
    ladder: Ladder | None = None
    note: str = ""


class _Reference(msgspec.Struct, forbid_unknown_fields=True):
    value: str | None = None
    config: dict[str, Any] = {}
    run: str | None = None


class _Needs(msgspec.Struct, forbid_unknown_fields=True):
    workload: str | None = None
    options: dict[str, Any] = {}
    flops: float = 0
    bytes: float = 0
    items: int = 0
    dtype: str = "fp16"
    matmul: bool = True


class _Target(
    msgspec.Struct, forbid_unknown_fields=True, rename={"passes": "pass", "warns": "warn"}
):
    name: str
    metric: str
    gpu: str | None = None
    config: dict[str, Any] = {}
    run: str | None = None
    phase: str | None = None
    family: str | None = None
    passes: str | None = None
    excellent: str | None = None
    warns: str | None = None
    reference: str | _Reference | None = None
    group: str | None = None
    required: bool = False
    cost: _Needs | None = None
    note: str = ""


class _Grades(msgspec.Struct, forbid_unknown_fields=True, rename={"otherwise": "else"}):
    letters: dict[str, str]
    otherwise: str = "F"
    of: list[str] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    target: list[_Target]
    title: str = ""
    note: str = ""
    grades: _Grades | None = None
    schema: int = SCHEMA


def load(path: Path) -> Targets:
    """Return the targets of a file: TOML, or JSON of the same form.

    Raises:
        UnreadableError: it cannot be read, or says what cannot be understood; the message says
            where.
    """
    content = _content(path)
    try:
        text = content.decode("utf-8")
        said = msgspec.json.decode(content) if _is_json(text) else tomllib.loads(text)
        made = msgspec.convert(said, _File)
        _check_schema(made.schema)
        targets = tuple(_target(one) for one in made.target)
        ladder = _ladder(made.grades, targets) if made.grades else None
        _check_names(targets)
    except (ValueError, TracelensError, RecursionError) as error:
        raise UnreadableError(
            f"{path.name} is no file of targets: {str(error).rstrip('.')}. "
            "docs/commands/grade.md says how to write one."
        ) from error
    return Targets(path, made.title or path.name, targets, ladder, made.note)


def _check_schema(number: int) -> None:
    if number != SCHEMA:
        raise ValueError(f"it has schema {number}, and this tracelens knows {SCHEMA}")


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(content) > _LARGEST_BYTES:
        raise UnreadableError(f"{path} is too large for a file of targets.")
    return content


def _is_json(text: str) -> bool:
    return text.lstrip("\ufeff \t\r\n").startswith("{")


def _target(said: _Target) -> Target:
    try:
        return _understood(said)
    except (ValueError, TracelensError) as error:
        raise ValueError(f"target {said.name!r}: {str(error).rstrip('.')}") from error


def _understood(said: _Target) -> Target:
    dimension = _metric(said.metric)
    texts = {"excellent": said.excellent, "pass": said.passes, "warn": said.warns}
    rules = {name: threshold(text) for name, text in texts.items() if text is not None}
    reference = _reference(said.reference)
    given = [rule.limit for rule in rules.values() if not rule.relative]
    given += [reference.value] if reference and reference.value else []
    if dimension is None and given:
        dimension = given[0].dimension
    if wrong := [one for one in given if one.dimension != dimension]:
        raise ValueError(f"{wrong[0]} is no {said.metric}")
    if not rules and reference is None:
        raise ValueError("it has neither pass nor reference")
    if reference is None and any(rule.relative for rule in rules.values()):
        raise ValueError("a threshold is of the reference, and there is no reference")
    if "warn" in rules and "pass" not in rules:
        raise ValueError("it has warn, and no pass")
    if (said.phase or said.family) and said.metric != "share":
        raise ValueError("phase and family are of the metric share")
    return Target(
        name=said.name,
        metric=said.metric,
        lower=_direction(said.metric, dimension, rules.values()),
        dimension=dimension,
        gpu=said.gpu,
        config=said.config,
        run=said.run,
        phase=said.phase,
        family=said.family,
        passes=rules.get("pass"),
        excellent=rules.get("excellent"),
        warns=rules.get("warn"),
        reference=reference,
        group=said.group,
        required=said.required,
        needs=_needs(said.cost),
        note=said.note,
    )


def _metric(name: str) -> Dimension | None:
    if name in METRICS:
        return METRICS[name]
    if near := difflib.get_close_matches(name, METRICS, 1, _TYPO):
        raise ValueError(f"there is no metric {name!r}; did you mean {near[0]}?")
    return None


def _direction(metric: str, dimension: Dimension | None, rules: Any) -> bool:
    """Return whether less is better; raises ValueError where thresholds say different things."""
    absolute = [rule for rule in rules if not rule.relative]
    known = LOWER_IS_BETTER.get(dimension) if dimension and metric in METRICS else None
    ways = {rule.is_upper for rule in absolute} | ({known} if known is not None else set())
    if len(ways) > 1:
        better = "lower" if known else "higher"
        why = f"of {metric} {better} is better" if known is not None else "they contradict"
        raise ValueError(f"its thresholds begin with < and >, but {why}")
    if not ways and dimension is not None and dimension in LOWER_IS_BETTER:
        ways = {LOWER_IS_BETTER[dimension]}
    if not ways:
        raise ValueError(f"nothing says which way {metric} is better; write a pass with < or >")
    (lower,) = ways
    limits = [rule.limit.value for rule in absolute]
    if limits != sorted(limits, reverse=not lower):
        raise ValueError("its thresholds do not go from excellent by pass to warn")
    return lower


def _reference(said: str | _Reference | None) -> Reference | None:
    if said is None:
        return None
    if isinstance(said, str):
        said = _Reference(value=said)
    if (said.value is None) == (not said.config and said.run is None):
        raise ValueError("a reference is a value, or a run by its config or name")
    value = None if said.value is None else quantity(said.value)
    if value is not None and value.value <= 0:
        raise ValueError(f"the reference {said.value!r} is not above zero")
    return Reference(value, said.config, said.run)


def _needs(asked: _Needs | None) -> Needs | None:
    """Return what the work takes: as the target says, or by a workload's formulas."""
    if asked is None:
        return None
    if asked.workload is None:
        return _stated(asked)
    if asked.flops or asked.bytes or asked.items:
        raise ValueError("its cost has a workload, whose formulas tell flops, bytes and items")
    kind, preset = workload.find(asked.workload)
    options = {name.replace("-", "_"): value for name, value in asked.options.items()}
    cost = workload.make(kind, {**preset, **options}).cost()
    parts = tuple(part for phase in cost.phases.values() for part in phase)
    _check_size(cost.flops, sum(part.bytes for part in parts), cost.items)
    by = f"by the formulas of {asked.workload}"
    config = {**preset, **options, "workload": workload.split(asked.workload)[0]}
    return Needs(parts, cost.items, cost.memory_bytes, by, config)


def _stated(asked: _Needs) -> Needs:
    if asked.dtype not in DTYPES and asked.dtype not in ("fp8", "int8", "fp4", "fp64"):
        raise ValueError(f"its cost has the unknown dtype {asked.dtype!r}")
    if not (asked.flops > 0 or asked.bytes > 0) or min(asked.flops, asked.bytes) < 0:
        raise ValueError("its cost has neither a workload nor flops or bytes above zero")
    _check_size(asked.flops, asked.bytes, asked.items)
    part = Work("work", int(asked.flops), int(asked.bytes), asked.dtype, matmul=asked.matmul)
    return Needs((part,), asked.items, int(asked.bytes))


def _check_size(*numbers: float) -> None:
    if not all(0 <= number < _LARGEST for number in numbers):
        raise ValueError("its cost is no number of FLOP, bytes and items that work could have")


def _ladder(said: _Grades, targets: Sequence[Target]) -> Ladder:
    letters = tuple((letter, threshold(rule)) for letter, rule in said.letters.items())
    for letter, rule in letters:
        if rule.is_upper or rule.limit.dimension != "share":
            raise ValueError(f"grade {letter!r}: write the least share, such as '> 80 %'")
    limits = [rule.limit.value for _, rule in letters]
    if not letters or limits != sorted(set(limits), reverse=True):
        raise ValueError("grades go from the highest share to the lowest, none twice")
    groups = {one.group for one in targets if one.group}
    if missing := [name for name in said.of if name not in groups]:
        raise ValueError(f"grades are of {missing[0]!r}, and no target has that group")
    return Ladder(letters, said.otherwise, tuple(said.of) or tuple(sorted(groups)))


def _check_names(targets: Sequence[Target]) -> None:
    if not targets:
        raise UsageError("it holds no target")
    seen: set[tuple[str, str | None]] = set()
    for one in targets:
        if (one.name, one.gpu) in seen:
            where = f" on {one.gpu}" if one.gpu else ""
            raise UsageError(f"two targets are named {one.name!r}{where}")
        seen.add((one.name, one.gpu))

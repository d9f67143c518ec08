"""Which kernel of one run is which of the other: by name, by spelling, or by its use."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tracelens.analyses.compare.side import Side

SAME, SPELLED, USED, ALIKE = "name", "spelling", "op and shapes", "phase, calls and grid"
OF_OP: Final = "op"
_ALIKE_ENOUGH: Final = 0.8
_MOST: Final = 200

Use = tuple[str | None, ...]


@dataclass(frozen=True)
class Match:
    """Kernels of both sides that are the same thing, or do the same work.

    ``was`` are names in A and ``now`` names in B; one of them is empty where nothing is known to
    be the counterpart. ``how`` tells how they were matched, and is empty without counterpart.
    """

    family: str
    was: tuple[str, ...]
    now: tuple[str, ...]
    how: str

    @property
    def is_same(self) -> bool:
        """Whether it is one kernel in both, not one that takes another's place."""
        return self.how in (SAME, SPELLED)


@dataclass
class _Kernel:
    """A kernel of one side: its family, what it is used for, and how often a step calls it so."""

    name: str
    short: str
    family: str
    uses: dict[Use, float]
    phases: dict[str, float]
    blocks: float | None
    time: float


def matched(a: Side, b: Side) -> list[Match]:
    """Return all GPU work of both sides (kernels, copies, memsets, graphs), each name once.

    Kernels of one name are the same; then those whose short names are (recorders spell names in
    several ways). What is left is matched within its family:

    - by the ops of PyTorch and the shapes of their inputs that the kernels are used for, where
      both recordings know ops (and shapes): kernels that share a use, in the same phase, belong
      together, one or several on either side;
    - otherwise one by one, the most alike first, where calls per step by phase (and the number of
      thread blocks, where both know it) agree to `_ALIKE_ENOUGH`.
    """
    mine, other = _kernels(a), _kernels(b)
    found = [Match(mine[n].family, (n,), (n,), SAME) for n in mine if n in other]
    left = {n: k for n, k in mine.items() if n not in other}
    right = {n: k for n, k in other.items() if n not in mine}
    for how, pairs_of in ((SPELLED, _by_spelling), (USED, _by_use), (ALIKE, _one_by_one)):
        for was, now in pairs_of(left, right):
            kernel = left[was[0]]
            found.append(Match(kernel.family, was, now, _said(how, kernel)))
            left = {n: k for n, k in left.items() if n not in was}
            right = {n: k for n, k in right.items() if n not in now}
    found += [Match(kernel.family, (name,), (), "") for name, kernel in left.items()]
    found += [Match(kernel.family, (), (name,), "") for name, kernel in right.items()]
    return found


def _said(how: str, kernel: _Kernel) -> str:
    if how == USED and not any(use[-1] for use in kernel.uses):
        return OF_OP
    if how == ALIKE and kernel.blocks is None:
        return "phase and calls"
    return how


def _kernels(side: Side) -> dict[str, _Kernel]:
    """Return the kernels of the steps that count, the one that takes most time first."""
    counted = side.work.filter(pl.col("step").is_in(side.counted), pl.col("calls") > 0)
    per_step = pl.col("calls").sum() / side.divisor
    names = (
        counted.group_by("name")
        .agg(
            pl.col("short_name", "family").first(),
            time=pl.col("time_ns").sum(),
            blocks=(pl.col("grid") * pl.col("calls")).sum() / pl.col("calls").sum(),
            known=pl.col("grid").is_not_null().all(),
        )
        .sort("time", "name", descending=[True, False])
    )
    uses: dict[str, dict[Use, float]] = defaultdict(dict)
    phases: dict[str, dict[str, float]] = defaultdict(dict)
    table = counted.group_by("name", "phase", "op", "shapes").agg(calls=per_step).sort(pl.all())
    for name, phase, op, shapes, calls in table.iter_rows():
        if op is not None:
            uses[name][phase, op, shapes] = calls
        phases[name][phase] = phases[name].get(phase, 0.0) + calls
    return {
        row["name"]: _Kernel(
            row["name"],
            row["short_name"],
            row["family"],
            uses[row["name"]],
            phases[row["name"]],
            row["blocks"] if row["known"] else None,
            row["time"] / side.divisor,
        )
        for row in names.iter_rows(named=True)
    }


Pair = tuple[tuple[str, ...], tuple[str, ...]]


def _by_spelling(left: Mapping[str, _Kernel], right: Mapping[str, _Kernel]) -> list[Pair]:
    """Return kernels of one short name, where each side has it once."""
    first, second = _by_short(left.values()), _by_short(right.values())
    return [((was[0],), (second[short][0],)) for short, was in first.items()
            if len(was) == len(second.get(short, ())) == 1]  # fmt: skip


def _by_short(kernels: Iterable[_Kernel]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for kernel in kernels:
        found[kernel.short].append(kernel.name)
    return found


def _by_use(left: Mapping[str, _Kernel], right: Mapping[str, _Kernel]) -> list[Pair]:
    """Return groups of kernels that are used for the same ops, each on both sides."""
    has_shapes = all(
        any(use[-1] for kernel in side.values() for use in kernel.uses) for side in (left, right)
    )
    group_of = _Groups()
    for mark, side in (("A", left), ("B", right)):
        for kernel in side.values():
            for phase, op, shapes in kernel.uses:
                use = (kernel.family, phase, op, shapes if has_shapes else None)
                group_of.join((mark, kernel.name), use)
    members: dict[object, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for place, (mark, side) in enumerate((("A", left), ("B", right))):
        for kernel in side.values():
            if kernel.uses:
                members[group_of.head((mark, kernel.name))][place].append(kernel.name)
    return [(tuple(was), tuple(now)) for was, now in members.values() if was and now]


class _Groups:
    """Things that belong together, directly or by way of others (union-find)."""

    def __init__(self) -> None:
        self._above: dict[object, object] = {}

    def head(self, thing: object) -> object:
        """Return the one that stands for all that the thing belongs together with."""
        while (above := self._above.setdefault(thing, thing)) != thing:
            self._above[thing] = self._above[above]
            thing = self._above[thing]
        return thing

    def join(self, one: object, other: object) -> None:
        """Say that two things belong together."""
        self._above[self.head(other)] = self.head(one)


def _one_by_one(left: Mapping[str, _Kernel], right: Mapping[str, _Kernel]) -> list[Pair]:
    """Return pairs of kernels that are called alike, the most alike first.

    Of a family with very many kernels those are looked at that take most time.
    """
    scored = []
    for family in sorted({kernel.family for kernel in left.values()}):
        mine, other = (
            [k for k in side.values() if k.family == family][:_MOST] for side in (left, right)
        )
        scored += [
            (-_likeness(one, two), abs(one.time - two.time), one.name, two.name)
            for one in mine
            for two in other
            if not (one.uses and two.uses)
        ]
    taken: set[tuple[str, str]] = set()
    found: list[Pair] = []
    for score, _, was, now in sorted(scored):
        if -score >= _ALIKE_ENOUGH and not {("A", was), ("B", now)} & taken:
            taken |= {("A", was), ("B", now)}
            found.append(((was,), (now,)))
    return found


def _likeness(one: _Kernel, two: _Kernel) -> float:
    """Return 0..1: how far calls per step agree in each phase, and the number of blocks."""
    phases: Sequence[str] = [*{**one.phases, **two.phases}]
    both = [(one.phases.get(phase, 0.0), two.phases.get(phase, 0.0)) for phase in phases]
    score = sum(min(pair) for pair in both) / sum(max(pair) for pair in both)
    if one.blocks and two.blocks:
        score *= min(one.blocks, two.blocks) / max(one.blocks, two.blocks)
    return score

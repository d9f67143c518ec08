"""Which numbers of a row belong together, by what their headings say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.audit import gpus, quantities

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracelens.audit.sheets import Row, Value

EFFECTIVE: Final = re.compile(r"effective|equivalent", re.IGNORECASE)
"""Headings of rates that count work or bytes which are not there."""

OF_ALL: Final = re.compile(r"elapsed|duration|wall|total", re.IGNORECASE)
"""Headings of times that are of a whole run, not of one step or request in it."""

CENTRAL: Final = frozenset({"", "mean", "median"})
"""The statistics that a rate is computed from."""

BEFORE: Final = frozenset(
    [
        "baseline",
        "base",
        "eager",
        "naive",
        "native",
        "pytorch",
        "pt",
        "torch",
        "reference",
        "ref",
        "dense",
        "standard",
        "original",
        "orig",
        "vanilla",
        "sequential",
        "cpu",
        "old",
        "before",
        "unoptimized",
        "unoptimised",
        "unfused",
        "nccl",
        "cublas",
        "a",
    ]
)
"""Words of headings for what something is compared with."""

AFTER: Final = frozenset(
    [
        "compile",
        "custom",
        "ours",
        "our",
        "optimized",
        "optimised",
        "fused",
        "triton",
        "tr",
        "flash",
        "new",
        "after",
        "parallel",
        "sparse",
        "persistent",
        "graph",
        "graphs",
        "cudagraph",
        "cudagraphs",
        "fp8",
        "b",
    ]
)
"""Words of headings for what is compared with that."""


def times(row: Row, *, with_bounds: bool = False) -> tuple[Value, ...]:
    """Return the times of a row that rates can follow from."""
    return tuple(
        one
        for one in row.of(quantities.TIME)
        if one.statistic in CENTRAL
        and not one.per_unit
        and (with_bounds or not one.is_bound)
        and not OF_ALL.search(one.name)
    )


def partner(value: Value, among: Sequence[Value]) -> Value | None:
    """Return the number that a heading shows to be of the same thing; None: it is not clear.

    `Eager (tok/s)` goes with `Eager (ms)`; what says nothing goes with the only one there is.
    """
    exactly = [one for one in among if one.tags == value.tags]
    alike = exactly or [one for one in among if one.tags <= value.tags or value.tags <= one.tags]
    order = (value.statistic, "", "mean", "median")
    ranked = ([one for one in alike if one.statistic == name] for name in order)
    same = next((found for found in ranked if found), alike)
    return same[0] if len({one.column for one in same}) == 1 else None


def is_of_the_whole(value: Value) -> bool:
    """Tell whether a time is of all of a row's work, as far as its heading says."""
    said = {word for name in gpus.named(value.name) for word in name.lower().split()}
    forms = {"sxm", "sxm4", "sxm5", "pcie", "nvl", "80gb", "40gb", "nvidia", "target"}
    formats = {word for word in value.tags if gpus.dtypes(word)}
    whole = {"fwd", "bwd", "e2e", "step", "kernel", "total", "iteration", "batch", "inference"}
    return not value.tags - said - forms - formats - whole - BEFORE - AFTER


def compared(first: Value, second: Value) -> tuple[Value, Value] | None:
    """Return two numbers as before and after; None: their headings do not tell."""
    for words, is_before in ((BEFORE, True), (AFTER, False)):
        one, other = bool(words & first.tags), bool(words & second.tags)
        if one != other:
            return (first, second) if one == is_before else (second, first)
    return None


def without_bounds(values: Iterable[Value]) -> list[Value]:
    """Return the numbers that are claimed, without targets."""
    return [one for one in values if not one.is_bound]

"""Calls of nn.Modules, the tree that they form, and the GPU work of their forward and backward.

torch.profiler records the calls as ranges of kind python, named by class and number of the
instance (`nn.Module: Linear_3`), where it records stacks. Backward is attributed through autograd:
what a backward op launches belongs to the module that called the op whose gradient it computes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.links.nest import Nest, nest
from tracelens.links.ops import gradients, ops_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked
    from tracelens.trace.model import Trace

_PREFIX: Final = "nn.Module: "
_DEEPEST: Final = 64
_NUMBER: Final = re.compile(r"_\d+$")
DIRECTIONS: Final = ("forward", "backward")
_DIRECTION: Final = pl.Enum(DIRECTIONS)


@dataclass(frozen=True)
class Place:
    """One place in the tree: an instance as it is called by the one above.

    ``name`` is class and number (`Linear_3`); ``parent`` the number of the place above.
    """

    name: str
    parent: int | None
    depth: int


@dataclass(frozen=True)
class Tree:
    """Places, each after the one above it; a place's number is where it stands here."""

    places: tuple[Place, ...]

    def path(self, place: int) -> tuple[str, ...]:
        """Return the names from the top of the tree to a place; of deep places the last ones."""
        names: list[str] = []
        here: int | None = place
        while here is not None and len(names) < _DEEPEST:
            names.append(self.places[here].name)
            here = self.places[here].parent
        return tuple(reversed(names if here is None else [*names, "…"]))

    def in_order(self) -> Iterator[int]:
        """Give the places, each with those inside it behind it, in order of their numbers."""
        inside: dict[int | None, list[int]] = {}
        for number, place in enumerate(self.places):
            inside.setdefault(place.parent, []).append(number)
        waiting = inside.get(None, [])[::-1]
        while waiting:
            number = waiting.pop()
            yield number
            waiting += inside.get(number, [])[::-1]

    def by_class(self) -> tuple[Tree, list[int]]:
        """Return the tree of classes, and the place there of each place here.

        Instances of one class inside instances of one place are one: all blocks, and all linear
        layers directly inside of blocks.
        """
        found: dict[tuple[int | None, str], int] = {}
        numbers: list[int] = []
        for place in self.places:
            above = None if place.parent is None else numbers[place.parent]
            numbers.append(found.setdefault((above, _NUMBER.sub("", place.name)), len(found)))
        depths = dict(zip(numbers, (place.depth for place in self.places), strict=True))
        places = (Place(name, above, depths[n]) for (above, name), n in found.items())
        return Tree(tuple(places)), numbers


@dataclass(frozen=True)
class Modules:
    """The calls of modules, nested among themselves, and the tree that they form.

    ``calls`` has, besides what ranges have, `module`: the place in ``tree`` of the instance that
    was called.
    """

    calls: Nest
    tree: Tree


def modules(trace: Trace) -> Modules | None:
    """Return the calls of modules, or None where none were recorded."""
    ranges = trace.get("ranges")
    if ranges is None:
        return None
    named = trace["names"].filter(pl.col("name").str.starts_with(_PREFIX))
    found = (
        ranges.filter(pl.col("kind") == "python")
        .join(named, on="name_id", maintain_order="left")
        .select(
            "range_id", "start_ns", "end_ns", "pid", "tid",
            name=pl.col("name").str.strip_prefix(_PREFIX),
        )
        .collect()
    )  # fmt: skip
    if found.is_empty():
        return None
    calls = nest(found)
    places, tree = _placed(calls)
    return Modules(Nest(calls.frame.with_columns(module=places)), tree)


def modules_of(linked: Linked) -> Modules | None:
    """Return the `modules` of a linked trace."""
    return linked.once("modules", lambda of: modules(of.trace))


def work(linked: Linked, found: Modules) -> pl.DataFrame:
    """Return of each GPU op, in order, the `module` (its place; null: none) and `direction`.

    An op that a module's forward launches is of its forward, recomputation in backward included
    (torch.utils.checkpoint). Gradients that are only added up are of no module.
    """
    calls = found.calls
    around = calls.innermost(linked.ops.select("pid", tid="launch_tid", time_ns="launch_ns"))
    frame = pl.DataFrame({"around": around, "around_ns": calls["start_ns"].gather(around)})
    ops = ops_of(linked)
    if ops is None:
        frame = frame.with_columns(of=pl.lit(None, pl.UInt32), by_ns=pl.lit(None, pl.Int64))
    else:
        told, tree = gradients(linked, ops), ops.nest
        began = {name: tree[name].gather(told["of"]) for name in ("pid", "tid", "start_ns")}
        frame = frame.with_columns(
            of=calls.innermost(pl.DataFrame(began).rename({"start_ns": "time_ns"})),
            by_ns=tree["start_ns"].gather(told["by"]),
        )
    inner = pl.col("around").is_null() | (pl.col("by_ns") > pl.col("around_ns"))
    frame = frame.select(
        call=pl.when(pl.col("of").is_not_null() & inner).then("of").otherwise("around"),
        backward=pl.col("of").is_not_null() & inner,
    )
    direction = pl.when("backward").then(_direction("backward")).otherwise(_direction("forward"))
    return frame.select(
        module=calls["module"].gather(frame["call"]),
        direction=pl.when(pl.col("call").is_not_null()).then(direction),
    )


def _direction(name: str) -> pl.Expr:
    return pl.lit(name, _DIRECTION)


def _placed(calls: Nest) -> tuple[pl.Series, Tree]:
    """Return the place of each call in the tree, and the tree.

    A call that nothing encloses, of an instance that is called inside another module elsewhere, is
    of the same place: autograd's threads call modules again that were checkpointed.
    """
    names, parents = calls["name"].to_list(), calls["parent"].to_list()
    tops: list[int] = []
    for row, parent in enumerate(parents):
        tops.append(row if parent is None else tops[parent])
    inner = {name for name, parent in zip(names, parents, strict=True) if parent is not None}
    again = [names[top] in inner for top in tops]
    tree: list[Place] = []
    places: dict[tuple[int | None, str], int] = {}
    inside: dict[str, int] = {}
    found: list[int] = [0] * len(names)
    rows = range(len(names))
    for row in (*(r for r in rows if not again[r]), *(r for r in rows if again[r])):
        name, parent = names[row], parents[row]
        above = None if parent is None else found[parent]
        if parent is None and name in inside:
            found[row] = inside[name]
            continue
        place = places.setdefault((above, name), len(tree))
        if place == len(tree):
            depth = 0 if above is None else tree[above].depth + 1
            tree.append(Place(name, above, depth))
            if above is not None:
                inside.setdefault(name, place)
        found[row] = place
    return pl.Series("module", found, dtype=pl.UInt32), Tree(tuple(tree))

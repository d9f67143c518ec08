"""A forest of nodes with numbers: sums over what lies below, and nodes of one name made one.

All of it is arrays, so that a tree of a million nodes takes a second and not a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]
    Flags = NDArray[np.bool_]

Measure = Literal["gpu", "cpu", "calls"]
MEASURES: Final[tuple[Measure, ...]] = ("gpu", "cpu", "calls")


@dataclass(frozen=True)
class Shape:
    """Which node stands below which; they are numbered from 0, and siblings stand in that order.

    Attributes:
        parent: the node above each, -1 for none.
    """

    parent: Numbers

    def __len__(self) -> int:
        """Return how many nodes there are."""
        return int(self.parent.size)

    @cached_property
    def levels(self) -> tuple[Numbers, ...]:
        """The nodes by depth; on each, those of one parent stand together and in order."""
        return tuple(_levels(self.parent))

    @cached_property
    def depth(self) -> Numbers:
        """How many nodes stand above each."""
        found = np.zeros(len(self), np.int64)
        for depth, level in enumerate(self.levels):
            found[level] = depth
        return found

    @cached_property
    def size(self) -> Numbers:
        """How many nodes each is with all below it."""
        found = np.ones(len(self), np.int64)
        for level in reversed(self.levels[1:]):
            np.add.at(found, self.parent[level], found[level])
        return found

    @cached_property
    def place(self) -> Numbers:
        """Where each stands if each is followed by what lies below it."""
        found = np.zeros(len(self), np.int64)
        for level in self.levels:
            before = np.cumsum(self.size[level]) - self.size[level]
            above = self.parent[level]
            is_first = np.concatenate(([True], above[1:] != above[:-1]))
            first = np.maximum.accumulate(np.where(is_first, np.arange(level.size), 0))
            found[level] = before - before[first] + np.where(above >= 0, found[above] + 1, 0)
        return found

    @cached_property
    def in_order(self) -> Numbers:
        """The nodes, each followed by what lies below it."""
        found = np.empty(len(self), np.int64)
        found[self.place] = np.arange(len(self))
        return found

    def inside(self, values: Numbers) -> Numbers:
        """Return, of a number for each node, the sum over the node and what lies below it."""
        sums = np.concatenate(([0], np.cumsum(values[self.in_order])))
        found: Numbers = sums[self.place + self.size] - sums[self.place]
        return found

    def below(self, node: int | None) -> Numbers:
        """Return a node and what lies below it, each followed by its own; None: all of them."""
        if node is None:
            return self.in_order
        return self.in_order[self.place[node] : self.place[node] + self.size[node]]

    def path(self, node: int | None) -> list[int]:
        """Return the nodes from the top to a node, itself included."""
        found: list[int] = []
        while node is not None and node >= 0:
            found.append(node)
            node = int(self.parent[node])
        return found[::-1]

    def nearest(self, fits: Flags) -> Numbers:
        """Return of each node itself or the nearest above it that fits, -1 where none does."""
        found = np.where(fits, np.arange(len(self)), -1)
        around = self.parent
        # Each round looks twice as far up as the one before.
        while (around >= 0).any():
            above = np.where(around >= 0, found[around], -1)
            found = np.where(found >= 0, found, above)
            around = np.where(around >= 0, around[around], -1)
        return found

    def outermost(self, fits: Flags) -> Flags:
        """Tell which nodes fit and have none above them that does."""
        above = np.where(self.parent >= 0, self.nearest(fits)[self.parent], -1)
        found: Flags = fits & (above < 0)
        return found


@dataclass(frozen=True)
class Forest(Shape):
    """Nodes with what they are and hold.

    Attributes:
        label: of each, a place in `labels`.
        kind: of each, a place in `flame.KINDS`.
        own: what each holds by itself, without those below it: `gpu` and `cpu` in ns, `calls`.
        kernels: kernels that each launched itself.
        kernel_ns: their time.
        took: how long each was open, in ns; of several calls the sum.
        start: when it was first opened, in ns of the recording.
        end: when it was last closed.
        longest: of several calls the one that took longest: a node of the tree in order of time.
        leaf: the node of each GPU op, by op_id.
        labels: names.
    """

    label: Numbers
    kind: Numbers
    own: dict[Measure, Numbers]
    kernels: Numbers
    kernel_ns: Numbers
    took: Numbers
    start: Numbers
    end: Numbers
    longest: Numbers
    leaf: Numbers
    labels: tuple[str, ...]

    @cached_property
    def whole(self) -> dict[Measure, Numbers]:
        """What each node holds with all that lies below it, by measure."""
        return {by: self.inside(values) for by, values in self.own.items()}

    def work(self, node: int | None) -> Flags:
        """Tell of each GPU op, by op_id, whether it was launched in a node or below it."""
        if node is None:
            return np.ones(self.leaf.size, bool)
        place, first = self.place[self.leaf], self.place[node]
        found: Flags = (place >= first) & (place < first + self.size[node])
        return found


def added(where: Numbers, values: Numbers, size: int) -> Numbers:
    """Return the sums of values by number, for numbers from 0 to below a size."""
    found = np.zeros(size, np.int64)
    np.add.at(found, where, values)
    return found


def together(of: Forest) -> Forest:
    """Return the tree in which nodes of one label and kind below one node are one."""
    name = np.unique(np.stack([of.label, of.kind]), axis=1, return_inverse=True)[1].reshape(-1)
    names = int(name.max(initial=0)) + 1
    went = np.zeros(len(of), np.int64)
    above_all = [np.zeros(0, np.int64)]
    size = 0
    for level in of.levels:
        around = of.parent[level]
        above = np.where(around >= 0, went[around], -1)
        keys, which = np.unique((above + 1) * names + name[level], return_inverse=True)
        went[level] = size + which
        above_all.append(keys // names - 1)
        size += keys.size
    first = np.full(size, len(of), np.int64)
    np.minimum.at(first, went, np.arange(len(of)))
    start, end = of.start[first], of.end[first]
    np.minimum.at(start, went, of.start)
    np.maximum.at(end, went, of.end)
    longest = np.zeros(size, np.int64)
    by_took = np.argsort(of.took, kind="stable")
    longest[went[by_took]] = of.longest[by_took]
    return Forest(
        parent=np.concatenate(above_all),
        label=of.label[first],
        kind=of.kind[first],
        own={by: added(went, values, size) for by, values in of.own.items()},
        kernels=added(went, of.kernels, size),
        kernel_ns=added(went, of.kernel_ns, size),
        took=added(went, of.took, size),
        start=start,
        end=end,
        longest=longest,
        leaf=went[of.leaf],
        labels=of.labels,
    )


def _levels(parent: Numbers) -> Iterator[Numbers]:
    """Give the nodes of each depth; those on a cycle are of none."""
    order = np.argsort(parent, kind="stable")
    begins = np.searchsorted(parent[order], np.arange(-1, parent.size + 1))
    level = order[: begins[1]]
    while level.size:
        yield level
        first, count = begins[level + 1], begins[level + 2] - begins[level + 1]
        behind = np.cumsum(count)
        level = order[np.repeat(first - (behind - count), count) + np.arange(count.sum())]

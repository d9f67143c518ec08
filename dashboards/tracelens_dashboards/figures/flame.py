"""What a flame graph draws of a tree: its widest nodes, and of the others so many as one.

Widths add up whatever is drawn: what lies below a bar is never wider than it, and nodes too small
to be drawn, or too many, stand together as "n more".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from tracelens_dashboards.forest import Shape

if TYPE_CHECKING:
    from tracelens_dashboards.forest import Flags, Forest, Measure, Numbers

MOST: Final = 5_000
"""No more bars are drawn."""

_FINEST: Final = 2_000
"""A bar narrower than this part of the whole is narrower than a pixel."""


def bars(
    of: Forest, by: Measure, root: int | None = None, *, heavy_first: bool, most: int = MOST
) -> pl.DataFrame:
    """Return what is drawn below a node, each bar before those below it, from left to right.

    Columns: `node` (null: several, or the whole tree), `depth` (bars above it), `more` (how many
    nodes below one bar it stands for; 0: it is one node), `value` (how wide it is: what it and all
    below it hold), `own` (what of that lies below no other bar: it adds up to the whole), and by
    every measure `gpu_ns`, `cpu_ns`, `calls` and `kernels`. Nodes that hold nothing are not drawn.

    Args:
        of: the tree.
        by: what makes a bar wide.
        root: the node that is looked at, as wide as the picture; None: the whole tree.
        heavy_first: whether the widest stand left; otherwise they stand in the tree's order.
        most: how many bars there may be, 4 at least.
    """
    value = of.whole[by]
    nodes = of.below(root)
    total = int(of.own[by][nodes].sum())
    seen = nodes[(value[nodes] > 0) & (value[nodes] * _FINEST >= total)]
    # The order is stable, so that a node never comes before one above it that is as wide.
    ranked = seen[np.argsort(-value[seen], kind="stable")]
    count = most
    while (found := _bars(of, by, root, ranked[:count], heavy_first)).height > most:
        count = count * 3 // 4
    return found


def _bars(
    of: Forest, by: Measure, root: int | None, kept: Numbers, heavy_first: bool
) -> pl.DataFrame:
    """Return the bars of the nodes kept, and of the others below them."""
    top = len(of) if root is None else root  # as if one node stood above all tops
    parent = np.append(np.where(of.parent < 0, len(of), of.parent), -1)
    is_kept = np.zeros(len(of) + 1, bool)
    is_kept[kept] = is_kept[top] = True
    nodes = of.below(root)
    shown = nodes[is_kept[parent[nodes]] & (of.whole[by][nodes] > 0) & (nodes != top)]
    small = ~is_kept[shown]
    width = -of.whole[by][shown] if heavy_first else shown
    order = np.lexsort((shown, width, small & heavy_first, parent[shown]))
    shown, small = shown[order], small[order]
    first = _first(parent[shown], small)
    node, more = shown[first], np.diff(np.append(first, shown.size))
    bar = np.zeros(len(of) + 1, np.int64)  # the first bar is the top's
    bar[node] = 1 + np.arange(first.size)
    shape = Shape(np.append(-1, bar[parent[node]]))
    is_one = np.append(root is not None, ~small[first])
    frame = pl.DataFrame(
        {
            "node": np.append(top, node),
            "depth": shape.depth,
            "more": np.append(0, np.where(small[first], more, 0)),
            "value": _summed(of.whole[by], of.own[by][nodes], shown, first),
            "own": np.append(of.own[by][root] if root is not None else 0, of.own[by][node]),
            "gpu_ns": _summed(of.whole["gpu"], of.own["gpu"][nodes], shown, first),
            "cpu_ns": _summed(of.whole["cpu"], of.own["cpu"][nodes], shown, first),
            "calls": _summed(of.whole["calls"], of.own["calls"][nodes], shown, first),
            "kernels": _summed(of.inside(of.kernels), of.kernels[nodes], shown, first),
            "is_one": is_one,
        }
    )
    frame = frame.with_columns(
        node=pl.when("is_one").then("node"),
        own=pl.when(pl.col("more") > 0).then("value").otherwise("own"),
    )
    return frame.drop("is_one")[shape.in_order]


def _first(parent: Numbers, small: Flags) -> Numbers:
    """Return where bars begin: small nodes of one parent that stand side by side are one."""
    goes_on = (parent[1:] == parent[:-1]) & small[1:] & small[:-1]
    return np.flatnonzero(np.append(True, ~goes_on)[: parent.size])


def _summed(whole: Numbers, own: Numbers, shown: Numbers, first: Numbers) -> Numbers:
    """Return a number of the top, which is the sum of what its nodes hold, and of each bar."""
    each = np.add.reduceat(whole[shown], first) if first.size else first
    return np.append(own.sum(), each)

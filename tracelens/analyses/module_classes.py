"""nn.Modules by class: instances that stand at like places of the tree, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.analyses import Analysis
from tracelens.analyses.modules import COSTS, own_costs, table
from tracelens.analyses.modules import modules as instances
from tracelens.links.modules import modules_of

if TYPE_CHECKING:
    import polars as pl

    from tracelens.links.linked import Linked


@Analysis
def module_classes(linked: Linked) -> pl.DataFrame:
    """Return one row per class and place: `Block` with all blocks, inside it `Linear` with theirs.

    Columns are those of `modules`, and `instances`.

    Raises:
        NothingToShowError: no calls of modules were recorded.
    """
    found = modules_of(linked)
    if found is None:
        return instances(linked)
    tree, numbers = found.tree.by_class()
    names = (*COSTS, "instances")
    costs: list[dict[str, int]] = [dict.fromkeys(names, 0) for _ in tree.places]
    for number, own in zip(numbers, own_costs(linked, found), strict=True):
        costs[number]["instances"] += 1
        for name in COSTS:
            costs[number][name] += own[name]
    return table(linked, tree, costs)


ANALYSIS = module_classes

"""nn.Modules by class: instances that stand at like places of the tree, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.analyses import Analysis
from tracelens.analyses.modules import (
    INDENT,
    SCHEMA,
    described,
    in_order,
    own_costs,
    summed,
    with_rest,
)
from tracelens.analyses.modules import modules as instances
from tracelens.links.modules import modules_of

if TYPE_CHECKING:
    from tracelens.links.linked import Linked

_SCHEMA: Final = {**SCHEMA, "instances": pl.Int64}


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
    own = own_costs(linked, found)
    groups: dict[tuple[int | None, str], int] = {}
    group_of: list[int] = []
    members: list[int] = []
    costs: list[dict[str, int]] = []
    for module, cost in zip(found.tree, own, strict=True):
        above = None if module.parent is None else group_of[module.parent]
        group = groups.setdefault((above, module.kind), len(groups))
        if group == len(costs):
            costs.append(dict.fromkeys(cost, 0))
            members.append(0)
        group_of.append(group)
        members[group] += 1
        for name, value in cost.items():
            costs[group][name] += value
    keys = list(groups)
    parents = [above for above, _ in keys]
    sums = summed(parents, costs)
    paths: list[tuple[str, ...]] = []
    for above, kind in keys:
        paths.append((*(() if above is None else paths[above]), kind))
    rows = [
        {
            "module": INDENT * (len(paths[group]) - 1) + paths[group][-1],
            "path": "/".join(paths[group]),
            "depth": len(paths[group]) - 1,
            "instances": members[group],
            **described(sums[group], costs[group]),
        }
        for group in in_order(parents)
    ]
    return with_rest(linked, pl.DataFrame(rows, schema=_SCHEMA))


ANALYSIS = module_classes

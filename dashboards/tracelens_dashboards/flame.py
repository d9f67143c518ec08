"""The tree of a trace: ranges, modules and PyTorch ops, each with the GPU work launched in it.

Every GPU op stands in one node alone, so that the tops of the tree add up to all GPU work. What
autograd's thread launches stands below the forward op whose gradient it computes (`forward`), or
below the range that waited for it (`waiting`); of CPU time each thread is a tree (`thread`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import polars as pl

from tracelens.errors import NothingToShowError
from tracelens.links.nest import nest
from tracelens.links.ops import launched, ops_of
from tracelens.links.phases import phase_at
from tracelens.links.scopes import worked_for
from tracelens.tables.build import GPU_WORK
from tracelens.trace.nesting import nested
from tracelens.trace.schema import NAMED_BY_USERS, THREADS
from tracelens_dashboards.forest import Forest, added, together

if TYPE_CHECKING:
    from tracelens.links.linked import Linked
    from tracelens.links.nest import Nest
    from tracelens_dashboards.forest import Flags, Numbers
    from tracelens_dashboards.library import Opened

Placing = Literal["forward", "waiting", "thread"]
PLACINGS: Final[tuple[Placing, ...]] = ("forward", "waiting", "thread")

KINDS: Final = ("range", "module", "op", "thread", "none")
"""What a node is: a range that people named, a call of a module, a PyTorch op, a thread, or what
lies in none of them."""

NOWHERE: Final = "(in no range or op)"
_RANGE, _MODULE, _OP, _THREAD, _NONE = range(5)
_MODULE_PREFIX: Final = "nn.Module: "
# What torch.autograd's emit_nvtx adds to the name of every op.
_ADDED: Final = r", (?:(?:stashed )?seq|op_id) ?= ?\d+|, (?:sizes|input_op_ids) ?= ?\[.*\]"


def forest(opened: Opened, placing: Placing) -> Forest:
    """Return the tree of a recording in order of time, computed once.

    Raises:
        NothingToShowError: it holds neither ranges nor ops nor modules.
    """
    base: _Base = opened.once("flame", lambda: _base(opened.linked))
    return opened.once(f"flame {placing}", lambda: base.placed(placing))


def merged(opened: Opened, placing: Placing, *, alike: bool) -> Forest:
    """Return the tree in which nodes of one name below one node are one, computed once.

    Args:
        opened: the recording.
        placing: where backward stands.
        alike: whether modules and ranges that differ in their number alone have one name.

    Raises:
        NothingToShowError: as `forest`.
    """

    def make() -> Forest:
        of = forest(opened, placing)
        return together(_without_numbers(of) if alike else of)

    return opened.once(f"flame {placing} merged {alike}", make)


def call(opened: Opened, node: int) -> tuple[int, int, int] | None:
    """Return range_id, start and end in ns of a node of `forest`; None where it is no range.

    Raises:
        NothingToShowError: as `forest`.
    """
    base: _Base = opened.once("flame", lambda: _base(opened.linked))
    if node >= base.range_id.size:
        return None
    return int(base.range_id[node]), int(base.tree.start[node]), int(base.tree.end[node])


def phases(opened: Opened) -> pl.Series | None:
    """Return the phase in which each node of `forest` began, or None where no range names any.

    Raises:
        NothingToShowError: as `forest`.
    """
    base: _Base = opened.once("flame", lambda: _base(opened.linked))
    return base.phase


def launchers(opened: Opened) -> pl.DataFrame:
    """Return of each GPU op, by op_id, the names of its `op`, `range` and `module`, or nulls.

    They are places in the labels of `forest`. The op is the innermost that launched it, the range
    the innermost around it or the one that waited for its thread, and the module the innermost
    that called it or the op whose gradient it computes.

    Raises:
        NothingToShowError: as `forest`.
    """
    return opened.once("flame launchers", lambda: _launchers(opened))


def _launchers(opened: Opened) -> pl.DataFrame:
    columns: dict[str, pl.Series] = {}
    wanted: tuple[tuple[str, int, Placing], ...] = (
        ("op", _OP, "thread"),
        ("range", _RANGE, "waiting"),
        ("module", _MODULE, "forward"),
    )
    for name, kind, placing in wanted:
        of = forest(opened, placing)
        node = of.nearest(of.kind == kind)[of.leaf]
        label = np.where(node >= 0, of.label[node], -1)
        columns[name] = pl.Series(label, dtype=pl.Int32)
    known = (pl.when(pl.col(name) >= 0).then(name) for name in columns)
    return pl.DataFrame(columns).select(known)


@dataclass(frozen=True)
class _Base:
    """What all placings share: the nodes by thread, and where else some of them may stand.

    Nodes are the ranges in order of start, the one of what lies in none, and the threads.
    ``waiting`` is the node that waited for each top of a thread, ``forward`` the op whose gradient
    each computes where the node above it does not; ``leaf`` the node of each GPU op on its thread,
    ``waited_leaf`` that or the one that waited. -1: none.
    """

    tree: Forest
    waiting: Numbers
    forward: Numbers
    waited_leaf: Numbers
    ran_ns: Numbers
    is_kernel: Flags
    range_id: Numbers
    phase: pl.Series | None

    def placed(self, placing: Placing) -> Forest:
        """Return the tree with backward where it is wanted."""
        of = self.tree
        if placing == "thread":
            return self._with_work(of)
        is_top = (of.parent >= 0) & (of.kind[of.parent] == _THREAD)
        parent = np.where(is_top, self.waiting, of.parent)
        if placing == "forward":
            parent = np.where(self.forward >= 0, self.forward, parent)
        kept = int((of.kind != _THREAD).sum())
        return self._with_work(_head(replace(of, parent=parent, leaf=self.waited_leaf), kept))

    def _with_work(self, of: Forest) -> Forest:
        size, kernels = len(of), of.leaf[self.is_kernel]
        return replace(
            of,
            own={**of.own, "gpu": added(of.leaf, self.ran_ns, size)},
            kernels=added(kernels, np.ones(kernels.size, np.int64), size),
            kernel_ns=added(kernels, self.ran_ns[self.is_kernel], size),
        )


def _head(of: Forest, kept: int) -> Forest:
    """Return a tree without its last nodes, below which nothing stands."""
    return replace(
        of,
        parent=of.parent[:kept],
        label=of.label[:kept],
        kind=of.kind[:kept],
        own={by: values[:kept] for by, values in of.own.items()},
        took=of.took[:kept],
        start=of.start[:kept],
        end=of.end[:kept],
        longest=of.longest[:kept],
    )


def _base(linked: Linked) -> _Base:
    found = _recorded(linked)
    if found.is_empty():
        raise NothingToShowError(why_nothing(linked))
    tree = nest(found)
    ordered = tree.frame.sort("start_ns", "end_ns", "row", descending=[False, True, False])
    nodes = ordered.with_row_index("node")
    node_of = nodes.sort("row")["node"]
    nodes = nodes.with_columns(parent=node_of.gather(nodes["parent"]))
    hosts = _Hosts(linked, tree, node_of)
    earlier = {
        "waiting": hosts.of(nodes.select("pid", launch_tid="tid", launch_ns="start_ns")),
        "forward": _forward(linked, nodes),
    }
    # Nothing stands below what began after it: so no node comes to stand below itself.
    nodes = nodes.with_columns(**earlier).with_columns(
        pl.when(pl.col(name) < pl.col("node")).then(name) for name in earlier
    )
    leaf = _leaves(linked, tree, node_of, nodes)
    waited = pl.select(leaf=pl.coalesce(leaf, hosts.of(linked.ops)))["leaf"]
    nobody, whole = nodes.height, _with_threads(linked, nodes)
    return _Base(
        tree=_by_thread(whole, _numbers(leaf, nobody)),
        waiting=_numbers(whole["waiting"]),
        forward=_numbers(whole["forward"]),
        waited_leaf=_numbers(waited, nobody),
        ran_ns=(linked.ops["end_ns"] - linked.ops["start_ns"]).to_numpy(),
        is_kernel=(linked.ops["kind"] == "kernel").to_numpy(),
        range_id=_numbers(nodes["range_id"]),
        phase=_phases(linked, whole),
    )


def _recorded(linked: Linked) -> pl.DataFrame:
    """Return ranges, modules and ops with `kind`, a place in `KINDS`, and `text`, their name."""
    ranges, ops = linked.trace.get("ranges"), ops_of(linked)
    if ranges is None:
        return pl.DataFrame()
    are_ops = pl.Series([], dtype=pl.UInt32) if ops is None else ops.nest["range_id"]
    text = pl.col("name").fill_null("(unnamed)")
    is_module = text.str.starts_with(_MODULE_PREFIX) & (pl.col("kind") == "python")
    return (
        ranges.filter(pl.col("pid").is_not_null(), pl.col("tid").is_not_null())
        .join(linked.trace["names"], on="name_id", how="left", maintain_order="left")
        .filter((pl.col("kind") != "python") | is_module)
        .select(
            "range_id", "start_ns", "end_ns", "pid", "tid",
            kind=pl.when(pl.col("range_id").is_in(are_ops.implode())).then(_OP)
            .when(is_module).then(_MODULE).otherwise(_RANGE),
            text=text.str.strip_prefix(_MODULE_PREFIX).str.replace_all(_ADDED, ""),
            is_named=pl.col("kind").is_in(NAMED_BY_USERS),
        )
        .collect()
    )  # fmt: skip


class _Hosts:
    """Which node waits for a thread: the innermost of the thread that that one works for."""

    def __init__(self, linked: Linked, tree: Nest, node_of: pl.Series) -> None:
        named = tree.frame.filter("is_named").select("start_ns", "end_ns", "pid", "tid")
        self._linked, self._tree, self._node_of = linked, tree, node_of
        self._ranges = nested(named)

    def of(self, moments: pl.DataFrame) -> pl.Series:
        """Return the node of each moment (pid, launch_tid, launch_ns), or null."""
        moments = moments.select("pid", "launch_tid", "launch_ns")
        host = worked_for(self._linked, moments, self._ranges)
        asked = moments.select("pid", host.alias("tid"), time_ns="launch_ns")
        return self._node_of.gather(self._tree.innermost(asked))


def _forward(linked: Linked, nodes: pl.DataFrame) -> pl.Series:
    """Return the op whose gradient each node computes, where the node above does not; or null."""
    ops = ops_of(linked)
    nobody = pl.repeat(None, nodes.height, dtype=pl.UInt32, eager=True)
    if ops is None:
        return nobody
    tied = ops.nest.frame.select("range_id", of=ops.nest["range_id"].gather(ops.nest["forward"]))
    node = nodes.select("range_id", "node")
    found = nodes.select("range_id").join(
        tied.join(node.rename({"range_id": "of"}), on="of"),
        on="range_id", how="left", maintain_order="left",
    )["node"]  # fmt: skip
    around = nodes["parent"]
    above = found
    while around.null_count() < around.len():
        above = nodes.select(found=pl.coalesce(above, above.gather(around)))["found"]
        around = around.gather(around)
    differs = found.ne_missing(above.gather(nodes["parent"]))
    return nodes.select(found=pl.when(differs).then(found))["found"]


def _leaves(linked: Linked, tree: Nest, node_of: pl.Series, nodes: pl.DataFrame) -> pl.Series:
    """Return the innermost node on each GPU op's launching thread, or the op that is named."""
    moments = linked.ops.select("pid", tid="launch_tid", time_ns="launch_ns")
    found = node_of.gather(tree.innermost(moments))
    ops = ops_of(linked)
    if ops is None:
        return found
    told = launched(linked, ops)
    named = pl.DataFrame({"range_id": ops.nest["range_id"].gather(told["row"])})
    node = named.join(
        nodes.select("range_id", "node"), on="range_id", how="left", maintain_order="left"
    )["node"]
    by_name = told["by"] == "external_id"
    return pl.select(leaf=pl.when(by_name).then(node).otherwise(found))["leaf"]


def _phases(linked: Linked, whole: pl.DataFrame) -> pl.Series | None:
    if linked.phase_source != "ranges":
        return None
    moments = whole.select("pid", "tid", time_ns=pl.when(pl.col("kind") < _THREAD).then("start_ns"))
    return phase_at(linked.trace, moments, linked.rules).cast(pl.String)


def _with_threads(linked: Linked, nodes: pl.DataFrame) -> pl.DataFrame:
    """Return the nodes, that of what lies in none, and the threads, above their tops."""
    known = linked.trace.get("threads")
    named = pl.DataFrame(schema=THREADS.schema()) if known is None else known.collect()
    threads = (
        nodes.group_by("pid", "tid", maintain_order=True)
        .agg(pl.col("start_ns").min(), pl.col("end_ns").max())
        .join(named, on=["pid", "tid"], how="left", maintain_order="left")
        .with_columns(
            kind=_THREAD,
            text=pl.format("{} (thread {})", pl.col("name").fill_null("unnamed"), "tid"),
            thread=nodes.height + 1 + pl.int_range(pl.len(), dtype=pl.UInt32),
        )
    )
    nowhere = pl.DataFrame({"kind": [_NONE], "text": [NOWHERE], "start_ns": [0], "end_ns": [0]})
    tops = nodes.join(
        threads.select("pid", "tid", "thread"), on=["pid", "tid"], maintain_order="left"
    ).with_columns(parent=pl.coalesce("parent", "thread"))
    return pl.concat([tops, nowhere, threads], how="diagonal_relaxed")


def _by_thread(whole: pl.DataFrame, leaf: Numbers) -> Forest:
    """Return the tree of threads with its CPU time and calls."""
    label, labels = _labelled(whole)
    kind, parent = _numbers(whole["kind"]), _numbers(whole["parent"])
    start, end = whole["start_ns"].to_numpy(), whole["end_ns"].to_numpy()
    real, lower = kind < _THREAD, parent >= 0
    took = np.where(real, end - start, 0)
    inner = added(parent[lower], took[lower], took.size)
    nothing = np.zeros(took.size, np.int64)
    return Forest(
        parent=parent,
        label=label,
        kind=kind,
        own={
            "gpu": nothing,
            "cpu": np.where(real, np.maximum(took - inner, 0), 0),
            "calls": real.astype(np.int64),
        },
        kernels=nothing,
        kernel_ns=nothing,
        took=np.where(kind == _THREAD, inner, took),
        start=start,
        end=end,
        longest=np.arange(took.size),
        leaf=leaf,
        labels=labels,
    )


def _without_numbers(of: Forest) -> Forest:
    """Return a tree whose modules and ranges are named without the number at the end."""
    named = pl.DataFrame({"label": of.label, "kind": of.kind}).with_columns(
        text=pl.Series(of.labels, dtype=pl.String).gather(of.label)
    )
    text = (
        pl.when(pl.col("kind") == _MODULE)
        .then(pl.col("text").str.replace(r"_\d+$", ""))
        .when(pl.col("kind") == _RANGE)
        .then(pl.col("text").str.replace(r"\d+$", "N"))
        .otherwise("text")
    )
    label, labels = _labelled(named.select(text))
    return replace(of, label=label, labels=labels)


def _labelled(named: pl.DataFrame) -> tuple[Numbers, tuple[str, ...]]:
    """Return the place of each `text` in the distinct ones, and those."""
    labels = named.select("text").unique(maintain_order=True).with_row_index("label")
    joined = named.select("text").join(labels, on="text", maintain_order="left")
    return _numbers(joined["label"]), tuple(labels["text"])


def _numbers(series: pl.Series, none: int = -1) -> Numbers:
    return series.cast(pl.Int64).fill_null(none).to_numpy()


def why_nothing(linked: Linked) -> str:
    """Return why a recording has no tree, and what would help."""
    source = linked.trace.source
    of_ops = GPU_WORK.why_empty(linked, "ops")
    if not source.facts.get("recorded_format", source.format).startswith("nsys"):
        return f"There is no tree, as no ranges were recorded; {of_ops}."
    return f"There is no tree: {GPU_WORK.why_empty(linked, 'ranges')}; {of_ops}."

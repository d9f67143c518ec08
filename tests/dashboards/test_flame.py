"""The tree of a trace adds up: to the tables of a summary, and whatever of it is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

np = pytest.importorskip("numpy", reason="no numpy: the explorer is not installed")
pytest.importorskip("dash", reason="no dash: the explorer is not installed")

from tracelens_dashboards import flame  # noqa: E402
from tracelens_dashboards.figures.flame import bars  # noqa: E402
from tracelens_dashboards.forest import Forest, together  # noqa: E402
from tracelens_dashboards.library import Library, Opened  # noqa: E402

from tracelens.analyses.modules import modules  # noqa: E402 (after the skips)
from tracelens.analyses.ops import ops  # noqa: E402
from tracelens.analyses.ranges import ranges  # noqa: E402
from tracelens.analyses.totals import totals  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens_dashboards.flame import Placing
    from tracelens_dashboards.forest import Flags

SAMPLES: Final = Path(__file__).parents[2] / "samples"
KINETO: Final = SAMPLES / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz"
NSYS: Final = SAMPLES / "gpt2-xl-ctx256-h200" / "run.sqlite.gz"
TIMES: Final = ("kernel_time_ns", "copy_time_ns", "memset_time_ns", "graph_time_ns")
RANGE, MODULE, OP = range(3)

# Of each node: how far before it its parent stands (0: it is a top), its label, and what it holds.
nodes = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 9), st.integers(0, 50)),
    max_size=40,
)


def grown(rows: Sequence[tuple[int, int, int, int]]) -> Forest:
    numbers = np.array([row[1:] for row in rows], np.int64).reshape(len(rows), 3)
    parents = [place - back if 0 < back <= place else -1 for place, (back, *_) in enumerate(rows)]
    nothing = np.zeros(len(rows), np.int64)
    return Forest(
        parent=np.array(parents, np.int64),
        label=numbers[:, 0],
        kind=nothing,
        own={"gpu": numbers[:, 2], "cpu": numbers[:, 1], "calls": nothing + 1},
        kernels=numbers[:, 1],
        kernel_ns=numbers[:, 2],
        took=numbers[:, 1],
        start=np.arange(len(rows)),
        end=np.arange(len(rows)) + 1,
        longest=np.arange(len(rows)),
        leaf=np.arange(len(rows)),
        labels=("a", "b", "c", "d"),
    )


def by_hand(of: Forest, by: str) -> list[int]:
    """Return what each node holds with all below it, by walking up from every node."""
    found = [0] * len(of)
    for node, value in enumerate(of.own[by].tolist()):
        for above in of.path(node):
            found[above] += value
    return found


@given(nodes)
def test_a_node_holds_what_it_and_all_below_it_hold(rows: list[tuple[int, int, int, int]]) -> None:
    of = grown(rows)

    assert of.whole["gpu"].tolist() == by_hand(of, "gpu")
    assert of.depth.tolist() == [len(of.path(node)) - 1 for node in range(len(of))]
    for node in range(len(of)):
        assert set(of.below(node).tolist()) == {n for n in range(len(of)) if node in of.path(n)}
        assert of.own["gpu"][of.work(node)].sum() == of.whole["gpu"][node]


@given(nodes)
def test_the_nearest_that_fits_is_found(rows: list[tuple[int, int, int, int]]) -> None:
    of = grown(rows)
    fits = of.label == 0

    assert of.nearest(fits).tolist() == [
        next((n for n in reversed(of.path(node)) if fits[n]), -1) for node in range(len(of))
    ]
    outermost = of.outermost(fits)
    for node in range(len(of)):
        assert outermost[node] == (fits[node] and fits[of.path(node)].sum() == 1)


@given(nodes)
def test_nodes_of_one_path_are_one_and_nothing_is_lost(
    rows: list[tuple[int, int, int, int]],
) -> None:
    of = grown(rows)
    made = together(of)

    def paths(tree: Forest) -> dict[tuple[int, ...], int]:
        sums: dict[tuple[int, ...], int] = {}
        for node in range(len(tree)):
            path = tuple(tree.label[tree.path(node)].tolist())
            sums[path] = sums.get(path, 0) + int(tree.own["gpu"][node])
        return sums

    assert paths(made) == paths(of)
    assert len(made) == len(paths(of))
    assert made.own["calls"].sum() == len(of)
    for node in range(len(made)):
        alike = [n for n in range(len(of)) if made.leaf[n] == node]
        assert of.took[made.longest[node]] == max(of.took[n] for n in alike)
    for node in range(len(of)):
        assert made.label[made.leaf[node]] == of.label[node]


@given(
    nodes, st.sampled_from(["gpu", "cpu", "calls"]), st.integers(4, 30), st.booleans(), st.data()
)
def test_whatever_is_drawn_widths_add_up(
    rows: list[tuple[int, int, int, int]], by: str, most: int, heavy: bool, data: st.DataObject
) -> None:
    of = grown(rows)
    root = data.draw(st.one_of(st.none(), st.integers(0, len(of) - 1))) if len(of) else None
    drawn = bars(of, by, root, heavy_first=heavy, most=most)
    total = of.own[by].sum() if root is None else of.whole[by][root]

    assert drawn.height <= most
    assert drawn["value"][0] == total
    assert drawn["own"].sum() == total
    for number, measure in (("gpu_ns", "gpu"), ("cpu_ns", "cpu"), ("calls", "calls")):
        assert drawn[number][0] == of.own[measure][of.below(root)].sum()
    open_now: list[dict[str, int]] = []
    inner: dict[int, int] = {}
    for place, bar in enumerate(drawn.iter_rows(named=True)):
        del open_now[bar["depth"] :]
        assert len(open_now) == bar["depth"], "each bar follows the one above it"
        if open_now:
            above = open_now[-1]
            inner[above["place"]] = inner.get(above["place"], 0) + bar["value"]
            assert inner[above["place"]] <= above["value"], "what lies below is never wider"
        assert (bar["node"] is None) == (bar["more"] > 0 or (place == 0 and root is None))
        if bar["node"] is not None:
            assert bar["value"] == of.whole[by][bar["node"]]
        open_now.append({**bar, "place": place})


@given(nodes)
def test_where_there_is_room_every_node_is_drawn(rows: list[tuple[int, int, int, int]]) -> None:
    of = grown(rows)
    drawn = bars(of, "calls", heavy_first=False)

    assert drawn["node"].drop_nulls().to_list() == of.in_order.tolist()
    assert drawn["more"].sum() == 0


def opened(path: Path) -> Opened:
    library = Library([path])
    return library.open(library.items[0].id)


@pytest.mark.parametrize("path", [KINETO, NSYS], ids=["kineto", "nsys"])
@pytest.mark.parametrize("placing", flame.PLACINGS)
def test_the_tops_add_up_to_all_gpu_work(path: Path, placing: Placing) -> None:
    recording = opened(path)
    of = flame.forest(recording, placing)
    row = totals(recording.linked).row(0, named=True)
    work = sum(row[name] for name in TIMES)

    for tree in (of, *(flame.merged(recording, placing, alike=alike) for alike in (False, True))):
        assert tree.whole["gpu"][tree.parent < 0].sum() == work
        assert tree.kernels.sum() == row["kernels"]
        assert bars(tree, "gpu", heavy_first=True)["value"][0] == work


def named(tree: Forest, name: str, kind: int) -> Flags:
    return (tree.label == tree.labels.index(name)) & (tree.kind == kind)


@pytest.mark.parametrize("path", [KINETO, NSYS], ids=["kineto", "nsys"])
def test_ranges_hold_what_the_table_of_ranges_says(path: Path) -> None:
    recording = opened(path)
    tree = flame.merged(recording, "waiting", alike=False)
    kernels, kernel_ns = tree.inside(tree.kernels), tree.inside(tree.kernel_ns)
    table = ranges(recording.linked)

    assert table.height > 5
    for name, count, took in table.select("name", "kernels", "kernel_time_ns").iter_rows():
        outermost = tree.outermost(named(tree, name, RANGE))
        assert (kernels[outermost].sum(), kernel_ns[outermost].sum()) == (count, took), name


def test_ops_hold_what_the_table_of_ops_says() -> None:
    recording = opened(KINETO)
    table = ops(recording.linked).drop_nulls("name")

    assert table.height > 100
    for placing in flame.PLACINGS:
        tree = flame.merged(recording, placing, alike=False)
        op = tree.nearest(tree.kind == OP)
        for name, calls, took in table.select("name", "calls", "self_gpu_time_ns").iter_rows():
            fits = named(tree, name, OP)
            assert tree.own["calls"][fits].sum() == calls
            assert tree.own["gpu"][fits[op] & (op >= 0)].sum() == took


def test_modules_own_their_backward_as_the_table_of_modules_says() -> None:
    recording = opened(KINETO)
    tree = flame.merged(recording, "forward", alike=False)
    took: dict[str, int] = {}
    for node in np.flatnonzero(tree.kind == MODULE).tolist():
        around = [n for n in tree.path(node) if tree.kind[n] == MODULE]
        path = "/".join(tree.labels[tree.label[n]] for n in around)
        took[path] = took.get(path, 0) + int(tree.whole["gpu"][node])
    table = modules(recording.linked).drop_nulls("path")

    assert took == dict(table.select("path", "gpu_time_ns").iter_rows())

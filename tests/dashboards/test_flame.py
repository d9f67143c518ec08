"""The tree of a trace adds up: to the tables of a summary, and whatever of it is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracelens_dashboards import flame
from tracelens_dashboards.figures.flame import bars
from tracelens_dashboards.forest import Forest, together
from tracelens_dashboards.library import Library, Opened

from tests.build import Nsys
from tests.kineto import Profile
from tracelens.analyses.modules import modules
from tracelens.analyses.ops import ops
from tracelens.analyses.ranges import ranges
from tracelens.analyses.totals import totals
from tracelens.errors import NothingToShowError

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


def paths(tree: Forest) -> dict[str, int]:
    """Return the GPU time of each node itself, by path, without nodes that have none."""
    found: dict[str, int] = {}
    for node in np.flatnonzero(tree.own["gpu"]).tolist():
        path = " / ".join(tree.labels[tree.label[n]] for n in tree.path(node))
        found[path] = found.get(path, 0) + int(tree.own["gpu"][node])
    return found


@pytest.fixture
def small(tmp_path: Path) -> Opened:
    """Return two layers called forward on the main thread, and backward on autograd's."""
    trace = Profile()
    main = trace.thread("python3", pid=100)
    autograd = trace.thread("pt_autograd_0", pid=100, tid=101)
    main.annotation("step 3", 0, 900_000)
    main.annotation("forward", 1_000, 99_000)
    for number in (0, 1):
        at = 2_000 + number * 40_000
        main.python(f"nn.Module: Linear_{number}", at, at + 30_000, module=number)
        main.op("aten::mm", at + 1_000, at + 20_000, seq=number)
        main.kernel("forward_gemm", at=at + 2_000, run=(at + 9_000, at + 19_000))
    main.annotation("backward", 100_000, 400_000)
    for number in (1, 0):
        at = 110_000 + (1 - number) * 100_000
        autograd.op("MmBackward0", at, at + 50_000, seq=number, fwd_thread=1)
        autograd.op("aten::mm", at + 1_000, at + 40_000)
        autograd.kernel("backward_gemm", at=at + 2_000, run=(at + 9_000, at + 29_000))
    autograd.op("AccumulateGrad", 320_000, 350_000)
    autograd.kernel("add", at=321_000, run=(330_000, 331_000))
    autograd.kernel("alone", at=360_000, run=(370_000, 372_000))
    main.kernel("after", at=950_000, run=(960_000, 963_000))
    return opened(trace.write(tmp_path / "rank0.json"))


def test_backward_stands_below_its_forward_op(small: Opened) -> None:
    forward = "step 3 / forward / Linear_{n} / aten::mm"

    assert paths(flame.merged(small, "forward", alike=False)) == {
        **{forward.format(n=n): 10_000 for n in (0, 1)},
        **{forward.format(n=n) + " / MmBackward0 / aten::mm": 20_000 for n in (0, 1)},
        "step 3 / backward / AccumulateGrad": 1_000,
        "step 3 / backward": 2_000,
        flame.NOWHERE: 3_000,
    }


def test_backward_stands_below_the_range_that_waited(small: Opened) -> None:
    assert paths(flame.merged(small, "waiting", alike=True)) == {
        "step N / forward / Linear / aten::mm": 20_000,
        "step N / backward / MmBackward0 / aten::mm": 40_000,
        "step N / backward / AccumulateGrad": 1_000,
        "step N / backward": 2_000,
        flame.NOWHERE: 3_000,
    }


def test_cpu_time_stands_on_its_own_thread(small: Opened) -> None:
    tree = flame.forest(small, "thread")
    tops = np.flatnonzero((tree.parent < 0) & (tree.whole["cpu"] > 0))

    assert {tree.labels[tree.label[top]]: int(tree.whole["cpu"][top]) for top in tops} == {
        "python3 (thread 100)": 900_000,
        "pt_autograd_0 (thread 101)": 130_000,
    }


def test_who_launched_a_kernel_is_told(small: Opened) -> None:
    labels = flame.forest(small, "thread").labels
    rows = [
        tuple(None if place is None else labels[place] for place in row)
        for row in flame.launchers(small).iter_rows()
    ]

    assert rows == [
        ("aten::mm", "forward", "Linear_0"),
        ("aten::mm", "forward", "Linear_1"),
        ("aten::mm", "backward", "Linear_1"),
        ("aten::mm", "backward", "Linear_0"),
        ("AccumulateGrad", "backward", None),
        (None, "backward", None),
        (None, None, None),
    ]


def test_without_ranges_the_tree_says_why(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    main.kernel("gemm", at=0, run=(10, 20))
    recording = opened(trace.write(tmp_path / "bare.sqlite"))

    with pytest.raises(NothingToShowError, match=r"ranges were not recorded .*--trace=nvtx"):
        flame.forest(recording, "forward")

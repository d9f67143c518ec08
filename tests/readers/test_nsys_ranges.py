"""NVTX ranges out of nsys exports: names, domains, nesting, and those that never ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.asking import opened, texts
from tests.build import Nsys
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path


def test_a_range_has_its_name_thread_and_times(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python", pid=100, tid=104).push("forward", 5, 25)

    columns = ("name", "start_ns", "end_ns", "pid", "tid", "kind", "domain", "closed")
    found = texts(opened(trace, tmp_path), "ranges", *columns)

    assert found == [("forward", 5, 25, 100, 104, "push_pop", "", True)]


@pytest.mark.parametrize("registered", [False, True])
def test_registered_and_plain_texts_are_the_same_name(tmp_path: Path, *, registered: bool) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("forward", 0, 10, registered=registered).push("forward", 20, 30)

    read = opened(trace, tmp_path)

    assert texts(read, "ranges", "name") == [("forward",), ("forward",)]
    assert read["ranges"].collect()["name_id"].n_unique() == 1


def test_a_domain_has_its_name_by_process(tmp_path: Path) -> None:
    trace = Nsys()
    rank0, rank1 = (trace.thread("python", pid=pid) for pid in (100, 200))
    rank0.push("gemm", 0, 10, domain="cuBLAS").push("reduce", 20, 30, domain="NCCL")
    rank1.push("reduce", 1, 10, domain="NCCL").push("gemm", 21, 30, domain="cuBLAS")

    found = texts(opened(trace, tmp_path), "ranges", "pid", "name", "domain")

    assert found == [
        (100, "gemm", "cuBLAS"),
        (200, "reduce", "NCCL"),
        (100, "reduce", "NCCL"),
        (200, "gemm", "cuBLAS"),
    ]


def test_a_domain_without_a_name_has_its_number(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("x", 0, 10, columns={"domainId": 9})

    assert texts(opened(trace, tmp_path), "ranges", "domain") == [("domain 9",)]


def test_a_range_never_closed_lasts_until_the_end_and_that_is_said(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("step", 0, None).push("forward", 10, 20)
    main.kernel("k", at=12, run=(30, 90))

    read = opened(trace, tmp_path)

    assert texts(read, "ranges", "name", "end_ns", "closed", "depth") == [
        ("step", 90, False, 0),
        ("forward", 20, True, 1),
    ]
    assert [c.text for c in read.caveats] == [
        "1 NVTX ranges were never closed: they are taken to last until the end."
    ]


def test_a_range_never_closed_does_not_end_before_it_starts(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("only", -50, None).push("last", 70, None)

    found = texts(opened(trace, tmp_path), "ranges", "name", "start_ns", "end_ns")

    assert found == [("only", -50, 70), ("last", 70, 70)]


def test_marks_and_categories_are_no_ranges(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("here", 5, 5, kind="mark").push("real", 0, 10)
    main.push("category", 1, 2, columns={"eventType": 33})

    assert texts(opened(trace, tmp_path), "ranges", "name") == [("real",)]


def test_ranges_that_overlap_without_nesting_stand_on_lanes_of_their_own(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("request 1", 0, 60, kind="start_end")
    main.push("request 2", 40, 100, kind="start_end")
    main.push("inside 1", 10, 20)
    main.push("inside both", 45, 50)
    main.push("inside 2", 70, 80)

    found = texts(opened(trace, tmp_path), "ranges", "name", "lane", "depth", "kind")

    assert found == [
        ("request 1", 0, 0, "start_end"),
        ("inside 1", 0, 1, "push_pop"),
        ("request 2", 1, 0, "start_end"),
        ("inside both", 0, 1, "push_pop"),
        ("inside 2", 0, 0, "push_pop"),
    ]


def test_a_range_that_another_thread_ended_says_so(tmp_path: Path) -> None:
    trace = Nsys()
    main, other = trace.thread("python"), trace.thread("loader", tid=101)
    main.push("request", 0, 60, kind="start_end", end_thread=other).push("own", 5, 8)

    found = texts(opened(trace, tmp_path), "ranges", "name", "tid", "end_tid")

    assert found == [("request", 100, 101), ("own", 100, None)]


def test_ranges_of_two_threads_do_not_enclose_each_other(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("outer", 0, 100)
    trace.thread("worker", tid=101).push("apart", 10, 20)

    found = texts(opened(trace, tmp_path), "ranges", "name", "depth", "lane")

    assert found == [("outer", 0, 0), ("apart", 0, 0)]


def test_text_that_is_not_utf_8_is_shown_with_what_can_be_read(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread(b"th\xffread")
    main.push(b"na\xefve", 0, 100)
    main.push(b"caf\xe9", 10, 20, registered=True)
    main.kernel(b"kern\xc3el", at=15, run=(30, 40))

    read = opened(trace, tmp_path)

    assert texts(read, "ranges", "name") == [("na\ufffdve",), ("caf\ufffd",)]
    assert texts(read, "gpu_ops", "name") == [("kern\ufffdel",)]
    assert read["threads"].collect()["name"].to_list() == ["th\ufffdread"]


def test_texts_of_every_language_come_back(tmp_path: Path) -> None:
    names = ("前向", "шаг 1", "🚀 launch", "line\nbreak", "tab\there", "", "'quoted' \"twice\"")
    trace = Nsys()
    for number, name in enumerate(names):
        trace.thread("python").push(name, 10 * number, 10 * number + 5)

    found = texts(opened(trace, tmp_path), "ranges", "name")

    assert found == [(name,) for name in names]


# A tree of ranges: each has a length, a gap before it, and ranges inside it.
trees = st.recursive(
    st.just([]), lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=12
)


@settings(max_examples=40)
@given(tree=trees)
def test_depth_counts_the_enclosing_ranges(
    tmp_path_factory: pytest.TempPathFactory, tree: list[object]
) -> None:
    trace = Nsys()
    main = trace.thread("python")

    def push(inside: list[object], start: int, depth: int) -> int:
        end = start + 1
        for each in inside:
            end = push(each, end, depth + 1) + 1  # type: ignore[arg-type]
        main.push(str(depth), start, end)
        return end

    push(tree, 0, 0)
    path = trace.write(tmp_path_factory.mktemp("t") / "run.sqlite", shuffle=1)
    ranges = texts(open_trace(path, cache=False), "ranges", "name", "depth", "lane")

    assert [depth for _, depth, _ in ranges] == [int(name) for name, _, _ in ranges]
    assert {lane for *_, lane in ranges} == {0}


@settings(max_examples=40)
@given(
    spans=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda s: (min(s), max(s))),
        max_size=12,
    )
)
def test_inside_a_lane_every_range_lies_within_its_parent(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]]
) -> None:
    trace = Nsys()
    for start, end in spans or [(0, 1)]:
        trace.thread("python").push("x", start, end, kind="start_end")
    path = trace.write(tmp_path_factory.mktemp("t") / "run.sqlite")
    rows = open_trace(path, cache=False)["ranges"].collect().to_dicts()
    by_id = {row["range_id"]: row for row in rows}

    assert sorted((row["start_ns"], row["end_ns"]) for row in rows) == sorted(spans or [(0, 1)])
    for row in rows:
        if row["parent"] is None:
            assert row["depth"] == 0
            continue
        parent = by_id[row["parent"]]
        assert (parent["lane"], parent["depth"]) == (row["lane"], row["depth"] - 1)
        assert parent["start_ns"] <= row["start_ns"] <= row["end_ns"] <= parent["end_ns"]

"""Collectives and ranks: bytes, bandwidth, overlap, and who waits for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.asking import linked, table, the_row
from tests.build import Nsys
from tests.kineto import Profile
from tests.ranks import of_rank
from tracelens.analyses.collectives import by_group
from tracelens.errors import NothingToShowError
from tracelens.links.collectives import SCHEMA, collectives, matched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asking import Row


def asked(trace: Profile, folder: Path, name: str = "collectives") -> list[Row]:
    return table(linked(trace.write(folder / "rank0.json")), name)


def one(kind: str, n: int, elements: tuple[int, int], took: int, dtype: str = "Float") -> Profile:
    """Return a trace of one collective over ``took`` ns."""
    trace = Profile()
    args = {"Collective name": kind, "In msg nelems": elements[0], "Out msg nelems": elements[1]}
    trace.thread("python3").collective(
        kind, 1, run=(5_000, 5_000 + took), at=1_000, ranks=range(n), args={**args, "dtype": dtype}
    )
    return trace


@pytest.mark.parametrize(
    ("call", "kind", "size", "factor"),
    [
        (("allreduce", 8, (1_000, 1_000), 2_000, "Float"), "all_reduce", 4_000, 2 * 7 / 8),
        (("_allgather_base", 4, (1_000, 4_000), 2_000, "BFloat16"), "all_gather", 8_000, 3 / 4),
        (
            ("_reduce_scatter_base", 4, (4_000, 1_000), 2_000, "Half"),
            "reduce_scatter",
            8_000,
            3 / 4,
        ),
        (("all_to_allv", 2, (600, 600), 2_000, "Long"), "all_to_all", 4_800, 1 / 2),
        (("broadcast", 8, (500, 500), 2_000, "Byte"), "broadcast", 500, 1),
        (("_reduce_oop", 8, (500, 500), 2_000, "Double"), "reduce", 4_000, 1),
        (("send", 2, (100, 100), 2_000, "Float8_e4m3fn"), "send", 100, 1),
        (
            ("reduce_scatter_tensor_coalesced", 2, (10, 5), 2_000, "Int"),
            "reduce_scatter",
            40,
            1 / 2,
        ),
    ],
)
def test_bandwidth_is_what_the_tests_of_nccl_call_so(
    tmp_path: Path, call: tuple[Any, ...], kind: str, size: int, factor: float
) -> None:
    (row,) = asked(one(*call), tmp_path)

    assert (row["kind"], row["group_size"], row["bytes"]) == (kind, call[1], size)
    assert (row["calls"], row["total_ns"]) == (1, 2_000)
    per_second = size * 1_000_000_000 // 2_000
    assert row["algorithm_bandwidth_bytes_per_s"] == per_second
    assert row["bus_bandwidth_bytes_per_s"] == pytest.approx(per_second * factor)


def test_a_type_that_nobody_knows_has_no_bytes_and_no_bandwidth(tmp_path: Path) -> None:
    (row,) = asked(one("allreduce", 2, (10, 10), 2_000, "Float3_new"), tmp_path)

    assert (row["calls"], row["bytes"], row["algorithm_bandwidth_bytes_per_s"]) == (1, None, None)


def test_a_kind_that_nobody_knows_has_bytes_and_no_bus_bandwidth(tmp_path: Path) -> None:
    trace = one("frobnicate", 2, (10, 10), 2_000)
    trace.events[-2].fields["name"] = "ncclDevKernel_Frobnicate()"
    (row,) = asked(trace, tmp_path)

    assert (row["bytes"], row["bus_bandwidth_bytes_per_s"]) == (40, None)


def test_a_single_rank_does_not_know_whom_it_waited_for(tmp_path: Path) -> None:
    (row,) = asked(of_rank(0, [[5_000, 6_000]]), tmp_path)

    assert (row["rank"], row["calls"], row["total_ns"]) == (0, 2, 11_000)
    unknown = ("transfer_ns", "waiting_ns", "arrives_last", "slow_rank")
    assert [row[name] for name in unknown] == [None] * 4


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "all_reduce"),
        ("ncclKernel_ReduceScatter_RING_LL_Sum_half(ncclWorkElem)", "reduce_scatter"),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", "send_recv"),
        ("ncclDevKernel_Broadcast_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "broadcast"),
        ("ncclDevKernel_Reduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "reduce"),
        ("void vllm::cross_device_reduce_1stage<float, 2>(vllm::RankData*)", "all_reduce"),
    ],
)
def test_without_words_a_kernels_name_tells_the_kind(
    tmp_path: Path, kernel: str, kind: str
) -> None:
    trace = Nsys()
    trace.thread("python").kernel(kernel, at=0, run=(10, 110))
    (row,) = table(linked(trace, tmp_path), "collectives")

    assert (row["kind"], row["calls"], row["total_ns"]) == (kind, 1, 100)
    assert (row["bytes"], row["group"], row["waiting_ns"]) == (None, None, None)


def test_other_kernels_are_none(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").kernel("reduce_kernel<512>", at=0, run=(10, 110))

    assert table(linked(trace, tmp_path), "collectives") == []


# Several ranks.


def found(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return collectives of ranks; what a row does not say is as in most."""
    usual: dict[str, Any] = {
        "process": None, "kind": "all_reduce", "bytes": 8, "group": "0", "group_size": 2,
        "description": "default_pg", "group_ranks": "[0, 1]", "sequence": None, "step": None,
    }  # fmt: skip
    whole = [{"op_id": n, "start_ns": n, **usual, **row} for n, row in enumerate(rows)]
    return pl.DataFrame(whole, schema=SCHEMA)


def ranks_of(durations: list[list[int]], **more: Any) -> pl.DataFrame:
    """Return collectives of ranks with these durations, in order; clocks differ wildly."""
    return found(
        [
            {"rank": rank, "duration_ns": took, "start_ns": 10**9 * rank + place, **more}
            for rank, of_rank_ in enumerate(durations)
            for place, took in enumerate(of_rank_)
        ]
    )


def waits(frame: pl.DataFrame) -> dict[tuple[int, int], tuple[int | None, int | None]]:
    """Return (rank, op_id) -> transfer and waiting."""
    rows = matched(frame).select("rank", "op_id", "transfer_ns", "waiting_ns").iter_rows()
    return {(rank, op): (transfer, waiting) for rank, op, transfer, waiting in rows}


def test_who_comes_last_waits_for_nobody() -> None:
    rows = matched(ranks_of([[50, 90], [70, 40]])).sort("op_id").rows(named=True)

    assert [row["transfer_ns"] for row in rows] == [50, 40, 50, 40]
    assert [row["waiting_ns"] for row in rows] == [0, 50, 20, 0]
    assert [row["is_last"] for row in rows] == [True, False, False, True]


def test_the_slow_rank_is_named_that_came_last_most_often() -> None:
    rows = by_group(matched(ranks_of([[50, 90, 90], [70, 40, 40]]))).rows(named=True)

    assert [(row["rank"], row["arrives_last"], row["slow_rank"]) for row in rows] == [
        (0, 1, 1),
        (1, 2, 1),
    ]


def test_ranks_that_come_together_wait_for_nobody_and_none_is_slow() -> None:
    rows = by_group(matched(ranks_of([[50, 50], [50, 50]]))).rows(named=True)

    assert [(row["waiting_ns"], row["arrives_last"]) for row in rows] == [(0, 0), (0, 0)]
    assert [row["slow_rank"] for row in rows] == [None, None]


def test_sequence_numbers_tell_counterparts_whatever_the_order() -> None:
    frame = found(
        [
            {"rank": 0, "duration_ns": 10, "sequence": 7},
            {"rank": 0, "duration_ns": 99, "sequence": 8},
            {"rank": 1, "duration_ns": 30, "sequence": 8},
            {"rank": 1, "duration_ns": 40, "sequence": 7},
        ]
    )

    assert waits(frame) == {(0, 0): (10, 0), (0, 1): (30, 69), (1, 2): (30, 0), (1, 3): (10, 30)}


def test_of_several_sizes_counterparts_are_of_one_size() -> None:
    frame = found(
        [
            {"rank": 0, "duration_ns": 10, "bytes": 8},
            {"rank": 0, "duration_ns": 500, "bytes": 4_000},
            {"rank": 1, "duration_ns": 400, "bytes": 4_000},
            {"rank": 1, "duration_ns": 20, "bytes": 8},
        ]
    )

    assert waits(frame) == {(0, 0): (10, 0), (0, 1): (400, 100), (1, 2): (400, 0), (1, 3): (10, 10)}


def test_groups_of_one_name_and_other_members_are_told_apart() -> None:
    frame = found(
        [
            {"rank": rank, "duration_ns": 10 * (rank + 1), "group_ranks": members}
            for rank, members in enumerate(["[0, 1]", "[0, 1]", "[2, 3]", "[2, 3]"])
        ]
    )

    assert waits(frame) == {(0, 0): (10, 0), (1, 1): (10, 10), (2, 2): (30, 0), (3, 3): (30, 10)}


def test_one_that_a_rank_did_not_record_leaves_only_its_own_step_unknown() -> None:
    frame = found(
        [
            {"rank": 0, "duration_ns": 10, "step": "a"},
            {"rank": 0, "duration_ns": 11, "step": "a"},
            {"rank": 0, "duration_ns": 12, "step": "b"},
            {"rank": 1, "duration_ns": 20, "step": "a"},
            {"rank": 1, "duration_ns": 21, "step": "b"},
        ]
    )

    assert waits(frame) == {
        (0, 0): (None, None), (0, 1): (None, None), (1, 3): (None, None),
        (0, 2): (12, 0), (1, 4): (12, 9),
    }  # fmt: skip


def test_one_that_is_missing_without_steps_leaves_all_of_its_kind_unknown() -> None:
    rows = by_group(matched(ranks_of([[50, 50], [50]]))).rows(named=True)

    assert [row["waiting_ns"] for row in rows] == [None, None]


@pytest.mark.parametrize("kind", ["send", "recv", "send_recv", "other"])
def test_point_to_point_transfers_have_no_counterpart(kind: str) -> None:
    assert matched(ranks_of([[50], [70]], kind=kind))["waiting_ns"].null_count() == 2


def test_a_group_without_name_is_that_of_all_ranks_if_it_is_as_large() -> None:
    assert matched(ranks_of([[50], [70]], group=None))["waiting_ns"].to_list() == [0, 20]
    of_four = ranks_of([[50], [70]], group=None, group_size=4)
    assert matched(of_four)["waiting_ns"].null_count() == 2


times = st.integers(0, 10**9)
jobs = st.integers(1, 5).flatmap(
    lambda calls: st.lists(st.lists(times, min_size=calls, max_size=calls), min_size=2, max_size=5)
)


@given(jobs, st.randoms())
def test_waiting_and_transfer_are_the_whole_time(durations: list[list[int]], chance: Any) -> None:
    """And neither the order of the rows nor the clocks matter."""
    frame = ranks_of(durations)
    rows = matched(frame)
    assert (rows["transfer_ns"] + rows["waiting_ns"] == rows["duration_ns"]).all()
    assert (rows["waiting_ns"] >= 0).all()
    for place in range(len(durations[0])):
        shortest = min(of_rank_[place] for of_rank_ in durations)
        same = rows.filter(pl.col("op_id") % len(durations[0]) == place)
        assert same["transfer_ns"].unique().to_list() == [shortest]

    order = list(range(frame.height))
    chance.shuffle(order)
    assert by_group(matched(frame[order])).equals(by_group(rows))


# One rank: how much of its communication computation hides.

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=8)


@settings(max_examples=25)
@given(comm=spans, compute=spans)
def test_overlap_is_what_counting_nanoseconds_finds(
    comm: list[tuple[int, int]],
    compute: list[tuple[int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    trace = Nsys()
    main = trace.thread("python")
    for name, given_spans in (("ncclDevKernel_AllReduce_Sum", comm), ("gemm", compute)):
        for start, took in given_spans:
            main.kernel(name, at=0, run=(100 + start, 100 + start + took), stream=len(name))
    main.kernel("gemm", at=0, run=(200, 201))
    row = the_row(linked(trace, tmp_path_factory.mktemp("overlap")), "ranks")

    busy_with = [{t for s, d in some for t in range(s, s + d)} for some in (comm, compute)]
    assert row["comm_time_ns"] == sum(took for _, took in comm)
    assert row["comm_busy_ns"] == len(busy_with[0])
    assert row["comm_overlapped_ns"] == len(busy_with[0] & busy_with[1])
    assert row["comm_exposed_ns"] == len(busy_with[0] - busy_with[1])
    assert row["busy_ns"] == len(busy_with[0] | busy_with[1]) + 1
    assert row["busy_ns"] + row["idle_ns"] == row["span_ns"]


def test_copies_do_not_hide_communication(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("ncclDevKernel_AllReduce_Sum", at=0, run=(100, 200))
    main.copy(bytes=4, kind="HtoD", at=1, run=(100, 200), stream=9)

    assert the_row(linked(trace, tmp_path), "ranks")["comm_exposed_ns"] == 100


def test_a_rank_has_its_steps_and_the_peak_of_its_memory(tmp_path: Path) -> None:
    trace = of_rank(1, [[5_000], [5_000], [5_000]])
    main = trace.thread("python3", pid=101)
    main.memory(7_000, 900, allocated=5_000, reserved=9_000)
    main.memory(9_000, 900, allocated=10**12, reserved=10**12, device=None)
    main.memory(8_000, -900, allocated=4_100, reserved=9_000)
    (row,) = asked(trace, tmp_path, "ranks")

    assert (row["rank"], row["steps"], row["step_median_ns"]) == (1, 3, 99_000)
    assert (row["peak_memory_bytes"], row["memory_source"]) == (5_000, "events")
    assert (row["kernels"], row["collectives"]) == (6, 3)


def test_processes_of_one_recording_are_told_apart(tmp_path: Path) -> None:
    trace = Nsys()
    for process in range(2):
        main = trace.thread("python", pid=100 + process)
        main.kernel("gemm", at=0, run=(10, 20), device=process)
        main.kernel("ncclDevKernel_AllReduce_Sum", at=1, run=(20, 50 + process), device=process)
    whole = linked(trace, tmp_path)

    ranks, comm = table(whole, "ranks"), table(whole, "collectives")
    assert len({row["process"] for row in ranks}) == 2
    assert [row["comm_time_ns"] for row in ranks] == [30, 31]
    assert [row["busy_ns"] for row in ranks] == [40, 41]
    assert [(row["calls"], row["total_ns"]) for row in comm] == [(1, 30), (1, 31)]


def test_memory_by_phase_says_how_to_record_memory(tmp_path: Path) -> None:
    with pytest.raises(NothingToShowError, match="profile_memory=True"):
        asked(of_rank(0, [[5_000]]), tmp_path, "memory_by_phase")


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("job", "calls"), [("gpt2-medium-ddp-h200x2", 76), ("gpt2-medium-fsdp-h200x2", 148)]
)
def test_counterparts_on_one_machine_end_together(corpus: Path, job: str, calls: int) -> None:
    """Both ranks ran on one host, so that here, and only here, the clock can tell."""
    parts = []
    for rank in range(2):
        whole = linked(corpus / "multirank" / job / f"rank{rank}.json.gz")
        epoch = int(whole.trace.source.facts["epoch_ns"])
        parts.append(collectives(whole).with_columns(pl.col("start_ns") + epoch))
    rows = matched(pl.concat(parts)).with_columns(end_ns=pl.col("start_ns") + pl.col("duration_ns"))
    rows = rows.sort("start_ns").with_columns(
        place=pl.int_range(pl.len()).over("rank", "kind", "bytes")
    )

    assert rows.height == 2 * calls
    assert rows["transfer_ns"].null_count() == 0
    pairs = rows.group_by("kind", "bytes", "place").agg(
        apart=pl.col("end_ns").max() - pl.col("end_ns").min(),
        transfers=pl.col("transfer_ns").n_unique(),
    )
    assert pairs["transfers"].to_list() == [1] * calls
    assert pairs["apart"].max() < 60_000

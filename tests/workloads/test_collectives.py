"""The workloads of one collective: their results, sizes, bytes sent, and marks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile
from tracelens_workloads.all_gather import AllGather
from tracelens_workloads.all_to_all import AllToAll
from tracelens_workloads.allreduce import AllReduce
from tracelens_workloads.broadcast import Broadcast
from tracelens_workloads.reduce_scatter import ReduceScatter

from tests.workloads import gloo
from tracelens import workload
from tracelens.analyses.collectives import by_group
from tracelens.errors import CaptureError, UsageError
from tracelens.links import collectives as links
from tracelens.workload import Work

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens_workloads._collective import Collective
    from tracelens_workloads._ranks import Buffers

COLLECTIVES = (AllReduce, AllGather, ReduceScatter, AllToAll, Broadcast)
DTYPES = ("fp32", "bf16", "fp16")
by_kind = pytest.mark.parametrize("kind", COLLECTIVES, ids=lambda kind: kind.collective)


class WrongAllReduce(AllReduce):
    """An all-reduce that forgets to reduce."""

    def run(self, buffers: Buffers, *, async_op: bool) -> None:
        """Do nothing."""


def what_each_rank_does(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in COLLECTIVES:
        for dtype in DTYPES:
            tiny = kind(megabytes=0.0001, dtype=dtype, world_size=world_size, repeats=3)
            found[f"{kind.collective} {dtype}"] = _result(tiny, rank, world_size)
        found[f"{kind.collective} marks"] = _marks(
            kind(megabytes=0.001, world_size=world_size, repeats=3)
        )
        found[f"{kind.collective} marks async"] = _marks(
            kind(megabytes=0.001, world_size=world_size, repeats=3, async_op=True)
        )
    try:
        WrongAllReduce(megabytes=0.001, world_size=world_size).program("cpu")
    except CaptureError as error:
        found["wrong"] = str(error)
    try:
        AllReduce(megabytes=0.001, world_size=world_size + 1).program("cpu")
    except UsageError as error:
        found["other size"] = str(error)
    return found


def what_each_gpu_does(rank: int, world_size: int, _folder: Path) -> list[bool]:
    """Build and run each; a wrong result would be an error."""
    finite = []
    for kind in COLLECTIVES:
        for dtype in DTYPES:
            one = kind(megabytes=1.0, dtype=dtype, world_size=world_size, repeats=2, async_op=True)
            program: Any = one.program(f"cuda:{rank}")
            program.step()
            finite.append(bool(program.buffers[0].got.isfinite().all()))
    return finite


def _result(one: Collective, rank: int, world_size: int) -> dict[str, Any]:
    """Do it on numbers that another rank can compute too, in the buffers of the program."""
    program = one.program("cpu")
    buffers = program.buffers[0]  # type: ignore[attr-defined]
    has = [_numbers(one, other) for other in range(world_size)]
    buffers.given.copy_(has[rank])
    one.run(buffers, async_op=False)
    return {"has": has, "got": buffers.got.clone(), "bytes": _bytes(program)}


def _numbers(one: Collective, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    return torch.randint(-8, 8, (one.given_elements,), generator=generator).float()


def _bytes(program: Any) -> int:
    buffers = {t.data_ptr(): t.nbytes for pair in program.buffers for t in pair}
    return sum(buffers.values())


def _marks(one: Collective) -> dict[str, Any]:
    program = one.program("cpu")
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        program.step()
    names = [event.name for event in recorded.events() or []]
    wanted = ("step", "communication", "launch", "wait")
    done = sum(name.startswith("gloo:") for name in names)
    return {name: names.count(name) for name in wanted} | {"done": done, "bytes": _bytes(program)}


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("ranks")
    return gloo.run(f"{__name__}:what_each_rank_does", request.param, folder)


@by_kind
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_rank_gets_what_the_collective_promises(
    ranks: list[Any], kind: type[Collective], dtype: str
) -> None:
    for rank, found in enumerate(ranks):
        one = found[f"{kind.collective} {dtype}"]
        shares = [has.tensor_split(len(ranks)) for has in one["has"]]
        total = torch.stack(one["has"]).sum(dim=0)
        promised = {
            "all_reduce": total,
            "all_gather": torch.cat(one["has"]),
            "reduce_scatter": total.tensor_split(len(ranks))[rank],
            "all_to_all": torch.cat([share[rank] for share in shares]),
            "broadcast": one["has"][0],
        }

        assert torch.equal(one["got"].float(), promised[kind.collective])


@by_kind
def test_the_buffers_are_as_large_as_the_formula_says(
    ranks: list[Any], kind: type[Collective]
) -> None:
    one = kind(megabytes=0.001, world_size=len(ranks), repeats=3)

    for found in ranks:
        marks = found[f"{kind.collective} marks"]
        assert marks["bytes"] == one.cost().memory_bytes
        marks = found[f"{kind.collective} marks async"]
        assert marks["bytes"] == replace(one, async_op=True).cost().memory_bytes


@by_kind
def test_a_step_holds_one_phase_with_all_the_collectives(
    ranks: list[Any], kind: type[Collective]
) -> None:
    for found in ranks:
        marks = found[f"{kind.collective} marks"]
        assert (marks["step"], marks["communication"]) == (1, 1)
        assert (marks["launch"], marks["wait"]) == (0, 0)
        assert marks["done"] == 3


@by_kind
def test_started_together_they_are_launched_and_then_waited_for(
    ranks: list[Any], kind: type[Collective]
) -> None:
    for found in ranks:
        marks = found[f"{kind.collective} marks async"]
        assert (marks["launch"], marks["wait"]) == (1, 1)
        assert marks["done"] == 3


def test_a_collective_with_a_wrong_result_is_not_timed(ranks: list[Any]) -> None:
    for rank, found in enumerate(ranks):
        assert f"all_reduce by gloo gave rank {rank} " in found["wrong"]
        assert "its times would mean nothing" in found["wrong"]


def test_a_group_of_another_size_is_refused(ranks: list[Any]) -> None:
    size = len(ranks)
    for found in ranks:
        assert f"--world-size is {size + 1}, but this runs in {size} joined" in found["other size"]


def test_without_a_group_the_message_names_what_makes_one() -> None:
    with pytest.raises(UsageError, match="in 1 joined processes; start it by tracelens capture"):
        AllReduce(megabytes=0.001).program("cpu")


def _ring(size: int, elements: int, *, reduce: bool, gather: bool) -> tuple[list[int], list[int]]:
    """Pass shares round a ring of ranks; return the elements each has sent, and added up.

    The algorithm of P. Patarasuk and X. Yuan, Bandwidth optimal all-reduce algorithms (2009).
    """
    share = elements // size
    has = [[{rank} for _ in range(size)] for rank in range(size)]
    sent, added = [0] * size, [0] * size
    for turn in range(size - 1 if reduce else 0):
        passed = [((rank - turn) % size, has[rank][(rank - turn) % size]) for rank in range(size)]
        for rank, (number, part) in enumerate(passed):
            to = (rank + 1) % size
            has[to][number] = has[to][number] | part
            sent[rank] += share
            added[to] += share
    for _ in range(size - 1 if gather else 0):
        sent = [one + share for one in sent]
    if reduce:
        assert all(has[rank][(rank + 1) % size] == set(range(size)) for rank in range(size))
    return sent, added


@given(st.integers(2, 9), st.integers(1, 50), st.sampled_from(DTYPES))
def test_a_rank_sends_and_adds_what_the_formulas_say(size: int, share: int, dtype: str) -> None:
    element = {"fp32": 4, "bf16": 2, "fp16": 2}[dtype]
    elements = size * share
    ways = {AllReduce: (True, True), ReduceScatter: (True, False), AllGather: (False, True)}
    for kind, (reduce, gather) in ways.items():
        one = kind(megabytes=elements * element / 1e6, world_size=size, dtype=dtype)
        sent, added = _ring(size, elements, reduce=reduce, gather=gather)

        assert one.elements == elements
        assert set(sent) == {one.wire_bytes // element}
        assert set(added) == {one.additions}


@given(
    st.sampled_from(COLLECTIVES),
    st.floats(0.001, 2000),
    st.integers(2, 64),
    st.sampled_from(DTYPES),
)
def test_the_size_is_what_fits_and_can_be_shared(
    kind: type[Collective], megabytes: float, size: int, dtype: str
) -> None:
    one = kind(megabytes=megabytes, world_size=size, dtype=dtype)

    assert one.elements % size == 0
    left_over = megabytes * 1e6 - one.size_bytes
    assert 0 <= left_over < 4 * (size + 1)
    assert max(one.given_elements, one.got_elements) == one.elements


@by_kind
@pytest.mark.parametrize("size", [2, 3, 8])
def test_bandwidths_agree_with_those_of_a_trace(kind: type[Collective], size: int) -> None:
    """The analysis of traces has nccl-tests' factors in a table of its own."""
    one = kind(megabytes=1.2, world_size=size, repeats=5)
    row = {
        "kind": one.collective,
        "bytes": one.size_bytes,
        "group": "0",
        "description": "",
        "group_ranks": str(list(range(size))),
        "group_size": size,
        "rank": 0,
        "process": 1,
        "duration_ns": 2_000_000,
    }
    found = by_group(links.matched(_table([row] * one.repeats))).row(0, named=True)
    ours = one.bandwidths(one.repeats * 0.002)

    assert ours.algorithm_bytes_per_s == pytest.approx(found["algorithm_bandwidth_bytes_per_s"])
    assert ours.bus_bytes_per_s == pytest.approx(found["bus_bandwidth_bytes_per_s"])


def _table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    columns = {name: [row.get(name) for row in rows] for name in links.SCHEMA}
    ids = {"op_id": range(len(rows)), "start_ns": range(len(rows)), "sequence": range(len(rows))}
    return pl.DataFrame({**columns, **{k: list(v) for k, v in ids.items()}}, schema=links.SCHEMA)


def test_an_all_reduce_of_1_gb_among_2_costs_what_document_002_measures() -> None:
    kind, preset = workload.find("allreduce-1gb")
    one = workload.make(kind, {**preset, "repeats": 1})
    work = Work(
        "all_reduce",
        flops=125_000_000,
        bytes=2_000_000_000,
        matmul=False,
        wire_bytes=1_000_000_000,
    )

    assert one.cost().phases == {"communication": (work,)}
    assert one.cost().memory == {"buffers": 1_000_000_000}
    assert (one.cost().items, one.cost().unit) == (1_000_000_000, "bytes")


@by_kind
def test_smaller_variants_are_valid_and_end_at_1_mb(kind: type[Collective]) -> None:
    smaller = list(kind(megabytes=250.0).variants())

    assert [one.megabytes for one in smaller] == [25.0, 2.5, 1.0]
    for one in smaller:
        one.check()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"world_size": 1}, "a collective is among 2 or more"),
        ({"repeats": 0}, "--repeats is 0; it must be at least 1"),
        ({"megabytes": 0.000004}, r"no fp32 element for each of 2 ranks; give at least 8e-06"),
        ({"megabytes": -1.0}, "no fp32 element for each"),
        ({"dtype": "tf32"}, "There is no value named 'tf32'. Did you mean"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        workload.make(AllReduce, options)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_on_gpus_the_results_are_right_too(tmp_path: Path) -> None:
    for found in gloo.run(f"{__name__}:what_each_gpu_does", 2, tmp_path, "nccl"):
        assert found == [True] * len(COLLECTIVES) * len(DTYPES)

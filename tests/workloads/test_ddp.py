"""Data-parallel training: equal to a process alone, overlap seen in traces, costs by formula."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.profiler import ProfilerActivity, profile
from tracelens_workloads.ddp import (
    STRATEGIES,
    Ddp,
    best_bucket_bytes,
    best_buckets,
    overhead_s,
)
from tracelens_workloads.gpt2 import Gpt2

from tests.running import peak_bytes
from tests.workloads import gloo
from tracelens import workload
from tracelens.errors import UsageError
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracelens.workload import Cost

TINY: Final = {
    "layers": 1,
    "d_model": 16,
    "heads": 2,
    "d_ff": 32,
    "vocab": 29,
    "ctx": 8,
    "batch": 8,
}
MODES: Final[dict[str, dict[str, Any]]] = {
    "adamw": {},
    "sgd accumulated": {"optimizer": "sgd", "grad_accumulation": 3},
    "checkpoints": {"checkpoint_activations": True, "variant": "cs336"},
    "gradients": {"mode": "forward-backward"},
}
STEPS: Final = 3
BUCKET_MB: Final = 0.004
PHASES: Final = ["forward", "loss", "backward", "communication", "optimizer"]
LAUNCH: Final = "c10d::allreduce_"
RUN: Final = "gloo:all_reduce"
Weights = dict[str, torch.Tensor]
OURS: Final = ("naive", "flat", "overlapped", "bucketed")
by_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


class Odd(nn.Module):
    """What a model may have: parameters in no useful order, tied, frozen, of two formats, unused.

    `sometimes` has a gradient on rank 0 only, `never` on none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Parameter(torch.randn(3))
        self.head = nn.Linear(4, 7, bias=False)
        self.wide = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
        self.embedding = nn.Embedding(7, 4)
        self.embedding.weight = self.head.weight
        self.sometimes = nn.Parameter(torch.randn(4))
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)
        self.scale = nn.Buffer(torch.rand(4))
        self.brief = nn.Parameter(torch.randn(4, dtype=torch.bfloat16))

    def forward(self, tokens: torch.Tensor, *, is_first: bool) -> torch.Tensor:
        x = self.embedding(tokens) * self.scale + self.frozen + self.brief
        x = (x.double() @ self.wide).float()
        if is_first:
            x = x * self.sometimes
        return nn.functional.cross_entropy(self.head(x).flatten(0, 1), tokens.flatten())


def what_each_rank_does(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    own = folder / f"of rank {rank}"
    own.mkdir()
    for strategy in STRATEGIES:
        for mode, options in _modes(world_size).items():
            found[f"{strategy} {mode}"] = _trained(_ddp(strategy, world_size, **options))
        found[f"{strategy} odd"] = _odd(strategy, rank, world_size)
        _record(_ddp(strategy, world_size), folder / f"{strategy}{rank}.json")
        if world_size == 2:
            found[f"{strategy} peak"] = peak_bytes(_large(strategy, world_size), own)
    found["errors"] = dict(_errors(rank))
    program: Any = _ddp("bucketed", world_size).program("cpu")
    found["buckets"] = program.parallel.buckets
    return found


def what_each_gpu_does(rank: int, world_size: int, _folder: Path) -> dict[str, Any]:
    sgd = {"optimizer": "sgd", "batch": 4 * world_size}
    return {name: _trained(_ddp(name, world_size, **sgd), f"cuda:{rank}") for name in STRATEGIES}


def _modes(world_size: int) -> dict[str, dict[str, Any]]:
    """Return what is trained with so many ranks; more than two test the number, not the modes."""
    return MODES if world_size == 2 else {"adamw": MODES["adamw"]}


def _ddp(strategy: str, world_size: int, **options: Any) -> Ddp:
    values = {**TINY, "world_size": world_size, "bucket_mb": BUCKET_MB, **options}
    made = workload.make(Ddp, {"strategy": strategy, **values})
    assert isinstance(made, Ddp)
    return made


def _large(strategy: str, world_size: int) -> Ddp:
    """Return a model of which the weights are most."""
    return _ddp(strategy, world_size, d_model=128, d_ff=512, ctx=4, bucket_mb=0.2)


def _trained(config: Gpt2, device: str = "cpu") -> Weights:
    """Return weights after some steps, or gradients after the last where nothing is updated."""
    torch.manual_seed(0)
    program = config.program(device)
    for _ in range(STEPS):
        program.step()
    named = program.model.named_parameters()
    if config.mode == "train":
        return {name: p.detach().cpu().clone() for name, p in named}
    return {name: p.grad.cpu().clone() for name, p in named if p.grad is not None}


def _began(**options: Any) -> Weights:
    torch.manual_seed(0)
    program: Any = workload.make(Gpt2, {**TINY, **options}).program("cpu")
    return {name: p.detach().clone() for name, p in program.model.named_parameters()}


def _shards(world_size: int) -> list[torch.Tensor]:
    tokens = torch.randint(7, (2 * world_size, 5), generator=torch.Generator().manual_seed(7))
    return list(tokens.chunk(world_size))


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)


def _odd(strategy: str, rank: int, world_size: int) -> dict[str, Any]:
    from tracelens_workloads.models.data_parallel import choose

    torch.manual_seed(rank)  # the weights of rank 0 are to reach the others
    model = Odd()
    parallel = choose(strategy, model, 40, find_unused=True)
    optimizer = _optimizer(model)
    for _ in range(STEPS):
        parallel.model(_shards(world_size)[rank], is_first=rank == 0).backward()
        parallel.finish()
        without = [name for name, p in model.named_parameters() if p.grad is None]
        optimizer.step()
        optimizer.zero_grad()
    return {"state": model.state_dict(), "without gradient": without}


def _odd_alone(world_size: int) -> Weights:
    torch.manual_seed(0)
    model = Odd()
    optimizer = _optimizer(model)
    for _ in range(STEPS):
        for rank, shard in enumerate(_shards(world_size)):
            (model(shard, is_first=rank == 0) / world_size).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def _record(config: Ddp, file: Path) -> None:
    """Record the second step: the order of all-reduces has been learnt by then.

    Where they run in the background, backward waits before its last gradient for the first.
    """
    program: Any = config.program("cpu")
    program.step()
    if config.strategy in ("overlapped", "bucketed"):
        last = program.model.embedding.weight
        last.register_hook(lambda _: program.parallel._works[0].wait() and None)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recording:
        program.step()
    recording.export_chrome_trace(str(file))


def _errors(rank: int) -> Iterator[tuple[str, str]]:
    from tracelens_workloads.models.data_parallel import choose

    tokens = torch.zeros(1, 5, dtype=torch.int64)
    for strategy in OURS:
        parallel = choose(strategy, Odd(), 40)
        parallel.model(tokens, is_first=True).backward()
        try:
            parallel.finish()
        except RuntimeError as error:
            yield f"{strategy} unused", str(error)
    for strategy in ("overlapped", "bucketed"):
        parallel = choose(strategy, Odd(), 40)
        parallel.model(tokens, is_first=True).backward()
        try:
            parallel.model(tokens, is_first=True).backward()
        except RuntimeError as error:
            yield f"{strategy} twice", str(error)
    try:
        choose("naive", nn.Linear(2, 3 + rank), 40)
    except ValueError as error:
        yield "other model", str(error)


class Ranks:
    """What the ranks have returned and recorded."""

    def __init__(self, found: list[dict[str, Any]], folder: Path) -> None:
        self.found = found
        self.folder = folder
        self.size = len(found)

    def all_reduces(self, strategy: str, rank: int) -> pl.DataFrame:
        """Return name, start_ns and end_ns of what was launched and run, and where it began."""
        named = self.ranges(strategy, rank)
        is_phase = pl.col("name").is_in(PHASES)
        phases = named.filter(is_phase).rows(named=True)
        found = named.filter(~is_phase)
        began = [
            next((one["name"] for one in phases if one["start_ns"] <= start < one["end_ns"]), "")
            for start in found["start_ns"]
        ]
        return found.with_columns(phase=pl.Series(began, dtype=pl.String))

    def ranges(self, strategy: str, rank: int) -> pl.DataFrame:
        """Return phases, launches and runs of all-reduces, of the step that was recorded."""
        trace = open_trace(self.folder / f"{strategy}{rank}.json")
        named = trace["ranges"].join(trace["names"], on="name_id").collect()
        return (
            named.filter(pl.col("name").is_in([*PHASES, LAUNCH, RUN]))
            .select("name", "start_ns", "end_ns")
            .sort("start_ns")
        )


def _ranks(world_size: int, factory: pytest.TempPathFactory) -> Ranks:
    folder = factory.mktemp("ranks")
    return Ranks(gloo.run(f"{__name__}:what_each_rank_does", world_size, folder), folder)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    return _ranks(2, tmp_path_factory)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    return _ranks(4, tmp_path_factory)


@pytest.fixture(params=["two", "four"])
def ranks(request: pytest.FixtureRequest) -> Ranks:
    found: Ranks = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def alone() -> dict[str, Weights]:
    """Return what one process computes from the whole batch."""
    made = {mode: workload.make(Gpt2, {**TINY, **options}) for mode, options in MODES.items()}
    return {mode: _trained(one) for mode, one in made.items() if isinstance(one, Gpt2)}


def _check_trained(found: Ranks, what: str, expected: Weights, *, atol: float) -> None:
    for one in found.found:
        mine = one[what]
        assert mine.keys() == expected.keys()
        for name, weight in mine.items():
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=atol, msg=name)


@by_strategy
def test_training_is_that_of_one_process_on_the_whole_batch(
    ranks: Ranks, alone: dict[str, Weights], strategy: str
) -> None:
    """AdamW has moved weights by 3e-4 by then, 150 times as far as they may differ."""
    _check_trained(ranks, f"{strategy} adamw", alone["adamw"], atol=2e-6)


@by_strategy
def test_so_it_is_with_gradients_added_up_over_micro_batches(
    two: Ranks, alone: dict[str, Weights], strategy: str
) -> None:
    """Plain SGD, unlike AdamW, would show gradients that are a multiple of the mean."""
    what = "sgd accumulated"
    began = _began(**MODES[what])
    moved = max((alone[what][name] - weight).abs().max() for name, weight in began.items())

    assert moved > 1e-6
    _check_trained(two, f"{strategy} {what}", alone[what], atol=2e-8)


@by_strategy
def test_so_it_is_with_activations_computed_again(
    two: Ranks, alone: dict[str, Weights], strategy: str
) -> None:
    _check_trained(two, f"{strategy} checkpoints", alone["checkpoints"], atol=2e-6)


@by_strategy
def test_without_an_optimizer_the_gradients_are_those_of_the_whole_batch(
    two: Ranks, alone: dict[str, Weights], strategy: str
) -> None:
    largest = max(gradient.abs().max() for gradient in alone["gradients"].values())

    assert largest > 0.01
    _check_trained(two, f"{strategy} gradients", alone["gradients"], atol=1e-7)


@by_strategy
def test_all_ranks_have_the_same_weights_to_the_bit(ranks: Ranks, strategy: str) -> None:
    first, *others = (found[f"{strategy} adamw"] for found in ranks.found)

    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


@by_strategy
def test_tied_frozen_unused_and_mixed_parameters_are_trained_as_in_one_process(
    ranks: Ranks, strategy: str
) -> None:
    expected = _odd_alone(ranks.size)

    for found in ranks.found:
        state = found[f"{strategy} odd"]["state"]
        assert state.keys() == expected.keys()
        for name, tensor in state.items():
            atol = 0.02 if tensor.dtype == torch.bfloat16 else 1e-5
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=atol, msg=name)


@by_strategy
def test_what_no_rank_uses_keeps_no_gradient(ranks: Ranks, strategy: str) -> None:
    """With one of zeros, weight decay would shrink it, as it would not in a process alone."""
    for found in ranks.found:
        assert found[f"{strategy} odd"]["without gradient"] == ["never", "frozen"]


@pytest.mark.parametrize("strategy", OURS)
def test_a_missing_gradient_is_named(ranks: Ranks, strategy: str) -> None:
    for found in ranks.found:
        text = found["errors"][f"{strategy} unused"]
        assert text == (
            "No gradient in this backward pass for never; find_unused=True allows that."
        )


@pytest.mark.parametrize("strategy", ["overlapped", "bucketed"])
def test_a_second_backward_pass_is_refused(ranks: Ranks, strategy: str) -> None:
    for found in ranks.found:
        assert (
            "before finish(); run all backward passes but the last in alone()"
            in (found["errors"][f"{strategy} twice"])
        )


def test_ranks_with_different_models_are_told_so_instead_of_hanging(ranks: Ranks) -> None:
    for found in ranks.found:
        assert found["errors"]["other model"].startswith("The models of rank 1 and rank 0 differ")


@pytest.mark.parametrize("strategy", ["overlapped", "bucketed", "torch"])
def test_a_trace_shows_all_reduces_at_work_during_backward(ranks: Ranks, strategy: str) -> None:
    """All are launched by hooks within backward, and one at least has ended when it ends."""
    for rank in range(ranks.size):
        found = ranks.all_reduces(strategy, rank)
        launched, run = (found.filter(name=name) for name in (LAUNCH, RUN))
        _, _, end = ranks.ranges(strategy, rank).row(by_predicate=pl.col("name") == "backward")

        assert launched["phase"].unique().to_list() == ["backward"]
        assert run.filter(pl.col("end_ns") < end, phase="backward").height >= 1


@pytest.mark.parametrize("strategy", ["naive", "flat"])
def test_a_trace_shows_all_reduces_only_after_backward(ranks: Ranks, strategy: str) -> None:
    for rank in range(ranks.size):
        found = ranks.all_reduces(strategy, rank)

        assert found["phase"].unique().to_list() == ["communication"]


def test_a_trace_shows_as_many_all_reduces_as_the_strategy_makes(ranks: Ranks) -> None:
    parameters = len(_began())
    for rank, found in enumerate(ranks.found):
        seen = {name: ranks.all_reduces(name, rank) for name in STRATEGIES}
        calls = {name: one.filter(name=RUN).height for name, one in seen.items()}

        assert calls["naive"] == calls["overlapped"] == parameters
        assert calls["flat"] == 1
        assert 1 < calls["bucketed"] == len(found["buckets"]) < parameters
        assert 1 < calls["torch"] < parameters


@by_strategy
def test_phases_follow_one_another(ranks: Ranks, strategy: str) -> None:
    found = ranks.ranges(strategy, 0).filter(pl.col("name").is_in(PHASES))

    assert found["name"].to_list() == PHASES
    for (_, end), (start, _) in pairwise(found.select("start_ns", "end_ns").rows()):
        assert end <= start


def _reduction(cost: Cost) -> Any:
    (found,) = (w for works in cost.phases.values() for w in works if w.part == "all-reduce")
    return found


@by_strategy
def test_what_is_reduced_is_what_the_formula_says(ranks: Ranks, strategy: str) -> None:
    """The recorded shapes of what was reduced, in a ring of n: 2·(n - 1)/n of it is sent."""
    events = json.loads((ranks.folder / f"{strategy}0.json").read_text())["traceEvents"]
    dims = [e["args"]["Input Dims"] for e in events if e.get("name") == LAUNCH]
    elements = sum(math.prod(shape) for one in dims for shape in one[0])
    cost = _ddp(strategy, ranks.size).cost()

    assert elements == cost.parameters
    assert _reduction(cost).bytes == 2 * 4 * elements
    assert _reduction(cost).wire_bytes == 2 * 4 * elements * (ranks.size - 1) // ranks.size
    assert _reduction(cost).flops == elements * (ranks.size - 1) // ranks.size


def test_buckets_hold_all_gradients_and_are_no_larger_than_asked(ranks: Ranks) -> None:
    config = _ddp("bucketed", ranks.size)
    largest = max(weight.nbytes for weight in _began().values())

    for found in ranks.found:
        assert sum(found["buckets"]) == 4 * config.cost().parameters
        assert max(found["buckets"]) <= max(config.bucket_bytes, largest)


@by_strategy
def test_the_peak_of_memory_is_that_of_the_formula(two: Ranks, strategy: str) -> None:
    """Measured in tensors of the CPU; gloo's threads may let go of what they reduced late."""
    cost = _large(strategy, 2).cost()
    reduced = cost.memory["gradients"]

    assert ("buckets" in cost.memory) == (strategy == "torch")
    for found in two.found:
        over = found[f"{strategy} peak"] - cost.memory_bytes
        assert -0.01 * reduced < over < 1.01 * reduced


def test_a_flat_buffer_or_an_open_bucket_can_make_the_peak() -> None:
    """GPT-2 small trained by SGD on hardly any tokens, and its gradients only on many."""
    few = {"ctx": 1, "batch": 2, "optimizer": "sgd", "optimizer_implementation": "fused"}
    many = {"ctx": 1024, "batch": 16, "mode": "forward-backward"}
    flat, alone = (_made(strategy=one, **few).cost().memory for one in ("flat", "naive"))
    bucketed, naive = (_made(strategy=one, **many).cost().memory for one in ("bucketed", "naive"))

    assert flat["buckets"] == flat["gradients"] == flat["parameters"]
    assert sum(flat.values()) > sum(alone.values())
    assert bucketed == {**naive, "buckets": 25_000_000}


def _made(**options: Any) -> Ddp:
    made = workload.make(Ddp, options)
    assert isinstance(made, Ddp)
    return made


@by_strategy
def test_a_rank_does_its_share_of_what_one_process_does(strategy: str) -> None:
    cost = _made(strategy=strategy, batch=8, world_size=4).cost()
    share = workload.make(Gpt2, {"batch": 2}).cost()
    added = [w for works in cost.phases.values() for w in works if w.part in ADDED]
    phase = "communication" if strategy in ("naive", "flat") else "backward"
    copies = {"flat": 1, "bucketed": 1, "torch": 2}.get(strategy, 0)

    assert cost.items == 8 * 256 == 4 * share.items
    assert cost.flops - sum(work.flops for work in added) == share.flops
    assert all(work in cost.phases[phase] for work in added)
    assert sum(work.bytes for work in added) == (1 + copies) * 2 * 4 * share.parameters
    assert list(cost.phases)[-1] == "optimizer"


ADDED: Final = ("all-reduce", "copy to buckets")


def test_half_precision_halves_what_is_sent_and_autocast_does_not() -> None:
    sent = [
        _reduction(_made(**options).cost()).wire_bytes
        for options in ({}, {"dtype": "bf16"}, {"dtype": "bf16", "autocast": True})
    ]

    assert sent == [sent[0], sent[0] // 2, sent[0]]


def test_the_gradients_of_the_course_s_xl_are_8_gb() -> None:
    """Document 002: 8.0 GB in fp32, of which each of two ranks sends as much."""
    kind, preset = workload.find("ddp-cs336-xl")
    cost = workload.make(kind, preset).cost()

    assert _reduction(cost).wire_bytes == pytest.approx(8.0e9, rel=0.005)


sizes = st.floats(1e3, 1e12)
speeds = st.floats(1e6, 1e12)
calls = st.floats(1e-6, 1e-2)


def _pipeline_s(size: float, buckets: int, speed: float, call: float) -> float:
    """Send each bucket once it is computed and the one before is sent; what backward waits."""
    each = size / buckets / speed
    sent = 0.0
    for number in range(buckets):
        sent = max(sent, (number + 1) * each) + call + each
    return sent - buckets * each


@given(sizes, st.integers(1, 200), speeds, calls)
def test_the_overhead_is_that_of_a_pipeline_of_buckets(
    size: float, buckets: int, speed: float, call: float
) -> None:
    expected = _pipeline_s(size, buckets, speed, call)

    assert overhead_s(size, buckets, speed, call) == pytest.approx(expected, rel=1e-5)


@given(sizes, speeds, calls, st.floats(0.01, 100))
def test_no_other_number_of_buckets_has_less_overhead(
    size: float, speed: float, call: float, factor: float
) -> None:
    best = best_buckets(size, speed, call)
    least = overhead_s(size, best, speed, call)

    assert least <= overhead_s(size, best * factor, speed, call) * (1 + 1e-9)
    assert least == pytest.approx(2 * math.sqrt(size * call / speed))
    assert best * best_bucket_bytes(size, speed, call) == pytest.approx(size)


def test_xl_on_two_h200_wants_a_few_dozen_buckets() -> None:
    """8 GB at 450 GB/s and 20 µs a call: 30 buckets of 268 MB, and 1.2 ms of overhead."""
    s, w, o = 8e9, 450e9, 20e-6

    assert best_buckets(s, w, o) == pytest.approx(29.8, rel=0.01)
    assert best_bucket_bytes(s, w, o) == pytest.approx(268e6, rel=0.01)
    assert overhead_s(s, 30, w, o) == pytest.approx(1.19e-3, rel=0.01)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch": 6, "world_size": 4}, "cannot be shared equally by 4 ranks; take --batch 8"),
        ({"world_size": 0}, "--world-size is 0; it must be at least 1"),
        ({"bucket_mb": 0.0}, "--bucket-mb is 0; it must be more than 0"),
        (
            {"strategy": "torch", "compile": "default", "bucket_mb": 0.5},
            "--bucket-mb is 0.5, but torch.compile .* takes no buckets below 1 MiB",
        ),
        ({"mode": "forward"}, "no gradients to average"),
        ({"cuda_graph": True}, "--cuda-graph is not for several processes"),
        ({"strategy": "buckets"}, "There is no value named 'buckets'. Did you mean bucketed"),
        ({"heads": 5}, "5 heads do not divide"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        workload.make(Ddp, options)


def test_smaller_variants_can_be_shared_too() -> None:
    found = _made(batch=8, world_size=4, ctx=512).variants()

    assert found
    for one in found:
        one.check()
        assert one.strategy == "bucketed"


def test_one_rank_trains_without_a_launcher() -> None:
    trained = _trained(_ddp("bucketed", 1))
    alone = _trained(workload.make(Gpt2, TINY))  # type: ignore[arg-type]  # made of Gpt2

    for name, weight in trained.items():
        torch.testing.assert_close(weight, alone[name], rtol=0, atol=1e-7)
    torch.distributed.destroy_process_group()


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")
def test_on_gpus_all_strategies_train_alike(tmp_path: Path) -> None:
    for found in gloo.run(f"{__name__}:what_each_gpu_does", 2, tmp_path, "nccl"):
        for strategy in STRATEGIES:
            for name, weight in found[strategy].items():
                torch.testing.assert_close(weight, found["naive"][name], rtol=0, atol=2e-8)

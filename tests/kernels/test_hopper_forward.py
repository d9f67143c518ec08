"""Attention by Hopper's own instructions: against float64, and what it leaves to other kernels."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import _checks, _configs

hopper_forward = pytest.importorskip(
    "tracelens_kernels._attention.hopper_forward", reason="this Triton's Gluon is another"
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
needs_hopper = pytest.mark.skipif(not HOPPER, reason="needs an NVIDIA GPU of the Hopper generation")

SIZES = {  # (B, H, Hkv, Sq, Sk)
    "one tile": (1, 1, 1, 128, 128),
    "many tiles": (2, 8, 8, 1024, 1024),
    "tiles that are not full": (1, 3, 3, 1000, 1000),
    "fewer queries than keys": (2, 4, 2, 300, 777),
    "more queries than keys, some see none": (1, 4, 1, 777, 300),
    "tiles that see nothing": (1, 2, 1, 2049, 130),
    "one query": (1, 2, 2, 1, 513),
    "one key": (1, 2, 2, 5, 1),
    "groups of heads": (3, 32, 8, 640, 512),
}


def made(
    sizes: tuple[int, ...], head_dim: int, dtype: torch.dtype = torch.bfloat16
) -> tuple[Tensor, Tensor, Tensor]:
    b, h, hkv, sq, sk = sizes
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(b, rows, heads, head_dim, generator=generator, device="cuda").to(dtype)
        for heads, rows in ((h, sq), (hkv, sk), (hkv, sk))
    )
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2).contiguous()


def attended(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """What plain PyTorch gives in the format of its inputs; 0 where nothing is seen."""
    group = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(group, 1).transpose(-1, -2) * scale
    queries, keys = scores.shape[-2:]
    if causal:
        seen = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
        scores = scores.masked_fill(~seen, float("-inf"))
    weights = scores.softmax(-1).nan_to_num(0.0)
    return weights @ v.repeat_interleave(group, 1), scores.logsumexp(-1)


def error(out: Tensor, reference: Tensor) -> float:
    return float((out.double() - reference).norm() / reference.norm().clamp_min(1e-30))


def assert_as_good_as_torch(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> None:
    o, lse = hopper_forward.forward(q, k, v, causal=causal, scale=scale)
    plain, _ = attended(q, k, v, causal=causal, scale=scale)
    reference, logs = attended(*(x.double() for x in (q, k, v)), causal=causal, scale=scale)

    assert o.shape == q.shape
    assert o.dtype == q.dtype
    assert error(o, reference) <= 2 * error(plain, reference) + 1e-5
    blind = logs == float("-inf")
    assert torch.equal(lse == float("-inf"), blind)
    assert not o[blind].any()
    torch.testing.assert_close(lse[~blind].double(), logs[~blind], rtol=1e-5, atol=2e-5)


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_it_is_as_good_as_torch(
    sizes: tuple[int, ...], causal: bool, head_dim: int, dtype: torch.dtype
) -> None:
    q, k, v = made(sizes, head_dim, dtype)

    assert hopper_forward.why_not(q, k, v, causal=causal) == ""
    assert_as_good_as_torch(q, k, v, causal=causal, scale=1.3 * head_dim**-0.5)


@pytest.mark.gpu
@needs_hopper
@settings(deadline=None, max_examples=60)
@given(
    sizes=st.tuples(*[st.integers(1, 3)] * 3, *[st.integers(1, 900)] * 2),
    head_dim=st.sampled_from([64, 128]),
    causal=st.booleans(),
)  # fmt: skip
def test_any_lengths(sizes: tuple[int, ...], head_dim: int, causal: bool) -> None:
    batches, groups, kv_heads, queries, keys = sizes
    q, k, v = made((batches, groups * kv_heads, kv_heads, queries, keys), head_dim)

    assert_as_good_as_torch(q, k, v, causal=causal, scale=head_dim**-0.5)


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_every_configuration_gives_the_same(head_dim: int, causal: bool) -> None:
    q, k, v = made((2, 4, 2, 1000, 900), head_dim)

    for config in hopper_forward.configs(head_dim):
        with _configs.forced("flash_attention", "forward", config):
            assert_as_good_as_torch(q, k, v, causal=causal, scale=head_dim**-0.5)


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("size", [30.0, 1e4], ids=["large", "huge"])
def test_large_scores_do_not_overflow(size: float) -> None:
    q, k, v = made((1, 2, 2, 500, 500), 64)

    assert_as_good_as_torch(q * size, k, v, causal=True, scale=1.0)


@pytest.mark.gpu
@needs_hopper
def test_launches_one_after_another_on_several_streams_and_in_a_graph() -> None:
    q, k, v = made((2, 16, 16, 1024, 1024), 64)
    expected = hopper_forward.forward(q, k, v, causal=True, scale=0.125)[0]
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    outs = []
    for stream, _ in itertools.product(streams, range(5)):
        with torch.cuda.stream(stream):
            outs.append(hopper_forward.forward(q, k, v, causal=True, scale=0.125)[0])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = hopper_forward.forward(q, k, v, causal=True, scale=0.125)[0]
    for _ in range(3):
        captured.zero_()
        graph.replay()
        torch.cuda.synchronize()
        outs.append(captured.clone())

    assert all(torch.equal(out, expected) for out in outs)


@pytest.mark.gpu
@needs_hopper
def test_a_batch_in_another_order_gives_the_same_in_that_order() -> None:
    q, k, v = made((5, 4, 2, 300, 400), 128)
    order = torch.tensor([3, 1, 4, 0, 2], device="cuda")
    o, lse = hopper_forward.forward(q, k, v, causal=True, scale=0.1)
    o2, lse2 = hopper_forward.forward(q[order], k[order], v[order], causal=True, scale=0.1)

    assert torch.equal(o[order], o2)
    assert torch.equal(lse[order], lse2)


@pytest.mark.gpu
@needs_hopper
def test_more_than_two_to_the_31_elements() -> None:
    q, k, v = made((1, 1, 1, 256, 256), 128)
    many = 2**31 // (256 * 128) + 1
    o, lse = hopper_forward.forward(
        *(x.expand(many, -1, -1, -1).contiguous() for x in (q, k, v)), causal=False, scale=0.1
    )

    assert torch.equal(o[0], o[-1])
    assert torch.equal(lse[0], lse[-1])
    assert (
        error(o[-1:], attended(q.double(), k.double(), v.double(), causal=False, scale=0.1)[0])
        < 0.01
    )


@dataclasses.dataclass
class Given:
    """A tensor as `why_not` looks at it, on a GPU that this machine may not have."""

    tensor: Tensor
    offset: int = 0
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cuda", 0))

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def shape(self) -> torch.Size:
        return self.tensor.shape

    def stride(self, dim: int | None = None) -> object:
        return self.tensor.stride() if dim is None else self.tensor.stride(dim)

    def data_ptr(self) -> int:
        return 4096 + self.offset


def reason(q: Given, other: Given | None = None) -> str:
    k = other or q
    found: str = hopper_forward.why_not(q, k, k, causal=False)
    return found


@pytest.fixture
def on_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_checks, "is_hopper", lambda device: device.type == "cuda")
    monkeypatch.setattr(_checks, "TRITON", triton.__version__)


def rows(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.usefixtures("on_hopper")
def test_rows_with_gaps_and_heads_in_any_order_are_taken() -> None:
    for x in (
        rows(2, 4, 100, 64),
        rows(2, 100, 4, 64).transpose(1, 2),
        rows(2, 4, 100, 3, 128)[:, :, :, 1],
        rows(1, 1, 1, 256),
        rows(1, 7, 1, 64)[:, ::3],
        rows(1, 3, 50, 64).as_strided((1, 3, 50, 64), (1, 3200, 64, 1)),  # one batch: any stride
    ):
        assert reason(Given(x)) == ""


@pytest.mark.usefixtures("on_hopper")
def test_what_it_cannot_do_it_says() -> None:
    fine = rows(2, 4, 100, 64)

    assert "cpu is no Hopper GPU" in reason(Given(fine, device=torch.device("cpu")))
    assert "float32 is neither" in reason(Given(rows(2, 4, 100, 64, dtype=torch.float32)))
    assert "head_dim 80 is none of 64, 128, 256" in reason(Given(rows(2, 4, 100, 80)))
    assert "q's rows" in reason(Given(fine, offset=8))
    assert "k's rows" in reason(Given(fine), Given(rows(2, 4, 100, 68)[..., :64]))
    assert "k's rows" in reason(Given(fine), Given(rows(2, 1, 100, 64).expand(2, 4, 100, 64)))
    assert "q's rows" in reason(Given(rows(2, 4, 64, 64).transpose(2, 3)))


@pytest.mark.usefixtures("on_hopper")
def test_another_triton_may_have_another_gluon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_checks, "TRITON", "1.0.")

    assert "written for Triton 1.0.x" in reason(Given(rows(2, 4, 100, 64)))


NAMES = list(hopper_forward._forward.arg_names)


class Compiler:
    """Stands for the kernel: it compiles at the first launch; what it is given is written down."""

    def __init__(self) -> None:
        self.compiled: list[tuple[Any, ...]] = []
        self.launched: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def first(*given: Any, num_warps: int, maxnreg: int, **constants: int) -> Again:
            assert num_warps == 4
            assert maxnreg in {128, 168}
            self.compiled.append((*grid, *given, *constants.values()))
            assert NAMES[len(given) :] == list(constants)
            return Again(self)

        return first


@dataclasses.dataclass
class Again:
    compiler: Compiler

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *given: self.compiler.launched.append((*grid, *given))


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    there = Compiler()
    monkeypatch.setattr(hopper_forward, "_forward", there)
    for cache in ("_plans", "_usual", "_counters"):
        monkeypatch.setattr(hopper_forward, cache, {})
    h200 = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: h200)
    monkeypatch.setattr(torch.cuda, "device_of", contextlib.nullcontext)
    stream = SimpleNamespace(cuda_stream=0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: stream)
    with _configs.forced("flash_attention", "forward", None):
        yield there


def test_launches_of_one_form_differ_in_their_tensors_alone(compiler: Compiler) -> None:
    def launch(keys: int) -> Tensor:
        q, k = torch.zeros(2, 6, 300, 64).half(), torch.zeros(2, keys, 3, 64).half()
        o, _ = hopper_forward.forward(q, k.transpose(1, 2), k.transpose(1, 2), causal=True, scale=1)
        return o

    first, second, other = launch(400), launch(400), launch(401)
    (one, another), (again,) = compiler.compiled, compiler.launched

    assert len(NAMES) + 3 == len(one) == len(again)
    for before, after in zip(one, again, strict=True):
        if isinstance(before, torch.Tensor):
            assert before.shape == after.shape
        elif hasattr(before, "block_shape"):
            assert (before.shape, before.strides) == (after.shape, after.strides)
        else:
            assert before == after
    given = dict(zip(NAMES, one[3:], strict=True))
    assert given["o_desc"].base is first
    assert dict(zip(NAMES, again[3:], strict=True))["o_desc"].base is second
    assert dict(zip(NAMES, another[3:], strict=True))["o_desc"].base is other
    assert given["k_desc"].shape == [2, 3, 400, 64]
    assert given["k_desc"].strides == [400 * 3 * 64, 64, 3 * 64, 1]
    numbers = ("tiles", "tiles_m", "all_heads", "queries", "keys", "heads", "kv_heads")
    assert [given[name] for name in numbers] == [36, 3, 12, 300, 400, 6, 3]
    assert one[:3] == (36, 1, 1)
    assert given["scale"] == pytest.approx(math.log2(math.e))


def test_a_plan_keeps_no_tensor(compiler: Compiler) -> None:
    q = torch.zeros(1, 1, 128, 64).half()
    hopper_forward.forward(q, q, q, causal=False, scale=1.0)

    assert compiler.compiled
    assert all(one.base is None for p in hopper_forward._plans.values() for one in p.described)


def test_configurations_fit_into_shared_memory_and_registers() -> None:
    for head_dim in (64, 128, 256):
        for config in hopper_forward.configs(head_dim):
            block = 2 * config["BLOCK_N"] * head_dim * config["STAGES"]
            tile = (1 if head_dim > 128 else 2) * 64 * config["GROUPS"] * head_dim
            start, consumer = hopper_forward._REGISTERS[config["GROUPS"]]

            assert 2 * (block + tile) + 1024 <= 227 * 1024
            assert 128 * start * (config["GROUPS"] + 1) <= 65536
            assert consumer * config["GROUPS"] + 24 <= start * (config["GROUPS"] + 1)


def test_defaults_are_among_the_configurations() -> None:
    for head_dim, causal, queries in itertools.product((64, 128, 256), (False, True), (1, 2**16)):
        default = hopper_forward.default_config(head_dim, causal=causal, queries=queries)

        assert default in list(hopper_forward.configs(head_dim))


@pytest.mark.parametrize(
    ("heads", "queries", "causal", "groups"),
    [  # what was the quicker one on an H200 of 132 multiprocessors, with heads of 64
        (64, 1024, False, 2),
        (64, 2048, False, 2),
        (64, 4096, False, 3),
        (256, 2048, False, 3),
        (16, 4096, False, 2),
        (32, 8192, False, 3),
        (16, 16384, False, 3),
        (64, 4096, True, 2),
        (256, 2048, True, 2),
        (32, 8192, True, 3),
        (16, 16384, True, 3),
    ],
)
def test_three_warpgroups_where_no_large_part_of_the_last_round_is_idle(
    heads: int, queries: int, causal: bool, groups: int
) -> None:
    default = hopper_forward.default_config(64, causal=causal, queries=queries, heads=heads)

    assert default["GROUPS"] == groups

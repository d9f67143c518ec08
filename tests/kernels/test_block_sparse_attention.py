"""Attention of listed blocks is masked attention; and what lists are refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import block_sparse_attention, block_sparse_attention_unfused
from tracelens_kernels.ops.block_sparse_attention import KERNEL, BlockStructure, reference

from tracelens import tuned
from tracelens.kernel import OURS, parse_shape

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.filterwarnings(  # of the interpreter, for a loop of unknown length
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BOTH = [block_sparse_attention, block_sparse_attention_unfused]


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def made(sizes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """q, k, v and do of (B, H, Hkv, Sq, Sk, D)."""
    b, h, hkv, sq, sk, d = sizes
    heads = ((h, sq), (hkv, sk), (hkv, sk), (h, sq))
    return [random(b, count, rows, d, dtype=dtype, seed=n) for n, (count, rows) in enumerate(heads)]


def structure(*rows: str, size: int = 16) -> BlockStructure:
    """The structure of a drawing: `x` is a listed block."""
    mask = torch.tensor([[one == "x" for one in row] for row in rows], device=DEVICE)
    return BlockStructure.from_mask(mask, size)


def error(out: Tensor, expected: Tensor) -> float:
    return float((out.double() - expected).norm() / max(float(expected.norm()), 1.0))


def gradients(q: Tensor, k: Tensor, v: Tensor, do: Tensor, blocks: Any) -> dict[str, Tensor]:
    needing = [one.detach().requires_grad_() for one in (q, k, v)]
    o = block_sparse_attention(*needing, blocks)
    found = (o.detach(), *torch.autograd.grad(o, needing, do))
    return dict(zip(("o", "dq", "dk", "dv"), found, strict=True))


STRUCTURES = {
    "some blocks": ("x.x.", ".x..", "xxxx", "..xx"),
    "a row without blocks": ("x...", "....", ".xx.", "...x"),
    "a column without blocks": (".x.x", ".x..", "...x", ".xxx"),
    "no blocks": ("....", "....", "....", "...."),
    "all blocks": ("xxxx", "xxxx", "xxxx", "xxxx"),
}


@pytest.mark.parametrize("drawing", STRUCTURES.values(), ids=STRUCTURES)
def test_it_is_masked_attention_and_so_are_its_gradients(drawing: tuple[str, ...]) -> None:
    lists = structure(*drawing)
    q, k, v, do = made((1, 1, 1, 64, 64, 16))
    expected = reference(q, k, v, lists, 0.25, do)

    for name, out in gradients(q, k, v, do, lists).items():
        assert error(out, expected[name]) < 2e-6, name
    unfused = block_sparse_attention_unfused(q, k, v, lists)
    assert error(unfused, expected["o"]) < 2e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("attend", BOTH)
def test_sixteen_bits_are_summed_in_float32(attend: Any, dtype: torch.dtype) -> None:
    lists = structure("xx.", ".xx", "x.x")
    q, k, v, _ = made((1, 1, 1, 48, 48, 24), dtype)

    out = attend(q, k, v, lists)

    assert out.dtype == dtype
    # The interpreter cuts bfloat16 off where a GPU rounds it.
    allowed = {torch.float16: 1e-3, torch.bfloat16: 2e-2}[dtype]
    assert error(out, reference(q, k, v, lists, 24**-0.5)["o"]) < allowed


@pytest.mark.parametrize("attend", BOTH)
def test_one_head_needs_no_axes_for_it(attend: Any) -> None:
    lists = structure("x.x", "..x")
    q, k, v, _ = made((1, 1, 1, 32, 48, 16))

    out = attend(q[0, 0], k[0, 0], v[0, 0], lists)

    assert torch.equal(out, attend(q, k, v, lists)[0, 0])


masks = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**18 - 1))


@settings(deadline=None, max_examples=12)
@given(masks, st.integers(0, 15), st.integers(0, 15), st.sampled_from([1, 2, 4]))
def test_lists_are_those_of_all_heads_or_of_each(
    bits: tuple[int, int, int], short_q: int, short_k: int, lists: int
) -> None:
    rows, columns, number = bits
    size = lists * rows * columns
    mask = torch.tensor([number >> (n % 18) & 1 for n in range(size)], dtype=torch.bool)
    mask = mask.reshape(lists, rows, columns).to(DEVICE)
    blocks = BlockStructure.from_mask(mask, 16)
    q, k, v, do = made((2, 2, 1, rows * 16 - short_q, columns * 16 - short_k, 16))
    expected = reference(q, k, v, blocks, 0.25, do)

    found = gradients(q, k, v, do, blocks)
    found["unfused"] = block_sparse_attention_unfused(q, k, v, blocks)

    assert torch.equal(blocks.mask(), mask)
    for name, out in found.items():
        assert error(out, expected.get(name, expected["o"])) < 2e-6, name


@settings(deadline=None, max_examples=10)
@given(masks)
def test_weights_sum_to_1_where_there_are_any(bits: tuple[int, int, int]) -> None:
    rows, columns, number = bits
    mask = torch.tensor([number >> n & 1 for n in range(rows * columns)], dtype=torch.bool)
    mask = mask.reshape(rows, columns).to(DEVICE)
    q, k, v, _ = made((1, 1, 1, rows * 16, columns * 16, 16))
    expected = mask.any(1).float().repeat_interleave(16)[:, None].expand(-1, 16)

    for attend in BOTH:
        out = attend(q, k, torch.ones_like(v), mask, 16)
        torch.testing.assert_close(out[0, 0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("splits", [2, 3, 5])
def test_lists_that_are_split_give_the_same(splits: int) -> None:
    lists = structure("xxxx", ".x..", "....")
    q, k, v, _ = made((1, 2, 2, 48, 64, 16))
    config = {"BLOCK_M": 16, "BLOCK_N": 16, "SPLITS": splits, "num_warps": 4, "num_stages": 2}

    with tuned.forced("block_sparse_attention", "forward", config):
        out = block_sparse_attention(q, k, v, lists)

    assert error(out, reference(q, k, v, lists, 0.25)["o"]) < 2e-6


def test_tiles_may_be_parts_of_a_block() -> None:
    lists = structure("x.", "xx", size=64)
    q, k, v, do = made((1, 1, 1, 128, 100, 16))
    tiles = {"BLOCK_M": 16, "BLOCK_N": 32, "num_warps": 4, "num_stages": 2}
    both = tiles | {f"DQ_{name}": value for name, value in tiles.items()}

    with (
        tuned.forced("block_sparse_attention", "forward", {**tiles, "SPLITS": 1}),
        tuned.forced("block_sparse_attention", "backward", both),
    ):
        found = gradients(q, k, v, do, lists)

    expected = reference(q, k, v, lists, 0.25, do)
    for name, out in found.items():
        assert error(out, expected[name]) < 2e-6, name


def test_compressed_rows_a_mask_and_a_structure_are_the_same_lists() -> None:
    q, k, v, _ = made((1, 1, 1, 32, 48, 16))
    mask = torch.tensor([[True, False, True], [False, False, True]], device=DEVICE)
    offsets, columns = torch.tensor([0, 2, 3]), torch.tensor([2, 0, 2])

    by_mask = block_sparse_attention(q, k, v, mask, 16)

    assert torch.equal(block_sparse_attention(q, k, v, (offsets, columns), 16), by_mask)
    lists = BlockStructure(offsets, columns, key_blocks=3, block_size=16, device=DEVICE)
    assert torch.equal(block_sparse_attention(q, k, v, lists), by_mask)
    assert (lists.blocks, lists.longest, lists.query_blocks) == (3, 2, 2)
    assert lists.columns.tolist() == [0, 2, 2]
    assert [one.tolist() for one in lists.by_keys] == [[0, 1, 1, 3], [0, 0, 1]]


REFUSED: dict[str, tuple[type[Exception], str, dict[str, Any]]] = {
    "a block that is not there": (ValueError, "block 3 of keys", {"columns": [0, 3, 1]}),
    "a negative block": (ValueError, "block -1 of keys", {"columns": [0, -1, 1]}),
    "a block listed twice": (ValueError, "block 1 of keys twice for row 1", {"columns": [0, 1, 1]}),
    "offsets that fall": (ValueError, "rise from 0 to 3", {"offsets": [0, 4, 3]}),
    "offsets that do not begin at 0": (ValueError, "rise from 0 to 3", {"offsets": [1, 1, 3]}),
    "offsets that end early": (ValueError, "rise from 0 to 3", {"offsets": [0, 1, 2]}),
    "no rows": (ValueError, "query_blocks", {"offsets": [0]}),
    "another size of blocks": (ValueError, "16, 32, 64, 128, 256", {"block_size": 48}),
    "no blocks of keys": (ValueError, "key_blocks is -1", {"key_blocks": -1}),
    "columns that are no integers": (TypeError, "int32 or int64", {"columns": [0.0, 1.0, 2.0]}),
}


@pytest.mark.parametrize(("kind", "says", "change"), REFUSED.values(), ids=REFUSED)
def test_lists_that_are_wrong_are_refused(
    kind: type[Exception], says: str, change: dict[str, Any]
) -> None:
    given: dict[str, Any] = {
        "offsets": [0, 1, 3], "columns": [0, 2, 1], "block_size": 16, "key_blocks": 3, **change
    }  # fmt: skip
    offsets, columns = torch.tensor(given.pop("offsets")), torch.tensor(given.pop("columns"))

    with pytest.raises(kind, match=says):
        BlockStructure(offsets, columns, **given)


@pytest.mark.parametrize("attend", BOTH)
def test_what_does_not_fit_the_lists_is_refused(attend: Any) -> None:
    lists = structure("x.x", "..x")
    q, k, v, _ = made((1, 2, 2, 32, 48, 16))
    three = BlockStructure.from_mask(torch.ones(3, 2, 3, dtype=torch.bool, device=DEVICE), 16)

    def refused(kind: type[Exception], says: str, *given: Any) -> None:
        with pytest.raises(kind, match=says):
            attend(*given)

    refused(ValueError, "q and k have 2 and 2 blocks of 16", q, k[:, :, :32], v[:, :, :32], lists)
    refused(ValueError, "There are 3 lists; with 1 x 2 heads", q, k, v, three)
    refused(ValueError, "or .S, D.", q[0], k[0], v[0], lists)
    refused(ValueError, "is empty", q[:, :, :0], k, v, lists)
    refused(TypeError, "float64", q.double(), k.double(), v.double(), lists)
    refused(ValueError, "positive and finite", q, k, v, lists, 128, -1.0)
    refused(TypeError, "bool", q, k, v, torch.ones(2, 3, device=DEVICE), 16)
    refused(ValueError, "the lists on meta", q, k, v, _elsewhere(lists))
    many = [one.expand(40_000, -1, -1, -1) for one in (q, k, v)]
    refused(ValueError, "40000 x 2 heads; at most 65535", *many, lists)


def _elsewhere(lists: BlockStructure) -> BlockStructure:
    moved = BlockStructure.from_mask(lists.mask(), lists.block_size)
    moved.columns = moved.columns.to("meta")
    return moved


def test_derivatives_that_there_are_not_are_refused() -> None:
    lists = structure("x.x", "..x")
    q, k, v, _ = made((1, 1, 1, 32, 48, 16))
    q.requires_grad_()

    with pytest.raises(RuntimeError, match="has no gradient: use block_sparse_attention"):
        block_sparse_attention_unfused(q, k, v, lists)
    with pytest.raises(RuntimeError, match="block_sparse_attention has no second derivative"):
        torch.autograd.grad(block_sparse_attention(q, k, v, lists).sum(), q, create_graph=True)


def test_a_compiled_model_steps_out_for_it() -> None:
    lists = structure("x.x", "..x")
    q, k, v, _ = made((1, 1, 1, 32, 48, 16))

    def attend(q: Tensor) -> Tensor:
        return 2 * block_sparse_attention(q + 1, k, v, lists)

    assert torch.equal(torch.compile(attend, backend="eager")(q), attend(q))


@pytest.mark.parametrize("operation", KERNEL.operations)
def test_the_bench_holds_it_against_masked_attention(operation: str) -> None:
    shape = parse_shape(KERNEL, "blocks=5,query_blocks=3,head_dim=16,block=16,heads=2")
    one = KERNEL.operations[operation]
    tensors = one.inputs(shape, "fp32", DEVICE, 1)
    expected = one.reference(tensors, shape)

    assert "see nothing" in one.implementations["sdpa"].why_not(shape, "fp32")
    for name in {OURS, "unfused", "eager"} & one.implementations.keys():
        call = one.implementations[name].build(tensors, shape)
        call()
        out = call()

        assert out.keys() == expected.keys()
        for key, value in out.items():
            assert error(value, expected[key]) < 1e-5, (name, key)


def test_its_shapes_list_a_fifth_of_all_blocks_unless_told_otherwise() -> None:
    shape = parse_shape(KERNEL, "800")
    forward, backward = (KERNEL.operations[name] for name in ("forward", "backward"))

    work = forward.work(shape, "fp16")

    assert work.flops == 4 * 800 * 128 * 128 * 64
    assert work.bytes == 4 * 63 * 128 * 64 * 2
    assert backward.work(shape, "fp16").flops == 2.5 * work.flops
    assert math.isclose(800 / 63**2, 0.2, rel_tol=0.01)


def test_tiles_that_are_tried_divide_a_block() -> None:
    shape = parse_shape(KERNEL, "blocks=9,query_blocks=6,head_dim=16,block=64,heads=2")
    tuning = KERNEL.tuning["forward"]

    default, tried = tuning.default(shape, "fp16"), list(tuning.coarse(shape, "fp16"))

    assert tuning.key(shape, "fp16") == "block=64 head_dim=16 float16 query_blocks=16 listed=1"
    assert len(tried) > 5
    assert all(tuned.is_valid(one, default) for one in tried)
    assert all(64 % one["BLOCK_M"] == 0 and 64 % one["BLOCK_N"] == 0 for one in tried)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("sizes", "size", "lists"),
    [
        ((1, 1, 1, 1024, 1024, 64), 128, 1), ((2, 4, 2, 1000, 900, 128), 128, 4),
        ((1, 2, 2, 500, 500, 80), 64, 2), ((2, 2, 1, 300, 300, 64), 16, 4),
        ((1, 1, 1, 1024, 512, 256), 256, 1), ((1, 2, 1, 256, 256, 32), 32, 1),
    ],
    ids=str,
)  # fmt: skip
def test_on_a_gpu_it_is_as_good_as_torch(
    sizes: tuple[int, ...], size: int, lists: int, dtype: torch.dtype
) -> None:
    q, k, v, do = made(sizes, dtype)
    blocks = [math.ceil(one.shape[2] / size) for one in (q, k)]
    chance = torch.rand(lists, *blocks, generator=torch.Generator().manual_seed(3))
    listed = BlockStructure.from_mask((chance < 0.3).to(DEVICE), size)
    expected = reference(q, k, v, listed, q.shape[-1] ** -0.5, do)

    found = gradients(q, k, v, do, listed)
    found["unfused"] = block_sparse_attention_unfused(q, k, v, listed)

    allowed = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-5}[dtype]
    for name, out in found.items():
        assert error(out, expected.get(name, expected["o"])) < allowed, name

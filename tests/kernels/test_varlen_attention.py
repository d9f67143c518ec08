"""Attention of sequences of different lengths is that of each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import flash_attention, flash_attention_varlen

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.filterwarnings(  # of the interpreter, for a loop of unknown length
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Lengths = list[tuple[int, int]]


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def offsets(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths], device=DEVICE).cumsum(0).int()


def packed(
    lengths: Lengths, heads: int = 2, kv_heads: int = 1, dim: int = 16, dtype: Any = torch.float32
) -> tuple[list[Tensor], list[Any]]:
    """q, k, v and do; and the offsets and longest of queries and keys."""
    queries, keys = ([pair[n] for pair in lengths] for n in range(2))
    sizes = ((sum(queries), heads), (sum(keys), kv_heads), (sum(keys), kv_heads))
    tensors = [
        random(rows, count, dim, dtype=dtype, seed=n)
        for n, (rows, count) in enumerate((*sizes, sizes[0]))
    ]
    return tensors, [offsets(queries), offsets(keys), max(queries), max(keys)]


def gradients(attend: Any, tensors: list[Tensor]) -> list[Tensor]:
    needing = [one.detach().requires_grad_() for one in tensors[:3]]
    o = attend(*needing)
    return [o.detach(), *torch.autograd.grad(o, needing, tensors[3])]


def one_by_one(lengths: Lengths, causal: bool) -> Any:
    """Attention of each sequence, by its own call, put together again."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = []
        at = [0, 0]
        for queries, keys in lengths:
            rows = slice(at[0], at[0] + queries), slice(at[1], at[1] + keys)
            at = [at[0] + queries, at[1] + keys]
            q1, k1, v1 = (
                one[row].transpose(0, 1).unsqueeze(0)
                for one, row in zip((q, k, v), (rows[0], rows[1], rows[1]), strict=True)
            )
            if queries and keys:
                out = flash_attention(q1, k1, v1, causal)
                assert isinstance(out, torch.Tensor)
                parts.append(out[0].transpose(0, 1))
            else:
                parts.append(torch.zeros_like(q[rows[0]]))
        return torch.cat(parts)

    return attend


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=4).filter(
        lambda pairs: any(q for q, _ in pairs) and any(k for _, k in pairs)
    ),
    st.booleans(),
)
def test_it_is_attention_of_each_sequence(lengths: Lengths, causal: bool) -> None:
    tensors, how = packed(lengths)

    together = gradients(lambda *qkv: flash_attention_varlen(*qkv, *how, causal), tensors)

    for out, expected in zip(
        together, gradients(one_by_one(lengths, causal), tensors), strict=True
    ):
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_a_wrong_longest_sequence_does_not_change_the_result() -> None:
    lengths = [(40, 20), (3, 50)]
    tensors, how = packed(lengths)
    expected = flash_attention_varlen(*tensors[:3], *how)

    for longest in ((0, 0), (1, 1), (10_000, 10_000)):
        out = flash_attention_varlen(*tensors[:3], *how[:2], *longest)
        torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's
def test_a_compiled_model_does_not_look_into_it() -> None:
    tensors, how = packed([(5, 9), (12, 3)])

    def attend(*qkv: Tensor) -> Tensor:
        return 2 * flash_attention_varlen(*qkv, *how, True, 0.5)

    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    found = gradients(compiled, tensors)

    for out, expected in zip(found, gradients(attend, tensors), strict=True):
        assert torch.equal(out, expected)


def test_offsets_are_read_again_when_they_change() -> None:
    (q, k, v, _), how = packed([(4, 4), (6, 6)])
    before = flash_attention_varlen(q, k, v, *how)

    how[0][1] = how[1][1] = 7
    after = flash_attention_varlen(q, k, v, *how)
    how[0][1] = 11

    assert not torch.equal(before, after)
    with pytest.raises(ValueError, match="falls between"):
        flash_attention_varlen(q, k, v, *how)


def test_offsets_that_do_not_fit_are_refused() -> None:
    (q, k, v, _), (cu_q, cu_k, *longest) = packed([(4, 5), (6, 2)])

    def refused(kind: type[Exception], says: str, *given: Any) -> None:
        with pytest.raises(kind, match=says):
            flash_attention_varlen(*given, *longest)

    refused(TypeError, "make it int32", q, k, v, cu_q.long(), cu_k)
    refused(ValueError, "rise from 0 to 10", q, k, v, cu_q - 1, cu_k)
    refused(ValueError, "it goes from 0 to 10", q[:9], k, v, cu_q, cu_k)
    refused(ValueError, "one offset more", q, k, v, cu_q[:2], cu_k)
    refused(ValueError, "one offset more", q, k, v, cu_q[None], cu_k[None])
    refused(ValueError, "tokens, H, D", q[0], k, v, cu_q, cu_k)
    many = torch.zeros(10_001, dtype=torch.int32, device=DEVICE)
    refused(ValueError, "10000 sequences; at most 8192", q, k, v, many, many)
    refused(ValueError, "q is empty", q[:0], k, v, cu_q, cu_k)


def test_a_second_derivative_is_refused() -> None:
    (q, k, v, _), how = packed([(4, 5)])
    out = flash_attention_varlen(q.requires_grad_(), k, v, *how)

    with pytest.raises(RuntimeError, match="flash_attention_varlen has no second derivative"):
        torch.autograd.grad(out.sum(), q, create_graph=True)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dim", [64, 128, 80])
def test_on_a_gpu_it_is_attention_of_each_sequence(dim: int, causal: bool) -> None:
    lengths = [(1000, 1000), (0, 40), (1, 777), (517, 2000), (300, 0), (400, 200)]
    tensors, how = packed(lengths, 4, 2, dim, torch.bfloat16)

    together = gradients(lambda *qkv: flash_attention_varlen(*qkv, *how, causal), tensors)

    for out, expected in zip(
        together, gradients(one_by_one(lengths, causal), tensors), strict=True
    ):
        assert (out - expected).double().norm() <= 5e-3 * expected.double().norm()

"""Attention: what it returns and its gradients, against float64, and what it refuses."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import FlashAttention, _checks, flash_attention
from tracelens_kernels._attention import bench, dense, launching, portable
from tracelens_kernels.ops.flash_attention import KERNEL

from tracelens import tuned
from tracelens.kernel import OURS, complete, parse_shape

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.filterwarnings(  # of the interpreter, for a loop of unknown length
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SMALL = {  # (B, H, Hkv, Sq, Sk, D)
    "one tile": (1, 2, 2, 16, 16, 16),
    "tiles that are not full": (2, 1, 1, 37, 37, 24),
    "fewer queries than keys": (1, 2, 1, 5, 40, 16),
    "more queries than keys, some see none": (1, 2, 2, 40, 21, 16),
    "groups of heads": (1, 4, 2, 20, 33, 32),
    "one key": (2, 2, 1, 3, 1, 16),
    "one query": (1, 4, 1, 1, 50, 16),
}


def random(
    *shape: int, dtype: torch.dtype = torch.float32, device: str = DEVICE, seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, dtype)


def made(sizes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """q, k, v and do."""
    b, h, hkv, sq, sk, d = sizes
    heads = ((h, sq), (hkv, sk), (hkv, sk), (h, sq))
    return [random(b, count, rows, d, dtype=dtype, seed=n) for n, (count, rows) in enumerate(heads)]


def gradients(attend: Any, q: Tensor, k: Tensor, v: Tensor, do: Tensor) -> dict[str, Tensor]:
    needing = [one.detach().requires_grad_() for one in (q, k, v)]
    o = attend(*needing)
    found = (o.detach(), *torch.autograd.grad(o, needing, do))
    return dict(zip(("o", "dq", "dk", "dv"), found, strict=True))


def error(out: Tensor, reference: Tensor) -> float:
    norm, ones = float(reference.norm()), reference.numel() ** 0.5
    # One key has gradients of 0, of which there is no share.
    return float((out.double() - reference).norm()) / (norm if norm > 1e-6 * ones else ones)


def assert_as_good_as_torch(
    q: Tensor, k: Tensor, v: Tensor, do: Tensor, *, causal: bool, floor: float = 2e-6
) -> None:
    scale = q.shape[-1] ** -0.5
    ours = gradients(lambda *qkv: flash_attention(*qkv, causal), q, k, v, do)
    theirs = gradients(lambda *qkv: bench.eager(*qkv, causal, scale), q, k, v, do)
    reference = bench.reference(q, k, v, causal=causal, scale=scale, do=do)
    for name, out in ours.items():
        allowed = 2 * error(theirs[name], reference[name]) + floor
        assert error(out, reference[name]) <= allowed, name


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("sizes", SMALL.values(), ids=SMALL)
def test_output_and_gradients_are_as_good_as_torchs(sizes: tuple[int, ...], causal: bool) -> None:
    assert_as_good_as_torch(*made(sizes), causal=causal)
    assert_as_good_as_torch(*made(sizes, torch.float16), causal=causal, floor=1e-4)


@pytest.mark.parametrize("head_dim", [8, 80, 96, 160, 256])
def test_any_head_dim_will_do(head_dim: int) -> None:
    assert_as_good_as_torch(*made((1, 1, 1, 18, 19, head_dim)), causal=True)


def test_bfloat16_is_computed_in_float32_where_the_interpreter_has_no_arithmetic_of_it() -> None:
    q, k, v, do = made((1, 2, 1, 20, 20, 16), torch.bfloat16)

    ours = gradients(lambda *qkv: flash_attention(*qkv, True), q, k, v, do)
    reference = bench.reference(q, k, v, causal=True, scale=0.25, do=do)

    for name, out in ours.items():
        assert out.dtype == torch.bfloat16
        assert error(out, reference[name]) < 8e-3, name


def test_a_query_that_sees_no_key_has_output_0_and_no_gradient() -> None:
    q, k, v, do = made((1, 1, 1, 6, 4, 16))

    o, lse = flash_attention(q, k, v, causal=True, return_lse=True)
    found = gradients(lambda *qkv: flash_attention(*qkv, True), q, k, v, do)

    assert (o[0, 0, :2] == 0).all()
    assert (lse[0, 0, :2] == -math.inf).all()
    assert lse[0, 0, 2:].isfinite().all()
    assert (found["dq"][0, 0, :2] == 0).all()
    assert all(one.isfinite().all() for one in found.values())


def test_the_logarithm_is_natural_of_the_scaled_scores() -> None:
    q, k, v, _ = made((2, 2, 1, 7, 9, 16))

    o, lse = flash_attention(q, k, v, scale=0.3, return_lse=True)

    scores = 0.3 * q.double() @ k.double().mT
    torch.testing.assert_close(lse.double(), scores.logsumexp(-1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(o.double(), scores.softmax(-1) @ v.double(), rtol=1e-5, atol=1e-5)
    assert lse.dtype == torch.float32
    assert not lse.requires_grad


@pytest.mark.parametrize("is_causal", [False, True])
def test_the_function_itself_keeps_one_logarithm_per_query(is_causal: bool) -> None:
    """As an adapter of a course asks: FlashAttention.apply of [batch, queries, D]."""
    q, k, v = (random(2, 48, 32, seed=n).requires_grad_() for n in range(3))
    do = random(2, 48, 32, seed=3)

    o = FlashAttention.apply(q, k, v, is_causal)
    kept = [one for one in o.grad_fn.saved_tensors if one.shape == (q.shape[0], q.shape[1])]
    o.backward(do)

    reference = bench.reference(
        *(one.detach().unsqueeze(1) for one in (q, k, v)),
        causal=is_causal, scale=32**-0.5, do=do.unsqueeze(1),
    )  # fmt: skip
    assert len(kept) == 1
    torch.testing.assert_close(kept[0].double(), reference["lse"][:, 0], rtol=1e-5, atol=1e-5)
    for name, out in {"o": o, "dq": q.grad, "dk": k.grad, "dv": v.grad}.items():
        expected = reference[name][:, 0].float()
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5, msg=name)
    assert torch.equal(FlashAttention.apply(q, k, v), flash_attention(q, k, v))


small = st.integers(1, 40)


@settings(deadline=None, max_examples=8)
@given(small, small, st.booleans(), st.randoms(use_true_random=False))
def test_a_permuted_batch_gives_the_permuted_output(
    queries: int, keys: int, causal: bool, chance: Any
) -> None:
    q, k, v, _ = made((3, 1, 1, queries, keys, 16))
    order = list(range(3))
    chance.shuffle(order)

    out = flash_attention(q, k, v, causal)

    assert torch.equal(flash_attention(q[order], k[order], v[order], causal), out[order])


@settings(deadline=None, max_examples=8)
@given(small, small, st.booleans())
def test_weights_sum_to_1(queries: int, keys: int, causal: bool) -> None:
    q, k, v, _ = made((1, 2, 1, queries, keys, 16))

    out, lse = flash_attention(q, k, torch.ones_like(v), causal, return_lse=True)

    sees = (lse > -math.inf).unsqueeze(-1).expand_as(out)
    torch.testing.assert_close(out, sees.float(), rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 30), st.integers(0, 20), st.data())
def test_keys_after_the_last_that_a_query_sees_do_not_matter(
    queries: int, more: int, data: st.DataObject
) -> None:
    q, k, v, _ = made((1, 1, 1, queries, queries + more, 16))
    query = data.draw(st.integers(0, queries - 1))
    after = query + more + 1
    other_k, other_v = k.clone(), v.clone()
    other_k[:, :, after:] = 1e4
    other_v[:, :, after:] = -1e4

    before, changed = (flash_attention(q, *kv, True) for kv in ((k, v), (other_k, other_v)))

    assert torch.equal(changed[:, :, : query + 1], before[:, :, : query + 1])


@settings(deadline=None, max_examples=4)
@given(st.sampled_from([(4, 1), (4, 2), (6, 3)]), st.booleans())
def test_groups_of_heads_are_repeated_heads(heads: tuple[int, int], causal: bool) -> None:
    h, hkv = heads
    q, k, v, do = made((1, h, hkv, 19, 23, 16))
    repeated = [one.repeat_interleave(h // hkv, 1) for one in (k, v)]

    few = gradients(lambda *qkv: flash_attention(*qkv, causal), q, k, v, do)
    many = gradients(lambda *qkv: flash_attention(*qkv, causal), q, *repeated, do)

    assert torch.equal(few["o"], many["o"])
    assert torch.equal(few["dq"], many["dq"])
    for name in ("dk", "dv"):
        summed = many[name].unflatten(1, (hkv, h // hkv)).sum(2)
        torch.testing.assert_close(few[name], summed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["rows first", "every other", "last stride", "expanded"])
def test_strides_do_not_matter(layout: str) -> None:
    plain = made((2, 2, 2, 20, 20, 16))
    laid_out = {
        "rows first": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        "every other": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
        "last stride": lambda x: x.mT.contiguous().mT,
        "expanded": lambda x: x[:1, :1].expand_as(x),
    }[layout]
    given = [laid_out(one) for one in plain]
    same = [one.contiguous() for one in given]

    out, expected = (
        gradients(lambda *qkv: flash_attention(*qkv, True), *four) for four in (given, same)
    )

    for name in expected:
        assert torch.equal(out[name], expected[name]), name


def test_gradients_are_made_for_what_needs_them() -> None:
    q, k, v, do = made((1, 2, 1, 17, 18, 16))
    whole = gradients(flash_attention, q, k, v, do)

    q.requires_grad_()
    flash_attention(q, k, v).backward(do)
    v.requires_grad_()
    (dv,) = torch.autograd.grad(flash_attention(q, k, v), v, do)

    assert torch.equal(q.grad, whole["dq"])
    assert k.grad is None
    assert torch.equal(dv, whole["dv"])
    with torch.no_grad():
        assert not flash_attention(q, k, v).requires_grad


def test_a_second_derivative_is_refused() -> None:
    q, k, v, _ = made((1, 1, 1, 4, 4, 16))
    q.requires_grad_()
    out = flash_attention(q, k, v)

    with pytest.raises(RuntimeError, match="no second derivative: leave create_graph=True out"):
        torch.autograd.grad(out.sum(), q, create_graph=True)


def test_autocast_casts_the_inputs() -> None:
    q, k, v, do = made((1, 1, 1, 8, 8, 16))
    q.requires_grad_()

    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        out = flash_attention(q, k, v)
    out.backward(do.bfloat16())

    assert out.dtype == torch.bfloat16
    assert q.grad is not None
    assert q.grad.dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's
def test_a_compiled_model_does_not_look_into_it() -> None:
    q, k, v, do = made((1, 2, 1, 17, 18, 16))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Any:
        return flash_attention(2 * q, k, v, True) + 1

    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)

    out, expected = (gradients(one, q, k, v, do) for one in (compiled, attend))
    for name in expected:
        assert torch.equal(out[name], expected[name]), name


REFUSED: dict[str, tuple[type[Exception], str, Any]] = {
    "an axis too few": (ValueError, "[B, S, D]", lambda q, k, v: (q[0, 0], k[0, 0], v[0, 0])),
    "axes that differ": (ValueError, "[B, S, D]", lambda q, k, v: (q[0], k, v)),
    "heads that do not divide": (ValueError, "multiple", lambda q, k, v: (q[:, :3], k, v)),
    "batches that differ": (ValueError, "[B, H, Sq, D]", lambda q, k, v: (q[:1], k, v)),
    "head dims that differ": (ValueError, "[B, H, Sq, D]", lambda q, k, v: (q[..., :8], k, v)),
    "keys without values": (ValueError, "[B, H, Sq, D]", lambda q, k, v: (q, k, v[:, :, :3])),
    "no queries": (ValueError, "q is empty", lambda q, k, v: (q[:, :, :0], k, v)),
    "no keys": (ValueError, "k is empty", lambda q, k, v: (q, k[:, :, :0], v[:, :, :0])),
    "no head dim": (ValueError, "empty", lambda q, k, v: (q[..., :0], k[..., :0], v[..., :0])),
    "a head dim too large": (
        ValueError, "at most 256", lambda *qkv: [one.repeat(1, 1, 1, 17) for one in qkv],
    ),
    "float64": (TypeError, "float64", lambda *qkv: [one.double() for one in qkv]),
    "formats that differ": (TypeError, "the same", lambda q, k, v: (q, k.half(), v)),
    "no GPU": (ValueError, "meta", lambda *qkv: [one.to("meta") for one in qkv]),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "says", "change"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused(kind: type[Exception], says: str, change: Any) -> None:
    q, k, v, _ = made((2, 4, 2, 5, 6, 16))

    with pytest.raises(kind, match=re.escape(says)):
        flash_attention(*change(q, k, v))


@pytest.mark.parametrize("scale", [0, -1.0, math.inf, math.nan])
def test_a_scale_is_positive(scale: float) -> None:
    q, k, v, _ = made((1, 1, 1, 4, 4, 16))

    with pytest.raises(ValueError, match="positive and finite"):
        flash_attention(q, k, v, scale=scale)


def test_a_scale_may_be_a_number_in_a_tensor() -> None:
    q, k, v, _ = made((1, 1, 1, 4, 4, 16))

    out = flash_attention(q, k, v, scale=torch.tensor(0.5))  # type: ignore[arg-type]

    assert torch.equal(out, flash_attention(q, k, v, scale=0.5))


def test_tensors_on_a_cpu_need_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, _ = (one.cpu() for one in made((1, 1, 1, 3, 5, 24)))
    monkeypatch.setattr(_checks, "interpreted", lambda: False)
    monkeypatch.setattr(dense, "_plans", launching.Kept())

    with pytest.raises(ValueError, match="runs on an NVIDIA GPU"):
        flash_attention(q, k, v)


def test_inputs_of_a_form_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, _ = made((1, 1, 1, 3, 5, 16))
    first = flash_attention(q, k, v)
    monkeypatch.setattr(dense, "check", lambda *_: pytest.fail("it was checked again"))

    again = flash_attention(q, k, v)

    assert torch.equal(first, again)


def test_long_inputs_go_to_the_kernels_for_hopper_where_these_do_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = SimpleNamespace(
        why_not=lambda q, _k, _v, causal: "" if causal else f"no, {list(q.shape)}",
        forward=lambda *_, **how: ("o", how["scale"]),
        backward=lambda *_, **how: ("dq", "dk", how["causal"]),
    )
    monkeypatch.setattr(dense, "_plans", launching.Kept())
    monkeypatch.setattr(dense, "hopper", lambda _name: theirs)
    short = torch.zeros(1, 1, 16, 64, device=DEVICE)
    long = short[:, :, :1].expand(1, 16, 4096, 64)

    assert dense.plan_of(short, short, short, True).why_not == ("it is short",) * 2
    assert dense.plan_of(long, long, long, False).why_not[0] == "no, [1, 16, 4096, 64]"
    plan = dense.plan_of(long, long, long, True)
    assert plan.why_not == ("", "")
    assert plan.forward(long, long, long, causal=True, scale=2.0) == ("o", 2.0)
    assert plan.backward(*[long] * 6, causal=True, scale=2.0)[2] is True
    monkeypatch.setattr(dense, "hopper", lambda _name: None)
    assert "no Gluon" in dense.why_not_hopper("forward", long, long, long, causal=True)


def test_a_kernel_is_compiled_in_its_first_launch_and_then_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launching._checks, "TRITON", launching._checks.triton.__version__)

    class Compiled:
        def __init__(self, name: str) -> None:
            self.name, self.calls = name, list[Any]()

        def __getitem__(self, grid: Any) -> Any:
            def call(*given: Any, **options: Any) -> Compiled:
                self.calls.append((grid, given, options))
                return compiled

            return call

    kernel, compiled = Compiled("kernel"), Compiled("compiled")
    launch = launching.Launch(kernel, (7,), (3, "fixed"), {"num_warps": 4})

    launch("x")
    launch("y")

    assert kernel.calls == [((7, 1, 1), ("x", 3, "fixed"), {"num_warps": 4})]
    assert compiled.calls == [((7, 1, 1), ("y", 3, "fixed"), {})]


def test_what_is_kept_for_forms_has_an_end() -> None:
    kept = launching.Kept()

    for form in range(1500):
        assert kept.add(form, -form) == -form

    assert kept[1499] == -1499
    assert len(kept) <= 1024


@pytest.mark.parametrize("operation", KERNEL.tuning)
@pytest.mark.parametrize("dtype", KERNEL.dtypes)
def test_tiles_that_are_tried_are_those_that_it_takes(operation: str, dtype: str) -> None:
    shape = parse_shape(KERNEL, "1x2x40x80x0x0x1")
    tuning = KERNEL.tuning[operation]

    default, tried = tuning.default(shape, dtype), list(tuning.coarse(shape, dtype))

    assert f"head_dim=80 {bench.torch_dtype(dtype)}".replace("torch.", "") in tuning.key(
        shape, dtype
    )
    assert len(tried) > 5
    assert all(tuned.is_valid(one, default) for one in tried)


def test_tiles_of_any_size_give_the_same() -> None:
    q, k, v, do = made((1, 2, 1, 50, 40, 16))
    expected = bench.reference(q, k, v, causal=True, scale=0.25, do=do)
    for m, n in ((16, 64), (64, 16)):
        tiles = {"BLOCK_M": m, "BLOCK_N": n, "num_warps": 4, "num_stages": 2}
        turned = {**tiles, "BLOCK_M": n, "BLOCK_N": m}
        both = tiles | {f"DQ_{name}": size for name, size in turned.items()}

        with (
            tuned.forced("flash_attention", "forward", tiles),
            tuned.forced("flash_attention", "backward", both),
        ):
            o, lse = portable.forward(q, k, v, causal=True, scale=0.25)
            found = portable.backward(do, q, k, v, o, lse, causal=True, scale=0.25)

        for name, out in zip(("o", "dq", "dk", "dv"), (o, *found), strict=True):
            assert out is not None
            assert error(out, expected[name]) < 2e-6, name


@pytest.mark.parametrize("operation", KERNEL.operations)
@pytest.mark.parametrize("causal", [0, 1])
def test_the_bench_holds_it_against_torch(operation: str, causal: int) -> None:
    shape = parse_shape(KERNEL, f"batch=1,heads=2,queries=12,keys=20,kv_heads=1,causal={causal}")
    one = KERNEL.operations[operation]
    tensors = one.inputs(shape, "fp32", DEVICE, 1)
    reference = one.reference(tensors, shape)

    for name in (OURS, "portable", "eager"):
        call = one.implementations[name].build(tensors, shape)
        call()
        out = call()

        assert one.implementations[name].why_not(shape, "fp32") == ""
        assert out.keys() == reference.keys()
        for key, value in out.items():
            assert error(value, reference[key]) < 1e-5, (name, key)


def test_its_cost_counts_the_pairs_that_are_seen() -> None:
    full, causal, short, long = (
        parse_shape(KERNEL, text)
        for text in ("2x3x8", "2x3x8x64x0x0x1", "1x1x2x64x5x1x1", "1x1x5x64x2x1x1")
    )

    assert bench.pairs(full) == 64
    assert bench.pairs(causal) == 8 * 9 // 2
    assert bench.pairs(short) == 4 + 5
    assert bench.pairs(long) == 0 + 0 + 0 + 1 + 2
    forward, backward, both = (
        KERNEL.operations[name].work(full, "bf16")
        for name in ("forward", "backward", "forward_backward")
    )
    assert forward.flops == 4 * 2 * 3 * 64 * 64
    assert forward.bytes == 2 * 4 * 2 * 3 * 8 * 64 + 4 * 2 * 3 * 8
    assert backward.flops == 2.5 * forward.flops
    assert both.bytes == forward.bytes + backward.bytes


def test_what_others_cannot_do_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    found = KERNEL.operations["forward"].implementations
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    plain, decode, groups, odd, wide = (
        complete(KERNEL, {"batch": 1, "heads": 4, "queries": 8, **more})
        for more in (
            {}, {"keys": 9, "causal": 1}, {"kv_heads": 2}, {"head_dim": 20}, {"head_dim": 256},
        )
    )  # fmt: skip

    assert found["sdpa-flash"].why_not(plain, "bf16") == ""
    assert "causal" in found["sdpa-flash"].why_not(decode, "bf16")
    assert "fp32" in found["sdpa-cudnn"].why_not(plain, "fp32")
    assert "128" in found["sdpa-cudnn"].why_not(wide, "bf16")
    assert "multiple" in found["sdpa-flash"].why_not(odd, "bf16")
    assert "heads" in found["sdpa-efficient"].why_not(groups, "bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "GPU" in found["sdpa-flash"].why_not(plain, "bf16")


GPU_SIZES = [
    (2, 4, 4, 1024, 1024, 64), (2, 4, 2, 1000, 1000, 128), (1, 4, 1, 512, 1777, 64),
    (1, 4, 4, 1777, 512, 128), (2, 2, 2, 333, 333, 80), (2, 2, 1, 300, 500, 96),
    (1, 2, 2, 257, 257, 160), (1, 2, 1, 400, 300, 256), (3, 8, 2, 1, 700, 128),
    (1, 2, 2, 130, 1, 64), (2, 2, 2, 200, 200, 16), (2, 2, 2, 200, 200, 32),
]  # fmt: skip


ON_GPU = [(sizes, torch.bfloat16) for sizes in GPU_SIZES] + [
    (sizes, dtype) for dtype in (torch.float16, torch.float32) for sizes in GPU_SIZES[1::3]
]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(("sizes", "dtype"), ON_GPU, ids=str)
def test_on_a_gpu_it_is_as_good_as_torch(
    sizes: tuple[int, ...], dtype: torch.dtype, causal: bool
) -> None:
    floor = {torch.bfloat16: 1e-3, torch.float16: 2e-4, torch.float32: 1e-5}[dtype]
    assert_as_good_as_torch(*made(sizes, dtype), causal=causal, floor=floor)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("sizes", GPU_SIZES[1::2], ids=str)
def test_the_portable_kernels_are_as_good_on_a_gpu(
    sizes: tuple[int, ...], dtype: torch.dtype, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "_plans", launching.Kept())
    monkeypatch.setattr(dense, "hopper", lambda _name: None)
    floor = {torch.bfloat16: 1e-3, torch.float32: 1e-5}[dtype]
    assert_as_good_as_torch(*made(sizes, dtype), causal=causal, floor=floor)


@pytest.mark.gpu
@needs_gpu
def test_more_than_2_31_elements_are_reached() -> None:
    """The rows of one head are 2**31 / 16,384 = 131,072 apart, and the last ones beyond that."""
    wide = torch.zeros(16_400, 1024, 128, dtype=torch.bfloat16, device="cuda")
    q = wide.transpose(0, 1)[None, :1]
    k, v = (torch.randn_like(q) for _ in range(2))
    q[:, :, -64:] = torch.randn(1, 1, 64, 128, device="cuda").bfloat16()

    out = flash_attention(q, k, v)

    expected = flash_attention(q[:, :, -64:].contiguous(), k, v)
    torch.testing.assert_close(out[:, :, -64:], expected, rtol=1e-2, atol=1e-3)


@pytest.mark.gpu
@needs_gpu
def test_a_cuda_graph_replays_it() -> None:
    q, k, v, _ = made((2, 4, 4, 256, 256, 64), torch.bfloat16)
    expected = flash_attention(q, k, v, True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = flash_attention(q, k, v, True)

    graph.replay()

    assert torch.equal(out, expected)

"""Gradients of attention by Hopper's own instructions: against float64, and what is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
import triton

from tests.kernels import assembler

hopper_backward = pytest.importorskip(
    "tracelens_kernels._attention.hopper_backward", reason="this Triton's Gluon is another"
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
needs_hopper = pytest.mark.skipif(not HOPPER, reason="needs an NVIDIA GPU of the Hopper generation")


def made(
    sizes: tuple[int, ...], dtype: torch.dtype = torch.bfloat16, device: str = "cuda"
) -> list[Tensor]:
    """q, k, v and do, of which every other head belongs to something else."""
    b, h, hkv, sq, sk, d = sizes
    generator = torch.Generator().manual_seed(0)
    shapes = ((h, sq), (hkv, sk), (hkv, sk), (h, sq))
    return [
        torch.randn(b, rows, 2 * heads, d, generator=generator)
        .to(device, dtype)
        .transpose(1, 2)[:, ::2]
        for heads, rows in shapes
    ]


def attended(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """What plain PyTorch gives, o and lse, in the format of the inputs; 0 where nothing is seen."""
    group = q.shape[1] // k.shape[1]
    s = q @ k.repeat_interleave(group, 1).transpose(-1, -2) * scale
    queries, keys = s.shape[-2:]
    if causal:
        seen = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
        s = s.masked_fill(~seen, float("-inf"))
    lse = s.logsumexp(-1)
    p = (s - lse[..., None]).exp().nan_to_num(0.0)
    return p @ v.repeat_interleave(group, 1), lse


def gradients(
    q: Tensor, k: Tensor, v: Tensor, do: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, ...]:
    needing = [one.detach().requires_grad_() for one in (q, k, v)]
    o, _ = attended(*needing, causal=causal, scale=scale)
    return tuple(one.nan_to_num(0.0) for one in torch.autograd.grad(o, needing, do))


def ours(
    q: Tensor, k: Tensor, v: Tensor, do: Tensor, *, causal: bool, scale: float
) -> tuple[Tensor, ...]:
    assert hopper_backward.why_not(q, k, v, causal=causal) == ""
    o, lse = attended(q.double(), k.double(), v.double(), causal=causal, scale=scale)
    found: tuple[Tensor, ...] = hopper_backward.backward(
        do, q, k, v, o.to(q.dtype), lse.float(), causal=causal, scale=scale
    )
    return found


def assert_as_good_as_torch(inputs: Iterable[Tensor], *, causal: bool, scale: float) -> None:
    q, k, v, do = inputs
    found = ours(q, k, v, do, causal=causal, scale=scale)
    torchs = gradients(q, k, v, do, causal=causal, scale=scale)
    exact = gradients(*(one.double() for one in (q, k, v, do)), causal=causal, scale=scale)
    floor = {torch.bfloat16: 4e-3, torch.float16: 5e-4}[q.dtype]
    for name, one, theirs, true in zip(("dq", "dk", "dv"), found, torchs, exact, strict=True):
        size = float(true.norm())
        error = float((one.double() - true).norm())
        allowed = max(2 * float((theirs.double() - true).norm()), floor * size, 1e-3)
        assert one.isfinite().all(), name
        assert error <= allowed, f"{name}: {error / size:.1e} of {size:.1e}"


SIZES = [  # (B, H, Hkv, Sq, Sk)
    (1, 2, 2, 128, 128), (2, 4, 4, 512, 512), (2, 3, 3, 1000, 1000), (1, 2, 2, 1, 1),
    (1, 4, 1, 300, 300), (1, 2, 1, 77, 513), (1, 2, 2, 513, 77), (1, 8, 2, 1024, 2048),
    (3, 2, 2, 64, 1000), (2, 5, 5, 129, 127), (1, 6, 2, 2048, 640), (70_000, 1, 1, 3, 5),
]  # fmt: skip


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("head_dim", hopper_backward.HEAD_DIMS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_gradients_are_as_good_as_torchs(
    sizes: tuple[int, ...], head_dim: int, dtype: torch.dtype, causal: bool
) -> None:
    inputs = made((*sizes, head_dim), dtype)

    assert_as_good_as_torch(inputs, causal=causal, scale=head_dim**-0.5)


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("head_dim", hopper_backward.HEAD_DIMS)
def test_large_scores_do_not_overflow(head_dim: int) -> None:
    inputs = made((1, 2, 2, 200, 333, head_dim))

    assert_as_good_as_torch(inputs, causal=True, scale=3.0)


@pytest.mark.gpu
@needs_hopper
def test_a_gradient_of_any_layout_is_taken() -> None:
    q, k, v, do = made((2, 3, 3, 200, 200, 64))
    layouts = [
        do.transpose(-1, -2).contiguous().transpose(-1, -2),
        do[:1, :1, :1, :1].expand_as(do),
        torch.nn.functional.pad(do, (1, 3))[..., 1:-3],
    ]
    for one in layouts:
        assert_as_good_as_torch((q, k, v, one), causal=False, scale=0.125)


@pytest.mark.gpu
@needs_hopper
@pytest.mark.parametrize("head_dim", hopper_backward.HEAD_DIMS)
def test_dk_and_dv_are_the_same_each_time(head_dim: int) -> None:
    inputs = made((2, 8, 2, 700, 900, head_dim))

    first, *others = (ours(*inputs, causal=True, scale=0.1) for _ in range(5))

    for other in others:
        assert torch.equal(first[1], other[1])
        assert torch.equal(first[2], other[2])
        assert (first[0] - other[0]).norm() <= 1e-2 * first[0].norm()


@pytest.mark.gpu
@needs_hopper
def test_a_stride_need_not_fit_32_bits() -> None:
    q, k, v, do = made((1, 2, 2, 200, 200, 64))
    near = ours(q, k, v, do, causal=False, scale=0.125)
    far = do.as_strided(do.shape, (2**36, *do.stride()[1:]))

    for one, other in zip(near, ours(q, k, v, far, causal=False, scale=0.125), strict=True):
        assert (one - other).norm() <= 1e-2 * one.norm()


@pytest.mark.gpu
@needs_hopper
def test_a_query_that_sees_no_key_gets_no_gradient() -> None:
    q, k, v, do = made((1, 2, 2, 300, 100, 128))

    dq, _, _ = ours(q, k, v, do, causal=True, scale=0.1)

    assert not dq[:, :, :200].any()
    assert dq[:, :, 201:].any(-1).all()


def test_a_cpu_is_refused() -> None:
    q, k, v, _ = made((1, 2, 2, 16, 16, 64), device="cpu")

    assert "compute capability 9.0" in hopper_backward.why_not(q, k, v, causal=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one.float(), "float32"),
        (lambda one: one[..., :32], "head dims"),
        (lambda one: torch.nn.functional.pad(one, (0, 1))[..., :-1], "TMA"),
        (lambda one: one.transpose(-1, -2).contiguous().transpose(-1, -2), "TMA"),
        (lambda one: one.flatten()[8:].as_strided((1, 2, 8, 64), (2048, 512, 64, 1), 1), "TMA"),
        (lambda one: one[:, :1].expand(1, 2, 16, 64), "TMA"),
        (lambda one: torch.empty(2**15, 2**10, 32, 64, dtype=one.dtype, device="meta"), "32 bits"),
    ],
    ids=["fp32", "head dim", "row of 65", "columns first", "odd address", "expanded", "rows"],
)
def test_what_it_cannot_do_has_a_reason(
    change: object, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hopper_backward._checks, "is_hopper", lambda _device: True)
    monkeypatch.setattr(hopper_backward._checks, "TRITON", triton.__version__)
    one = torch.zeros(1, 2, 16, 64, dtype=torch.bfloat16)
    assert hopper_backward.why_not(one, one, one, causal=True) == ""
    assert callable(change)
    changed = change(one)

    assert reason in hopper_backward.why_not(changed, changed, changed, causal=True)


def test_rows_that_see_nothing_or_are_none_get_no_weight(device: str) -> None:
    """What `_prepare` makes for the main kernel: lse to base 2 and delta, and zeros for dq."""
    o, do = (one.half() for one in torch.randn(2, 2, 3, 100, 64, device=device))
    lse = torch.randn(2, 3, 100, device=device)
    lse[0, 0, 3] = float("-inf")
    sums = torch.full((12 * 64 * 64,), 7.0, device=device)
    rows = torch.full((2, 3, 2, 2, 64), 7.0, device=device)

    strides = hopper_backward._eighths(o)
    hopper_backward._prepare[12, 1, 1](
        o, do, lse, rows, sums, 100, 2, 3, *strides, *strides, 64, 64
    )  # fmt: skip

    logs, deltas = rows.transpose(2, 3).reshape(2, 3, 2, 128).unbind(2)
    delta = (o.float() * do.float()).sum(-1)
    delta[0, 0, 3] = 0
    assert not sums.any()
    assert not deltas[..., 100:].any()
    torch.testing.assert_close(deltas[..., :100], delta, rtol=1e-4, atol=1e-4)
    assert (logs[..., 100:] == float("inf")).all()
    assert logs[0, 0, 3] == float("inf")
    seen = lse.isfinite()
    torch.testing.assert_close(logs[..., :100][seen], lse[seen] / math.log(2))


def test_another_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hopper_backward._checks, "is_hopper", lambda _device: True)
    monkeypatch.setattr(hopper_backward._checks, "TRITON", "2.1.")
    q, k, v, _ = made((1, 2, 2, 16, 16, 64), device="cpu")

    assert "Triton 2.1.x" in hopper_backward.why_not(q, k, v, causal=False)


def test_heads_that_go_together_divide_all_heads() -> None:
    assert hopper_backward._at_once(16, 16384 * 64) == 4
    assert hopper_backward._at_once(6, 512 * 64) == 6
    assert hopper_backward._at_once(7, 16384 * 64) == 1
    assert hopper_backward._at_once(5, 2**30) == 1


COMPILED = """
import subprocess, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import compile
from triton.experimental.gluon._runtime import GluonASTSource
from tracelens_kernels._attention import hopper_backward as module

def described(tile, layout, dtype):
    return f"tensordesc<{dtype}[{', '.join(map(str, tile))}],{layout!r}>"

for head_dim in module.HEAD_DIMS:
    config = module.config_of(head_dim, module.torch.bfloat16, causal=True)
    few, many = [1, 1, config["BLOCK_M"], head_dim], [1, 1, 128, head_dim]
    signature = {name: described(few, module._TILE, "bf16") for name in ("q_desc", "do_desc")}
    for name in ("k_desc", "v_desc", "dk_desc", "dv_desc"):
        signature[name] = described(many, module._TILE, "bf16")
    signature["rows_desc"] = described([2 * config["BLOCK_M"]], module._ROW, "fp32")
    signature |= {"sums_ptr": "*fp32", "scale": "fp32", "scale_log2": "fp32"}
    constants = dict(config, CAUSAL=True, GROUP=1, BLOCK_N=128, D=head_dim, REGISTERS=24)
    names = module._gradients.arg_names
    signature |= {name: "i32" for name in names if name not in signature | constants}
    signature |= {name: "constexpr" for name in constants}
    source = GluonASTSource(
        module._gradients,
        {name: signature[name] for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index("sums_ptr"),): [["tt.divisibility", 16]]},
    )
    compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
"""


@assembler.NEEDS_TRITON
def test_it_compiles_without_products_that_wait_for_each_other(tmp_path: Path) -> None:
    said = assembler.says(COMPILED, tmp_path)

    assert said.count("Used 168 registers") == 2
    assert assembler.WAITING not in said, said

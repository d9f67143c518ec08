"""The matrix product, against float64, in every layout and format, and its refusals."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st
from tracelens_kernels import _configs, matmul, scaled_matmul
from tracelens_kernels._gemm import paths, quick
from tracelens_kernels.ops.matmul import KERNEL

from tests.kernels import assembler
from tracelens.kernel import parse_shape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings(  # of the interpreter, for a loop of unknown length
    "ignore:Conversion of an array with ndim:DeprecationWarning"
)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
FP8 = torch.float8_e4m3fn
IRREGULAR = (37, 70, 50)


def random(
    *shape: int, device: str, dtype: torch.dtype = torch.float16, seed: int = 0
) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def error(out: torch.Tensor, reference: torch.Tensor) -> float:
    return float((out.double() - reference).norm() / reference.norm())


def assert_as_good_as_torch(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    reference = a.double() @ b.double()
    assert error(out, reference) <= 2 * error(a @ b, reference) + 1e-7


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [IRREGULAR, (1, 1, 1), (128, 128, 64), (5, 300, 17)])
def test_a_product_is_as_good_as_torchs(
    shape: tuple[int, int, int], dtype: torch.dtype, device: str
) -> None:
    m, n, k = shape
    a, b = (
        random(m, k, device=device, dtype=dtype),
        random(k, n, device=device, dtype=dtype, seed=1),
    )

    assert_as_good_as_torch(matmul(a, b), a, b)


@settings(deadline=None, max_examples=12)
@given(
    st.tuples(*[st.integers(1, 80)] * 3), st.sampled_from(["rows", "columns", "every other"]),
    st.sampled_from(["rows", "columns", "every other"]),
)  # fmt: skip
def test_operands_have_any_strides(shape: tuple[int, int, int], left: str, right: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    m, n, k = shape

    def laid_out(rows: int, columns: int, how: str, seed: int) -> torch.Tensor:
        if how == "columns":
            return random(columns, rows, device=device, seed=seed).t()
        if how == "every other":
            return random(2 * rows, 3 * columns, device=device, seed=seed)[::2, ::3]
        return random(rows, columns, device=device, seed=seed)

    a, b = laid_out(m, k, left, 0), laid_out(k, n, right, 1)

    assert_as_good_as_torch(matmul(a, b), a, b)


def test_leading_axes_stay_and_a_bias_is_added_before_rounding(device: str) -> None:
    a, b, bias = (
        random(2, 3, 40, device=device),
        random(40, 20, device=device),
        random(20, device=device),
    )

    out = matmul(a, b, bias=bias, out_dtype=torch.float32)

    assert out.shape == (2, 3, 20)
    assert out.dtype == torch.float32
    assert error(out, a.double() @ b.double() + bias.double()) < 1e-6


def test_gradients_are_those_of_float64(device: str) -> None:
    a, b, bias = (
        random(*shape, device=device, dtype=torch.float32) for shape in [(9, 33), (33, 21), (21,)]
    )
    grad = random(21, 9, device=device, dtype=torch.float32).t()
    ours = [one.clone().requires_grad_() for one in (a, b, bias)]
    exact = [one.double().requires_grad_() for one in (a, b, bias)]

    matmul(ours[0], ours[1], bias=ours[2]).backward(grad)
    (exact[0] @ exact[1] + exact[2]).backward(grad.double())

    for mine, true in zip(ours, exact, strict=True):
        assert error(mine.grad, true.grad) < 1e-6


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("layout", ["as weight.t()", "as it is"])
def test_fp8_is_scaled_by_row_and_column(layout: str, fast: bool, device: str) -> None:
    m, n, k = IRREGULAR
    a = random(m, k, device=device).to(FP8)
    b = random(n, k, device=device).to(FP8).t()
    b = b if layout == "as weight.t()" else b.contiguous()
    scale_a = random(m, 1, device=device, dtype=torch.float32).abs()
    scale_b = random(1, n, device=device, dtype=torch.float32).abs()

    out = scaled_matmul(a, b, scale_a, scale_b, out_dtype=torch.float32, fast_accum=fast)

    reference = (a.double() * scale_a.double()) @ (b.double() * scale_b.double())
    assert error(out, reference) < (2e-3 if device == "cuda" else 1e-6)


def test_one_scale_may_hold_for_a_whole_operand(device: str) -> None:
    a, b = random(16, 32, device=device).to(FP8), random(16, 32, device=device).to(FP8).t()
    half = torch.tensor(0.5, device=device)

    out = scaled_matmul(a, b, half, half[None, None], out_dtype=torch.float32)

    assert error(out, a.double() @ b.double() / 4) < (2e-3 if device == "cuda" else 1e-6)


@pytest.mark.parametrize(
    ("a", "b", "what"),
    [
        (torch.ones(2, 3), torch.ones(4, 5), ValueError),
        (torch.ones(3), torch.ones(3, 5), ValueError),
        (torch.ones(2, 0), torch.ones(0, 5), ValueError),
        (torch.ones(2, 3), torch.ones(3, 5).half(), TypeError),
        (torch.ones(2, 3).int(), torch.ones(3, 5).int(), TypeError),
        (torch.ones(2, 3, device="meta"), torch.ones(3, 5, device="meta"), ValueError),
        (torch.ones(2, 3), torch.ones(3, 5, device="meta"), ValueError),
    ],
)
def test_what_cannot_be_multiplied_is_refused(
    a: torch.Tensor, b: torch.Tensor, what: type[Exception], device: str
) -> None:
    a, b = (one.to(device) if one.device.type == "cpu" else one for one in (a, b))

    with pytest.raises(what):
        matmul(a, b)


def test_scales_and_bias_must_fit(device: str) -> None:
    a, b = torch.ones(4, 8, device=device), torch.ones(8, 6, device=device)
    one = torch.ones(1, device=device)

    with pytest.raises(ValueError, match="bias"):
        matmul(a, b, bias=torch.ones(5, device=device))
    with pytest.raises(TypeError, match="out_dtype"):
        matmul(a, b, out_dtype=torch.int32)
    with pytest.raises(ValueError, match="scale_a"):
        scaled_matmul(a.to(FP8), b.to(FP8), torch.ones(3, 1, device=device), one)
    with pytest.raises(TypeError, match="a is float32"):
        scaled_matmul(a, b, one, one)


@pytest.mark.parametrize("dtype", ["fp16", "fp8"])
@pytest.mark.parametrize("operation", ["forward", "backward"])
def test_the_bench_can_check_it(operation: str, dtype: str, device: str) -> None:
    shape = parse_shape(KERNEL, "33x48x64")
    case = KERNEL.operations[operation]
    ours = case.implementations["tracelens"]
    if (operation, dtype) == ("backward", "fp8"):
        assert ours.why_not(shape, dtype)
        return
    inputs = case.inputs(shape, dtype, device, 0)
    reference = case.reference(inputs, shape)

    outs = ours.build(inputs, shape)()

    assert outs.keys() == reference.keys()
    for name, out in outs.items():
        assert error(out, reference[name]) < case.tolerance[dtype]
    assert case.work(shape, dtype).flops == 2 * 33 * 48 * 64 * len(outs)


class Recorded:
    """Stands for a kernel: notes what it is launched with, by the names of its arguments."""

    def __init__(self, kernel: Any) -> None:
        self.signature = inspect.signature(kernel.fn)
        self.launches: list[tuple[Any, dict[str, Any]]] = []

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, num_warps: int = 4, **constants: Any) -> Recorded:
            bound = self.signature.bind(*args, **constants)
            self.launches.append((grid, dict(bound.arguments)))
            return self

        return launch


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    from tracelens_kernels._gemm import hopper, launch

    kernel = Recorded(hopper.product)
    monkeypatch.setattr(hopper, "product", kernel)
    monkeypatch.setattr(launch, "_launches", {})
    monkeypatch.setattr(launch, "_multiprocessors", lambda _: 132)
    monkeypatch.setattr(paths, "by_tma", lambda *_: True)
    paths.default.cache_clear()
    yield kernel
    paths.default.cache_clear()


def test_the_kernel_for_hopper_is_launched_as_it_was_the_first_time(
    recorded: Recorded, device: str
) -> None:
    memory = random(4096 * 2048 + 8, device=device)
    b = random(1024, 2048, device=device).t()
    for start in (0, 0, 8, 1):  # of the last, TMA reads a copy
        matmul(memory[start : start + 4096 * 2048].view(4096, 2048), b)

    first, *others = recorded.launches
    grid, given = first
    assert grid == (32 * 4, 1, 1)
    assert (given["M"], given["N"], given["K"], given["groups"]) == (4096, 1024, 2048, 0)
    assert (given["A_TURNED"], given["B_TURNED"], given["BLOCK_M"]) == (False, True, 128)
    assert given["a_desc"].block_shape == [64, 64]
    assert given["b_desc"].block_shape == [256, 64]
    assert given["out_desc"].block_shape == [64, 128]
    for grid, again in others:
        assert grid == first[0]
        for name, value in given.items():
            if not name.endswith(("_desc", "_ptr")):
                assert again[name] == value
    assert [type(one["a_desc"]).__name__ for _, one in recorded.launches] == [
        "TensorDescriptor", "_Blocks", "_Blocks", "_Blocks",
    ]  # fmt: skip


def test_other_formats_are_another_launch(recorded: Recorded, device: str) -> None:
    a, b = random(64, 32, device=device).to(FP8), random(64, 32, device=device).to(FP8).t()
    one = torch.ones((), device=device)

    for right in (b, b, b.to(torch.float8_e5m2)):
        scaled_matmul(a, right, one, one)

    assert [type(given["b_desc"]).__name__ for _, given in recorded.launches] == [
        "TensorDescriptor", "_Blocks", "TensorDescriptor",
    ]  # fmt: skip


def test_what_was_compiled_runs_again_with_all_arguments_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[Any, ...]] = []

    class Kernel:
        arg_names = ("x_ptr", "size", "BLOCK")

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            def first(*args: Any, **constants: Any) -> dict[tuple[int, ...], Any]:
                calls.append(("compiled", grid, *args, *constants.items()))
                return {(*grid, 1, 1): lambda *again: calls.append(("again", *again))}

            return first

    monkeypatch.setattr(quick._checks, "interpreted", lambda: False)
    monkeypatch.setattr(quick._checks, "TRITON", triton.__version__)
    kernel, x = Kernel(), torch.ones(64)
    constants = {"BLOCK": 8, "num_warps": 4}

    for tensor, size in ((x, 64), (x, 64), (x[1:], 64), (x, 63), (x + 1, 64)):
        quick.launch(kernel, (7,), (tensor, size), constants)

    assert [call[0] for call in calls] == ["compiled", "again", "compiled", "compiled", "again"]
    assert calls[0][1:] == ((7,), x, 64, ("BLOCK", 8), ("num_warps", 4))
    assert calls[1][1:] == (x, 64, 8)

    monkeypatch.setattr(quick._checks, "TRITON", "1.0.")
    quick.launch(kernel, (7,), (x, 64), constants)

    assert calls[-1] == calls[0]  # a Triton that is not known launches by itself


COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import compile
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource
from tracelens_kernels._gemm import gated, hopper

FORMS = {"bf16": gl.bfloat16, "fp8e4nv": gl.float8e4nv}

def blocks(form, *shape):
    layout = gl.NVMMASharedLayout.get_default_for(list(shape), FORMS[form])
    return f"tensordesc<{form}{list(shape)},{layout!r}>"

def build(kernel, signature, constants):
    names = kernel.arg_names
    types = {n: "constexpr" if n in constants else signature.get(n, "i32") for n in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = GluonASTSource(kernel, types, values, {})
    compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})

tile = dict(CONSUMERS=2, BLOCK_M=128, GROUP_M=8)
build(
    hopper.product,
    dict(a_desc=blocks("bf16", 64, 64), b_desc=blocks("bf16", 1, 256, 64),
         out_desc=blocks("bf16", 64, 128), out_ptr="*bf16", offsets_ptr="*i32"),
    dict(bias_ptr=None, scale_a_ptr=None, scale_b_ptr=None, KIND=1, A_TURNED=False, B_TURNED=True,
         PROMOTE=False, SPLIT=2, STAGES=4, BLOCK_N=256, BLOCK_K=64, **tile),
)
build(
    hopper.product,
    dict(a_desc=blocks("fp8e4nv", 64, 256), b_desc=blocks("fp8e4nv", 128, 256), out_ptr="*bf16",
         scale_a_ptr="*fp32", scale_b_ptr="*fp32", bias_ptr="*bf16"),
    dict(out_desc=None, offsets_ptr=None, KIND=0, A_TURNED=False, B_TURNED=True,
         PROMOTE=True, SPLIT=1, STAGES=3, BLOCK_N=128, BLOCK_K=256, **tile),
)
out = dict.fromkeys(("hidden_desc", "gates_desc", "ups_desc"), blocks("bf16", 64, 128))
build(
    gated.product,
    dict(x_desc=blocks("bf16", 64, 64), gate_desc=blocks("bf16", 1, 64, 128),
         up_desc=blocks("bf16", 1, 64, 128), hidden_ptr="*bf16", gates_ptr="*bf16",
         ups_ptr="*bf16", offsets_ptr="*i32", **out),
    dict(SAVE=True, TURNED=False, STAGES=4, BLOCK_N=128, BLOCK_K=64, **tile),
)
"""


@assembler.NEEDS_TRITON
def test_the_kernels_for_hopper_compile_without_products_that_wait(tmp_path: Path) -> None:
    said = assembler.says(COMPILED, tmp_path)

    assert said.count("Used 168 registers") == 3
    assert assembler.WAITING not in said, said


GPU_SHAPES = [(1, 8, 8), (300, 520, 136), (129, 1032, 72), (16, 4096, 1024), (1823, 781, 333)]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("left", ["rows", "columns"])
@pytest.mark.parametrize("right", ["rows", "columns"])
@pytest.mark.parametrize("shape", [*GPU_SHAPES, (4095, 4097, 1000)], ids=str)
def test_every_tile_on_a_gpu_is_as_good_as_torch(
    shape: tuple[int, int, int], left: str, right: str
) -> None:
    dtype = torch.bfloat16
    m, n, k = shape
    a = random(m, k, device="cuda", dtype=dtype)
    b = random(k, n, device="cuda", dtype=dtype, seed=1)
    a = a if left == "rows" else a.t().contiguous().t()
    b = b if right == "rows" else b.t().contiguous().t()
    bias = random(n, device="cuda", dtype=dtype, seed=2)
    reference = a.double() @ b.double() + bias.double()
    allowed = 2 * error(torch.addmm(bias, a, b), reference)

    for config in paths.coarse(m, dtype, a.device):
        with _configs.forced("matmul", "forward", config):
            assert error(matmul(a, b, bias=bias), reference) <= allowed, config
    exact = matmul(a, b, bias=bias, out_dtype=torch.float32)
    assert error(exact, reference) < 1e-5


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("shape", [(1, 16, 16), (300, 528, 144), (2048, 2048, 4096)], ids=str)
def test_fp8_on_a_gpu_is_as_good_as_torchs(shape: tuple[int, int, int], fast: bool) -> None:
    m, n, k = shape
    a = random(m, k, device="cuda").to(FP8)
    b = random(n, k, device="cuda", seed=1).to(FP8).t()
    scale_a, scale_b = torch.rand(m, 1, device="cuda") + 0.5, torch.rand(1, n, device="cuda") + 0.5
    reference = (a.double() * scale_a) @ (b.double() * scale_b)
    theirs = torch._scaled_mm(a, b, scale_a, scale_b, out_dtype=torch.bfloat16, use_fast_accum=fast)

    out = scaled_matmul(a, b, scale_a, scale_b, fast_accum=fast)
    sums = scaled_matmul(a, b, scale_a, scale_b, fast_accum=fast, out_dtype=torch.float32)

    assert error(out, reference) <= 2 * error(theirs, reference)
    assert error(sums, reference) < (2e-3 if fast else 2e-4)


@pytest.mark.gpu
@needs_gpu
def test_more_than_2_31_elements_are_reached() -> None:
    a = random(65_536, 16, device="cuda", dtype=torch.bfloat16)
    b = random(16, 37_888, device="cuda", dtype=torch.bfloat16)

    out = matmul(a, b)

    assert out.numel() > 2**31
    assert error(out[-300:], a[-300:].double() @ b.double()) < 4e-3


@pytest.mark.gpu
@needs_gpu
def test_a_call_again_with_other_memory_is_right() -> None:
    """Launches are kept by sizes, not by addresses, and alignment is part of them."""
    memory = random(300 * 264 + 8, device="cuda", dtype=torch.bfloat16)
    b = random(264, 128, device="cuda", dtype=torch.bfloat16)

    for start in (0, 8, 1, 0, 4):
        a = memory[start : start + 300 * 264].view(300, 264)
        assert_as_good_as_torch(matmul(a, b), a, b)

"""What calls of PyTorch's ops cost, held against PyTorch itself: its tensors and FLOP counter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (as everybody calls it)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests import torch_calls
from tracelens.links import flops as flop_formulas
from tracelens.links.op_costs import OpCost, element_of, has_formula, op_cost, product_format

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

X = torch.randn(4, 8, 16)
Y = torch.randn(4, 8, 16)
ROW = torch.randn(16)
HALF = X.bfloat16()
MASK = X > 0
INDEX = torch.tensor([0, 3, 3, 1, 2])
ONE_READ = {
    "add": lambda: X + Y,
    "add, broadcast": lambda: X + ROW,
    "add, expanded": lambda: X + ROW.expand(4, 8, 16),
    "add, a number": lambda: X + 2.5,
    "add, types": lambda: X + HALF,
    "add, integers": lambda: INDEX + INDEX.int(),
    "mul": lambda: X * Y,
    "mul, one tensor": lambda: X * X,
    "div": lambda: X / ROW,
    "div, integers": lambda: torch.div(INDEX, 3),
    "pow": lambda: X.pow(2),
    "sub": lambda: X - Y,
    "neg": lambda: -X,
    "exp": X.exp,
    "sqrt, integers": INDEX.sqrt,
    "rsqrt": lambda: X.abs().rsqrt(),
    "tanh": HALF.tanh,
    "sigmoid": X.sigmoid,
    "gt": lambda: X.gt(Y),
    "eq": lambda: X.eq(1.0),
    "logical_and": lambda: torch.logical_and(MASK, MASK[0]),
    "where": lambda: torch.where(MASK, X, Y),
    "masked_fill": lambda: X.masked_fill(MASK, 1.0),
    "clamp": lambda: X.clamp(-1, 1),
    "addcmul": lambda: torch.addcmul(X, Y, ROW),
    "addcdiv": lambda: torch.addcdiv(X, Y, ROW),
    "lerp": lambda: torch.lerp(X, Y, 0.3),
    "maximum": lambda: torch.maximum(X, Y),
    "gelu": lambda: F.gelu(HALF),
    "silu": lambda: F.silu(X),
    "relu": lambda: F.relu(X),
    "triu": X.triu,
    "add_": lambda: X.clone().add_(Y),
    "mul_": lambda: X.clone().mul_(0.5),
    "addcmul_": lambda: X.clone().addcmul_(Y, ROW),
    "lerp_": lambda: X.clone().lerp_(Y, 0.5),
    "masked_fill_": lambda: X.clone().masked_fill_(MASK[0], 0.0),
    "sum": lambda: X.sum((0, 1)),
    "sum, last": lambda: X.sum(-1, keepdim=True),
    "sum, all": X.sum,
    "sum, integers": lambda: INDEX.int()[None].sum(0),
    "mean": lambda: HALF.mean(1),
    "amax": lambda: X.amax((1, 2)),
    "amax, integers": lambda: INDEX.int()[None].amax(0),
    "argmax": lambda: X.argmax(-1),
    "max": lambda: X.max(1),
    "max, all": X.max,
    "any": lambda: MASK.any(0),
    "var": lambda: X.var(1),
    "var_mean": lambda: torch.var_mean(X, (0, 2)),
    "linalg_vector_norm": lambda: torch.linalg.vector_norm(X, dim=1),
    "_softmax": lambda: X.softmax(-1),
    "_softmax, half": lambda: HALF.softmax(0),
    "_log_softmax": lambda: X.log_softmax(1),
    "native_layer_norm": lambda: F.layer_norm(X, (16,), ROW, ROW),
    "native_layer_norm, two axes": lambda: F.layer_norm(X, (8, 16)),
    "native_group_norm": lambda: F.group_norm(X, 2, torch.ones(8), torch.ones(8)),
    "native_batch_norm": lambda: F.batch_norm(
        X, torch.zeros(8), torch.ones(8), ROW[:8].clone(), ROW[:8].clone(), training=True
    ),
    "native_dropout": lambda: torch.native_dropout(X, 0.5, True),
    "mm": lambda: X[0] @ Y[0].T,
    "mm, half": lambda: HALF[0] @ HALF[0].T,
    "mm, out": lambda: torch.mm(X[0], Y[0].T, out=torch.empty(8, 8)),
    "bmm": lambda: X @ Y.mT,
    "mv": lambda: X[0] @ ROW,
    "addmm": lambda: torch.addmm(ROW[:8], X[0], Y[0].T),
    "addmm, full": lambda: torch.addmm(torch.ones(8, 8), X[0], Y[0].T),
    "addmm_": lambda: torch.ones(8, 8).addmm_(X[0], Y[0].T),
    "baddbmm": lambda: torch.baddbmm(torch.ones(4, 8, 8), X, Y.mT),
    "_int_mm": lambda: torch._int_mm(
        torch.ones(32, 16, dtype=torch.int8), torch.ones(16, 8, dtype=torch.int8)
    ),
    "convolution": lambda: torch.convolution(
        torch.ones(2, 4, 9, 7), torch.ones(6, 2, 3, 3), torch.ones(6), (2, 1), (1, 0), (1, 2),
        False, (0, 0), 2,
    ),
    "convolution, transposed": lambda: torch.convolution(
        torch.ones(2, 4, 9, 7), torch.ones(4, 6, 3, 3), None, (2, 2), (1, 1), (1, 1),
        True, (1, 0), 2,
    ),
    "cat": lambda: torch.cat([X, Y]),
    "_foreach_add": lambda: torch._foreach_add([X, ROW], 1.0),
    "_foreach_add_": lambda: torch._foreach_add_([X.clone(), ROW.clone()], [Y, ROW]),
    "_foreach_addcmul_": lambda: torch._foreach_addcmul_([X.clone()], [Y], [X], 0.5),
    "_foreach_lerp_": lambda: torch._foreach_lerp_([X.clone()], [Y], 0.5),
    "_foreach_sqrt": lambda: torch._foreach_sqrt([X, ROW]),
}  # fmt: skip
"""Op -> a program with it, which reads every tensor that it is given and writes those it gives."""


def program_of(case: str) -> tuple[str, Callable[[], object]]:
    return f"aten::{case.partition(',')[0]}", ONE_READ[case]


@pytest.mark.parametrize("case", ONE_READ)
def test_an_op_reads_what_it_is_given_once_and_writes_what_it_gives_once(
    case: str, tmp_path: Path
) -> None:
    name, program = program_of(case)

    found = torch_calls.both(program, tmp_path, name, element="float32")

    assert found
    for cost, call in found:
        # mm.out is given the tensor that it gives, and does not read it.
        given_result = call.written if ", out" in case else 0
        assert cost is not None
        assert cost.bytes == call.read - given_result + call.written


OVERWRITTEN: dict[str, Callable[[], object]] = {
    "copy_": lambda: torch.empty(4, 8, 16, dtype=torch.bfloat16).copy_(X),
    "copy_, broadcast": lambda: torch.empty(4, 8, 16).copy_(ROW),
    "fill_": lambda: torch.empty(4, 8).fill_(1.0),
    "zero_": lambda: torch.empty(4, 8).zero_(),
    "uniform_": lambda: torch.empty(4, 8).uniform_(),
    "_foreach_zero_": lambda: torch._foreach_zero_([X.clone(), ROW.clone()]),
    "_foreach_copy_": lambda: torch._foreach_copy_([X.clone(), ROW.clone()], [Y, ROW]),
}


@pytest.mark.parametrize("case", OVERWRITTEN)
def test_what_an_op_overwrites_is_not_read(case: str, tmp_path: Path) -> None:
    name = f"aten::{case.partition(',')[0]}"

    found = torch_calls.both(OVERWRITTEN[case], tmp_path, name, element="float32")

    assert found
    for cost, call in found:
        assert cost is not None
        assert cost.bytes == call.read  # target and source, of which the target is written


BACKWARD: dict[str, Callable[[], torch.Tensor]] = {
    "gelu_backward": lambda: F.gelu(leaf(X)),
    "silu_backward": lambda: F.silu(leaf(X)),
    "threshold_backward": lambda: F.relu(leaf(X)),
    "sigmoid_backward": lambda: leaf(X).sigmoid(),
    "tanh_backward": lambda: leaf(X).tanh(),
    "_softmax_backward_data": lambda: leaf(HALF).softmax(-1),
    "_softmax_backward_data, wider": lambda: leaf(X).softmax(-1),
    "_log_softmax_backward_data": lambda: leaf(X).log_softmax(-1),
    "native_layer_norm_backward": lambda: F.layer_norm(leaf(X), (16,), leaf(ROW), leaf(ROW)),
    "native_layer_norm_backward, of the input": lambda: F.layer_norm(leaf(X), (16,), ROW, ROW),
    "native_layer_norm_backward, bare": lambda: F.layer_norm(leaf(X), (16,)),
    "native_group_norm_backward": lambda: F.group_norm(
        leaf(X), 2, leaf(torch.ones(8)), leaf(torch.ones(8))
    ),
    "native_batch_norm_backward": lambda: F.batch_norm(
        leaf(X), torch.zeros(8), torch.ones(8), leaf(ROW[:8]), leaf(ROW[:8]), training=True
    ),
    "native_dropout_backward": lambda: torch.native_dropout(leaf(X), 0.5, True)[0],
    "convolution_backward": lambda: F.conv2d(
        leaf(torch.ones(2, 4, 9, 7)), leaf(torch.ones(6, 2, 3, 3)), leaf(torch.ones(6)), groups=2
    ),
    "convolution_backward, of the weight": lambda: F.conv1d(
        torch.ones(2, 4, 9), leaf(torch.ones(6, 4, 3))
    ),
}


def leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone().requires_grad_()


@pytest.mark.parametrize("case", BACKWARD)
def test_gradients_are_computed_of_what_is_given_and_only_those_that_are_asked_for(
    case: str, tmp_path: Path
) -> None:
    name, forward = f"aten::{case.partition(',')[0]}", BACKWARD[case]

    def program() -> None:
        made = forward()
        made.backward(torch.ones_like(made))

    found = torch_calls.both(program, tmp_path, name)

    assert found
    for cost, call in found:
        assert cost is not None
        assert cost.bytes == call.read + call.written


def attention(kind: str, *, causal: bool) -> Callable[[], object]:
    """Return a program with attention on tensors without memory, forward and backward."""
    q, k, v = (torch.empty(2, 3, size, 64, device="meta", dtype=torch.bfloat16, requires_grad=True)
               for size in (32, 32, 32))  # fmt: skip
    ops = torch.ops.aten

    def program() -> None:
        if kind == "flash":
            out = ops._scaled_dot_product_flash_attention(q, k, v, 0.0, causal)[0]
        elif kind == "efficient":
            out = ops._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, causal)[0]
        else:
            out = ops._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, causal)[0]
        out.backward(torch.ones_like(out))

    return program


@pytest.mark.parametrize("kind", ["flash", "efficient", "cudnn"])
def test_attention_reads_and_writes_its_matrices_and_counts_as_torch_counts(
    kind: str, tmp_path: Path
) -> None:
    name = f"aten::_scaled_dot_product_{kind}_attention"
    program = attention(kind, causal=False)
    pairs = 2 * 3 * 32 * 32 * 64
    matrix, sums = 2 * 3 * 32 * 64 * 2, 2 * 3 * 32 * 4
    state = 16 if kind == "flash" else 0  # of random numbers

    said = dict(torch_calls.costs(program, tmp_path))
    forward, backward = said[name], said[f"{name}_backward"]

    assert forward is not None
    assert backward is not None
    assert forward.bytes == 4 * matrix + sums
    assert backward.bytes == 8 * matrix + sums + state
    assert (forward.flops, backward.flops) == (4 * pairs, 10 * pairs)
    with FlopCounterMode(display=False) as counter:
        program()
    assert counter.get_total_flops() == forward.flops + backward.flops


@pytest.mark.parametrize("kind", ["flash", "efficient", "cudnn"])
def test_a_causal_mask_halves_the_products_and_that_is_said(kind: str, tmp_path: Path) -> None:
    name = f"aten::_scaled_dot_product_{kind}_attention"

    said = dict(torch_calls.costs(attention(kind, causal=True), tmp_path))

    for op, of_a_pair in ((name, 4), (f"{name}_backward", 10)):
        cost = said[op]
        assert cost is not None
        assert cost.causal
        assert cost.flops == of_a_pair * 64 * 2 * 3 * (32 * 33 // 2)


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_causal_query_meets_the_keys_up_to_its_own_place(queries: int, keys: int) -> None:
    mask = torch.ones(queries, keys).tril()
    dims = json.dumps([[1, 1, queries, 8], [1, 1, keys, 8], [1, 1, keys, 8]])
    inputs = json.dumps(["", "", "", "", "0", "True"])

    cost = op_cost(
        "aten::scaled_dot_product_attention", dims, json.dumps(["float"] * 3 + [""] * 3), inputs
    )

    assert cost is None or cost.flops == 4 * 8 * int(mask.sum())
    whole = flop_formulas.causal_share("aten::scaled_dot_product_attention", dims, inputs)
    assert whole * queries * keys == int(mask.sum())


def test_the_places_of_causal_flags_are_those_of_torchs_schemas() -> None:
    for name, place in flop_formulas._CAUSAL.items():
        arguments = getattr(torch.ops.aten, name.removeprefix("aten::")).default._schema.arguments
        assert arguments[place].name in ("is_causal", "custom_mask_type"), name


def test_grouped_products_count_every_row_once() -> None:
    bf16 = json.dumps(["c10::BFloat16", "c10::BFloat16", "int", "", ""])
    rows, groups = [[96, 64], [3, 64, 32], [3], [], []], [[64, 96], [96, 32], [3], [], []]

    by_rows = op_cost("aten::_grouped_mm", json.dumps(rows), bf16, None)
    by_inner = op_cost("aten::_grouped_mm", json.dumps(groups), bf16, None)

    assert by_rows is not None
    assert by_inner is not None
    assert by_rows.flops == 2 * 96 * 64 * 32
    assert by_rows.bytes == 2 * (96 * 64 + 3 * 64 * 32 + 96 * 32) + 3 * 4
    assert by_inner.flops == 2 * 64 * 96 * 32
    assert by_inner.bytes == 2 * (64 * 96 + 96 * 32 + 3 * 64 * 32) + 3 * 4


def test_a_product_of_eight_bits_gives_what_it_is_asked_for() -> None:
    types = json.dumps(["c10::Float8_e4m3fn"] * 2 + ["float"] * 2 + ["", "", "Scalar", "Scalar"])
    dims = json.dumps([[32, 64], [64, 16], [32, 1], [1, 16], [], [], [], []])
    given = 32 * 64 + 64 * 16 + (32 + 16) * 4

    asked = op_cost("aten::_scaled_mm", dims, types, json.dumps([""] * 6 + ["6", "False"]))
    silent = op_cost("aten::_scaled_mm", dims, types, None)

    assert asked is not None
    assert silent is not None
    assert asked.bytes == given + 32 * 16 * 4
    assert silent.bytes == given + 32 * 16 * 2


class Block(nn.Module):
    """A block of a small transformer."""

    def __init__(self, *, sdpa: bool) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32))
        self.sdpa = sdpa

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            part.view(2, 10, 4, 8).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1)
        )
        if self.sdpa:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.mT / 8**0.5).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(2, 10, 32))
        return x + self.mlp(x)


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2),
        nn.ConvTranspose2d(16, 4, 2), nn.Flatten(), nn.LazyLinear(5),
    )  # fmt: skip


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "transformer": (lambda: Block(sdpa=False), (2, 10, 32)),
    "sdpa": (lambda: Block(sdpa=True), (2, 10, 32)),
    "convolutions": (convolutions, (2, 3, 12, 12)),
    "rnn": (lambda: nn.GRU(6, 7), (5, 3, 6)),
}


@pytest.mark.parametrize("model", MODELS)
def test_products_of_a_model_are_those_that_torchs_flop_counter_counts(
    model: str, tmp_path: Path
) -> None:
    make, shape = MODELS[model]
    made, x = make(), torch.randn(*shape)
    made(x)  # lazy layers get their sizes

    def program() -> None:
        out = made(x)
        (out[0] if isinstance(out, tuple) else out).sum().backward()

    with FlopCounterMode(display=False) as counter:
        program()
    ops = torch_calls.costs(program, tmp_path)

    leaves = {
        name: [cost.flops or 0 for op, cost in ops if op == name and cost is not None]
        for name in {op for op, _ in ops if is_leaf(op, ops)}
    }
    # What attention does on the CPU torch's counter does not know.
    pairs = 2 * 4 * 10 * 10 * 8
    flash = "aten::_scaled_dot_product_flash_attention_for_cpu"
    if model == "sdpa":
        assert leaves.pop(flash) == [4 * pairs]
        assert leaves.pop(f"{flash}_backward") == [10 * pairs]
    assert sum(map(sum, leaves.values())) == counter.get_total_flops() > 0


COMPOSITES = ("aten::linear", "aten::convolution", "aten::_convolution", "aten::matmul",
              "aten::scaled_dot_product_attention")  # fmt: skip


def is_leaf(name: str, ops: list[tuple[str, OpCost | None]]) -> bool:
    """Tell the products that no other op does for them, in these models on the CPU."""
    if name not in flop_formulas.FORMULAS:
        return False
    names = {op for op, _ in ops}
    if name == "aten::convolution":  # without _convolution inside, it would be it
        return "aten::_convolution" not in names
    if name == "aten::linear":
        return not names & {"aten::addmm", "aten::mm"}
    return name not in COMPOSITES or name == "aten::_convolution"


def test_what_is_not_touched_is_not_counted() -> None:
    def bytes_of(name: str, dims: list[Any], types: list[str], inputs: list[str]) -> int | None:
        cost = op_cost(f"aten::{name}", *(json.dumps(x) for x in (dims, types, inputs)))
        return cost and cost.bytes

    long, f32 = "long int", "float"
    # 5 rows of 16 are read and written, not the 1,000 rows of the table.
    assert bytes_of("index_select", [[1000, 16], [], [5]], [f32, "Scalar", long], ["", "0", ""]) \
        == 2 * 5 * 16 * 4 + 5 * 8  # fmt: skip
    assert bytes_of("embedding", [[1000, 16], [5], [], [], []],
                    [f32, long, "Scalar", "Scalar", "Scalar"], ["", "", "-1", "False", "False"]) \
        == 2 * 5 * 16 * 4 + 5 * 8  # fmt: skip
    assert bytes_of("embedding_dense_backward", [[5, 16], [5], [], [], []],
                    [f32, long, "Scalar", "Scalar", "Scalar"], ["", "", "1000", "-1", "False"]) \
        == 2 * 5 * 16 * 4 + 5 * 8  # fmt: skip
    # One logit of a row.
    assert bytes_of("nll_loss_forward", [[7, 1000], [7], [], [], []],
                    [f32, long, "", "Scalar", "Scalar"], ["", "", "", "1", "-100"]) \
        == 7 * (8 + 4)  # fmt: skip
    assert bytes_of("gather", [[9, 16], [], [5, 16], []], [f32, "Scalar", long, "Scalar"],
                    ["", "0", "", "False"]) == 2 * 5 * 16 * 4 + 5 * 16 * 8  # fmt: skip
    assert bytes_of("scatter_add_", [[9, 16], [], [5, 16], [5, 16]], [f32, "Scalar", long, f32],
                    ["", "0", "", ""]) == 3 * 5 * 16 * 4 + 5 * 16 * 8  # fmt: skip
    assert bytes_of("index", [[9, 16], [[5]]], [f32, "TensorList"], ["", ""]) \
        == 2 * 5 * 16 * 4 + 5 * 8  # fmt: skip


def test_a_fused_optimizer_reads_gradients_and_changes_the_rest() -> None:
    shapes, many = [[16, 4], [4]], [[] for _ in range(9)]
    lists = [shapes, shapes, shapes, shapes, [], [[], []]]
    types = json.dumps(["TensorList"] * 6 + ["Scalar"] * 7 + ["", ""])

    known = op_cost("aten::_fused_adamw_", json.dumps([*lists, *many]), types, None,
                    element="float32")  # fmt: skip
    # More than 30 tensors: the profiler writes no shapes.
    long = op_cost("aten::_fused_adamw_", json.dumps([[] for _ in range(15)]), types, None,
                   element="float32")  # fmt: skip

    assert known is not None
    assert known.bytes == 7 * (16 * 4 + 4) * 4
    assert long is None


def test_a_kernel_of_the_compiler_touches_what_it_was_given_once() -> None:
    dims, types = json.dumps([[64, 8], [64, 8], []]), json.dumps(["float", "c10::Half", "Scalar"])

    cost = op_cost("triton_poi_fused__to_copy_1", dims, types, None)

    assert cost == OpCost(None, 64 * 8 * (4 + 2), matmul=False)
    # An embedding is given its whole table, of which it reads some rows.
    assert op_cost("triton_poi_fused_embedding_0", dims, types, None) is None
    assert op_cost("triton_tem_fused_mm_0", dims, types, None) is None


HOSTILE: list[Any] = [
    [[-4, 8], [8, 2]],
    [["4", 8], [8, 2]],
    [[2**70, 2**70], [2**70, 2]],
    [[2**40, 2**20], [2**20, 2**40]],
    [{"a": 1}, None],
    [[4.5, 8], [8, 2]],
    [[True, 8], [8, 2]],
    [[[[]]], [[[]]]],
    "[[4, 8]",
    7,
    None,
]


@pytest.mark.parametrize(
    "name",
    [
        "mm", "add", "sum", "copy_", "cat", "_softmax", "index", "convolution",
        "native_layer_norm", "_foreach_add_", "_flash_attention_forward",
        "embedding_dense_backward",
    ],
)  # fmt: skip
@pytest.mark.parametrize("dims", HOSTILE)
def test_shapes_that_cannot_be_tell_nothing(name: str, dims: Any) -> None:
    types = json.dumps(["float", "TensorList"] if name == "index" else ["float", "float"])
    if name in ("cat", "_foreach_add_"):
        types = json.dumps(["TensorList", "TensorList"])

    cost = op_cost(f"aten::{name}", json.dumps(dims), types, json.dumps(["[[[", "-1"]),
                   element="float32")  # fmt: skip

    assert cost is None


recorded_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)
kinds = st.sampled_from(["float", "c10::BFloat16", "long int", "TensorList", "Scalar", "", "x", 3])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted({*flop_formulas.FORMULAS, "triton_poi_fused_add_0",
                            *(f"aten::{case.partition(',')[0]}" for case in ONE_READ),
                            *(f"aten::{case.partition(',')[0]}" for case in BACKWARD)})),
    st.lists(st.lists(st.integers(0, 2**40), max_size=4) | recorded_values, max_size=8),
    st.lists(kinds, max_size=8),
    recorded_values,
    recorded_values,
)  # fmt: skip
def test_whatever_was_recorded_costs_are_numbers_that_can_be_or_not_known(
    name: str, dims: Any, types: Any, inputs: Any, strides: Any
) -> None:
    types = (types * 8)[: len(dims)]
    texts = [json.dumps(value) for value in (dims, types, inputs, strides)]

    cost = op_cost(name, *texts, element="float32")

    if cost is not None:
        assert cost.flops is None or 0 <= cost.flops < 2**53
        assert cost.bytes is None or 0 <= cost.alike_bytes <= cost.bytes < 2**53


def test_an_op_without_a_formula_is_not_known() -> None:
    assert not has_formula("aten::topk")
    assert op_cost("aten::topk", "[[4]]", '["float"]', None) is None
    assert op_cost("aten::add", None, None, None) is None


@pytest.mark.parametrize(
    ("dtype", "kernels", "expected"),
    [
        ("bfloat16", ["cutlass_75_tensorop_bf16_s1688gemm_bf16"], ("bf16", True)),
        ("float32", ["ampere_sgemm_128x64_tn"], ("fp32", True)),
        ("float32", ["sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_ffma"], ("fp32", True)),
        ("float32", ["sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n"], ("tf32", True)),
        ("float32", ["cutlass_80_tensorop_s1688gemm_128x128_16x4_nn_align4"], ("tf32", True)),
        # What does not tell counts as what is faster.
        ("float32", ["nvjet_sss_128x64"], ("tf32", False)),
        ("float32", [], ("tf32", False)),
        ("float8_e4m3fn", [], ("fp8", True)),
        ("int64", [], (None, True)),
        (None, [], (None, True)),
        (None, ["nvjet_sm90_tst_128x256_64x4"], ("bf16", True)),
        (None, ["nvjet_hsh_448x128", "splitKreduce"], ("fp16", True)),
        (None, ["ampere_sgemm_128x64_tn"], ("fp32", True)),
    ],
)
def test_kernels_tell_whether_single_precision_went_through_tensor_cores(
    dtype: str | None, kernels: list[str], expected: tuple[str | None, bool]
) -> None:
    assert product_format(dtype, kernels) == expected


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("CatArrayBatchedCopy<at::native::(anonymous namespace)::OpaqueType<2u>, unsigned int, 3",
         "bfloat16"),
        ("CatArrayBatchedCopy<OpaqueType<4u>, unsigned int, 3, 64, 64>", "float32"),
        ("multi_tensor_apply_kernel<TensorListMetadata<1>, BinaryOpScalarFunctor<float, 1, 1, 0>",
         "float32"),
        ("multi_tensor_apply_kernel<TensorListMetadata<1>, ZeroFunctor<c10::Half, 1, 1, 0>",
         "float16"),
        ("some_kernel", ""),
    ],
)  # fmt: skip
def test_kernels_tell_what_lists_of_tensors_hold(kernel: str, expected: str) -> None:
    assert element_of([kernel]) == expected

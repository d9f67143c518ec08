"""Which outputs are right: by how much they may be off, and what is wrong whatever the error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from tests.bench import made_up_kernels as made_up  # noqa: E402
from tracelens.bench import gate  # noqa: E402
from tracelens.bench.gate import Found  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

floats = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20)


@pytest.fixture(autouse=True)
def _in_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def y(*values: float, dtype: Any = torch.float32) -> dict[str, Any]:
    return {"y": torch.tensor(values, dtype=dtype)}


@given(floats, st.data())
def test_an_error_is_the_norm_of_the_difference_over_that_of_the_reference(
    values: list[float], data: st.DataObject
) -> None:
    count = len(values)
    others = data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=count, max_size=count))
    reference = np.array(others, dtype=np.float64)
    off = np.linalg.norm(np.array(values, dtype=np.float64) - reference)
    norm = np.linalg.norm(reference)

    found = gate.compare(y(*values), y(*others, dtype=torch.float64), ())

    assert found.errors["y"] == pytest.approx(off / norm if norm else off)
    assert not found.wrong


def test_large_outputs_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    out, ref = torch.randn(7, 3, 5), torch.randn(7, 3, 5)
    whole = gate.compare({"y": out}, {"y": ref}, ())
    exact = gate.compare({"y": out}, {"y": ref}, ("y",))
    for size in (1, 4, 20, 31):
        monkeypatch.setattr(gate, "_CHUNK", size)

        assert gate.compare({"y": out}, {"y": ref}, ()).errors == pytest.approx(whole.errors)
        assert gate.compare({"y": out}, {"y": ref}, ("y",)) == exact


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_and_should_be_is_wrong(bad: float) -> None:
    found = gate.compare(y(1.0, bad), y(1.0, 2.0), ())

    assert found.verdict({"y": 1.0}).startswith("Y has 1 elements that are NaN or infinite")


def test_infinity_is_right_where_the_reference_has_it() -> None:
    reference = y(1.0, -math.inf, math.nan, dtype=torch.float64)

    right = gate.compare(y(1.0, -math.inf, math.nan), reference, ())
    wrong = gate.compare(y(1.0, math.inf, 0.0), reference, ())

    assert right == Found({"y": 0.0})
    assert "2 elements" in wrong.wrong["y"]


def test_an_exact_output_is_equal_bit_by_bit_but_for_nans() -> None:
    a = torch.tensor([math.nan, 0.0, 1.0])
    quiet, other = a.clone(), a.clone()
    quiet.view(torch.int32)[0] += 1  # another NaN
    other[1] = -0.0

    assert not gate.compare({"y": quiet}, {"y": a}, ("y",)).wrong
    assert "1 of 3" in gate.compare({"y": other}, {"y": a}, ("y",)).wrong["y"]


@pytest.mark.parametrize("dtype", ["int8", "int32", "bool", "float16", "bfloat16", "float8_e4m3fn"])
def test_every_format_is_compared_and_poisoned(dtype: str) -> None:
    a = torch.tensor([1, 0, 1, 1]).to(getattr(torch, dtype))
    b = a.clone()

    gate.poison(b, torch)

    assert not gate.compare({"y": a}, {"y": a.clone()}, ("y",)).wrong
    assert "of 4" in gate.compare({"y": b}, {"y": a}, ("y",)).wrong["y"]


def test_an_exact_output_of_another_format_is_wrong() -> None:
    found = gate.compare(y(1, dtype=torch.int32), y(1, dtype=torch.int8), ("y",))

    assert found.verdict({"y": 0.0}) == "Y is int32, and should be int8."[:-1]


def test_an_output_that_is_missing_is_told_and_none_at_all_is_wrong() -> None:
    reference = {"y": torch.ones(2), "lse": torch.ones(1)}
    allowed = {"y": 0.1, "lse": 0.1}

    some = gate.compare({"y": torch.ones(2), "extra": 1}, reference, ())
    none = gate.compare({}, reference, ())

    assert some.missing == ("lse",)
    assert some.verdict(allowed) == ""
    assert none.verdict(allowed) == "It gives none of the outputs of the reference"


def test_what_is_allowed_is_twice_eagers_error_or_rounding_and_never_nonsense() -> None:
    operation = made_up.KERNEL.operations["forward"]
    reference = {"y": None, "sign": None}

    def allowed(error: float) -> dict[str, float]:
        return gate.allowed(operation, reference, "fp16", Found({"y": error, "sign": 0.5}))

    assert allowed(0.01) == {"y": 0.02, "sign": 0.0}
    assert allowed(1e-6) == {"y": 1e-3, "sign": 0.0}
    assert allowed(3.0)["y"] == 0.25


@pytest.mark.parametrize("name", ["half", "remembering"])
def test_what_is_not_written_is_seen(name: str) -> None:
    x = torch.randn(8, 32)
    call = made_up.IMPLEMENTATIONS[name].build({"x": x}, made_up.SHAPE)
    was = torch.utils.deterministic.fill_uninitialized_memory

    outputs = gate.poisoned(call, {"x": x}, lambda: None, torch)

    reference = {"y": x.double() + 1}
    assert "NaN" in gate.compare(outputs, reference, ()).wrong["y"]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == was


def test_inputs_are_restored_before_each_call_and_never_poisoned() -> None:
    x = torch.ones(4)
    seen: list[list[float]] = []

    def call() -> dict[str, Any]:
        seen.append(x.tolist())
        return {"x": x.mul_(2)}

    outputs: Any = gate.poisoned(call, {"x": x}, lambda: x.fill_(1), torch)

    assert seen == [[1.0] * 4] * 2
    assert outputs["x"].tolist() == [2.0] * 4


def test_inputs_that_were_changed_are_named() -> None:
    fresh = {"a": torch.ones(2), "b": [torch.zeros(1), torch.zeros(2)], "n": 3}
    after = {"a": torch.ones(2), "b": [torch.zeros(1), torch.ones(2)], "n": 3}

    assert gate.overwritten(after, fresh, ()) == ["b"]
    assert gate.overwritten(after, fresh, ("b",)) == []


def test_memory_that_several_share_counts_once() -> None:
    x = torch.zeros(8)

    assert gate.size_bytes({"x": x, "part": x[2:], "more": [torch.zeros(2)], "n": 1}) == 40

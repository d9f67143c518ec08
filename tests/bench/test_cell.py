"""One cell measured on the processor: who is right, who is not, who fails, and what rows say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from tests.bench import made_up_kernels as made_up  # noqa: E402
from tracelens import kernel, tuned  # noqa: E402
from tracelens.bench import cell as cells  # noqa: E402
from tracelens.bench import compiling, contenders, kernel_child, measuring, pairs  # noqa: E402
from tracelens.bench.cell import Cell, Failure, GpuState, Line, Pair, Row  # noqa: E402
from tracelens.errors import UsageError  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Measure = Callable[..., tuple[list[Row], dict[str, Failure]]]

WRONG = {
    "wrong": r"Y is 0\.00\d+ off, and 1e-05 is allowed\.",
    "half": "Y has 32 elements that are NaN",
    "shape": r"Y is \[7, 32\], and should be \[8, 32\]\.",
    "one-bit": "Sign differs from the reference in 1 of 256 elements",
    "nothing": "gives none of the outputs",
    "none": "returns NoneType",
    "scribbling": "It overwrites its inputs: x",
    "remembering": "Y has 256 elements that are NaN",
}


@pytest.fixture(autouse=True)
def _in_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Measure:
    """Measure a made-up kernel here, for 20 ms each, and return rows and failures."""
    monkeypatch.setattr(
        kernel, "find", {"made-up": made_up.KERNEL, "in-place": made_up.IN_PLACE}.__getitem__
    )

    def of(
        *names: str, name: str = "made-up", **asked: Any
    ) -> tuple[list[Row], dict[str, Failure]]:
        cell = Cell(
            kernel=name,
            **{
                "shape": made_up.SHAPE, "dtype": "fp32", "device": "cpu", "l2": ("hot",),
                "implementations": names, "precision": 0.2, "budget_s": 0.05, "warmup_s": 0.0,
                **asked,
            },
        )  # fmt: skip
        answers: list[Line] = []
        assert kernel_child.measure(cell, answers.append) == 0
        assert answers[0].device
        assert answers[-1].over
        failures = {one.failure.implementation: one.failure for one in answers if one.failure}
        # What is said can be said, and understood.
        return [cells.said(cells.line(one)).row for one in answers if one.row], failures  # type: ignore[misc]

    return of


def test_ours_comes_first_and_others_are_held_against_it(measure: Measure) -> None:
    rows, failures = measure("eager", "tracelens", "slow", budget_s=1.0)

    assert not failures
    assert [row.implementation for row in rows] == ["tracelens", "eager", "slow"]
    ours, eager, slow = rows
    assert ours.pair is None
    assert ours.floor is not None
    assert slow.pair is not None
    assert (slow.pair.other, slow.pair.verdict) == ("tracelens", "slower")
    assert slow.pair.ratio > 5
    assert slow.median_s > 2e-3
    assert slow.pair.floor == ours.floor
    assert eager.errors == pytest.approx({"y": 0, "sign": 0}, abs=1e-6)
    assert eager.allowed == {"y": 1e-5, "sign": 0}


@pytest.mark.parametrize("name", WRONG)
def test_outputs_that_are_wrong_are_told_and_no_time_is(measure: Measure, name: str) -> None:
    rows, failures = measure("tracelens", name)

    assert {row.implementation for row in rows} == {"tracelens"}
    assert (failures[name].stage, failures[name].error) == ("check", "WrongError")
    assert re.search(WRONG[name], failures[name].message)


def test_outputs_that_are_wrong_after_the_timing_take_the_times_away(measure: Measure) -> None:
    rows, failures = measure("turning", "tracelens")
    alone, others = measure("turning", "eager")

    assert [row.implementation for row in rows] == ["tracelens"]
    assert failures["turning"].stage == "check"
    assert "Y is" in failures["turning"].message
    # Nor is another held against it.
    assert [(row.implementation, row.pair) for row in alone] == [("eager", None)]
    assert list(others) == ["turning"]


def test_what_raises_costs_itself_alone(measure: Measure) -> None:
    rows, failures = measure("failing", "late", "eager", "unable", budget_s=0.1)

    assert [row.implementation for row in rows] == ["eager"]
    assert rows[0].pair is None
    assert failures["failing"].stage == "build"
    assert failures["failing"].error == "RuntimeError"
    assert failures["failing"].message == "no kernel image is available"
    assert "made_up_kernels.py" in failures["failing"].traceback
    assert (failures["late"].stage, failures["late"].message) == ("time", "out of luck")
    assert failures["unable"] == Failure(
        implementation="unable", stage="cannot", message="needs another GPU"
    )


def test_each_quantity_and_state_has_rows_of_its_own(measure: Measure) -> None:
    rows, _ = measure(
        "eager", "tracelens", quantities=cells.QUANTITIES, l2=cells.STATES, budget_s=0.02
    )

    found = [(row.quantity, row.l2) for row in rows if row.implementation == "tracelens"]
    assert found == [(quantity, l2) for quantity in cells.QUANTITIES for l2 in cells.STATES]
    assert len(rows) == 12
    for row in rows:
        assert row.clock == "wall clock"
        assert row.n == len(row.samples_s) > 0
        assert min(row.samples_s) <= row.p5_s <= row.median_s <= row.p95_s <= row.p99_s
        is_flushed = row.l2 == "cold" and row.quantity != "throughput"
        assert (row.flushed_bytes > 1 << 20) == is_flushed
        assert row.sets == (2 if row.l2 == "cold" else 1)
        assert row.calls == 1 or row.quantity == "throughput"


def test_programs_that_share_the_gpu_are_noted() -> None:
    alone, two, four = (GpuState(programs=count) for count in (1, 2, 4))

    assert kernel_child._shared(None, alone, GpuState()) == ()
    assert kernel_child._shared(alone, two)[0].startswith("Another program had the GPU open")
    assert kernel_child._shared(four, None)[0].startswith("3 other programs")


def test_a_row_says_what_was_done(measure: Measure) -> None:
    (row,), _ = measure("tracelens", seed=7)

    assert (row.flops, row.bytes, row.input_bytes) == (256, 3072, 1024)
    assert (row.seed, row.shape, row.config) == (7, made_up.SHAPE, {"block": 32})
    assert (row.share, row.flag, row.throttled, row.during) == (None, "", 0, None)
    assert row.build_s > row.compile_s >= 0
    assert row.settled == (row.precision is not None and row.precision <= 0.2)


def test_an_output_that_is_not_given_is_noted_of_others_and_wrong_of_ours(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = measure("without-sign")

    assert rows[0].missing == ("sign",)
    assert rows[0].notes == ("It does not give sign.",)
    some = made_up.IMPLEMENTATIONS["without-sign"]
    monkeypatch.setitem(made_up.IMPLEMENTATIONS, "tracelens", some)
    assert measure("tracelens")[1]["tracelens"].message == "It does not give sign."


def test_inputs_that_are_overwritten_belong_to_one_alone(measure: Measure) -> None:
    rows, failures = measure(name="in-place", l2=cells.STATES, budget_s=0.02)

    assert not failures
    assert [row.implementation for row in rows] == ["tracelens", "eager"] * 2
    assert all(row.errors == {"x": 0} for row in rows)


def test_candidates_are_measured_each_with_its_configuration(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def chosen(x: Any) -> Any:
        seen.append(tuned.chosen("made_up", "forward", "any", {"block": 1})["block"])
        return made_up.outputs(x)

    monkeypatch.setitem(made_up.IMPLEMENTATIONS, "tracelens", made_up.made(chosen))
    rows, _ = measure(candidates={"a": {"block": 16}, "b": {"block": 64}})

    assert [(row.implementation, row.config) for row in rows] == [
        ("a", {"block": 16}), ("b", {"block": 64}),
    ]  # fmt: skip
    assert rows[1].pair is not None
    assert rows[1].pair.other == "a"
    assert set(seen) == {16, 64}

    seen.clear()
    rows, _ = measure("tracelens", config="default")
    assert set(seen) == {1}
    assert rows[0].config == {"block": 32}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"operation": "backwards"}, "no operation named 'backwards'"),
        ({"dtype": "fp4"}, "no format named 'fp4'"),
        ({"shape": {"row": 1}}, "no axis named 'row'. Did you mean rows?"),
        ({"implementations": ("eagre",)}, "Did you mean eager?"),
        ({"ceilings": "absent.json"}, "cannot be read"),
    ],
)
def test_what_does_not_exist_is_named(measure: Measure, asked: Any, message: str) -> None:
    rows, failures = measure(**asked)

    assert not rows
    assert failures[""].stage == "cannot"
    assert message in failures[""].message


@pytest.mark.parametrize("part", ["work", "inputs", "reference"])
def test_a_cell_without_inputs_or_reference_says_why(
    measure: Measure, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_given: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB")

    operation = made_up.KERNEL.operations["forward"]
    monkeypatch.setitem(made_up.KERNEL.operations, "forward", _with(operation, part, out_of_memory))
    rows, failures = measure("tracelens")

    assert not rows
    assert (failures[""].stage, failures[""].error) == ("inputs", "OutOfMemoryError")


def _with(operation: Any, part: str, function: Any) -> Any:
    from dataclasses import replace

    return replace(operation, **{part: function})


def test_after_an_error_of_cuda_the_process_ends_for_another_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "find", lambda _name: made_up.KERNEL)
    monkeypatch.setattr(measuring, "is_broken", lambda _target: True)
    answers: list[Line] = []
    names = ("failing", "tracelens")
    cell = Cell(kernel="x", shape=made_up.SHAPE, dtype="fp32", device="cpu", implementations=names)

    # Ours has its turn first, and is not said: another process has to measure it.
    assert kernel_child.measure(cell, answers.append) == kernel_child.BROKEN
    assert [one.failure.implementation for one in answers if one.failure] == ["failing"]
    assert not any(one.row or one.over for one in answers)


def test_everything_begun_is_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "find", lambda _name: made_up.KERNEL)
    cell = Cell(
        kernel="x", shape=made_up.SHAPE, dtype="fp32", device="cpu", l2=("hot",),
        implementations=("eager", "tracelens"), budget_s=0.01, warmup_s=0,
    )  # fmt: skip
    answers: list[Line] = []

    kernel_child.measure(cell, answers.append)

    assert [(one.begun, one.stage) for one in answers if one.begun is not None] == [
        ("", "inputs"), ("tracelens", "build"), ("eager", "build"),
        ("", "inputs"), ("tracelens", "build"), ("eager", "build"),
        ("tracelens", "time"), ("eager", "time"), ("tracelens", "time"), ("", "time"),
        ("", "inputs"), ("tracelens", "check"), ("eager", "check"),
    ]  # fmt: skip


def test_inputs_take_turns_until_the_cache_is_full_of_others() -> None:
    target, _ = measuring.target(torch, "cpu")
    cell = Cell(kernel="x", shape=made_up.SHAPE, dtype="fp32")

    def sets(l2_bytes: int, free_bytes: int = 1 << 30, **asked: Any) -> int:
        on = _with(target, "l2_bytes", l2_bytes)
        of = contenders.Subject(
            _with(cell, "l2", asked.get("l2", ("cold",))), _with(on, "free_bytes", free_bytes),
            made_up.KERNEL, "forward", made_up.KERNEL.operations["forward"],
        )  # fmt: skip
        found = contenders.input_sets(of)
        assert len({one["x"].sum().item() for one in found}) == len(found)
        return len(found)

    assert sets(2048) == 5  # of 1,024 bytes each
    assert sets(1 << 30) == 16
    assert sets(256) == 2
    assert sets(32) == 1
    assert sets(2048, l2=("hot",)) == 1
    assert sets(2048, free_bytes=4096) == 1


def test_ours_is_held_against_itself_on_other_buffers(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[set[int]] = []

    def build(inputs: Any, shape: Any) -> Any:
        places.append({inputs["x"].data_ptr()})
        return made_up.RIGHT.build(inputs, shape)

    monkeypatch.setitem(made_up.IMPLEMENTATIONS, "tracelens", _with(made_up.RIGHT, "build", build))
    measure("tracelens", "eager")
    _check, timed, twin = places

    assert timed.isdisjoint(twin)

    places.clear()
    monkeypatch.setattr(contenders, "_ROOM", 0)
    rows, _ = measure("tracelens", "eager")

    assert len(places) == 2
    assert rows[0].floor is None or rows[0].floor > 0


def test_where_memory_ends_fewer_sets_take_turns(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build(inputs: Any, shape: Any) -> Any:
        built.append(1)
        if len(built) > 2:  # for the check, and for the first set
            raise torch.OutOfMemoryError("CUDA out of memory")
        return made_up.RIGHT.build(inputs, shape)

    greedy = _with(made_up.RIGHT, "build", build)
    monkeypatch.setitem(made_up.IMPLEMENTATIONS, "greedy", greedy)
    rows, failures = measure("tracelens", "greedy", l2=("cold",))

    assert not failures
    assert [(row.implementation, row.sets) for row in rows] == [("tracelens", 2), ("greedy", 1)]


def test_what_triton_and_torch_compiled_is_told() -> None:
    knobs = pytest.importorskip("triton.knobs", reason="triton is not installed")
    heard: list[bool] = []
    knobs.compilation.listener = lambda *, cache_hit, **_more: heard.append(cache_hit)
    try:
        with compiling.seen() as seen:
            for hit in (False, True, False):
                knobs.compilation.listener(src=None, metadata={}, times=None, cache_hit=hit)
    finally:
        knobs.compilation.listener = None

    assert seen.text == "2 kernels compiled by Triton, 1 kernel from Triton's cache"
    assert heard == [False, True, False]


def test_graphs_of_torch_compile_are_counted() -> None:
    from torch._dynamo.utils import counters

    with compiling.seen() as seen:
        counters["stats"]["unique_graphs"] += 1
        counters["inductor"]["fxgraph_cache_hit"] += 2

    assert seen.text == "1 graph traced by torch.compile, 2 graphs from Inductor's cache"
    with compiling.seen() as nothing:
        pass
    assert nothing.text == ""


def test_a_row_is_the_same_after_it_was_written_and_read() -> None:
    state = GpuState(sm_hz=1.98e9, throttled=("power limit",))
    pair = Pair(
        other="tracelens", ratio=1.1, low=1.0, high=1.2, floor=None, rounds=9, verdict="slower"
    )
    row = Row(
        kernel="softmax", operation="forward", shape={"rows": 1}, dtype="bf16",
        implementation="eager", device="NVIDIA H200", quantity="kernel_time", l2="cold",
        clock="CUDA graph", n=2, samples_s=(1.0, 2.0), median_s=1.5, low_s=None, high_s=None,
        mad_s=0.5, p5_s=1.05, p95_s=1.95, p99_s=1.99, settled=False, pair=pair, during=state,
    )  # fmt: skip

    assert cells.said(cells.line(Line(row=row))).row == row
    assert row.precision is None


@pytest.mark.parametrize("name", ["crashing", "tracelens"])
def test_the_process_answers_by_lines_and_chatter_is_no_line(name: str, tmp_path: Path) -> None:
    """Measure in a process, where the kernel is found by an entry point."""
    info = tmp_path / "made_up-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tracelens.kernel]\nmade_up = talking:KERNEL\n")
    (tmp_path / "talking.py").write_text(
        "print('chatter')\nfrom tests.bench.made_up_kernels import KERNEL\n"
    )
    cell = Cell(
        kernel="made-up", shape=made_up.SHAPE, dtype="fp32", device="cpu", l2=("hot",),
        implementations=(name, "eager"), budget_s=0.01, warmup_s=0,
    )  # fmt: skip
    paths = [str(tmp_path), os.getcwd(), os.environ.get("PYTHONPATH", "")]  # noqa: PTH109
    done = subprocess.run(
        [sys.executable, "-m", "tracelens.bench.kernel_child", cells.encode(cell)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )

    answers = [cells.said(text) for text in done.stdout.splitlines()]
    assert b"chatter" in done.stderr
    rows = [one.row.implementation for one in answers if one.row]
    if name == "crashing":
        assert done.returncode < 0
        assert (answers[-1].begun, answers[-1].stage) == ("crashing", "build")
        assert not rows
    else:
        assert done.returncode == 0
        assert rows == ["tracelens", "eager"]


def test_a_cell_that_is_none_is_refused() -> None:
    import msgspec

    with pytest.raises(msgspec.ValidationError):
        cells.decode('{"kernel": 1}')
    with suppress(UsageError):
        contenders.subject(
            Cell(kernel="no-such-kernel", shape={}, dtype="fp32"), measuring.target(torch, "cpu")[0]
        )
        pytest.fail("a kernel that is not there was found")


def test_the_base_fails_and_the_next_one_takes_its_place(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours fails in the middle: what was measured so far is left out, and the others go on."""
    in_turns = pairs.in_turns
    failed = []

    def once(those: Any, *given: Any) -> Any:
        if not failed:
            failed.append(next(iter(those)) + " again")
            raise pairs.FailedError(failed[0]) from ValueError("gone")
        return in_turns(those, *given)

    monkeypatch.setattr(pairs, "in_turns", once)
    rows, failures = measure("tracelens", "same", "eager")

    assert failures["tracelens"].message == "gone"
    assert [row.implementation for row in rows] == ["same", "eager"]
    assert rows[1].pair is not None
    assert rows[1].pair.other == "same"

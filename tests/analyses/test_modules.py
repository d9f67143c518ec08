"""The tree of nn.Modules: forward by the calls of modules, backward by what it differentiates."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests import by_hand
from tests.asking import Shell, linked, table
from tests.kineto import Profile

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asking import Row

K = 1_000


def by_module(trace: Profile, folder: Path, name: str = "modules", **cut: Any) -> dict[str, Row]:
    of = linked(trace.write(folder / "trace.json"), **cut)
    return {row["path"]: row for row in table(of, name)}


def model(*, memory: bool = False) -> Profile:
    """Return a model of two linear layers: forward, and backward on a thread of its own.

    Every kernel of forward takes 1 to 3 us, every gradient ten times as long as its forward.
    """
    trace = Profile()
    main, autograd = trace.thread("python3"), trace.thread("pt_autograd_0", tid=101)
    main.python("train.py(3): main", 0, 900 * K)
    main.python("nn.Module: MLP_0", 10 * K, 200 * K, module=0)
    main.python("nn.Module: Linear_0", 20 * K, 80 * K, module=1)
    first = main.op("aten::addmm", 30 * K, 60 * K, seq=0)
    main.kernel("first", at=40 * K, run=(1_000 * K, 1_001 * K))
    gelu = main.op("aten::gelu", 90 * K, 110 * K, seq=1)
    main.kernel("gelu", at=100 * K, run=(1_001 * K, 1_003 * K))
    main.python("nn.Module: Linear_1", 120 * K, 190 * K, module=2)
    second = main.op("aten::addmm", 130 * K, 160 * K, seq=2)
    main.kernel("second", at=140 * K, run=(1_003 * K, 1_006 * K))
    at = 300 * K
    for forward, name, took in ((second, "Addmm", 30), (gelu, "Gelu", 20), (first, "Addmm", 10)):
        seq = int(forward.fields["args"]["Sequence number"])
        whole = f"autograd::engine::evaluate_function: {name}Backward0"
        backward = autograd.op(whole, at, at + 90 * K, seq=seq, fwd_thread=1)
        trace.flow(forward, backward)
        autograd.op(f"{name}Backward0", at + 10 * K, at + 80 * K, seq=seq, fwd_thread=1)
        autograd.op("aten::mm", at + 20 * K, at + 70 * K)
        run = (at + 1_000 * K, at + (1_000 + took) * K)
        autograd.kernel(f"gradient {took}", at=at + 30 * K, run=run)
        at += 100 * K
    autograd.op("autograd::engine::evaluate_function: torch::autograd::AccumulateGrad", at, at + 50)
    autograd.kernel("accumulate", at=at + 10, run=(2_000 * K, 2_004 * K))
    if memory:
        held = 0
        for time, size in ((35, 4_096), (45, 512), (55, -512), (95, 1_024), (105, -4_096)):
            held += size
            main.memory(time * K, size, allocated=held, reserved=8_192)
        main.memory(96 * K, 64, allocated=64, reserved=64, device=None)
    return trace


def test_a_module_has_what_its_forward_launched_and_the_gradients_of_that(tmp_path: Path) -> None:
    rows = by_module(model(), tmp_path)

    assert {
        path: (row["calls"], row["forward_ns"], row["backward_ns"], row["self_gpu_time_ns"])
        for path, row in rows.items()
    } == {
        "MLP_0": (1, 6_000, 60_000, 22_000),
        "MLP_0/Linear_0": (1, 1_000, 10_000, 11_000),
        "MLP_0/Linear_1": (1, 3_000, 30_000, 33_000),
        None: (None, None, None, 4_000),
    }
    assert [row["module"] for row in rows.values()] == ["MLP_0", "· Linear_0", "· Linear_1", None]
    assert [row["forward_kernels"] for row in rows.values()] == [3, 1, 1, None]
    assert [row["cpu_ns"] for row in rows.values()] == [190 * K, 60 * K, 70 * K, None]


def test_modules_and_what_is_of_none_add_up_to_all_gpu_time(tmp_path: Path) -> None:
    rows = by_module(model(), tmp_path)

    tops = [row for row in rows.values() if row["depth"] == 0]
    assert sum(row["gpu_time_ns"] for row in tops) == 70_000
    assert [row["gpu_share"] for row in tops] == pytest.approx([66 / 70, 4 / 70])


def test_a_phase_shows_the_part_of_modules_in_it(tmp_path: Path) -> None:
    rows = by_module(model(), tmp_path, phases=("backward",))

    assert {path: (row["forward_ns"], row["backward_ns"]) for path, row in rows.items()} == {
        "MLP_0": (0, 60_000),
        "MLP_0/Linear_0": (0, 10_000),
        "MLP_0/Linear_1": (0, 30_000),
        None: (None, None),
    }


def test_instances_of_one_class_side_by_side_are_one_row_of_classes(tmp_path: Path) -> None:
    rows = by_module(model(), tmp_path, "module_classes")

    assert {
        path: (row["instances"], row["calls"], row["forward_ns"], row["backward_ns"])
        for path, row in rows.items()
    } == {
        "MLP": (1, 1, 6_000, 60_000),
        "MLP/Linear": (2, 2, 4_000, 40_000),
        None: (None, None, None, None),
    }


def test_an_instance_in_several_places_has_a_row_in_each(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    for i, (encoder, at) in enumerate((("Encoder_0", 0), ("Decoder_0", 100), ("Encoder_0", 200))):
        main.python(f"nn.Module: {encoder}", at * K, (at + 90) * K, module=i)
        main.python("nn.Module: Embedding_0", (at + 10) * K, (at + 50) * K, module=9)
        main.op("aten::embedding", (at + 20) * K, (at + 40) * K)
        main.kernel(f"k{i}", at=(at + 30) * K, run=((500 + at) * K, (500 + at + i + 1) * K))

    rows = by_module(trace, tmp_path)

    assert {path: (row["calls"], row["forward_ns"]) for path, row in rows.items()} == {
        "Encoder_0": (2, 4_000),
        "Encoder_0/Embedding_0": (2, 4_000),
        "Decoder_0": (1, 2_000),
        "Decoder_0/Embedding_0": (1, 2_000),
    }


def test_what_is_computed_again_in_backward_is_forward_of_the_same_place(tmp_path: Path) -> None:
    trace = Profile()
    main, autograd = trace.thread("python3"), trace.thread("pt_autograd_0", tid=50)
    main.python("nn.Module: GPT_0", 0, 100 * K, module=0)
    checkpoint = main.op("CheckpointFunction", 5 * K, 95 * K, seq=0)
    main.python("nn.Module: Block_0", 10 * K, 90 * K, module=1)
    main.op("aten::mm", 20 * K, 40 * K)
    main.kernel("mm", at=30 * K, run=(500 * K, 501 * K))
    name = "CheckpointFunctionBackward"
    backward = autograd.op(name, 200 * K, 400 * K, seq=0, fwd_thread=1)
    trace.flow(checkpoint, backward)
    autograd.python("nn.Module: Block_0", 210 * K, 290 * K, module=1)
    autograd.op("aten::mm", 220 * K, 240 * K)
    autograd.kernel("mm again", at=230 * K, run=(501 * K, 502 * K))
    autograd.op("aten::mm", 300 * K, 320 * K)
    autograd.kernel("gradient", at=310 * K, run=(502 * K, 505 * K))

    rows = by_module(trace, tmp_path)

    assert {
        path: (row["calls"], row["forward_ns"], row["backward_ns"]) for path, row in rows.items()
    } == {"GPT_0": (1, 2_000, 3_000), "GPT_0/Block_0": (2, 2_000, 0)}


def test_memory_is_that_of_forward_and_what_it_kept(tmp_path: Path) -> None:
    rows = by_module(model(memory=True), tmp_path)

    assert {
        path: (row["allocated_bytes"], row["kept_bytes"]) for path, row in rows.items() if path
    } == {
        "MLP_0": (5_632, 1_024),
        "MLP_0/Linear_0": (4_608, 4_096),
        "MLP_0/Linear_1": (0, 0),
    }


def test_trees_of_any_depth_are_shown(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    depth = 2_000
    for i in range(depth):
        main.python(f"nn.Module: Shell_{i}", i, 2 * depth - i, module=i)
    main.kernel("k", at=depth - 1, run=(9_000, 9_001))

    of = linked(trace.write(tmp_path / "trace.json"))
    rows = table(of, "modules")

    assert len(rows) == depth
    assert {row["forward_ns"] for row in rows} == {1}
    assert rows[-1]["path"].startswith(f"…/Shell_{depth - 64}/")


def test_without_modules_the_tables_say_what_records_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = Profile(metadata={"with_modules": 1})
    trace.thread("python3").op("aten::mm", 0, 100)
    path = trace.write(tmp_path / "trace.json")

    for name in ("modules", "module_classes"):
        said = Shell(capsys)("summarize", path, "-t", name)
        assert said.status == 4
        assert "torch.profiler.profile(with_stack=True) records them" in said.err


@pytest.mark.corpus
def test_with_modules_alone_records_no_calls_of_modules(corpus: Path) -> None:
    trace = linked(corpus / "kineto" / "three-streams-overlap-h200.json.gz").trace

    assert trace.source.facts["with_modules"] == "1"
    assert "python" not in set(trace["ranges"].collect()["kind"])


@pytest.mark.corpus
def test_every_module_has_the_gpu_time_that_a_plain_sweep_finds(corpus: Path) -> None:
    path = corpus / "kineto" / "gpt2-small-ctx512-bf16-stacks-memory-h200.json.gz"
    trace = by_hand.read(path)
    calls = [e for e in trace.by_cat["python_function"] if e["name"].startswith("nn.Module: ")]
    work = list(trace.launching())
    differentiated = _differentiated(trace, [ops for *_, ops in work])
    origins = [
        call if forward is None else forward
        for (_, call, _), forward in zip(work, differentiated, strict=True)
    ]
    forward, backward = Counter[str](), Counter[str]()
    around = trace.around(origins, calls)
    for (event, *_), of, modules in zip(work, differentiated, around, strict=True):
        names = [module["name"].removeprefix("nn.Module: ") for module in modules]
        for depth in range(len(names)):
            times = forward if of is None else backward
            times["/".join(names[: depth + 1])] += by_hand.ns(event, "dur")

    rows = {row["path"]: row for row in table(linked(path), "modules") if row["path"]}

    assert len(rows) == 1 + 4 + 12 * 8
    assert Counter({name: row["forward_ns"] for name, row in rows.items()}) == forward
    assert Counter({name: row["backward_ns"] for name, row in rows.items()}) == backward


def _differentiated(
    trace: by_hand.Trace, launching: list[tuple[by_hand.Event, ...]]
) -> list[by_hand.Event | None]:
    """Return where the op began whose gradient each GPU event is computed for.

    An arrow ends where a backward op begins; the engine's op around that has the same number.
    """
    begins = {e["id"]: e for e in trace.by_cat["fwdbwd"] if e["ph"] == "s"}
    ends = {(e["tid"], e["ts"]): begins[e["id"]] for e in trace.by_cat["fwdbwd"] if e["ph"] == "f"}
    origin = {
        op["args"]["Sequence number"]: ends[op["tid"], op["ts"]]
        for op in trace.by_cat["cpu_op"]
        if (op["tid"], op["ts"]) in ends
    }
    numbers = [
        [op["args"]["Sequence number"] for op in ops if op["args"].get("Fwd thread id")]
        for ops in launching
    ]
    return [origin[those[-1]] if those else None for those in numbers]

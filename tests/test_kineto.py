"""The builder of tiny torch.profiler traces writes what Kineto writes."""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.kineto import BASE_NS, DIALECTS, Profile, Raw, training_step

if TYPE_CHECKING:
    from pathlib import Path

Kind = tuple[str, str]


def everything(version: str = "2026-02") -> Profile:
    """Return a trace with something of every kind."""
    trace = Profile(version, metadata={"with_stack": 1, "profile_memory": 1})
    training_step(trace)
    trace.device(0)
    trace.distributed(0, 2)
    main = trace.thread("python3")
    main.annotation("ProfilerStep#3", 0, 2_300_000, gpu=(20_000, 2_250_000))
    main.python("gpt.py(58): main", 0, 2_400_000)
    main.python("nn.Module: Linear_0", 5_000, 6_000, parent=1, module=0)
    main.memory(7_000, 4096, allocated=8192, reserved=1 << 21)
    main.memset(run=(3_000_000, 3_001_000), bytes=4, at=2_900_000)
    main.graph([("a", 3_100_000, 3_200_000), ("b", 3_200_000, 3_300_000)], at=3_000_000)
    main.collective("allreduce", 1_000, at=3_300_000, run=(3_400_000, 3_500_000))
    return trace


def events(content: bytes) -> list[Any]:
    found = json.loads(content)
    return found if isinstance(found, list) else found["traceEvents"]


def kind(event: Any) -> Kind:
    return event["ph"], event.get("cat") or event["name"].partition(":")[0]


def shapes(found: list[Any]) -> dict[Kind, list[tuple[tuple[str, ...], frozenset[str]]]]:
    """Return the keys of the events of each kind, and those of their args."""
    shapes = defaultdict(list)
    for event in found:
        shapes[kind(event)].append((tuple(event), frozenset(event.get("args", ()))))
    return shapes


@pytest.mark.corpus
def test_every_event_has_the_keys_that_kineto_gives_it(corpus: Path) -> None:
    theirs: dict[Kind, list[Any]] = defaultdict(list)
    for name in ("kineto/gpt2-small-ctx512-bf16-stacks-memory-h200",
                 "kineto/cudagraph-replay-h200",
                 "multirank/gpt2-medium-ddp-h200x2/rank0"):  # fmt: skip
        content = gzip.decompress((corpus / f"{name}.json.gz").read_bytes())
        for of, found in shapes(events(content)).items():
            theirs[of] += found

    ours = shapes(events(everything().content()))

    assert ours.keys() == theirs.keys() - {("X", "overhead")}
    for of, found in ours.items():
        for keys, args in found:
            assert keys in {k for k, _ in theirs[of]}, of
            assert args <= frozenset().union(*(a for _, a in theirs[of])), of
            assert args >= frozenset.intersection(*(a for _, a in theirs[of])), of


@pytest.mark.corpus
def test_an_event_stands_in_the_same_lines(corpus: Path) -> None:
    def lines(content: bytes) -> dict[Kind, set[str]]:
        found = defaultdict(set)
        for text in re.findall(r"\n  \{\n(.*?)\n  \}", content.decode(), re.DOTALL):
            try:
                event = json.loads("{" + text + "}")
            except ValueError:
                continue  # of deviceProperties
            bare = re.sub(r'"args": \{.*\}', '"args": {}', text, flags=re.DOTALL)
            found[kind(event)].add(re.sub(r': ("[^"]*"|[-\d.]+)', ":", bare))
        return found

    file = corpus / "kineto" / "three-streams-overlap-h200.json.gz"
    theirs, ours = lines(gzip.decompress(file.read_bytes())), lines(everything().content())

    both = ours.keys() & theirs.keys()
    assert len(both) > 12
    assert not any(ours[of] - theirs[of] for of in both)


@pytest.mark.corpus
def test_the_keys_beside_the_events_stand_in_the_same_order(corpus: Path) -> None:
    file = corpus / "multirank" / "gpt2-medium-ddp-h200x2" / "rank0.json.gz"
    theirs = list(json.loads(gzip.decompress(file.read_bytes())))
    ours = list(json.loads(everything().content()))

    assert ours[:2] == theirs[:2]
    assert ours[-4:] == theirs[-4:]
    assert set(ours) ^ set(theirs) == {"with_stack", "profile_memory", "cupti_version"}


@pytest.mark.parametrize("version", DIALECTS)
def test_a_step_of_training_adds_up_in_every_dialect(version: str) -> None:
    trace = Profile(version)
    step = training_step(trace)

    found = events(trace.content())

    kernels = [e for e in found if e.get("cat") in ("kernel", "Kernel")]
    assert len(kernels) == sum(step.kernels.values())
    assert sum(e["dur"] for e in kernels) * 1_000 == sum(step.kernel_time_ns.values())
    assert len([e for e in found if e.get("cat") in ("gpu_memcpy", "Memcpy")]) == step.copies


def test_times_are_spelt_as_they_were_then() -> None:
    at = {}
    for version in DIALECTS:
        trace = Profile(version, around=False)
        trace.thread("python3").op("aten::mm", 1_234_567, 2_345_678)
        (event,) = re.findall(r'"ts": (.*), "dur": (.*),', trace.content().decode())
        at[version] = event

    whole = ("1795148535888234", "1111")
    assert at["2020-12"] == at["2023-06"] == whole
    assert at["2024-04"] == ("1795148535888234.567", "1111.111")
    assert at["2026-02"] == ("4291509888234.567", "1111.111")
    assert BASE_NS + 4_291_509_888_234_567 == 1_795_148_535_888_234_567


def test_old_dialects_have_their_own_words() -> None:
    found = {}
    for version in DIALECTS:
        trace = Profile(version)
        main = trace.thread("python3", pid=100, tid=104)
        op = main.op("aten::mm", 0, 50_000)
        main.kernel("gemm", at=10_000, run=(20_000, 30_000))
        main.memory(5_000, 8, allocated=8, reserved=8)
        trace.flow(op, op)
        named = {e["name"]: e for e in events(trace.content()) if e["ph"] in "Xi"}
        launch = named["cudaLaunchKernel"]["args"]
        found[version] = (
            named["aten::mm"]["cat"], named["gemm"]["cat"], named["gemm"]["tid"],
            named["aten::mm"]["tid"], named["[memory]"].get("cat"),
            launch.get("external id", launch.get("External id")),
        )  # fmt: skip

    assert found["2020-12"] == ("Operator", "Kernel", "stream 7", 104, None, 1)
    assert found["2021-03"] == ("Operator", "Kernel", "stream 7", "104", None, 1)
    assert found["2021-09"] == ("cpu_op", "Kernel", 7, 104, None, 1)
    assert found["2022-06"] == ("cpu_op", "kernel", 7, 104, "cpu_instant_event", 1_001)
    assert found["2023-06"] == ("cpu_op", "kernel", 7, 104, "cpu_instant_event", None)
    assert found["2026-02"] == ("cpu_op", "kernel", 7, 104, "cpu_instant_event", 1)


def test_the_innermost_op_is_the_one_that_kineto_names() -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.op("aten::linear", 0, 90_000)
    inner = main.op("aten::addmm", 10_000, 50_000)
    main.op("aten::t", 60_000, 70_000)

    kernel = main.kernel("gemm", at=20_000, run=(30_000, 40_000))

    assert kernel.external == inner.external


def test_other_spacings_say_the_same() -> None:
    trace = everything()

    assert len({len(trace.content(spacing=s)) for s in ("kineto", "compact", "indented")}) == 3
    for spacing in ("compact", "indented", "sorted"):
        assert json.loads(trace.content(spacing=spacing)) == json.loads(trace.content())


def test_shuffled_events_are_the_same_events() -> None:
    trace = everything()
    ours, theirs = events(trace.content()), events(trace.content(shuffle=1))

    assert ours != theirs
    assert sorted(map(str, ours)) == sorted(map(str, theirs))


def test_any_value_can_be_changed_to_any_text() -> None:
    trace = Profile(around=False)
    event = trace.thread("python3").op('say "hi" \\ now', 0, 5_000)
    event.fields["dur"] = Raw("-inf")
    text = trace.content().decode()

    assert '"name": "say "hi" \\ now"' in text
    assert '"dur": -inf' in text


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="Known: 2020-12"):
        Profile("1999-01")
    with pytest.raises(ValueError, match="When was it launched"):
        Profile().thread("python3").kernel("gemm", run=(0, 1))

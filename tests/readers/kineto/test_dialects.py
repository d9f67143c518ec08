"""Traces of every torch since 2020 say the same: in whole or decimal µs, in old words or new."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.asking import linked, table, the_row
from tests.kineto import BASE_NS, DIALECTS, Profile, training_step
from tests.readers.kineto.reading import a_step, launchers, opened, read, rows, said, story

if TYPE_CHECKING:
    from pathlib import Path

EXACT = [version for version, dialect in DIALECTS.items() if dialect.decimals]


@pytest.mark.parametrize("version", DIALECTS)
def test_a_step_of_training_is_the_same_in_every_dialect(tmp_path: Path, version: str) -> None:
    trace = Profile(version)
    step = training_step(trace)

    of = linked(trace.write(tmp_path / "trace.json"))

    totals = the_row(of, "totals")
    assert (totals["kernels"], totals["copies"]) == (9, 1)
    assert (totals["kernel_time_ns"], totals["copy_time_ns"]) == (1_710_000, step.copy_time_ns)
    assert (totals["busy_ns"], totals["span_ns"]) == (step.busy_ns, step.span_ns)
    assert of.coverage()["unlinked"] == 0
    assert said(of.trace, "damaged", "lost") == []


@pytest.mark.parametrize("version", DIALECTS)
@pytest.mark.parametrize("ranges", [True, False])
def test_phases_are_found_in_every_dialect(tmp_path: Path, version: str, *, ranges: bool) -> None:
    trace = Profile(version)
    step = training_step(trace, ranges=ranges)

    of = linked(trace.write(tmp_path / "trace.json"))

    phases = {row["phase"]: (row["kernels"], row["kernel_time_ns"]) for row in table(of, "phases")}
    named = {phase: (step.kernels[phase], step.kernel_time_ns[phase]) for phase in step.kernels}
    assert {phase: phases.get(phase, (0, 0)) for phase in named} == named
    # Until 2021 the ranges of users were ops among others: not even their names tell.
    told = ranges and "user_annotation" not in DIALECTS[version].cats
    assert of.phase_source == ("ranges" if told else "inferred")


@pytest.mark.parametrize("version", DIALECTS)
def test_ids_of_every_dialect_are_numbers(tmp_path: Path, version: str) -> None:
    """Threads were texts in 2021, and streams `stream 7`."""
    trace = Profile(version)
    main = trace.thread("python3", pid=100, tid=104)
    main.kernel("gemm", at=5_000, run=(20_000, 30_000), stream=9, device=2)

    found = opened(trace, tmp_path)

    assert rows(found, "gpu_ops", "device", "stream", "context", "pid") == [(2, 9, 1, 100)]
    assert rows(found, "api", "pid", "tid", "name") == [(100, 104, "cudaLaunchKernel")]
    assert rows(found, "threads", "pid", "tid", "name") == [(100, 104, "python3")]


@pytest.mark.parametrize("version", DIALECTS)
def test_the_clock_is_that_of_the_recording(tmp_path: Path, version: str) -> None:
    trace = a_step(version)

    found = opened(trace, tmp_path)

    starts = rows(found, "gpu_ops", "start_ns", "end_ns", "name", of=trace)
    assert starts[0] == (20_000, 60_000, "Memcpy HtoD (Pinned -> Device)")
    assert starts[1] == (150_000, 450_000, "ampere_sgemm_128x64_tn")
    assert rows(found, "api", "start_ns", "end_ns", of=trace)[0] == (10_000, 11_000)
    assert min(start for start, *_ in rows(found, "api", "start_ns")) >= 0


@pytest.mark.parametrize("version", EXACT)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(0, 10**13),
    spans=st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**6)), min_size=1),
)
def test_times_are_exact_to_the_nanosecond(
    tmp_path: Path, version: str, start: int, spans: list[tuple[int, int]]
) -> None:
    """Those of March and April 2024 have 19 digits: a float holds every 256th nanosecond."""
    trace = Profile(version, around=False)
    main = trace.thread("python3")
    for at, took in spans:
        main.kernel("k", at=start + at, run=(start + at, start + at + took))

    found = opened(trace, tmp_path)

    times = sorted(rows(found, "gpu_ops", "start_ns", "end_ns", of=trace))
    assert times == sorted((start + at, start + at + took) for at, took in spans)


def test_times_far_from_the_base_are_exact(tmp_path: Path) -> None:
    """The base is the beginning of some three months: 7.9e12 µs at most."""
    trace = Profile(start_ns=BASE_NS + 7_899_999_999_999_000)
    trace.thread("python3").kernel("k", at=1, run=(17, 1_000_000_017))

    assert rows(opened(trace, tmp_path), "gpu_ops", "start_ns", "end_ns", of=trace) == [
        (17, 1_000_000_017)
    ]


@pytest.mark.parametrize("version", DIALECTS)
@pytest.mark.parametrize("spacing", ["compact", "indented", "sorted"])
def test_a_trace_that_another_program_wrote_again_is_the_same(
    tmp_path: Path, version: str, spacing: str
) -> None:
    trace = a_step(version)
    whole = opened(trace, tmp_path)

    again = opened(trace, tmp_path, "again.json", spacing=spacing)

    if version == "2024-04":  # json.dumps wrote what a float holds
        assert story(again).keys() == story(whole).keys()
        return
    assert story(again) == story(whole)


@pytest.mark.parametrize("name", ["trace.json.gz", "trace.zip", "trace.pt.trace.json", "trace"])
def test_a_packed_trace_is_the_same(tmp_path: Path, name: str) -> None:
    trace = a_step()

    assert story(opened(trace, tmp_path, name)) == story(opened(trace, tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(seed=st.integers(0, 1_000), version=st.sampled_from(tuple(DIALECTS)))
def test_the_order_of_events_does_not_matter(tmp_path: Path, seed: int, version: str) -> None:
    trace = a_step(version)
    training_step(trace, at=5_000_000)
    trace.thread("python3").memory(5_000, 512, allocated=512, reserved=1_024)

    shuffled = opened(trace, tmp_path, "shuffled.json", shuffle=seed)

    assert story(shuffled) == story(opened(trace, tmp_path))


@pytest.mark.parametrize("version", DIALECTS)
def test_no_op_is_named_that_did_not_launch(tmp_path: Path, version: str) -> None:
    """In 2022 the External id of a kernel was its own correlation, in 2023 it was not there."""
    trace = Profile(version)
    main = trace.thread("python3")
    for number in range(1_100):
        at = 10_000 * number
        main.op(f"op {number}", at, at + 9_000)
        if number % 10 == 0:
            main.kernel(f"kernel {number}", at=at + 1_000, run=(at + 2_000, at + 8_000))

    found = opened(trace, tmp_path)

    pairs = launchers(found)
    assert [pair for pair in pairs if pair[0].split()[1] != pair[1].split()[1]] == []
    if DIALECTS[version].linked == "op":
        assert len(pairs) == 110


def test_the_list_that_was_never_closed_is_read(tmp_path: Path) -> None:
    """The first Kineto ended every event with a comma, and the file with the last of them."""
    trace = a_step("2020-12", around=False)
    whole = story(opened(trace, tmp_path))

    content = trace.content().rstrip()
    assert content.endswith(b"}\n]")

    assert story(read(content[:-2] + b",\n", tmp_path)) == whole
    assert story(read(content[:-2], tmp_path)) == whole


@pytest.mark.parametrize("after", [True, False])
def test_the_rank_is_told_before_or_after_the_events(tmp_path: Path, *, after: bool) -> None:
    trace = a_step()
    trace.distributed(1, 8, after=after)

    facts = opened(trace, tmp_path).source.facts

    assert (facts["rank"], facts["world_size"]) == ("1", "8")


def test_a_trace_of_one_process_tells_no_rank(tmp_path: Path) -> None:
    facts = opened(a_step(), tmp_path).source.facts

    assert "rank" not in facts
    assert "world_size" not in facts


def test_metadata_of_2026_with_inf_in_quotes_costs_nothing(tmp_path: Path) -> None:
    trace = Profile("2026-07")
    main = trace.thread("python3")
    kernel = main.kernel("k", at=0, run=(10_000, 20_000))
    assert kernel.fields["args"]["blocks per SM"] == "inf"

    found = opened(trace, tmp_path)

    assert rows(found, "gpu_ops", "name", "kind", "stream") == [("k", "kernel", 7)]
    assert said(found, "damaged", "lost") == []


@pytest.mark.parametrize("version", ["2022-06", "2024-06", "2026-02"])
def test_an_amd_gpu_has_no_contexts_and_a_stream_zero(tmp_path: Path, version: str) -> None:
    trace = Profile(version, rocm=True)
    main = trace.thread("python3")
    main.op("aten::mm", 0, 90_000)
    main.kernel("Cijk_Ailk_Bljk.kd", at=5_000, run=(20_000, 40_000))
    main.copy(at=6_000, run=(50_000, 60_000), bytes=77)

    found = opened(trace, tmp_path)

    assert rows(found, "gpu_ops", "kind", "stream", "context", "device", "pid", "bytes") == [
        ("kernel", 0, None, 0, 100, None),
        ("copy", 0, None, 0, 100, 77),
    ]
    assert rows(found, "api", "name")[0] == ("hipLaunchKernel",)
    assert linked(tmp_path / "trace.json").coverage()["unlinked"] == 0


@pytest.mark.parametrize("version", DIALECTS)
def test_memory_and_gpu_annotations_are_told_apart_in_every_dialect(
    tmp_path: Path, version: str
) -> None:
    trace = Profile(version)
    main = trace.thread("python3")
    main.annotation("forward", 0, 90_000, gpu=(20_000, 40_000))
    main.kernel("k", at=5_000, run=(20_000, 40_000))
    main.memory(7_000, 512, allocated=2_048, reserved=1 << 21)

    found = opened(trace, tmp_path)

    assert rows(found, "gpu_ops", "name") == [("k",)]
    assert rows(found, "ranges", "name", "tid") == [("forward", 100)]
    assert rows(found, "memory", "time_ns", "action", "size_bytes", of=trace) == [
        (7_000, "alloc", 512)
    ]


def test_a_file_that_says_nothing_of_its_making_is_read(tmp_path: Path) -> None:
    """Programs that cut or merge traces keep the events alone."""
    trace = a_step(around=False)
    whole = story(opened(trace, tmp_path))
    events = re.search(rb'"traceEvents": (\[.*\n  \])', trace.content(), re.DOTALL)
    assert events

    for content in (events[1], b'{"traceEvents": ' + events[1] + b"}"):
        found = read(content, tmp_path)
        assert story(found) == whole
        assert said(found, "damaged", "lost") == []

"""What must follow from what: a table of a few rows for each check, right and wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.audit.auditing import of_text, said, verdicts, wrong
from tracelens.audit.verdicts import Verdict

if TYPE_CHECKING:
    from pathlib import Path

GOOD, BAD, NEVER, UNKNOWN = (
    Verdict.CONSISTENT,
    Verdict.INCONSISTENT,
    Verdict.IMPOSSIBLE,
    Verdict.UNCHECKED,
)


def grid(*lines: str) -> str:
    """Return a pipe table of lines of cells, parted by bars."""
    head, *rows = lines
    rule = "|".join("---" for _ in head.split("|"))
    return "\n".join(f"| {line} |" for line in (head, rule, *rows)) + "\n"


def test_tokens_per_second_are_tokens_by_time(tmp_path: Path) -> None:
    text = grid(
        "batch | seq | ms | tok/s",
        "8 | 4096 | 513.4 | 63,825",
        "8 | 4096 | 513.4 | 15,958",
    )

    found = of_text(text, tmp_path)

    assert verdicts(found, "throughput") == [(1, GOOD), (2, BAD)]
    assert said(found, "throughput")[1] == (
        "32,768 tokens / 513.4 ms = 63,825.5 tok/s, claimed 15,958"
    )


def test_a_shape_may_stand_in_one_cell_and_12k_is_12288_or_12000(tmp_path: Path) -> None:
    text = grid(
        "shape | ms | tok/s",
        "Batch=1, Seq=12K | 1,841.68 | 6,672",
        "Batch=1, Seq=12K | 1,841.68 | 6,516",
        "Batch=1, Seq=12K | 1,841.68 | 6,600",
    )

    assert verdicts(of_text(text, tmp_path), "throughput") == [(1, GOOD), (2, GOOD), (3, BAD)]


def test_tokens_of_several_gpus_may_be_counted_together(tmp_path: Path) -> None:
    text = grid("gpus | batch | seq | ms | tok/s", "4 | 1 | 1000 | 100.0 | 40,000")

    assert verdicts(of_text(text, tmp_path), "throughput") == [(1, GOOD)]


def test_without_a_batch_the_tokens_are_said_and_nothing_is_judged(tmp_path: Path) -> None:
    found = of_text(grid("seq | ms | tok/s", "1024 | 10.0 | 819,200"), tmp_path)

    assert verdicts(found, "throughput") == [(1, UNKNOWN)]
    assert "8,192" in said(found, "throughput")[0]


@pytest.mark.parametrize("time", ["TPOT (ms)", "ms/token", "latency per token (ms)", "TTFT (ms)"])
def test_times_of_one_token_are_no_times_of_a_batch(time: str, tmp_path: Path) -> None:
    text = grid(f"batch | seq | {time} | tok/s", "8 | 4096 | 20.5 | 390")

    assert not verdicts(of_text(text, tmp_path), "throughput")


def test_headings_with_underscores_say_the_same(tmp_path: Path) -> None:
    text = grid(
        "batch | seq_len | eager_ms | eager_tps | compiled_ms | compiled_tps | speedup",
        "1 | 1000 | 20.0 | 50000.0 | 10.0 | 100000.0 | 2.0",
        "1 | 1000 | 20.0 | 50000.0 | 10.0 | 200000.0 | 3.0",
    )

    assert wrong(of_text(text, tmp_path)) == [
        ("speedup", 1, 2, BAD),
        ("throughput", 1, 2, BAD),
    ]


@pytest.mark.parametrize(
    ("head", "row", "verdict"),
    [
        ("eager (ms) | compiled (ms) | speedup", "10.0 | 8.0 | 1.25x", GOOD),
        ("eager (ms) | compiled (ms) | speedup", "10.0 | 8.0 | 0.80x", BAD),
        ("compiled (ms) | eager (ms) | speedup", "8.0 | 10.0 | 1.25x", GOOD),
        ("left (ms) | right (ms) | speedup", "8.0 | 10.0 | 1.25x", GOOD),
        ("left (ms) | right (ms) | speedup", "8.0 | 10.0 | 1.35x", UNKNOWN),
        ("prefill (ms) | decode (ms) | speedup", "8.0 | 10.0 | 7.0x", UNKNOWN),
        ("baseline time | new time | speedup", "8.0 | 4.0 | 2.0x", GOOD),
        ("eager (tok/s) | ours (tok/s) | speedup", "100.0 | 130.0 | 1.30x", GOOD),
        ("eager (tok/s) | ours (tok/s) | speedup", "100.0 | 130.0 | 0.77x", BAD),
        ("eager (ms) | ours (ms) | speedup (%)", "10.0 | 8.0 | 25.0", GOOD),
        ("eager (ms) | ours (ms) | speedup (%)", "10.0 | 8.0 | 20.0", GOOD),
        ("eager (ms) | ours (ms) | speedup (%)", "10.0 | 8.0 | 30.0", BAD),
        ("before (GB) | after (GB) | reduction", "80.6 | 41.8 | 48.1 %", GOOD),
        ("before (GB) | after (GB) | reduction", "80.6 | 41.8 | 35.0 %", BAD),
        ("standard memory (GB) | flash memory (GB) | reduction", "2.1 | 0.6 | 3.5x", GOOD),
        (
            "eager (ms) | compiled (ms) | triton (ms) | triton speedup",
            "9.0 | 6.0 | 3.0 | 3.0x",
            GOOD,
        ),
        (
            "eager (ms) | compiled (ms) | triton (ms) | triton speedup",
            "9.0 | 6.0 | 3.0 | 2.0x",
            BAD,
        ),
        ("a (ms) | b (ms) | c (ms) | d (ms) | speedup", "9.0 | 6.0 | 3.0 | 1.0 | 77x", None),
        ("eager (ms) | compiled (ms) | speedup", "10.0 | OOM | —", None),
        ("eager (ms) | compiled (ms) | speedup", "10.0 | 8.0 | >1.1x", None),
    ],
)
def test_a_speedup_is_a_ratio_the_right_way_round(
    head: str, row: str, verdict: Verdict | None, tmp_path: Path
) -> None:
    found = verdicts(of_text(grid(head, row), tmp_path), "speedup")

    assert found == ([(1, verdict)] if verdict else [])


def test_rows_show_that_two_columns_are_compared_where_headings_do_not(tmp_path: Path) -> None:
    text = grid("left (ms) | right (ms) | speedup", "8.0 | 4.0 | 2.0x", "8.0 | 2.0 | 4.5x")

    assert verdicts(of_text(text, tmp_path), "speedup") == [(1, GOOD), (2, BAD)]


def test_what_is_counted_otherwise_is_not_called_wrong(tmp_path: Path) -> None:
    text = "8x H100 SXM, bf16\n\n" + grid(
        "batch | seq | grad accum | step (ms) | tok/s",
        "4 | 1000 | 2 | 100.0 | 640,000",
        "4 | 1000 | 2 | 100.0 | 80,000",
        "4 | 1000 | 2 | 100.0 | 40,001",
        "4 | 1000 | 2 | 100.0 | 123,457",
    )
    assert verdicts(of_text(text, tmp_path), "throughput") == [
        (1, GOOD), (2, GOOD), (3, GOOD), (4, BAD),
    ]  # fmt: skip
    decode = grid("batch | context | ms | tok/s", "32 | 4096 | 20.0 | 1,600")
    assert verdicts(of_text(decode, tmp_path), "throughput") == [(1, GOOD)]


def test_effective_rates_and_memory_that_is_needed_are_no_measurements(tmp_path: Path) -> None:
    text = "GPU: NVIDIA H100 SXM, bf16\n\n" + grid(
        "model | memory (GB) | effective TFLOP/s | effective bandwidth (GB/s)",
        "large | 1,342.1 | 2,501.5 | 5,000.5",
    )

    assert not wrong(of_text(text, tmp_path))


def test_a_speedup_over_the_row_that_says_one(tmp_path: Path) -> None:
    text = grid(
        "implementation | ms | speedup",
        "naive | 10.00 | 1.00x",
        "tiled | 5.00 | 2.00x",
        "fused | 2.50 | 5.00x",
    )

    assert verdicts(of_text(text, tmp_path), "baseline") == [(2, GOOD), (3, BAD)]


def test_rows_of_other_shapes_have_measures_of_their_own(tmp_path: Path) -> None:
    text = grid("seq | ms | speedup", "128 | 1.00 | 1.00x", "256 | 2.00 | 1.40x")

    assert not verdicts(of_text(text, tmp_path), "baseline")


@pytest.mark.parametrize(
    ("text", "check", "verdict"),
    [
        ("All in all **98.0 %** (498/508) passed.", "fractions", GOOD),
        ("All in all 97.9% (498/508) passed.", "fractions", BAD),
        ("It passed 498 of 508 (98 %).", "fractions", GOOD),
        ("It passed 498/508 = 99 %.", "fractions", BAD),
        ("Memory drops by ~48% (80.6 GB -> 41.8 GB).", "changes", GOOD),
        ("Memory drops by ~35% (80.6 GB -> 41.8 GB).", "changes", BAD),
        ("Time falls by 20 %, from 10.0 ms -> 8.0 ms.", "changes", GOOD),
        ("QPS: 6,807 × 4 = 27,228", "equations", GOOD),
        ("QPS: 6,807 × 4 = 27,828", "equations", BAD),
        ("That is 256 * 4 * 1600 * 8 =13,107,200 bytes.", "equations", GOOD),
        ("M=65536 × K=18944 = 1,241,513,984 elements", "equations", GOOD),
        ("Efficiency: 2,000 / 2,174 = 92%", "equations", GOOD),
        ("Efficiency: 6,807 / 2,174 = 313%", "equations", NEVER),
        ("Speed-up 16.61 × 3.5 = **58+ effective**", "equations", GOOD),
        ("On 2026-01-26 = 3 runs, version 1.2 - 3 = x", "equations", None),
        ("See pages 3-4 = the rest, or a/b = 3", "equations", None),
    ],
)
def test_arithmetic_in_words(
    text: str, check: str, verdict: Verdict | None, tmp_path: Path
) -> None:
    found = [one for _, one in verdicts(of_text(f"# Words\n\n{text}\n", tmp_path), check)]

    assert found == ([verdict] if verdict else [])


def test_flops_follow_from_a_shape_and_its_time(tmp_path: Path) -> None:
    text = grid(
        "M | N | K | ms | TFLOP/s",
        "4096 | 4096 | 4096 | 0.1882 | 730.3",
        "4096 | 4096 | 4096 | 0.1882 | 365.1",
    )

    assert verdicts(of_text(text, tmp_path), "flops_rate") == [(1, GOOD), (2, BAD)]


def test_causal_attention_may_be_counted_whole_or_half(tmp_path: Path) -> None:
    text = "# Attention\n\n" + grid(
        "batch | heads | seq | head_dim | ms | TFLOP/s",
        "4 | 16 | 8192 | 128 | 6.714 | 327.5",
        "4 | 16 | 8192 | 128 | 6.714 | 163.8",
        "4 | 16 | 8192 | 128 | 6.714 | 500.0",
    )

    assert verdicts(of_text(text, tmp_path), "flops_rate") == [(1, GOOD), (2, GOOD), (3, BAD)]


@pytest.mark.parametrize(
    ("context", "time", "verdict"),
    [
        ("GPU: NVIDIA H100 SXM, bf16", "1.20", GOOD),  # 916 of 989 TFLOP/s
        ("GPU: NVIDIA H100 SXM, bf16", "0.90", NEVER),  # 1222
        ("GPU: NVIDIA H100 SXM, fp8", "0.90", GOOD),  # of 1979
        ("GPU: NVIDIA H100 SXM", "0.90", GOOD),  # no format is said: it may be fp8
        ("GPU: NVIDIA H100 SXM, bf16, sparse 2:4", "0.90", GOOD),
        ("GPU: NVIDIA H100 PCIe, bf16", "1.20", NEVER),  # 916 of 756
        ("GPU: A100, fp16", "3.60", GOOD),
        ("GPU: A100, fp16", "1.20", NEVER),
        ("GPU: H100 or A100, fp16", "0.10", UNKNOWN),  # which?
        ("on some machine", "0.10", UNKNOWN),
    ],
)
def test_no_time_is_shorter_than_the_peak_allows(
    context: str, time: str, verdict: Verdict, tmp_path: Path
) -> None:
    text = f"{context}\n\n" + grid("M | N | K | time (ms)", f"8192 | 8192 | 8192 | {time}")

    assert verdicts(of_text(text, tmp_path), "peak") == [(1, verdict)]


def test_a_gpu_in_a_heading_is_that_of_the_column(tmp_path: Path) -> None:
    text = "## Large (32 layers, 4096 hidden), FP16\n\n" + grid(
        "batch | seq | H200 (ms) | A100 (ms)", "8 | 2048 | 300.0 | 410.0"
    )

    found = [c for name, c in of_text(text, tmp_path).checks if name == "peak"]

    assert [(c.claim, c.verdict) for c in found] == [
        ("H200 (ms) 300.0", GOOD),
        ("A100 (ms) 410.0", NEVER),
    ]


def test_times_of_a_part_are_not_held_against_the_whole(tmp_path: Path) -> None:
    text = "GPU: H100 SXM, fp16\n\n## Model (32 layers, 4096 hidden)\n\n" + grid(
        "batch | seq | softmax (ms) | total (ms)", "8 | 2048 | 2.0 | 400.0"
    )

    assert not wrong(of_text(text, tmp_path))


def test_an_unreachable_target_is_impossible_and_a_modest_one_is_not(tmp_path: Path) -> None:
    text = "GPU: H100 SXM, fp16\n\n" + grid(
        "M | N | K | target (ms)", "8192 | 8192 | 8192 | <2.0", "8192 | 8192 | 8192 | <0.5"
    )

    assert verdicts(of_text(text, tmp_path), "peak") == [(1, GOOD), (2, NEVER)]


def test_bandwidth_is_bounded_by_the_memory_unless_it_fits_the_cache(tmp_path: Path) -> None:
    text = "GPU: NVIDIA H100 SXM\n\n" + grid(
        "bytes moved | bandwidth (GB/s)",
        "2.0 GB | 2,950.1",
        "2.0 GB | 4,100.1",
        "20 MB | 4,100.1",
    )

    assert verdicts(of_text(text, tmp_path), "bandwidth") == [(1, GOOD), (2, NEVER), (3, UNKNOWN)]


def test_bandwidth_is_bytes_by_time(tmp_path: Path) -> None:
    text = grid("size | ms | GB/s", "2.0 GB | 1.00 | 2000", "2.0 GB | 1.00 | 3111")

    assert verdicts(of_text(text, tmp_path), "bandwidth") == [(1, GOOD), (2, BAD)]


def test_memory_holds_the_weights_and_fits_the_gpu(tmp_path: Path) -> None:
    text = "GPU: NVIDIA H100 SXM\n\n" + grid(
        "model | peak memory (GB)", "a | 79.0", "b | 90.0", "c | 12.3"
    )
    mapping: dict[str, Any] = {
        "dtype": "fp16",
        "settings": {"layers": 32, "d_model": 4096, "d_ff": 16384},
        "work": {"kind": "transformer"},
    }

    found = of_text(text, tmp_path, mapping)

    # 32 · 12 · 4096² weights of two bytes are 12.9 GB; 12.3 may be GiB.
    assert verdicts(found, "memory") == [
        (1, GOOD), (1, GOOD), (2, NEVER), (2, GOOD), (3, GOOD), (3, GOOD),
    ]  # fmt: skip
    assert ("memory", 1, 1, NEVER) in wrong(of_text(text.replace("79.0", "9.5"), tmp_path, mapping))


def test_requests_in_flight_are_rate_times_latency(tmp_path: Path) -> None:
    text = grid(
        "concurrency | QPS | latency (ms)",
        "8 | 100.1 | 79.1",
        "8 | 200.1 | 79.1",
        " | 200.1 | 79.1",
    )

    assert verdicts(of_text(text, tmp_path), "concurrency") == [(1, GOOD), (2, NEVER), (3, UNKNOWN)]


def test_a_share_of_the_peak_is_the_rate_by_the_peak(tmp_path: Path) -> None:
    text = "GPU: H100 SXM\n\n" + grid(
        "dtype | TFLOP/s | MFU (%)", "bf16 | 500 | 50.5", "bf16 | 500 | 61.0", "bf16 | 500 | 104.0"
    )

    assert verdicts(of_text(text, tmp_path), "efficiency") == [
        (1, GOOD), (1, GOOD), (2, GOOD), (2, BAD), (3, NEVER), (3, BAD),
    ]  # fmt: skip


def test_deviation_over_mean_and_deviation_within_range(tmp_path: Path) -> None:
    text = grid(
        "mean (ms) | std (ms) | min (ms) | max (ms) | cv",
        "10.00 | 0.10 | 9.80 | 10.20 | 0.010",
        "10.00 | 0.10 | 9.80 | 10.20 | 0.100",
        "10.00 | 0.90 | 9.80 | 10.20 | 0.090",
        "10.00 | 0.10 | 10.10 | 10.20 | 0.010",
    )

    found = verdicts(of_text(text, tmp_path), "statistics")

    assert {row for row, one in found if one == BAD} == {2, 3, 4}


def test_parts_of_one_whole_agree_on_it(tmp_path: Path) -> None:
    text = grid(
        "Time | Total Time | Name",
        "50.0% | 60.0 ms | a",
        "25.0% | 30.0 ms | b",
        "25.0% | 10.0 ms | c",
        "5.0% | 6.0 ms | d",
    )

    assert [one for _, one in verdicts(of_text(text, tmp_path), "shares")] == [
        GOOD,
        GOOD,
        BAD,
        GOOD,
    ]


def test_totals_of_counts_by_row_and_column(tmp_path: Path) -> None:
    text = grid(
        "suite | a | b | total",
        "x | 8/8 | 7/8 | 15/16",
        "y | 8/8 | 8/8 | 15/16",
        "total | 16/16 | 15/16 | 31/32",
    )

    assert {row for row, one in verdicts(of_text(text, tmp_path), "totals") if one == BAD} == {2, 3}


def test_sums_of_the_mapping(tmp_path: Path) -> None:
    text = grid("fwd (ms) | bwd (ms) | step (ms)", "1.0 | 2.0 | 3.0", "1.0 | 2.0 | 3.4")
    mapping = {"table": [{"sums": [{"total": "step (ms)", "parts": ["fwd (ms)", "bwd (ms)"]}]}]}

    assert verdicts(of_text(text, tmp_path, mapping), "sums") == [(1, GOOD), (2, BAD)]


def test_one_thing_has_one_value_wherever_it_stands(tmp_path: Path) -> None:
    text = (
        "# One\n\n" + grid("batch | eager (ms)", "1 | 100.0", "2 | 200.0")
        + "\n# Two\n\n" + grid("batch | eager (ms)", "1 | 103.0", "2 | 450.0")
    )  # fmt: skip
    mapping = {"table": [{"columns": {"eager (ms)": {"series": "eager"}}}]}

    assert verdicts(of_text(text, tmp_path, mapping), "repeats") == [(1, GOOD), (2, BAD)]
    assert verdicts(of_text(text, tmp_path, {**mapping, "tolerance": 0.01}), "repeats") == [
        (1, BAD),
        (2, BAD),
    ]
    assert not verdicts(of_text(text, tmp_path), "repeats")


def test_a_formula_of_the_mapping_speaks_of_settings_and_columns(tmp_path: Path) -> None:
    text = grid(
        "groups | latency (ms) | actual (TFLOP/s) | effective (TFLOP/s)",
        "800 | 0.510 | 3.29 | 16.45",
        "800 | 0.510 | 6.58 | 16.45",
    )
    columns = {
        "latency (ms)": {"as": "latency"},
        "actual (TFLOP/s)": {"as": "actual", "formula": "groups * 2 * 128 ** 2 * 64 / latency"},
        "effective (TFLOP/s)": {"formula": "actual / (1 - 4/5)"},
    }

    found = of_text(text, tmp_path, {"table": [{"columns": columns}]})

    assert verdicts(found, "formulas") == [(1, GOOD), (1, GOOD), (2, BAD), (2, BAD)]


def test_a_formula_holds_if_one_reading_of_2k_does(tmp_path: Path) -> None:
    text = grid("seq | ms | tok/s", "2K | 10.0 | 204,800", "2K | 10.0 | 200,001", "2K | 10.0 | 9")
    columns = {"ms": {"as": "t"}, "tok/s": {"formula": "seq / t"}}

    found = of_text(text, tmp_path, {"table": [{"columns": columns}]})

    assert verdicts(found, "formulas") == [(1, GOOD), (2, GOOD), (3, BAD)]


def test_parameters_follow_from_layers_and_widths(tmp_path: Path) -> None:
    text = grid(
        "layers | d_model | d_ff | vocab | params",
        "48 | 1600 | 6400 | 50257 | 1.56B",
        "48 | 1600 | 6400 | 50257 | 2.8B",
    )

    assert verdicts(of_text(text, tmp_path), "parameters") == [(1, GOOD), (2, BAD)]

"""What README and docs/kernels-h200.md state of our kernels on an H200 is what was measured."""

from __future__ import annotations

import re
import statistics
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tracelens.__main__ import run
from tracelens.bench import results

if TYPE_CHECKING:
    from tracelens.bench.cell import Row
    from tracelens.bench.results import Results

ROOT = Path(__file__).parents[2]
FILE = ROOT / "samples" / "kernels-h200.json.gz"
PAGE = ROOT / "docs" / "kernels-h200.md"


@cache
def sample() -> Results:
    return results.load(FILE)


def row(name: str, kernel: str, operation: str, **shape: int) -> Row:
    """Return the one row of an implementation, with a cold cache, that has these sizes."""
    (found,) = [
        one
        for one in sample().rows
        if (one.implementation, one.kernel, one.operation) == (name, kernel, operation)
        and (one.l2, one.dtype) == ("cold", "fp32" if kernel == "adamw" else "bf16")
        and shape.items() <= one.shape.items()
    ]
    return found


def ms(one: Row) -> float:
    return one.median_s * 1e3


def tflops(one: Row) -> float:
    return one.flops / one.median_s / 1e12


def tbytes(one: Row) -> float:
    return one.bytes / one.median_s / 1e12


def test_all_that_was_asked_for_was_measured() -> None:
    found = sample()

    assert found.device == "NVIDIA H200"
    assert not found.waiting
    assert not found.failed
    assert len(found.rows) == 198
    assert {one.device for one in found.rows} == {"NVIDIA H200"}
    assert {(one.quantity, one.l2) for one in found.rows} == {
        ("kernel_time", "cold"),
        ("kernel_time", "hot"),
    }


def test_medians_and_shares_are_of_the_samples() -> None:
    for one in sample().rows:
        median = statistics.median(one.samples_s)
        assert one.n == len(one.samples_s)
        assert one.median_s == pytest.approx(median, rel=1e-12)
        assert one.mad_s == pytest.approx(
            statistics.median(abs(x - median) for x in one.samples_s), rel=1e-6
        )
        if one.share is not None:
            assert one.bound_s is not None
            assert one.share == pytest.approx(one.bound_s / median, rel=1e-9)


def test_no_output_was_further_off_than_is_allowed() -> None:
    for one in sample().rows:
        assert all(error <= one.allowed.get(name, 0.0) for name, error in one.errors.items())


def test_nothing_is_faster_than_the_data_sheet_allows() -> None:
    assert {one.flag for one in sample().rows} == {"", "above the measured ceiling"}
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    held, unsettled = (
        sum(bool(one.throttled) for one in sample().rows),
        sum(not one.settled for one in sample().rows),
    )
    assert f"{held} of the {len(sample().rows)} rows" in text
    assert f"{unsettled} are not known to ± 0.5 %" in text


def test_operations_and_bytes_are_those_of_the_shapes() -> None:
    both = row("tracelens", "flash_attention", "forward", batch=4, queries=8192, causal=0)
    seen = row("tracelens", "flash_attention", "forward", batch=1, queries=16384, causal=1)

    assert both.flops == 4 * (4 * 16) * 8192**2 * 128
    assert seen.flops == 4 * 16 * 64 * (16384 * 16385 // 2)
    assert row("tracelens", "softmax", "forward", columns=8192).bytes == 2 * 2 * 8192**2
    assert row("tracelens", "adamw", "step").bytes == 7 * 4 * 537 * 10**6
    assert row("tracelens", "grouped_matmul", "forward", groups=16, skew=0).flops == (
        2 * 32768 * 4096**2
    )


README: tuple[tuple[Any, ...], ...] = (
    # what, ours, beside: a number for each, as the rows of README's table say them
    ("attention 1 × 16 × 16384 × 64", ms, ("flash_attention", "forward_backward"),
     {"batch": 1, "causal": 1}, ("tracelens", "sdpa-cudnn", "sdpa-flash")),
    ("attention forward 4 × 16 × 8192", tflops, ("flash_attention", "forward"),
     {"batch": 4, "queries": 8192, "causal": 0}, ("tracelens", "sdpa-cudnn", "sdpa-flash")),
    ("AdamW, 537 M", tbytes, ("adamw", "step"), {}, ("tracelens", "fused")),
    ("cross-entropy and its gradient", ms, ("cross_entropy", "in-place"), {},
     ("tracelens", "compile", "eager")),
    ("grouped product, 16 × 2048", tflops, ("grouped_matmul", "forward"),
     {"groups": 16, "skew": 0}, ("tracelens", "grouped-mm")),
    ("LayerNorm backward, 8192 × 32768", tbytes, ("layernorm", "backward"),
     {"columns": 32768}, ("tracelens", "eager")),
)  # fmt: skip


@pytest.mark.parametrize("said", README, ids=lambda said: said[0])
def test_readme_says_what_was_measured(said: tuple[Any, ...]) -> None:
    what, rate, place, shape, names = said
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {what}")]
    _, ours, beside, _ = line.strip("| ").split(" | ")

    told = [float(ours.split()[0]), *map(float, re.findall(r"(?<![-\w])[\d.]*\d(?= |,|$)", beside))]

    measured = [rate(row(name, *place, **shape)) for name in names]
    assert told == pytest.approx(measured, rel=0.01)
    assert f"{measured[0]:.3g}" == ours.split()[0]


def test_the_page_has_the_tables_that_the_rows_give(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("triton")
    from benchmarks import kernels

    monkeypatch.setenv("TRACELENS_CEILINGS", str(ROOT / "samples" / "ceilings-h200.json"))
    text = PAGE.read_text(encoding="utf-8")

    page = kernels.page(sample())

    assert text[text.index("## flash attention\n") :] == page
    assert page.count("**not met**") == 8
    assert "not measured" not in page


def test_what_the_page_says_was_missed_is_what_was_missed() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## flash attention\n")[0]
    norms = {
        name: [f"{tbytes(row('tracelens', name, 'forward', rows=r, columns=c)):.2f}"
               for r, c in ((8192, 8192), (4096, 16384), (8192, 32768))]
        for name in ("layernorm", "rmsnorm")
    }  # fmt: skip

    first, second, third = norms["layernorm"]
    assert f"| {first} at 8192², {second} at 4096 × 16384, {third} at 8192 × 32768 " in text
    assert f"(RMSNorm: {', '.join(norms['rmsnorm'])})" in text
    compiled = row("compile", "layernorm", "forward", columns=8192)
    assert f"torch.compile reaches {tbytes(compiled):.2f} at 8192²" in text

    slides = [tbytes(row("tracelens", "quant_slide", "int8", of=of)) / 4.25 for of in (8, 6, 10)]
    assert slides[0] > 0.9
    assert slides[1] > 0.9
    assert f"{100 * slides[2]:.1f} % at 8:10" in text
    (late,) = [
        one.shape for one in sample().rows
        if one.implementation == "sdpa-cudnn" and one.pair and one.pair.verdict == "too few rounds"
    ]  # fmt: skip
    assert list(late.values())[:4] == [32, 32, 4096, 128]
    assert not late["causal"]


def test_the_table_of_the_documentation_is_what_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(ROOT)
    command = "bench softmax --show samples/kernels-h200.json.gz"
    text = (ROOT / "docs" / "commands" / "bench.md").read_text(encoding="utf-8")

    status = run(command.split())

    assert status == 0
    assert f"$ tracelens {command}\n{capsys.readouterr().out}```" in text

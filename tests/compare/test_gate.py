"""Gates: what can be written, what cannot, and what comes of each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl
import pytest

from tests.loops import Kernel, Loop, side
from tracelens.analyses.compare.gate import Gate, judged, parsed
from tracelens.analyses.compare.side import HELD, PEAKS, Memory, Side
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

GEMM = "ampere_sgemm_128x64_tn"


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("total>5%", ("total", None, 0.05, "share")),
        (" total > 5 % ", ("total", None, 0.05, "share")),
        ("total>.5%", ("total", None, 0.005, "share")),
        ("total>2ms", ("total", None, 2_000_000, "ns")),
        ("idle>1.5us", ("idle", None, 1_500, "ns")),
        ("kernels>3s", ("kernels", None, 3_000_000_000, "ns")),
        ("phase:backward>3%", ("phase", "backward", 0.03, "share")),
        ("kernel:at::native::f<a>(b>c)>10%", ("kernel", "at::native::f<a>(b>c)", 0.1, "share")),
        ("memory>64MiB", ("memory", None, 64 * 2**20, "bytes")),
        ("reserved>1GB", ("reserved", None, 10**9, "bytes")),
    ],
)
def test_a_gate_is_what_is_written(text: str, gate: tuple[str, str | None, float, str]) -> None:
    found = parsed(text)

    assert (found.what, found.name, found.unit) == (gate[0], gate[1], gate[3])
    assert found.limit == pytest.approx(gate[2])


@pytest.mark.parametrize(
    "text",
    [
        "", "total", "total>", ">5%", "total>5", "total>five%", "total>-5%", "total>5%%",
        "total<5%", "total>=5%", "totl>5%", "phase>5%", "phase:>5%", "total:x>5%", "total>5MiB",
        "memory>5ms", "total>5minutes", "kernel:>1ms", "total>1e400%x",
    ],
)  # fmt: skip
def test_what_is_no_gate_is_a_usage_error_that_shows_one(text: str) -> None:
    with pytest.raises(UsageError, match="--gate"):
        parsed(text)


def pair(folder: Path, after: int, noise: int = 0) -> tuple[Side, Side]:
    """Return two runs of ten steps whose only kernel takes 100 us, and so much then."""
    sides = []
    for name, took in (("a", 100_000), ("b", after)):
        times = [took + noise * (-1) ** step for step in range(10)]
        kernels = [Kernel(GEMM, times), Kernel("gelu", [50_000] * 10, phase="backward")]
        sides.append(side(Loop(kernels).write_nsys(folder / f"{name}.sqlite")))
    return sides[0], sides[1]


def outcomes(a: Side, b: Side, *texts: str) -> list[str]:
    return [one.outcome for one in judged([parsed(text) for text in texts], a, b)]


def test_a_slowdown_above_the_limit_is_a_regression(tmp_path: Path) -> None:
    a, b = pair(tmp_path, after=110_000, noise=500)

    assert outcomes(a, b, f"kernel:{GEMM}>9%", f"kernel:{GEMM}>11%") == ["regression", "passed"]
    assert outcomes(a, b, "phase:forward>9ms", "phase:forward>9us") == ["passed", "regression"]
    assert outcomes(a, b, "phase:backward>0%", "family:gemm>5%", "total>0%") == [
        "passed", "regression", "regression",
    ]  # fmt: skip
    assert outcomes(b, a, "total>0%") == ["passed"]  # faster is no regression


def test_what_noise_explains_is_no_regression(tmp_path: Path) -> None:
    a, b = pair(tmp_path, after=101_000, noise=40_000)

    assert outcomes(a, b, "total>0%") == ["passed"]


def test_too_few_steps_are_not_judged(tmp_path: Path) -> None:
    a, b = (
        side(Loop([Kernel(GEMM, [took] * 2)]).write_nsys(tmp_path / f"{took}.sqlite"))
        for took in (100, 200)
    )
    (found,) = judged([parsed("total>5%")], a, b)

    assert found.outcome == "not judged"
    assert "at least 3" in found.why


def test_an_unknown_name_is_a_usage_error_that_names_the_nearest(tmp_path: Path) -> None:
    a, b = pair(tmp_path, after=100_000)

    with pytest.raises(UsageError, match="Did you mean backward"):
        judged([parsed("phase:bakward>5%")], a, b)
    with pytest.raises(UsageError, match=f"Did you mean {GEMM}"):
        judged([parsed(f"kernel:{GEMM[:-1]}>5%")], a, b)


def test_a_kernel_is_gated_with_what_took_its_place(tmp_path: Path) -> None:
    a, b = (
        side(Loop([Kernel(name, [took] * 5)]).write_nsys(tmp_path / f"{name}.sqlite"))
        for name, took in ((GEMM, 1_000), ("nvjet_tst", 1_200))
    )

    for name in (GEMM, "nvjet_tst"):
        assert outcomes(a, b, f"kernel:{name}>19%", f"kernel:{name}>21%") == [
            "regression",
            "passed",
        ]


def with_peak(of: Side, peak: int) -> Side:
    peaks = pl.DataFrame([(0, peak, 2 * peak, None)], schema=PEAKS, orient="row")
    held = pl.DataFrame(schema=HELD)
    return replace(of, memory=Memory(peaks, held, "snapshot", "memory.pickle"))


def test_memory_has_no_noise_and_may_be_missing(tmp_path: Path) -> None:
    a, b = pair(tmp_path, after=100_000)
    texts = ("memory>2%", "memory>4%", "memory>29B", "memory>30B", "reserved>59B")

    assert outcomes(with_peak(a, 1_000), with_peak(b, 1_030), *texts) == [
        "regression", "passed", "regression", "passed", "regression",
    ]  # fmt: skip
    assert outcomes(with_peak(a, 1_000), b, "memory>2%") == ["not judged"]


def test_many_gates_share_the_level(tmp_path: Path) -> None:
    a, b = pair(tmp_path, after=104_500, noise=3_000)
    gate = f"kernel:{GEMM}>0%"

    assert outcomes(a, b, gate) == ["regression"]
    assert set(outcomes(a, b, *[gate] * 2_000)) == {"passed"}


def test_a_gate_is_a_value() -> None:
    assert parsed("total>5%") == Gate("total>5%", "total", None, 0.05, "share")

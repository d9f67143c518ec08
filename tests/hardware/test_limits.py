"""Which ceilings work is held against: measured ones first, and what they cannot tell by data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ceilings import NAME, SEEN, result, written
from tracelens import hardware
from tracelens.errors import UnreadableError
from tracelens.hardware import measured
from tracelens.workload import Work

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.hardware.measured import Measured


def of(name: str = NAME, file: Path | None = None) -> hardware.Ceilings:
    found = hardware.ceilings(name, file)
    assert found is not None
    return found


def test_without_a_file_the_data_sheet_holds() -> None:
    found = of()

    assert found.origin == "data sheet"
    assert found.device is hardware.device(NAME)
    assert found.bandwidth_bytes_per_s == 4.8e12
    assert found.matmul_flops_per_s["bf16"] == pytest.approx(989.4e12)
    assert found.launch_s is None
    assert not found.collectives
    assert not found.is_measured("bandwidth")
    assert not found.caveats


def test_a_gpu_of_which_nothing_is_known_has_no_ceilings() -> None:
    assert hardware.ceilings("NVIDIA H2000") is None


def test_the_users_own_file_takes_the_place_of_what_it_holds_and_of_nothing_else() -> None:
    written(measured.place(NAME))

    found = of()

    assert found.origin == "measured 2026-11-20 on NVIDIA H200, driver 580.95"
    assert found.bandwidth_bytes_per_s == 4.3e12
    assert found.matmul_flops_per_s["bf16"] == 730e12
    assert found.launch_s == 2e-6
    assert found.ridge("bf16") == pytest.approx(730 / 4.3)
    assert found.measured == {"bandwidth", "matmul.bf16", "launch"}
    assert found.origin_of("matmul.bf16") == found.origin
    # What was not measured is stated.
    assert found.matmul_flops_per_s["fp16"] == pytest.approx(989.4e12)
    assert found.vector_flops_per_s == pytest.approx(66.9e12)
    assert found.origin_of("matmul.fp16") == "data sheet"
    assert not found.is_measured("vector")


def test_collectives_are_told_by_size() -> None:
    written(measured.place(NAME))

    small, large = of().collectives["all_reduce"]

    assert (small.bytes, large.bytes) == (2**10, 2**30)
    assert large == hardware.Collective(2, 2**30, 1e-3, 3e11, "nccl")


def test_a_named_file_comes_before_the_environment_and_that_before_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_copy(value: float) -> Measured:
        return replace(SEEN, results=[result("copy", value)])

    written(measured.place(NAME), with_copy(4.1e12))
    assert of().bandwidth_bytes_per_s == 4.1e12

    monkeypatch.setenv("TRACELENS_CEILINGS", str(written(tmp_path / "a", with_copy(4.2e12))))
    assert of().bandwidth_bytes_per_s == 4.2e12

    named = written(tmp_path / "b", with_copy(4.3e12))
    assert of(file=named).bandwidth_bytes_per_s == 4.3e12


def test_a_file_of_another_gpu_says_nothing_of_this_one(tmp_path: Path) -> None:
    file = written(tmp_path / "h200.json")

    found = of("NVIDIA A100-SXM4-40GB", file)

    assert found.origin == "data sheet"
    assert found.bandwidth_bytes_per_s == 1.555e12
    assert found.caveats == ("h200.json was measured on NVIDIA H200, and is not used.",)


def test_a_named_file_that_is_damaged_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bad.json"
    file.write_text("{", encoding="utf-8")

    with pytest.raises(UnreadableError, match=r"bad\.json"):
        hardware.ceilings(NAME, file)
    monkeypatch.setenv("TRACELENS_CEILINGS", str(file))
    with pytest.raises(UnreadableError, match=r"bad\.json"):
        hardware.ceilings(NAME)


def test_the_users_own_file_that_is_damaged_is_passed_over_and_named() -> None:
    file = measured.place(NAME)
    file.parent.mkdir(parents=True)
    file.write_text("{", encoding="utf-8")

    found = of()

    assert found.origin == "data sheet"
    (caveat,) = found.caveats
    assert str(file) in caveat
    assert "The data sheet takes its place." in caveat


def test_a_measured_rate_that_no_clock_explains_is_not_believed(tmp_path: Path) -> None:
    wrong = replace(SEEN, results=[result("matmul.bf16", 1.2e15), result("copy", 4.2e12)])

    found = of(file=written(tmp_path / "file.json", wrong))

    assert found.matmul_flops_per_s["bf16"] == pytest.approx(989.4e12)
    assert found.origin_of("matmul.bf16") == "data sheet"
    assert found.is_measured("bandwidth")
    (caveat,) = found.caveats
    assert "matmul.bf16" in caveat


def test_a_gpu_that_is_not_listed_has_what_was_measured(tmp_path: Path) -> None:
    other = replace(
        SEEN, device="Some GPU", results=[result("copy", 1e12), result("matmul.fp32", 5e13)]
    )

    found = of("Some GPU", written(tmp_path / "file.json", other))

    assert found.device is None
    assert found.title == "Some GPU"
    assert found.bandwidth_bytes_per_s == 1e12
    assert dict(found.matmul_flops_per_s) == {"fp32": 5e13}
    assert found.vector_flops_per_s == 5e13
    assert found.is_measured("vector")
    assert hardware.bound([Work("copy", bytes=10**12, matmul=False)], found) == hardware.Bound(
        1.0, "memory"
    )
    assert hardware.bound([Work("matmul", flops=1, dtype="bf16")], found) is None


def test_a_bound_by_measured_ceilings_is_longer_than_by_the_data_sheet() -> None:
    written(measured.place(NAME))
    stated = hardware.device(NAME)
    assert stated is not None
    work = [Work("matmul", flops=10**15, dtype="bf16"), Work("copy", bytes=43 * 10**11)]

    by_measure, by_data = hardware.bound(work, of()), hardware.bound(work, stated)

    assert by_measure is not None
    assert by_data is not None
    assert by_measure.seconds == pytest.approx(1 / 0.73 + 1.0)
    assert by_data.seconds == pytest.approx(1 / 0.9894 + 4.3 / 4.8)


@pytest.mark.parametrize(
    ("name", "achieved", "said"),
    [
        ("matmul.bf16", 700e12, ""),
        ("matmul.bf16", 730e12, ""),
        ("matmul.bf16", 731e12, "above the measured ceiling"),
        ("matmul.bf16", 989e12, "above the measured ceiling"),
        ("matmul.bf16", 990e12, "above the data sheet"),
        ("matmul.bf16", 1070e12, "above the data sheet"),
        ("matmul.bf16", 1190e12, "impossible"),
        ("matmul.fp16", 980e12, ""),
        ("bandwidth", 4.5e12, "above the measured ceiling"),
        ("bandwidth", 4.9e12, "above the data sheet"),
        ("bandwidth", 5.0e12, "impossible"),
        ("vector", 1e12, ""),
        ("matmul.fp4", 1e18, ""),
    ],
)
def test_what_is_too_good_is_called_so(name: str, achieved: float, said: str) -> None:
    written(measured.place(NAME))

    assert of().verdict(name, achieved) == said


@given(st.floats(0, 1e16), st.floats(0, 1e16))
def test_a_higher_rate_is_never_judged_more_kindly(a: float, b: float) -> None:
    order = ["", "above the measured ceiling", "above the data sheet", "impossible"]
    stated = hardware.device(NAME)
    assert stated is not None
    held = replace(
        hardware.of_device(stated),
        matmul_flops_per_s={"bf16": 7e14},
        measured=frozenset({"matmul.bf16"}),
    )

    low, high = sorted((a, b))

    assert order.index(held.verdict("matmul.bf16", low)) <= order.index(
        held.verdict("matmul.bf16", high)
    )

"""The data on GPUs: found by the names that drivers give, and consistent in itself."""

from __future__ import annotations

import contextlib
import gzip
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens import hardware
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = hardware.devices()


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("NVIDIA B200", "B200"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM 40 GB"),
        ("A100-SXM4-40GB", "A100 SXM 40 GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40 GB"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80 GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80 GB"),
        ("NVIDIA A10", "A10"),
        ("Tesla V100-SXM2-16GB", "V100 SXM2 16 GB"),
        ("Tesla V100-PCIE-32GB", "V100 PCIe 32 GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("Quadro RTX 6000", "Quadro RTX 6000"),
        ("NVIDIA TITAN RTX", "TITAN RTX"),
        ("NVIDIA GeForce RTX 5080", "RTX 5080"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 3070 Ti", "RTX 3070 Ti"),
        ("NVIDIA RTX 5000 Ada Generation Laptop GPU", "RTX 5000 Ada Laptop"),
    ],
)
def test_a_gpu_is_known_by_the_name_the_driver_gives_it(said: str, known: str) -> None:
    found = hardware.device(said)

    assert found is not None
    assert found.name == known


@pytest.mark.parametrize(
    "name",
    [
        "",
        "NVIDIA",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3070 Ti Laptop GPU",
        "NVIDIA GeForce RTX 5080 Laptop GPU",
        "NVIDIA A1000",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A100-SXM-64GB",
        "H2000",
        "NVIDIA H200\n",
        "NVIDIA H200\x00",
        "NVIDIA " * 100_000 + "H200",
    ],
)
def test_a_gpu_that_is_not_listed_has_no_ceilings_whatever_it_is_like(name: str) -> None:
    assert hardware.device(name) is None


@given(st.text())
def test_no_name_does_harm(name: str) -> None:
    found = hardware.device(name)

    assert found is None or found in KNOWN


def test_every_gpu_is_found_once_and_by_a_name_of_its_own() -> None:
    names = [one.name for one in KNOWN]

    assert len(set(names)) == len(names)
    assert all(one.sources for one in KNOWN)
    assert all(source.url.startswith("https://") for one in KNOWN for source in one.sources)


@pytest.mark.parametrize("gpu", KNOWN, ids=lambda gpu: gpu.name)
def test_two_of_four_zeros_double_a_rate(gpu: hardware.Device) -> None:
    for dtype, sparse in gpu.sparse_flops_per_s.items():
        assert sparse == pytest.approx(2 * gpu.matmul_flops_per_s[dtype], rel=0.015), dtype
    for dtype, fast in gpu.acc16_flops_per_s.items():
        assert fast == pytest.approx(2 * gpu.matmul_flops_per_s[dtype], rel=0.015), dtype


@pytest.mark.parametrize("gpu", [one for one in KNOWN if one.boost_hz], ids=lambda gpu: gpu.name)
def test_fp32_is_what_units_and_clock_give(gpu: hardware.Device) -> None:
    assert gpu.sm_count
    assert gpu.fp32_lanes
    assert gpu.boost_hz

    by_units = gpu.sm_count * gpu.fp32_lanes * 2 * gpu.boost_hz

    assert gpu.vector_flops_per_s == pytest.approx(by_units, rel=0.02)


@pytest.mark.parametrize("gpu", KNOWN, ids=lambda gpu: gpu.name)
def test_rates_of_formats_are_in_the_ratios_of_their_widths(gpu: hardware.Device) -> None:
    rates = gpu.matmul_flops_per_s
    half = rates.get("fp16", 0.0)
    whole = {"tf32": 0.5, "bf16": 1, "fp8": 2, "fp4": 8 if "RTX" in gpu.name else 4}

    for dtype, times in whole.items():
        if dtype in rates:
            assert rates[dtype] == pytest.approx(times * half, rel=0.015), dtype


@pytest.mark.parametrize("gpu", KNOWN, ids=lambda gpu: gpu.name)
def test_a_limit_is_never_below_what_is_stated(gpu: hardware.Device) -> None:
    names = ["bandwidth", "vector", *(f"matmul.{dtype}" for dtype in gpu.matmul_flops_per_s)]

    for name in names:
        stated, limit = gpu.rate(name), gpu.limit(name)
        assert (stated is None) == (limit is None)
        assert stated is None or limit is None or limit >= stated
    assert gpu.rate("matmul.fp3") is None
    assert gpu.limit("matmul.fp3") is None


def test_figures_worked_out_by_hand() -> None:
    h200, geforce = hardware.device("NVIDIA H200"), hardware.device("NVIDIA GeForce RTX 5080")
    assert h200 is not None
    assert geforce is not None

    # 132 SMs × 4,096 operations a cycle × 1.83 GHz, and what 1.98 GHz would give.
    assert h200.matmul_flops_per_s["bf16"] == pytest.approx(132 * 4096 * 1.83e9, rel=0.001)
    assert h200.limit("matmul.bf16") == pytest.approx(132 * 4096 * 1.98e9, rel=0.011)
    assert h200.ridge("bf16") == pytest.approx(989.4 / 4.8)
    assert h200.ridge("fp4") is None
    # Half the rate if accumulated in fp32.
    assert geforce.matmul_flops_per_s["fp16"] == 112.6e12
    assert geforce.acc16_flops_per_s["fp16"] == 225.1e12
    assert geforce.limit("matmul.fp16") == pytest.approx(225.1e12 * 1.25 * 1.01)


@pytest.mark.corpus
def test_what_recordings_say_of_their_gpus_is_what_we_say(corpus: Path) -> None:
    """The driver's own figures, in exports of other people: SMs, capability, memory, bandwidth."""
    seen: dict[str, dict[str, Any]] = {}
    for file in sorted((corpus / "nsys").glob("*.sqlite")):
        table = open_trace(file).get("devices")
        rows = [] if table is None else table.collect().to_dicts()
        seen |= {row["name"]: row for row in rows if row["name"] and row["sm_count"]}

    assert len(seen) == 10
    for name, row in seen.items():
        gpu = hardware.device(name)
        assert gpu is not None, name
        assert gpu.sm_count == row["sm_count"], name
        assert gpu.capability == row["capability"], name
        assert gpu.memory_bytes is not None
        assert 0.93 < row["memory_bytes"] / gpu.memory_bytes < 1.0, name
        limit = gpu.limit("bandwidth")
        assert limit is not None
        assert 0.97 * gpu.bandwidth_bytes_per_s < row["bandwidth_bytes_per_s"] < limit, name


@pytest.mark.corpus
def test_the_caches_and_clocks_of_recordings_are_ours(corpus: Path) -> None:
    seen = set()
    for file in sorted((corpus / "nsys").glob("*.sqlite")):
        for name, l2_bytes, clock_hz in _gpus(file):
            gpu = hardware.device(name)
            assert gpu is not None
            assert gpu.l2_bytes == l2_bytes, name
            if gpu.boost_hz:
                assert clock_hz <= gpu.boost_hz * gpu.clock_headroom, name
            seen.add(name)

    assert len(seen) == 10


def _gpus(file: Path) -> list[tuple[str, int, int]]:
    """Read name, cache and clock of each GPU by plain SQL; some exports have no such table."""
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as db:
        tables = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'TARGET_INFO_GPU'")
        if not tables.fetchall():
            return []
        sql = "SELECT DISTINCT name, l2CacheSize, clockRate FROM TARGET_INFO_GPU WHERE smCount > 0"
        return db.execute(sql).fetchall()


@pytest.mark.corpus
def test_the_gpus_of_kineto_recordings_are_known(corpus: Path) -> None:
    file = corpus / "kineto" / "three-streams-overlap-h200.json.gz"
    about = json.loads(gzip.decompress(file.read_bytes()))["deviceProperties"][0]

    gpu = hardware.device(about["name"])

    assert gpu is not None
    assert gpu.sm_count == about["numSms"]
    assert gpu.capability == f"{about['computeMajor']}.{about['computeMinor']}"

"""Whole documents give the verdicts that stand beside them: ours with planted errors, and more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.audit.auditing import HERE, audited, compare, golden, wrong
from tracelens.audit.verdicts import Verdict

if TYPE_CHECKING:
    from pathlib import Path

IMPOSSIBLE, INCONSISTENT = Verdict.IMPOSSIBLE, Verdict.INCONSISTENT
OURS = ("inference.md", "serving.csv", "attention.json", "kernels.txt")
SEEDS = ("000", "001", "002", "003", "004")


@pytest.mark.parametrize("name", OURS)
def test_our_documents_are_judged_as_expected(name: str, update_samples: bool) -> None:
    judged = audited(HERE / "documents" / name)

    compare(golden(judged), HERE / "expected" / f"{name}.csv", update=update_samples)


def test_every_error_that_was_planted_is_found_and_nothing_else() -> None:
    assert wrong(audited(HERE / "documents" / "inference.md")) == [
        ("fractions", 0, 0, INCONSISTENT),  # 46/48 is 95.8 %
        ("throughput", 1, 3, INCONSISTENT),  # 49,440 tok/s, digits turned round
        ("speedup", 1, 5, INCONSISTENT),  # 0.88x is the inverse of 1.13x
        ("peak", 1, 6, IMPOSSIBLE),  # 858 TFLOP in 350 ms
        ("efficiency", 2, 3, IMPOSSIBLE),  # 137 %
        ("peak", 2, 3, IMPOSSIBLE),
        ("efficiency", 2, 4, INCONSISTENT),  # 695 of 989 is 70 %
        ("flops_rate", 2, 4, INCONSISTENT),  # K = 1024 in 231 µs is 595 TFLOP/s
        ("bandwidth", 3, 2, IMPOSSIBLE),  # 4.0 of 3.35 TB/s
        ("memory", 3, 2, IMPOSSIBLE),  # 96 GB on 80
        ("totals", 4, 2, INCONSISTENT),  # 22/24
        ("totals", 4, 3, INCONSISTENT),
    ]
    assert wrong(audited(HERE / "documents" / "serving.csv")) == [
        ("statistics", 1, 3, INCONSISTENT),  # p50 above p95
        ("concurrency", 1, 4, IMPOSSIBLE),  # 66 in flight of 32
        ("counts_per_second", 1, 5, INCONSISTENT),  # 1000 in 5.11 s
    ]
    assert wrong(audited(HERE / "documents" / "attention.json")) == [
        ("flops_rate", 1, 2, INCONSISTENT),
        ("peak", 1, 2, IMPOSSIBLE),
        ("flops_rate", 1, 3, INCONSISTENT),
        ("peak", 1, 3, IMPOSSIBLE),
    ]
    assert wrong(audited(HERE / "documents" / "kernels.txt")) == [
        ("shares", 1, 4, INCONSISTENT),
        ("statistics", 1, 4, INCONSISTENT),
    ]


def test_a_claim_in_words_is_checked_by_its_formula() -> None:
    found = wrong(
        audited(HERE / "documents" / "inference.md", HERE / "documents" / "inference.toml")
    )

    assert ("claims", 0, 1, INCONSISTENT) in found


@pytest.mark.corpus
@pytest.mark.parametrize("number", SEEDS)
def test_documents_of_others_are_judged_as_expected(
    number: str, seeds: Path, update_samples: bool
) -> None:
    judged = audited(next(seeds.glob(f"{number}_*")), HERE / "mappings" / f"{number}.toml")

    compare(golden(judged), HERE / "expected" / f"{number}.csv", update=update_samples)


@pytest.mark.corpus
def test_impossible_rows_and_wrong_percentages_are_found_without_a_mapping(seeds: Path) -> None:
    found = {n: wrong(audited(next(seeds.glob(f"{n}_*")))) for n in SEEDS}

    assert found == {
        "000": [("changes", 0, 0, INCONSISTENT)],  # 80.6 to 41.8 is 48 %, not 35
        "001": [("fractions", 0, 0, INCONSISTENT)],  # 498/508 is 98.0 %
        "002": [],
        "003": [("peak", 12, 3, IMPOSSIBLE)],  # 1.19 PFLOP/s on an H100
        "004": [("equations", 0, 0, IMPOSSIBLE)],  # an efficiency of 313 %
    }

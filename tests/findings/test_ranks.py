"""Rules on the ranks of a job, and on the communication of one that was recorded alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.asking import Shell
from tests.findings.asked import found, is_silent, reason
from tests.kineto import Profile
from tests.ranks import STEP_NS, of_rank, write_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.asking import Row

Durations = tuple[tuple[int, ...], ...]


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell."""
    return Shell(capsys)


def of_job(shell: Shell, folder: Path, durations: Sequence[Durations]) -> dict[str, Row]:
    """Return what was found of a job whose ranks' allreduces took so long, by rule."""
    job = write_ranks(folder / "job", durations)
    return {row["rule"]: row for row in shell("summarize", job, "-f", "json").json["found"]}


def test_the_rank_that_others_wait_for_is_named(shell: Shell, tmp_path: Path) -> None:
    row = of_job(shell, tmp_path, [((9_000, 8_000),), ((5_000, 6_000),)])["skewed_ranks"]

    assert row["subject"] == "1"
    assert row["cost_ns"] == row["gain_ns"] == 4_000 + 2_000
    assert "Rank 1 is the slow one: last at 2 of 2 collectives." in row["says"]
    assert "21 % of communication" in row["says"]


@pytest.mark.parametrize("durations", [
    [((9_000, 8_000),), ((8_700, 7_700),)],
    [((9_000, 5_000),), ((5_000, 9_000),)],
], ids=["hardly late", "in turn"])  # fmt: skip
def test_ranks_that_come_nearly_together_or_in_turn_are_not_skewed(
    shell: Shell, tmp_path: Path, durations: list[Durations]
) -> None:
    assert "skewed_ranks" not in of_job(shell, tmp_path, durations)


def test_communication_that_nothing_hides_is_told_with_the_rank(
    shell: Shell, tmp_path: Path
) -> None:
    # Of each step, 2,000 to 12,000 ns are computation; allreduces begin at 4,000.
    row = of_job(shell, tmp_path, [((28_000,),), ((18_000,),)])["exposed_communication"]

    assert row["subject"] == "0"
    assert row["cost_ns"] == 4_000 + 28_000 - 12_000
    assert "most on rank 0" in row["says"]


def test_hidden_communication_is_left_alone(tmp_path: Path) -> None:
    assert is_silent("exposed_communication", of_rank(0, [(8_000,)]), tmp_path)


def test_one_rank_alone_shows_what_is_exposed_and_not_who_is_late(tmp_path: Path) -> None:
    trace = of_rank(0, [(28_000,)])

    finding = found("exposed_communication", trace, tmp_path)

    assert finding.cost_ns == 20_000
    assert finding.says.startswith(
        "Communication that no computation hides takes 67 % of the time."
    )
    assert "fewer than two ranks" in reason("skewed_ranks", trace, tmp_path)


def test_who_does_not_communicate_is_not_asked(tmp_path: Path) -> None:
    trace = Profile()
    trace.thread("python3").kernel("gemm", at=0, run=(1_000, 2_000))

    assert is_silent("exposed_communication", trace, tmp_path)
    assert is_silent("skewed_ranks", trace, tmp_path)


def test_what_the_idlest_rank_does_is_told_beside_the_job(shell: Shell, tmp_path: Path) -> None:
    rows = of_job(shell, tmp_path, [((8_000,),) * 3, ((8_000,),) * 3])

    # Between steps of 100 µs the GPU has 12 µs of work.
    assert rows["launch_bound"]["says"].startswith("Rank 0: The GPU idles")
    assert rows["launch_bound"]["cost_ns"] <= 3 * STEP_NS

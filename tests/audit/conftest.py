"""What the tests of the audit share: documents of ours, and the five of other people's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.asking import Shell

SEEDS = Path(__file__).parents[3] / "shared" / "seeds"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell."""
    return Shell(capsys)


@pytest.fixture(scope="session")
def seeds() -> Path:
    """Return the folder of documents that are not part of the repository."""
    if not SEEDS.is_dir():
        pytest.skip("the corpus of recordings is absent: ../shared/seeds")
    return SEEDS

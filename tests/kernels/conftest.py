"""Kernels run on the GPU, or else in Triton's interpreter (see tests/conftest.py)."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")


@pytest.fixture
def device() -> str:
    """The device that kernels are tested on."""
    return "cuda" if torch.cuda.is_available() else "cpu"

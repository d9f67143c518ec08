"""Kernels run in Triton's interpreter where there is no GPU; it is chosen before triton loads."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def device() -> str:
    """The device that kernels are tested on."""
    return "cuda" if torch.cuda.is_available() else "cpu"

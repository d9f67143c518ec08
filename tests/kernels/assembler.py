"""What NVIDIA's assembler says of kernels for Hopper, which it compiles without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
from tracelens_kernels import _checks

if TYPE_CHECKING:
    from pathlib import Path

NEEDS_TRITON: Final = pytest.mark.skipif(
    bool(_checks.unknown_triton()), reason="needs Triton 3.6: Gluon changes"
)
WAITING: Final = "Potential Performance Loss"
"""Said (C7510 and the like) where it made wgmma wait, which halves the speed."""


def says(code: str, cache: Path) -> str:
    """Return what is said while a program compiles kernels, into a cache that is its own."""
    env = os.environ | {
        "TRITON_INTERPRET": "0",
        "TRITON_DUMP_PTXAS_LOG": "1",
        "TRITON_CACHE_DIR": str(cache),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    log = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert log.returncode == 0, log.stderr
    return log.stdout

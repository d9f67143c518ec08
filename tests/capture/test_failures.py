"""What an error was: real ones where they can be had, torch's words where they cannot."""

from __future__ import annotations

import pytest
import torch

from tracelens.capture.failures import Stopped, failure
from tracelens.errors import CaptureError, UsageError


def caught(size: int) -> RuntimeError:
    with pytest.raises(RuntimeError) as error:
        torch.empty(size, dtype=torch.uint8)
    return error.value


@pytest.mark.parametrize(
    "error",
    [
        caught(2**60),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"
        ),
    ],
    ids=lambda error: str(error)[:30] or type(error).__name__,
)
def test_memory_has_run_out(error: BaseException) -> None:
    found = failure(error, "step 3")

    assert (found.kind, found.at) == ("out of memory", "step 3")
    assert found.text
    assert "\n" not in found.text


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (UsageError("--heads 5 does not divide 12."), "usage", "--heads 5 does not divide 12."),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "usage",
            "torch is not installed here: pip install 'tracelens-gpu[capture]'.",
        ),
        (ModuleNotFoundError("No module named 'x'", name="x"), "error", "ModuleNotFoundError: No"),
        (CaptureError("x could not be written."), "error", "x could not be written."),
        (KeyError("weight"), "error", "KeyError: 'weight'"),
        (RuntimeError("mat1 and mat2 cannot be multiplied"), "error", "RuntimeError: mat1 and"),
        (RuntimeError("[gloo] Connection closed by peer [::1]:4"), "stopped", "RuntimeError: [gl"),
        (KeyboardInterrupt(), "stopped", "interrupted"),
        (Stopped("ended by SIGTERM"), "stopped", "ended by SIGTERM"),
        (ValueError("x" * 10_000), "error", "ValueError: xxx"),
    ],
)
def test_other_errors_are_told_apart(error: BaseException, kind: str, text: str) -> None:
    found = failure(error, "build")

    assert found.kind == kind
    assert found.text.startswith(text)
    assert len(found.text) <= 500

"""What workloads ask of torch: number formats, random tensors, and waiting for the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

TORCH_DTYPES: Final = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def number_format(dtype: str, device: str) -> torch.dtype:
    """Return torch's type of a format, and let fp32 products use TF32 or not, as it says.

    Raises:
        UsageError: the device cannot compute in it.
    """
    on_gpu = device.startswith("cuda")
    if dtype == "tf32" and not on_gpu:
        raise UsageError("--dtype tf32 needs an NVIDIA GPU; on the CPU use fp32 or bf16.")
    if on_gpu and dtype in ("tf32", "bf16") and torch.cuda.get_device_capability(device) < (8, 0):
        name = torch.cuda.get_device_name(device)
        raise UsageError(f"--dtype {dtype} needs compute capability 8.0; {name} has less.")
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    return TORCH_DTYPES[dtype]


def random(shape: Sequence[int], dtype: str, device: str) -> torch.Tensor:
    """Return normally distributed numbers; zeros would run faster than real data."""
    return torch.randn(*shape, dtype=TORCH_DTYPES[dtype], device=device)


def synchronize(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)

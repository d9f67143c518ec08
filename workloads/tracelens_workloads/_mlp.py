"""The two MLPs of transformers, as modules whose parts have names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class GeluMLP(nn.Module):
    """down(gelu(up(x))), with biases, as in GPT-2 (with the exact GELU)."""

    def __init__(self, d_model: int, d_ff: int, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, device=device, dtype=dtype)
        self.gelu = nn.GELU()
        self.down = nn.Linear(d_ff, d_model, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map x[tokens, d_model] to the same shape."""
        y: Tensor = self.down(self.gelu(self.up(x)))
        return y


class SwigluMLP(nn.Module):
    """down(silu(gate(x)) · up(x)), without biases (Shazeer, GLU Variants, arXiv:2002.05202)."""

    def __init__(self, d_model: int, d_ff: int, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=False, device=device, dtype=dtype)
        self.up = nn.Linear(d_model, d_ff, bias=False, device=device, dtype=dtype)
        self.swiglu = Swiglu()
        self.down = nn.Linear(d_ff, d_model, bias=False, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map x[tokens, d_model] to the same shape."""
        y: Tensor = self.down(self.swiglu(self.gate(x), self.up(x)))
        return y


class Swiglu(nn.Module):
    """silu(gate) · up."""

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        """Return a tensor of the shape of both."""
        return functional.silu(gate) * up

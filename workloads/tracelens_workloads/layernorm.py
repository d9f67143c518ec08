"""LayerNorm alone: each row less its mean and over its deviation, as GPT-2 does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tracelens_workloads._rows import RowWise

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LayerNorm(RowWise):
    """y = (x - mean) / sqrt(variance + ε) · w + b, over the columns of each row.

    An element takes 7 operations forward (two sums, a difference, a square, and its scaling by
    the row, w and b) and 13 backward (what x was, dy·w, its two sums, dx, and two sums for dw
    and db).
    """

    part: ClassVar[str] = "layernorm"
    flops: ClassVar[tuple[int, int]] = (7, 13)
    vectors: ClassVar[int] = 2

    def layer(self, device: str) -> nn.Module:
        """Return torch's LayerNorm."""
        from torch import nn

        from tracelens_workloads._torch import TORCH_DTYPES

        return nn.LayerNorm(self.columns, device=device, dtype=TORCH_DTYPES[self.dtype])


WORKLOAD = LayerNorm

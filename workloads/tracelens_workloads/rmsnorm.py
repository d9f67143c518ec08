"""RMSNorm alone: each row over the root of its mean square, as Llama does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tracelens_workloads._rows import RowWise

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class RMSNorm(RowWise):
    """y = x / sqrt(mean(x²) + ε) · w, over the columns of each row.

    An element takes 4 operations forward (a square, a sum, and its scaling by the row and w) and
    9 backward (what x was, dy·w, its product's sum, dx, and the sum for dw).
    """

    part: ClassVar[str] = "rmsnorm"
    flops: ClassVar[tuple[int, int]] = (4, 9)
    vectors: ClassVar[int] = 1

    def layer(self, device: str) -> nn.Module:
        """Return torch's RMSNorm."""
        from torch import nn

        from tracelens_workloads._torch import TORCH_DTYPES

        return nn.RMSNorm(self.columns, device=device, dtype=TORCH_DTYPES[self.dtype])


WORKLOAD = RMSNorm

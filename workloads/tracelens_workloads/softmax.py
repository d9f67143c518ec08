"""Softmax of the rows of a matrix: one reading and one writing, if they stay on the chip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tracelens_workloads._rows import RowWise

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Softmax(RowWise):
    """y = exp(x - max) / Σ exp(x - max), over the columns of each row.

    An element takes 5 operations forward (maximum, difference, exponential, sum, quotient) and 4
    backward: dx = y · (dy - Σ y·dy).
    """

    part: ClassVar[str] = "softmax"
    flops: ClassVar[tuple[int, int]] = (5, 4)

    def layer(self, device: str) -> Callable[[Tensor], Tensor]:
        """Return torch's softmax."""
        del device

        def rows(x: Tensor) -> Tensor:
            return x.softmax(-1)

        return rows


WORKLOAD = Softmax

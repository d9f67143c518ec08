"""The sliding of (2N-2):2N sparsity into 2:4, in plain PyTorch.

A group of L = 2N columns of a weight, at least two of them zero, is looked at through N - 1 windows
of four columns that overlap by two: window w covers columns 2w to 2w + 3. A non-zero goes to the
first window that has fewer than two yet; so every window is 2:4 sparse, and every non-zero is in
one of them. The activation side of this is a copy: lane i of window w of group g holds column
g L + 2w + i, and the product of both is that of what they were made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

from tracelens_kernels import _checks

if TYPE_CHECKING:
    from torch import Tensor

_INTEGERS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ALIGNED: Final = 32


@dataclass(frozen=True)
class SlidePattern:
    """Two zeros in every group of `l` columns, slid into 2:4.

    `SlidePattern(4)` is 2:4 itself, `SlidePattern(8)` is 6:8 (six of eight are not zero), and
    `SlidePattern(None)` is the limit of no zeros at all: every weight has it, and slid columns are
    twice as many, so that a 2:4 product has as much to do as a dense one.

    Attributes:
        l: columns of a group: even, at least 4; None: no zeros are asked for.

    Raises:
        ValueError: there is no such pattern.
    """

    l: int | None = 8  # noqa: E741 (its name in the papers)

    def __post_init__(self) -> None:
        """Refuse odd groups."""
        if self.l is not None and (self.l < 4 or self.l % 2):
            raise ValueError(f"l is {self.l}; a group has 4, 6, 8, ... columns, or l is None.")

    def __str__(self) -> str:
        """`6:8`, as non-zeros of columns."""
        return "dense" if self.l is None else f"{self.l - 2}:{self.l}"

    @property
    def group(self) -> int:
        """Columns of a group; without zeros two columns are enough for a window."""
        return self.l or 2

    @property
    def windows(self) -> int:
        """Windows of a group, each four slid columns."""
        return max(self.group // 2 - 1, 1)

    @property
    def expansion(self) -> float:
        """Slid columns for each column: 2 - 4 / L."""
        return 4 * self.windows / self.group

    def columns(self, columns: int) -> int:
        """Return how many slid columns there are for so many columns.

        Both are padded by zeros: the columns to whole groups, and what they are slid to, to a
        multiple of 32, which sparse tensor cores take.
        """
        slid = -(-columns // self.group) * self.windows * 4
        return -(-slid // _ALIGNED) * _ALIGNED


def prune(weight: Tensor, zeros: int = 2, of: int = 8) -> Tensor:
    """Return the weight with its smallest magnitudes set to zero, `zeros` in every `of` columns.

    Args:
        weight: [N, K], any format, on any device. Columns that are missing from the last group
            count as zeros.
        zeros: how many; of equal magnitudes the first go.
        of: columns of a group.

    Raises:
        ValueError: weight is no matrix or is empty, or zeros are not between 0 and `of`.
    """
    _checks.shaped("a weight [N, K]", ok=weight.ndim == 2, weight=weight)
    _checks.not_empty(weight=weight)
    if not 0 <= zeros <= of or of < 1:
        raise ValueError(f"{zeros} of {of} columns cannot be zeros.")
    rows, columns = weight.shape
    exact = weight.float() if weight.itemsize < 4 else weight
    size = functional.pad(exact.abs(), (0, -columns % of), value=-1.0).view(rows, -1, of)
    smallest = size.argsort(dim=-1, stable=True)[..., :zeros]
    kept = torch.ones_like(size, dtype=torch.bool).scatter_(-1, smallest, value=False)
    integers = bits(weight)
    kept = kept.view(rows, -1)[:, :columns].to(integers.dtype)
    return (integers * kept).view(weight.dtype)


def slide(weight: Tensor, pattern: SlidePattern) -> Tensor:
    """Return a weight that has a pattern as a longer one that is 2:4 sparse.

    Every non-zero goes to the first window over it that has fewer than two yet. A window of group
    g gets at most the columns that the windows before it left, so this finds a place for each
    wherever the pattern holds (checked for all patterns of up to 12 columns).

    Args:
        weight: [N, K], any format, on any device.
        pattern: that it has.

    Returns:
        [N, pattern.columns(K)], with at most two non-zeros in each four columns.

    Raises:
        ValueError: weight is no matrix or is empty, or there is a group of its columns with too few
            zeros.
    """
    _checks.shaped("a weight [N, K]", ok=weight.ndim == 2, weight=weight)
    _checks.not_empty(weight=weight)
    rows, columns = weight.shape
    group, windows = pattern.group, pattern.windows
    missing = (0, -columns % group)
    groups = functional.pad(bits(weight), missing).view(rows, -1, group)
    waiting = functional.pad(_nonzero(weight), missing).view(rows, -1, group)
    slid = groups.new_zeros(rows, groups.shape[1], windows, 4)
    for window in range(windows):
        seen = slice(2 * window, min(2 * window + 4, group))
        taken = waiting[..., seen] & (waiting[..., seen].cumsum(-1) <= 2)
        slid[..., window, : taken.shape[-1]] = groups[..., seen] * taken.to(groups.dtype)
        waiting[..., seen] &= ~taken
    if waiting.any():
        row, wrong, _ = waiting.nonzero()[0].tolist()
        first = wrong * group
        raise ValueError(
            f"Row {row} has fewer than two zeros in columns {first} to {first + group - 1}: "
            f"prune(weight, 2, {group}) makes it {pattern}."
        )
    slid = slid.view(rows, -1)
    return functional.pad(slid, (0, pattern.columns(columns) - slid.shape[1])).view(weight.dtype)


def slid(values: Tensor, pattern: SlidePattern) -> Tensor:
    """Return activations [M, K] of 8 bits as slid weights want them, [M, pattern.columns(K)]."""
    columns = values.shape[-1]
    place = torch.arange(pattern.columns(columns), device=values.device)
    group, window = place // (4 * pattern.windows), place // 4 % pattern.windows
    inside = 2 * window + place % 4
    column = group * pattern.group + inside
    copied = bits(values)[..., column.clamp(max=columns - 1)]
    nothing = (column >= columns) | (inside >= pattern.group)
    return copied.masked_fill_(nothing, 0).view(values.dtype)


def is_2to4(weight: Tensor) -> bool:
    """Tell whether a matrix has at most two non-zeros in each four columns."""
    _checks.shaped("a weight [N, K]", ok=weight.ndim == 2, weight=weight)
    there = functional.pad(_nonzero(weight), (0, -weight.shape[1] % 4))
    return bool((there.view(weight.shape[0], -1, 4).sum(-1) <= 2).all())


def bits(weight: Tensor) -> Tensor:
    """A tensor as integers of its size: what is only moved needs no arithmetic of its format."""
    return weight.view(_INTEGERS[weight.itemsize])


def _nonzero(weight: Tensor) -> Tensor:
    integers = bits(weight)
    if weight.is_floating_point():  # but for the sign: there is a negative zero
        integers = integers & torch.iinfo(integers.dtype).max
    return integers != 0

"""Analyses: one file = one question, from a Linked trace to a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from tracelens.links.linked import Linked


@dataclass(frozen=True)
class Analysis:
    """One question; ``run`` raises NothingToShowError where the trace cannot answer it.

    Calling the analysis answers it once per linked trace: others may ask again.
    """

    run: Callable[[Linked], pl.DataFrame]

    def __call__(self, linked: Linked) -> pl.DataFrame:
        """Return the answer for this linked trace."""
        return linked.once(f"{self.run.__module__}.{self.run.__qualname__}", self.run)

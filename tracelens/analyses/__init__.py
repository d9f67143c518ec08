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
    """One question; ``run`` raises NothingToShowError where the trace cannot answer it."""

    run: Callable[[Linked], pl.DataFrame]

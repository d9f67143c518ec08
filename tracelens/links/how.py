"""How a GPU op came by its phase: the vocabulary of coverage."""

from __future__ import annotations

from typing import Final

import polars as pl

HOW: Final = ("own_thread", "same_process", "inferred", "ambiguous", "none", "unlinked")
"""Best first. `own_thread`: its launching thread held the phase's range. `same_process`: another
thread of the process did (autograd). `inferred`: no range, but other evidence. `ambiguous`:
threads disagree, so no phase. `none`: launched outside of every phase. `unlinked`: its launch was
not recorded, so no phase."""

HOW_TYPE: Final = pl.Enum(HOW)


def how(value: str) -> pl.Expr:
    """Return one of `HOW` as a literal."""
    return pl.lit(value, dtype=HOW_TYPE)

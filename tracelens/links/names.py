"""What kind of work each GPU op is: family and readable name, decided once per distinct name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.classify import family, short_name

if TYPE_CHECKING:
    from tracelens.trace.model import Trace


def op_names(trace: Trace, ops: pl.DataFrame) -> pl.DataFrame:
    """Return name_id, kind, name, short_name and family of every name that GPU ops bear."""
    used = ops.lazy().select("name_id", "kind").unique().collect()
    named = used.join(trace["names"].collect(), on="name_id", how="left").with_columns(
        pl.col("name").fill_null("(unnamed)")
    )
    rows = [
        (short_name(name), family(name)) if kind == "kernel" else (name, _family_of[kind])
        for name, kind in named.select("name", "kind").iter_rows()
    ]
    return named.with_columns(
        short_name=pl.Series([short for short, _ in rows], dtype=pl.String),
        family=pl.Series([fam for _, fam in rows], dtype=pl.String),
    ).sort("name_id", "kind")


_family_of = {"copy": "memcpy", "memset": "memset", "graph": "cuda_graph"}

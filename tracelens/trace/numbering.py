"""Row numbers that other tables refer to, when rows are taken away or put into another order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from tracelens.trace.schema import REFERENCES

if TYPE_CHECKING:
    from collections.abc import Mapping


def renumbered(name: str, frame: pl.LazyFrame, numbers: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Return a table of `REFERENCES` with the numbers that the rows it refers to have now.

    Its own rows go where the row that they are about is gone; `forward` becomes null.

    Args:
        name: the table's name.
        frame: its rows.
        numbers: for `gpu_ops` and `ranges`: `was` and `now` of every row, each `was` once.
    """
    for column, of in REFERENCES[name].items():
        frame = (
            frame.join(
                numbers[of], left_on=column, right_on="was", how="left", maintain_order="left"
            )
            .with_columns(pl.col("now").alias(column))
            .drop("now")
        )
    return frame.drop_nulls([column for column in REFERENCES[name] if column != "forward"])

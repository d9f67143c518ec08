"""Operations and bytes by formula against what an H200 counted, for a training step of GPT-2."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import polars as pl
import pytest

from tracelens.links.costs import costs
from tracelens.links.counters import of_linked
from tracelens.links.joined import joined
from tracelens.links.linked import link
from tracelens.readers.open import open_trace

SAMPLE = Path(__file__).parents[2] / "samples" / "gpt2-small-1layer-ncu-h200"
KEY = ["name", "dims", "types"]
L2_BYTES = 62_914_560
"""Of an H200, as ncu writes it (device__attribute_l2_cache_size)."""
OPERATIONS = {
    # One instruction for each operation on paper.
    "aten::_foreach_add_": 1.0,
    "aten::_foreach_lerp_": 1.0,
    "aten::_foreach_mul_": 1.0,
    "aten::_foreach_addcmul_": 1.0,
    "aten::div": 1.0,
    "aten::mul": 1.0,
    "aten::embedding_dense_backward": 1.0,
    # a + alpha b is a multiplication with addition.
    "aten::add": 2.0,
    "aten::add_": 2.0,
    # Roots and quotients, rounded correctly, are sequences of instructions.
    "aten::_foreach_sqrt": 5.92,
    "aten::_foreach_div_": 10.0,
    "aten::_foreach_addcdiv_": 4.0,
}
"""Counted operations for each one by formula."""
READ_AGAIN = {
    # Two kernels each read both inputs.
    "aten::native_layer_norm_backward",
    # A row of 50,257 numbers does not fit into a block: it is read again to be written.
    "aten::_log_softmax",
    "aten::_log_softmax_backward_data",
}


@lru_cache(maxsize=1)
def both() -> pl.DataFrame:
    """Return the work of each op and shape, by formula and (`counted_`…) by counters."""
    trace = open_trace(SAMPLE / "trace.json.gz", cache=False)
    made = joined(trace, open_trace(SAMPLE / "ncu.csv.gz", cache=False))
    assert made.kernels == 104
    with_counters = link(made.trace)
    formula = costs(link(trace)).filter(pl.col("source") == "shapes")
    counted = costs(with_counters, of_linked(with_counters)).filter(pl.col("source") == "counters")
    amounts = pl.col("flops", "bytes").sum()
    sums = formula.group_by(KEY).agg(amounts, pl.col("gpu_ops").sum(), pl.col("matmul").any())
    return sums.join(
        counted.group_by(KEY).agg(amounts.name.prefix("counted_")),
        on=KEY,
        nulls_equal=True,
        validate="1:1",
    )


def test_every_product_does_what_the_formula_says_and_at_most_a_thirtieth_more() -> None:
    """Tiles at the edges are filled up, results are scaled, and splits along k are added up."""
    products = both().filter("matmul")

    ratios = (products["counted_flops"] / products["flops"]).to_list()

    assert len(ratios) == 18
    assert min(ratios) >= 1
    assert max(ratios) < 1.032
    counted, formula = (int(products[name].sum()) for name in ("counted_flops", "flops"))
    assert counted / formula == pytest.approx(1, abs=0.003)


@pytest.mark.parametrize(("name", "ratio"), OPERATIONS.items())
def test_other_operations_are_those_on_paper_times_what_they_take(name: str, ratio: float) -> None:
    rows = both().filter(pl.col("name") == name, pl.col("bytes") > 0)

    assert rows.height
    for row in rows.to_dicts():
        assert row["counted_flops"] / row["flops"] == pytest.approx(ratio, rel=1e-3)


def test_no_op_moves_less_than_the_formula_but_for_what_the_cache_keeps() -> None:
    """Caches are flushed before a kernel, and results that fit stay in L2 when it ends."""
    rows = both().filter(pl.col("bytes") > 0)
    kept = rows.with_columns(left=pl.col("bytes") - pl.col("counted_bytes"))

    alike = pl.col("name") == "aten::_foreach_addcmul_"  # grad times grad is one operand
    assert kept.filter(~alike, pl.col("left") > L2_BYTES * pl.col("gpu_ops")).is_empty()
    (squares,) = kept.filter(alike).to_dicts()
    assert 0 < squares["left"] - squares["bytes"] / 4 < L2_BYTES


def test_what_moves_more_than_the_cache_holds_moves_what_the_formula_says() -> None:
    large = both().filter(
        pl.col("bytes") > 5 * L2_BYTES, ~pl.col("name").is_in([*READ_AGAIN]), pl.col("matmul")
    )

    ratios = (large["counted_bytes"] / large["bytes"]).to_list()

    assert len(ratios) == 3
    assert ratios == pytest.approx([1.03] * 3, abs=0.03)


def test_only_ops_that_read_again_or_use_a_workspace_move_more() -> None:
    rows = both().filter(pl.col("bytes") > 1_000_000)
    more = rows.filter(pl.col("counted_bytes") > 1.06 * pl.col("bytes"))

    # Products split along k write parts and add them up: two kernels for each.
    split = more.filter("matmul")
    assert set(more.filter(~pl.col("matmul"))["name"]) == READ_AGAIN
    assert (split["gpu_ops"] == 2).all()
    assert (split["counted_bytes"] / split["bytes"]).max() < 2.7  # type: ignore[operator]

"""GPU work with what it costs: each op call that launched some, its operations and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.links.op_costs import element_of, has_formula, op_cost, product_format
from tracelens.links.op_inputs import dtype
from tracelens.links.ops import calls, launched, ops_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.links.linked import Linked
    from tracelens.links.ops import TorchOps

SOURCES: Final = ("counters", "shapes", "formula")
"""What tells a cost: the GPU's own counters, the shapes of inputs, a workload's formulas."""

COUNTERS: Final = {"op_id": pl.UInt32, "flops": pl.Int64, "bytes": pl.Int64}
"""The columns of counters: of single GPU ops, what they computed and moved to and from memory."""
HOW_COUNTED: Final = {"matmul": pl.Boolean, "format": pl.String, "dtype": pl.String}
"""Further columns of counters: whether it was matrix products, in which format, or which type."""

_CALL: Final = ("name_id", "dims", "types", "inputs", "strides")
_COST: Final = {
    "flops": pl.Int64,
    "bytes": pl.Int64,
    "matmul": pl.Boolean,
    "causal": pl.Boolean,
    "alike_bytes": pl.Int64,
    "element": pl.String,
}
_LISTS: Final = '"TensorList"'
_INSIDE_THE_GPU: Final = ("kernel", "graph", "memset")
_KEY: Final = ["name", "dims", "types", "dtype", "format", "certain", "matmul", "source", "phase"]
SCHEMA: Final = {
    "name": pl.String,
    "dims": pl.String,
    "types": pl.String,
    "dtype": pl.String,
    "format": pl.String,
    "certain": pl.Boolean,
    "matmul": pl.Boolean,
    "source": pl.String,
    "phase": pl.String,
    "causal": pl.Boolean,
    "calls": pl.Int64,
    "gpu_ops": pl.Int64,
    "time_ns": pl.Int64,
    "flops": pl.Int64,
    "bytes": pl.Int64,
    "alike_bytes": pl.Int64,
}


def costs(linked: Linked, counters: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return GPU work by op, shapes, types and phase, with what it costs.

    A kernel belongs to the op that launched it; where that has no formula (the library behind a
    convolution), to the innermost op around it whose matrix products are known and not also
    those of an op inside. Work of no such op is listed by its op or, without one, by its own
    name, and has no `source`. Copies to and from the host are left out.

    Columns:

    - `format`: the number format of matrix products, `certain` unless fp32 may as well be tf32.
    - `calls`, `gpu_ops`, `time_ns`: how many calls, kernels (and memsets, copies), and their time.
    - `flops`, `bytes`: of all calls; null where not known.
    - `causal`: whether what a causal mask hides was left out.
    - `alike_bytes`: of `bytes`, what is of operands that may be the same tensor as another one.

    Args:
        linked: the trace.
        counters: what the GPU counted of its ops (`COUNTERS`, `HOW_COUNTED`). Where it did for
            every kernel of a call, that takes the place of shapes.
    """
    work = _work(linked, counters)
    found = ops_of(linked)
    if found is None:
        return _by_name(linked, work.with_columns(op_name=pl.lit(None, pl.String)))
    rows = launched(linked, found)["row"]
    priced = _priced(linked, found, rows)
    owner = _owners(linked, found, priced).gather(rows)
    op_name = found.nest["name_id"].gather(rows).to_frame("name_id")
    names = op_name.join(found.names, on="name_id", how="left", maintain_order="left")["name"]
    work = work.with_columns(owner.alias("owner"), names.alias("op_name"))
    mine = work.filter(pl.col("owner").is_not_null() & pl.col("inside"))
    rest = work.filter(pl.col("owner").is_null())
    return pl.concat([_by_call(linked, mine, priced), _by_name(linked, rest)])


def _work(linked: Linked, counters: pl.DataFrame | None) -> pl.DataFrame:
    """Return the GPU ops, in order: `inside` the GPU's memory, and what was counted of them."""
    own_memory = pl.col("kind").is_in(_INSIDE_THE_GPU) | (pl.col("copy_kind") == "DtoD")
    work = linked.with_columns_of_ops("copy_kind").select(
        "op_id",
        "name_id",
        "kind",
        phase=pl.col("phase").cast(pl.String),
        inside=own_memory.fill_null(value=False),
        time_ns=pl.col("end_ns") - pl.col("start_ns"),
    )
    columns = {**COUNTERS, **HOW_COUNTED}
    known = pl.DataFrame(schema=columns)
    if counters is not None:
        told = [name for name in columns if name in counters.columns]
        known = pl.concat([known, counters.select(told)], how="diagonal")
    counted = (
        known.lazy()
        .drop_nulls(["flops", "bytes"])
        .select("op_id", pl.exclude("op_id").name.prefix("counted_"), counted=pl.lit(value=True))
    )
    joined = work.join(counted, on="op_id", how="left", maintain_order="left", validate="m:1")
    return joined.with_columns(pl.col("counted").fill_null(value=False)).collect()


def _priced(linked: Linked, found: TorchOps, rows: pl.Series) -> pl.DataFrame:
    """Return the calls whose cost is known: `row`, what `_CALL` names, and their cost."""
    frame = calls(linked, found)
    tree = found.nest
    known = pl.Series("known", frame["flops"].is_not_null())
    outer = ~known & (tree.inside(known.cast(pl.Int64)) > 0)
    with_formula = [name for name in found.names["name"] if has_formula(name)]
    candidates = (
        frame.lazy()
        .with_columns(known, outer=outer)
        .filter(((pl.col("self_gpu_ops") > 0) | pl.col("known")) & ~pl.col("outer"))
        .select("row", *_CALL)
        .join(found.names.lazy().filter(pl.col("name").is_in(with_formula)), on="name_id")
        .collect()
    )
    distinct = candidates.select("name", *_CALL).unique()
    elements = _elements(linked, candidates, rows)
    made = [
        op_cost(name, dims, types, inputs, strides, element=elements.get((name_id, dims), ""))
        for name, name_id, dims, types, inputs, strides in distinct.iter_rows()
    ]
    columns = {name: [None if c is None else getattr(c, name) for c in made] for name in _COST}
    priced = distinct.with_columns(pl.Series(n, v, dtype=_COST[n]) for n, v in columns.items())
    priced = priced.filter(pl.col("matmul").is_not_null()).drop("name")
    return candidates.join(priced, on=_CALL, nulls_equal=True)


def _elements(
    linked: Linked, candidates: pl.DataFrame, rows: pl.Series
) -> Mapping[tuple[int, str], str]:
    """Return of calls with lists of tensors, by name_id and dims, what their kernels work on."""
    lists = candidates.filter(pl.col("types").str.contains(_LISTS, literal=True))
    if lists.is_empty():
        return {}
    launches = linked.ops.select("kind", kernel="name_id").with_columns(row=rows)
    named = linked.names.select("kind", "name", kernel="name_id")
    seen = (
        lists.select("row", "name_id", "dims")
        .join(launches, on="row")
        .select("name_id", "dims", "kernel", "kind")
        .unique()
        .join(named, on=["kernel", "kind"])
        .group_by("name_id", "dims")
        .agg(pl.col("name").sort())
    )
    return {(name_id, dims): element_of(names) for name_id, dims, names in seen.iter_rows()}


def _owners(linked: Linked, found: TorchOps, priced: pl.DataFrame) -> pl.Series:
    """Return of each op the row of the op that its own GPU work is charged to, or null."""
    tree = found.nest
    nothing = pl.repeat(None, tree.frame.height, dtype=pl.UInt32, eager=True)
    own = nothing.scatter(priced["row"], priced["row"])
    known = calls(linked, found)["flops"].is_not_null()
    around = tree.inherited(pl.select(pl.when(known).then(own))[:, 0])
    return pl.select(owner=pl.coalesce(own, around))["owner"]


def _by_call(linked: Linked, work: pl.DataFrame, priced: pl.DataFrame) -> pl.DataFrame:
    """Return the work of calls with a cost."""
    counted = pl.col("counted") | (pl.col("kind") != "kernel")
    summed = work.group_by("owner", "phase").agg(
        time_ns=pl.col("time_ns").sum(),
        gpu_ops=pl.len().cast(pl.Int64),
        counted=counted.all() & pl.col("counted").any(),
        counted_flops=pl.col("counted_flops").sum(),
        counted_bytes=pl.col("counted_bytes").sum(),
    )
    # A call whose work lies in two phases is one call, of the first of them.
    one = (
        summed.sort("owner", "phase")
        .with_columns(
            calls=(pl.int_range(pl.len()).over("owner") == 0).cast(pl.Int64),
            counted=pl.col("counted").all().over("owner"),
        )
        .join(priced, left_on="owner", right_on="row", validate="m:1")
    )
    formats = _formats(linked, work, priced)
    amount = {
        name: pl.when("counted")
        .then(pl.col(f"counted_{name}"))
        .otherwise(pl.col(name) * pl.col("calls"))
        for name in ("flops", "bytes")
    }
    source = pl.when("counted").then(pl.lit("counters")).otherwise(pl.lit("shapes"))
    priced_work = (
        one.with_columns(
            **amount,
            source=source,
            alike_bytes=pl.col("alike_bytes") * (pl.col("calls") * ~pl.col("counted")),
        )
        .join(formats, on=["name_id", "types", "dims"], how="left", nulls_equal=True)
        .with_columns(pl.col("certain").fill_null(value=True))
    )
    return _grouped(priced_work)


def _formats(linked: Linked, work: pl.DataFrame, priced: pl.DataFrame) -> pl.DataFrame:
    """Return the type of each kind of call, and of matrix products the format of arithmetic."""
    kinds = priced.select("name_id", "types", "dims", "matmul", "element").unique(
        ["name_id", "types", "dims"]
    )
    listed = pl.when(pl.col("element") != "").then("element")
    typed = kinds.with_columns(dtype(kinds["types"]).alias("dtype")).with_columns(
        dtype=pl.coalesce("dtype", listed)
    )
    by_name = pl.col("dtype").is_null() | (pl.col("dtype") == "float32")
    single = typed.filter(pl.col("matmul") & by_name)
    named = linked.names.filter(pl.col("kind") == "kernel").select("name", kernel="name_id")
    seen = (
        work.filter(pl.col("kind") == "kernel")
        .select("owner", kernel="name_id")
        .join(priced.select("name_id", "types", "dims", owner="row"), on="owner")
        .join(single, on=["name_id", "types", "dims"], how="semi", nulls_equal=True)
        .group_by("name_id", "types", "dims")
        .agg(pl.col("kernel").unique())
        .explode("kernel")
        .join(named, on="kernel")
        .group_by("name_id", "types", "dims")
        .agg(pl.col("name").sort())
    )
    names = {tuple(key): said for *key, said in seen.iter_rows()}
    told = [
        product_format(kind, names.get((name_id, types, dims), ())) if matmul else (None, True)
        for name_id, types, dims, matmul, _, kind in typed.iter_rows()
    ]
    return typed.drop("matmul", "element").with_columns(
        format=pl.Series([f for f, _ in told], dtype=pl.String),
        certain=pl.Series([c for _, c in told], dtype=pl.Boolean),
    )


def _by_name(linked: Linked, work: pl.DataFrame) -> pl.DataFrame:
    """Return the other work by the op that launched it or, without one, by its own name."""
    named = linked.names.select("name_id", "kind", "name", "short_name").unique(["name_id", "kind"])
    summed = (
        work.filter("inside")
        .group_by(
            "op_name", "name_id", "kind", "phase", "counted", *(f"counted_{n}" for n in HOW_COUNTED)
        )
        .agg(
            time_ns=pl.col("time_ns").sum(),
            gpu_ops=pl.len().cast(pl.Int64),
            flops=pl.col("counted_flops").sum(),
            bytes=pl.col("counted_bytes").sum(),
        )
        .join(named, on=["name_id", "kind"], how="left")
    )
    amount = {name: pl.when("counted").then(name) for name in ("flops", "bytes")}
    nothing = {name: pl.lit(None, pl.String) for name in ("dims", "types")}
    return _grouped(
        summed.with_columns(
            **amount,
            **nothing,
            name=pl.coalesce("op_name", pl.when("counted").then("short_name"), "name"),
            source=pl.when("counted").then(pl.lit("counters")),
            calls=pl.col("gpu_ops"),
            certain=pl.lit(value=True),
            matmul=pl.col("counted_matmul").fill_null(value=False),
            format=pl.col("counted_format"),
            dtype=pl.col("counted_dtype"),
            causal=pl.lit(value=False),
            alike_bytes=pl.lit(0, pl.Int64),
        )
    )


def _grouped(rows: pl.DataFrame) -> pl.DataFrame:
    known = {name: pl.col(name).is_not_null().all() for name in ("flops", "bytes")}
    return (
        rows.group_by(_KEY)
        .agg(
            pl.col("causal").any(),
            pl.col("calls", "gpu_ops", "time_ns").sum(),
            pl.col("alike_bytes").cast(pl.Int128).sum(),
            *(pl.when(known[n]).then(pl.col(n).cast(pl.Int128).sum()) for n in ("flops", "bytes")),
        )
        .select(pl.col(name).cast(kind, strict=False) for name, kind in SCHEMA.items())
        .with_columns(pl.col("alike_bytes").fill_null(0))
        .sort("time_ns", "name", "dims", "types", "phase", descending=[True, *[False] * 4])
    )

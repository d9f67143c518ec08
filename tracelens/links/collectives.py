"""Collectives: the GPU ops that are part of one, and how long each waited for the other ranks.

A collective ends on all ranks at about the same time, and begins on each when that rank is there.
So the shortest of its ops is that of the rank that came last, and waited for nobody: as long as
the transfer took. What longer ones took beyond that, they waited. Only durations and order are
compared, since the clocks of two hosts differ by more than a collective takes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.trace.intervals import at, innermost
from tracelens.trace.schema import COLLECTIVES

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

    from tracelens.links.linked import Linked

SCHEMA: Final[dict[str, PolarsDataType]] = {
    "rank": pl.Int32,
    "process": pl.Int32,
    "op_id": pl.UInt32,
    "start_ns": pl.Int64,
    "duration_ns": pl.Int64,
    "kind": pl.String,
    "bytes": pl.Int64,
    "group": pl.String,
    "description": pl.String,
    "group_ranks": pl.String,
    "group_size": pl.Int32,
    "sequence": pl.Int64,
    "step": pl.String,
}
"""One row per op. `process` is null where a recording is of one process alone; `bytes` are of the
whole buffer, as NCCL's tests count them; `step` is the name or number of the step it is of."""

_KINDS: Final = (
    ("allreduce", "all_reduce"),
    ("crossdevicereduce", "all_reduce"),
    ("allgather", "all_gather"),
    ("reducescatter", "reduce_scatter"),
    ("alltoall", "all_to_all"),
    ("broadcast", "broadcast"),
    ("sendrecv", "send_recv"),
)
_PLAIN_KINDS: Final = (
    ("reduce", "reduce"),
    ("gather", "gather"),
    ("scatter", "scatter"),
    ("barrier", "barrier"),
    ("send", "send"),
    ("recv", "recv"),
)
OTHER: Final = "other"
_SAME_EVERYWHERE: Final = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce")
"""Kinds whose buffer is as large on every rank."""
_POINT_TO_POINT: Final = ("send", "recv", "send_recv")

_BYTES: Final = {
    **dict.fromkeys(("double", "long", "uint64", "complexfloat"), 8),
    **dict.fromkeys(("float", "int", "uint32", "qint32", "complexhalf"), 4),
    **dict.fromkeys(("half", "bfloat16", "short", "uint16"), 2),
    **dict.fromkeys(("char", "byte", "bool", "qint8", "quint8"), 1),
    "complexdouble": 16,
}
_EIGHT_BITS: Final = re.compile(r"float8_\w+|float4_\w+_x2")


def collectives(linked: Linked) -> pl.DataFrame:
    """Return the ops that are part of a collective or point-to-point transfer, in `SCHEMA`.

    Those are what the recorder calls so, and kernels whose names do.
    """
    table = linked.trace.get("collectives")
    said = (COLLECTIVES.empty().lazy() if table is None else table).collect()
    names = linked.names.filter(pl.col("kind") == "kernel", pl.col("family") == "comm")
    if names.is_empty() and said.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    by_name = linked.ops.join(names.select("name_id", "kind"), on=["name_id", "kind"], how="semi")
    by_word = linked.ops.join(said.select("op_id"), on="op_id", how="semi")
    ops = pl.concat([by_name, by_word]).unique("op_id").sort("start_ns", "op_id")
    named = (
        ops.join(linked.names.select("name_id", "kind", "name"), on=["name_id", "kind"], how="left")
        .drop("kind")
        .join(said, on="op_id", how="left", maintain_order="left")
    )
    elements = pl.max_horizontal("in_elements", "out_elements")
    return named.select(
        rank=pl.lit(rank_of(linked), pl.Int32),
        process=pl.when(linked.ops["pid"].n_unique() > 1).then("pid"),
        op_id="op_id",
        start_ns="start_ns",
        duration_ns=pl.col("end_ns") - pl.col("start_ns"),
        kind=_kinds(named),
        bytes=elements * _each(named["dtype"], _dtype_bytes, pl.Int64),
        group="group",
        description="group_description",
        group_ranks="ranks",
        group_size="group_size",
        sequence="sequence",
        step=_steps(linked, named),
    ).cast(SCHEMA)  # type: ignore[arg-type]


def rank_of(linked: Linked) -> int | None:
    """Return the rank that a trace says it is of."""
    text = linked.trace.source.facts.get("rank", "")
    return int(text) if text.isdecimal() and int(text) < 2**31 else None


def matched(found: pl.DataFrame) -> pl.DataFrame:
    """Return the collectives of all ranks with transfer_ns, waiting_ns and is_last.

    They add up to the duration, and are null where an op has no counterpart on every rank of its
    group that was recorded. Ops are counterparts by their sequence number where recorded, else as
    the k-th of their kind and size in the group, in the same step where all ranks have the same
    steps. Point-to-point transfers have none: that one side waits is their nature.

    Args:
        found: `SCHEMA`, the rank (or process) of every row known.
    """
    group = ["group", "description", "group_ranks", "group_size"]
    member = pl.struct("rank", "process")
    by_number = pl.col("sequence").is_not_null().all().over(group)
    size = pl.when(pl.col("kind").is_in(_SAME_EVERYWHERE)).then("bytes")
    keyed = (
        found.with_columns(members=member.n_unique().over(group))
        .with_columns(same_steps=_same_steps(group, member))
        .with_columns(
            number=pl.when(by_number).then("sequence"),
            size=pl.when(~by_number).then(size),
            at_step=pl.when(~by_number & pl.col("same_steps")).then("step"),
        )
        .sort("start_ns", "op_id", maintain_order=True)
    )
    cell = [*group, "kind", "number", "size", "at_step"]
    of_member = [*cell, "rank", "process"]
    keyed = keyed.with_columns(
        place=pl.int_range(pl.len()).over(of_member), many=pl.len().over(of_member)
    )
    instance = [*cell, "place"]
    everywhere = (
        (pl.col("members") > 1)
        & (member.n_unique().over(cell) == pl.col("members"))
        & (pl.col("many").min().over(cell) == pl.col("many").max().over(cell))
        & ~pl.col("kind").is_in([*_POINT_TO_POINT, OTHER])
        & (pl.col("group").is_not_null() | (pl.col("group_size") == pl.col("members")))
    )
    shortest = pl.col("duration_ns").min()
    transfer = pl.when(everywhere).then(shortest.over(instance))
    alone = (pl.col("duration_ns") == shortest).sum().over(instance) == 1
    return keyed.select(
        *found.columns,
        transfer_ns=transfer,
        waiting_ns=pl.col("duration_ns") - transfer,
        is_last=(pl.col("duration_ns") == transfer) & alone,
    )


def _same_steps(group: list[str], member: pl.Expr) -> pl.Expr:
    """Tell whether every member of a group has collectives in the same steps."""
    of_step = member.n_unique().over([*group, "step"]) == pl.col("members")
    return of_step.all().over(group)


def _kinds(named: pl.DataFrame) -> pl.Series:
    said = _each(named["collective"], _kind_of_word, pl.String)
    by_name = _each(named["name"], _kind_of_kernel, pl.String)
    return pl.select(pl.coalesce(said, by_name, pl.lit(OTHER))).to_series()


def _kind_of_word(word: str) -> str | None:
    """Return the kind that PyTorch's name of a collective means (`_allgather_base`)."""
    letters = re.sub("[^a-z]", "", word.lower())
    return next((kind for part, kind in (*_KINDS, *_PLAIN_KINDS) if part in letters), None)


def _kind_of_kernel(name: str) -> str | None:
    """Return the kind that a kernel's name tells (`ncclDevKernel_AllReduce_Sum_f32_RING_LL`)."""
    letters = re.sub("[^a-z]", "", name.partition("(")[0].lower())
    kinds = (*_KINDS, *_PLAIN_KINDS) if "ccl" in letters else _KINDS
    return next((kind for part, kind in kinds if part in letters), None)


def _dtype_bytes(dtype: str) -> int | None:
    plain = dtype.rpartition(":")[2].lower()
    return 1 if _EIGHT_BITS.fullmatch(plain) else _BYTES.get(plain)


def _each(texts: pl.Series, meaning: object, dtype: PolarsDataType) -> pl.Series:
    """Return what each text means; every distinct one is looked up once."""
    known = {text: meaning(text) for text in texts.drop_nulls().unique()}  # type: ignore[operator]
    return texts.replace_strict(known, default=None, return_dtype=dtype)


def _steps(linked: Linked, ops: pl.DataFrame) -> pl.Series:
    """Return the step that launched each op: its name, or its number where it has none."""
    found = pl.repeat(None, ops.height, dtype=pl.String, eager=True)
    for (pid,), steps in linked.steps.group_by("pid"):
        named = steps.with_row_index("row").with_columns(
            label=pl.coalesce("name", pl.col("step").cast(pl.String))
        )
        rows = at(
            *innermost(named.select("start_ns", "end_ns", "row").iter_rows()), ops["launch_ns"]
        )
        own = named["label"].gather(rows)
        found = ops.select(
            step=pl.when(pl.col("pid") == pid).then(own).otherwise(found)
        ).to_series()
    return found

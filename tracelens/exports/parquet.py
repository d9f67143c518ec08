"""One Parquet file per table of the trace, for polars, DuckDB, pandas and tracelens.

The tables are those of `trace.schema`, with these columns more: `gpu_ops` has the launch, the
phase and how it was found; `names` has the short name and family of GPU work.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl

from tracelens import __version__
from tracelens.exports import Exporter, Progress, cuts, no_progress
from tracelens.readers.parquet import LAYOUT, MANIFEST, MARK, checksum, is_export

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.links.linked import Linked

ATTRIBUTION = ("launch_ns", "launch_end_ns", "launch_tid", "launch_name_id", "phase", "how")
"""The columns of `gpu_ops` beyond its schema."""
KINDS_OF_NAMES = ("short_name", "family")
"""The columns of `names` beyond its schema; null for names that no GPU work bears."""


def write(linked: Linked, path: Path, /, *, progress: Progress = no_progress) -> None:
    """Write the tables and the manifest into the folder."""
    tables = _tables(linked)
    for number, (name, frame) in enumerate(tables.items()):
        progress("writing tables", number, len(tables))
        frame.sink_parquet(path / f"{name}.parquet", compression="zstd", maintain_order=True)
    # The manifest comes last: a folder without it is no export.
    text = json.dumps(_manifest(linked, path, tuple(tables)), indent=2, ensure_ascii=False)
    (path / MANIFEST).write_text(text + "\n", encoding="utf-8", errors="replace")


def _tables(linked: Linked) -> dict[str, pl.LazyFrame]:
    tables = cuts.tables(linked)
    if "gpu_ops" in tables:
        tables["gpu_ops"] = tables["gpu_ops"].join(
            _attributed(linked), on="op_id", maintain_order="left"
        )
    if "names" in tables:
        tables["names"] = tables["names"].join(
            _work(linked.names), on="name_id", how="left", maintain_order="left"
        )
    return tables


def _attributed(linked: Linked) -> pl.LazyFrame:
    """Return the op_id and `ATTRIBUTION` of every op in the cut."""
    api = cuts.calls(linked)
    if api is None:
        schema = {"launch_end_ns": pl.Int64, "launch_name_id": pl.Int32}
        found = linked.ops.lazy().with_columns(pl.lit(None, t).alias(n) for n, t in schema.items())
    else:
        launched = api.lazy().select(
            "launch_row", launch_end_ns=pl.col("end_ns"), launch_name_id=pl.col("name_id")
        )
        found = linked.ops.lazy().join(launched, on="launch_row", how="left", maintain_order="left")
    return found.select("op_id", *ATTRIBUTION)


def _work(names: pl.DataFrame) -> pl.LazyFrame:
    """Return short name and family per name_id; what a kernel is called comes first."""
    return (
        names.lazy()
        .sort(pl.col("kind") != "kernel", maintain_order=True)
        .unique("name_id", keep="first", maintain_order=True)
        .select("name_id", *KINDS_OF_NAMES)
    )


def _manifest(linked: Linked, path: Path, tables: tuple[str, ...]) -> dict[str, Any]:
    trace = linked.trace
    return {
        "format": MARK,
        "layout": LAYOUT,
        "tracelens": __version__,
        "source": {
            "name": trace.source.path.name,
            "format": trace.source.format,
            "producer": trace.source.producer,
            "schema_version": trace.source.schema_version,
            "facts": dict(trace.source.facts),
        },
        "phase_source": linked.phase_source,
        "caveats": [(caveat.kind, caveat.text) for caveat in cuts.caveats(linked)],
        "tables": {name: {"sha256": checksum(path / f"{name}.parquet")} for name in tables},
    }


EXPORTER = Exporter(
    write,
    suffix=".tracelens",
    use='Read it with polars.scan_parquet("{path}/gpu_ops.parquet") or tracelens summarize {path}.',
    folder=True,
    is_ours=is_export,
)

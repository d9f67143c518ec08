"""From the Parquet files of an export to the tables of a trace, damage set aside."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.errors import UnreadableError
from tracelens.readers import Progress, no_progress
from tracelens.readers.parquet import LAYOUT, MANIFEST, MARK, checksum
from tracelens.trace.model import Caveat, Source, Trace
from tracelens.trace.nesting import nested
from tracelens.trace.numbering import renumbered
from tracelens.trace.schema import KEYS, MOST_BYTES, REFERENCES, TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "gpu_ops": ("start_ns", "end_ns", "kind", "pid", "name_id"),
    "api": ("start_ns", "end_ns", "pid", "tid", "name_id"),
    "ranges": ("start_ns", "end_ns", "pid", "tid", "kind", "name_id"),
    "ops": ("range_id",),
    "launched_by": ("op_id", "range_id"),
    "collectives": ("op_id", "collective"),
    "threads": ("pid", "tid", "name"),
    "memory": ("time_ns", "action", "address", "size_bytes"),
    "segments": ("segment_id", "device", "address", "size_bytes"),
    "blocks": ("segment_id", "address", "size_bytes", "state"),
    "stacks": ("stack_id", "depth", "frame_id"),
    "frames": ("frame_id",),
    "counters": ("time_ns", "name", "value"),
    "op_counters": ("op_id", "name", "value"),
    "devices": ("device",),
    "names": ("name_id", "name"),
}
"""Without these columns a table is set aside."""
_FILLED: Final[Mapping[str, tuple[str, ...]]] = {
    "gpu_ops": ("start_ns", "end_ns", "kind"),
    "api": ("start_ns", "end_ns"),
    "ranges": ("start_ns", "end_ns", "pid", "tid", "kind"),
    "ops": ("range_id",),
    "launched_by": ("op_id", "range_id"),
    "collectives": ("op_id",),
    "segments": ("segment_id",),
    "blocks": ("segment_id",),
    "stacks": ("stack_id", "depth", "frame_id"),
    "frames": ("frame_id",),
    "op_counters": ("op_id", "name"),
    "names": ("name_id",),
}
"""A row in which one of these is null is set aside."""
_RENEWED: Final[Mapping[str, tuple[str, ...]]] = {
    "gpu_ops": ("op_id",),
    "ranges": ("range_id", "parent", "lane", "depth"),
}
"""Numbers that follow from the rows, and are made again instead of believed."""
_WRITTEN: Final = "written"
"""The number of a row in its file, until what refers to it is renumbered."""
_NUMBERS: Final = {"was": pl.UInt32, "now": pl.UInt32}
_LARGE: Final = ("memory", "counters", "stacks", "frames")
"""Tables that the cache does not keep."""


def read(path: Path, *, everything: bool = False, progress: Progress = no_progress) -> Trace:
    """Read an export.

    Raises:
        UnreadableError: its manifest is damaged or of a later version, or no table can be read.
    """
    folder = _Folder(path, everything=everything)
    manifest = _manifest(path)
    caveats = _caveats(manifest)
    tables: dict[str, pl.LazyFrame] = {}
    for number, name in enumerate(folder.listed(manifest)):
        progress("tables", number, len(TABLES))
        frame = folder.table(name)
        if frame is not None:
            tables[name] = frame
    if "names" not in tables:
        raise UnreadableError(
            f"{path.name} is a Parquet export of tracelens without a readable names.parquet. "
            f"Export it again: tracelens export RECORDING --to parquet -o {path.name} --force"
        )
    large = [name for name in _LARGE if name in tables]
    if "memory" in large and _is_of_allocator(tables):
        large.remove("memory")
    return Trace(
        _source(path, manifest), tables, (*caveats, *folder.caveats), on_request=tuple(large)
    )


def _is_of_allocator(tables: Mapping[str, pl.LazyFrame]) -> bool:
    """Tell PyTorch's own account of memory, which summaries show, from allocations of CUDA."""
    totals = tables["memory"].select(pl.col("allocated_bytes").is_not_null().any())
    return "blocks" in tables or bool(totals.collect().item())


def on_request(path: Path) -> Mapping[str, pl.LazyFrame]:
    """Return the tables that the cache does not keep."""
    folder = _Folder(path)
    said = _manifest(path).get("tables")
    listed = [n for n in _LARGE if isinstance(said, dict) and n in said]
    found = {name: folder.table(name) for name in listed if folder.has(name)}
    return {name: frame for name, frame in found.items() if frame is not None}


@dataclass
class _Folder:
    """Reads the files of one export as what they should be; ``caveats`` says what they were not."""

    path: Path
    everything: bool = False
    caveats: list[Caveat] = field(default_factory=list)
    _numbers: dict[str, pl.LazyFrame] = field(default_factory=dict)
    """Of gpu_ops and ranges: the number of each row in its file, and its number now."""

    def listed(self, manifest: Mapping[str, Any]) -> list[str]:
        """Return the tables that should be there; missing and changed ones are a caveat."""
        said = manifest.get("tables")
        said = said if isinstance(said, dict) else {}
        names = [name for name in TABLES if name in said]
        gone = [name for name in names if not self.has(name)]
        for name in gone:
            self._note(f"{name}.parquet is missing: its {name} cannot be shown.")
        there = [name for name in names if name not in gone]
        for name in there:
            if self._changed(name, said[name]):
                self._note(
                    f"{name}.parquet is not as tracelens wrote it: its numbers may be wrong."
                )
        return there

    def _changed(self, name: str, said: object) -> bool:
        try:
            return not isinstance(said, dict) or said.get("sha256") != checksum(self._file(name))
        except OSError:
            return True

    def table(self, name: str) -> pl.LazyFrame | None:
        """Return a table in its schema, or None, with a caveat, where it is damaged."""
        try:
            frame = self._in_schema(name)
            return None if frame is None else self._sound(name, frame)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            reason = str(error).strip().partition("\n")[0][:120]
            self._note(f"{name}.parquet was set aside: it cannot be read ({reason}).")
            return None

    def _in_schema(self, name: str) -> pl.LazyFrame | None:
        table = TABLES[name]
        raw = pl.scan_parquet(self._file(name), glob=False)
        have = raw.collect_schema()
        wanted = table.schema(everything=self.everything)
        wrong = [c for c, dtype in wanted.items() if c not in have or not _fits(have[c], dtype)]
        if missing := [c for c in _NEEDED[name] if c in wrong]:
            self._note(
                f"{name}.parquet was set aside: it has no column {', '.join(missing)}, "
                "or of another type."
            )
            return None
        renewed = _RENEWED.get(name, ())
        number = next((c for c in renewed[:1] if c not in wrong), None)
        if wrong := [c for c in wrong if c not in renewed]:
            self._note(f"{name}.parquet has no usable {', '.join(wrong)}: taken as not recorded.")
        columns = {
            c: pl.lit(None, dtype) if c in wrong else _cast(c, have[c], dtype)
            for c, dtype in wanted.items()
            if c not in renewed
        }
        if renewed:
            nothing = pl.lit(None, pl.UInt32)
            columns[_WRITTEN] = _cast(number, have[number], pl.UInt32) if number else nothing
        return raw.select(**columns)

    def _sound(self, name: str, frame: pl.LazyFrame) -> pl.LazyFrame | None:
        """Return the rows that can be true, the others counted; reads every column once."""
        good = pl.all_horizontal(
            pl.lit(value=True), *(pl.col(c).is_not_null() for c in _FILLED.get(name, ()))
        )
        if "end_ns" in TABLES[name].schema():
            good &= pl.col("end_ns") >= pl.col("start_ns")
        if "size_bytes" in TABLES[name].schema():
            good &= pl.col("size_bytes").is_between(0, MOST_BYTES).fill_null(value=True)
        # Null counts of all columns make polars decode all pages, so that damage shows here.
        counts = frame.select(pl.all().null_count().name.prefix("nulls_"), bad=(~good).sum())
        bad = counts.collect(engine="streaming")["bad"].item()
        if bad:
            self._note(f"{bad:,} rows of {name}.parquet were set aside: they cannot be true.")
            frame = frame.filter(good)
        return self._keyed(name, frame)

    def _keyed(self, name: str, frame: pl.LazyFrame) -> pl.LazyFrame | None:
        """Return the rows with keys that are unique, as every join relies on."""
        order = list(TABLES[name].schema(everything=self.everything))
        if name == "gpu_ops":
            numbered = frame.with_row_index("op_id")
            self._numbers[name] = numbered.select(was=_WRITTEN, now="op_id")
            return numbered.select(order)
        if name == "ranges":
            numbered = nested(frame.collect()).lazy()
            self._numbers[name] = numbered.select(was=_WRITTEN, now="range_id")
            return numbered.select(order)
        if name in REFERENCES and not self._numbered(name):
            return None
        if name == "names":
            frame = frame.with_columns(pl.col("name").fill_null(""))
        if name in KEYS:
            whole = frame.collect()
            if name in REFERENCES:
                height = whole.height
                whole = renumbered(name, whole.lazy(), self._numbers).collect()
                if gone := height - whole.height:
                    what = "what they are about is not there"
                    self._note(f"{gone:,} rows of {name}.parquet were set aside: {what}.")
            once = whole.unique(KEYS[name], keep="first", maintain_order=True)
            if double := whole.height - once.height:
                self._note(f"{double:,} rows of {name}.parquet were set aside: they are doubles.")
            return once.lazy()
        return frame

    def _numbered(self, name: str) -> bool:
        """Tell whether the rows that a table refers to can be told apart by their numbers."""
        for of in set(REFERENCES[name].values()):
            numbers = self._numbers.setdefault(of, pl.LazyFrame(schema=_NUMBERS))
            was = numbers.select("was").collect()["was"]
            if was.null_count() or was.is_duplicated().any():
                self._note(f"{name}.parquet was set aside: rows of {of}.parquet have no numbers.")
                return False
        return True

    def has(self, name: str) -> bool:
        """Tell whether the table's file is there."""
        return self._file(name).is_file()

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.parquet"

    def _note(self, text: str) -> None:
        self.caveats.append(Caveat("damaged", text))


def _fits(have: pl.DataType, want: Any) -> bool:
    """Tell whether values of a type can be taken for another without changing their meaning."""
    if want == pl.String or isinstance(want, pl.Enum):
        return have == pl.String or isinstance(have, pl.Categorical | pl.Enum)
    if want == pl.Float64:
        return have.is_numeric()
    return have == want if want == pl.Boolean else have.is_integer()


def _cast(name: str, have: pl.DataType, want: Any) -> pl.Expr:
    if have == want:
        return pl.col(name)
    # Codes of another Enum mean something else; its labels may be ours.
    through = (
        pl.col(name).cast(pl.String)
        if not have.is_numeric() and have != pl.Boolean
        else pl.col(name)
    )
    return through.cast(want, strict=False)


def _manifest(path: Path) -> Mapping[str, Any]:
    again = f"Export it again: tracelens export RECORDING --to parquet -o {path.name} --force"
    try:
        manifest: Any = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(
            f"{path.name}/{MANIFEST} cannot be read ({error}). {again}"
        ) from error
    manifest = manifest if isinstance(manifest, dict) else {}
    layout = manifest.get("layout")
    if not isinstance(layout, int) or manifest.get("format") != MARK:
        raise UnreadableError(f"{path.name}/{MANIFEST} is no manifest of tracelens. {again}")
    if layout > LAYOUT:
        raise UnreadableError(
            f"{path.name} was written by a newer tracelens ({manifest.get('tracelens')}), "
            f"in layout {layout}; this one reads layout {LAYOUT}. Upgrade tracelens-gpu."
        )
    return {str(key): value for key, value in manifest.items()}


def _source(path: Path, manifest: Mapping[str, Any]) -> Source:
    said = manifest.get("source")
    said = said if isinstance(said, dict) else {}
    facts = said.get("facts")
    facts = facts if isinstance(facts, dict) else {}
    return Source(
        path,
        MARK,
        _text(said.get("producer")),
        _text(said.get("schema_version")),
        {
            **{str(key): str(value) for key, value in facts.items()},
            "exported_from": str(said.get("name")),
            "exported_format": str(said.get("format")),
            "recorded_format": str(facts.get("recorded_format", said.get("format"))),
        },
    )


def _caveats(manifest: Mapping[str, Any]) -> list[Caveat]:
    said = manifest.get("caveats")
    pairs = (
        [c for c in said if isinstance(c, list) and len(c) == 2] if isinstance(said, list) else []
    )
    return [Caveat(str(kind), str(text)) for kind, text in pairs]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

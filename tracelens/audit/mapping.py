"""Mapping files (TOML): what the columns of a table are, what its rows do, and claims in words."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tracelens.audit import gpus, quantities, work
from tracelens.audit.reading import decoded
from tracelens.errors import UnreadableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

_TOP: Final = {"settings", "gpu", "dtype", "tolerance", "work", "table", "claim", "values"}
_TABLE: Final = {
    "number", "title", "settings", "gpu", "dtype", "work", "columns", "sums", "skip", "sparse",
    "not_to_sum",
}  # fmt: skip
_COLUMN: Final = {
    "is", "unit", "tags", "statistic", "series", "as", "formula", "dtype", "gpu", "pass", "ignore",
}  # fmt: skip
_CLAIM: Final = {"says", "formula", "claimed", "line", "relation", "impossible", "because"}
_WORK: Final = {"kind", "pass", "causal", "ffn_matrices", "d_ff"}
_RELATIONS: Final = ("=", "at least", "at most")


@dataclass(frozen=True)
class Column:
    """What a mapping says of the columns of one heading.

    Attributes:
        quantity: one of `quantities.QUANTITIES`, a setting, or empty: the heading tells.
        unit: of the numbers; empty: the heading or the cells tell.
        tags: of which variant, phase or GPU the numbers are; None: the heading tells.
        statistic: `mean`, `min`, ...; None: the heading tells.
        series: numbers of one series and the same settings are of the same thing, wherever they
            stand: they must not differ.
        name: by which formulas of the table call the number.
        formula: what the number must come to.
        dtype: the number format; gpu: the GPU; part: `forward`, `backward` or `both`.
        ignore: the column is not looked at.
    """

    quantity: str = ""
    unit: str = ""
    tags: frozenset[str] | None = None
    statistic: str | None = None
    series: str = ""
    name: str = ""
    formula: str = ""
    dtype: str = ""
    gpu: str = ""
    part: str = ""
    ignore: bool = False


@dataclass(frozen=True)
class Sum:
    """A column (or cell of a list) that is the sum of others."""

    total: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class TableMapping:
    """What a mapping says of some tables: of one by its number (from 1), or by its title."""

    number: int | None = None
    title: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    gpu: str = ""
    dtype: str = ""
    work: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)
    sums: tuple[Sum, ...] = ()
    skip: bool = False
    sparse: bool = False
    not_to_sum: bool = False


@dataclass(frozen=True)
class Claim:
    """A statement in words, and the formula that tells whether it holds.

    Attributes:
        says: the statement, in the words of whoever writes the mapping.
        formula: what the number must come to.
        claimed: the number as printed, with its unit.
        relation: `=`: the formula comes to what is claimed; `at least`, `at most`: to so much.
        line: where it stands in the document; 0: nowhere in particular.
        impossible: a claim that fails is physically impossible.
        because: what the formula rests on.
    """

    says: str
    formula: str
    claimed: str
    relation: str = "="
    line: int = 0
    impossible: bool = False
    because: str = ""


@dataclass(frozen=True)
class Guide:
    """All that a mapping file says."""

    settings: Mapping[str, str] = field(default_factory=dict)
    gpu: str = ""
    dtype: str = ""
    tolerance: float = 0.05
    work: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[TableMapping, ...] = ()
    claims: tuple[Claim, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)


NOTHING: Final = Guide()


def load(path: Path) -> Guide:
    """Return what a mapping file says.

    Raises:
        UnreadableError: it cannot be read or is no TOML.
        UsageError: it says something that is not understood.
    """
    try:
        said = tomllib.loads(decoded(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UnreadableError(f"{path} is no TOML: {error}.") from error
    try:
        return parse(said)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def parse(said: Mapping[str, Any]) -> Guide:
    """Return what the contents of a mapping file say; raises UsageError."""
    _check("The mapping", said, _TOP)
    tolerance = said.get("tolerance", NOTHING.tolerance)
    if not isinstance(tolerance, int | float) or not 0 <= tolerance < 10:
        raise UsageError("tolerance is a share such as 0.05.")
    return Guide(
        settings=_settings(said.get("settings", {})),
        gpu=_gpu(said),
        dtype=_dtype(said),
        tolerance=float(tolerance),
        work=_work(said.get("work", {})),
        tables=tuple(_table(one) for one in _list(said, "table")),
        claims=tuple(_claim(one) for one in _list(said, "claim")),
        values={str(k): _text(v) for k, v in _dict("values", said.get("values", {})).items()},
    )


def _table(said: Mapping[str, Any]) -> TableMapping:
    _check("[[table]]", said, _TABLE)
    number = said.get("number")
    if number is not None and (not isinstance(number, int) or number < 1):
        raise UsageError("The number of a [[table]] counts from 1.")
    columns = _dict("columns", said.get("columns", {}))
    return TableMapping(
        number=number,
        title=str(said.get("title", "")),
        settings=_settings(said.get("settings", {})),
        gpu=_gpu(said),
        dtype=_dtype(said),
        work=_work(said.get("work", {})),
        columns={heading: _column(heading, one) for heading, one in columns.items()},
        sums=tuple(_sum(one) for one in _list(said, "sums")),
        skip=bool(said.get("skip")),
        sparse=bool(said.get("sparse")),
        not_to_sum=bool(said.get("not_to_sum")),
    )


def _column(heading: str, said: Any) -> Column:
    if isinstance(said, str):
        said = {"is": said}
    said = _dict(f"columns.{heading!r}", said)
    _check(f"The column {heading!r}", said, _COLUMN)
    quantity = str(said.get("is", ""))
    known = (*quantities.QUANTITIES, *quantities.SETTINGS, "dtype", "gpu", "")
    if quantity not in known:
        raise UsageError(f"The column {heading!r} is {quantity!r}: one of {_of(known)}.")
    unit = str(said.get("unit", ""))
    if unit and quantities.unit(unit) is None:
        raise UsageError(f"The column {heading!r} has the unit {unit!r}, which is not known.")
    tags, statistic = said.get("tags"), said.get("statistic")
    part = str(said.get("pass", ""))
    if part not in {"", *work.PASSES}:
        raise UsageError(f"pass is one of {_of(work.PASSES)}, not {part!r}.")
    return Column(
        quantity=quantity,
        unit=unit,
        tags=None if tags is None else frozenset(map(str, tags)),
        statistic=None if statistic is None else str(statistic),
        series=str(said.get("series", "")),
        name=str(said.get("as", "")),
        formula=str(said.get("formula", "")),
        dtype=_dtype(said),
        gpu=_gpu(said),
        part=part,
        ignore=bool(said.get("ignore")),
    )


def _claim(said: Mapping[str, Any]) -> Claim:
    _check("[[claim]]", said, _CLAIM)
    missing = {"says", "formula", "claimed"} - set(said)
    if missing:
        raise UsageError(f"A [[claim]] lacks {_of(missing)}.")
    relation = str(said.get("relation", "="))
    if relation not in _RELATIONS:
        raise UsageError(f"relation is one of {_of(_RELATIONS)}, not {relation!r}.")
    line = said.get("line", 0)
    return Claim(
        says=str(said["says"]),
        formula=str(said["formula"]),
        claimed=_text(said["claimed"]),
        relation=relation,
        line=line if isinstance(line, int) else 0,
        impossible=bool(said.get("impossible")),
        because=str(said.get("because", "")),
    )


def _sum(said: Mapping[str, Any]) -> Sum:
    _check("sums", said, {"total", "parts"})
    parts = said.get("parts", ())
    if "total" not in said or not isinstance(parts, list) or not parts:
        raise UsageError('sums has entries like {total = "E2E", parts = ["Fwd", "Bwd"]}.')
    return Sum(str(said["total"]), tuple(map(str, parts)))


def _work(said: Any) -> Mapping[str, Any]:
    found = {"kind": said} if isinstance(said, str) else _dict("work", said)
    _check("work", found, _WORK)
    if found and found.get("kind") not in work.KINDS:
        raise UsageError(f"The kind of work is one of {_of(work.KINDS)}.")
    if found.get("pass", "forward") not in work.PASSES:
        raise UsageError(f"pass is one of {_of(work.PASSES)}.")
    strange = {"kind", "pass"} & {k for k, v in found.items() if not isinstance(v, str)}
    numbers = {k: v for k, v in found.items() if k not in {"kind", "pass"}}
    if strange or not all(isinstance(one, int | float) for one in numbers.values()):
        raise UsageError('work is like {kind = "transformer", pass = "forward", causal = true}.')
    return found


def _settings(said: Any) -> Mapping[str, str]:
    said = _dict("settings", said)
    _check("settings", said, quantities.SETTINGS)
    return {name: _text(one) for name, one in said.items()}


def _gpu(said: Mapping[str, Any]) -> str:
    name = str(said.get("gpu", ""))
    if name and not gpus.found(name):
        raise UsageError(f"gpu = {name!r} is not known. Known: {_of(all_gpus())}.")
    return name


def all_gpus() -> list[str]:
    """Return the names of all GPUs that are known."""
    from tracelens import hardware

    return [one.name for one in hardware.devices()]


def _dtype(said: Mapping[str, Any]) -> str:
    name = str(said.get("dtype", ""))
    if name and name not in gpus.BYTES_OF:
        raise UsageError(f"dtype = {name!r} is not known. Known: {_of(gpus.BYTES_OF)}.")
    return name


def _text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _dict(name: str, said: Any) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise UsageError(f"{name} is a table of TOML: {name} = {{…}}.")
    return said


def _list(said: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = said.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise UsageError(f"{name} is a list of tables of TOML: [[{name}]].")
    return found


def _check(what: str, said: Mapping[str, Any], known: Collection[str]) -> None:
    strange = [key for key in said if key not in known]
    if strange:
        raise UsageError(f"{what} says {strange[0]!r}, which is none of {_of(known)}.")


def _of(names: Collection[str]) -> str:
    return ", ".join(sorted(name for name in names if name))

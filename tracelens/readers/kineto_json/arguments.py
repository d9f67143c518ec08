"""Arguments of events as columns: decoded in one go, one by one where one of them is odd."""

from __future__ import annotations

import re
from contextlib import suppress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

from tracelens.readers.kineto_json.decode import value
from tracelens.trace.schema import COPY_KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from polars._typing import PolarsDataType

_ABSENT: Final = msgspec.Raw(b"")
_NEEDS_INPUTS: Final = re.compile(
    r"conv|attention|softmax|norm|embedding|scaled|grouped|index_select|::(?:native_dropout|sum|"
    r"nansum|mean|prod|a?max|a?min|argmax|argmin|any|all|var|std|var_mean|std_mean)$"
)
_EXPANDED: Final = re.compile(rb"[\[ ,]0[,\]]")
_COPY: Final = re.compile(r"\b(UnifiedHtoD|UnifiedDtoH|UnifiedDtoD|[HDAP]to[HDAP])\b")
_HIP_COPIES: Final = {
    "HostToDevice": "HtoD",
    "DeviceToHost": "DtoH",
    "DeviceToDevice": "DtoD",
    "HostToHost": "HtoH",
    "PeerToPeer": "PtoP",
}
_OF_WORK: Final[Mapping[str, PolarsDataType]] = {
    "device": pl.Int32,
    "stream": pl.Int32,
    "context": pl.Int32,
    "correlation": pl.UInt32,
    "bytes": pl.Int64,
    "graph_id": pl.Int32,
    "graph_node": pl.Int64,
}
_OF_MEMORY: Final[Mapping[str, PolarsDataType]] = {
    "address": pl.Int64,
    "bytes": pl.Int64,
    "device_type": pl.Int32,
    "device": pl.Int32,
    "allocated": pl.Int64,
    "reserved": pl.Int64,
}
_WIDTHS: Final = {pl.Int32: 31, pl.UInt32: 32, pl.Int64: 63}


class GpuWork(
    msgspec.Struct,
    gc=False,
    rename={
        "graph_id": "graph id",
        "graph_node": "graph node id",
        "external_id": "External id",
        "old_external_id": "external id",
        "collective": "Collective name",
        "in_device": "inDevice",
        "in_context": "inContext",
    },
):
    """Of a kernel, copy or memset; ``in_device`` is where a copy between devices runs."""

    device: int | None = None
    stream: int | None = None
    context: int | None = None
    correlation: int | None = None
    bytes: int | None = None
    external_id: int | None = None
    old_external_id: int | None = None
    graph_id: int | None = None
    graph_node: int | None = None
    collective: str | None = None
    in_device: int | None = None
    in_context: int | None = None


class Shape(
    msgspec.Struct,
    gc=False,
    rename={"registers": "registers per thread", "shared_bytes": "shared memory"},
):
    """Of a kernel's launch."""

    grid: list[int] | None = None
    block: list[int] | None = None
    registers: int | None = None
    shared_bytes: int | None = None


class Call(msgspec.Struct, gc=False):
    """Of a CUDA call."""

    correlation: int | None = None


class Named(msgspec.Struct, gc=False):
    """Of an event that names a process or thread."""

    name: str = ""


class Op(
    msgspec.Struct,
    gc=False,
    rename={
        "external_id": "External id",
        "old_external_id": "external id",
        "sequence": "Sequence number",
        "forward_thread": "Fwd thread id",
        "dims": "Input Dims",
        "old_dims": "Input dims",
        "types": "Input type",
        "inputs": "Concrete Inputs",
        "strides": "Input Strides",
    },
):
    """Of a PyTorch op; its inputs as they are written."""

    external_id: int | None = None
    old_external_id: int | None = None
    sequence: int | None = None
    forward_thread: int | None = None
    dims: msgspec.Raw = _ABSENT
    old_dims: msgspec.Raw = _ABSENT
    types: msgspec.Raw = _ABSENT
    inputs: msgspec.Raw = _ABSENT
    strides: msgspec.Raw = _ABSENT


class Memory(
    msgspec.Struct,
    gc=False,
    rename={
        "address": "Addr",
        "bytes": "Bytes",
        "device_type": "Device Type",
        "device": "Device Id",
        "allocated": "Total Allocated",
        "reserved": "Total Reserved",
    },
):
    """Of a `[memory]` event; ``bytes`` is negative where memory was given back."""

    address: int | None = None
    bytes: int | None = None
    device_type: int | None = None
    device: int | None = None
    allocated: int | None = None
    reserved: int | None = None


class Collective(
    msgspec.Struct,
    gc=False,
    rename={
        "collective": "Collective name",
        "in_elements": "In msg nelems",
        "out_elements": "Out msg nelems",
        "group_size": "Group size",
        "group": "Process Group Name",
        "group_description": "Process Group Description",
        "ranks": "Process Group Ranks",
        "sequence": "Seq",
        "communicator": "Comms Id",
        "source": "Src Rank",
        "destination": "Dst Rank",
    },
):
    """Of a kernel that is part of a collective."""

    collective: str | None = None
    in_elements: int | None = None
    out_elements: int | None = None
    dtype: str | None = None
    group_size: int | None = None
    group: int | str | None = None
    group_description: str | None = None
    ranks: str | list[int] | None = None
    sequence: int | None = None
    communicator: int | str | None = None
    source: int | None = None
    destination: int | None = None


def columns(kind: str, events: Sequence[Any], *, everything: bool) -> dict[str, pl.Series]:
    """Return what the arguments of events of one kind say, as columns."""
    if kind in ("kernel", "copy", "memset"):
        return _of_work(kind, events, everything=everything)
    if kind in ("op", "annotation"):
        return _of_ops(events)
    if kind == "api":
        return {"correlation": _integers(_decoded(events, Call), "correlation", pl.UInt32)}
    if kind == "memory":
        found = _decoded(events, Memory)
        for memory in found:
            if memory.address is not None and memory.address >= 2**63:
                memory.address -= 2**64
        return {name: _integers(found, name, dtype) for name, dtype in _OF_MEMORY.items()}
    if kind == "naming":
        names = [named.name for named in _decoded(events, Named)]
        return {"said": pl.Series(names, dtype=pl.String)}
    if kind in ("flow_from", "flow_to"):
        return {"flow": pl.Series([str(event.id) for event in events], dtype=pl.String)}
    return {}


def collectives(arguments: Sequence[bytes]) -> list[Collective]:
    """Return what texts of arguments say of collectives."""
    return [_one(text, Collective) for text in arguments]


def _of_work(kind: str, events: Sequence[Any], *, everything: bool) -> dict[str, pl.Series]:
    found = _decoded(events, GpuWork)
    shared = [bytes(e.args) if a.collective else None for e, a in zip(events, found, strict=True)]
    copies = [copy_kind(event.name) if kind == "copy" else None for event in events]
    known = {
        "kind": pl.repeat(kind, len(events), dtype=pl.String, eager=True),
        "copy_kind": pl.Series(copies, dtype=pl.String),
        "collective": pl.Series(shared, dtype=pl.Binary),
        "external_id": _external_ids(found),
        **{name: _integers(found, name, dtype) for name, dtype in _OF_WORK.items()},
    }
    if any(a.in_device is not None for a in found):
        for name in ("device", "context"):
            known[name] = known[name].fill_null(_integers(found, f"in_{name}", pl.Int32))
    return known | _shapes(kind, events) if everything else known


def copy_kind(name: str) -> str:
    """Return a copy's direction by its name."""
    if found := _COPY.search(name):
        return found[1] if found[1] in COPY_KINDS else "unknown"
    return next((kind for hip, kind in _HIP_COPIES.items() if hip in name), "unknown")


def _shapes(kind: str, events: Sequence[Any]) -> dict[str, pl.Series]:
    found = _decoded(events, Shape) if kind == "kernel" else [Shape()] * len(events)
    known = {
        f"{what}_{axis}": column([_at(getattr(a, what), i) for a in found], pl.Int32)
        for what in ("grid", "block")
        for i, axis in enumerate("xyz")
    }
    known["registers"] = _integers(found, "registers", pl.Int32)
    known["shared_bytes"] = _integers(found, "shared_bytes", pl.Int32)
    return known


def _at(values: list[int] | None, place: int) -> int | None:
    return values[place] if values and len(values) > place else None


def _of_ops(events: Sequence[Any]) -> dict[str, pl.Series]:
    found = _decoded(events, Op)
    needing = {name for name in {event.name for event in events} if _NEEDS_INPUTS.search(name)}
    inputs = [
        a.inputs if event.name in needing else _ABSENT
        for event, a in zip(events, found, strict=True)
    ]
    return {
        "external_id": _external_ids(found),
        "sequence": _integers(found, "sequence", pl.Int64),
        "forward_thread": _integers(found, "forward_thread", pl.Int64),
        "dims": _texts([a.old_dims if a.dims is _ABSENT else a.dims for a in found]),
        "types": _texts([a.types for a in found]),
        "inputs": _texts(inputs),
        "strides": _texts([a.strides if _EXPANDED.search(a.strides) else _ABSENT for a in found]),
    }


def _external_ids(found: Sequence[Any]) -> pl.Series:
    ids = [a.old_external_id if a.external_id is None else a.external_id for a in found]
    return column(ids, pl.Int64)


def _texts(raws: Sequence[msgspec.Raw]) -> pl.Series:
    texts = [None if raw is _ABSENT else bytes(raw) for raw in raws]
    try:
        return pl.Series(texts, dtype=pl.Binary).cast(pl.String)
    except pl.exceptions.ComputeError:  # no UTF-8
        good = [None if text is None else text.decode(errors="replace") for text in texts]
        return pl.Series(good, dtype=pl.String)


def _integers(found: Sequence[Any], name: str, dtype: PolarsDataType) -> pl.Series:
    return column(list(map(attrgetter(name), found)), dtype)


def _decoded(events: Sequence[Any], kind: type[Any]) -> list[Any]:
    """Return the events' arguments; a value that is not what it should be is None."""
    joined = b"[" + b",".join([e.args for e in events]) + b"]"
    try:
        return msgspec.json.decode(joined, type=list[kind])  # type: ignore[valid-type]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [_one(event.args, kind) for event in events]


def column(values: Sequence[Any], dtype: PolarsDataType) -> pl.Series:
    """Return integers as a column; what does not fit is null."""
    try:
        return pl.Series(values, dtype=dtype, strict=True)
    except (OverflowError, TypeError):
        bits = _WIDTHS[dtype]  # type: ignore[index]
        low = 0 if dtype == pl.UInt32 else -(2**bits)
        fitting = [v if isinstance(v, int) and low <= v < 2**bits else None for v in values]
        return pl.Series(fitting, dtype=dtype)


def _one(args: msgspec.Raw | bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(args, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = value(args)
    if not isinstance(said, dict):
        return kind()
    good: dict[str, Any] = {}
    for wanted in msgspec.structs.fields(kind):
        if wanted.encode_name in said:
            with suppress(msgspec.ValidationError):
                good[wanted.name] = _converted(said[wanted.encode_name], wanted.type)
    return kind(**good)


def _converted(said: Any, wanted: Any) -> Any:
    if wanted is msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(said))
    return msgspec.convert(said, wanted, strict=False)

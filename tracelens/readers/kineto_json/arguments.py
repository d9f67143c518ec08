"""Arguments of events: decoded in one go, and one by one where one of them is odd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polars._typing import PolarsDataType

ABSENT: Final = msgspec.Raw(b"")
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
    },
):
    """Of a kernel, copy or memset."""

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
    },
):
    """Of a PyTorch op; its inputs as they are written."""

    external_id: int | None = None
    old_external_id: int | None = None
    sequence: int | None = None
    forward_thread: int | None = None
    dims: msgspec.Raw = ABSENT
    old_dims: msgspec.Raw = ABSENT
    types: msgspec.Raw = ABSENT
    inputs: msgspec.Raw = ABSENT


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


def decoded(events: Sequence[Any], kind: type[Any]) -> list[Any]:
    """Return the events' arguments; a value that is not what it should be is None."""
    joined = b"[" + b",".join([e.args for e in events]) + b"]"
    try:
        found = msgspec.json.decode(joined, type=list[kind])  # type: ignore[valid-type]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = []
    # Arguments out of damaged text might hold a comma of their own.
    return found if len(found) == len(events) else [_one(event.args, kind) for event in events]


def column(values: Sequence[Any], dtype: PolarsDataType) -> pl.Series:
    """Return integers as a column; what does not fit is null."""
    try:
        return pl.Series(values, dtype=dtype, strict=True)
    except (OverflowError, TypeError):
        bits = _WIDTHS[dtype]  # type: ignore[index]
        low = 0 if dtype == pl.UInt32 else -(2**bits)
        fitting = [v if isinstance(v, int) and low <= v < 2**bits else None for v in values]
        return pl.Series(fitting, dtype=dtype)


def _one(args: msgspec.Raw, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(args, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        found = msgspec.json.decode(args)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return kind()
    return _lenient(found, kind) if isinstance(found, dict) else kind()


def _lenient(found: dict[str, Any], kind: type[Any]) -> Any:
    good = {}
    for name in msgspec.structs.fields(kind):
        if name.encode_name not in found:
            continue
        value = found[name.encode_name]
        if name.type is msgspec.Raw:
            good[name.name] = msgspec.Raw(msgspec.json.encode(value))
            continue
        try:
            good[name.name] = msgspec.convert(value, name.type, strict=False)
        except msgspec.ValidationError:
            continue
    return kind(**good)

"""What a Kineto trace says of itself: devices, threads, recorder, ranks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.readers.kineto_json.arguments import column
from tracelens.trace.schema import DEVICES, NAMES, THREADS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.readers.kineto_json.events import Events

_THREAD: Final = re.compile(r"^thread -?\d+ \((.*)\)$", re.DOTALL)
_SAID: Final = (
    "profiler_version", "trace_id", "cupti_version", "cuda_runtime_version", "cuda_driver_version",
    "hip_runtime_version", "hip_driver_version", "record_shapes", "profile_memory", "with_stack",
    "with_flops", "with_modules",
)  # fmt: skip
_SAID_OF_RANKS: Final = ("rank", "world_size", "backend", "nccl_version")


def facts(around: Mapping[str, Any], epoch_ns: int | None) -> dict[str, str]:
    """Return what the recorder said of the recording."""
    said = {name: around[name] for name in _SAID if name in around}
    distributed = around.get("distributed")
    if isinstance(distributed, dict):
        said |= {name: distributed[name] for name in _SAID_OF_RANKS if name in distributed}
    if epoch_ns is not None:
        said["epoch_ns"] = epoch_ns
    return {name: str(value) for name, value in said.items() if value is not None}


def devices(around: Mapping[str, Any]) -> pl.DataFrame | None:
    """Return the `devices` table, or None where the file names no device."""
    listed = around.get("devices")
    found = [d for d in listed if isinstance(d, dict)] if isinstance(listed, list) else []
    if not found:
        return None
    schema = dict(DEVICES.schema())
    columns: dict[str, Any] = {
        "device": column([d.get("id") for d in found], pl.Int32),
        "name": pl.Series([_text(d.get("name")) for d in found], dtype=pl.String),
        "sm_count": column([d.get("numSms") for d in found], pl.Int32),
        "capability": pl.Series([_capability(d) for d in found], dtype=pl.String),
        "memory_bytes": column([d.get("totalGlobalMem") for d in found], pl.Int64),
    }
    lacking = {n: pl.lit(None, dtype) for n, dtype in schema.items() if n not in columns}
    return pl.DataFrame(columns).with_columns(**lacking).select(list(schema))


def names(events: Events) -> pl.DataFrame:
    """Return the `names` table."""
    texts = [name or "(unnamed)" for name in events.names]
    schema = dict(NAMES.schema())
    return pl.DataFrame({"name_id": range(len(texts)), "name": texts}, schema=schema)


def threads(events: Events) -> pl.DataFrame | None:
    """Return the `threads` table; of several names of a thread the one that says most."""
    cpu = [events.of(kind).select("pid", "tid") for kind in ("api", "op", "annotation", "python")]
    working = set(pl.concat(cpu).unique().iter_rows())
    names: dict[tuple[int, int], list[str]] = {}
    processes: dict[int, str] = {}
    for what, pid, tid, said in events.namings().iter_rows():
        if what == "process_name":
            processes[pid] = said
        elif what == "thread_name" and (pid, tid) in working:
            names.setdefault((pid, tid), []).append(_THREAD.sub(r"\1", said))
    rows = [
        (pid, tid, min(said, key=lambda name: (name == processes.get(pid), name)))
        for (pid, tid), said in sorted(names.items())
    ]
    return pl.DataFrame(rows, schema=dict(THREADS.schema()), orient="row") if rows else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _capability(device: Mapping[str, Any]) -> str | None:
    major, minor = device.get("computeMajor"), device.get("computeMinor")
    return None if major is None or minor is None else f"{major}.{minor}"

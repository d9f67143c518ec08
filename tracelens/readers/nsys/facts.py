"""What an nsys export says of itself: versions, GPUs, threads, and the recorder's diagnostics."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens.readers.nsys import own
from tracelens.trace.schema import DEVICES, THREADS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracelens.readers.nsys.gather import Gather
    from tracelens.readers.nsys.storage import Storage

_EXPORT_META: Final = ("META_DATA_EXPORT", "EXPORT_META_DATA")
_CAPTURE_META: Final = "META_DATA_CAPTURE"
_GPU_TABLES: Final = ("TARGET_INFO_GPU", "TARGET_INFO_CUDA_GPU")
_CUDA_DEVICES: Final = "TARGET_INFO_CUDA_DEVICE"
_LOST: Final = re.compile(
    r"\b(?:lost|dropped|discarded|overflow\w*|truncated)\b|might have been|not all .* collected",
    re.IGNORECASE,
)
# nsys says "Not all X events might have been collected" of X that nobody asked for, too.
_KINDS_THAT_COUNT: Final = re.compile(r"cuda|cupti|nvtx|kernel|gpu|buffer", re.IGNORECASE)
_WARNING: Final = 2
_SHOWN_DIAGNOSTICS: Final = 5
_MOST_CHARS: Final = 2_000


def producer(storage: Storage) -> tuple[str, str | None]:
    """Return who wrote the export (``nsys 2025.3.2``) and its schema version, if it says."""
    meta = _meta(storage, _EXPORT_META)
    version = meta.get("EXPORT_PRODUCT_VERSION", "")
    name = meta.get("EXPORT_PRODUCT_NAME", "NVIDIA Nsight Systems")
    if "Nsight Systems" in name:
        name, version = "nsys", ".".join(version.split(".")[:3]).removesuffix(".0")
    return f"{name} {version}".strip(), meta.get("EXPORT_SCHEMA_VERSION")


def capture_facts(storage: Storage) -> dict[str, str]:
    """Return how the recording was made, where the export says: command line, graph tracing."""
    meta = _meta(storage, (_CAPTURE_META,))
    plain = {key.removeprefix("PROCESS_0:"): value for key, value in meta.items()}
    arguments = [plain[k] for k in _numbered("ARGUMENT_", plain)]
    facts = {
        "command": " ".join([plain["COMMAND"], *arguments]) if "COMMAND" in plain else "",
        "cuda_graph_trace": plain.get("CUDA_GRAPH_TRACE_OPTIONS:MODE", ""),
        "duration_ms": plain.get("RUN_DURATION_MS", ""),
        "epoch_ns": next(_epochs(storage), ""),
    }
    return {**{key: value for key, value in facts.items() if value}, **own.facts(storage)}


def _epochs(storage: Storage) -> Iterator[str]:
    """Give the Unix times of the recording's time 0, of which there is one."""
    for row in storage.records("TARGET_INFO_SESSION_START_TIME"):
        epoch = _integer(row, "utcEpochNs")
        if epoch is not None:
            yield str(epoch)


def diagnostics(gather: Gather) -> None:
    """Turn the recorder's own words about lost events into caveats."""
    texts: dict[str, int] = {}
    for row in gather.storage.records("DIAGNOSTIC_EVENT"):
        text = " ".join(str(row.get("text") or "")[:_MOST_CHARS].split())
        severity = row.get("severity")
        serious = not isinstance(severity, int) or severity >= _WARNING
        if serious and _LOST.search(text) and _KINDS_THAT_COUNT.search(text):
            texts[text] = texts.get(text, 0) + 1
    for text, times in list(texts.items())[:_SHOWN_DIAGNOSTICS]:
        again = f" (said {times:,} times)" if times > 1 else ""
        gather.note("lost", f"The recorder says: {text}{again}")


def devices(storage: Storage) -> pl.LazyFrame | None:
    """Return the `devices` table.

    Newer exports say which GPU each process saw as which CUDA device; older ones do not, and
    there the recorder's own number is taken for it.
    """
    table = next((t for t in _GPU_TABLES if t in storage.tables()), None)
    gpus = [_gpu(row) for row in storage.records(table)] if table else []
    gpus = [g for g in gpus if g["sm_count"] or g["name"]]
    seen = storage.records(_CUDA_DEVICES)
    if not gpus and not seen:
        return None
    by_id = {g["gpu"]: g for g in gpus}
    if seen:
        rows = [_seen(row, by_id) for row in seen]
    else:
        rows = [g for g in gpus if g["sm_count"] or len(gpus) == 1]
    columns = {
        name: pl.Series(name, [row.get(name) for row in rows], strict=False).cast(
            dtype, strict=False
        )
        for name, dtype in DEVICES.schema().items()
    }
    return pl.LazyFrame(columns)


def threads(gather: Gather) -> pl.LazyFrame | None:
    """Return the `threads` table; of several names of a thread the one of highest priority."""
    storage = gather.storage
    rows = storage.records("ThreadNames")
    if not rows:
        return None
    ids = {i for row in rows if (i := _integer(row, "nameId")) is not None}
    texts = storage.strings(ids)
    best: dict[tuple[int, int], tuple[int, str]] = {}
    for row in rows:
        thread, name_id = _integer(row, "globalTid"), _integer(row, "nameId")
        if thread is None or name_id is None:
            continue
        machine = gather.machines.get(thread >> 48, 0)
        tid = gather.tids.get(thread, thread % 2**24)
        key = ((thread >> 24) % 2**24 + machine * 2**24, tid)
        named = (_integer(row, "priority") or 0, texts.get(name_id, ""))
        best[key] = max(best.get(key, named), named)
    named_threads = [(p, t, name) for (p, t), (_, name) in sorted(best.items())]
    return pl.LazyFrame(named_threads, schema=dict(THREADS.schema()), orient="row")


def _meta(storage: Storage, tables: tuple[str, ...]) -> dict[str, str]:
    rows = [row for table in tables for row in storage.records(table)]
    pairs = ((str(r.get("name") or ""), str(r.get("value") or "")) for r in rows)
    return {key: value[:_MOST_CHARS] for key, value in pairs if key}


def _numbered(prefix: str, meta: Mapping[str, str]) -> list[str]:
    keys = [k for k in meta if k.startswith(prefix) and k.removeprefix(prefix).isdecimal()]
    return sorted(keys, key=lambda k: (len(k), k))


def _gpu(row: Mapping[str, object]) -> dict[str, Any]:
    major = _first(row, "computeMajor", "computeCapabilityMajor")
    minor = _first(row, "computeMinor", "computeCapabilityMinor")
    ordinal = _first(row, "cuDevice", "deviceId", "id") or 0
    gpu = _first(row, "id", "deviceId")
    return {
        "device": ordinal,
        "gpu": ordinal if gpu is None else gpu,
        "name": str(row.get("name") or "") or None,
        "sm_count": _first(row, "smCount", "numMultiprocessors"),
        "capability": f"{major}.{minor}" if major else None,
        "memory_bytes": _first(row, "totalMemory", "globalMemorySize"),
        "bandwidth_bytes_per_s": _first(row, "memoryBandwidth", "globalMemoryBandwidth"),
        "uuid": str(row.get("uuid") or "") or None,
    }


def _seen(row: Mapping[str, object], by_id: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    gpu = dict(by_id.get(_integer(row, "gpuId"), {}))
    return gpu | {
        "device": _integer(row, "cudaId"),
        "pid": _integer(row, "pid"),
        "gpu": _integer(row, "gpuId"),
        "sm_count": gpu.get("sm_count") or _integer(row, "numMultiprocessors"),
        "uuid": gpu.get("uuid") or str(row.get("uuid") or "") or None,
    }


def _first(row: Mapping[str, object], *keys: str) -> int | None:
    """Return the first of several columns that holds a number: names changed over the years."""
    values = (_integer(row, key) for key in keys)
    return next((value for value in values if value is not None), None)


def _integer(row: Mapping[str, object], key: str) -> int | None:
    value = row.get(key)
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None

"""A trace as rows of nsys's tables: ids packed, names as strings, kinds as codes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tracelens import __version__
from tracelens.classify.normalise import parts
from tracelens.exports import cuts
from tracelens.exports.nsys_sqlite.schema import (
    DOMAIN,
    DRIVER,
    ENUMS,
    PUSH_POP,
    RUNTIME,
    START_END,
    VERSION,
)
from tracelens.readers.nsys import own
from tracelens.readers.nsys.gather import THREADS
from tracelens.readers.nsys.samples import MEMORY_KINDS
from tracelens.trace.nesting import DESCENDING, ORDER
from tracelens.trace.numbering import renumbered
from tracelens.trace.schema import GPU_OPS, RANGES, REFERENCES, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tracelens.links.linked import Linked

Rows = tuple[str, pl.LazyFrame]

_ACTIVITY: Final = "CUPTI_ACTIVITY_KIND_"
_IS_DRIVER: Final = re.compile(r"cu[A-Z]")
_MACHINE: Final = 2**48
"""What nsys numbers the first machine with, above process and thread."""
_IDS: Final = 2**24
"""How many ids of processes, and of threads, nsys tells apart."""
_PRIORITY: Final = 20
_METRICS: Final = 0x1_0001_0000_0000
"""What nsys adds to the number of a GPU in the type of its metrics."""
_EXACT: Final = 2.0**53
_NAMELESS: Final = re.compile(r"domain ([1-9][0-9]{0,17})")
"""What the reader of nsys's exports calls an NVTX domain that has no name."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CHANGES: Final = {"alloc": 0, "free": 1, "free_completed": 1}
"""Allocator events that are allocations and deallocations, as nsys's memory usage counts them."""
_SAID_BY_NSYS: Final = ("time_ns", "device", "pid", "action", "address", "size_bytes")
"""Columns of `memory` that CUDA_GPU_MEMORY_USAGE_EVENTS has, beside the kind of memory."""

_SHARED: Final = {
    "start": pl.col("start_ns"),
    "end": pl.col("end_ns"),
    "deviceId": pl.col("device"),
    "contextId": pl.col("context"),
    "streamId": pl.col("stream"),
    "correlationId": pl.col("correlation"),
}
_LAUNCH_SHAPE: Final = {
    "gridX": "grid_x",
    "gridY": "grid_y",
    "gridZ": "grid_z",
    "blockX": "block_x",
    "blockY": "block_y",
    "blockZ": "block_z",
    "registersPerThread": "registers",
    "dynamicSharedMemory": "shared_bytes",
}


class Export:
    """The rows of one export; texts get their ids as the tables that hold them are made."""

    def __init__(self, linked: Linked) -> None:
        self._linked = linked
        self._tables = cuts.tables(linked)
        names = self._tables.get("names")
        self._texts = {} if names is None else dict(names.collect().iter_rows())
        self._strings: dict[str, int] = {}
        self._of_names = {i: self._string(text or "") for i, text in self._texts.items()}

    def tables(self) -> Iterator[Rows]:
        """Give each table's name and rows, with columns by nsys's names; null columns are left out.

        A table without rows is there where the trace's own is.
        """
        if "gpu_ops" in self._tables:
            yield from self._work(self._tables["gpu_ops"])
        if "api" in self._tables:
            yield f"{_ACTIVITY}RUNTIME", self._calls(self._tables["api"])
        if "ranges" in self._tables:
            yield "NVTX_EVENTS", self._domains()
            yield "NVTX_EVENTS", self._ranges(self._tables["ranges"])
        if "memory" in self._tables:
            yield from self._memory(self._tables["memory"])
        if "counters" in self._tables:
            yield from _metrics(self._tables["counters"].collect())
        yield from self._own()
        yield "ThreadNames", self._named_threads()
        yield THREADS, self._odd_threads.lazy().select("globalTid", "tid")
        yield "PROCESSES", self._processes()
        if "devices" in self._tables:
            yield from _gpus(self._tables["devices"].collect())
        yield from self._about()
        strings = {"id": list(self._strings.values()), "value": list(self._strings)}
        yield "StringIds", pl.LazyFrame(strings, schema={"id": pl.Int64, "value": pl.String})

    # The tables that nsys has, too.

    def _work(self, ops: pl.LazyFrame) -> Iterator[Rows]:
        have = ops.collect_schema()
        lacking = [c for c in GPU_OPS.schema(everything=True) if c not in have]
        ops = ops.with_columns(pl.lit(None, pl.Int32).alias(c) for c in lacking)
        shared = {**_SHARED, "globalPid": _global_pid()}
        graph_node, graph_id = pl.col("graph_node"), pl.col("graph_id")
        name = {own.NAME: self._named("name_id")}
        base = {
            row["name_id"]: self._string(parts(row["name"]).head or row["name"])
            for row in self._linked.names.filter(kind="kernel").iter_rows(named=True)
        }
        columns = {
            "kernel": {
                **{theirs: pl.col(ours) for theirs, ours in _LAUNCH_SHAPE.items()},
                "demangledName": self._named("name_id"),
                "shortName": _replaced("name_id", base),
                "graphNodeId": graph_node,
                "graphId": graph_id,
            },
            "copy": {
                "bytes": pl.col("bytes"),
                "copyKind": pl.col("copy_kind").to_physical(),
                "graphNodeId": graph_node,
                "graphId": graph_id,
                **name,
            },
            "memset": {
                "bytes": pl.col("bytes"),
                "graphNodeId": graph_node,
                "graphId": graph_id,
                **name,
            },
            "graph": {"graphId": graph_id, **name},
        }
        kinds = {"kernel": "KERNEL", "copy": "MEMCPY", "memset": "MEMSET", "graph": "GRAPH_TRACE"}
        counts = dict(ops.group_by("kind").len().collect().iter_rows())
        in_graphs = pl.any_horizontal(pl.col("graph_id", "graph_node").is_not_null().any())
        # That graphs were seen at all is told by this table, whether it has rows or not.
        there = {"kernel", *counts} | (
            {"graph"} if ops.select(in_graphs).collect().item() else set()
        )
        for kind, table in kinds.items():
            if kind in there:
                rows = ops.filter(pl.col("kind") == kind)
                yield f"{_ACTIVITY}{table}", rows.select(**shared, **columns[kind])

    def _calls(self, api: pl.LazyFrame) -> pl.LazyFrame:
        driver = [i for i, text in self._texts.items() if _IS_DRIVER.match(text or "")]
        is_driver = pl.col("name_id").is_in(driver)
        status = pl.col("status") if "status" in api.collect_schema() else pl.lit(None, pl.Int32)
        return api.select(
            start="start_ns",
            end="end_ns",
            eventClass=pl.when(is_driver).then(DRIVER).otherwise(RUNTIME),
            globalTid=self._global_tid("tid"),
            correlationId="correlation",
            nameId=self._named("name_id"),
            returnValue=status,
        )

    def _ranges(self, ranges: pl.LazyFrame) -> pl.LazyFrame:
        start_end = pl.col("kind") == "start_end"
        numbers = {kind: number for number, kind in own.KINDS.items()}
        domains = self._numbered_domains.lazy().select("pid", "domain", "domainId")
        named = ranges.join(domains, on=["pid", "domain"], how="left", maintain_order="left")
        texts = self._tables["names"].select("name_id", text="name")
        return named.join(texts, on="name_id", how="left", maintain_order="left").select(
            "text",
            start="start_ns",
            end=pl.when("closed").then("end_ns"),
            eventType=pl.when(start_end).then(START_END).otherwise(PUSH_POP),
            rangeId=pl.when(start_end).then("range_id"),
            globalTid=self._global_tid("tid"),
            endGlobalTid=self._global_tid("end_tid"),
            domainId=pl.col("domainId").fill_null(0),
            **{
                own.KIND: pl.col("kind").replace_strict(numbers, default=None),
                own.END: pl.when(~pl.col("closed")).then("end_ns"),
            },
        )

    def _domains(self) -> pl.LazyFrame:
        """Return the rows that name the NVTX domains of each process."""
        return (
            self._numbered_domains.lazy()
            .filter("named")
            .select(
                "domainId",
                start="start_ns",
                eventType=pl.lit(DOMAIN),
                text="domain",
                globalTid=self._global_tid("tid"),
            )
        )

    @cached_property
    def _numbered_domains(self) -> pl.DataFrame:
        """Return pid, domain, its number in the process, and tid and start of its first range.

        The default domain is 0; one that the recorder knew by its number alone is not `named`.
        """
        ranges = self._tables.get("ranges", RANGES.empty().lazy())
        first = ranges.filter(pl.col("domain") != "").group_by("pid", "domain", maintain_order=True)
        found = first.agg(pl.col("tid", "start_ns").first()).collect()
        known = [_NAMELESS.fullmatch(domain) for domain in found["domain"]]
        own = [int(number[1]) if number else None for number in known]
        taken = {(pid, number) for pid, number in zip(found["pid"], own, strict=True) if number}
        free = _Free(taken, range(1, _IDS))
        numbers = [n or free.next(pid) for pid, n in zip(found["pid"], own, strict=True)]
        return found.with_columns(
            domainId=pl.Series(numbers, dtype=pl.Int64),
            named=pl.Series([n is None for n in own], dtype=pl.Boolean),
        )

    def _memory(self, memory: pl.LazyFrame) -> Iterator[Rows]:
        codes = {label: code for code, label in MEMORY_KINDS.items()}
        fits = pl.col("action").is_in(list(_CHANGES)) & pl.col("time_ns").is_not_null()
        fits &= pl.col("memory_kind").is_in(list(codes)) | pl.col("memory_kind").is_null()
        events = memory.filter(fits).select(
            start="time_ns",
            globalPid=_global_pid(),
            deviceId="device",
            address="address",
            bytes="size_bytes",
            memKind=pl.col("memory_kind").replace_strict(codes, default=None),
            memoryOperationType=pl.col("action").replace_strict(_CHANGES, default=None),
        )
        yield "CUDA_GPU_MEMORY_USAGE_EVENTS", events

    def _named_threads(self) -> pl.LazyFrame:
        threads = self._tables.get("threads", TABLES["threads"].empty().lazy()).collect()
        ids = [self._string(name or "") for name in threads["name"]]
        return (
            threads.lazy()
            .with_columns(nameId=pl.Series(ids, dtype=pl.Int64), priority=pl.lit(_PRIORITY))
            .select("nameId", "priority", globalTid=self._global_tid("tid"))
        )

    def _processes(self) -> pl.LazyFrame:
        """Return the processes, each by the name of its first thread where that has one."""
        threads = self._tables.get("threads", TABLES["threads"].empty().lazy())
        named = threads.filter(pl.col("pid") == pl.col("tid")).select("pid", "name")
        found = [t.select("pid") for t in self._tables.values() if "pid" in t.collect_schema()]
        pids = pl.concat([*found, named.select("pid")]).drop_nulls().unique().sort("pid")
        return pids.join(named.unique("pid", keep="first"), on="pid", how="left").select(
            "pid", "name", globalPid=_global_pid()
        )

    # What nsys has no place for.

    def _own(self) -> Iterator[Rows]:
        for name in own.TABLES:
            if name in self._tables and (name != "memory" or self._memory_has_more()):
                rows = self._tables[name]
                if name in REFERENCES:
                    rows = renumbered(name, rows, self._numbers)
                texts = [c for c, dtype in TABLES[name].schema().items() if dtype == pl.String]
                yield own.table(name), rows.with_columns(own.encoded(c) for c in texts)

    def _memory_has_more(self) -> bool:
        """Tell whether memory usage events alone would lose something."""
        memory = self._tables["memory"]
        more = [c for c in TABLES["memory"].schema() if c not in (*_SAID_BY_NSYS, "memory_kind")]
        kinds = (*MEMORY_KINDS.values(), "unknown")
        lost = pl.any_horizontal(
            *(pl.col(column).is_not_null() for column in more),
            ~pl.col("action").is_in(["alloc", "free"]),
            ~pl.col("memory_kind").is_in(kinds).fill_null(value=False),
            pl.col("time_ns").is_null() | (pl.col("time_ns").diff() < 0).fill_null(value=False),
        )
        return bool(memory.select(lost.any()).collect().item())

    @cached_property
    def _numbers(self) -> Mapping[str, pl.LazyFrame]:
        """Return the row numbers that a reader will give: work by kind, ranges as they nest."""
        now = pl.int_range(pl.len(), dtype=pl.UInt32)
        numbers = {}
        if "gpu_ops" in self._tables:
            work = self._tables["gpu_ops"].sort("kind", "op_id")
            numbers["gpu_ops"] = work.select(was="op_id", now=now)
        if "ranges" in self._tables:
            ranges = self._tables["ranges"].sort(ORDER, descending=DESCENDING, maintain_order=True)
            numbers["ranges"] = ranges.select(was="range_id", now=now)
        return numbers

    def _about(self) -> Iterator[Rows]:
        source = self._linked.trace.source
        facts = {
            **source.facts,
            "exported_from": source.path.name,
            "exported_format": source.format,
            "recorded_format": source.facts.get("recorded_format", source.format),
            "recorded_by": source.facts.get("recorded_by") or source.producer or source.format,
        }
        known = {
            "COMMAND": facts.get("command"),
            "CUDA_GRAPH_TRACE_OPTIONS:MODE": facts.get("cuda_graph_trace"),
            "RUN_DURATION_MS": facts.get("duration_ms"),
        }
        counts = {
            name: self._tables[name].select(pl.len()).collect().item()
            for name in ("gpu_ops", "ranges")
            if name in self._tables
        }
        capture = [
            *((name, value) for name, value in known.items() if value),
            *((own.FACT + name, value) for name, value in facts.items()),
            *((own.CAVEAT + c.kind, c.text) for c in cuts.caveats(self._linked)),
            *((own.ROWS + name, str(count)) for name, count in counts.items()),
        ]
        versions = zip(("MAJOR", "MINOR", "MICRO"), VERSION.split("."), strict=True)
        export = [
            ("EXPORT_PRODUCT_NAME", "tracelens"),
            ("EXPORT_PRODUCT_VERSION", __version__),
            ("EXPORT_SCHEMA_VERSION", VERSION),
            *((f"EXPORT_SCHEMA_VERSION_{part}", number) for part, number in versions),
        ]
        for table, pairs in (("META_DATA_CAPTURE", capture), ("META_DATA_EXPORT", export)):
            yield (
                table,
                pl.LazyFrame(pairs, schema={"name": pl.String, "value": pl.String}, orient="row"),
            )
        for table, labels in ENUMS.items():
            schema = {"id": pl.Int64, "name": pl.String, "label": pl.String}
            yield table, pl.LazyFrame(labels, schema=schema, orient="row")
        yield from self._extent()
        yield from _session_start(facts.get("epoch_ns", ""))

    def _extent(self) -> Iterator[Rows]:
        """Give the span of everything, if there is anything."""
        spans = [self._tables[n] for n in ("gpu_ops", "api", "ranges") if n in self._tables]
        times = [span.select(pl.col("start_ns", "end_ns")) for span in spans]
        if times:
            start = pl.col("start_ns").min()
            stop = pl.max_horizontal(pl.col("start_ns", "end_ns").max())
            whole = {"startTime": start, "stopTime": stop, "duration": stop - start}
            extent = pl.concat(times).select(globalVid=pl.lit(_MACHINE), **whole)
            yield "ANALYSIS_DETAILS", extent.drop_nulls()

    # Ids.

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings) + 1)

    def _named(self, column: str) -> pl.Expr:
        return _replaced(column, self._of_names)

    def _global_tid(self, tid: str) -> pl.Expr:
        """Return process and thread in one number; odd threads have a stand-in."""
        plain = _global_pid() + pl.col(tid).cast(pl.Int64)
        if self._odd_threads.is_empty():
            return plain
        odd = dict(self._odd_threads.select("key", "globalTid").iter_rows())
        return _key("pid", tid).replace_strict(odd, default=plain, return_dtype=pl.Int64)

    @cached_property
    def _odd_threads(self) -> pl.DataFrame:
        """Return globalTid, tid and `key` of the threads whose ids do not fit into 24 bits.

        In their place stand ids that no other thread of the process has, from the highest down.
        """
        seen = [
            self._tables[table].select("pid", tid=tid)
            for table, tid in (
                ("api", "tid"), ("ranges", "tid"), ("ranges", "end_tid"), ("threads", "tid"),
            )
            if table in self._tables
        ]  # fmt: skip
        schema = {"globalTid": pl.Int64, "tid": pl.Int64, "key": pl.Int64}
        if not seen:
            return pl.DataFrame(schema=schema)
        threads = pl.concat(seen).drop_nulls().unique().sort("pid", "tid").collect()
        fits = pl.col("tid").is_between(0, _IDS - 1)
        odd = threads.filter(~fits)
        if odd.is_empty():
            return pl.DataFrame(schema=schema)
        taken = set(threads.filter(fits).iter_rows())
        free = _Free(taken, range(_IDS - 1, 0, -1))
        stand_in = pl.Series([free.next(pid) for pid in odd["pid"]], dtype=pl.Int64)
        return odd.select(globalTid=_global_pid() + stand_in, tid="tid", key=_key("pid", "tid"))


class _Free:
    """Gives each process numbers that are not ``taken``, in the order of a range."""

    def __init__(self, taken: set[tuple[int, int]], numbers: range) -> None:
        self._taken = taken
        self._numbers = numbers
        self._left: dict[int, Iterator[int]] = {}

    def next(self, pid: int) -> int:
        """Return the next free number of a process."""
        left = self._left.setdefault(pid, iter(self._numbers))
        return next(number for number in left if (pid, number) not in self._taken)


def _global_pid() -> pl.Expr:
    """Return the process as nsys writes it: the bits beyond 24 count machines, from one."""
    pid = pl.col("pid").cast(pl.Int64)
    machine = (pid // _IDS) & 0xFF
    return (machine + 1) * _MACHINE + (pid & (_IDS - 1)) * _IDS


def _key(pid: str, tid: str) -> pl.Expr:
    return pl.col(pid).cast(pl.Int64) * 2**32 + (pl.col(tid).cast(pl.Int64) & (2**32 - 1))


def _replaced(column: str, by: Mapping[int, int]) -> pl.Expr:
    if not by:
        return pl.lit(None, pl.Int64)
    return pl.col(column).replace_strict(by, default=None, return_dtype=pl.Int64)


def _metrics(counters: pl.DataFrame) -> Iterator[Rows]:
    """Give the metrics of GPUs, which nsys keeps as whole numbers, if these are."""
    whole = (pl.col("value").round() == pl.col("value")) & (pl.col("value").abs() <= _EXACT)
    if not counters.select(whole.all()).item():
        return
    names = counters.select("name").unique(maintain_order=True).with_row_index("metricId")
    typed = counters.join(names, on="name", maintain_order="left").with_columns(
        typeId=pl.lit(_METRICS) + pl.col("device").fill_null(0)
    )
    yield (
        "GPU_METRICS",
        typed.lazy().select(
            "typeId",
            "metricId",
            rawTimestamp="time_ns",
            timestamp="time_ns",
            value=pl.col("value").cast(pl.Int64),
        ),
    )
    labels = typed.lazy().select("typeId", "metricId", metricName="name")
    yield "TARGET_INFO_GPU_METRICS", labels.unique(maintain_order=True)


def _gpus(devices: pl.DataFrame) -> Iterator[Rows]:
    gpu = pl.coalesce("gpu", "device")
    known = devices.filter(gpu.is_not_null())
    version = pl.col("capability").str.split_exact(".", 1)
    yield (
        "TARGET_INFO_GPU",
        known.lazy()
        .unique(["gpu", "device"], keep="first", maintain_order=True)
        .select(
            "name",
            "uuid",
            vmId=pl.lit(_MACHINE),
            id=gpu,
            totalMemory="memory_bytes",
            memoryBandwidth="bandwidth_bytes_per_s",
            smCount="sm_count",
            cuDevice="device",
            computeMajor=version.struct[0].cast(pl.Int64, strict=False),
            computeMinor=version.struct[1].cast(pl.Int64, strict=False),
        )
        .unique("id", keep="first", maintain_order=True),
    )
    yield "TARGET_INFO_CUDA_DEVICE", known.lazy().select("pid", gpuId=gpu, cudaId="device")


def _session_start(epoch_ns: str) -> Iterator[Rows]:
    """Give the Unix time of the recording's time 0, if it is one."""
    if not re.fullmatch(r"-?\d{1,18}|[1-8]\d{18}", epoch_ns):
        return
    start = _EPOCH + timedelta(seconds=int(epoch_ns) // 10**9)
    row: dict[str, Any] = {"utcEpochNs": int(epoch_ns), "utcTime": f"{start:%Y-%m-%dT%H:%M:%S}"}
    yield "TARGET_INFO_SESSION_START_TIME", pl.LazyFrame([row])

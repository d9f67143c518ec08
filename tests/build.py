"""Tiny traces by hand, through the real file formats: SQLite, Parquet and Arrow exports of nsys.

A few events on a few threads are enough for most tests, and a test reads best when its numbers
stand in it::

    trace = Nsys(schema="3.20.3")
    main = trace.thread("python", pid=100, tid=100)
    main.push("forward", 0, 100)
    main.kernel("ampere_sgemm_128x64_tn", at=10, run=(20, 40))
    path = trace.write(tmp_path / "run.sqlite")

Every time is in nanoseconds on the clock of the recording, every size in bytes. Tables are made
only when they have rows, as nsys does. ``columns={"gridX": 4}`` sets any column of a row by its
own name, to anything: traces are hostile input.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

import polars as pl

from tests.nsys_schema import (
    COPY_KINDS,
    MEMORY_KINDS,
    PRODUCTS,
    SEVERITIES,
    Column,
    Row,
    Text,
    Value,
    tables,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

Span = tuple[int, int]


class Launch(TypedDict, total=False):
    """How GPU work was launched, and where it ran.

    The API call takes ``api``, or one nanosecond from ``at``. ``event_class`` is 0 for the CUDA
    runtime and 1 for the driver. ``columns`` are of the GPU work's row.
    """

    at: int
    api: Span
    call: str
    event_class: int
    stream: int
    device: int
    columns: Row


@dataclass
class Thread:
    """One thread of one process, and the events that it recorded."""

    trace: Nsys
    pid: int
    tid: int
    vm: int = 1

    @property
    def global_pid(self) -> int:
        """The process as nsys writes it: vmId(8), then pid(24), then 24 empty bits."""
        return self.vm << 48 | self.pid << 24

    @property
    def global_tid(self) -> int:
        """The thread as nsys writes it: vmId(8), then pid(24), then tid(24)."""
        return self.global_pid | self.tid

    def push(
        self,
        text: Text,
        start: int,
        end: int | None,
        *,
        domain: str | None = None,
        registered: bool = False,
        kind: str = "push_pop",
        end_thread: Thread | None = None,
        columns: Row | None = None,
    ) -> Thread:
        """Add an NVTX range from ``start`` to ``end`` ns; an ``end`` of None was never recorded.

        A ``registered`` text goes through StringIds, as libraries' ranges do. ``kind`` is
        push_pop, start_end or mark; ``end_thread`` ended a start_end range, where another did.
        """
        row: Row = {"start": start, "end": end, "globalTid": self.global_tid}
        row["eventType"] = {"push_pop": 59, "start_end": 60, "mark": 34}[kind]
        row["domainId"] = self.trace.domain(self, domain, start)
        row |= {"textId": self.trace.string(text)} if registered else {"text": text}
        if kind == "start_end":
            row["rangeId"] = self.trace.next_id(0)
            row["endGlobalTid"] = end_thread.global_tid if end_thread else None
        self.trace.insert("NVTX_EVENTS", row, columns)
        return self

    def call(
        self,
        name: Text,
        start: int,
        end: int,
        *,
        event_class: int = 0,
        status: int = 0,
        correlation: int | None = None,
        columns: Row | None = None,
    ) -> int:
        """Add a CUDA API call from ``start`` to ``end`` ns and return its correlation id.

        ``event_class`` is 0 for the runtime, 1 for the driver and 67 for the double that
        --cudabacktrace writes; ``status`` is the CUDA result, 0 for success.
        """
        number = self.trace.next_id(self.pid) if correlation is None else correlation
        row: Row = {"start": start, "end": end, "eventClass": event_class, "returnValue": status}
        row |= {"globalTid": self.global_tid, "nameId": self.trace.string(name)}
        self.trace.insert(_ACTIVITY + "RUNTIME", {**row, "correlationId": number}, columns)
        return number

    def kernel(self, name: Text, *, run: Span, **launch: Unpack[Launch]) -> int:
        """Add a kernel over ``run`` ns and its API call; return their correlation id."""
        row = _kernel_row(self.trace, name)
        return self._launch("KERNEL", "cudaLaunchKernel_v7000", run, row, launch)

    def copy(
        self,
        *,
        run: Span,
        bytes: int,  # noqa: A002
        kind: str = "HtoD",
        **launch: Unpack[Launch],
    ) -> int:
        """Add a copy of ``bytes`` over ``run`` ns and its API call; ``kind`` as in COPY_KINDS."""
        row: Row = {"bytes": bytes, "copyKind": COPY_KINDS.index(kind), "copyCount": 1}
        return self._launch("MEMCPY", "cudaMemcpyAsync_v3020", run, row, launch)

    def memset(self, *, run: Span, bytes: int, **launch: Unpack[Launch]) -> int:  # noqa: A002
        """Add a memset of ``bytes`` over ``run`` ns and its API call; return their id."""
        row: Row = {"bytes": bytes, "memKind": MEMORY_KINDS.index("device")}
        return self._launch("MEMSET", "cudaMemsetAsync_v3020", run, row, launch)

    def graph(self, *, run: Span, graph_id: int, **launch: Unpack[Launch]) -> int:
        """Add a CUDA graph that runs as a whole over ``run`` ns and its API call.

        Kernels of its nodes, as --cuda-graph-trace=node records them, share the returned id:
        ``trace.kernel_without_launch(name, run, correlation=id, graph_node=node)``.
        """
        row: Row = {"graphId": graph_id, "graphExecId": graph_id + 1}
        return self._launch("GRAPH_TRACE", "cudaGraphLaunch_v10000", run, row, launch)

    def _launch(self, table: str, call: str, run: Span, row: Row, launch: Launch) -> int:
        if "api" not in launch and "at" not in launch:
            raise ValueError("When was it launched? Give at=NS, or api=(START_NS, END_NS).")
        at = launch.get("at", 0)
        start, end = launch.get("api", (at, at + 1))
        name, event_class = launch.get("call", call), launch.get("event_class", 0)
        number = self.call(name, start, end, event_class=event_class)
        return self.run(table, number, run, row, launch)

    def run(self, table: str, correlation: int, run: Span, row: Row, launch: Launch) -> int:
        """Add a row of GPU work without its API call, and return its correlation id."""
        whole: Row = {"start": run[0], "end": run[1], "globalPid": self.global_pid, **row}
        whole |= {"correlationId": correlation, "streamId": launch.get("stream", 7)}
        whole |= {"deviceId": launch.get("device", 0), "contextId": 1, "greenContextId": 0}
        self.trace.insert(_ACTIVITY + table, whole, launch.get("columns"))
        return correlation


@dataclass
class Nsys:
    """An Nsight Systems export in the making; ``schema`` is one of PRODUCTS."""

    schema: str = "3.20.3"
    start_utc_ns: int = 1_700_000_000_000_000_000
    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    _threads: dict[Span, Thread] = field(default_factory=dict)
    _strings: dict[Text, int] = field(default_factory=dict)
    _domains: dict[tuple[int, str], int] = field(default_factory=dict)
    _metrics: dict[tuple[int, str], int] = field(default_factory=dict)
    _ids: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Look up the tables of the schema and write down where the export comes from."""
        if self.schema not in PRODUCTS:
            raise ValueError(f"No schema {self.schema!r}. Known: {', '.join(PRODUCTS)}.")
        self.tables, self._known = tables(self.schema), tables(None)
        self._provenance()

    def thread(
        self, name: str | None, *, pid: int = 100, tid: int | None = None, vm: int = 1
    ) -> Thread:
        """Return the thread, new or known; the first one of a process names the process.

        A nameless thread leaves no row in ThreadNames or PROCESSES, as on Windows.
        """
        thread = Thread(self, pid, pid if tid is None else tid, vm)
        known = self._threads.setdefault((thread.global_pid, thread.tid), thread)
        if known is thread and name is not None:
            row: Row = {"nameId": self.string(name), "globalTid": thread.global_tid}
            self.insert("ThreadNames", {**row, "priority": 20})
            if all(r["globalPid"] != thread.global_pid for r in self.rows["PROCESSES"]):
                process: Row = {"globalPid": thread.global_pid, "pid": pid, "name": name}
                self._insert_if_known("PROCESSES", process)
        return known

    def kernel_without_launch(
        self,
        name: Text,
        run: Span,
        *,
        pid: int = 100,
        correlation: int | None = None,
        graph_node: int | None = None,
        **launch: Unpack[Launch],
    ) -> int:
        """Add a kernel over ``run`` ns whose API call was not recorded, or has that id already."""
        number = self.next_id(pid) if correlation is None else correlation
        row: Row = {**_kernel_row(self, name), "graphNodeId": graph_node}
        return Thread(self, pid, pid).run("KERNEL", number, run, row, launch)

    def graph_node(
        self, thread: Thread, node: int, at: int, *, original: int | None = None
    ) -> None:
        """Add the creation of a node of a CUDA graph at ``at`` ns, or its clone of ``original``."""
        split = "CUDA_GRAPH_NODE_EVENTS" in self.tables
        row: Row = {"start": at, "end": at, "eventClass": 77, "globalTid": thread.global_tid}
        row |= {"nameId": self.string("CUDA Graph Node Creation")}
        row |= {"graphNodeId": node, "originalGraphNodeId": original}
        self.insert("CUDA_GRAPH_NODE_EVENTS" if split else "CUDA_GRAPH_EVENTS", row)

    def device(
        self,
        device: int,
        name: Text,
        *,
        sm: int = 132,
        capability: Span = (9, 0),
        memory: int = 150_754_820_096,
        bandwidth: int = 4_800_000_000_000,
        uuid: str = "",
        gpu: int | None = None,
        pids: Iterable[int] = (),
        columns: Row | None = None,
    ) -> None:
        """Describe the GPU that ``pids`` (or every process so far) see as ordinal ``device``.

        ``sm`` multiprocessors, ``memory`` in bytes, ``bandwidth`` in bytes/s; ``gpu`` is the
        number of the physical GPU, where CUDA_VISIBLE_DEVICES made it differ from ``device``.
        """
        number = device if gpu is None else gpu
        for pid in pids or {t.pid for t in self._threads.values()} or {100}:
            seen: Row = {"gpuId": number, "cudaId": device, "pid": pid, "uuid": uuid}
            self._insert_if_known("TARGET_INFO_CUDA_DEVICE", {**seen, "numMultiprocessors": sm})
        row: Row = {"name": name, "totalMemory": memory, "memoryBandwidth": bandwidth}
        row |= {"vmId": 1 << 48, "id": number, "cuDevice": number, "uuid": uuid, "smCount": sm}
        row |= {"computeMajor": capability[0], "computeMinor": capability[1]}
        if self.schema == "2020":
            self.insert("TARGET_INFO_CUDA_GPU", _as_in_2020(row), columns)
        elif all(r["id"] != number for r in self.rows["TARGET_INFO_GPU"]):
            self.insert("TARGET_INFO_GPU", row, columns)

    def diagnostic(
        self, text: Text, *, severity: str = "warning", at: int = 0, pid: int | None = None
    ) -> None:
        """Add a message of the profiler; ``severity`` as in SEVERITIES."""
        row: Row = {"timestamp": at, "timestampType": 2, "source": 3, "text": text}
        row |= {"globalPid": None if pid is None else 1 << 48 | pid << 24}
        self.insert("DIAGNOSTIC_EVENT", {**row, "severity": SEVERITIES.index(severity)})

    def memory_usage(
        self,
        at: int,
        bytes: int,  # noqa: A002
        address: int,
        *,
        free: bool = False,
        kind: str = "device",
        pid: int = 100,
        device: int = 0,
        columns: Row | None = None,
    ) -> None:
        """Add the allocation, or the ``free``, of ``bytes`` at ``at`` ns; kinds: MEMORY_KINDS."""
        row: Row = {"start": at, "bytes": bytes, "address": address, "memoryOperationType": free}
        row |= {"globalPid": 1 << 48 | pid << 24, "deviceId": device, "contextId": 1}
        row |= {"memKind": MEMORY_KINDS.index(kind)}
        self.insert("CUDA_GPU_MEMORY_USAGE_EVENTS", row, columns)

    def gpu_metric(self, name: str, at: int, value: int, *, device: int = 0) -> None:
        """Add one sample of a hardware metric at ``at`` ns, in the metric's own unit."""
        number = self._metrics.setdefault((device, name), len(self._metrics))
        row: Row = {"typeId": 0x1_0001_0000_0000 | device, "metricId": number}
        named: Row = {**row, "metricName": name, "typeName": "GPU Metrics"}
        if all(r["metricId"] != number for r in self.rows["TARGET_INFO_GPU_METRICS"]):
            self.insert("TARGET_INFO_GPU_METRICS", named)
        self.insert("GPU_METRICS", {**row, "timestamp": at, "rawTimestamp": at, "value": value})

    def capture_option(self, name: str, value: str) -> None:
        """Add a row to META_DATA_CAPTURE, such as ``CUDA_GRAPH_TRACE_OPTIONS:MODE``, ``Graph``."""
        self._insert_if_known("META_DATA_CAPTURE", {"name": name, "value": value})

    def insert(self, table: str, row: Row, columns: Row | None = None) -> None:
        """Add a row to any table; columns that this schema does not have are left out."""
        if table not in self.tables:
            raise ValueError(f"Schema {self.schema} has no table {table}.")
        whole = {**row, **(columns or {})}
        if unknown := whole.keys() - {column.name for column in self._known[table]}:
            raise ValueError(f"{table} never had a column {', '.join(sorted(unknown))}.")
        self.rows[table].append(whole)

    def string(self, text: Text) -> int:
        """Return the id of the row of StringIds that holds the text."""
        return self._strings.setdefault(text, len(self._strings) + 1)

    def domain(self, thread: Thread, name: str | None, at: int) -> int:
        """Return the number of an NVTX domain in the thread's process; 0 is the default one."""
        if name is None or (thread.pid, name) in self._domains:
            return 0 if name is None else self._domains[thread.pid, name]
        number = 1 + sum(pid == thread.pid for pid, _ in self._domains)
        self._domains[thread.pid, name] = number
        row: Row = {"start": at, "eventType": 75, "text": name, "domainId": number}
        self.insert("NVTX_EVENTS", {**row, "globalTid": thread.global_tid})
        return number

    def next_id(self, pid: int) -> int:
        """Return the process's next correlation id: they are unique inside a process only."""
        self._ids[pid] += 1
        return self._ids[pid]

    def write(self, path: Path, *, shuffle: int | None = None, wal: bool = False) -> Path:
        """Write the SQLite export and return its path.

        ``shuffle`` seeds a random order of rows. With ``wal`` the second half of every table
        stands in a write-ahead log beside the file, as after a crash of whoever wrote it.
        """
        whole = self._whole(shuffle)
        draft = path.with_name(f"{path.name}.draft")
        db = sqlite3.connect(draft)
        with db:
            for table, rows in whole.items():
                db.execute(f"CREATE TABLE {table} ({', '.join(c.sql for c in self.tables[table])})")
                self._fill(db, table, rows[: len(rows) // 2] if wal else rows)
        if wal:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
            with db:
                for table, rows in whole.items():
                    self._fill(db, table, rows[len(rows) // 2 :])
            shutil.copy(f"{draft}-wal", f"{path}-wal")
        shutil.copy(draft, path)
        db.close()
        draft.unlink()
        return path

    def write_parquet(self, folder: Path, *, shuffle: int | None = None) -> Path:
        """Write the export that ``--type parquetdir`` makes, usually NAME_pqtdir."""
        return self._write_frames(folder, "parquet", pl.DataFrame.write_parquet, shuffle)

    def write_arrow(self, folder: Path, *, shuffle: int | None = None) -> Path:
        """Write the export that ``--type arrowdir`` makes, usually NAME_arwdir: IPC streams."""
        return self._write_frames(folder, "arrow", _write_stream, shuffle)

    def _write_frames(
        self,
        folder: Path,
        suffix: str,
        write: Callable[[pl.DataFrame, Path], None],
        shuffle: int | None,
    ) -> Path:
        folder.mkdir(parents=True)
        for table, rows in self._whole(shuffle).items():
            write(_frame(self.tables[table], rows), folder / f"{table}.{suffix}")
        return folder

    def _fill(self, db: sqlite3.Connection, table: str, rows: Iterable[Row]) -> None:
        # CAST lets bytes that are not UTF-8 into a TEXT column, as nsys itself does.
        marks = ["CAST(? AS TEXT)" if c.type == "text" else "?" for c in self.tables[table]]
        values = (tuple(column.of(row) for column in self.tables[table]) for row in rows)
        db.executemany(f"INSERT INTO {table} VALUES ({', '.join(marks)})", values)

    def _whole(self, shuffle: int | None) -> dict[str, list[Row]]:
        everything: dict[str, list[Row]] = {
            "StringIds": [{"id": number, "value": text} for text, number in self._strings.items()],
            **{table: list(rows) for table, rows in self.rows.items() if rows},
        }
        if "ANALYSIS_DETAILS" in self.tables:
            everything["ANALYSIS_DETAILS"] = [self._extent()]
        if shuffle is not None:
            order = random.Random(shuffle)  # noqa: S311
            for rows in everything.values():
                order.shuffle(rows)
        return everything

    def _extent(self) -> Row:
        times = (row.get(key) for row in chain(*self.rows.values()) for key in ("start", "end"))
        last = max((time for time in times if isinstance(time, int)), default=0)
        return {"globalVid": 1 << 48, "duration": last, "startTime": 0, "stopTime": last}

    def _provenance(self) -> None:
        about = {
            "EXPORT_PRODUCT_NAME": "NVIDIA Nsight Systems",
            "EXPORT_PRODUCT_VERSION": PRODUCTS[self.schema],
            "EXPORT_SCHEMA_VERSION": self.schema,
        }
        for part, number in zip(("MAJOR", "MINOR", "MICRO"), self.schema.split("."), strict=False):
            about[f"EXPORT_SCHEMA_VERSION_{part}"] = number
        for name, value in about.items():
            self._insert_if_known("EXPORT_META_DATA", {"name": name, "value": value})
            self._insert_if_known("META_DATA_EXPORT", {"name": name, "value": value})
        for kind in ("NvtxEvents", "Cuda"):  # a key that repeats, as in every real capture
            self.capture_option("CAPTURE_EVENT_TYPE", kind)
        self._insert_if_known("TARGET_INFO_SESSION_START_TIME", {"utcEpochNs": self.start_utc_ns})
        self._enum("ENUM_CUDA_MEMCPY_OPER", COPY_KINDS)
        self._enum("ENUM_CUDA_MEM_KIND", MEMORY_KINDS)
        self._enum("ENUM_DIAGNOSTIC_SEVERITY_LEVEL", SEVERITIES)

    def _enum(self, table: str, labels: Sequence[str]) -> None:
        for number, label in enumerate(labels):
            row: Row = {"id": number, "name": label.upper(), "label": label}
            self._insert_if_known(table, row)

    def _insert_if_known(self, table: str, row: Row) -> None:
        if table in self.tables:
            self.insert(table, row)


_ACTIVITY: Final = "CUPTI_ACTIVITY_KIND_"


def _kernel_row(trace: Nsys, name: Text) -> Row:
    short = name if isinstance(name, bytes) else _short(name)
    row: Row = {"demangledName": trace.string(name), "shortName": trace.string(short)}
    row |= dict.fromkeys(("gridX", "gridY", "gridZ", "blockX", "blockY", "blockZ"), 1)
    return {**row, "launchType": 1, "registersPerThread": 32}


def _short(name: str) -> str:
    return name.removeprefix("void ").partition("<")[0].partition("(")[0].rpartition("::")[2]


def _as_in_2020(gpu: Row) -> Row:
    names = {
        "id": "deviceId",
        "name": "name",
        "totalMemory": "globalMemorySize",
        "memoryBandwidth": "globalMemoryBandwidth",
        "smCount": "numMultiprocessors",
        "computeMajor": "computeCapabilityMajor",
        "computeMinor": "computeCapabilityMinor",
    }
    return {new: gpu[old] for old, new in names.items()}


def _frame(columns: Iterable[Column], rows: list[Row]) -> pl.DataFrame:
    def series(column: Column) -> pl.Series:
        values = [_decoded(column.of(row)) for row in rows]
        return pl.Series(column.name, values, column.dtype, strict=False)

    return pl.DataFrame([series(column) for column in columns])


def _decoded(value: Value) -> Value:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _write_stream(frame: pl.DataFrame, path: Path) -> None:
    frame.write_ipc_stream(path, compat_level=pl.CompatLevel.oldest())


@dataclass(frozen=True)
class Step:
    """What one `training_step` holds: kernels and their nanoseconds per phase, and the rest."""

    end_ns: int
    kernels: Mapping[str | None, int]
    kernel_time_ns: Mapping[str | None, int]
    copies: int = 1
    copy_time_ns: int = 40
    busy_ns: int = 1_750
    span_ns: int = 2_230


# who launches it, when, over which nanoseconds it runs, and what it is
_STEP: Final = (
    ("main", 110, (150, 450), "ampere_sgemm_128x64_tn"),
    ("main", 120, (450, 550), "void at::native::vectorized_elementwise_kernel<4, gelu>(int)"),
    ("main", 130, (550, 850), "ampere_sgemm_128x64_tn"),
    ("main", 140, (850, 900), "void at::native::cunn_SoftMaxForward<8, float>(int)"),
    ("autograd", 510, (900, 1_200), "ampere_sgemm_128x64_nn"),
    ("autograd", 520, (1_200, 1_300), "void at::native::vectorized_elementwise_kernel<4, add>()"),
    ("autograd", 530, (1_300, 1_600), "ampere_sgemm_128x64_nt"),
    ("main", 1_810, (1_900, 2_100), "void at::native::multi_tensor_apply_kernel<Adam>(int)"),
    ("main", 1_820, (2_190, 2_250), "void at::native::multi_tensor_apply_kernel<Adam>(int)"),
)


def training_step(trace: Nsys, at: int = 0, *, pid: int = 100, ranges: bool = True) -> Step:
    """Add one step of training that begins at ``at`` ns, and return what it holds.

    Forward and optimizer are launched by the main thread; backward by the autograd thread, while
    the main thread is blocked inside its range `backward` and the GPU still runs the forward.
    A copy comes before all phases. Without ``ranges`` the phases are there, but not their names.
    """
    main = trace.thread("python", pid=pid)
    threads = {"main": main, "autograd": trace.thread("pt_autograd_0", pid=pid, tid=pid + 1)}
    if ranges:
        main.push("forward", at + 100, at + 500)
        main.push("backward", at + 500, at + 1_800)
        main.push("optimizer", at + 1_800, at + 2_200)
    main.copy(bytes=4_096, kind="HtoD", at=at + 10, run=(at + 20, at + 60))
    for who, launched, (start, end), name in _STEP:
        threads[who].kernel(name, at=at + launched, run=(at + start, at + end))
    main.call("cudaDeviceSynchronize_v3020", at + 2_200, at + 2_260)
    return Step(
        end_ns=at + 2_300,
        kernels={"forward": 4, "backward": 3, "optimizer": 2, None: 0},
        kernel_time_ns={"forward": 750, "backward": 700, "optimizer": 260, None: 0},
    )

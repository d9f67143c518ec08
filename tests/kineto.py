"""Tiny torch.profiler traces by hand, in the JSON that Kineto has written from 2020 to 2026.

A few events on a few threads, as `tests.build` does for nsys::

    trace = Profile("2026-02")
    main = trace.thread("python3", pid=100)
    main.annotation("forward", 0, 90_000)
    main.op("aten::mm", 5_000, 60_000, dims=[[4, 8], [8, 2]])
    main.kernel("ampere_sgemm_128x64_tn", at=10_000, run=(20_000, 40_000))
    path = trace.write(tmp_path / "rank0.json.gz")

Every time is in nanoseconds after `Profile.start_ns`; traces of before 2024-03 hold whole
microseconds only. Names are written as Kineto wrote them then: without escapes. Whatever returns
an `Event` returns what will be written: ``event.fields["dur"] = Raw("-1.000")`` changes any of it.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

from tests.build import _STEP, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

Span = tuple[int, int]
Text = str | bytes
Fields = dict[str, Any]

BASE_NS: Final = 1_790_857_026_000_000_000
"""What Kineto counts times from since 2024-05, in ns of the Unix clock."""
GPUS: Final = 16
"""GPUs that Kineto names in every trace, whether they are there or not."""


class Raw(str):
    """A value that is written as it stands, without quotes: a number's digits, or no JSON."""

    __slots__ = ()


@dataclass(frozen=True)
class Dialect:
    """What one generation of Kineto wrote, where it differs from PyTorch 2.11.

    ``cats`` gives today's category -> its name then; ``flows`` the category and name of arrows;
    ``external`` the key of the External id on calls and GPU events, which holds ``linked``: the
    id of the op, or the event's own correlation, or is not written.
    """

    decimals: bool = True
    base: bool = True
    listed: bool = False
    cats: Mapping[str, str] = field(default_factory=dict)
    flows: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    external: str = "External id"
    linked: str = "op"
    thread: str = "{}"
    stream: str = "{}"
    spans: bool = False
    instants: bool = True
    typed: bool = False
    annotation_ns: Span = (1, 2)


_CATS_2021: Final = {
    "cpu_op": "Operator",
    "user_annotation": "Operator",
    "kernel": "Kernel",
    "gpu_memcpy": "Memcpy",
    "gpu_memset": "Memset",
    "cuda_runtime": "Runtime",
    "cuda_driver": "Runtime",
    "gpu_user_annotation": "User",
}
_OLD: Final = Dialect(
    decimals=False,
    base=False,
    cats=_CATS_2021,
    flows={"ac2g": ("async", "launch"), "fwdbwd": ("async", "fwdbwd")},
    external="external id",
    spans=True,
    instants=False,
    stream='"stream {}"',
)
DIALECTS: Final[Mapping[str, Dialect]] = {
    "2020-12": Dialect(**{**vars(_OLD), "listed": True}),
    "2021-03": Dialect(**{**vars(_OLD), "thread": '"{}"'}),
    "2021-09": Dialect(
        **{
            **vars(_OLD),
            "cats": {k: v for k, v in _CATS_2021.items() if v[0] in "KMR"},
            "flows": {
                "ac2g": ("async_gpu", "cudaLaunchKernel"),
                "fwdbwd": ("forward_backward", "fwd_bwd"),
            },
            "stream": "{}",
        }
    ),
    "2022-06": Dialect(
        decimals=False,
        base=False,
        flows={
            "ac2g": ("async_cpu_to_gpu", "async_gpu"),
            "fwdbwd": ("forward_backward", "fwd_bwd"),
        },
        linked="correlation",
        spans=True,
        annotation_ns=(1_000, 1_000),
    ),
    "2023-06": Dialect(decimals=False, base=False, linked="", annotation_ns=(1_000, 1_000)),
    "2024-04": Dialect(base=False),
    "2024-06": Dialect(),
    "2026-02": Dialect(),
    "2026-07": Dialect(typed=True),
}


@dataclass
class Event:
    """One event: its keys and values in the order in which they are written.

    A line ends after the keys in ``breaks``, or after those that end one in events of its phase.
    """

    fields: Fields
    breaks: tuple[str, ...] = ()

    @property
    def correlation(self) -> int:
        """The id that ties a call and the GPU work that it launched."""
        return int(self.fields["args"]["correlation"])

    @property
    def external(self) -> int:
        """PyTorch's number of an op or annotation."""
        return int(self.fields["args"]["External id"])

    def holds(self, at: int) -> bool:
        """Tell whether the event had begun and not ended at a time."""
        return bool(self.fields["ts"] <= at < self.fields["ts"] + self.fields["dur"])


class Launch(TypedDict, total=False):
    """How GPU work was launched, and where it ran.

    The call takes ``api``, or 1 µs from ``at``. ``external`` is the op that Kineto names as the
    launcher; by default the innermost one that is open then, as Kineto does it; None is none.
    ``args`` adds to and replaces those of the GPU event.
    """

    at: int
    api: Span
    call: str
    driver: bool
    stream: int
    device: int
    context: int
    correlation: int
    external: Event | None
    args: Fields


@dataclass
class Thread:
    """One thread of one process, and the events that it recorded."""

    trace: Profile
    pid: int
    tid: int
    ops: list[Event] = field(default_factory=list)

    def op(
        self,
        name: Text,
        start: int,
        end: int,
        *,
        seq: int | None = None,
        fwd_thread: int = 0,
        dims: Sequence[Any] | None = None,
        types: Sequence[str] | None = None,
        inputs: Sequence[str] | None = None,
        args: Fields | None = None,
    ) -> Event:
        """Add a PyTorch op from ``start`` to ``end`` ns.

        ``seq`` is its sequence number, and ``fwd_thread`` not 0 where it computes a gradient;
        ``dims``, ``types`` and ``inputs`` are shapes, types and scalar inputs, as --record_shapes.
        """
        found: Fields = {}
        if seq is not None:
            found |= {"Sequence number": seq, "Fwd thread id": fwd_thread}
        found["Record function id"] = 0
        if dims is not None:
            found["Concrete Inputs"] = list(inputs or [""] * len(dims))
            found["Input type"] = list(types or ["float"] * len(dims))
            found["Input Strides"] = [_strides(shape) for shape in dims]
            found["Input Dims"] = list(dims)
        return self._opened("cpu_op", name, start, end, {**found, **(args or {})})

    def annotation(
        self,
        name: Text,
        start: int,
        end: int,
        *,
        gpu: Span | None = None,
        stream: int = 7,
        device: int = 0,
    ) -> Event:
        """Add a `record_function` range, and what Kineto shows of it on the GPU over ``gpu`` ns."""
        event = self._opened("user_annotation", name, start, end, {"Record function id": 0})
        if gpu is not None:
            early, longer = self.trace.dialect.annotation_ns
            shown = (gpu[0] - early, gpu[1] - early + longer)
            args = {"External id": event.external}
            where = (device, self.trace.stream(stream))
            self.trace.add("gpu_user_annotation", name, where, shown, args)
        return event

    def python(
        self, name: Text, start: int, end: int, *, parent: int | None = None, module: int = -1
    ) -> Event:
        """Add a Python frame (`gpt.py(68): main`), or with its number an nn.Module's call."""
        args: Fields = {"Python parent id": parent, "Python id": self.trace.next_id("python")}
        if module >= 0:
            args["Python module id"] = module
        return self._add("python_function", name, (start, end), args)

    def memory(
        self,
        at: int,
        bytes: int,  # noqa: A002
        *,
        allocated: int,
        reserved: int,
        device: int | None = 0,
        address: int = 0x7FA4_0000_0000,
    ) -> Event:
        """Add what the allocator did: ``bytes`` below 0 are freed; ``device`` None is the host."""
        args: Fields = {"Total Reserved": reserved, "Total Allocated": allocated, "Bytes": bytes}
        args |= {"Device Id": -1 if device is None else device}
        args |= {"Device Type": int(device is not None), "Addr": address, "finished": False}
        event = Event({"ph": "i", "cat": "cpu_instant_event", "s": "t", "name": "[memory]"})
        event.fields |= {"pid": self.pid, "tid": self._tid, "ts": at, "args": self._numbered(args)}
        if not self.trace.dialect.instants:
            del event.fields["cat"]
        return self.trace.put(event)

    def call(
        self,
        name: str,
        start: int,
        end: int,
        *,
        correlation: int | None = None,
        driver: bool = False,
        launches: bool = False,
        external: Event | None = None,
    ) -> Event:
        """Add a CUDA API call; ``launches`` tells whether an arrow leads from it to GPU work."""
        number = self.trace.next_id(self.pid) if correlation is None else correlation
        args = self.trace.linked_to(external, number)
        if self.trace.rocm:
            args |= {"cid": 211, "correlation": number}
        else:
            args |= {"cbid": 307 if driver else 211, "correlation": number}
        if self.trace.dialect.external == "external id" and external is not None:
            args["external ts"] = self.trace.microseconds(external.fields["ts"])
        cat = "cuda_driver" if driver else "cuda_runtime"
        event = self._add(cat, name, (start, end), args)
        self.trace.arrow("ac2g", number, event, start=launches)
        return event

    def kernel(self, name: Text, *, run: Span, **launch: Unpack[Launch]) -> Event:
        """Add a kernel over ``run`` ns and its API call."""
        call = "hipLaunchKernel" if self.trace.rocm else "cudaLaunchKernel"
        if launch.get("driver"):
            call = "cuLaunchKernelEx"
        return self._launch("kernel", name, call, run, self.trace.of_kernel(), launch)

    def copy(
        self,
        *,
        run: Span,
        bytes: int,  # noqa: A002
        kind: str = "HtoD",
        **launch: Unpack[Launch],
    ) -> Event:
        """Add a copy of ``bytes`` over ``run`` ns and its API call; ``kind`` such as HtoD."""
        side = {"H": "Pinned", "D": "Device", "P": "Device", "A": "Array"}
        name = f"Memcpy {kind} ({side.get(kind[0], '?')} -> {side.get(kind[-1], '?')})"
        args = self.trace.of_bytes(bytes, run)
        return self._launch("gpu_memcpy", name, "cudaMemcpyAsync", run, args, launch)

    def memset(self, *, run: Span, bytes: int, **launch: Unpack[Launch]) -> Event:  # noqa: A002
        """Add a memset of ``bytes`` over ``run`` ns and its API call."""
        args = self.trace.of_bytes(bytes, run)
        return self._launch("gpu_memset", "Memset (Device)", "cudaMemsetAsync", run, args, launch)

    def graph(
        self, kernels: Iterable[tuple[Text, int, int]], **launch: Unpack[Launch]
    ) -> list[Event]:
        """Add a launch of a CUDA graph, and its kernels: name, start and end."""
        start, end = _api(launch)
        call = self.call("cudaGraphLaunch", start, end, launches=True)
        launch = {**launch, "correlation": call.correlation, "external": None}
        return [self.trace.kernel(name, (start, end), **launch) for name, start, end in kernels]

    def collective(
        self,
        name: str,
        elements: int,
        *,
        run: Span,
        dtype: str = "Float",
        ranks: Sequence[int] = (0, 1),
        group: str = "0",
        **launch: Unpack[Launch],
    ) -> Event:
        """Add a collective of NCCL: the op that holds what it is, and the kernel that repeats it.

        ``elements`` go in and come out; ``args`` adds to and replaces those of the kernel.
        """
        shown = ", ".join(map(str, ranks[:30])) + (", ..." if len(ranks) > 30 else "")
        facts: Fields = {"Collective name": name, "In msg nelems": elements}
        facts |= {"Out msg nelems": elements, "Group size": len(ranks), "dtype": dtype}
        facts |= {"In split size": "[]", "Out split size": "[]", "Process Group Name": group}
        facts |= {"Process Group Description": "default_pg", "Process Group Ranks": f"[{shown}]"}
        start, end = _api(launch)
        op = self.op("record_param_comms", start, end + 1_000, args={**facts, "Rank": 0})
        facts |= launch.get("args", {})
        launch = {"driver": True, "external": op, "stream": 17, **launch, "args": facts}
        kernel = f"ncclDevKernel_{name}_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
        return self.kernel(kernel, run=run, **launch)

    def sync(self, start: int, end: int, run: Span, *, stream: int = 7, device: int = 0) -> Event:
        """Add cudaStreamSynchronize, and the wait that Kineto shows on the GPU since 2023."""
        call = self.call("cudaStreamSynchronize", start, end)
        args = {"cuda_sync_kind": "Stream Sync", "stream": stream, "correlation": call.correlation}
        args |= {"device": device, "context": 1}
        return self.trace.add("cuda_sync", "Stream Sync", (device, stream), run, args)

    @property
    def _tid(self) -> Any:
        return _place(self.trace.dialect.thread, self.tid)

    def _launch(  # noqa: PLR0917
        self, cat: str, name: Text, call: str, run: Span, args: Fields, launch: Launch
    ) -> Event:
        start, end = _api(launch)
        external = launch.get("external", self._innermost(start))
        made = self.call(
            launch.get("call", call), start, end, correlation=launch.get("correlation"),
            driver=launch.get("driver", False), launches=True, external=external,
        )  # fmt: skip
        launch = {**launch, "correlation": made.correlation, "external": external}
        return self.trace.work(cat, name, run, args, launch)

    def _innermost(self, at: int) -> Event | None:
        return max(
            (op for op in self.ops if op.holds(at)), key=lambda op: op.fields["ts"], default=None
        )

    def _opened(self, cat: str, name: Text, start: int, end: int, args: Fields) -> Event:
        args = {**self.trace.traced(), "External id": self.trace.next_id("external"), **args}
        event = self._add(cat, name, (start, end), args)
        self.ops.append(event)
        return event

    def _add(self, cat: str, name: Text, span: Span, args: Fields) -> Event:
        known = cat in ("cpu_op", "user_annotation", "python_function")
        args = self._numbered(args) if known else args
        return self.trace.add(cat, name, (self.pid, self._tid), span, args)

    def _numbered(self, args: Fields) -> Fields:
        return args if self.trace.dialect.spans else {**args, "Ev Idx": self.trace.next_id("event")}


@dataclass
class Profile:
    """A trace in the making; ``version`` is one of DIALECTS, by the month in which it was new.

    ``rocm`` writes what an AMD GPU's driver tells. ``metadata`` are keys beside the events.
    Without ``around`` the events stand alone: no names of threads, no spans, no window.
    """

    version: str = "2026-02"
    rocm: bool = False
    around: bool = True
    start_ns: int = BASE_NS + 4_291_509_887_000_000
    metadata: Fields = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    devices: list[Fields] = field(default_factory=list)
    after: Fields = field(default_factory=dict)
    threads: dict[Span, tuple[Thread, list[Text]]] = field(default_factory=dict)
    streams: set[Span] = field(default_factory=set)
    _ids: Counter[Any] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Look up the dialect and write down what Kineto always tells."""
        if self.version not in DIALECTS:
            raise ValueError(f"No version {self.version!r}. Known: {', '.join(DIALECTS)}.")
        self.dialect = DIALECTS[self.version]
        about: Fields = {"trace_id": "90F02F25E04743D4809F3CB21D1F6135", "record_shapes": 1}
        about |= {"cuda_driver_version": 13000, "cuda_runtime_version": 13000}
        self.metadata = {**about, **self.metadata}

    def thread(self, name: Text | None, *, pid: int = 100, tid: int | None = None) -> Thread:
        """Return the thread, new or known; every name that it is given is written, in order."""
        thread = Thread(self, pid, pid if tid is None else tid)
        known, names = self.threads.setdefault((pid, thread.tid), (thread, []))
        if name is not None and name not in names:
            names.append(name)
        return known

    def kernel(self, name: Text, run: Span, **launch: Unpack[Launch]) -> Event:
        """Add a kernel whose API call was not recorded, or has its correlation already."""
        return self.work("kernel", name, run, self.of_kernel(), launch)

    def work(self, cat: str, name: Text, run: Span, args: Fields, launch: Launch) -> Event:
        """Add work of a GPU without its API call."""
        number = launch.get("correlation", 0) or self.next_id(100)
        device, stream = launch.get("device", 0), launch.get("stream", 0 if self.rocm else 7)
        where: Fields = {"device": device, "context": launch.get("context", 1)}
        where |= {"stream": stream, "correlation": number}
        if self.rocm:
            del where["context"]
            where |= {"hsa_queue": 1, "kind": "Dispatch Kernel" if cat == "kernel" else "HtoD"}
        external = self.linked_to(launch.get("external"), number)
        where = {"queued": 0, **where} if cat == "kernel" and not self.rocm else where
        args = {**external, **where, **args, **launch.get("args", {})}
        event = self.add(cat, name, (device, self.stream(stream)), run, args)
        self.streams.add((device, stream))
        self.arrow("ac2g", number, event, start=False)
        return event

    def flow(self, forward: Event, backward: Event) -> None:
        """Add the arrow from an op to the one that computes its gradient."""
        number = self.next_id("fwdbwd")
        self.arrow("fwdbwd", number, forward, start=True)
        self.arrow("fwdbwd", number, backward, start=False)

    def device(
        self,
        device: int,
        name: Text = "NVIDIA H200",
        *,
        sm: int = 132,
        capability: Span = (9, 0),
        memory: int = 150_109_880_320,
    ) -> None:
        """Describe a GPU: its multiprocessors, capability and memory in bytes."""
        about: Fields = {"id": device, "name": name, "totalGlobalMem": memory}
        about |= {"computeMajor": capability[0], "computeMinor": capability[1]}
        about |= {"maxThreadsPerBlock": 1024, "regsPerBlock": 65536, "warpSize": 32}
        self.devices.append({**about, "sharedMemPerBlock": 49152, "numSms": sm})

    def distributed(self, rank: int, world_size: int, *, after: bool = False) -> None:
        """Say which rank recorded the trace, before or after the events."""
        ranks = list(range(world_size))
        group: Fields = {"pg_name": "0", "pg_desc": "default_pg", "backend_config": "cuda:nccl"}
        group |= {"pg_size": world_size, "ranks": ranks}
        about: Fields = {"backend": "nccl", "rank": rank, "world_size": world_size, "pg_count": 1}
        about |= {"pg_config": [group], "nccl_version": "2.28.9"}
        (self.after if after else self.metadata)["distributedInfo"] = about

    def add(
        self, cat: str, name: Text, where: tuple[Any, Any], span: Span, args: Fields | None
    ) -> Event:
        """Add an event of a category of today, at (pid, tid), over a span in ns."""
        event = Event({"ph": "X", "cat": self.dialect.cats.get(cat, cat), "name": name})
        event.fields |= {"pid": where[0], "tid": where[1], "ts": span[0], "dur": span[1] - span[0]}
        if args:
            event.fields["args"] = args
        return self.put(event)

    def put(self, event: Event | Fields) -> Event:
        """Add any event."""
        event = event if isinstance(event, Event) else Event(dict(event))
        self.events.append(event)
        return event

    def arrow(self, kind: str, number: int, event: Event, *, start: bool) -> None:
        """Add one end of an arrow: at an event."""
        cat, name = self.dialect.flows.get(kind, (kind, kind))
        fields: Fields = {"ph": "s" if start else "f", "id": number}
        fields |= {key: event.fields[key] for key in ("pid", "tid", "ts")}
        self.put({**fields, "cat": cat, "name": name} | ({} if start else {"bp": "e"}))

    def linked_to(self, external: Event | None, correlation: int) -> Fields:
        """Return what a call or GPU event tells of the op that launched it."""
        if self.dialect.linked == "correlation":
            return {**self.traced(), "External id": correlation}
        if external is None or not self.dialect.linked:
            return {}
        return {self.dialect.external: external.external}

    def traced(self) -> Fields:
        """Return the span that events of 2020 to 2022 say they belong to."""
        return (
            {"Trace name": "PyTorch Profiler", "Trace iteration": 0} if self.dialect.spans else {}
        )

    def of_kernel(self) -> Fields:
        """Return what is told of every kernel."""
        shape: Fields = {"grid": [4, 64, 1], "block": [128, 1, 1]}
        if self.rocm:
            return shape
        found: Fields = {"registers per thread": 128, "shared memory": 13056}
        found |= {"blocks per SM": 1.939394, "warps per SM": 7.757576, **shape}
        if self.dialect.typed:
            found |= {"blocks per SM": "inf", "warps per SM": "inf", "priority": 0, "channel": 0}
            found["occupancy"] = {"limiting factors": ["blocks"], "active blocks per SM": 16}
        return {**found, "est. achieved occupancy %": 12}

    def of_bytes(self, bytes: int, run: Span) -> Fields:  # noqa: A002
        """Return what is told of every copy and memset."""
        took = run[1] - run[0]
        return {"bytes": bytes, "memory bandwidth (GB/s)": bytes / took if took else "N/A"}

    def stream(self, number: int) -> Any:
        """Return the `tid` of a stream."""
        return _place(self.dialect.stream, number)

    def next_id(self, of: object) -> int:
        """Return the next number of a kind: correlations, by process, begin at 1,000."""
        self._ids[of] += 1
        return self._ids[of] + (1_000 if isinstance(of, int) else 0)

    def microseconds(self, ns: int) -> Raw:
        """Return a time as the trace spells it."""
        return self._time(ns + self.start_ns - (BASE_NS if self.dialect.base else 0))

    def write(self, path: Path, *, spacing: str = "kineto", shuffle: int | None = None) -> Path:
        """Write the trace, packed as the suffix says (.gz, .zip), and return its path.

        ``spacing`` is that of kineto, or compact, indented or sorted, as other programs write
        what they have changed; ``shuffle`` seeds a random order of events.
        """
        data = self.content(spacing=spacing, shuffle=shuffle)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
                file.writestr("trace.json", data)
        else:
            path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
        return path

    def content(self, *, spacing: str = "kineto", shuffle: int | None = None) -> bytes:
        """Return what `write` writes, not packed."""
        events = [*self.events, *self._around()]
        if shuffle is not None:
            random.Random(shuffle).shuffle(events)  # noqa: S311
        listed = ",".join(f"\n  {{\n{self._spelt(event)}\n  }}" for event in events)
        text = f"[{listed}\n]" if self.dialect.listed else self._root(listed)
        if spacing != "kineto":
            how: dict[str, Fields] = {"compact": {"separators": (",", ":")}}
            how |= {"indented": {"indent": 4}, "sorted": {"sort_keys": True}}
            text = json.dumps(json.loads(text), **how[spacing])
        return text.encode("utf-8", "surrogateescape")

    def _root(self, listed: str) -> str:
        devices = ",".join(
            "\n    {\n      "
            + ", ".join(f'"{k}": {_value(v)}' for k, v in each.items())
            + "\n    }"
            for each in self.devices
        )
        head = ['"schemaVersion": 1', f'"deviceProperties": [{devices}\n    ]']
        head += [f'  "{key}": {_value(value)}' for key, value in self.metadata.items()]
        if self.dialect.base:
            head += ['"displayTimeUnit": "ms"', f'"baseTimeNanoseconds": {BASE_NS}']
        head += [f'"traceEvents": [{listed}\n  ]']
        head += [f'"{key}": {_value(value)}' for key, value in self.after.items()]
        head += ['"traceName": "/tmp/tmpox8c8jg_.json"']
        return "\n  {\n  " + ",\n  ".join(head) + "\n}"

    def _around(self) -> list[Event]:
        if not self.around:
            return []
        spans = [
            (e.fields["ts"], e.fields.get("dur", 0))
            for e in self.events
            if isinstance(e.fields.get("ts"), int) and isinstance(e.fields.get("dur", 0), int)
        ]
        first = min((at for at, _ in spans), default=0) - 2_000
        last = max((at + took for at, took in spans), default=0) + 2_000
        return [*self._named(first), *_window(first, last)]

    def _named(self, at: int) -> list[Event]:
        """Return the names of processes, of GPUs as if they were some, and of threads."""
        found: list[Event] = []
        pids = dict.fromkeys(thread.pid for thread, _ in self.threads.values())
        for pid, label in [*((p, "CPU") for p in pids), *((g, f"GPU {g}") for g in range(GPUS))]:
            found += [
                _meta("process_name", at, pid, 0, name="python3"),
                _meta("process_labels", at, pid, 0, labels=label),
                _meta("process_sort_index", at, pid, 0, sort_index=pid),
            ]
        for device, stream in sorted(self.streams):
            place = self.stream(stream)
            found.append(_meta("thread_name", at, device, place, name=f"stream {stream} "))
            found.append(_meta("thread_sort_index", at, device, place, sort_index=stream))
        for thread, names in self.threads.values():
            for name in names:
                called = f"thread {thread.tid} ({_text(name)})"
                found.append(_meta("thread_name", at, thread.pid, thread._tid, name=called))
        return found

    def _spelt(self, event: Event) -> str:
        """Spell an event, in lines as Kineto does; what is no time is written as it is."""
        lines: list[list[str]] = [[]]
        breaks = event.breaks or _BREAKS.get(str(event.fields.get("ph", "X")), ())
        for key, value in event.fields.items():
            if key == "args" and isinstance(value, dict):
                inside = ", ".join(f'"{name}": {_value(arg)}' for name, arg in value.items())
                lines += [[f'"args": {{\n      {inside}\n    }}'], []]
                continue
            spelt = {"ts": self.microseconds, "dur": self._time}.get(key)
            time = spelt is not None and type(value) is int
            lines[-1].append(f'"{key}": {spelt(value) if spelt and time else _value(value)}')
            if key in breaks:
                lines.append([])
        return ",\n".join("    " + ", ".join(line) for line in lines if line)

    def _time(self, ns: int) -> Raw:
        if not self.dialect.decimals:
            return Raw(ns // 1_000)
        sign, ns = "-" * (ns < 0), abs(ns)
        return Raw(f"{sign}{ns // 1_000}.{ns % 1_000:03}")


_BREAKS: Final[Mapping[str, tuple[str, ...]]] = {
    "X": ("tid",),
    "i": ("name", "tid", "ts"),
    "s": ("ts",),
    "f": ("ts",),
    "M": ("tid",),
}


def _window(first: int, last: int) -> Iterable[Event]:
    """Return what Kineto tells of the recording as a whole; none of it is work."""
    name, begun = "PyTorch Profiler", first - 1_000
    span: Fields = {"ph": "X", "cat": "Trace", "ts": begun, "dur": last - begun, "pid": "Spans"}
    span |= {"tid": name, "name": f"{name} (0)", "args": {"Op count": 0}}
    yield Event(span, ("dur", "tid"))
    order = _meta("process_sort_index", begun, "Spans", 0, sort_index=536870912)
    yield Event(order.fields, ("ts", "tid"))
    for text, place, at in (
        (f"Iteration Start: {name}", ("Traces", f"Trace {name}"), begun),
        ("Record Window End", ("", ""), last + 60_000_000),
    ):
        fields: Fields = {"name": text, "ph": "i", "s": "g", "pid": place[0], "tid": place[1]}
        yield Event({**fields, "ts": at}, ("s",))


def _meta(name: str, at: int, pid: Any, tid: Any, /, **args: Any) -> Event:
    return Event({"name": name, "ph": "M", "ts": at, "pid": pid, "tid": tid, "args": args})


def _place(spelt: str, number: int) -> Any:
    """Return a thread or stream as the dialect spells it: a number, or a text in quotes."""
    return spelt.strip('"').format(number) if '"' in spelt else number


def _api(launch: Launch) -> Span:
    if "api" not in launch and "at" not in launch:
        raise ValueError("When was it launched? Give at=NS, or api=(START_NS, END_NS).")
    at = launch.get("at", 0)
    return launch.get("api", (at, at + 1_000))


def _text(text: Text) -> str:
    return text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text


def _value(value: Any) -> str:
    """Spell a value as Kineto does: texts are put between quotes, and nothing in them escaped."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, str | bytes):
        return f'"{_text(value)}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{k}": {_value(v)}' for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def _strides(shape: Sequence[Any]) -> list[Any]:
    if any(isinstance(size, list | tuple) for size in shape):
        return [_strides(each) for each in shape]
    return list(itertools.accumulate(reversed(shape[1:]), lambda a, b: a * b, initial=1))[::-1] * (
        len(shape) > 0
    )


def training_step(
    trace: Profile, at: int = 0, *, pid: int = 100, ranges: bool = True, unit: int = 1_000
) -> Step:
    """Add the step of training of `tests.build`, as PyTorch records it, and return what it holds.

    One nanosecond there is ``unit`` of them here. Every kernel is launched by an op; those of the
    autograd thread have sequence numbers and arrows from their forward ops.
    """
    main = trace.thread("python3", pid=pid)
    threads = {"main": main, "autograd": trace.thread("pt_autograd_0", pid=pid, tid=pid + 1)}
    if ranges:
        for name, start, end in (("forward", 100, 500), ("backward", 500, 1_800),
                                 ("optimizer", 1_800, 2_200)):  # fmt: skip
            main.annotation(name, at + start * unit, at + end * unit)
    begun = at + 5 * unit
    main.op("aten::copy_", begun, begun + 20 * unit)
    run = (at + 20 * unit, at + 60 * unit)
    main.copy(bytes=4_096, kind="HtoD", api=(at + 10 * unit, at + 11 * unit), run=run)
    forward: dict[int, Event] = {}
    for number, (who, launched, (start, end), name) in enumerate(_STEP):
        api = (at + launched * unit, at + (launched + 1) * unit)
        op = _launching_op(threads[who], number, (api[0] - 2 * unit, api[1] + 2 * unit))
        if number < 4:
            forward[number] = op
        elif number < 7:
            trace.flow(forward[6 - number], op)
        threads[who].kernel(name, api=api, run=(at + start * unit, at + end * unit))
    main.call("cudaDeviceSynchronize", at + 2_200 * unit, at + 2_260 * unit)
    return Step(
        end_ns=at + 2_300 * unit,
        kernels={"forward": 4, "backward": 3, "optimizer": 2, None: 0},
        kernel_time_ns={"forward": 750 * unit, "backward": 700 * unit, "optimizer": 260 * unit,
                        None: 0},
        copy_time_ns=40 * unit,
        busy_ns=1_750 * unit,
        span_ns=2_230 * unit,
    )  # fmt: skip


_FORWARD: Final = ("aten::addmm", "aten::gelu", "aten::addmm", "aten::_softmax")
_BACKWARD: Final = ("AddmmBackward0", "GeluBackward0", "AddmmBackward0")


def _launching_op(thread: Thread, number: int, span: Span) -> Event:
    """Return the op of a kernel of the step: sequence numbers count the forward ops."""
    if number < 4:
        return thread.op(_FORWARD[number], *span, seq=number, dims=[[8, 8]])
    if number < 7:
        name, sequence = _BACKWARD[number - 4], 6 - number
        whole = f"autograd::engine::evaluate_function: {name}"
        thread.op(whole, *span, seq=sequence, fwd_thread=1)
        unit = (span[1] - span[0]) // 5
        inner = (span[0] + unit, span[1] - unit)
        return thread.op(name, *inner, seq=sequence, fwd_thread=1, dims=[[8, 8]])
    return thread.op("aten::_foreach_addcdiv_", *span)

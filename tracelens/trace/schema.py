"""The tables of a trace: each column declared once, with its type, unit and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from polars._typing import PolarsDataType

OP_KINDS: Final = ("kernel", "copy", "memset", "graph")
RANGE_KINDS: Final = ("push_pop", "start_end", "op", "annotation", "python")
NAMED_BY_USERS: Final = ("push_pop", "start_end", "annotation")
"""Kinds of ranges that people name; ops and Python frames come of themselves."""
COPY_KINDS: Final = (
    "unknown",
    "HtoD",
    "DtoH",
    "HtoA",
    "AtoH",
    "AtoA",
    "AtoD",
    "DtoA",
    "DtoD",
    "HtoH",
    "PtoP",
    "UnifiedHtoD",
    "UnifiedDtoH",
    "UnifiedDtoD",
)


@dataclass(frozen=True)
class Column:
    """One column: its name (which ends in its unit), its type and what it means.

    ``on_request`` columns are read from the recording only when asked for: they cost time
    on large files, and no summary needs them.
    """

    name: str
    dtype: PolarsDataType
    meaning: str
    on_request: bool = False


@dataclass(frozen=True)
class Table:
    """One table: what a row is, and its columns."""

    name: str
    row: str
    columns: tuple[Column, ...]

    def schema(self, *, everything: bool = False) -> Mapping[str, PolarsDataType]:
        """Return column name -> polars type, with the columns on request if ``everything``."""
        return {c.name: c.dtype for c in self.columns if everything or not c.on_request}

    def empty(self, *, everything: bool = False) -> pl.DataFrame:
        """Return a frame without rows in this table's schema."""
        return pl.DataFrame(schema=dict(self.schema(everything=everything)))


_START = Column("start_ns", pl.Int64, "Start, in nanoseconds on the clock of the recording.")
_END = Column("end_ns", pl.Int64, "End, exclusive; never before the start.")
_PID = Column("pid", pl.Int32, "Process id, unique within the trace.")
_DEVICE = Column("device", pl.Int32, "CUDA device ordinal as the process saw it.")
_TIME = Column(
    "time_ns", pl.Int64, "When, in nanoseconds on the clock of the recording; null if not recorded."
)


GPU_OPS = Table(
    "gpu_ops",
    "one kernel, copy, memset or whole-graph launch on a GPU",
    (
        Column("op_id", pl.UInt32, "Row number, unique in the trace."),
        _START,
        _END,
        Column("kind", pl.Enum(OP_KINDS), "Kernel, copy, memset, or a CUDA graph run as a whole."),
        _DEVICE,
        Column("stream", pl.Int32, "CUDA stream id, unique within its context."),
        Column("context", pl.Int32, "CUDA context id; null where not recorded."),
        _PID,
        Column(
            "correlation",
            pl.UInt32,
            "Links the op to the API call that launched it, within its process.",
        ),
        Column("name_id", pl.Int32, "The op's name: a row of `names`."),
        Column("bytes", pl.Int64, "Bytes moved or set; null for kernels and graphs."),
        Column("copy_kind", pl.Enum(COPY_KINDS), "Direction of a copy; null for everything else."),
        Column("graph_id", pl.Int32, "CUDA graph executed; null outside of graphs."),
        Column("graph_node", pl.Int64, "Node of the CUDA graph, where nodes were traced."),
        Column("grid_x", pl.Int32, "Blocks in x.", on_request=True),
        Column("grid_y", pl.Int32, "Blocks in y.", on_request=True),
        Column("grid_z", pl.Int32, "Blocks in z.", on_request=True),
        Column("block_x", pl.Int32, "Threads per block in x.", on_request=True),
        Column("block_y", pl.Int32, "Threads per block in y.", on_request=True),
        Column("block_z", pl.Int32, "Threads per block in z.", on_request=True),
        Column("registers", pl.Int32, "Registers per thread.", on_request=True),
        Column("shared_bytes", pl.Int32, "Static and dynamic shared memory.", on_request=True),
    ),
)

API = Table(
    "api",
    "one CUDA runtime or driver call",
    (
        _START,
        _END,
        _PID,
        Column("tid", pl.Int32, "Thread that made the call."),
        Column("name_id", pl.Int32, "The function's name: a row of `names`."),
        Column("correlation", pl.UInt32, "Links the call to the GPU ops it launched."),
        Column("status", pl.Int32, "The CUDA result; 0 is success.", on_request=True),
    ),
)

RANGES = Table(
    "ranges",
    "one NVTX range, PyTorch op, annotation or Python frame",
    (
        Column("range_id", pl.UInt32, "Row number, unique in the trace."),
        _START,
        Column("end_ns", pl.Int64, "End, exclusive; the trace's end for a range never closed."),
        _PID,
        Column("tid", pl.Int32, "Thread that opened the range."),
        Column("end_tid", pl.Int32, "Thread that closed it, where another one did."),
        Column("kind", pl.Enum(RANGE_KINDS), "How the range was made."),
        Column("domain", pl.String, "NVTX domain; empty for the default one."),
        Column("name_id", pl.Int32, "The range's text: a row of `names`."),
        Column("depth", pl.Int32, "How many ranges of the same thread and lane enclose it."),
        Column(
            "lane",
            pl.Int32,
            "Ranges that overlap without nesting stand on lanes of their own; 0 is the first.",
        ),
        Column("parent", pl.UInt32, "range_id of the innermost enclosing range of its lane."),
        Column("closed", pl.Boolean, "False where the recording stopped inside the range."),
    ),
)

OPS = Table(
    "ops",
    "what PyTorch recorded of one of its ops, beyond its range of kind op",
    (
        Column("range_id", pl.UInt32, "The op: a row of `ranges`."),
        Column("sequence", pl.Int64, "PyTorch's number that ties forward and backward together."),
        Column("forward_thread", pl.Int64, "PyTorch's number of the forward thread; of backward."),
        Column("forward", pl.UInt32, "range_id of the op whose gradient this op computes."),
        Column("external_id", pl.Int64, "PyTorch's number of the op."),
        Column("dims", pl.String, "Shapes of the inputs, as JSON."),
        Column("types", pl.String, "Types of the inputs, as JSON."),
        Column("inputs", pl.String, "Scalar inputs, as JSON; of ops whose cost needs them."),
        Column("strides", pl.String, "Strides of the inputs, as JSON; where one of them is 0."),
    ),
)

LAUNCHED_BY = Table(
    "launched_by",
    "the PyTorch op that the recorder itself names as a GPU op's launcher (External id)",
    (
        Column("op_id", pl.UInt32, "The GPU op: a row of `gpu_ops`."),
        Column("range_id", pl.UInt32, "The PyTorch op: a row of `ranges`."),
    ),
)

COLLECTIVES = Table(
    "collectives",
    "what PyTorch recorded of a GPU op that is part of a collective or point-to-point transfer",
    (
        Column("op_id", pl.UInt32, "The GPU op: a row of `gpu_ops`."),
        Column("collective", pl.String, "Its name, such as allreduce."),
        Column("in_elements", pl.Int64, "Elements that each rank puts in."),
        Column("out_elements", pl.Int64, "Elements that each rank gets out."),
        Column("dtype", pl.String, "Their type, as PyTorch writes it (Float, BFloat16)."),
        Column("group_size", pl.Int32, "Ranks that take part."),
        Column("group", pl.String, "The process group's name."),
        Column("group_description", pl.String, "What it is for, such as default_pg."),
        Column("ranks", pl.String, "Its ranks, as written; cut after 30."),
        Column("sequence", pl.Int64, "Its number in the group, where recorded."),
        Column("communicator", pl.String, "Its communicator, where recorded."),
        Column("peer", pl.Int32, "The other rank of a point-to-point transfer."),
    ),
)

THREADS = Table(
    "threads",
    "one thread",
    (
        _PID,
        Column("tid", pl.Int32, "Thread id."),
        Column("name", pl.String, "The thread's name."),
    ),
)

MEMORY = Table(
    "memory",
    "one allocator event, in order",
    (
        _TIME,
        _DEVICE,
        _PID,
        Column("tid", pl.Int32, "Thread, where recorded."),
        Column(
            "action",
            pl.String,
            "alloc or free; of a snapshot what it wrote: alloc, free_requested, free_completed, "
            "segment_alloc, segment_free, segment_map, segment_unmap, oom, snapshot or another.",
        ),
        Column("address", pl.Int64, "Address of the block; 64 bits in two's complement."),
        Column("size_bytes", pl.Int64, "Bytes of the block as requested, never negative."),
        Column("stream", pl.Int64, "Stream, where recorded."),
        Column("stack_id", pl.UInt32, "Call stack, where recorded: rows of `stacks`."),
        Column("memory_kind", pl.String, "device, pinned, pageable, managed, array or unknown."),
        Column("allocated_bytes", pl.Int64, "The allocator's total after the event, if recorded."),
        Column("reserved_bytes", pl.Int64, "What it then held of the device, if recorded."),
        Column("free_bytes", pl.Int64, "Free memory of the device when it ran out (oom)."),
        Column("pool", pl.String, "Private pool of the allocator, as `1,0`; null: the default."),
        Column("context", pl.String, "torch.compile's context, where recorded."),
        Column("metadata", pl.String, "The user's metadata, where recorded."),
    ),
)

SEGMENTS = Table(
    "segments",
    "one segment of PyTorch's caching allocator when the snapshot was taken",
    (
        Column("segment_id", pl.UInt32, "Row number."),
        _DEVICE,
        Column("address", pl.Int64, "Address; 64 bits in two's complement."),
        Column("size_bytes", pl.Int64, "Bytes held of the device."),
        Column("stream", pl.Int64, "Stream that it serves."),
        Column("pool", pl.String, "Private pool, as `1,0`; null: the default."),
        Column("segment_kind", pl.String, "small or large."),
        Column("expandable", pl.Boolean, "Whether it can grow; null where not recorded."),
        Column("stack_id", pl.UInt32, "Call stack that made it, where recorded."),
    ),
)

BLOCKS = Table(
    "blocks",
    "one block of a segment when the snapshot was taken",
    (
        Column("segment_id", pl.UInt32, "Its segment."),
        _DEVICE,
        Column("address", pl.Int64, "Address; 64 bits in two's complement."),
        Column("size_bytes", pl.Int64, "Bytes, rounded up by the allocator."),
        Column("requested_bytes", pl.Int64, "Bytes asked for; of an inactive block out of date."),
        Column("state", pl.String, "active_allocated, active_pending_free or inactive."),
        Column("stack_id", pl.UInt32, "Call stack that allocated it, where recorded."),
    ),
)

STACKS = Table(
    "stacks",
    "one frame of one distinct call stack",
    (
        Column("stack_id", pl.UInt32, "The stack."),
        Column("depth", pl.Int32, "0 is the innermost frame."),
        Column("frame_id", pl.UInt32, "The frame: a row of `frames`."),
    ),
)

FRAMES = Table(
    "frames",
    "one distinct frame",
    (
        Column("frame_id", pl.UInt32, "Row number."),
        Column("function", pl.String, "Function name."),
        Column("file", pl.String, "File."),
        Column("line", pl.Int32, "Line."),
    ),
)

COUNTERS = Table(
    "counters",
    "one sample of a metric",
    (
        _TIME,
        _DEVICE,
        Column("name", pl.String, "The metric's name, with its unit as the recorder wrote it."),
        Column("value", pl.Float64, "The sample."),
    ),
)

OP_COUNTERS = Table(
    "op_counters",
    "one metric of one GPU op, as the GPU counted it (Nsight Compute)",
    (
        Column("op_id", pl.UInt32, "The GPU op: a row of `gpu_ops`."),
        Column("name", pl.String, "The metric's name, such as dram__bytes.sum."),
        Column("value", pl.Float64, "Its value, in the unit."),
        Column("unit", pl.String, "A base unit: byte, ns, hz, cycle, inst, %, byte/s; or none."),
    ),
)

DEVICES = Table(
    "devices",
    "one GPU, as one process saw it",
    (
        _DEVICE,
        Column("pid", pl.Int32, "Process that sees the GPU as `device`; null for every process."),
        Column("gpu", pl.Int32, "The recorder's number of the physical GPU; null if unknown."),
        Column("name", pl.String, "Marketing name."),
        Column("sm_count", pl.Int32, "Streaming multiprocessors."),
        Column("capability", pl.String, "Compute capability, such as 9.0."),
        Column("memory_bytes", pl.Int64, "Device memory."),
        Column("bandwidth_bytes_per_s", pl.Int64, "Peak memory bandwidth by the recorder."),
        Column("uuid", pl.String, "The GPU's UUID, where recorded."),
    ),
)

NAMES = Table(
    "names",
    "one distinct string",
    (
        Column("name_id", pl.Int32, "Row number."),
        Column("name", pl.String, "The string as recorded, with bad bytes replaced."),
    ),
)

TABLES: Final[Mapping[str, Table]] = {
    t.name: t
    for t in (
        GPU_OPS,
        API,
        RANGES,
        OPS,
        LAUNCHED_BY,
        COLLECTIVES,
        THREADS,
        MEMORY,
        SEGMENTS,
        BLOCKS,
        STACKS,
        FRAMES,
        COUNTERS,
        OP_COUNTERS,
        DEVICES,
        NAMES,
    )
}

MOST_BYTES: Final = 2**53
"""No block of memory is larger; what claims to be is damaged."""

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "ops": ("range_id",),
    "launched_by": ("op_id",),
    "collectives": ("op_id",),
    "threads": ("pid", "tid"),
    "segments": ("segment_id",),
    "stacks": ("stack_id", "depth"),
    "frames": ("frame_id",),
    "op_counters": ("op_id", "name"),
    "names": ("name_id",),
}
"""Columns that tell the rows of a table apart, beside the row numbers of `gpu_ops` and `ranges`."""

REFERENCES: Final[Mapping[str, Mapping[str, str]]] = {
    "ops": {"range_id": "ranges", "forward": "ranges"},
    "launched_by": {"op_id": "gpu_ops", "range_id": "ranges"},
    "collectives": {"op_id": "gpu_ops"},
    "op_counters": {"op_id": "gpu_ops"},
}
"""Columns that hold row numbers of another table; `forward` alone may be null."""

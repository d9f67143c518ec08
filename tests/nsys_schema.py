"""The tables of Nsight Systems exports, 2020 to 2026: what each version has, column by column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from polars._typing import PolarsDataType

Value = int | float | str | bytes | None
Text = str | bytes
Row = dict[str, Value]

# One thing a paragraph. A table is its name, then its columns in the exporter's order: `name:type`
# is what Parquet and Arrow hold (SQLite: INTEGER, REAL, TEXT); `!` is NOT NULL, `*` the primary
# key, `@V` since schema V, `~V` until before schema V; `...` stands for the columns of OP. What
# changed between two versions that were seen is dated to the first that has it.
_TEXT: Final = """
VERSIONS
  2020=2020.4.3 2021=2021.2.4 2.9.1=2022.2.1 3.0.0=2022.4.2 3.1.2=2023.1.2 3.4.0=2023.3.1
  3.13.2=2024.5.1 3.16.1=2024.6.2 3.17.1=2025.1.1 3.17.2=2025.1.3 3.20.3=2025.3.2
  3.23.3=2025.5.1 3.24.0=2025.5.2 3.24.14=2026.1.1 3.25.0=2026.2.1

COPY_KINDS
  unknown HtoD DtoH HtoA AtoH AtoA AtoD DtoA DtoD HtoH PtoP UnifiedHtoD UnifiedDtoH UnifiedDtoD

MEMORY_KINDS
  pageable pinned device array managed device_static managed_static unknown

SEVERITIES
  unknown info warning error verbose

OP
  start:i64! end:i64! deviceId:u32! contextId:u64! greenContextId:u64@3.13.2
  streamId:u64! correlationId:u32 globalPid:u64

StringIds
  id:i32!* value:text!

CUPTI_ACTIVITY_KIND_KERNEL
  ... demangledName:u64! shortName:u64! mangledName:u64@2.9.1
  launchType:u32 cacheConfig:u32 registersPerThread:u32! gridX:i32! gridY:i32! gridZ:i32!
  blockX:i32! blockY:i32! blockZ:i32! staticSharedMemory:i32! dynamicSharedMemory:i32!
  localMemoryPerThread:i32! localMemoryTotal:i32! gridId:i64! sharedMemoryExecuted:u32
  graphNodeId:u64 sharedMemoryLimitConfig:u32@2021 qmdBulkReleaseDone:u32@3.24.0
  qmdPreexitDone:u32@3.24.0 qmdLastCtaDone:u32@3.24.0 graphId:u32@3.24.0 clusterX:u32@3.24.0
  clusterY:u32@3.24.0 clusterZ:u32@3.24.0 clusterSchedulingPolicy:u32@3.24.0
  maxPotentialClusterSize:u32@3.24.0 maxActiveClusters:u32@3.24.0
  sharedMemoryRequestedPercentage:u32@3.24.14 tensorSizeMinusOneElements:text!@3.25.0

CUPTI_ACTIVITY_KIND_RUNTIME
  start:i64! end:i64! eventClass:u32! globalTid:u64 correlationId:u32 nameId:u64!
  returnValue:u32! callchainId:i64@2021

CUPTI_ACTIVITY_KIND_MEMCPY
  ... bytes:u64! copyKind:u64! deprecatedSrcId:u32 srcKind:u32 dstKind:u32 srcDeviceId:u32
  srcContextId:u32 dstDeviceId:u32 dstContextId:u32 migrationCause:u32@2021 graphNodeId:u64
  virtualAddress:u64@2.9.1 copyCount:u64@3.17.2

CUPTI_ACTIVITY_KIND_MEMSET
  ... value:u32! bytes:u64! graphNodeId:u64 memKind:u32

CUPTI_ACTIVITY_KIND_GRAPH_TRACE@3.4.0
  ... graphId:u64! graphExecId:u64!

CUDA_GRAPH_EVENTS@2.9.1
  start:i64! end:i64! eventClass:u32! globalTid:u64 nameId:u64! graphNodeId:u64!~3.4.0
  originalGraphNodeId:u64~3.4.0 graphId:u64@3.4.0 originalGraphId:u64@3.4.0
  graphExecId:u64@3.4.0

CUDA_GRAPH_NODE_EVENTS@3.4.0
  start:i64! end:i64! eventClass:u32! globalTid:u64 nameId:u64! graphNodeId:u64!
  originalGraphNodeId:u64

CUDA_GPU_MEMORY_USAGE_EVENTS@2.9.1
  start:i64! globalPid:u64! deviceId:u32! contextId:u32! address:u64! pc:u64! bytes:u64!
  memKind:u32! memoryOperationType:u32! name:text correlationId:u32
  localMemoryPoolAddress:u64@3.0.0 localMemoryPoolReleaseThreshold:u64@3.0.0
  localMemoryPoolSize:u64@3.0.0 localMemoryPoolUtilizedSize:u64@3.0.0
  importedMemoryPoolAddress:u64@3.0.0 importedMemoryPoolProcessId:u64@3.0.0

NVTX_EVENTS
  start:i64! end:i64 eventType:u32! rangeId:u64 category:u64 color:u32 text:text globalTid:u64
  endGlobalTid:u64 textId:u32 domainId:u64 uint64Value:u64 int64Value:i64 doubleValue:f64
  uint32Value:u32 int32Value:i32 floatValue:f32 jsonTextId:u32 jsonText:text
  binaryData:text@3.16.1

GPU_METRICS@3.4.0
  rawTimestamp:i64!@3.20.3 timestamp:i64 typeId:u64! metricId:u64! value:i64!

TARGET_INFO_GPU_METRICS@3.4.0
  typeId:u64! sourceId:u64! typeName:text! metricId:u64! metricName:text!

DIAGNOSTIC_EVENT@3.13.2
  timestamp:i64! timestampType:i32! source:i32! severity:i32! text:text! globalPid:u64

ANALYSIS_DETAILS@2.9.1
  globalVid:u64! duration:u64! startTime:u64! stopTime:u64!

PROCESSES@2.9.1
  globalPid:u64 pid:u64 name:text

ThreadNames
  nameId:u64! priority:u64 globalTid:u64

TARGET_INFO_CUDA_GPU~2021
  deviceId:u32! name:text! computeCapabilityMajor:u32! computeCapabilityMinor:u32!
  globalMemoryBandwidth:u64! globalMemorySize:u64! numMultiprocessors:u32!
  numThreadsPerWarp:u32! coreClockRate:u32!

TARGET_INFO_GPU@2021
  vmId:i64! id:u32! name:text busLocation:text isDiscrete:bool l2CacheSize:u32 totalMemory:u64
  memoryBandwidth:u64 clockRate:u32 smCount:u32 pwGpuId:u32 uuid:text luid:u64 chipName:text
  cuDevice:i32 ctxswDevPath:text ctrlDevPath:text revision:u32 nodeMask:u32 constantMemory:u32
  maxIPC:u32 maxRegistersPerBlock:u32 maxShmemPerBlock:u32 maxShmemPerBlockOptin:u32
  maxShmemPerSm:u32 maxRegistersPerSm:u32 threadsPerWarp:u32 asyncEngines:u32
  maxWarpsPerSm:u32 maxBlocksPerSm:u32 maxThreadsPerBlock:u32 maxBlockDimX:u32
  maxBlockDimY:u32 maxBlockDimZ:u32 maxGridDimX:u32 maxGridDimY:u32 maxGridDimZ:u32
  computeMajor:u32 computeMinor:u32 smMajor:u32 smMinor:u32

TARGET_INFO_CUDA_DEVICE@3.17.1
  gpuId:u32 cudaId:u32! pid:u32! uuid:text@3.24.14 numMultiprocessors:u32@3.24.14

TARGET_INFO_SESSION_START_TIME@2.9.1
  utcEpochNs:u64 utcTime:text localTime:text systemClockNs:u64@3.24.7

EXPORT_META_DATA@2.9.1~3.4.0
  name:text! value:text

META_DATA_EXPORT@3.4.0
  name:text! value:text

META_DATA_CAPTURE@3.4.0
  name:text! value:text

ENUM_CUDA_MEMCPY_OPER@3.0.0
  id:i64!* name:text label:text

ENUM_CUDA_MEM_KIND@3.0.0
  id:i64!* name:text label:text

ENUM_DIAGNOSTIC_SEVERITY_LEVEL@3.13.2
  id:i64!* name:text label:text
"""

_PARAGRAPHS: Final = {head: words for head, *words in map(str.split, _TEXT.split("\n\n"))}
PRODUCTS: Final = dict(pair.split("=") for pair in _PARAGRAPHS.pop("VERSIONS"))
"""Schema version -> the Nsight Systems that exports it. The first two wrote no version down."""

COPY_KINDS: Final = _PARAGRAPHS.pop("COPY_KINDS")
MEMORY_KINDS: Final = _PARAGRAPHS.pop("MEMORY_KINDS")
SEVERITIES: Final = _PARAGRAPHS.pop("SEVERITIES")
_OP: Final = _PARAGRAPHS.pop("OP")

_TYPES: Final[Mapping[str, tuple[str, PolarsDataType]]] = {
    "i32": ("INTEGER", pl.Int32),
    "i64": ("INTEGER", pl.Int64),
    "u32": ("INTEGER", pl.UInt32),
    "u64": ("INTEGER", pl.UInt64),
    "bool": ("INTEGER", pl.Boolean),
    "f32": ("REAL", pl.Float32),
    "f64": ("REAL", pl.Float64),
    "text": ("TEXT", pl.String),
}


@dataclass(frozen=True)
class Column:
    """One column of an export: its name, its type there, and whether it may be null."""

    name: str
    type: str
    required: bool
    key: bool

    @property
    def sql(self) -> str:
        """The column as it stands in CREATE TABLE."""
        marks = " NOT NULL" * self.required + " PRIMARY KEY" * self.key
        return f"{self.name} {_TYPES[self.type][0]}{marks}"

    @property
    def dtype(self) -> PolarsDataType:
        """The type of the column in Parquet and Arrow."""
        return _TYPES[self.type][1]

    def of(self, row: Row) -> Value:
        """Return the row's value, or what nsys writes where nothing was recorded."""
        zero = ("" if self.type == "text" else 0) if self.required else None
        return row.get(self.name, zero)


def tables(schema: str | None) -> dict[str, tuple[Column, ...]]:
    """Return the tables that an export of this schema may hold; all there ever were for None."""
    return {
        _bare(head): tuple(_column(word) for word in _spelled_out(words) if _holds(word, schema))
        for head, words in _PARAGRAPHS.items()
        if _holds(head, schema)
    }


def _spelled_out(words: list[str]) -> list[str]:
    return _OP + words[1:] if words[0] == "..." else words


def _column(word: str) -> Column:
    name, _, kind = _bare(word).partition(":")
    return Column(name, kind.rstrip("!*"), "!" in kind, "*" in kind)


def _bare(word: str) -> str:
    return word.partition("@")[0].partition("~")[0]


def _holds(word: str, schema: str | None) -> bool:
    since, until = word.partition("@")[2].partition("~")[0], word.partition("~")[2]
    return schema is None or (
        _version(since or "0") <= _version(schema) < _version(until or "9999.0.0")
    )


def _version(text: str) -> tuple[int, ...]:
    parts = tuple(int(part) for part in text.split("."))
    return parts if len(parts) == 3 else (0, *parts)

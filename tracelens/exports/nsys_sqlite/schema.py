"""The tables of an Nsight Systems 2025.5.2 export that a trace can fill, column by column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens.readers.nsys import own
from tracelens.readers.nsys.gather import THREADS

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION: Final = "3.24.0"
"""The version of nsys's schema, the last one that 2025 brought columns of ours to."""

# A table a paragraph: its name, then its columns in nsys's order, ours last. `!` is NOT NULL, less
# often than in nsys: what was not recorded is null. `:text` and `:real` are no INTEGER.
_TEXT: Final = f"""
StringIds
  id!* value:text!

CUPTI_ACTIVITY_KIND_KERNEL
  start! end! deviceId contextId greenContextId streamId correlationId globalPid demangledName
  shortName mangledName launchType cacheConfig registersPerThread gridX gridY gridZ blockX blockY
  blockZ staticSharedMemory dynamicSharedMemory localMemoryPerThread localMemoryTotal gridId
  sharedMemoryExecuted graphNodeId sharedMemoryLimitConfig qmdBulkReleaseDone qmdPreexitDone
  qmdLastCtaDone graphId clusterX clusterY clusterZ clusterSchedulingPolicy
  maxPotentialClusterSize maxActiveClusters

CUPTI_ACTIVITY_KIND_MEMCPY
  start! end! deviceId contextId greenContextId streamId correlationId globalPid bytes copyKind
  deprecatedSrcId srcKind dstKind srcDeviceId srcContextId dstDeviceId dstContextId migrationCause
  graphNodeId virtualAddress copyCount graphId {own.NAME}

CUPTI_ACTIVITY_KIND_MEMSET
  start! end! deviceId contextId greenContextId streamId correlationId globalPid value bytes
  graphNodeId memKind graphId {own.NAME}

CUPTI_ACTIVITY_KIND_GRAPH_TRACE
  start! end! deviceId contextId greenContextId streamId correlationId globalPid graphId
  graphExecId {own.NAME}

CUPTI_ACTIVITY_KIND_RUNTIME
  start! end! eventClass! globalTid correlationId nameId returnValue callchainId

NVTX_EVENTS
  start! end eventType! rangeId category color text:text globalTid endGlobalTid textId domainId
  uint64Value int64Value doubleValue:real uint32Value int32Value floatValue:real jsonTextId
  jsonText:text binaryData:text {own.KIND} {own.END}

CUDA_GPU_MEMORY_USAGE_EVENTS
  start! globalPid deviceId contextId address pc bytes memKind memoryOperationType! name:text
  correlationId localMemoryPoolAddress localMemoryPoolReleaseThreshold localMemoryPoolSize
  localMemoryPoolUtilizedSize importedMemoryPoolAddress importedMemoryPoolProcessId

GPU_METRICS
  rawTimestamp timestamp typeId! metricId! value

TARGET_INFO_GPU_METRICS
  typeId! sourceId typeName:text metricId! metricName:text

PROCESSES
  globalPid pid name:text

ThreadNames
  nameId! priority globalTid

TARGET_INFO_GPU
  vmId! id! name:text busLocation:text isDiscrete l2CacheSize totalMemory memoryBandwidth
  clockRate smCount pwGpuId uuid:text luid chipName:text cuDevice ctxswDevPath:text
  ctrlDevPath:text revision nodeMask constantMemory maxIPC maxRegistersPerBlock maxShmemPerBlock
  maxShmemPerBlockOptin maxShmemPerSm maxRegistersPerSm threadsPerWarp asyncEngines maxWarpsPerSm
  maxBlocksPerSm maxThreadsPerBlock maxBlockDimX maxBlockDimY maxBlockDimZ maxGridDimX maxGridDimY
  maxGridDimZ computeMajor computeMinor smMajor smMinor

TARGET_INFO_CUDA_DEVICE
  gpuId cudaId pid

TARGET_INFO_SESSION_START_TIME
  utcEpochNs utcTime:text localTime:text

ANALYSIS_DETAILS
  globalVid! duration! startTime! stopTime!

META_DATA_CAPTURE
  name:text! value:text

META_DATA_EXPORT
  name:text! value:text

ENUM_NSYS_EVENT_TYPE
  id!* name:text label:text

ENUM_NSYS_EVENT_CLASS
  id!* name:text label:text

ENUM_CUDA_MEMCPY_OPER
  id!* name:text label:text

ENUM_CUDA_MEM_KIND
  id!* name:text label:text

ENUM_CUDA_DEV_MEM_EVENT_OPER
  id!* name:text label:text

{THREADS}
  globalTid! tid!
"""
TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(columns) for name, *columns in map(str.split, _TEXT.split("\n\n"))
}

RUNTIME: Final = 0
DRIVER: Final = 1
PUSH_POP: Final = 59
START_END: Final = 60
DOMAIN: Final = 75
"""Classes and types of events, as `ENUMS` names them."""

ENUMS: Final[Mapping[str, tuple[tuple[int, str, str], ...]]] = {
    "ENUM_NSYS_EVENT_TYPE": (
        (PUSH_POP, "NvtxPushPopRange", "NvtxPushPopRange"),
        (START_END, "NvtxStartEndRange", "NvtxStartEndRange"),
        (DOMAIN, "NvtxDomainCreate", "NvtxDomainCreate"),
    ),
    "ENUM_NSYS_EVENT_CLASS": (
        (RUNTIME, "TRACE_PROCESS_EVENT_CUDA_RUNTIME", "CUDA runtime"),
        (DRIVER, "TRACE_PROCESS_EVENT_CUDA_DRIVER", "CUDA driver"),
    ),
    "ENUM_CUDA_MEMCPY_OPER": (
        (0, "CUDA_MEMCPY_KIND_UNKNOWN", "Unknown"),
        (1, "CUDA_MEMCPY_KIND_HTOD", "Host-to-Device"),
        (2, "CUDA_MEMCPY_KIND_DTOH", "Device-to-Host"),
        (3, "CUDA_MEMCPY_KIND_HTOA", "Host-to-Array"),
        (4, "CUDA_MEMCPY_KIND_ATOH", "Array-to-Host"),
        (5, "CUDA_MEMCPY_KIND_ATOA", "Array-to-Array"),
        (6, "CUDA_MEMCPY_KIND_ATOD", "Array-to-Device"),
        (7, "CUDA_MEMCPY_KIND_DTOA", "Device-to-Array"),
        (8, "CUDA_MEMCPY_KIND_DTOD", "Device-to-Device"),
        (9, "CUDA_MEMCPY_KIND_HTOH", "Host-to-Host"),
        (10, "CUDA_MEMCPY_KIND_PTOP", "Peer-to-Peer"),
        (11, "CUDA_MEMCPY_KIND_UVM_HTOD", "Unified Host-to-Device"),
        (12, "CUDA_MEMCPY_KIND_UVM_DTOH", "Unified Device-to-Host"),
        (13, "CUDA_MEMCPY_KIND_UVM_DTOD", "Unified Device-to-Device"),
    ),
    "ENUM_CUDA_MEM_KIND": (
        (0, "CUDA_MEMOPR_MEMORY_KIND_PAGEABLE", "Pageable"),
        (1, "CUDA_MEMOPR_MEMORY_KIND_PINNED", "Pinned"),
        (2, "CUDA_MEMOPR_MEMORY_KIND_DEVICE", "Device"),
        (3, "CUDA_MEMOPR_MEMORY_KIND_ARRAY", "Array"),
        (4, "CUDA_MEMOPR_MEMORY_KIND_MANAGED", "Managed"),
        (5, "CUDA_MEMOPR_MEMORY_KIND_DEVICE_STATIC", "Device Static"),
        (6, "CUDA_MEMOPR_MEMORY_KIND_MANAGED_STATIC", "Managed Static"),
        (7, "CUDA_MEMOPR_MEMORY_KIND_UNKNOWN", "Unknown"),
    ),
    "ENUM_CUDA_DEV_MEM_EVENT_OPER": (
        (0, "CUDA_DEV_MEM_EVENT_OPR_ALLOCATION", "Allocation"),
        (1, "CUDA_DEV_MEM_EVENT_OPR_DEALLOCATION", "Deallocation"),
    ),
}


def create(table: str, columns: tuple[str, ...]) -> str:
    """Return the statement that makes a table, unless it is there."""
    return f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(map(_declared, columns))})"


def _declared(column: str) -> str:
    name, _, kind = column.rstrip("!*").partition(":")
    kind = (kind or "integer").upper()
    return f"{quoted(name)} {kind}{' NOT NULL' * ('!' in column)}{' PRIMARY KEY' * ('*' in column)}"


def quoted(column: str) -> str:
    """Return a column's name for SQL, where some of them have a meaning (end, group)."""
    return f'"{column}"'

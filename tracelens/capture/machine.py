"""The machine that a run was recorded on: versions, GPUs, clocks, and what else may matter."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tracelens import __version__, tools

_PATIENCE_S: Final = 60.0
_DISTRIBUTIONS: Final = ("torch", "triton", "nvtx", "numpy", "polars")
_ENVIRONMENT: Final = re.compile(
    r"(CUDA|CUBLAS|CUDNN|NCCL|GLOO|NVIDIA|PYTORCH|TORCH|TORCHINDUCTOR|TORCHDYNAMO|TRITON|OMP|MKL"
    r"|KMP|TRACELENS)_\w+|OMP_NUM_THREADS|WORLD_SIZE|MALLOC_CONF|LD_PRELOAD"
)
_OF_IMAGES: Final = ("NVIDIA_REQUIRE_CUDA",)
"""What an image asks of its host's driver, at length, and no program reads."""
_SECRETS: Final = re.compile(r"(?i)token|secret|passw|credential|_key$|auth")
_SMI: Final = (
    "index", "name", "uuid", "driver_version", "memory.total", "memory.free", "power.limit",
    "power.draw", "temperature.gpu", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem",
    "mig.mode.current",
)  # fmt: skip
_PROBE: Final = """
import json, torch
gpus = []
if torch.cuda.is_available():
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        gpus.append({"name": p.name, "capability": [p.major, p.minor],
                     "memory_bytes": p.total_memory, "sm_count": p.multi_processor_count})
print(json.dumps({"cuda": torch.version.cuda or torch.version.hip, "gpus": gpus}))
"""


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use; ``free_bytes`` is None where nvidia-smi does not tell."""

    name: str
    memory_bytes: int
    free_bytes: int | None = None


@dataclass(frozen=True)
class Machine:
    """What there is to run on.

    Attributes:
        has_torch: whether torch is installed beside tracelens.
        gpus: those that torch can use.
        free_bytes: main memory that is free; None if the system does not tell.
        torch_failure: why torch did not answer.
    """

    has_torch: bool
    gpus: tuple[Gpu, ...] = ()
    free_bytes: int | None = None
    torch_failure: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def look() -> Machine:
    """Return what there is to run on; asks torch, in a process of its own, for its GPUs."""
    has_torch = importlib.util.find_spec("torch") is not None
    smi = _smi()
    torch, failure = _asked_torch() if has_torch else ({}, "")
    free = [_mebibytes(row.get("memory.free", "")) for row in smi]
    told = torch.get("gpus", [])
    alike = len(free) == len(told)  # else CUDA_VISIBLE_DEVICES hides some, and the order may differ
    gpus = tuple(
        Gpu(gpu["name"], gpu["memory_bytes"], free[i] if alike else None)
        for i, gpu in enumerate(told)
    )
    return Machine(has_torch, gpus, _free_memory(), failure, _facts(torch, smi))


def revision(folder: Path) -> dict[str, Any] | None:
    """Return the git commit that a folder stands at, and whether files differ from it."""
    git = ("git", "--no-optional-locks", "-C", str(folder))
    commit = tools.ask(*git, "rev-parse", "HEAD").text.strip()
    if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        return None
    changed = tools.ask(*git, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": bool(changed.text.strip())}


def _facts(torch: dict[str, Any], smi: list[dict[str, str]]) -> dict[str, Any]:
    versions = {name: _version(name) for name in _DISTRIBUTIONS}
    return {
        "tracelens": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "memory_bytes": _memory("MemTotal"),
        "versions": {name: version for name, version in versions.items() if version},
        "cuda": torch.get("cuda"),
        "gpus": torch.get("gpus", []),
        "nvidia_smi": smi,
        "environment": environment(os.environ),
    }


def environment(variables: Any) -> dict[str, str]:
    """Return the variables that change what a GPU program does, without secrets."""
    known = (name for name in sorted(variables) if _ENVIRONMENT.fullmatch(name))
    kept = (name for name in known if name not in _OF_IMAGES)
    return {name: variables[name] for name in kept if not _SECRETS.search(name)}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _asked_torch() -> tuple[dict[str, Any], str]:
    """Return what torch tells of its GPUs, or why it does not."""
    if _is_cpu_build():
        return {}, ""
    told = tools.ask(sys.executable, "-c", _PROBE, patience_s=_PATIENCE_S)
    if told.failure:
        return {}, f"torch cannot be asked for its GPUs: {told.last_line or told.failure}"
    with contextlib.suppress(ValueError, IndexError):
        answer: dict[str, Any] = json.loads(told.text.splitlines()[-1])
        return answer, ""
    return {}, f"torch cannot be asked for its GPUs: {told.why}"


def _is_cpu_build() -> bool:
    """Tell from its files whether torch was built for no GPU, so that it need not be asked."""
    spec = importlib.util.find_spec("torch")
    text = tools.read(Path(spec.origin).with_name("version.py")) if spec and spec.origin else None
    builds = re.findall(r"^(?:cuda|hip)\b[^=\n]*=\s*(.+)$", text or "", re.MULTILINE)
    return bool(builds) and all(build.strip() == "None" for build in builds)


def _smi() -> list[dict[str, str]]:
    asked = f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader,nounits"
    said = next((tools.ask(path, *asked).text for path in tools.paths_of("nvidia-smi")), "")
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines()]
    return [dict(zip(_SMI, row, strict=True)) for row in rows if len(row) == len(_SMI)]


def _mebibytes(text: str) -> int | None:
    return int(text) * 2**20 if text.isdecimal() else None


def _free_memory() -> int | None:
    """Return the main memory that programs could still take, within a container's limit."""
    free = _memory("MemAvailable")
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        return max(0, limit - used) if free is None else min(free, max(0, limit - used))
    return free


def _memory(name: str) -> int | None:
    with contextlib.suppress(OSError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        if found := re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE):
            return int(found[1]) * 1024
    if name == "MemTotal" and hasattr(os, "sysconf"):
        with contextlib.suppress(ValueError, OSError):
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()

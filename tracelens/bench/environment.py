"""The circumstances of a measurement: versions, driver, and the GPU's clocks, power and heat."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any, Final

from tracelens import tools

_SMI: Final = (
    "driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem",
    "power.draw", "power.limit", "temperature.gpu",
)  # fmt: skip
_CHANGES: Final = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")
_VARIABLES: Final = re.compile(
    r"(CUDA|CUBLAS|CUDNN|NCCL|NVIDIA|PYTORCH|TORCH|TORCHINDUCTOR|TORCHDYNAMO|TRITON|OMP|MKL)_\w+"
)
_OF_IMAGES: Final = ("NVIDIA_REQUIRE_CUDA",)
"""What an image asks of its host's driver, at length, and no program reads."""
_SECRETS: Final = re.compile(r"(?i)token|secret|passw|credential|_key$|auth")


def processor() -> str:
    """Return what the processor calls itself."""
    text = tools.read(Path("/proc/cpuinfo")) or ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return tools.plain(found[1]) if found else platform.processor() or platform.machine()


def free_bytes() -> int:
    """Return the main memory that is free; 1 GiB where the system does not tell."""
    text = tools.read(Path("/proc/meminfo")) or ""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 1 << 30


def facts(torch: Any, device: str) -> dict[str, Any]:
    """Return versions, and the GPU as it is before anything is measured."""
    found: dict[str, Any] = {
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "variables": {
            name: text
            for name, text in sorted(os.environ.items())
            if _VARIABLES.fullmatch(name) and name not in _OF_IMAGES and not _SECRETS.search(name)
        },
    }
    if device == "cpu":
        return found
    about = torch.cuda.get_device_properties(device)
    told = gpu_state(about)
    return {
        **found,
        "gpus": torch.cuda.device_count(),
        "capability": f"{about.major}.{about.minor}",
        "sm_count": about.multi_processor_count,
        "memory_bytes": about.total_memory,
        "l2_bytes": getattr(about, "L2_cache_size", None),
        "driver": told.get("driver_version"),
        "before": {name: text for name, text in told.items() if name != "driver_version"},
    }


def after(torch: Any, device: str) -> dict[str, Any]:
    """Return what may have changed while it was measured."""
    if device == "cpu":
        return {}
    told = gpu_state(torch.cuda.get_device_properties(device))
    return {"after": {name: told[name] for name in _CHANGES if name in told}}


def gpu_state(about: Any) -> dict[str, str]:
    """Return what nvidia-smi says of the GPU that torch means; nothing if it cannot be asked."""
    if (uuid := getattr(about, "uuid", None)) is None:
        return {}
    query = f"--query-gpu={','.join(_SMI)}"
    which = str(uuid) if str(uuid).startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    for path in tools.paths_of("nvidia-smi"):
        answer = tools.ask(path, "-i", which, query, "--format=csv,noheader")
        cells = [tools.plain(cell) for cell in answer.text.strip().split(",")]
        if not answer.failure and len(cells) == len(_SMI):
            return dict(zip(_SMI, cells, strict=True))
    return {}

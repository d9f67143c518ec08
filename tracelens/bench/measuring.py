"""What every process that measures does: it takes its device, and answers by lines."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from tracelens.bench import environment
from tracelens.bench.case import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def target(torch: Any, device: str, *, quick: bool = False) -> tuple[Target, str]:
    """Return the device that is asked for (`auto`, `cpu`, a GPU's number), and its name."""
    has_gpu = torch.cuda.is_available() and torch.version.cuda is not None
    if device == "cpu" or (device == "auto" and not has_gpu):
        return Target(torch, "cpu", quick, environment.free_bytes()), environment.processor()
    number = 0 if device == "auto" else int(device)
    there = torch.cuda.device_count() if has_gpu else 0
    if number >= there:
        raise SystemExit(f"torch {torch.__version__} sees {there} GPUs here: no number {number}.")
    torch.cuda.set_device(number)
    about = torch.cuda.get_device_properties(number)
    free, _ = torch.cuda.mem_get_info(number)
    l2 = int(getattr(about, "L2_cache_size", 0))
    found = Target(torch, f"cuda:{number}", quick, free, l2, (about.major, about.minor))
    return found, about.name


def is_broken(on: Target) -> bool:
    """Tell whether CUDA answers every call with the same error from now on."""
    if not on.is_gpu:
        return False
    try:
        on.torch.cuda.synchronize(on.device)
    except Exception:  # noqa: BLE001 (torch has an error of its own in newer versions)
        return True
    return False


@contextlib.contextmanager
def answers() -> Iterator[Callable[[bytes], object]]:
    """Give what writes to standard output, and let all else that is printed go elsewhere."""
    own = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(own, "wb") as stream:

        def write(line: bytes) -> None:
            stream.write(line)
            stream.flush()

        yield write

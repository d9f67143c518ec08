"""Ranges in torch's own recordings, none of which outlives the profiler that it was begun under.

torch (2.13 and before) writes into freed memory when a `record_function` that was entered under
one profiler is left under the next. So those that are open when a profiler stops end there.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, Final

_open: Final[dict[int, Any]] = {}
"""What has been begun and not ended, on any thread, by `id`."""


def is_wanted(torch: Any) -> bool:
    """Whether a profiler of torch, or the history of its GPU memory, is on."""
    try:
        if torch.autograd.profiler._is_profiler_enabled:
            return True
        # Before CUDA is set up there is no history.
        return bool(torch.cuda._initialized and torch._C._cuda_isHistoryEnabled())
    except AttributeError:  # torch is only being imported
        return False


def nvtx_is_emitted() -> bool:
    """Whether torch sends its ranges to NVTX (`torch.autograd.profiler.emit_nvtx`)."""
    torch = sys.modules["torch"]
    kinds = torch._C._profiler.ActiveProfilerType
    return bool(torch._C._autograd._profiler_type() == kinds.NVTX)


def begin(name: str) -> Any:
    """Begin a range and return it."""
    profiler: Any = sys.modules["torch.autograd.profiler"]
    if not hasattr(profiler._run_on_profiler_stop, "_ends_ranges"):
        _watch(profiler)
    record = profiler.record_function(name)
    record.__enter__()
    _open[id(record)] = record
    return record


def end(record: Any) -> None:
    """End a range, unless its profiler has stopped."""
    if _open.pop(id(record), None) is not None:
        record.__exit__(None, None, None)


def _watch(profiler: Any) -> None:
    original = profiler._run_on_profiler_stop

    @functools.wraps(original)
    def stopped() -> None:
        # Here the profiler is off already, so this writes nothing.
        for record in tuple(_open.values()):
            end(record)
        original()

    stopped._ends_ranges = True  # type: ignore[attr-defined]
    profiler._run_on_profiler_stop = stopped

"""Recordings by hand for the explorer, with names that try to be more than text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.build import Nsys

if TYPE_CHECKING:
    from pathlib import Path

PAYLOADS: Final = (
    "<script>window.__hacked=1</script>",
    "<img src=x onerror=window.__hacked=1>",
    "</script><svg onload=window.__hacked=1>",
    "<b>bold</b><br><a href='javascript:window.__hacked=1'>click</a>",
    "\u202egnp.exe\u2066 \x1b[31mred\x1b[0m \x00",
)
"""Names that would do something if anything took them for markup or for commands."""


def training(path: Path, *, kernel: str = "ampere_sgemm_128x64_tn", idle_ns: int = 50_000) -> Path:
    """Write two steps of forward and backward with a long idle time in between."""
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    for step in (0, 1):
        at = step * 1_000_000
        main.push(f"step {step}", at, at + 900_000)
        main.push("forward", at + 1_000, at + 300_000)
        main.kernel(kernel, at=at + 2_000, run=(at + 3_000, at + 103_000))
        main.push("backward", at + 300_000, at + 800_000)
        begin = at + 103_000 + idle_ns + 200_000
        main.kernel("vectorized_elementwise_kernel", at=begin - 100, run=(begin, begin + 90_000))
    return trace.write(path)


def hostile(path: Path) -> Path:
    """Write a recording in which every name is a payload."""
    trace = Nsys()
    main = trace.thread(PAYLOADS[0], pid=100, tid=100)
    for place, name in enumerate(PAYLOADS):
        at = place * 10_000
        main.push(name.replace("\x00", ""), at, at + 9_000)
        main.kernel(name.replace("\x00", ""), at=at + 10, run=(at + 100, at + 5_000))
    return trace.write(path)

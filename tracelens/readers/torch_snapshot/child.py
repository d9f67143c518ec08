"""The child process: opens a file that nobody vouches for, cuts it to columns, and is gone.

It is run by path of the package, without site-packages: nothing here may import more than the
standard library.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracelens.readers.torch_snapshot import snapshot, timeline
from tracelens.readers.torch_snapshot.handed import (
    REFUSED,
    STATUS_MEMORY,
    STATUS_REFUSED,
    Hand,
    RefusedError,
    shown,
)
from tracelens.readers.torch_snapshot.unpickle import HOW_TO_RECORD, loaded

if TYPE_CHECKING:
    from collections.abc import Sequence

_BASELINE_BYTES: Final = 512 << 20
_LEAST_ROWS: Final = 1000
_MOST_KEYS: Final = 6


def main(arguments: Sequence[str]) -> None:
    """Read the file, hand its columns over, and end the process at once with what came of it.

    Args:
        arguments: the file, the folder to write to, and how many bytes of memory and seconds
            of CPU time it may take.
    """
    path, folder = Path(arguments[0]), Path(arguments[1])
    # Python looks for Ctrl-C between two lines of its own, and there is none while it loads.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    limited = _limit(int(arguments[2]), int(arguments[3]))
    # Nothing here is in cycles, and looking for them takes longer than loading.
    gc.disable()
    status = 0
    try:
        _hand_over(path, folder, limited=limited)
    except RefusedError as refusal:
        (folder / REFUSED).write_text(str(refusal), encoding="utf-8", errors="replace")
        status = STATUS_REFUSED
    except MemoryError:
        status = STATUS_MEMORY
    # Not sys.exit: freeing millions of objects one by one takes half a second.
    os._exit(status)


def _hand_over(path: Path, folder: Path, *, limited: bool) -> None:
    size = path.stat().st_size
    content, left = loaded(path)
    hand = Hand(folder, sys.stdout, max(_LEAST_ROWS, size))
    facts = _cut(content, hand)
    hand.close({**facts, "bytes_left": left, "limited": limited})


def _cut(content: Any, hand: Hand) -> dict[str, Any]:
    """Hand over what is known by its shape.

    Raises:
        RefusedError: it is plain data, but neither a snapshot nor a timeline.
    """
    if type(content) is dict:
        if any(mark in content for mark in snapshot.MARKS):
            return snapshot.cut(content, hand)
        keys = [shown(k) if type(k) is str else type(k).__name__ for k in content]
        named = ", ".join(keys[:_MOST_KEYS]) + " …" * (len(keys) > _MOST_KEYS)
        what = f"holds a dictionary of {named}" if keys else "holds an empty dictionary"
    elif type(content) is list and content:
        if type(content[0]) is dict and {"total_size", "blocks"} <= content[0].keys():
            return snapshot.cut({"segments": content}, hand)
        if timeline.is_timeline(content):
            return timeline.cut(content, hand)
        what = f"holds a list of {len(content):,} {type(content[0]).__name__}"
    else:
        what = f"holds {'an empty list' if content == [] else f'one {type(content).__name__}'}"
    raise RefusedError(f"{what}: no memory snapshot. {HOW_TO_RECORD}")


def _limit(most_bytes: int, most_seconds: int) -> bool:
    """Limit memory above what the process has now, and time, if the parent does not live to.

    Windows has no such limits; there the parent's patience is all.
    """
    try:
        import resource
    except ImportError:
        return False
    limits = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, most_seconds),
        (resource.RLIMIT_AS, _used_bytes() + most_bytes),
    )
    limited = False
    for what, most in limits:
        hard = resource.getrlimit(what)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(what, (allowed, allowed))
        except (ValueError, OSError):  # macOS refuses limits of address space
            continue
        limited = limited or what == resource.RLIMIT_AS
    return limited


def _used_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return _BASELINE_BYTES
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(sys.argv[1:])

"""The process that says what configurations are to hold for: `python -m tracelens.bench.probe N`.

It is one of its own, since asking for a GPU takes memory of it as long as the process lives.
"""

from __future__ import annotations

import sys
from typing import Final

import msgspec

from tracelens import tools
from tracelens.bench import processes
from tracelens.errors import CaptureError
from tracelens.tuned import Circumstances

_PATIENCE_S: Final = 120.0


def circumstances(device: str) -> Circumstances:
    """Return what configurations are to hold for on a GPU of this machine.

    Args:
        device: `auto` (the first), or its number.

    Raises:
        CaptureError: there is no such GPU.
    """
    heard = processes.Heard()
    program = processes.Program("tracelens.bench.probe", (device,), _PATIENCE_S)
    said = b"".join(program.lines(heard))
    try:
        return msgspec.json.decode(said, type=Circumstances)
    except msgspec.MsgspecError as error:
        why = heard.why or tools.plain(said.decode(errors="replace")) or "the process said nothing"
        raise CaptureError(f"Tuning needs an NVIDIA GPU: {why}") from error


def main() -> int:
    """Print them; return the exit status."""
    import torch

    from tracelens import tuned

    number = 0 if sys.argv[1] == "auto" else int(sys.argv[1])
    has_gpu = torch.cuda.is_available() and torch.version.cuda is not None
    there = torch.cuda.device_count() if has_gpu else 0
    if number >= there:
        sys.stderr.write(f"torch {torch.__version__} sees {there} GPUs here: no number {number}.\n")
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(tuned.circumstances(number)) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

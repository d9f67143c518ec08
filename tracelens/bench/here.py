"""What is known of this machine: its GPUs, and those that the user has measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens import hardware, tools
from tracelens.errors import NothingToShowError, UnreadableError
from tracelens.hardware import measured

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.hardware import Ceilings


def known(file: Path | None = None) -> list[Ceilings]:
    """Return the ceilings of the GPUs here and of those in the user's files; or of a file's alone.

    Raises:
        UnreadableError: the file that was named cannot be read or is none of ceilings.
        NothingToShowError: nothing is known.
    """
    names = [measured.load(file).device] if file else [*_gpus(), *_in_files()]
    found = [hardware.ceilings(name, file) for name in dict.fromkeys(names)]
    shown = [one for one in found if one is not None]
    if not shown:
        raise NothingToShowError(
            "No GPU that is known is here, and nothing was measured before: "
            "`tracelens bench ceilings` measures this machine."
        )
    return shown


def _gpus() -> list[str]:
    for path in tools.paths_of("nvidia-smi"):
        answer = tools.ask(path, "--query-gpu=name", "--format=csv,noheader")
        if not answer.failure:
            return [tools.plain(line) for line in answer.text.splitlines() if line.strip()]
    return []


def _in_files() -> list[str]:
    found = []
    for file in sorted((measured.folder() / "ceilings").glob("*.json")):
        try:
            found.append(measured.load(file).device)
        except UnreadableError:
            continue  # its GPU, if it is here, has a caveat
    return found

"""Where NVIDIA's tools are on this machine, which version each one is, and what it can be told."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Name = Literal["nsys", "QdstrmImporter", "ncu", "nvidia-smi"]

ROOT: Final = Path("/")
PATIENCE_S: Final = 10.0
"""How long a program may take to say its version."""

PLACES: Final[Mapping[Name, Sequence[str]]] = {
    "nsys": (
        "usr/local/cuda*/bin/nsys",
        "usr/local/cuda*/nsight-systems*/bin/nsys",
        "usr/local/cuda*/nsight-systems*/target-linux-*/nsys",
        "opt/nvidia/nsight-systems*/*/bin/nsys",
        "opt/nvidia/nsight-systems*/*/target-linux-*/nsys",
        "opt/nvidia/hpc_sdk/*/*/profilers/Nsight_Systems/bin/nsys",
        "usr/lib/nsight-systems/bin/nsys",
        "opt/nvidia/nsight-compute/*/host/target-linux-*/nsys",
        "usr/local/cuda*/nsight-compute*/host/target-linux-*/nsys",
    ),
    "QdstrmImporter": (
        "usr/lib/nsight-systems/host-linux-*/QdstrmImporter",
        "usr/lib/*/nsight-systems/host-linux-*/QdstrmImporter",
        "opt/nvidia/nsight-systems*/*/host-linux-*/QdstrmImporter",
        "opt/nvidia/hpc_sdk/*/*/profilers/Nsight_Systems/host-linux-*/QdstrmImporter",
        "usr/local/cuda*/nsight-systems*/host-linux-*/QdstrmImporter",
    ),
    "ncu": (
        "usr/local/cuda*/bin/ncu",
        "usr/local/cuda*/nsight-compute*/ncu",
        "opt/nvidia/nsight-compute/*/ncu",
        "opt/nvidia/hpc_sdk/*/*/profilers/Nsight_Compute/ncu",
        "usr/lib/nsight-compute/ncu",
    ),
    "nvidia-smi": ("usr/bin/nvidia-smi", "usr/lib/wsl/lib/nvidia-smi"),
}
"""Where each program is looked for besides PATH, below `ROOT`."""

COUNTERS_CLOSED: Final = (
    "need root here (ERR_NVGPUCTRPERM); an administrator can load the driver with "
    "NVreg_RestrictProfilingToAdminUsers=0"
)

_VERSION: Final = re.compile(r"\b(20\d\d\.\d+[\d.]*)")
_LONGEST: Final = 1_000_000


@dataclass(frozen=True)
class Answer:
    """What a program printed, and why it failed if it did."""

    text: str
    failure: str = ""

    @property
    def why(self) -> str:
        """Why it failed, or was not understood, with its first words."""
        why = self.failure or "its answer was not understood"
        return f"{why}: {self.first_line}" if self.first_line else why

    @property
    def first_line(self) -> str:
        """The first line that is not blank."""
        return next((plain(line) for line in self.text.splitlines() if line.strip()), "")

    @property
    def last_line(self) -> str:
        """The last line that is not blank."""
        lines = reversed(self.text.splitlines())
        return next((plain(line) for line in lines if line.strip()), "")


@dataclass(frozen=True)
class Tool:
    """A program that was found.

    Attributes:
        path: as it was found; links are not followed.
        version: as it says it: `2025.3.2.474`; None if it does not.
        broken: why it says none.
    """

    path: str
    version: str | None = None
    broken: str = ""

    @property
    def number(self) -> tuple[int, ...]:
        """Its version as numbers that can be compared; nothing if it is not known."""
        return tuple(int(part) for part in (self.version or "").split(".") if part)

    @property
    def release(self) -> str:
        """Year and release, which decide what it can read: `2025.3`."""
        return ".".join(map(str, self.number[:2]))


def find(name: Name) -> list[Tool]:
    """Return every copy of a program, the one on PATH first, with its version; each once."""
    paths = paths_of(name)
    with ThreadPoolExecutor(max(1, len(paths))) as pool:
        return list(pool.map(tool, paths))


def working(name: Name) -> list[Tool]:
    """Return the copies that say their version, the newest first."""
    found = [one for one in find(name) if one.version]
    return sorted(found, key=lambda one: one.number, reverse=True)


def paths_of(name: Name) -> list[str]:
    """Return the paths of a program, the one on PATH first, each once."""
    on_path = shutil.which(name)
    paths = [on_path] if on_path else []
    for place in PLACES[name]:
        found = sorted(map(str, ROOT.glob(place)), reverse=True)
        paths += [path for path in found if os.access(path, os.X_OK) and Path(path).is_file()]
    each: dict[str, str] = {}
    for path in paths:
        each.setdefault(os.path.realpath(path), path)
    return list(each.values())


def tool(path: str) -> Tool:
    """Return what a program says of itself."""
    try:
        is_like = os.stat(path)  # noqa: PTH116 (what is asked once is not asked again)
    except OSError as error:
        return Tool(path, broken=f"it cannot be run: {error.strerror or error}")
    return _tool(path, is_like.st_mtime_ns, is_like.st_size)


def help_of(path: str, *command: str) -> str:
    """Return what a program prints for `--help`, in which its options can be looked for."""
    try:
        is_like = os.stat(path)  # noqa: PTH116 (what is asked once is not asked again)
    except OSError:
        return ""
    return _help(path, command, is_like.st_mtime_ns, is_like.st_size)


def ask(
    *command: str,
    patience_s: float | None = None,
    into: Path | None = None,
) -> Answer:
    """Run a program and return what it prints; one that hangs is ended, with what it started.

    Args:
        command: the program and its arguments.
        patience_s: how long it may take; None: `PATIENCE_S`.
        into: a file for its standard output, which may be large; the answer has the rest.
    """
    patience_s = PATIENCE_S if patience_s is None else patience_s
    try:
        with contextlib.ExitStack() as files:
            process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=files.enter_context(into.open("wb")) if into else subprocess.PIPE,
                stderr=subprocess.PIPE if into else subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
    except OSError as error:
        return Answer("", f"it cannot be run: {error.strerror or error}")
    with process:
        try:
            out, rest = process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            end(process.pid)
            process.kill()
            return Answer("", f"it gave no answer in {patience_s:g} s")
        except BaseException:
            end(process.pid)
            process.kill()
            raise
    failed = f"it ended with status {process.returncode}" if process.returncode else ""
    return Answer((out or rest or "")[-_LONGEST:], failed)


def end(group: int) -> None:
    """End a process group at once."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def importer_of(nsys: Tool) -> Tool | None:
    """Return the QdstrmImporter that belongs to an nsys: the one in its package, or its like.

    An importer of another version may not read what an nsys records.
    """
    mine = nsys.number[:3]
    beside = [tool(str(path)) for path in _host_programs(nsys)]
    return next((one for one in [*beside, *find("QdstrmImporter")] if one.number[:3] == mine), None)


def imports_itself(nsys: Tool) -> bool:
    """Tell whether an nsys turns what it records into a report: the host folder is beside it.

    A script that starts another nsys is taken to be the front of a whole package.
    """
    if _host_programs(nsys):
        return True
    with contextlib.suppress(OSError), Path(nsys.path).open("rb") as file:
        return file.read(2) == b"#!" and "nsight-compute" not in os.path.realpath(nsys.path)
    return False


def may_read_counters() -> bool | None:
    """Tell whether this user may read the GPU's counters; None where the driver does not say."""
    settings = read(ROOT / "proc/driver/nvidia/params")
    only = re.search(r"^RmProfilingAdminOnly: (\d)", settings or "", re.MULTILINE)
    if only is None:
        return None
    return only[1] == "0" or (hasattr(os, "geteuid") and os.geteuid() == 0)


def sampling_level() -> str | None:
    """Return the kernel's perf_event_paranoid: up to 2, nsys can sample CPU call stacks."""
    return read(ROOT / "proc/sys/kernel/perf_event_paranoid")


def torch_cuda(version: str | None = None) -> str | None:
    """Return the CUDA version that torch was built for (`12.8`), read without importing it.

    Args:
        version: torch's own, which may tell if its files do not: `2.9.0+cu128`.
    """
    spec = importlib.util.find_spec("torch")
    if spec and spec.origin:
        text = read(Path(spec.origin).with_name("version.py"))
        if found := re.search(
            r"^cuda\b[^=\n]*=\s*(?:'([\d.]+)'|None)", text or "", re.MULTILINE
        ):  # fmt: skip
            return found[1]
    local = re.search(r"\+cu(\d+)(\d)$", version or "")
    return f"{local[1]}.{local[2]}" if local else None


def plain(text: str) -> str:
    """Return a line of another program without what does not belong in a line of ours."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:160]


def read(path: Path) -> str | None:
    """Return the text of a small file, or None if there is none to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _host_programs(nsys: Tool) -> list[Path]:
    """Return the importers in the package of an nsys, links followed, as nsys itself looks."""
    real = Path(os.path.realpath(nsys.path))
    return sorted(real.parents[1].glob("host-linux-*/QdstrmImporter"))


@functools.lru_cache
def _tool(path: str, _changed_ns: int, _size: int) -> Tool:
    answer = ask(path, "--version")
    version = _VERSION.search(answer.text)
    if not answer.failure and version:
        return Tool(path, version[1].rstrip("."))
    return Tool(path, broken=answer.why)


@functools.lru_cache
def _help(path: str, command: tuple[str, ...], _changed_ns: int, _size: int) -> str:
    return ask(path, *command, "--help").text

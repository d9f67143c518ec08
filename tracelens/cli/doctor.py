"""Say what this machine has for profiling, and what each tool's version allows or prevents."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracelens import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_EPILOG = """
\b
Examples:
  tracelens doctor
  tracelens doctor --format json | jq '.checks[] | select(.found | not)'
"""
_PATIENCE_S: Final = 10.0
_ROOT: Final = Path("/")
_NSYS_PLACES: Final = (
    "usr/local/cuda*/bin/nsys",
    "opt/nvidia/nsight-systems/*/bin/nsys",
    "opt/nvidia/nsight-systems/*/target-linux-*/nsys",
    "opt/nvidia/nsight-systems-cli/*/bin/nsys",
    "opt/nvidia/nsight-compute/*/host/target-linux-*/nsys",
    "usr/local/cuda*/nsight-compute*/host/target-linux-*/nsys",
)
_NCU_PLACES: Final = (
    "usr/local/cuda*/bin/ncu",
    "opt/nvidia/nsight-compute/*/ncu",
)
_IMPORTER_PLACES: Final = (
    "usr/lib/nsight-systems/host-linux-*/QdstrmImporter",
    "usr/lib/*/nsight-systems/host-linux-*/QdstrmImporter",
    "opt/nvidia/nsight-systems*/*/host-linux-*/QdstrmImporter",
    "usr/local/cuda*/nsight-systems*/host-linux-*/QdstrmImporter",
)
_NSYS_LIMITS: Final = (
    (
        (2023, 1),
        "cannot import captures of CUDA 12 or 13 programs",
    ),  # tried: unknown function index
    ((2025, 3), "is older than CUDA 13, and may not import captures of its programs"),
)
"""What an nsys older than (year, release) cannot do; the first that fits counts."""
_SMI: Final = ("index", "name", "memory.total", "driver_version")


@dataclass(frozen=True)
class Check:
    """One thing that was looked for; ``says`` is what finding it, or not, means."""

    name: str
    found: bool
    says: str
    version: str | None = None
    path: str | None = None


@click.command(epilog=_EPILOG)
@click.option(
    "--format",
    "-f",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json for programs and bug reports.",
)
def doctor(form: str) -> None:
    """Say what is installed here, and what it allows or prevents."""
    checks = _all()
    if form == "json":
        found = {"tracelens": __version__, "checks": [asdict(check) for check in checks]}
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for line in _lines(checks):
        click.echo(line)


def _all() -> list[Check]:
    """Make every check, those that wait for other programs side by side."""
    checks: tuple[Callable[[], Iterable[Check]], ...] = (
        _python, _libraries, _torch, _nsys, _importer, _ncu, _gpus, _sampling, _counters, _cache,
        _terminal,
    )  # fmt: skip
    with ThreadPoolExecutor(len(checks)) as pool:
        return [check for made in pool.map(_guarded, checks) for check in made]


def _guarded(check: Callable[[], Iterable[Check]]) -> list[Check]:
    try:
        return list(check())
    except Exception as error:  # noqa: BLE001 (a report tells what it could not find out)
        name = check.__name__.strip("_")
        return [Check(name, found=False, says=f"could not be looked at: {_plain(str(error))}")]


def _lines(checks: Sequence[Check]) -> list[str]:
    names = max(len(check.name) for check in checks)
    versions = [_version_shown(check) for check in checks]
    width = min(max(map(len, versions)), 16)
    room = max(40, shutil.get_terminal_size((80, 24)).columns - names - width - 6)
    lines = []
    for check, version in zip(checks, versions, strict=True):
        mark = "+" if check.found else "-"
        at = f" [{check.path}]" if check.path else ""
        first, *rest = _wrapped(check.says + at, room)
        lines.append(f"{mark} {check.name:<{names}}  {version:<{width}}  {first}".rstrip())
        lines += [" " * (names + width + 6) + more for more in rest]
    return lines


def _version_shown(check: Check) -> str:
    return check.version or ("" if check.found else "not found")


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False) or [""]


# Python and its packages


def _python() -> Iterable[Check]:
    yield Check(
        "Python", found=True, says=platform.platform(), version=platform.python_version(),
        path=sys.executable,
    )  # fmt: skip
    yield Check("tracelens", found=True, says="this program", version=__version__)


def _libraries() -> Iterable[Check]:
    for name, use in (("polars", "computes all tables"), ("adbc-driver-sqlite", "reads exports")):
        version = _distribution(name)
        says = use if version else f"needed, as it {use}; pip install {name}"
        yield Check(name, version is not None, says, version)


def _torch() -> Iterable[Check]:
    version = _distribution("torch")
    if version is None:
        says = "`tracelens capture` needs it to run workloads; reading recordings does not."
        yield Check("torch", found=False, says=says)
    else:
        build = _torch_build(version)
        built = f"built for CUDA {build}" if build else "a build without CUDA: it cannot use a GPU"
        yield Check("torch", found=True, says=built, version=version)
    triton = _distribution("triton")
    says = "compiles Triton kernels" if triton else "Triton kernels and torch.compile need it."
    yield Check("triton", triton is not None, says, triton)


def _torch_build(version: str) -> str | None:
    """Return the CUDA version that torch was built for, read without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec and spec.origin:
        with contextlib.suppress(OSError):
            text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
            if found := re.search(r"^cuda\b[^=\n]*=\s*(?:'([\d.]+)'|None)", text, re.MULTILINE):
                return found[1]
    local = re.search(r"\+cu(\d+)(\d)$", version)
    return f"{local[1]}.{local[2]}" if local else None


def _distribution(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# NVIDIA's tools


def _nsys() -> Iterable[Check]:
    found = _programs("nsys", _NSYS_PLACES)
    if not found:
        says = (
            "Recording needs it, and so do .nsys-rep files; exports (.sqlite, Parquet) can be read "
            "without. It is in the CUDA toolkit; Debian: apt install nsight-systems (non-free)."
        )
        yield Check("nsys", found=False, says=says)
    for number, path in enumerate(found):
        name = "nsys" if not number else "nsys, another"
        answer = _answer(path, "--version")
        version = re.search(r"\b(20\d\d)\.(\d+)[\d.]*", answer.text)
        if answer.failure or not version:
            yield Check(name, found=False, says=_broken(answer), path=path)
            continue
        yield Check(name, True, _nsys_says(version, path), version[0].rstrip("."), path)


def _nsys_says(version: re.Match[str], path: str) -> str:
    year, release = int(version[1]), int(version[2])
    says = f"exports reports up to nsys {year}.{release}"
    limits = (limit for before, limit in _NSYS_LIMITS if (year, release) < before)
    if limit := next(limits, ""):
        says += f"; {limit}"
    if "nsight-compute" in path:
        says += "; a copy inside Nsight Compute, which cannot turn a recording into a report"
    return says


def _importer() -> Iterable[Check]:
    found = [*_on_path("QdstrmImporter"), *_in_places(_IMPORTER_PLACES)]
    path = found[0] if found else None
    says = (
        "turns .qdstrm, what nsys leaves when it cannot finish, into a report: "
        "QdstrmImporter -i RUN.qdstrm -o RUN.nsys-rep"
        if path
        else "Without it a .qdstrm file stays one; it is in the host folder of Nsight Systems."
    )
    yield Check("QdstrmImporter", path is not None, says, path=path)


def _ncu() -> Iterable[Check]:
    found = _programs("ncu", _NCU_PLACES)
    if not found:
        yield Check("ncu", found=False, says="Measuring inside kernels (Nsight Compute) needs it.")
        return
    answer = _answer(found[0], "--version")
    version = re.search(r"\b20\d\d\.[\d.]*\d", answer.text)
    if answer.failure or not version:
        yield Check("ncu", found=False, says=_broken(answer), path=found[0])
    else:
        yield Check("ncu", True, "measures inside kernels", version[0], found[0])


def _gpus() -> Iterable[Check]:
    found = _programs("nvidia-smi", ("usr/bin/nvidia-smi", "usr/lib/wsl/lib/nvidia-smi"))
    if not found:
        says = "no nvidia-smi: recordings can be read here, but none made of a GPU."
        yield Check("GPU", found=False, says=says)
        return
    answer = _answer(
        found[0], f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader,nounits"
    )  # fmt: skip
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.text.splitlines()]
    gpus = [row for row in rows if len(row) == len(_SMI) and row[0].isdigit()]
    if answer.failure or not gpus:
        yield Check("GPU", found=False, says=_broken(answer), path=found[0])
        return
    for index, name, memory, driver in gpus:
        size = f", {int(memory) / 1024:.0f} GiB" if memory.isdigit() else ""
        yield Check(f"GPU {index}", True, f"{_plain(name)}{size}, driver {_plain(driver)}")


# The system


def _sampling() -> Iterable[Check]:
    text = _text(_ROOT / "proc/sys/kernel/perf_event_paranoid")
    if text is None:
        yield Check("CPU sampling", found=False, says="perf_event_paranoid is not there to read")
        return
    level = int(text) if re.fullmatch(r"-?\d+", text) else 4
    says = (
        "nsys can sample CPU call stacks"
        if level <= 2
        else "nsys cannot sample CPU call stacks; CUDA and NVTX are recorded all the same. "
        "To allow it: sysctl kernel.perf_event_paranoid=2"
    )
    yield Check("CPU sampling", level <= 2, says, f"paranoid {text}")


def _counters() -> Iterable[Check]:
    text = _text(_ROOT / "proc/driver/nvidia/params")
    only = re.search(r"^RmProfilingAdminOnly: (\d)", text or "", re.MULTILINE)
    if only is None:
        return
    allowed = only[1] == "0" or (hasattr(os, "geteuid") and os.geteuid() == 0)
    says = (
        "ncu and nsys --gpu-metrics may read the GPU's counters"
        if allowed
        else "ncu and nsys --gpu-metrics need root here (ERR_NVGPUCTRPERM); an administrator can "
        "load the driver with NVreg_RestrictProfilingToAdminUsers=0"
    )
    yield Check("GPU counters", allowed, says)


def _cache() -> Iterable[Check]:
    from tracelens.trace import store

    folder = store.folder()
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    size = f"{used / 2**20:.1f} MiB"
    writable = _writable(folder)
    says = (
        "recordings read before open faster"
        if writable
        else "cannot be written, so every recording is read anew; set TRACELENS_CACHE_DIR"
    )
    yield Check("cache", writable, says, size, str(folder))


def _writable(folder: Path) -> bool:
    """Tell whether a file can be made in the folder, or where the folder would be made."""
    while not folder.is_dir():
        if folder == folder.parent or os.path.lexists(folder):
            return False
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _terminal() -> Iterable[Check]:
    columns = shutil.get_terminal_size((80, 24)).columns
    encoding = sys.stdout.encoding or "unknown"
    colour = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    is_terminal = sys.stdout.isatty()
    says = (
        f"{columns} columns, {encoding}, {'colours' if colour else 'no colours'}"
        if is_terminal
        else f"output goes to a file or program: {columns} columns, {encoding}, no progress bar"
    )
    yield Check("terminal", is_terminal, says, None if is_terminal else "none")


# Finding and asking other programs


@dataclass(frozen=True)
class _Answer:
    text: str
    failure: str = ""


def _programs(name: str, places: Sequence[str]) -> list[str]:
    """Return the paths of a program, the one on PATH first, each once."""
    paths = [*_on_path(name), *_in_places(places)]
    return list({os.path.realpath(path): path for path in reversed(paths)}.values())[::-1]


def _on_path(name: str) -> list[str]:
    found = shutil.which(name)
    return [found] if found else []


def _in_places(places: Sequence[str]) -> list[str]:
    found = [str(path) for place in places for path in sorted(_ROOT.glob(place), reverse=True)]
    return [path for path in found if os.access(path, os.X_OK) and Path(path).is_file()]


def _answer(*command: str) -> _Answer:
    """Return what a program prints; one that does not answer is ended, with what it started."""
    try:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return _Answer("", f"it cannot be run: {error.strerror or error}")
    with process:
        try:
            text, _ = process.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            _end(process)
            return _Answer("", f"it gave no answer in {_PATIENCE_S:g} s")
    failed = f"it ended with status {process.returncode}" if process.returncode else ""
    return _Answer(text[:100_000], failed)


def _end(process: subprocess.Popen[str]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _broken(answer: _Answer) -> str:
    """Return the sentence on a program that is there and did not say its version."""
    said = next((line for line in answer.text.splitlines() if line.strip()), "")
    why = answer.failure or "its answer was not understood"
    return f"is there, but {why}{f': {_plain(said)}' if said else ''}"


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text).strip()[:160]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


COMMAND = doctor

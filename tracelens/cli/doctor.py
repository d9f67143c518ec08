"""Say what this machine has for profiling, and what each tool's version allows or prevents."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import click

from tracelens import __version__, tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

_EPILOG = """
\b
Examples:
  tracelens doctor
  tracelens doctor --format json | jq '.checks[] | select(.found | not)'
"""
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
        return [Check(name, found=False, says=f"could not be looked at: {tools.plain(str(error))}")]


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
        build = tools.torch_cuda(version)
        built = f"built for CUDA {build}" if build else "a build without CUDA: it cannot use a GPU"
        yield Check("torch", found=True, says=built, version=version)
    triton = _distribution("triton")
    says = "compiles Triton kernels" if triton else "Triton kernels and torch.compile need it."
    yield Check("triton", triton is not None, says, triton)


def _distribution(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# NVIDIA's tools


def _nsys() -> Iterable[Check]:
    found = tools.find("nsys")
    if not found:
        says = (
            "Recording needs it, and so do .nsys-rep files; exports (.sqlite, Parquet) can be read "
            "without. It is in the CUDA toolkit; Debian: apt install nsight-systems (non-free)."
        )
        yield Check("nsys", found=False, says=says)
    for number, nsys in enumerate(found):
        name = "nsys" if not number else "nsys, another"
        if nsys.version:
            yield Check(name, True, _nsys_says(nsys), nsys.version, nsys.path)
        else:
            yield Check(name, found=False, says=f"is there, but {nsys.broken}", path=nsys.path)


def _nsys_says(nsys: tools.Tool) -> str:
    says = f"exports reports up to nsys {nsys.release}"
    limits = (limit for before, limit in _NSYS_LIMITS if nsys.number < before)
    if limit := next(limits, ""):
        says += f"; {limit}"
    if tools.imports_itself(nsys) or tools.importer_of(nsys):
        return says
    inside = (
        "; a copy inside Nsight Compute, which" if "nsight-compute" in nsys.path else ", but it"
    )
    return f"{says}{inside} cannot turn a recording into a report"


def _importer() -> Iterable[Check]:
    found = tools.find("QdstrmImporter")
    path = found[0].path if found else None
    says = (
        "turns .qdstrm, what nsys leaves when it cannot finish, into a report: "
        "QdstrmImporter -i RUN.qdstrm -o RUN.nsys-rep"
        if path
        else "Without it a .qdstrm file stays one; it is in the host folder of Nsight Systems."
    )
    yield Check("QdstrmImporter", path is not None, says, found[0].version if found else None, path)


def _ncu() -> Iterable[Check]:
    found = tools.find("ncu")
    if not found:
        yield Check("ncu", found=False, says="Measuring inside kernels (Nsight Compute) needs it.")
    elif found[0].version:
        yield Check("ncu", True, "measures inside kernels", found[0].version, found[0].path)
    else:
        says = f"is there, but {found[0].broken}"
        yield Check("ncu", found=False, says=says, path=found[0].path)


def _gpus() -> Iterable[Check]:
    found = tools.paths_of("nvidia-smi")
    if not found:
        says = "no nvidia-smi: recordings can be read here, but none made of a GPU."
        yield Check("GPU", found=False, says=says)
        return
    query = f"--query-gpu={','.join(_SMI)}"
    answer = tools.ask(found[0], query, "--format=csv,noheader,nounits")
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.text.splitlines()]
    gpus = [row for row in rows if len(row) == len(_SMI) and row[0].isdigit()]
    if answer.failure or not gpus:
        yield Check("GPU", found=False, says=f"is there, but {answer.why}", path=found[0])
        return
    for index, name, memory, driver in gpus:
        size = f", {int(memory) / 1024:.0f} GiB" if memory.isdigit() else ""
        says = f"{tools.plain(name)}{size}, driver {tools.plain(driver)}"
        yield Check(f"GPU {index}", found=True, says=says)


# The system


def _sampling() -> Iterable[Check]:
    text = tools.sampling_level()
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
    allowed = tools.may_read_counters()
    if allowed is None:
        return
    who = "ncu and nsys --gpu-metrics"
    says = f"{who} may read the GPU's counters" if allowed else f"{who} {tools.COUNTERS_CLOSED}"
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


COMMAND = doctor

"""Nsight Compute: what single kernels do inside, by replaying each many times."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

from tracelens import tools
from tracelens.capture.recorder import Made, Recorder, Session
from tracelens.capture.recorders import _said
from tracelens.capture.recorders._windows import CudaBounded
from tracelens.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tracelens.capture.recorder import Wanted

REPORT: Final = "ncu.ncu-rep"
TABLE: Final = "ncu.csv"
MESSAGES: Final = "ncu-messages.log"
LAUNCHES: Final = 100
"""Kernel launches that are measured unless the option says otherwise."""
PATIENCE_S: Final = 300.0
"""How long making the table of a report may take."""

_SETS: Final = ("full", "roofline", "basic")
_NAMES_BEFORE: Final = {"basic": "default"}
"""What sets were called in older versions."""
_SECTIONS: Final[Mapping[str, Sequence[str]]] = {
    "roofline": ("SpeedOfLight", "SpeedOfLight_RooflineChart")
}
"""What to ask for where a version does not have a set."""
_GET: Final = (
    "Install Nsight Compute (developer.nvidia.com/nsight-compute; the CUDA toolkit has it)"
)
_CLOCKS: Final = (
    "GPU clocks were left as they are (--clock-control none), so times of kernels vary with what "
    "the GPU clocks itself at. Counts (bytes, FLOPs) and shares of the peak do not; to compare "
    "times, use the timer's or nsys's."
)
_MEANINGS: Final = {
    "ERR_NVGPUCTRPERM": f"the GPU's counters {tools.COUNTERS_CLOSED}",
    "driver resource was unavailable": "another program is using the GPU's counters; if it is "
    "DCGM: dcgmi profile --pause",
    "InterprocessLock": "its lock file belongs to another user: set TMPDIR to a folder of yours",
    "Profiling is not supported": "this GPU is not one that this ncu knows: take a newer ncu",
    "No space left on device": "the disk is full",
}


class Ncu(Recorder):
    """Runs the program under `ncu`, and makes a table of its report."""

    name = "ncu"
    options: Mapping[str, str] = {
        "basic": "Time, launch, occupancy and throughput of each kernel (default). About 10 "
        "replays of each.",
        "roofline": "Operations, bytes and ceilings of each kernel. Dozens of replays of each.",
        "full": "All that ncu can measure. 40 replays of each kernel and more.",
        "kernel": "kernel=REGEX: only kernels in whose whole name this is found, as tracelens "
        "summarize --table kernels prints them. (No commas.)",
        "launches": f"launches=N: measure at most N launches, {LAUNCHES} unless given.",
        "skip": "skip=N: leave out the first N launches of these kernels.",
        "range": "range=NAME: only kernels that are launched within the NVTX range; before ncu "
        "2024 by the same thread alone, which autograd's are not.",
        "replay": "replay=application: run the whole program again for each set of counters, "
        "instead of each kernel. For kernels that wait for the host or for one another.",
        "warm-cache": "Do not flush the GPU's caches before each replay.",
    }

    def unusable(self, wanted: Wanted) -> str | None:
        """Return why ncu cannot measure this here."""
        if wanted.device == "cpu":
            return "it measures kernels on an NVIDIA GPU, and this runs on the CPU."
        found = tools.working("ncu")
        if not found:
            broken = next((f" ({one.path} {one.broken})" for one in tools.find("ncu")), "")
            return f"ncu was not found{broken}: neither on PATH, nor with CUDA. {_GET}."
        if tools.may_read_counters() is False:
            return f"the GPU's counters {tools.COUNTERS_CLOSED}."
        return _fault(wanted)

    def command(self, program: Sequence[str], wanted: Wanted) -> list[str]:
        """Return `ncu` with the flags that its version knows, and the program."""
        if why_not := self.unusable(wanted):
            raise CaptureError(why_not)
        ncu = tools.working("ncu")[0]
        folder = str(wanted.folder).replace("%", "%%")
        return [
            ncu.path,
            *flags(ncu, wanted),
            *("--log-file", f"{folder}/logs/{MESSAGES}"),
            *("--force-overwrite", "--export", f"{folder}/{REPORT.removesuffix('.ncu-rep')}"),
            *program,
        ]

    def environment(self, wanted: Wanted) -> dict[str, str]:
        """Remove what an earlier pass has left."""
        if wanted.folder.is_dir():
            (wanted.folder / "logs").mkdir(exist_ok=True)
            for stale in (REPORT, f"logs/{MESSAGES}"):
                (wanted.folder / stale).unlink(missing_ok=True)
        return {}

    def files(self, wanted: Wanted) -> list[str]:  # noqa: ARG002 (always the same)
        """Return the report and its table."""
        return [REPORT, TABLE]

    def session(self, wanted: Wanted, rank: int | None) -> Session:  # noqa: ARG002 (all ranks do the same)
        """Return what opens and closes ncu's window in the recorded process."""
        return Session() if wanted.steps is None else CudaBounded(wanted)

    def finish(self, wanted: Wanted, say: Callable[[str], None]) -> list[Made]:
        """Make a table of ncu's report, and say what its numbers mean."""
        text = _said.text_of(wanted.folder / "logs" / MESSAGES)
        text += _said.text_of(_said.log(wanted.folder, self.name))
        report = wanted.folder / REPORT
        if not report.is_file() or not report.stat().st_size:
            raise CaptureError(f"ncu measured nothing: {_why_nothing(text, wanted)}.")
        if errors := [line for line in text.splitlines() if line.startswith("==ERROR==")]:
            known = _said.meaning(text, _MEANINGS)
            say(f"Not all went well: {known or tools.plain(errors[0].removeprefix('==ERROR=='))}.")
        kernels = _table(report, wanted.folder / TABLE)
        say(f"{kernels} kernel launches were measured. {_CLOCKS}")
        if kernels >= _launches(wanted):
            say(f"That is as many as were asked for; launches={10 * kernels} measures more.")
        return [Made(TABLE, is_recording=False), Made(REPORT, is_recording=False)]


def flags(ncu: tools.Tool, wanted: Wanted) -> list[str]:
    """Return the flags of `ncu` that this version knows, without the names of its files."""
    options = wanted.options
    found = ["--target-processes", "all", "--clock-control", "none"]
    found += _measured(ncu, wanted)
    found += ["--replay-mode", "application"] if options.get("replay") == "application" else []
    found += ["--cache-control", "none"] if wanted.is_on("warm-cache") else []
    found += ["--profile-from-start", "off"] if wanted.steps is not None else []
    if kernel := options.get("kernel"):
        found += ["--kernel-name-base", "demangled"]
        is_new = _knows(ncu, "--kernel-name")
        found += ["--kernel-name", f"regex:{kernel}"] if is_new else ["--kernel-regex", str(kernel)]
    if name := options.get("range"):
        found += ["--nvtx", "--nvtx-include", f"{name}/"]  # the slash: it was pushed, and is popped
        found += (
            ["--nvtx-push-pop-scope", "process"] if _knows(ncu, "--nvtx-push-pop-scope") else []
        )
    found += ["--launch-skip", str(options["skip"])] if options.get("skip") else []
    return [*found, "--launch-count", str(_launches(wanted))]


def _measured(ncu: tools.Tool, wanted: Wanted) -> list[str]:
    """Return the set of counters, by the name that this version has for it, or its sections."""
    name = next((one for one in _SETS if wanted.is_on(one)), "basic")
    before = _NAMES_BEFORE.get(name, name)
    listed = tools.ask(ncu.path, "--list-sets").text
    there = {"default", *_SETS} & set(re.findall(r"^(\w+) ", listed, re.MULTILINE))
    if name in there or not there:
        return ["--set", name]
    if before in there:
        return ["--set", before]
    return [part for section in _SECTIONS.get(name, ()) for part in ("--section", section)]


def _launches(wanted: Wanted) -> int:
    return int(wanted.options.get("launches", LAUNCHES))


def _knows(ncu: tools.Tool, flag: str) -> bool:
    """Tell whether `ncu --help` names a flag; one that does not answer is taken to be new."""
    text = tools.help_of(ncu.path)
    return not text or re.search(rf"{flag}(?![\w-])", text) is not None


def _fault(wanted: Wanted) -> str | None:
    """Return what is wrong with the options."""
    for name in ("launches", "skip"):
        value = str(wanted.options.get(name, "1"))
        if not (value.isdigit() and int(value) > 0):
            return f"{name} is a number of launches, as in {name}=20."
    for name in ("kernel", "range"):
        if wanted.options.get(name) is True:
            return f"{name} needs a value, as in {name}=gemm."
    if wanted.options.get("replay", "kernel") not in ("kernel", "application"):
        return "replay is kernel or application."
    if (kernel := wanted.options.get("kernel")) is not None:
        try:
            re.compile(str(kernel))
        except re.error as error:
            return f"kernel={kernel} is no regular expression: {error}."
    if (wanted.processes or 1) > 1 and kernel is None:
        return (
            "it replays one kernel while the other processes wait, and a collective would wait for "
            "them for ever. Name kernels that are none, as in ncu:kernel=gemm."
        )
    return None


def _why_nothing(text: str, wanted: Wanted) -> str:
    if known := _said.meaning(text, _MEANINGS):
        return known
    if "No kernels were profiled" in text:
        return f"no kernel was launched {_where(wanted)}"
    errors = [line for line in text.splitlines() if line.startswith("==ERROR==")]
    if errors:
        return tools.plain(errors[0].removeprefix("==ERROR==")).rstrip(".")
    return f"see logs/{MESSAGES} and logs/ncu.log"


def _where(wanted: Wanted) -> str:
    """Return which kernels were looked for."""
    options = wanted.options
    parts = ["in the recorded steps" if wanted.steps is not None else "by the program"]
    if "range" in options:
        parts.append(f"within a range {options['range']!r}")
    if "kernel" in options:
        parts.append(f"with {options['kernel']!r} in its name")
    if "skip" in options:
        parts.append(f"after the first {options['skip']}")
    return ", ".join(parts)


def _table(report: Path, table: Path) -> int:
    """Write the values of a report, a row per launch, in base units; return how many there are.

    The first row has the names of the columns, the second their units.

    Raises:
        CaptureError: ncu gave none; the report is kept.
    """
    raw, half = (table.with_name(f"{part}.{table.name}") for part in ("raw", "half"))
    how = ["--page", "raw", "--csv", "--print-units", "base"]
    ncu = tools.working("ncu")
    try:
        if not ncu:
            raise CaptureError(f"{report.name} is kept, but ncu is gone, which makes {table.name}.")
        command = [ncu[0].path, "--import", str(report), *how]
        answer = tools.ask(*command, patience_s=PATIENCE_S, into=raw)
        rows = _without_messages(raw, half)
        if answer.failure or rows < 1:
            raise CaptureError(
                f"{report.name} is kept, but ncu gave no table of it: "
                f"{_said.reason(answer, _MEANINGS)}. By hand: "
                f"ncu --import {report.name} {' '.join(how)} > {table.name}"
            )
        half.replace(table)
    except OSError as error:
        why = error.strerror or error
        raise CaptureError(f"{report.name} is kept, but not {table.name}: {why}.") from error
    finally:
        for part in (raw, half):
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    return rows


def _without_messages(raw: Path, clean: Path) -> int:
    """Copy a table without the lines that ncu says before it; return how many launches it has."""
    import csv

    if not raw.is_file():
        return 0
    with raw.open(encoding="utf-8", errors="replace", newline="") as source:
        lines = iter(source)
        head = next((line for line in lines if line.startswith('"ID",')), "")
        with clean.open("w", encoding="utf-8", newline="") as copy:
            copy.write(head)
            copy.writelines(lines)
    with clean.open(encoding="utf-8", newline="") as copied:
        rows = list(csv.reader(copied))
    whole = [row for row in rows if len(row) == len(rows[0]) and row[0].isdigit()]
    return len(whole) if len(whole) == len(rows) - 2 else 0


RECORDER = Ncu()

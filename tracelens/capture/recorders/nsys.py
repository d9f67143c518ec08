"""Nsight Systems: kernels, copies, CUDA calls and NVTX ranges, at little cost."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracelens import tools
from tracelens.capture.recorder import Made, Recorder, Session
from tracelens.capture.recorders import _reports as reports
from tracelens.capture.recorders import _said, _scratch
from tracelens.capture.recorders._reports import EXPORT, REPORT, STREAM
from tracelens.capture.recorders._windows import RANGE, Bounded, CudaBounded, NvtxBounded
from tracelens.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracelens.capture.recorder import Wanted

_GET: Final = (
    "Install Nsight Systems (developer.nvidia.com/nsight-systems; the CUDA toolkit has it; Debian: "
    "apt install nsight-systems), or record with --with torch"
)
_CUDA_NEEDS: Final = {12: (2023, 1)}
"""CUDA -> the first nsys that can import captures of its programs (2022.4 cannot: tried)."""
_REFUSALS: Final = {
    "ERR_NVGPUCTRPERM": f"GPU metrics {tools.COUNTERS_CLOSED}",
    "No space left on device": "the disk is full",
    "Agent launcher failed": "it could not start; is TMPDIR a short path that can be written to?",
}


@dataclass(frozen=True)
class Choice:
    """The nsys that records, and what makes its recording a report.

    Attributes:
        nsys: the program.
        importer: QdstrmImporter, for an nsys that cannot import; None if it can, or there is none.
        why_not: why it cannot be used for what is wanted; empty if it can.
    """

    nsys: tools.Tool
    importer: tools.Tool | None = None
    why_not: str = ""


class Nsys(Recorder):
    """Runs the program under `nsys profile`, and exports the report."""

    name = "nsys"
    options: Mapping[str, str] = {
        "graph-nodes": "Trace every kernel within CUDA graphs, not each graph as a whole. Each "
        "node costs a record, so graphs run slower: compare with the timer's steps.",
        "memory-usage": "Record every allocation of device memory by the driver (torch's caching "
        "allocator makes few). Slows down programs that allocate often.",
        "gpu-metrics": "Sample the GPU's counters, 10,000 times a second or gpu-metrics=HZ. Needs "
        "permission to read them; adds some 40 MB per GPU and minute.",
        "libraries": "Trace cuBLAS and cuDNN calls, too: one more record per call.",
        "backtrace": "Call stacks of CUDA calls longer than 80 µs, Python's with nsys 2023.3 and "
        "later. Slows launches down.",
        "elsewhere": "Record although nothing here can import the recording; run.qdstrm is kept, "
        "to be imported on another machine.",
    }

    def unusable(self, wanted: Wanted) -> str | None:
        """Return why nsys cannot record this here."""
        choice, why_not = choose(wanted)
        if choice is None:
            return f"{why_not}. {_GET}."
        if wanted.device == "cpu":
            of_gpus = next((one for one in self.options if wanted.is_on(one)), "elsewhere")
            return None if of_gpus == "elsewhere" else f"{of_gpus} needs a GPU; leave it out."
        if wanted.is_on("gpu-metrics") and tools.may_read_counters() is False:
            return f"GPU metrics {tools.COUNTERS_CLOSED}. Or leave gpu-metrics out."
        level = tools.sampling_level() or "0"
        if wanted.is_on("backtrace") and level.isdigit() and int(level) > 2:
            return (
                "backtrace needs CPU sampling, which the kernel forbids (perf_event_paranoid is "
                f"{level}): sysctl kernel.perf_event_paranoid=2. Or leave backtrace out."
            )
        return None

    def command(self, program: Sequence[str], wanted: Wanted) -> list[str]:
        """Return `nsys profile` with the flags that its version knows, and the program."""
        choice, why_not = choose(wanted)
        if choice is None:
            raise CaptureError(f"{why_not}. {_GET}.")
        out = str(wanted.folder / Path(EXPORT).stem).replace("%", "%%")
        return [
            choice.nsys.path,
            "profile",
            *flags(choice.nsys, wanted),
            f"--output={out}",
            *_with_own_tmpdir(program),
        ]

    def environment(self, wanted: Wanted) -> dict[str, str]:
        """Make a place for nsys's own files; its sockets and locks are not shared with others'."""
        made = {}
        if wanted.device == "cpu" and wanted.steps is not None:
            made["NSYS_NVTX_PROFILER_REGISTER_ONLY"] = "0"  # any string names the window
        if wanted.folder.is_dir():
            for stale in (REPORT, STREAM):
                (wanted.folder / stale).unlink(missing_ok=True)
            if os.name == "posix":
                made["TMPDIR"] = str(_scratch.make(wanted.folder))
        return made

    def files(self, wanted: Wanted) -> list[str]:
        """Return the report and its export."""
        choice, _ = choose(wanted)
        is_whole = choice is None or choice.importer or tools.imports_itself(choice.nsys)
        return [REPORT, EXPORT] if is_whole else [STREAM]

    def session(self, wanted: Wanted, rank: int | None) -> Session:  # noqa: ARG002 (all ranks do the same)
        """Return what opens and closes nsys's window in the recorded process."""
        if wanted.steps is None:
            return Bounded(wanted)
        return CudaBounded(wanted) if wanted.device == "cuda" else NvtxBounded(wanted)

    def finish(self, wanted: Wanted, say: Callable[[str], None]) -> list[Made]:
        """Import and export what nsys has left, and look whether the export is whole."""
        scratch = _scratch.find(wanted.folder)
        if scratch and _scratch.end_strays(scratch):
            say("nsys was ended before it had finished; what it had started was ended, too.")
        stream = reports.stream_in([wanted.folder, *filter(None, [scratch])])
        try:
            made = _finished(wanted, stream, say)
        except CaptureError:
            if scratch is None or stream is None or scratch not in stream.parents:
                _scratch.forget(wanted.folder)
            raise
        _scratch.forget(wanted.folder)
        return made


def choose(wanted: Wanted) -> tuple[Choice | None, str]:
    """Return the newest nsys that can be used for what is wanted, or why there is none."""
    found = tools.find("nsys")
    works = sorted((one for one in found if one.version), key=lambda one: one.number, reverse=True)
    choices = [_judged(one, wanted) for one in works]
    usable = next((one for one in choices if not one.why_not), None)
    if usable:
        return usable, ""
    if choices:
        return None, choices[0].why_not
    if found:
        return None, f"nsys is there, but {found[0].broken} [{found[0].path}]"
    return None, "nsys was not found: neither on PATH, nor with CUDA, nor in /opt/nvidia"


def flags(nsys: tools.Tool, wanted: Wanted) -> list[str]:
    """Return the flags of `nsys profile` that this version knows, without the output's name."""
    on_gpu = wanted.device == "cuda"
    traced = ["cuda", "nvtx", "osrt"] if on_gpu else ["nvtx", "osrt"]
    if on_gpu and wanted.is_on("libraries"):
        traced += ["cublas", "cudnn"]
    stacks = wanted.is_on("backtrace")
    found = [
        f"--trace={','.join(traced)}",
        "--sample=process-tree" if stacks else "--sample=none",
        "--cpuctxsw=none",
        "--force-overwrite=true",
    ]
    if _knows(nsys, "--wait"):
        found.append("--wait=primary")  # a service that outlives the program holds nothing up
    found += _window(nsys, wanted)
    if on_gpu:
        found += _cuda_flags(nsys, wanted)
        if stacks:
            found.append("--cudabacktrace=all")
            found += ["--python-backtrace=cuda"] if _knows(nsys, "--python-backtrace") else []
    return found


def _window(nsys: tools.Tool, wanted: Wanted) -> list[str]:
    if wanted.steps is None:
        return []
    range_ = (
        ["--capture-range=nvtx", f"--nvtx-capture={RANGE}@*"]
        if wanted.device == "cpu"
        else ["--capture-range=cudaProfilerApi"]
    )
    if _knows(nsys, "--capture-range-end"):
        return [*range_, "--capture-range-end=stop"]
    return [*range_, "--stop-on-range-end=true", "--kill=none"]  # as it was in 2021


def _cuda_flags(nsys: tools.Tool, wanted: Wanted) -> list[str]:
    found = []
    if wanted.is_on("graph-nodes") and _knows(nsys, "--cuda-graph-trace"):
        found.append("--cuda-graph-trace=node")  # older ones know nothing else
    if wanted.is_on("memory-usage"):
        found.append("--cuda-memory-usage=true")
    if wanted.is_on("gpu-metrics"):
        is_new = _knows(nsys, "--gpu-metrics-devices")
        which = "cuda-visible" if "cuda-visible" in _help(nsys) else "all"
        found.append(f"--gpu-metrics-device{'s' if is_new else ''}={which}")
        rate = str(wanted.options["gpu-metrics"])
        found += [f"--gpu-metrics-frequency={rate}"] if rate.isdigit() and int(rate) > 1 else []
    return found


def _knows(nsys: tools.Tool, flag: str) -> bool:
    """Tell whether `nsys profile --help` names a flag."""
    return f"{flag}=" in _help(nsys) or f"{flag} " in _help(nsys)


def _help(nsys: tools.Tool) -> str:
    return tools.help_of(nsys.path, "profile")


def _judged(nsys: tools.Tool, wanted: Wanted) -> Choice:
    name = f"nsys {nsys.version} [{nsys.path}]"
    if why_not := _too_old(nsys, wanted):
        return Choice(nsys, None, f"{name} {why_not}")
    if tools.imports_itself(nsys):
        return Choice(nsys)
    importer = tools.importer_of(nsys)
    if importer or wanted.is_on("elsewhere"):
        return Choice(nsys, importer)
    inside = "the copy inside Nsight Compute" if "nsight-compute" in nsys.path else "no whole one"
    why_not = (
        f"{name} is {inside}: it records, but nothing here can import the recording, which takes "
        f"the QdstrmImporter of version {_version3(nsys)} (nsys:elsewhere keeps it to be imported "
        "on another machine)"
    )
    return Choice(nsys, None, why_not)


def _too_old(nsys: tools.Tool, wanted: Wanted) -> str:
    cuda = tools.torch_cuda() if wanted.device == "cuda" else None
    major = int(cuda.split(".")[0]) if cuda else 0
    for since, needs in _CUDA_NEEDS.items():
        if major >= since and nsys.number < needs:
            return (
                f"cannot import what it records of CUDA {cuda}, which torch is built for here: "
                f"that takes {'.'.join(map(str, needs))} or later"
            )
    return ""


def _version3(nsys: tools.Tool) -> str:
    return ".".join(map(str, nsys.number[:3]))


def _with_own_tmpdir(program: Sequence[str]) -> list[str]:
    """Give the program back the TMPDIR that nsys runs without: torch keeps compiled code there."""
    if os.name != "posix" or not (env := shutil.which("env")):
        return list(program)
    mine = os.environ.get("TMPDIR")
    return [env, *([f"TMPDIR={mine}"] if mine else ["-u", "TMPDIR"]), *program]


# What nsys has left


def _finished(wanted: Wanted, stream: Path | None, say: Callable[[str], None]) -> list[Made]:
    choice, why_not = choose(wanted)
    report = wanted.folder / REPORT
    if not reports.is_there(report):
        if stream is None:
            raise CaptureError(_nothing(wanted))
        if choice is None:
            raise CaptureError(f"{stream} is kept, but cannot be imported: {why_not}.")
        importer = choice.importer or tools.importer_of(choice.nsys)
        if importer is None:
            return _for_elsewhere(wanted, choice.nsys, stream, say)
        reports.import_(stream, importer, wanted.folder)
    exporter = reports.export(report, _exporters(choice), has_steps=wanted.steps is not None)
    if stream:
        stream.unlink(missing_ok=True)
    say(f"{EXPORT} is nsys's own ({exporter.version}).")
    if wanted.device == "cpu":
        say(
            "Without a GPU it holds ranges and calls of the system; --with torch records operators."
        )
    if wanted.is_on("graph-nodes"):
        say("Every node of CUDA graphs was traced, which slows them down.")
    return [Made(EXPORT), Made(REPORT, is_recording=False)]


def _exporters(choice: Choice | None) -> list[tools.Tool]:
    """Return the nsys that recorded, and those that are newer."""
    there = tools.working("nsys")
    if choice is None:
        return there
    return [choice.nsys, *(one for one in there if one.number > choice.nsys.number)]


def _for_elsewhere(
    wanted: Wanted, nsys: tools.Tool, stream: Path, say: Callable[[str], None]
) -> list[Made]:
    text = (
        f"{stream.name} is kept; what imports it is not here. Where Nsight Systems "
        f"{_version3(nsys)} is: {reports.by_hand(stream)}"
    )
    if not wanted.is_on("elsewhere"):
        raise CaptureError(text)
    say(text)
    return [Made(STREAM, is_recording=False)]


def _nothing(wanted: Wanted) -> str:
    """Return why nsys may have left no recording at all."""
    log = _said.log(wanted.folder, "nsys")
    text = _said.text_of(log)
    if known := _said.meaning(text, _REFUSALS):
        return f"nsys recorded nothing: {known}."
    if wanted.steps is not None and "Generated:" in text and "range started" not in text:
        first = f"the program ended before step {wanted.warmup}, the first recorded"
        hint = " Mark its steps by tracelens.step(), or record all of it with --whole."
        return f"nsys recorded nothing: {first}.{hint if wanted.processes is None else ''}"
    said = next((line for line in text.splitlines() if line.startswith(_REFUSED)), "")
    why = tools.plain(said) or f"see {log.relative_to(wanted.folder)}"
    return f"nsys recorded nothing: {why}."


_REFUSED: Final = ("unrecognised option", "Illegal ", "No such file or directory")


RECORDER = Nsys()

"""A machine of fake profilers: programs that take the flags of a version, and fail on demand."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.build import Nsys

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE: Final = "opt/nvidia/nsight-systems"
INSIDE: Final = "opt/nvidia/nsight-compute/2025.3.1/host/target-linux-x64/nsys"
FLAGS: Final = (
    "--trace", "--sample", "--cpuctxsw", "--output", "--force-overwrite", "--capture-range",
    "--nvtx-capture", "--kill", "--cudabacktrace", "--cuda-memory-usage", "--gpu-metrics-frequency",
)  # fmt: skip
"""Flags of `nsys profile` in every version that is looked at."""

_NSYS = """
import os, pathlib, subprocess, sys, time
args = sys.argv[1:]
if args[:1] == ["--version"]:
    print({says!r})
elif args[-1] == "--help":
    print("\\n".join("\\t-x, %s=\\n\\n\\t   Possible values" % flag for flag in {flags!r}))
    print({values!r})
elif args[0] == "profile":
    given = [a for a in args[1:] if a.startswith("--")]
    unknown = [a for a in given if a.partition("=")[0] not in {flags!r}]
    if unknown:
        sys.exit("unrecognised option '%s'" % unknown[0])
    out = next(a.partition("=")[2] for a in given if a.startswith("--output=")).replace("%%", "%")
    status = subprocess.run(args[1 + len(given):]).returncode
    print("Generated:")
    if {leaves!r}:
        pathlib.Path(out + {leaves!r}).write_bytes(b"recorded by " + {says!r}.encode())
    sys.exit(status)
elif args[0] == "export":
    out = next(a.partition("=")[2] for a in args if a.startswith("--output="))
    {export}
"""
_IMPORTER = """
import pathlib, sys, time
if sys.argv[1] == "--version":
    print({says!r})
else:
    source, out = (pathlib.Path(sys.argv[sys.argv.index(flag) + 1]) for flag in ("-i", "-o"))
    {does}
"""
_NCU = """
import pathlib, subprocess, sys, time
args = sys.argv[1:]
valued = {valued!r}
if args == ["--version"]:
    print("NVIDIA (R) Nsight Compute Command Line Profiler")
    print("Copyright (c) 2018-2025 NVIDIA Corporation")
    print("Version {version} (build 1) (public-release)")
elif args == ["--help"]:
    print("\\n".join("  %s arg   What it does." % flag for flag in valued))
elif args == ["--list-sets"]:
    print("Identifier Sections    Enabled Estimated Metrics")
    print("\\n".join("%-10s LaunchStats yes 9" % name for name in {sets!r}))
elif args[0] == "--import":
    {table}
else:
    given = dict()
    while args and args[0].startswith("--"):
        flag = args.pop(0)
        if flag in ("--force-overwrite", "--nvtx"):
            continue
        if flag not in valued:
            sys.exit("==ERROR== unrecognised option '%s'" % flag)
        given[flag] = args.pop(0)
    log = pathlib.Path(given["--log-file"].replace("%%", "%"))
    log.write_text("==PROF== Connected to process 1\\n" + {says!r} + "\\n")
    status = subprocess.run(args).returncode
    if {leaves!r}:
        pathlib.Path(given["--export"].replace("%%", "%") + ".ncu-rep").write_bytes(b"measured")
    sys.exit(status)
"""
NCU_FLAGS: Final = (
    "--target-processes", "--clock-control", "--set", "--section", "--replay-mode",
    "--cache-control", "--profile-from-start", "--kernel-name-base", "--nvtx-include",
    "--launch-skip", "--launch-count", "--log-file", "--export",
)  # fmt: skip
"""Flags of `ncu` with a value in every version that is looked at."""
CSV: Final = (
    '"ID","Process ID","Kernel Name","gpu__time_duration.sum"\n"","","","ns"\n'
    '"0","7","gemm<float, 4>(int)","1,024"\n"1","7","gelu","512"\n'
)
IMPORTS: Final = "out.write_bytes(source.read_bytes())"


@dataclass
class Machine:
    """Folders below a root, with what is installed in them.

    Attributes:
        root: takes the place of `/`.
        export: a whole export, which fakes hand out.
    """

    root: Path
    export: Path

    @classmethod
    def at(cls, root: Path) -> Machine:
        """Make one with a PATH of one folder, `bin`."""
        (root / "bin").mkdir(parents=True)
        trace = Nsys()
        main = trace.thread("python").push("step", 0, 100)
        main.kernel("gemm", run=(10, 20), at=5)
        return cls(root, trace.write(root / "whole.sqlite"))

    def program(self, path: str, body: str) -> Path:
        """Install a Python program."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!{sys.executable} -IS\n{body}\n", encoding="utf-8")
        file.chmod(0o755)
        return file

    def whole_export(self) -> str:
        """Return the code of an export that is whole."""
        return f"pathlib.Path(out).write_bytes(pathlib.Path({str(self.export)!r}).read_bytes())"

    def nsys(
        self,
        version: str,
        path: str = "bin/nsys",
        *,
        leaves: str = ".nsys-rep",
        export: str | None = None,
        knows: tuple[str, ...] = (),
        values: str = "",
    ) -> Path:
        """Install an nsys that knows some flags besides `FLAGS`."""
        says = f"NVIDIA Nsight Systems version {version}-0a1b2c3d"
        body = _NSYS.format(
            says=says,
            flags=(*FLAGS, *knows),
            values=values,
            leaves=leaves,
            export=self.whole_export() if export is None else export,
        )
        return self.program(path, body)

    def ncu(
        self,
        version: str,
        path: str = "bin/ncu",
        *,
        knows: tuple[str, ...] = ("--kernel-name",),
        sets: tuple[str, ...] = ("basic", "detailed", "full", "roofline"),
        says: str = "",
        leaves: bool = True,
        table: str = f"print({CSV!r}, end='')",
    ) -> Path:
        """Install an ncu that knows some flags besides `NCU_FLAGS`."""
        valued = (*NCU_FLAGS, *knows)
        body = _NCU.format(
            version=version, valued=valued, sets=sets, says=says, leaves=leaves, table=table
        )
        return self.program(path, body)

    def importer(self, version: str, path: str, does: str = IMPORTS) -> Path:
        """Install a QdstrmImporter."""
        says = f"NVIDIA Nsight Systems {version}-0a1b2c3d"
        return self.program(path, _IMPORTER.format(says=says, does=does))

    def package(self, version: str, **options: object) -> Path:
        """Install a whole Nsight Systems, which imports by itself."""
        self.importer(version, f"{PACKAGE}/{version}/host-linux-x64/QdstrmImporter")
        path = f"{PACKAGE}/{version}/target-linux-x64/nsys"
        return self.nsys(version, path, **options)  # type: ignore[arg-type]

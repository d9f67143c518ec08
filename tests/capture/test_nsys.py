"""The nsys recorder: a real nsys on a program without a GPU, and fake ones of every version."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import linked, table
from tests.capture.fake_tools import INSIDE, PACKAGE, Machine
from tracelens import tools
from tracelens.__main__ import run
from tracelens.capture.recorder import Wanted
from tracelens.capture.recorders import _reports, _scratch
from tracelens.capture.recorders.nsys import RECORDER
from tracelens.errors import CaptureError
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.capture.recorder import Made

PROGRAM = """
import sys, threading, time
from pathlib import Path
import tracelens
from tracelens.capture.recorder import Wanted
from tracelens.capture.recorders.nsys import RECORDER
from tracelens.capture.window import Window

def layer():
    with tracelens.span("layer"):
        time.sleep(0.001)

steps = None if sys.argv[1] == "whole" else 2
wanted = Wanted(Path(sys.argv[2]), "cpu", warmup=1, steps=steps)
session = RECORDER.session(wanted, None)
window = Window(session, wanted)
session.open()
for step in range(int(sys.argv[3])):
    window.begin_step()
    with tracelens.step():
        with tracelens.phase("forward"):
            layer()
        with tracelens.phase("backward"):
            thread = threading.Thread(target=layer)
            thread.start()
            thread.join()
    window.end_step()
    Path(sys.argv[2], "began").touch()
session.close(None)
"""


def begun(wanted: Wanted, folder: Path, *, steps: int) -> subprocess.Popen[str]:
    """Start the program under nsys, as a pass does."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    how = "whole" if wanted.steps is None else "window"
    command = [sys.executable, str(program), how, str(wanted.folder), str(steps)]
    logs = wanted.folder / "logs"
    logs.mkdir(parents=True)
    command = RECORDER.command(command, wanted)
    variables = {**os.environ, "TRACELENS_RECORDING": "nsys", **RECORDER.environment(wanted)}
    with (logs / "nsys.log").open("w") as log:
        return subprocess.Popen(
            command, env=variables, stdout=log, stderr=log, start_new_session=True, text=True
        )


def finished(wanted: Wanted) -> tuple[list[Made], list[str]]:
    """Return what the recorder makes of what is there, and what it says."""
    said: list[str] = []
    return RECORDER.finish(wanted, said.append), said


def ranges(export: Path) -> dict[str, int]:
    """Return how often each range was opened."""
    return {row["name"]: row["instances"] for row in table(linked(export), "ranges")}


def started_by(scratch: Path) -> list[str]:
    """Return the command lines of processes that work in nsys's own folder."""
    pids = _scratch._started_with(scratch)
    return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in pids]


@pytest.fixture(scope="module")
def recorded(nsys: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Wanted, Any]:
    """Record two of five steps with the real nsys, into a folder whose name is hard to take."""
    folder = tmp_path_factory.mktemp("real")
    wanted = Wanted(folder / "a run of 100%p", "cpu", warmup=1, steps=2)
    if RECORDER.unusable(wanted):
        pytest.skip("nsys is here without its QdstrmImporter")
    process = begun(wanted, folder, steps=5)
    assert process.wait(100) == 0, (wanted.folder / "logs" / "nsys.log").read_text()
    return wanted, finished(wanted)


@pytest.mark.nsys
def test_the_real_nsys_records_the_wanted_steps_and_no_other(recorded: tuple[Wanted, Any]) -> None:
    wanted, (made, said) = recorded

    assert [(file.path, file.is_recording) for file in made] == [
        ("run.sqlite", True), ("run.nsys-rep", False),
    ]  # fmt: skip
    found = ranges(wanted.folder / "run.sqlite")
    assert found.pop("tracelens-window") == 1
    assert found == {"step": 2, "forward": 2, "backward": 2, "layer": 4}
    assert any("nsys's own" in line for line in said)
    assert (wanted.folder / "began").stat().st_mode & 0o777 == 0o644  # not nsys's umask of 0


@pytest.mark.nsys
def test_an_export_of_the_real_nsys_can_be_summarized(
    recorded: tuple[Wanted, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, _ = recorded

    assert run(["summarize", str(wanted.folder / "run.sqlite"), "--table", "ranges"]) == 0
    assert "backward" in capsys.readouterr().out


@pytest.mark.nsys
def test_nothing_is_left_of_nsys_but_the_report_and_its_export(
    recorded: tuple[Wanted, Any],
) -> None:
    wanted, _ = recorded

    names = sorted(file.name for file in wanted.folder.iterdir())
    assert names == ["began", "logs", "passes", "run.nsys-rep", "run.sqlite"]
    assert not any((wanted.folder / "passes").iterdir())


@pytest.mark.nsys
@pytest.mark.parametrize("which", ["SIGINT", "SIGKILL"])
def test_a_real_nsys_that_is_stopped_leaves_what_it_has_and_nothing_that_runs(
    nsys: str, tmp_path: Path, which: str
) -> None:
    wanted = Wanted(tmp_path / "run", "cpu", warmup=0, steps=None)
    process = begun(wanted, tmp_path, steps=100_000)
    scratch = _scratch.find(wanted.folder)
    assert scratch is not None
    while not (wanted.folder / "began").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    assert any("program.py" in command for command in started_by(scratch))

    os.killpg(process.pid, getattr(signal, which))
    process.wait(60)

    if which == "SIGINT":
        finished(wanted)
        assert ranges(wanted.folder / "run.sqlite")["step"] > 0
    else:
        with pytest.raises(CaptureError, match="nsys was ended before the recording was whole"):
            finished(wanted)
    assert not started_by(scratch)


# Fake ones


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine without profilers."""
    made = Machine.at(tmp_path / "root")
    monkeypatch.setattr(tools, "ROOT", made.root)
    monkeypatch.setattr(tools, "torch_cuda", lambda *_: "11.8")
    monkeypatch.setenv("PATH", str(made.root / "bin"))
    return made


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    folder = tmp_path / "a run, 50% done"
    (folder / "logs").mkdir(parents=True)
    return Wanted(folder, "cuda")


@pytest.fixture(autouse=True)
def _no_scratch_is_left() -> Iterator[None]:
    place = Path(_scratch.tempfile.gettempdir())
    before = set(place.glob("tl-nsys-*"))
    yield
    for left in set(place.glob("tl-nsys-*")) - before:
        _scratch.shutil.rmtree(left)


def passed(wanted: Wanted, body: str = "pass") -> tuple[list[Made], list[str]]:
    """Run a pass of a small program, and finish it."""
    command = RECORDER.command([sys.executable, "-IS", "-c", body], wanted)
    variables = {**os.environ, **RECORDER.environment(wanted)}
    with (wanted.folder / "logs" / "nsys.log").open("w") as log:
        subprocess.run(command, env=variables, stdout=log, stderr=log, check=False)
    return finished(wanted)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.is_file())


NEW = ("--capture-range-end", "--cuda-graph-trace", "--wait")


@pytest.mark.parametrize(
    ("version", "knows", "window"),
    [
        ("2021.1.3", (), ["--stop-on-range-end=true", "--kill=none"]),
        ("2021.3.2", ("--wait",), ["--wait=primary", "--stop-on-range-end=true"]),
        ("2022.4.2", NEW, ["--wait=primary", "--capture-range-end=stop"]),
        ("2026.2.1", NEW, ["--wait=primary", "--capture-range-end=stop"]),
    ],
)
def test_a_window_is_asked_for_as_the_version_knows_it(
    machine: Machine, wanted: Wanted, version: str, knows: tuple[str, ...], window: list[str]
) -> None:
    machine.package(version, knows=(*knows, "--stop-on-range-end"))

    command = RECORDER.command(["python"], wanted)

    assert set(window) <= set(command)
    assert "--capture-range=cudaProfilerApi" in command
    assert "--trace=cuda,nvtx,osrt" in command
    assert "--sample=none" in command
    assert passed(wanted)[0][0].path == "run.sqlite"


VISIBLE = "'none', 'cuda-visible' or 'all'"


@pytest.mark.parametrize(
    ("options", "nsys", "flags"),
    [
        ({"graph-nodes": True}, {"knows": NEW}, ["--cuda-graph-trace=node"]),
        ({"graph-nodes": True}, {}, []),
        ({"graph-nodes": "off"}, {"knows": NEW}, []),
        ({"memory-usage": True}, {}, ["--cuda-memory-usage=true"]),
        ({"gpu-metrics": True}, {"knows": ["--gpu-metrics-device"]}, ["--gpu-metrics-device=all"]),
        (
            {"gpu-metrics": "200"},
            {"knows": ["--gpu-metrics-devices"], "values": VISIBLE},
            ["--gpu-metrics-devices=cuda-visible", "--gpu-metrics-frequency=200"],
        ),
        ({"backtrace": True}, {}, ["--sample=process-tree", "--cudabacktrace=all"]),
        ({"backtrace": True}, {"knows": ["--python-backtrace"]}, ["--python-backtrace=cuda"]),
        ({"libraries": True}, {}, ["--trace=cuda,nvtx,osrt,cublas,cudnn"]),
    ],
)
def test_options_become_the_flags_of_the_version(
    machine: Machine,
    wanted: Wanted,
    options: dict[str, Any],
    nsys: dict[str, Any],
    flags: list[str],
) -> None:
    known = {"knows": (*nsys.get("knows", ()), "--stop-on-range-end")}
    machine.package("2024.1.1", **{**nsys, **known})
    plain = set(RECORDER.command(["python"], wanted))

    asked = replace(wanted, options=options)

    assert RECORDER.unusable(asked) is None
    assert set(flags) <= set(RECORDER.command(["python"], asked))
    if not flags:
        assert set(RECORDER.command(["python"], asked)) == plain
    assert passed(asked)[0][0].path == "run.sqlite"


def test_without_a_gpu_the_window_is_a_range_and_cuda_is_not_traced(
    machine: Machine, wanted: Wanted
) -> None:
    machine.package("2023.2.1", knows=NEW)
    on_cpu = replace(wanted, device="cpu")

    command = RECORDER.command(["python"], on_cpu)

    assert {"--trace=nvtx,osrt", "--capture-range=nvtx"} <= set(command)
    assert "--nvtx-capture=tracelens-window@*" in command
    assert RECORDER.environment(on_cpu)["NSYS_NVTX_PROFILER_REGISTER_ONLY"] == "0"
    _scratch.forget(wanted.folder)


@pytest.mark.parametrize("option", ["graph-nodes", "gpu-metrics", "backtrace"])
def test_options_that_are_about_gpus_are_refused_without_one(
    machine: Machine, wanted: Wanted, option: str
) -> None:
    machine.package("2023.2.1", knows=NEW)
    on_cpu = replace(wanted, device="cpu", options={option: True})

    assert RECORDER.unusable(on_cpu) == f"{option} needs a GPU; leave it out."


def test_a_whole_program_has_no_window(machine: Machine, wanted: Wanted) -> None:
    machine.package("2023.2.1", knows=NEW)

    command = RECORDER.command(["python"], replace(wanted, steps=None))

    assert not any(flag.startswith("--capture-range") for flag in command)


def test_the_program_runs_in_the_tmpdir_that_it_would_have_without_nsys(
    machine: Machine, wanted: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.package("2023.2.1", knows=NEW)
    (machine.root / "bin" / "env").symlink_to("/usr/bin/env")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    mine = tmp_path / "mine"

    passed(wanted, f"import os; open({str(mine)!r}, 'w').write(os.environ['TMPDIR'])")

    assert mine.read_text() == str(tmp_path)


def test_the_newest_nsys_that_can_make_a_report_records(machine: Machine, wanted: Wanted) -> None:
    machine.nsys("2022.4.2")
    inside = machine.nsys("2025.3.1", INSIDE)
    package = machine.package("2023.4.4")

    assert RECORDER.command(["python"], wanted)[0] == str(package)

    machine.importer("2025.3.1", "bin/QdstrmImporter")
    assert RECORDER.command(["python"], wanted)[0] == str(inside)


def test_a_recording_is_imported_by_the_importer_of_the_same_version(
    machine: Machine, wanted: Wanted
) -> None:
    machine.nsys("2022.4.2.1", leaves=".qdstrm", knows=NEW)
    host = "usr/lib/nsight-systems/host-linux-x64/QdstrmImporter"
    machine.importer("2023.1.1", "bin/QdstrmImporter", "sys.exit('another version')")
    machine.importer("2022.4.2.1", host)

    made, _ = passed(wanted)

    assert [file.path for file in made] == ["run.sqlite", "run.nsys-rep"]
    assert names(wanted.folder) == ["run.nsys-rep", "run.sqlite"]


def test_no_nsys_at_all_says_what_to_install(machine: Machine, wanted: Wanted) -> None:
    why = RECORDER.unusable(wanted)

    assert why is not None
    assert "was not found" in why
    assert "apt install nsight-systems" in why
    assert "--with torch" in why
    with pytest.raises(CaptureError, match="was not found"):
        RECORDER.command(["python"], wanted)


def test_an_nsys_that_does_not_run_is_not_used(machine: Machine, wanted: Wanted) -> None:
    machine.program("bin/nsys", "import sys; sys.exit('libfoo.so is missing')")

    assert "libfoo.so is missing" in (RECORDER.unusable(wanted) or "")


def test_a_copy_without_importer_says_which_one_is_missing(
    machine: Machine, wanted: Wanted
) -> None:
    machine.nsys("2025.3.1.90", INSIDE, leaves=".qdstrm")

    why = RECORDER.unusable(wanted) or ""

    assert "inside Nsight Compute" in why
    assert "QdstrmImporter of version 2025.3.1" in why


def test_what_cannot_be_imported_here_is_kept_on_request_with_the_commands_for_elsewhere(
    machine: Machine, wanted: Wanted
) -> None:
    machine.nsys("2025.3.1.90", INSIDE, leaves=".qdstrm", knows=NEW)
    asked = replace(wanted, options={"elsewhere": True})

    assert RECORDER.unusable(asked) is None
    assert RECORDER.files(asked) == ["run.qdstrm"]
    made, said = passed(asked)

    assert [(file.path, file.is_recording) for file in made] == [("run.qdstrm", False)]
    assert "Nsight Systems 2025.3.1" in said[0]
    assert "QdstrmImporter -i run.qdstrm -o run.nsys-rep" in said[0]
    assert "nsys export --type sqlite -o run.sqlite run.nsys-rep" in said[0]


def test_an_nsys_that_is_too_old_for_the_cuda_of_torch_is_refused(
    machine: Machine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "torch_cuda", lambda *_: "13.0")
    machine.package("2022.4.2", knows=NEW)

    assert "CUDA 13.0" in (RECORDER.unusable(wanted) or "")
    assert RECORDER.unusable(replace(wanted, device="cpu")) is None
    newer = machine.package("2025.5.1", knows=NEW)
    assert RECORDER.command(["python"], wanted)[0] == str(newer)


def test_gpu_metrics_without_permission_are_refused_beforehand(
    machine: Machine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.package("2025.5.1", knows=NEW)
    params = machine.root / "proc/driver/nvidia/params"
    params.parent.mkdir(parents=True)
    params.write_text("RmProfilingAdminOnly: 1\n")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    asked = replace(wanted, options={"gpu-metrics": True})

    assert "ERR_NVGPUCTRPERM" in (RECORDER.unusable(asked) or "")
    assert RECORDER.unusable(wanted) is None


def test_backtraces_where_the_kernel_forbids_sampling_are_refused(
    machine: Machine, wanted: Wanted
) -> None:
    machine.package("2025.5.1", knows=NEW)
    level = machine.root / "proc/sys/kernel/perf_event_paranoid"
    level.parent.mkdir(parents=True)
    level.write_text("4\n")
    asked = replace(wanted, options={"backtrace": True})

    assert "perf_event_paranoid=2" in (RECORDER.unusable(asked) or "")


DISK = "print('database or disk is full'); pathlib.Path(out).write_bytes(b'')"
HALF = "pathlib.Path(out).write_bytes(b'SQLite format 3\\0 and then')"


@pytest.mark.parametrize(
    ("export", "why"),
    [
        (DISK, "the disk is full"),
        (HALF, "run.sqlite"),
        ("print('Exportation error: no rights'); sys.exit(1)", "status 1, Exportation error"),
        ("print('Error: Unsupported report version')", "Unsupported report version"),
        ("time.sleep(60)", "no answer in 0.5 s"),
        ("os.kill(os.getpid(), 9)", "status -9"),
    ],
)
def test_an_export_that_is_not_whole_is_never_taken_for_one(
    machine: Machine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch, export: str, why: str
) -> None:
    machine.package("2025.5.1", knows=NEW, export=export)
    monkeypatch.setattr(_reports, "PATIENCE_S", 0.5)

    with pytest.raises(CaptureError, match=why) as error:
        passed(wanted)

    assert "nsys export --type sqlite" in str(error.value)
    assert names(wanted.folder) == ["run.nsys-rep"]
    assert not _scratch.find(wanted.folder)


def test_an_export_without_anything_to_see_is_not_whole(machine: Machine, wanted: Wanted) -> None:
    from tests.build import Nsys

    empty = Nsys()
    empty.thread("python")
    empty.write(machine.export)
    machine.package("2025.5.1", knows=NEW)

    with pytest.raises(CaptureError, match="no range and no GPU work: the recorded steps"):
        passed(wanted)


def test_another_newer_nsys_exports_what_the_recording_one_cannot(
    machine: Machine, wanted: Wanted
) -> None:
    """The newer one cannot record: nothing imports for it."""
    machine.package("2023.4.4", knows=NEW, export="sys.exit('crashed')")
    machine.nsys("2025.3.1", INSIDE)

    made, said = passed(wanted)

    assert made[0].path == "run.sqlite"
    assert said == ["run.sqlite is nsys's own (2025.3.1)."]


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("print('Unknown runtime API function index: 442'); sys.exit(1)", "newer than 2024.4"),
        ("out.write_bytes(b''); print('BadStreamException')", "the disk is full"),
        ("out.write_bytes(b'half'); sys.exit('Import failed')", "Import failed"),
        ("time.sleep(60)", "no answer in 0.5 s"),
    ],
)
def test_what_cannot_be_imported_is_kept(
    machine: Machine, wanted: Wanted, monkeypatch: pytest.MonkeyPatch, does: str, why: str
) -> None:
    monkeypatch.setattr(_reports, "PATIENCE_S", 0.5)
    machine.nsys("2024.4.2", leaves=".qdstrm", knows=NEW)
    machine.importer("2024.4.2", "bin/QdstrmImporter", does)

    with pytest.raises(CaptureError, match=why) as error:
        passed(wanted)

    assert str(wanted.folder / "run.qdstrm") in str(error.value)
    assert names(wanted.folder) == ["run.qdstrm"]


def test_a_recording_that_nsys_could_not_move_is_taken_from_where_it_is(
    machine: Machine, wanted: Wanted
) -> None:
    machine.nsys("2024.4.2", leaves="", knows=NEW)
    machine.importer("2024.4.2", "bin/QdstrmImporter")
    RECORDER.environment(wanted)
    scratch = _scratch.find(wanted.folder)
    assert scratch is not None
    (scratch / "nsys-report-1234.qdstrm").write_bytes(b"all of it")

    made, _ = finished(wanted)

    assert made[0].path == "run.sqlite"
    assert not scratch.exists()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("pass", "the program ended before step 3, the first recorded"),
        ("print('ERR_NVGPUCTRPERM')", "NVreg_RestrictProfilingToAdminUsers=0"),
        ("print('Agent launcher failed.')", "TMPDIR"),
        ("print('Capture range started in the application.')", "see logs/nsys.log"),
    ],
)
def test_a_pass_that_left_nothing_says_why(
    machine: Machine, wanted: Wanted, body: str, why: str
) -> None:
    machine.package("2025.5.1", knows=NEW, leaves="")

    with pytest.raises(CaptureError, match=why):
        passed(wanted, body)


def test_a_flag_that_nsys_refuses_is_told_in_its_words(machine: Machine, wanted: Wanted) -> None:
    machine.package("2025.5.1")  # its help names nothing new, and it takes nothing old

    with pytest.raises(CaptureError, match="unrecognised option '--stop-on-range-end=true'"):
        passed(wanted)


def test_what_an_earlier_pass_has_left_is_not_taken_for_this_ones(
    machine: Machine, wanted: Wanted
) -> None:
    machine.package("2025.5.1", knows=NEW, leaves="")
    (wanted.folder / "run.nsys-rep").write_bytes(b"of another program")

    with pytest.raises(CaptureError, match="recorded nothing"):
        passed(wanted)


def test_a_dry_run_makes_nothing(machine: Machine, tmp_path: Path) -> None:
    machine.package("2025.5.1", knows=NEW)
    wanted = Wanted(tmp_path / "not there", "cuda")

    RECORDER.command(["python"], wanted)

    assert "TMPDIR" not in RECORDER.environment(wanted)
    assert RECORDER.files(wanted) == ["run.nsys-rep", "run.sqlite"]
    assert not wanted.folder.exists()


def test_a_whole_export_is_read_once_and_renamed(machine: Machine, wanted: Wanted) -> None:
    machine.package("2025.5.1", knows=NEW)

    passed(wanted)

    assert open_trace(wanted.folder / "run.sqlite")["gpu_ops"].collect().height == 1
    assert PACKAGE in (wanted.folder / "logs" / "nsys.log").read_text()

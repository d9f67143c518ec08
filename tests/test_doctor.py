"""The doctor, on machines made of a fake PATH, fake folders and stub programs."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tracelens import tools
from tracelens.__main__ import run
from tracelens.cli import doctor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Install = Callable[[str, str], Path]

SMI = """0, NVIDIA H200, 143771, 570.124.06
1, NVIDIA H200, [N/A], 570.124.06"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of a machine with nothing on PATH but what a shell script needs."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(tools, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


@pytest.fixture
def install(root: Path) -> Install:
    def program(path: str, body: str) -> Path:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
        return file

    return program


def printing(text: str, status: int = 0) -> str:
    return f"while read -r line; do echo \"$line\"; done <<'END'\n{text}\nEND\nexit {status}"


def found() -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(doctor.COMMAND, ["--format", "json"])
    assert done.exit_code == 0, done.output
    checks = json.loads(done.output)["checks"]
    return {check["name"]: check for check in checks}


def test_a_bare_machine_is_told_what_is_missing_and_status_is_0(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = found()

    assert not checks["nsys"]["found"]
    assert "can be read without" in checks["nsys"]["says"]
    assert not checks["GPU"]["found"]
    assert checks["polars"]["found"]
    assert run(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("- nsys") for line in lines)
    assert any(line.startswith("+ polars") for line in lines)


def test_a_full_machine(install: Install, root: Path) -> None:
    nsys = install(
        "bin/nsys", printing("NVIDIA Nsight Systems version 2025.3.2.474-253236389321v0")
    )
    install(
        "usr/local/cuda-11.8/bin/nsys", printing("NVIDIA Nsight Systems version 2022.4.2.1-df9881f")
    )
    install(
        "opt/nvidia/nsight-compute/2025.3/host/target-linux-x64/nsys",
        printing("NVIDIA Nsight Systems version 2025.3.1"),
    )
    install(
        "usr/local/cuda/bin/ncu", printing("NVIDIA (R) Nsight\nVersion 2024.1.1.0 (build 33998838)")
    )
    install("usr/lib/nsight-systems/host-linux-x64/QdstrmImporter", "exit 1")
    install("bin/nvidia-smi", printing(SMI))
    install("proc/sys/kernel/perf_event_paranoid", "").write_text("4\n")

    checks = found()
    text = CliRunner().invoke(doctor.COMMAND).output

    assert (checks["nsys"]["version"], checks["nsys"]["path"]) == ("2025.3.2.474", str(nsys))
    assert checks["nsys"]["says"] == "exports reports up to nsys 2025.3"
    assert "cannot import captures of CUDA 12 or 13 programs" in " ".join(text.split())
    assert text.count("nsys, another") == 2
    assert checks["ncu"]["version"] == "2024.1.1.0"
    assert checks["QdstrmImporter"]["found"]
    assert checks["GPU 0"]["says"] == "NVIDIA H200, 140 GiB, driver 570.124.06"
    assert checks["GPU 1"]["says"] == "NVIDIA H200, driver 570.124.06"
    assert not checks["CPU sampling"]["found"]
    assert "perf_event_paranoid=2" in checks["CPU sampling"]["says"]


def test_one_program_under_two_names_is_one(install: Install, root: Path) -> None:
    real = install("opt/nvidia/nsight-systems/2024.5/bin/nsys", printing("version 2024.5.1.113"))
    (root / "bin" / "nsys").symlink_to(real)

    checks = found()

    assert checks["nsys"]["path"] == str(root / "bin" / "nsys")
    assert "nsys, another" not in checks
    assert "older than CUDA 13" in checks["nsys"]["says"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo libcuda.so not found >&2; exit 127", "status 127: libcuda.so not found"),
        ("echo hello", "its answer was not understood: hello"),
        (r"printf '\377\376\000\033[31m\n'", "its answer was not understood"),
        ("exit 0", "its answer was not understood"),
        ("kill -9 $$", "status -9"),
    ],
)
def test_a_program_that_fails_or_talks_nonsense_is_there_but_not_found_good(
    install: Install, body: str, says: str
) -> None:
    for name in ("nsys", "ncu", "nvidia-smi"):
        install(f"bin/{name}", body)

    checks = found()

    for name in ("nsys", "ncu", "GPU"):
        assert not checks[name]["found"]
        assert says in checks[name]["says"]
        assert checks[name]["says"].isprintable()


def test_what_is_no_program_at_all_is_said(install: Install) -> None:
    install("bin/nsys", "").write_bytes(b"\x7fELF garbage")

    assert "it cannot be run" in found()["nsys"]["says"]


def test_programs_that_hang_are_ended_together_with_what_they_started(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "PATIENCE_S", 0.3)
    for name in ("nsys", "ncu", "nvidia-smi"):
        install(f"bin/{name}", "/bin/sleep 60 & /bin/sleep 60")
    before = time.monotonic()

    checks = found()

    assert time.monotonic() - before < 10
    for name in ("nsys", "ncu", "GPU"):
        assert "it gave no answer in 0.3 s" in checks[name]["says"]


def test_torch_is_read_and_not_imported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # another test may have imported it
    site = root / "site"
    (site / "torch").mkdir(parents=True)
    (site / "torch" / "__init__.py").write_text("raise SystemExit('imported')")
    for built, says in (("'12.8'", "built for CUDA 12.8"), ("None", "without CUDA")):
        version = f"from typing import Optional\ncuda: Optional[str] = {built}\nhip = None\n"
        (site / "torch" / "version.py").write_text(version)
        info = site / "torch-2.9.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.9.0\n")
        monkeypatch.syspath_prepend(str(site))

        torch = found()["torch"]

        assert torch["version"] == "2.9.0"
        assert says in torch["says"]


def test_the_counters_of_the_gpu_may_be_closed(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("proc/driver/nvidia/params", "").write_text("EnableMSI: 1\nRmProfilingAdminOnly: 1\n")
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert "ERR_NVGPUCTRPERM" in found()["GPU counters"]["says"]


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRACELENS_CACHE_DIR", str(tmp_path / "file" / "cache"))
    closed = found()["cache"]
    monkeypatch.setenv("TRACELENS_CACHE_DIR", str(tmp_path / "not yet" / "there"))
    made_later = found()["cache"]

    assert not closed["found"]
    assert "TRACELENS_CACHE_DIR" in closed["says"]
    assert made_later["found"]
    assert not (tmp_path / "not yet").exists()


def test_a_check_that_breaks_does_not_break_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find", lambda *_: 1 / 0)

    checks = found()

    assert "could not be looked at: division by zero" in checks["nsys"]["says"]
    assert checks["Python"]["found"]

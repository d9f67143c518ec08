"""What is told of a machine: versions, GPUs, memory, the environment that matters, the commit."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tracelens.capture import machine

if TYPE_CHECKING:
    from pathlib import Path

SMI = (
    "0, NVIDIA H200, GPU-1, 580.95, 143771, 143000, 700.00, 75.50, 31, 345, 3201, 1980, 3201, "
    "Disabled"
)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nvidia-smi tell of one H200."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "{SMI}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_this_machine_tells_its_versions_and_its_memory() -> None:
    found = machine.look()

    assert found.has_torch
    assert found.facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found.facts["versions"]["torch"].startswith("2.")
    assert found.torch_failure == ""
    if sys.platform == "linux":
        assert found.free_bytes is not None
        assert 0 < found.free_bytes <= found.facts["memory_bytes"]


@pytest.mark.usefixtures("smi")
@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script on PATH")
def test_clocks_power_and_driver_are_as_nvidia_smi_tells_them() -> None:
    (gpu,) = machine.look().facts["nvidia_smi"]

    assert gpu["name"] == "NVIDIA H200"
    assert gpu["driver_version"] == "580.95"
    assert (gpu["clocks.sm"], gpu["clocks.max.sm"]) == ("345", "1980")
    assert gpu["power.limit"] == "700.00"


@pytest.mark.usefixtures("smi")
@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script on PATH")
def test_gpus_are_those_that_torch_can_use_not_those_of_the_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = {"name": "NVIDIA H200", "capability": [9, 0], "memory_bytes": 150_000_000_000}
    monkeypatch.setattr(machine, "_asked_torch", lambda: ({"cuda": "13.0", "gpus": [gpu]}, ""))
    assert machine.look().gpus == (machine.Gpu("NVIDIA H200", 150_000_000_000, 143_000 * 2**20),)

    monkeypatch.setattr(machine, "_asked_torch", lambda: ({"cuda": "13.0", "gpus": [gpu] * 2}, ""))
    assert [one.free_bytes for one in machine.look().gpus] == [None, None]


def test_a_torch_that_cannot_be_imported_is_told_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: not found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(machine, "_is_cpu_build", lambda: False)

    found = machine.look()

    assert found.gpus == ()
    assert found.torch_failure == (
        "torch cannot be asked for its GPUs: ImportError: libcudart.so.13: not found"
    )


def test_of_the_environment_what_changes_a_program_is_kept_and_secrets_are_not() -> None:
    kept = machine.environment(
        {
            "CUDA_VISIBLE_DEVICES": "0",
            "NCCL_DEBUG": "INFO",
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
            "OMP_NUM_THREADS": "4",
            "NVIDIA_API_KEY": "nvapi-1",
            "TORCH_TOKEN": "t",
            "AWS_SECRET_ACCESS_KEY": "s",
            "HOME": "/home/me",
        }
    )

    assert kept == {
        "CUDA_VISIBLE_DEVICES": "0",
        "NCCL_DEBUG": "INFO",
        "OMP_NUM_THREADS": "4",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }


def test_the_commit_is_told_with_whether_files_differ_from_it(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert machine.revision(tmp_path) is None
    git("init", "-q")
    (tmp_path / "train.py").write_text("1")
    git("add", ".")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")

    assert machine.revision(tmp_path) == {"commit": commit, "changed": False}
    (tmp_path / "train.py").write_text("2")
    assert machine.revision(tmp_path) == {"commit": commit, "changed": True}

"""The wheel as a user installs it: what it holds, what it brings along, and that it runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.build import Nsys, training_step

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def binaries(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of commands of a new environment that holds the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    binaries = folder / ("Scripts" if sys.platform == "win32" else "bin")
    run(binaries / "python", "-m", "pip", "--quiet", "install", wheel, cwd=folder)
    return binaries


def test_the_wheel_holds_the_package_its_types_its_license_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert "tracelens/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", ".ci/", "benchmarks/"))]
    assert not [name for name in names if "test_" in name]


def test_the_wheel_holds_every_module_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / "tracelens").rglob("*.py")}

    assert modules <= names


def test_it_brings_no_torch_numpy_or_pandas(binaries: Path) -> None:
    listed = run(binaries / "python", "-m", "pip", "list", "--format=json", cwd=binaries)
    names = {package["name"].lower() for package in json.loads(listed)}

    assert {"tracelens-gpu", "polars", "click", "rich"} <= names
    assert not names & {"torch", "triton", "numpy", "pandas", "pyarrow", "pytest"}


def test_the_command_says_its_version_and_helps(binaries: Path, tmp_path: Path) -> None:
    version = run(binaries / "tracelens", "--version", cwd=tmp_path)
    by_command = run(binaries / "tracelens", "--help", cwd=tmp_path)
    by_module = run(binaries / "python", "-m", "tracelens", "--help", cwd=tmp_path)

    assert re.search(r"\d+\.\d+", version)
    assert "summarize" in by_command
    assert "summarize" in by_module


def test_it_summarizes_an_export(binaries: Path, tmp_path: Path) -> None:
    trace = Nsys()
    step = training_step(trace)
    path = trace.write(tmp_path / "run.sqlite")

    text = run(binaries / "tracelens", "summarize", path, cwd=tmp_path)
    answer = json.loads(
        run(binaries / "tracelens", "summarize", path, "--format", "json", cwd=tmp_path)
    )

    assert "backward" in text
    assert answer["tables"]["totals"][0]["kernels"] == sum(step.kernels.values())
    kernels = {row["phase"]: row["kernels"] for row in answer["tables"]["phases"]}
    assert kernels["backward"] == step.kernels["backward"]

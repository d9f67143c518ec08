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
    modules = {
        str(file.relative_to(package.parent))
        for package in (ROOT / "tracelens", *ROOT.glob("*/tracelens_*"))
        for file in package.rglob("*")
        if file.suffix in (".py", ".js", ".css", ".toml") and "__pycache__" not in file.parts
    }

    assert modules <= names
    assert "tracelens_workloads/gpt2.py" in modules
    assert "tracelens_dashboards/assets/shell.js" in modules
    assert "tracelens/hardware/devices.toml" in modules


def test_it_brings_no_torch_numpy_or_pandas(binaries: Path) -> None:
    listed = run(binaries / "python", "-m", "pip", "list", "--format=json", cwd=binaries)
    names = {package["name"].lower() for package in json.loads(listed)}

    assert {"tracelens-gpu", "polars", "click", "rich"} <= names
    assert not names & {"torch", "triton", "numpy", "pandas", "pyarrow", "pytest"}


def test_without_torch_workloads_are_listed_and_reckoned_and_said_to_need_it(
    binaries: Path, tmp_path: Path
) -> None:
    listed = run(binaries / "tracelens", "list", "workloads", cwd=tmp_path)
    refused = subprocess.run(
        [binaries / "tracelens", "capture", "gpt2-small"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "gpt2" in listed
    assert refused.returncode == 4
    assert "pip install 'tracelens-gpu[capture]'" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_without_dash_the_explorer_says_what_it_needs(binaries: Path, tmp_path: Path) -> None:
    refused = subprocess.run(
        [binaries / "tracelens", "explore", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == 2
    assert "pip install 'tracelens-gpu[explore]'" in refused.stderr


def test_marks_work_without_torch_and_nvtx(binaries: Path, tmp_path: Path) -> None:
    program = (
        "import tracelens\n"
        "for _ in range(2):\n"
        "    with tracelens.step(), tracelens.phase('forward'), tracelens.span('layer'): pass\n"
        "print('ran')"
    )

    assert run(binaries / "python", "-c", program, cwd=tmp_path) == "ran\n"


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

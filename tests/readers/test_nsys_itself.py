"""A recording that the real nsys makes here and now, on a machine without a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.asking import Shell, linked, table, texts

pytestmark = pytest.mark.nsys

PROGRAM = Path(__file__).with_name("nvtx_program.py")


def importer(nsys: str) -> Path:
    """Return the program that turns what nsys records into a report, where it is a second one."""
    folder = Path(nsys).resolve()
    places = [p / "host-linux-x64" / "QdstrmImporter" for p in folder.parents]
    places += list(Path("/usr/lib/nsight-systems").glob("host-linux-*/QdstrmImporter"))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        pytest.skip("nsys is here without its QdstrmImporter")
    return found


@pytest.fixture(scope="module")
def report(nsys: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record a program without GPU work."""
    folder = tmp_path_factory.mktemp("recorded")
    out = folder / "run.nsys-rep"
    what = ["-t", "nvtx,osrt", "-s", "none", "--cpuctxsw=none", "-f", "true"]
    command = [nsys, "profile", *what, "-o", str(folder / "run"), sys.executable, str(PROGRAM)]
    done = subprocess.run(
        command, cwd=folder, timeout=120, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if not out.is_file():
        command = [str(importer(nsys)), "-i", str(folder / "run.qdstrm"), "-o", str(out)]
        subprocess.run(command, check=True, timeout=120, capture_output=True)
    return out


@pytest.fixture(scope="module")
def export(nsys: str, report: Path) -> Path:
    """Export the recording as SQLite."""
    out = report.with_name("run.sqlite")
    command = [nsys, "export", "--type", "sqlite", "--force-overwrite", "true", "-o", str(out)]
    subprocess.run([*command, str(report)], check=True, capture_output=True)
    return out


def test_its_ranges_are_those_of_the_program(export: Path) -> None:
    columns = ("name", "kind", "depth", "lane")
    ranges = texts(linked(export).trace, "ranges", *columns)

    steps = []
    for step in range(3):
        steps += [(f"step {step}", "push_pop", 1, 0), ("forward", "push_pop", 2, 0)]
        steps += [("backward", "push_pop", 2, 0), ("worker", "push_pop", 0, 0)]
    assert ranges == [
        ("train", "push_pop", 0, 0),
        *steps,
        ("request 1", "start_end", 0, 0),
        ("request 2", "start_end", 0, 1),
    ]


def test_its_times_are_those_of_the_program(export: Path) -> None:
    rows = {row["name"]: row for row in table(linked(export), "ranges")}

    assert (rows["forward"]["instances"], rows["worker"]["instances"]) == (3, 3)
    assert rows["forward"]["cpu_ns"] >= 3 * 2_000_000
    assert rows["backward"]["cpu_ns"] >= rows["worker"]["cpu_ns"] >= 3 * 5_000_000
    assert rows["train"]["cpu_ns"] >= rows["forward"]["cpu_ns"] + rows["backward"]["cpu_ns"]


def test_its_steps_are_those_of_the_program(export: Path) -> None:
    steps = table(linked(export), "steps")

    assert [row["name"] for row in steps] == ["step 0", "step 1", "step 2"]


def test_there_are_no_kernels_and_that_is_said(
    export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Shell(capsys)("summarize", export, "--table", "kernels")

    assert said.status == 4
    assert "not recorded" in said.err
    assert len(said.err.strip().splitlines()) <= 2


def test_the_ranges_are_shown_all_the_same(
    export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Shell(capsys)("summarize", export, "--table", "ranges")

    assert said.status == 0
    assert "backward" in said.out


def test_a_report_is_exported_by_the_nsys_of_this_machine(
    report: Path, export: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    alone = tmp_path / "run.nsys-rep"
    shutil.copyfile(report, alone)
    shell = Shell(capsys)
    asked = ("--table", "ranges", "--format", "csv")

    said = shell("summarize", alone, *asked)

    assert said.status == 0
    assert said.out == shell("summarize", export, *asked).out
    assert [file.name for file in tmp_path.iterdir()] == ["run.nsys-rep"]


def test_without_nsys_a_report_says_what_to_type(
    report: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.fspath(report.parent))

    said = Shell(capsys)("summarize", report)

    assert said.status == 3
    assert "nsys export --type sqlite run.nsys-rep" in said.err


@pytest.mark.parametrize("kind", ["sqlite", "hdf", "json"])
def test_only_what_we_can_read_is_read(
    nsys: str, report: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    out = report.with_name(f"only.{kind}")
    command = [nsys, "export", "--type", kind, "-o", str(out), str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not out.is_file():
        pytest.skip(f"this nsys does not export {kind}")

    said = Shell(capsys)("summarize", out, "--table", "ranges")

    if kind == "sqlite":
        assert said.status == 0
    else:
        assert said.status == 3
        assert "nsys export --type sqlite" in said.err

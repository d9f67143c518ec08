"""Looking for NVIDIA's tools below a root of our own, and asking programs that may not answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.capture.fake_tools import INSIDE, PACKAGE, Machine
from tracelens import tools

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine without profilers."""
    made = Machine.at(tmp_path / "a root")
    monkeypatch.setattr(tools, "ROOT", made.root)
    monkeypatch.setenv("PATH", str(made.root / "bin"))
    return made


def test_the_copy_on_path_comes_first_and_each_copy_once(machine: Machine) -> None:
    package = machine.package("2025.3.2")
    machine.nsys("2024.5.1", "usr/local/cuda-12.6/bin/nsys")
    (machine.root / "bin" / "nsys").symlink_to(package)

    found = tools.find("nsys")

    assert [(one.path, one.version) for one in found] == [
        (str(machine.root / "bin" / "nsys"), "2025.3.2"),
        (str(machine.root / "usr/local/cuda-12.6/bin/nsys"), "2024.5.1"),
    ]


@pytest.mark.parametrize(
    "place",
    [
        "usr/local/cuda-13.0/bin/nsys",
        "usr/local/cuda-13.0/nsight-systems-2025.3.2/bin/nsys",
        "usr/local/cuda-13.0/nsight-systems-2025.3.2/target-linux-sbsa-armv8/nsys",
        "opt/nvidia/nsight-systems-cli/2025.3.2/bin/nsys",
        "opt/nvidia/hpc_sdk/Linux_x86_64/25.5/profilers/Nsight_Systems/bin/nsys",
        "usr/lib/nsight-systems/bin/nsys",
        INSIDE,
    ],
)
def test_nsys_is_found_where_it_is_installed(machine: Machine, place: str) -> None:
    machine.nsys("2025.3.2", place)

    (found,) = tools.find("nsys")

    assert (found.path, found.release) == (str(machine.root / place), "2025.3")


def test_releases_are_ordered_as_numbers(machine: Machine) -> None:
    for version in ("2024.10.1", "2024.9.1", "2023.4.4"):
        machine.package(version)

    assert [one.version for one in tools.working("nsys")] == ["2024.10.1", "2024.9.1", "2023.4.4"]


def test_a_program_is_asked_again_once_it_has_changed(machine: Machine) -> None:
    path = machine.nsys("2024.5.1")
    before = tools.tool(str(path)).version
    machine.nsys("2024.5.1.113")

    assert (before, tools.tool(str(path)).version) == ("2024.5.1", "2024.5.1.113")


def test_an_nsys_imports_by_itself_if_the_host_folder_is_beside_it(machine: Machine) -> None:
    package = tools.tool(str(machine.package("2025.3.2")))
    inside = machine.nsys("2025.3.1", INSIDE)
    (machine.root / "bin" / "nsys").symlink_to(package.path)

    assert tools.imports_itself(package)
    assert tools.imports_itself(tools.tool(str(machine.root / "bin" / "nsys")))
    assert not tools.imports_itself(tools.tool(str(inside)))


def test_the_importer_of_an_nsys_has_its_version(machine: Machine) -> None:
    nsys = tools.tool(str(machine.nsys("2025.3.1.90", INSIDE)))
    machine.importer("2025.3.2.1", "bin/QdstrmImporter")
    assert tools.importer_of(nsys) is None

    host = machine.importer("2025.3.1.90", f"{PACKAGE}/2025.3.1/host-linux-x64/QdstrmImporter")
    importer = tools.importer_of(nsys)

    assert importer is not None
    assert importer.path == str(host)


def test_what_a_program_prints_can_go_into_a_file(machine: Machine, tmp_path: Path) -> None:
    talks = "import sys; print('much'); print('little', file=sys.stderr)"
    path = str(machine.program("bin/talks", talks))
    out = tmp_path / "out"

    assert tools.ask(path).text == "little\nmuch\n" or tools.ask(path).text == "much\nlittle\n"
    assert tools.ask(path, into=out).text == "little\n"
    assert out.read_text() == "much\n"


def test_a_program_that_hangs_is_ended_with_what_it_started(machine: Machine) -> None:
    path = machine.program(
        "bin/hangs",
        "import subprocess as s; s.Popen(['/bin/sleep', '60']); s.run(['/bin/sleep', '60'])",
    )
    before = time.monotonic()

    answer = tools.ask(str(path), patience_s=0.3)

    assert answer.failure == "it gave no answer in 0.3 s"
    assert time.monotonic() - before < 30


@pytest.mark.parametrize(
    ("params", "user", "may"),
    [
        (None, 1000, None),
        ("EnableMSI: 1\n", 1000, None),
        ("RmProfilingAdminOnly: 0\n", 1000, True),
        ("RmProfilingAdminOnly: 1\n", 1000, False),
        ("RmProfilingAdminOnly: 1\n", 0, True),
    ],
)
def test_who_may_read_the_counters_is_the_drivers_word(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    params: str | None,
    user: int,
    may: bool | None,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    if params is not None:
        file = machine.root / "proc/driver/nvidia/params"
        file.parent.mkdir(parents=True)
        file.write_text(params)

    assert tools.may_read_counters() is may

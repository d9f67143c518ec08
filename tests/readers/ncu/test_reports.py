"""Reports of ncu are read by NVIDIA's module or by ncu itself; without either it is said how."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.ncu import Ncu
from tracelens import tools
from tracelens.errors import UnreadableError
from tracelens.readers.ncu import report
from tracelens.readers.open import is_recording, open_trace

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "run.ncu-rep"
    path.write_bytes(b"NVR\0\2\0\0\0 and so on")
    return path


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MODULE", "ncu_report_of_no_machine")
    monkeypatch.setattr(tools, "working", lambda _: [])


def test_without_nvidias_software_it_is_said_what_to_type(recorded: Path) -> None:
    with pytest.raises(UnreadableError, match=r"ncu --import run\.ncu-rep --page raw --csv"):
        open_trace(recorded, cache=False)


def test_an_ncu_that_is_there_makes_the_table(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Ncu().launch("gemm", 70).write(tmp_path / "printed")
    ncu = tmp_path / "ncu"
    ncu.write_text(f'#!/bin/sh\n[ "$1" = --import ] && [ "$4" = raw ] && cat "{table}"\n')
    ncu.chmod(0o755)
    monkeypatch.setattr(tools, "working", lambda _: [tools.Tool(str(ncu), "2025.3.1")])

    trace = open_trace(recorded, cache=False)

    assert trace["gpu_ops"].collect()["end_ns"].to_list() == [70]


def test_an_ncu_that_fails_says_so(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ncu = tmp_path / "ncu"
    ncu.write_text("#!/bin/sh\nexit 9\n")
    ncu.chmod(0o755)
    monkeypatch.setattr(tools, "working", lambda _: [tools.Tool(str(ncu), "2020.1")])

    with pytest.raises(UnreadableError, match=r"ncu 2020.1 cannot make a table .* status 9"):
        open_trace(recorded, cache=False)


def test_nvidias_module_is_asked_first(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module as its documentation describes it: reports of ranges of actions of metrics."""
    metrics = {
        "gpu__time_duration.sum": (70, "ns"),
        "launch__grid_dim_x": (2, "block"),
        "launch__grid_dim_y": (66, "block"),
        "launch__stream_id": (7, ""),
        "launch__device_id": (0, ""),
        "device__attribute_display_name": ("NVIDIA H200", ""),
    }

    class Action:
        NameBase_DEMANGLED = 1

        def name(self, base: int) -> str:
            return "gemm<float>" if base == self.NameBase_DEMANGLED else "gemm"

        def metric_names(self) -> list[str]:
            return list(metrics)

        def metric_by_name(self, name: str) -> Any:
            if name not in metrics:
                return None
            value, unit = metrics[name]
            return SimpleNamespace(value=lambda: value, unit=lambda: unit, has_value=lambda: True)

    action = Action()
    part = SimpleNamespace(num_actions=lambda: 1, action_by_idx=lambda _: action)
    module = ModuleType("fake_ncu_report")
    module.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    module.load_report = lambda _: SimpleNamespace(  # type: ignore[attr-defined]
        num_ranges=lambda: 1, range_by_idx=lambda _: part
    )
    monkeypatch.setitem(sys.modules, "fake_ncu_report", module)
    monkeypatch.setattr(report, "MODULE", "fake_ncu_report")

    trace = open_trace(recorded, cache=False, everything=True)

    (row,) = trace["gpu_ops"].collect().to_dicts()
    assert (row["end_ns"], row["grid_x"], row["grid_y"], row["stream"]) == (70, 2, 66, 7)
    assert trace["names"].collect()["name"].to_list() == ["gemm<float>"]
    assert trace["devices"].collect()["name"].to_list() == ["NVIDIA H200"]


def test_a_report_beside_its_table_is_passed_over_in_a_folder(recorded: Path) -> None:
    assert is_recording(recorded)

    Ncu().launch("gemm").write(recorded.with_suffix(".csv"))

    assert not is_recording(recorded)

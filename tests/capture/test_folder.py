"""The Run folder of a capture: made once, always whole, held by one capture at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tracelens.capture import folder
from tracelens.capture.folder import File, Manifest, Pass
from tracelens.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 11, 20, 12, 0, 5, tzinfo=UTC)
MANIFEST = Manifest(
    name="matmul",
    workload="matmul",
    options={"m": 64, "dtype": "fp32"},
    program=[],
    device="cpu",
    warmup=1,
    steps=2,
    seed=0,
    stop=True,
    created="2026-11-20T12:00:05+00:00",
    command=["tracelens", "capture", "matmul"],
    passes=[Pass("timer", {}, "done", steps_ns=[5, 7]), Pass("torch", {"stacks": True})],
    recordings=[File("torch", "trace.rank1.json.gz", 1)],
)


def test_a_folder_is_named_after_what_runs_the_options_given_and_the_time() -> None:
    named = folder.folder_name("gpt2-xl", {"ctx": 256, "dtype": "bf16", "autocast": True}, NOON)

    assert named == "gpt2-xl-ctx256-bf16-autocast-20261120-120005"


@pytest.mark.parametrize(
    ("name", "changed"),
    [("../../etc/passwd", {}), ("a b/c", {"kernel": "my.module:f(x)"}), ("x" * 400, {})],
)
def test_no_name_leaves_the_folder_of_runs(name: str, changed: dict[str, str]) -> None:
    named = folder.folder_name(name, changed, NOON)

    assert "/" not in named
    assert not named.startswith(".")
    assert len(named) < 160


def test_what_run_json_says_comes_back_as_it_was(tmp_path: Path) -> None:
    folder.save(tmp_path, MANIFEST)

    assert folder.load(tmp_path) == MANIFEST
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_what_is_said_of_a_pass_is_replaced_and_of_a_new_one_added() -> None:
    changed = MANIFEST.with_pass(Pass("torch", {}, "done")).with_pass(Pass("memory"))

    assert [(p.recorder, p.state) for p in changed.passes] == [
        ("timer", "done"),
        ("torch", "done"),
        ("memory", "planned"),
    ]


def test_a_folder_with_something_in_it_is_not_recorded_into(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(UsageError, match="--resume"):
        folder.create(tmp_path)
    with pytest.raises(UsageError, match="--resume"):
        folder.create(tmp_path, force=True)


def test_force_records_into_a_run_folder_anew(tmp_path: Path) -> None:
    folder.save(tmp_path, MANIFEST)

    assert folder.create(tmp_path, force=True) == tmp_path


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")

    with pytest.raises(UsageError, match="is a file"):
        folder.create(file)


@pytest.mark.skipif(sys.platform == "win32", reason="needs /proc or a folder without rights")
def test_a_folder_that_cannot_be_written_is_told_with_its_reason() -> None:
    from pathlib import Path

    with pytest.raises(CaptureError, match="Choose another with -o"):
        folder.create(Path("/proc/tracelens"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_leaves_run_json_as_it_was(tmp_path: Path) -> None:
    folder.save(tmp_path, MANIFEST)
    beside = tmp_path / f"run.json.{os.getpid()}"
    beside.symlink_to("/dev/full")

    with pytest.raises(CaptureError, match="No space left"):
        folder.save(tmp_path, Manifest(**{**vars(MANIFEST), "name": "x" * 100_000}))
    assert folder.load(tmp_path) == MANIFEST
    assert not beside.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"recordings": []}',
        '{"name": 3}',
        json.dumps({**vars(MANIFEST), "passes": 3, "recordings": []}),
    ],
)
def test_a_run_json_that_is_not_of_a_capture_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)

    with pytest.raises(UsageError, match=r"run\.json"):
        folder.load(tmp_path)


def test_a_folder_without_run_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Run folder"):
        folder.load(tmp_path)


def test_two_captures_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with folder.locked(tmp_path):
        other = (
            "import sys; from pathlib import Path; from tracelens.capture import folder\n"
            "with folder.locked(Path(sys.argv[1])): pass"
        )
        seen = subprocess.run(
            [sys.executable, "-c", other, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )

    assert "Another capture is at work" in seen.stderr
    with folder.locked(tmp_path):
        pass

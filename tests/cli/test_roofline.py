"""`tracelens roofline`: tables, formulas of Run folders, ceilings, figures, exit statuses."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import Shell
from tests.build import Nsys
from tests.kineto import Profile
from tracelens.capture.folder import File, Manifest, Pass, save
from tracelens.hardware import limits, measured
from tracelens.workload import Work

if TYPE_CHECKING:
    from pathlib import Path

HALF = ["c10::BFloat16", "c10::BFloat16"]
MS = 1_000_000


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return a shell in which to run tracelens."""
    return Shell(capsys)


def trace(gpu: str = "NVIDIA H200", name: str = "aten::mm") -> Profile:
    """Return a product in each of two steps."""
    found = Profile()
    found.device(0, gpu)
    main = found.thread("python3")
    for at in (0, 1 * MS):
        main.annotation(f"ProfilerStep#{at // MS}", at, at + 900_000)
        main.annotation("forward", at + 10, at + 800_000)
        main.op(name, at + 1_000, at + 20_000, dims=[[4096, 4096]] * 2, types=HALF)
        main.kernel("nvjet_tst", at=at + 10_000, run=(at + 20_000, at + 220_000))
    return found


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a recording of two products."""
    return trace().write(tmp_path / "trace.json")


def test_the_tables_say_what_is_lost_and_what_the_ceilings_are(
    shell: Shell, recording: Path
) -> None:
    said = shell("roofline", recording)

    assert said.status == 0
    for words in (
        "Roofline in all",
        "Roofline by phase",
        "4096x4096, 4096x4096",
        "69",  # of a bf16 ceiling of 989.4 TFLOP/s
        "Ceilings: H200, data sheet.",
        "Roofline knows the cost of 100 % of GPU time.",
    ):
        assert words in " ".join(said.out.split())
    assert "formulas" not in said.out


def test_json_holds_every_table_with_stable_keys(shell: Shell, recording: Path) -> None:
    (report,) = [shell("roofline", recording, "--format", "json").json]

    assert list(report["tables"]) == ["roofline_totals", "roofline_phases", "roofline"]
    (row,) = report["tables"]["roofline"]
    assert row["flops"] == 2 * 2 * 4096**3
    assert {"op", "name", "lost_ns", "share_of_ceiling", "bound", "verdict"} - {"op"} <= set(row)
    assert report["tables"]["roofline_totals"][0]["known_share"] == 1.0


def test_a_part_can_be_asked_for(shell: Shell, recording: Path) -> None:
    whole = shell("roofline", recording, "-t", "roofline", "-f", "json").json
    one = shell("roofline", recording, "-t", "roofline", "-f", "json", "--step", "1").json
    none = shell("roofline", recording, "--phase", "backward")

    assert whole["tables"]["roofline"][0]["calls"] == 2
    assert one["tables"]["roofline"][0]["calls"] == 1
    assert (none.status, "no GPU work" in none.err) == (4, True)


def test_summarize_shows_the_same_tables(shell: Shell, recording: Path) -> None:
    by_summarize = shell("summarize", recording, "-t", "roofline", "-f", "csv")
    by_roofline = shell("roofline", recording, "-f", "csv")

    assert by_summarize.out == by_roofline.out != ""


def measured_ceilings(file: Path) -> Path:
    """Write what an H200 reached: 4.2 TB/s, and 650 TFLOP/s in bf16."""
    facts: dict[str, Any] = {"median_s": 1e-3, "mad_s": 0.0, "samples_s": [1e-3] * 3, "size": {}}
    results = [
        measured.Result(name, unit, value, **facts, clock="CUDA events")  # type: ignore[arg-type]
        for name, unit, value in (
            ("copy", "bytes_per_s", 4.2e12),
            ("matmul.bf16", "flops_per_s", 650e12),
        )
    ]
    found = measured.Measured("NVIDIA H200", "2026-11-20T12:00:00+00:00", results)
    file.write_text(measured.encode(found), encoding="utf-8")
    return file


def test_measured_ceilings_are_taken_from_a_file_for_this_command_alone(
    shell: Shell, recording: Path, tmp_path: Path
) -> None:
    file = measured_ceilings(tmp_path / "ceilings.json")
    page = tmp_path / "roofline.html"

    said = shell("roofline", recording, "--ceilings", file, "-f", "html", "-o", page)
    (row,) = shell("roofline", recording, "--ceilings", file, "-f", "json").json["tables"][
        "roofline"
    ]

    # 687 TFLOP/s were reached: more than was measured, and possible.
    assert row["verdict"] == "above the measured ceiling"
    assert row["share_of_ceiling"] == pytest.approx(2 * 4096**3 / 200e-6 / 650e12)
    assert said.status == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("measured 2026-11-20 on NVIDIA H200") > 3
    assert "bf16 matmul, 650 TFLOP/s" in text
    assert limits.FILE not in os.environ
    assert shell("roofline", recording, "-f", "json").json["tables"]["roofline"][0]["verdict"] == ""


def test_a_file_of_ceilings_that_is_none_is_refused(
    shell: Shell, recording: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("[1, 2")

    for file in (wrong, tmp_path / "absent.json"):
        said = shell("roofline", recording, "--ceilings", file)
        assert (said.status, said.out) == (3, "")
        assert file.name in said.err


def run_folder(folder: Path, *recordings: tuple[str, str], **changed: Any) -> Path:
    """Return a Run folder with a formula, timed steps of 2 ms, and recordings."""
    product = Work("linear", flops=2 * 4096**3, bytes=3 * 4096**2 * 2, dtype="bf16")
    manifest = Manifest(
        name="matmul", workload="matmul", options={}, program=[], device="cuda", warmup=1, steps=2,
        seed=0, stop=True, created="", command=[],
        cost={"phases": {"forward": [asdict(product)]}},
        passes=[Pass("timer", {}, "done", steps_ns=[2 * MS] * 3)],
        recordings=[File(recorder, path) for recorder, path in recordings],
    )  # fmt: skip
    save(folder, Manifest(**{**vars(manifest), **changed}))
    return folder


def nsys(folder: Path) -> str:
    """Write two steps with a kernel of 200 µs each, without shapes."""
    made = Nsys()
    made.device(0, name="NVIDIA H200")
    main = made.thread("python", pid=100, tid=100)
    for at in (0, MS):
        main.push(f"step {at // MS}", at, at + 900_000)
        main.push("forward", at + 10, at + 800_000)
        main.kernel("nvjet_tst", at=at + 10_000, run=(at + 20_000, at + 220_000))
    return made.write(folder / "run.sqlite").name


def test_a_workloads_formulas_stand_in_for_shapes(shell: Shell, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, ("nsys", nsys(tmp_path)))

    said = shell("roofline", folder, "-f", "json")

    forward, step = said.json["tables"]["roofline_formulas"]
    peak = 989.4e12
    assert said.status == 0
    assert (forward["phase"], forward["time_ns"]) == ("forward", 200_000)
    assert forward["mfu"] == pytest.approx(2 * 4096**3 / peak / 200e-6, rel=1e-3)
    assert (step["phase"], step["time_ns"]) == ("(step)", 2 * MS)
    assert step["mfu"] == pytest.approx(2 * 4096**3 / peak / 2e-3, rel=1e-3)
    assert "record_shapes=True" in said.json["left_out"]["roofline"]
    assert [part["part"] for part in said.json["tables"]["roofline_parts"]] == ["linear"]


def test_of_a_run_folder_the_recording_with_shapes_is_read(shell: Shell, tmp_path: Path) -> None:
    torch = trace().write(tmp_path / "trace.json").name
    folder = run_folder(tmp_path, ("nsys", nsys(tmp_path)), ("torch", torch))

    tables = shell("roofline", folder, "-f", "json").json["tables"]

    assert tables["roofline"][0]["flops"] == 4 * 4096**3
    assert tables["roofline_formulas"][0]["mfu"] == pytest.approx(
        tables["roofline_phases"][0]["mfu"], rel=1e-6
    )


def test_of_someone_elses_program_there_are_no_formulas(shell: Shell, tmp_path: Path) -> None:
    torch = trace().write(tmp_path / "trace.json").name
    folder = run_folder(tmp_path, ("torch", torch), cost={})

    plain = shell("roofline", folder)
    asked = shell("roofline", folder, "-t", "roofline_formulas")

    assert (plain.status, "formula" in plain.out) == (0, False)
    assert asked.status == 4
    assert "there are no formulas" in asked.err


def test_what_cannot_be_shown_is_said(shell: Shell, recording: Path, tmp_path: Path) -> None:
    shapeless = Profile()
    main = shapeless.thread("python3")
    main.op("aten::mm", 0, 20_000)
    main.kernel("gemm", at=10_000, run=(30_000, 40_000))
    bare = shapeless.write(tmp_path / "bare.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"schemaVersion": 1, "traceEvents": 7}')
    picture = tmp_path / "x.svg"

    for words, status, says in (
        ([bare], 4, "record_shapes=True"),
        ([bare, "--figure", picture], 4, "There is nothing to draw"),
        ([broken], 3, "broken.json"),
        ([tmp_path / "absent.json"], 3, "absent.json"),
        ([recording, "-t", "rooflines"], 2, "Did you mean roofline"),
        ([recording, "--figure", tmp_path / "x.gif"], 2, "must end in .html, .svg, .png"),
        ([recording, bare, "--figure", picture], 2, "draws one recording, and there are 2"),
        ([recording, "-o", recording], 2, "is the recording itself"),
        ([recording, "--device", "7"], 2, "No work ran on device 7"),
        ([], 2, "Missing argument"),
    ):
        said = shell("roofline", *words)
        assert (said.status, picture.exists()) == (status, False), words
        assert says in " ".join(said.err.split())


def test_names_of_ops_are_inert_in_every_format(shell: Shell, tmp_path: Path) -> None:
    evil = "triton_poi_fused_<script>alert(1)</script>\x1b[31m=1+1"
    path = trace(name=evil).write(tmp_path / "evil.json")
    page = tmp_path / "evil.html"

    for form in ("text", "markdown", "html", "latex", "csv"):
        said = shell("roofline", path, "-t", "roofline", "-f", form)
        assert said.status == 0
        assert "\x1b" not in said.out
        if form == "html":
            assert "<script>alert" not in said.out
    json.loads(shell("roofline", path, "-f", "json").out)
    # Without FLOP there is no point to draw.
    assert shell("roofline", path, "--figure", page).status == 4


def test_what_is_lost_below_one_ceiling_is_said_once(shell: Shell, tmp_path: Path) -> None:
    found = Profile()
    found.device(0, "NVIDIA H200")
    main = found.thread("python3")
    for at, size, took in ((0, 4096, 200_000), (MS, 2048, 100_000)):
        main.op("aten::mm", at + 1_000, at + 20_000, dims=[[size, size]] * 2, types=HALF)
        main.kernel("nvjet_tst", at=at + 10_000, run=(at + 20_000, at + 20_000 + took))
    recording = found.write(tmp_path / "trace.json")
    by_shape = shell("roofline", recording, "-f", "json").json["tables"]["roofline"]
    lost = sum(row["lost_ns"] for row in by_shape)

    said = " ".join(shell("roofline", recording).out.split())

    assert lost == pytest.approx(300_000 - 1e9 * 2 * (4096**3 + 2048**3) / 989.4e12, abs=50)
    assert (
        f"What matmul.bf16 bounds reaches {100 - lost / 3_000:.0f} % of it and loses "
        f"{lost / 1_000:.1f} µs, {lost / 3_000:.0f} % of GPU time; "
        "aten::mm of 2048x2048, 2048x2048 loses most, 82.6 µs at 17 %."
    ) in said
    assert "aten::mm of 4096x4096" not in said

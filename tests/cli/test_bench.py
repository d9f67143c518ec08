"""`tracelens bench`: what is typed, what is printed, and where it is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import Shell
from tests.ceilings import NAME, SEEN, result
from tracelens import hardware, tools
from tracelens.bench import ceilings, results
from tracelens.hardware import measured
from tracelens.hardware.measured import Failed, Measured

if TYPE_CHECKING:
    from collections.abc import Callable

KERNELS = Path(__file__).parents[2] / "samples" / "kernels-h200.json.gz"


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shell:
    """Give a shell in an empty folder of a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tools, "paths_of", lambda _name: [])
    return Shell(capsys)


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> Callable[[Measured], list[dict[str, Any]]]:
    """Let every measuring find this; return the list of what was asked."""

    def it(found: Measured) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def measure(device: str, say: Callable[[str], None], **options: Any) -> Measured:
            asked.append({"device": device, **options})
            say("Measuring it")
            return found

        monkeypatch.setattr(ceilings, "measure", measure)
        return asked

    return it


def test_ceilings_are_kept_for_the_gpu_and_hold_from_then_on(shell: Shell, measures: Any) -> None:
    asked = measures(SEEN)

    said = shell("bench", "ceilings", "--quick")

    file = measured.place(NAME)
    assert said.status == 0
    assert asked == [{"device": "auto", "quick": True, "ranks": None}]
    assert said.err.splitlines() == ["Measuring it", f"Written to {file}"]
    assert measured.load(file) == SEEN
    held = hardware.ceilings(NAME)
    assert held is not None
    assert held.origin == SEEN.said


def test_the_best_of_each_thing_is_shown_beside_the_data_sheet(shell: Shell, measures: Any) -> None:
    measures(replace(SEEN, failed=[Failed("matmul.fp8", "RuntimeError: no")]))

    said = shell("bench", "ceilings")

    lines = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert lines["Measured"] == "Measured 2026-11-20 on NVIDIA H200, driver 580.95"
    assert "matmul.fp8: RuntimeError: no" in said.out
    assert "4.30 TB/s" in lines["copy"]
    assert "89.6 %" in lines["copy"]
    assert "730.0 TFLOP/s" in lines["matmul.bf16"]
    assert "73.8 %" in lines["matmul.bf16"]
    assert "2.00 µs" in lines["launch"]
    assert "300.0 GB/s" in said.out  # of 450 in one direction
    assert "66.7 %" in said.out


def test_programs_get_every_number(shell: Shell, measures: Any) -> None:
    measures(SEEN)

    said = shell("bench", "ceilings", "-f", "json")

    answer = json.loads(said.out)
    rows = {row["name"]: row for row in answer["tables"]["ceilings"]}
    assert rows["copy"]["bandwidth_bytes_per_s"] == 4.3e12
    assert rows["copy"]["stated_share"] == pytest.approx(4.3 / 4.8)
    assert rows["matmul.bf16"]["flops_per_s"] == 730e12
    assert rows["launch"]["median_ns"] == 2000
    assert answer["devices"] == [{"device": 0, "name": NAME}]


def test_your_own_file_is_replaced_and_a_named_one_is_not(
    shell: Shell, measures: Any, tmp_path: Path
) -> None:
    measures(SEEN)
    shell("bench", "ceilings")
    newer = replace(SEEN, results=[result("copy", 4.0e12)])
    asked = measures(newer)

    assert shell("bench", "ceilings").status == 0
    assert measured.load(measured.place(NAME)) == newer

    (tmp_path / "mine.json").write_text("precious", encoding="utf-8")
    refused = shell("bench", "ceilings", "-o", "mine.json")

    assert refused.status == 2
    assert "mine.json exists already; --force overwrites it." in refused.err
    assert len(asked) == 1  # refused before anything was measured
    assert (tmp_path / "mine.json").read_text(encoding="utf-8") == "precious"
    assert shell("bench", "ceilings", "-o", "mine.json", "--force").status == 0
    assert measured.load(tmp_path / "mine.json") == newer
    assert [file.name for file in tmp_path.iterdir()] == ["mine.json"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ceiling"], "Did you mean ceilings?"),
        (["ceilings", "kernels"], "There is no thing to measure named 'kernels'"),
        (["ceilings", "--device", "gpu"], "write auto, cpu, or the number of a GPU"),
        (["ceilings", "--device", "-1"], "write auto, cpu, or the number of a GPU"),
        (["ceilings", "--ranks", "0"], "--ranks"),
        (["ceilings", "-o", "no/such/folder.json"], "There is no folder"),
        (["ceilings", "--show", "-o", "x.json"], "leave -o out"),
        (["ceilings", "-f", "yaml"], "yaml"),
        (["ceilings", "--shapes", "8x8"], "--shapes is for kernels"),
        (["ceilings", "--dtype", "bf16"], "--dtype is for kernels"),
        (["ceilings", "--tune"], "--tune is for kernels"),
        (["softmax", "--shapes", ""], "--shapes names nothing"),
        (["softmax", "--dtype", ","], "--dtype names nothing"),
        (
            ["softmax", "--table", "benches"],
            "There is no table named 'benches'. Did you mean bench",
        ),
        (["softmax", "--check", "--table", "bench"], "Known: failures, matrix."),
        (["softmax", "--tune", "--table", "bench"], "Known: tuned."),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_measured(
    shell: Shell, measures: Any, arguments: list[str], says: str
) -> None:
    asked = measures(SEEN)

    said = shell("bench", *arguments)

    assert said.status == 2
    assert says in said.err
    assert not asked


def test_what_is_known_is_shown_measured_or_stated(shell: Shell) -> None:
    file = measured.place(NAME)
    file.parent.mkdir(parents=True)
    file.write_text(measured.encode(SEEN), encoding="utf-8")

    said = shell("bench", "ceilings", "--show")

    lines = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert said.status == 0
    assert "NVIDIA H200: H200, Hopper 9.0" in said.out
    assert "measured 2026-11-20 on NVIDIA H200, driver 580.95" in said.out
    assert "NVIDIA H200 Tensor Core GPU (data sheet)" in said.out
    assert lines["bandwidth"].split() == [
        "bandwidth", "4.30", "TB/s", "90", "%", "–", "yes",
    ]  # fmt: skip
    assert lines["vector"].split()[-1] == "no"
    assert "169.8" in lines["matmul.bf16"]  # the ridge, 730 / 4.3


def test_gpus_that_are_here_are_shown_by_their_data_sheet(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "paths_of", lambda _name: ["nvidia-smi"])
    monkeypatch.setattr(
        tools, "ask", lambda *_command: tools.Answer("NVIDIA H200\nNVIDIA H200\nTesla T4\n")
    )

    said = shell("bench", "ceilings", "--show")

    assert said.out.count("NVIDIA H200: H200") == 1
    assert "Tesla T4: T4" in said.out


def test_a_file_that_is_named_is_shown_or_refused(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "h200.json").write_text(measured.encode(SEEN), encoding="utf-8")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")

    shown = shell("bench", "ceilings", "--show", "h200.json")
    refused = shell("bench", "ceilings", "--show", "bad.json")

    assert "4.30 TB/s" in shown.out
    assert refused.status == 3
    assert "bad.json is no file of measured ceilings" in refused.err
    assert len(refused.err.splitlines()) == 1


def test_where_nothing_is_known_it_says_what_to_do(shell: Shell) -> None:
    said = shell("bench", "ceilings", "--show")

    assert said.status == 4
    assert "`tracelens bench ceilings` measures this machine" in said.err


def test_a_damaged_file_of_yours_is_a_warning(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "paths_of", lambda _name: ["nvidia-smi"])
    monkeypatch.setattr(tools, "ask", lambda *_command: tools.Answer(f"{NAME}\n"))
    file = measured.place(NAME)
    file.parent.mkdir(parents=True)
    file.write_text("{", encoding="utf-8")

    said = shell("bench", "ceilings", "--show")

    assert said.status == 0
    assert "Warning" in said.out
    assert "4.80 TB/s" in said.out


def test_hostile_names_are_inert(shell: Shell, measures: Any) -> None:
    hostile = '\x1b[31m<script>alert(1)</script> =cmd|"/c calc"!A1 ](javascript:1) \\input{x}'
    measures(
        replace(
            SEEN,
            device=hostile,
            results=[replace(SEEN.results[0], name=hostile)],
            failed=[Failed(hostile, hostile)],
        )
    )

    for form in ("text", "html", "markdown", "latex", "csv", "json"):
        said = shell("bench", "ceilings", "-f", form)

        assert said.status == 0, said.err
        assert "\x1b" not in said.out
        if form == "html":
            assert "<script>alert" not in said.out
        if form == "latex":
            source = [line for line in said.out.splitlines() if not line.startswith("%")]
            assert "\\input{x}" not in "\n".join(source)


def test_the_gpus_that_are_known_are_listed(shell: Shell) -> None:
    said = shell("list", "hardware")

    assert said.status == 0
    assert len(said.out.splitlines()) == len(hardware.devices())
    assert "  H200 " in said.out
    assert "bf16 989.4 TFLOP/s" in said.out


def test_of_a_file_of_results_one_kernel_can_be_shown(shell: Shell) -> None:
    said = shell("bench", "block-sparse-attention", "--show", str(KERNELS))

    assert said.status == 0, said.err
    assert "Kernels · block-sparse-attention · forward · fp16 · kernel time" in said.out
    assert "softmax" not in said.out


def test_a_kernel_that_a_file_has_nothing_of_is_refused(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    results.save(results.load(KERNELS).only(["softmax"]), file)

    said = shell("bench", "matmul", "--show", str(file))

    assert said.status == 2
    assert "one.json has nothing of matmul, but of softmax." in said.err

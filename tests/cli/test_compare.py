"""The command `compare`, from what is typed to the verdict, the tables and the exit status."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.asking import Shell
from tests.build import Nsys
from tests.loops import Kernel, Loop
from tests.snapshots import MIB, Snapshot
from tracelens.tables.compare.shown import TABLES

if TYPE_CHECKING:
    from tests.asking import Said

SAMPLES = Path(__file__).parents[2] / "samples"
GEMM = "ampere_sgemm_128x64_tn"
SURE = {"slower", "faster", "only in A", "only in B"}


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell."""
    return Shell(capsys)


def loop(seed: int, *, slower: float = 1.0, gemm: str = GEMM, steps: int = 12) -> Loop:
    """Return a loop of three kernels whose steps vary by 1 %."""
    draw = random.Random(seed)  # noqa: S311 (noise, no secret)

    def times(ns: int) -> list[int]:
        return [round(ns * draw.gauss(1, 0.01)) for _ in range(steps)]

    return Loop(
        [
            Kernel(gemm, [round(t * slower) for t in times(600_000)]),
            Kernel("void at::native::vectorized_elementwise_kernel<4, gelu>(int)", times(100_000)),
            Kernel("ampere_sgemm_128x64_nt", times(400_000), phase="backward"),
        ]
    )


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Give a run, and another whose first kernel is 10 % slower."""
    return (
        loop(1).write_nsys(tmp_path / "before.sqlite"),
        loop(2, slower=1.1).write_nsys(tmp_path / "after.sqlite"),
    )


def verdicts(said: Said) -> set[str]:
    tables = said.json["tables"]
    return {row["verdict"] for rows in tables.values() for row in rows if "verdict" in row}


def test_the_verdict_comes_first_then_what_explains_it(
    shell: Shell, runs: tuple[Path, Path]
) -> None:
    said = shell("compare", *runs)
    places = [said.out.index(t) for t in ("slower per step than", "What explains", "By kernel")]

    assert said.status == 0
    assert said.err == ""
    assert said.out.startswith("after.sqlite is ")
    assert places == sorted(places)
    percent, low, high = map(
        float, re.findall(r"\(([\d.]+) %, ([\d.]+) to ([\d.]+) %\)", said.out)[0]
    )
    assert low < percent < high
    assert percent == pytest.approx(100 * 60_000 / 1_119_100, abs=1.5)
    assert "forward · gemm" in said.out


def test_json_has_every_table_and_its_numbers_add_up(shell: Shell, runs: tuple[Path, Path]) -> None:
    document = shell("compare", *runs, "--format", "json").json
    tables = document["tables"]

    assert set(tables) | set(document["left_out"]) == set(TABLES) - {"compare_gates"}
    assert [run["label"] for run in document["source"]["runs"]] == ["before.sqlite", "after.sqlite"]
    step = next(row for row in tables["compare"] if row["what"] == "step")
    whole = sum(row["difference_ns"] for row in tables["compare_explained"])
    assert whole == round(step["difference_ns"])
    assert sum(r["a_ns"] for r in tables["compare_explained"]) == pytest.approx(step["a_ns"])
    gemm = next(r for r in tables["compare_kernel"] if r["was"] == [GEMM])
    assert (gemm["verdict"], gemm["matched"], gemm["a_calls"]) == ("slower", "name", 1)
    assert gemm["low_ns"] < gemm["difference_ns"] < gemm["high_ns"]
    assert gemm["difference_ns"] == pytest.approx(60_000, rel=0.2)
    assert gemm["a_total_ns"] == pytest.approx(12 * gemm["a_ns"])


@pytest.mark.parametrize("seed", range(6))
def test_runs_that_are_alike_do_not_differ(shell: Shell, tmp_path: Path, seed: int) -> None:
    one = loop(100 + seed).write_nsys(tmp_path / "one.sqlite")
    two = loop(200 + seed).write_nsys(tmp_path / "two.sqlite")

    assert verdicts(shell("compare", one, one, "--format", "json")) == {"no difference"}
    assert verdicts(shell("compare", one, two, "--format", "json")) == {"no difference"}


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_slowdown_of_3_percent_is_found(shell: Shell, tmp_path: Path, seed: int) -> None:
    one = loop(300 + seed, steps=10).write_nsys(tmp_path / "one.sqlite")
    two = loop(400 + seed, steps=10, slower=1.06).write_nsys(tmp_path / "two.sqlite")
    said = shell("compare", one, two)

    assert " slower per step than one.sqlite" in said.out.replace("\n", " ")


@pytest.mark.parametrize(
    ("gate", "status"),
    [
        ("total>2%", 1),
        ("total>20%", 0),
        ("phase:forward>20us", 1),
        ("phase:backward>1%", 0),
        (f"kernel:{GEMM}>5%", 1),
        ("memory>1%", 4),
        ("total>2", 2),
        ("phase:optimizer>5%", 2),
    ],
)
def test_a_gate_tells_by_the_exit_status(
    shell: Shell, runs: tuple[Path, Path], gate: str, status: int
) -> None:
    said = shell("compare", *runs, "--gate", gate)

    assert said.status == status
    assert (f"{gate}  regression" in said.out) == (status == 1)
    assert bool(said.err) == (status in (2, 4))
    assert "Traceback" not in said.err


def test_of_several_gates_one_is_enough(shell: Shell, runs: tuple[Path, Path]) -> None:
    gates = ("--gate", "total>50%", "--gate", "memory>1%", "--gate", "total>1%")

    assert shell("compare", *runs, *gates).status == 1
    assert shell("compare", *runs[::-1], *gates[:2]).status == 0


def test_two_steps_are_not_enough(shell: Shell, tmp_path: Path) -> None:
    one, two = (
        loop(i, steps=2, slower=s).write_nsys(tmp_path / f"{i}.sqlite") for i, s in ((1, 1), (2, 2))
    )
    said = shell("compare", one, two, "--by", "all")

    assert said.out.startswith("Not enough steps to tell")
    assert verdicts(shell("compare", one, two, "--format", "json")) == {"too few steps"}
    assert shell("compare", one, two, "--gate", "total>5%").status == 4


def test_a_renamed_kernel_is_shown_as_was_and_is(shell: Shell, tmp_path: Path) -> None:
    one = loop(1).write_nsys(tmp_path / "one.sqlite")
    two = loop(2, gemm="nvjet_hsh_128x64_NNT").write_nsys(tmp_path / "two.sqlite")
    (row,) = (
        row
        for row in shell("compare", one, two, "--format", "json").json["tables"]["compare_kernel"]
        if row["was"] == [GEMM]
    )

    assert row["kernel"] == "ampere_sgemm_128x64_tn → nvjet_hsh_128x64_NNT"
    assert (row["now"], row["matched"]) == (["nvjet_hsh_128x64_NNT"], "phase, calls and grid")
    assert row["verdict"] == "no difference"


def test_markdown_is_a_comment_with_the_verdict_first(
    shell: Shell, runs: tuple[Path, Path]
) -> None:
    said = shell("compare", *runs, "--format", "markdown", "--gate", "total>2%")

    assert said.status == 1
    assert said.out.startswith("**after.sqlite is ")
    assert said.out.count("<details>") == said.out.count("</details>") > 1
    before, _, folded = said.out.partition("<details>")
    assert "| `total>2%` | regression |" in re.sub(r" +", " ", before)
    assert "What explains the difference" in before
    assert GEMM in folded
    assert GEMM not in before


def test_csv_holds_the_table_that_was_asked_for(shell: Shell, runs: tuple[Path, Path]) -> None:
    rows = list(csv.DictReader(io.StringIO(shell("compare", *runs, "-f", "csv").out)))
    kernels = shell("compare", *runs, "-f", "csv", "--by", "kernel").out
    named = shell("compare", *runs, "-f", "csv", "--table", "compare_kernel").out

    assert [row["what"] for row in rows] == ["step", "GPU busy", "GPU idle", "kernel time"]
    assert kernels == named
    assert json.loads(next(csv.DictReader(io.StringIO(kernels)))["was"]) == [GEMM]
    assert "Add --table NAME" in shell("compare", *runs, "-f", "csv", "--by", "all").err


@pytest.mark.parametrize("form", ["html", "latex"])
def test_other_formats_show_it_too(shell: Shell, runs: tuple[Path, Path], form: str) -> None:
    said = shell("compare", *runs, "--format", form, "--by", "all")

    assert said.status == 0
    assert "GPU busy" in said.out


def test_several_runs_are_compared_with_the_first(
    shell: Shell, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    third = loop(3).write_nsys(tmp_path / "third.sqlite")
    said = shell("compare", *runs, third, "--format", "json")
    rows = [row for row in said.json["tables"]["compare"] if row["what"] == "step"]

    assert [(row["run"], row["verdict"]) for row in rows] == [
        ("after.sqlite", "slower"),
        ("third.sqlite", "no difference"),
    ]
    assert shell("compare", runs[0], third, runs[1], "--gate", "total>2%").status == 1
    assert shell("compare", *runs, third).status == 0


def test_paths_of_one_name_are_turns_of_one_run(shell: Shell, tmp_path: Path) -> None:
    # The machine drifts by 4 % from one recording to the next; A B B A cancels that out.
    files = [
        loop(i, slower=1 + 0.04 * i, steps=6).write_nsys(tmp_path / f"{i}.sqlite") for i in range(4)
    ]
    turns = [f"{name}={file}" for name, file in zip("abba", files, strict=True)]
    in_turns = shell("compare", *turns, "--format", "json").json
    one_after_other = shell("compare", files[0], files[3], "--format", "json").json

    assert [run["label"] for run in in_turns["source"]["runs"]] == ["a", "b"]
    assert [run["steps"] for run in in_turns["source"]["runs"]] == [12, 12]
    assert in_turns["tables"]["compare"][0]["verdict"] == "no difference"
    assert one_after_other["tables"]["compare"][0]["verdict"] == "slower"


def test_three_turns_each_are_the_samples(shell: Shell, tmp_path: Path) -> None:
    # Each start of the program has a speed of its own: steps of one start tell nothing of that.
    speeds = [1.0, 1.1, 1.05, 1.12, 0.98, 1.03]
    files = [
        loop(i, slower=speed, steps=6).write_nsys(tmp_path / f"{i}.sqlite")
        for i, speed in enumerate(speeds)
    ]
    turns = [f"{name}={file}" for name, file in zip("ababab", files, strict=True)]
    document = shell("compare", *turns, "--format", "json").json

    assert document["tables"]["compare"][0]["verdict"] == "no difference"
    assert (
        shell("compare", files[0], files[1], "--format", "json").json["tables"]["compare"][0][
            "verdict"
        ]
        == "slower"
    )


def test_another_gpu_and_another_recorder_are_caveats(shell: Shell, tmp_path: Path) -> None:
    one = loop(1).write_nsys(tmp_path / "one.sqlite")
    other = Loop(loop(2).kernels, gpu="NVIDIA A100-SXM4-40GB").write_kineto(tmp_path / "two.json")
    said = shell("compare", one, other, "--format", "json")
    warnings = " ".join(said.json["warnings"])

    assert said.status == 0
    assert "A ran on NVIDIA H200, B on NVIDIA A100-SXM4-40GB" in warnings
    assert "The recorders differ (nsys-sqlite and kineto-json)" in warnings


def test_the_same_recording_in_another_format_does_not_differ(shell: Shell, tmp_path: Path) -> None:
    kineto = loop(1).write_kineto(tmp_path / "run.json")
    nsys = tmp_path / "run.sqlite"
    assert shell("export", kineto, "--to", "nsys-sqlite", "-o", nsys).status == 0
    document = shell("compare", nsys, kineto, "--format", "json").json

    assert verdicts(shell("compare", nsys, kineto, "--format", "json")) == {"no difference"}
    assert all(row["difference_ns"] == 0 for row in document["tables"]["compare_kernel"])
    assert [row["matched"] for row in document["tables"]["compare_kernel"]] == ["name"] * 3


def test_a_sample_in_another_format_does_not_differ(shell: Shell, tmp_path: Path) -> None:
    kineto = SAMPLES / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz"
    nsys = tmp_path / "run.sqlite"
    assert shell("export", kineto, "--to", "nsys-sqlite", "-o", nsys).status == 0
    tables = shell("compare", nsys, kineto, "--format", "json").json["tables"]

    assert max(abs(row["difference_ns"]) for row in tables["compare_explained"]) <= 1_000
    assert {row["verdict"] for row in tables["compare_kernel"]} == {"too few steps"}
    assert {row["matched"] for row in tables["compare_kernel"]} <= {"name", "spelling"}


@pytest.mark.parametrize("sample", ["gpt2-xl-ctx256-h200", "gpt2-medium-ddp-h200x2"])
def test_a_sample_does_not_differ_from_itself(shell: Shell, sample: str) -> None:
    document = shell("compare", SAMPLES / sample, SAMPLES / sample, "--format", "json").json

    assert not verdicts(shell("compare", SAMPLES / sample, SAMPLES / sample, "-f", "json")) & SURE
    for rows in document["tables"].values():
        for row in rows:
            assert not row.get("difference_ns")
            assert not row.get("difference_bytes")


def test_what_explains_the_difference_of_two_samples(shell: Shell) -> None:
    small, ddp = (SAMPLES / n for n in ("gpt2-small-ctx512-bf16-h200", "gpt2-medium-ddp-h200x2"))
    document = shell("compare", small, ddp, "--format", "json").json
    tables = document["tables"]

    # The table `steps` of each rank says the same: (66.3 + 86.2) / 2 and (86.5 + 67.3) / 2 ms.
    step = tables["compare"][0]
    assert round(step["a_ns"]) == 76_250_608
    assert sum(r["difference_ns"] for r in tables["compare_explained"]) == round(
        step["difference_ns"]
    )
    largest = tables["compare_explained"][0]
    assert (largest["phase"], largest["family"]) == ("backward", "comm")
    assert {row["device"] for row in tables["compare_memory"]} == {0, 1}
    assert any("A has 1 GPU, B 2" in text for text in document["warnings"])


def test_one_rank_of_several_can_be_picked(shell: Shell) -> None:
    ddp = SAMPLES / "gpt2-medium-ddp-h200x2"
    document = shell("compare", ddp, ddp, "--rank", 1, "--format", "json").json

    assert [run["gpu_count"] for run in document["source"]["runs"]] == [1, 1]


def test_snapshots_are_compared_by_their_memory(shell: Shell, tmp_path: Path) -> None:
    files = []
    for name, blocks in (("before", 2), ("after", 3)):
        snapshot = Snapshot()
        for _ in range(blocks):
            snapshot.device().alloc(8 * MIB)
        files.append(snapshot.write(tmp_path / f"{name}.pickle"))
    said = shell("compare", *files)

    assert said.status == 0
    assert said.out.startswith("after.pickle peaks 8.00 MiB (50 %) more than before.pickle")
    assert shell("compare", *files, "--gate", "memory>40%").status == 1
    assert shell("compare", *files, "--gate", "memory>60%").status == 0


def test_steps_timed_without_a_profiler_are_the_verdict(
    shell: Shell, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    folders = []
    for name, run, step in (("a", runs[0], 1_000_000), ("b", runs[1], 1_200_000)):
        folder = tmp_path / name
        folder.mkdir()
        run.rename(folder / "run.sqlite")
        timer = {"recorder": "timer", "state": "done", "steps_ns": [step + i for i in range(20)]}
        manifest = {"recordings": [{"path": "run.sqlite"}], "passes": [timer]}
        (folder / "run.json").write_text(json.dumps(manifest))
        folders.append(folder)
    said = shell("compare", *folders)
    rows = shell("compare", *folders, "--format", "json").json["tables"]["compare"]

    assert said.out.startswith("b is 200.0 µs (20 %, 20 to 20 %) slower per step without")
    assert [row["what"] for row in rows][:2] == ["step", "step as recorded"]
    assert rows[0]["difference_ns"] == pytest.approx(200_000)
    assert rows[1]["difference_ns"] == pytest.approx(60_000, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{0}",), "two runs"),
        (("{0}", "{1}", "--by", "phaze"), "phase"),
        (("{0}", "{1}", "--table", "compare_kernels"), "Did you mean compare_kernel"),
        (("a={0}", "a={1}"), "one name"),
        (("{0}", "{1}", "--figure", "x.pdf"), ".svg"),
        (("{0}", "{1}", "--format", "markdwn"), "markdown"),
    ],
)
def test_wrong_requests_exit_2_and_say_what_to_do(
    shell: Shell, runs: tuple[Path, Path], arguments: tuple[str, ...], said: str
) -> None:
    found = shell("compare", *(argument.format(*runs) for argument in arguments))

    assert found.status == 2
    assert said in found.err
    assert found.out == ""


def test_what_cannot_be_read_exits_3(shell: Shell, runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no trace")

    assert shell("compare", runs[0], tmp_path / "text.txt").status == 3
    assert shell("compare", runs[0], tmp_path / "absent.sqlite").status == 3


def test_a_folder_of_several_runs_is_none(shell: Shell, runs: tuple[Path, Path]) -> None:
    said = shell("compare", runs[0].parent, runs[0])

    assert said.status == 2
    assert "not the ranks of one run" in said.err


def test_output_goes_to_a_file_and_never_over_one(
    shell: Shell, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "comment.md"

    assert shell("compare", *runs, "-f", "markdown", "-o", output).status == 0
    assert output.read_text().startswith("**after.sqlite is ")
    assert shell("compare", *runs, "-o", output).status == 2
    assert shell("compare", *runs, "-o", runs[0], "--force").status == 2


HOSTILE = (
    "<script>alert(1)</script>_gemm",
    "=cmd()_gemm",
    "a|b`c`_gemm",
    "[x](javascript:alert(1))_gemm",
    "\x1b[31mred_gemm",
    "\\end{tabular}\\input{/etc/passwd}_gemm",
    "</details><b>_gemm",
)


@pytest.mark.parametrize("form", ["text", "markdown", "html", "latex"])
def test_names_are_inert_in_every_output(shell: Shell, tmp_path: Path, form: str) -> None:
    paths = []
    for mark in "ab":
        kernels = [Kernel(f"{name}{mark}", [1_000 * (i + 1)] * 4) for i, name in enumerate(HOSTILE)]
        hostile = Loop(kernels, gpu="<i>gpu</i>").write_nsys(tmp_path / f"{mark}.sqlite")
        paths.append(hostile)
    named = shell("compare", f"<b>={paths[0]}", f"`|y={paths[1]}", "--by", "all", "--format", form)

    assert named.status == 0
    assert "\x1b" not in named.out
    if form == "html":
        assert "<script" not in named.out
        assert "<i>" not in named.out
    if form == "markdown":
        outside = re.sub(r"(`+).*?\1", "", named.out)
        assert "<script" not in outside
        assert not re.search(r"(?<!\\)<(?!/?(details|summary)>|!--)", outside)
        assert named.out.count("<details>") == len(
            re.findall("^</details>$", named.out, re.MULTILINE)
        )
    if form == "latex":
        assert "\\input" not in named.out


@pytest.mark.corpus
def test_before_and_after_of_a_real_change(shell: Shell, corpus: Path) -> None:
    folder = corpus / "nsys"
    files = [folder / f"torchrun-h100x2-{name}.sqlite" for name in ("before", "after")]
    tables = shell("compare", *files, "--format", "json").json["tables"]

    for file, column in zip(files, ("a_total_ns", "b_total_ns"), strict=True):
        own = shell("summarize", file, "--format", "json").json["tables"]["totals"][0]
        kinds = ("kernel", "copy", "memset")
        whole = sum(own[f"{kind}_time_ns"] for kind in kinds)
        assert sum(row[column] for row in tables["compare_kernel"]) == whole
    step = tables["compare"][0]
    assert sum(r["difference_ns"] for r in tables["compare_explained"]) == round(
        step["difference_ns"]
    )


def test_a_recording_without_gpu_work_is_compared_by_what_the_cpu_did(
    shell: Shell, tmp_path: Path
) -> None:
    from tests.kineto import Profile

    paths = []
    for name, took in (("a", 10_000), ("b", 14_000)):
        trace = Profile()
        main = trace.thread("python3")
        for step in range(5):
            at = 100_000 * step + 13 * step * step
            main.annotation(f"step {step}", at, at + 20_000 + took)
            main.annotation("forward", at + 100, at + 200 + took)
            main.op("aten::mm", at + 150, at + 150 + took)
        paths.append(trace.write(tmp_path / f"{name}.json"))
    tables = shell("compare", *paths, "--format", "json").json["tables"]

    (total,) = tables["compare"]
    assert (total["what"], total["difference_ns"], total["verdict"]) == ("step", 4_000, "slower")
    largest = tables["compare_explained"][0]
    assert (largest["phase"], largest["difference_ns"]) == ("forward", 4_000)
    assert [r["name"] for r in tables["compare_op"]] == ["aten::mm"]
    text = shell("compare", *paths).out
    assert "By PyTorch op" in text
    assert "GPU busy" not in text


def test_ranges_are_compared_by_their_time_on_the_cpu(shell: Shell, tmp_path: Path) -> None:
    paths = []
    for name, took in (("a", 1_000), ("b", 1_500)):
        trace = Nsys()
        main = trace.thread("python")
        for step in range(4):
            at = 100_000 * step
            main.push(f"step {step}", at, at + 50_000)
            main.push("attention", at + 10, at + 10 + took).push(
                "attention", at + 5_000, at + 6_000
            )
            main.kernel("k", at=at + 20, run=(at + 30, at + 40))
        paths.append(trace.write(tmp_path / f"{name}.sqlite"))
    (row,) = shell("compare", *paths, "-f", "json").json["tables"]["compare_range"]

    assert (row["name"], row["a_ns"], row["b_ns"], row["b_calls"]) == ("attention", 2_000, 2_500, 2)
    assert row["verdict"] == "slower"
    assert row["difference_ns"] == 500


def test_a_profiler_that_slows_steps_down_is_told(shell: Shell) -> None:
    """131 ms a step with stacks, 31 without; the replayed graph is hardly slowed down."""
    both = (SAMPLES / f"capture-gpt2-small-ctx512-{of}-h200" for of in ("stacks", "graph"))

    said = shell("compare", *both, "-f", "json").json

    (slowed,) = [text for text in said["warnings"] if "under the profiler" in text]
    assert slowed.startswith("A: under the profiler a step takes 130.8 ms instead of 31.4 ms")


def timings(folder: Path, *steps_ns: int) -> Path:
    """Write a Run folder that holds nothing but times of steps."""
    folder.mkdir()
    timer = {"recorder": "timer", "state": "done", "steps_ns": steps_ns}
    machine = {"gpus": [{"name": "NVIDIA H200"}]}
    said = {"passes": [timer], "recordings": [], "machine": machine, "options": {}}
    (folder / "run.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def test_runs_that_were_only_timed_are_compared_by_their_steps(
    shell: Shell, tmp_path: Path
) -> None:
    before = timings(tmp_path / "before", *(1_000_000 + 100 * i for i in range(20)))
    after = timings(tmp_path / "after", *(1_200_000 + 100 * i for i in range(20)))
    recorded = SAMPLES / "capture-gpt2-small-ctx512-graph-h200"

    said = shell("compare", before, after)
    gated = shell("compare", before, after, "--gate", "total>5%")
    beside = shell("compare", before, recorded, "-f", "json").json

    assert said.status == 0
    assert said.out.startswith("after is 200.0 µs (20 %")
    assert "slower per step without a profiler than before" in said.out.replace("\n", " ")
    assert "before · NVIDIA H200 · nothing recorded · 20 steps timed without a profiler" in (
        " ".join(said.out.split())
    )
    assert gated.status == 1
    (row,) = beside["tables"]["compare"]
    assert (row["what"], row["verdict"]) == ("step", "slower")
    assert "compare_explained" in beside["left_out"]


def test_a_run_folder_without_any_times_or_recordings_is_refused(
    shell: Shell, tmp_path: Path
) -> None:
    empty, other = timings(tmp_path / "empty"), timings(tmp_path / "other", 1, 2, 3)

    said = shell("compare", empty, other)

    assert said.status == 3
    assert "holds no recording" in said.err

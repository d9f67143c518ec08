"""The command `tracelens report`: what it says of each kind of run, and what it never does."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import pytest

from tests import ceilings
from tests.asking import Shell
from tests.build import Nsys, training_step
from tests.kineto import Profile
from tests.kineto import training_step as torch_step
from tests.ranks import write_ranks
from tests.reports import story
from tests.snapshots import training
from tracelens import units
from tracelens.reports.build import ORDER, sections

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES: Final = Path(__file__).parents[2] / "samples"
XL: Final = SAMPLES / "gpt2-xl-ctx256-h200"

ASKED: Final = {
    "GPU model, driver and CUDA version": (
        "## Hardware and circumstances",
        "NVIDIA H200, 132 SMs",
        "| driver | 580.95.05 |",
        "| CUDA of PyTorch | 13.0 |",
    ),
    "results: what was tested, and how long it took": (
        "| workload | gpt2-tiny |",
        "ctx 256",
        "Step time without a profiler",
    ),
    "speed-ups over a baseline, drawn": ("Step time and speed-up", "step_time_drawn.svg"),
    "a view over time": ("## A step over time", "timeline-1.svg"),
    "top kernels by time": ("## Top kernels", "`ampere_sgemm_128x64_tn`"),
    "use of memory bandwidth and of compute": ("Use of compute and of memory bandwidth",),
    "analysis: bottlenecks, and what to try": ("## Findings", "To try: "),
    "comparison": ("## Comparison", "A is base"),
    "circumstances of the numbers": ("What recording costs", "warm-up", "seed 7"),
    "provenance": ("## Appendix: provenance", "SHA-256"),
}
"""What readers of performance reports ask for, and where ours has it."""


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Return a shell in which to run tracelens."""
    return Shell(capsys)


def recording(folder: Path, name: str = "run.sqlite", steps: int = 3) -> Path:
    """Return an export of steps of training."""
    trace = Nsys()
    trace.device(0, "NVIDIA H200")
    end = 0
    for number in range(steps):
        begin, end = end, training_step(trace, end).end_ns
        trace.thread("python").push(f"step {number}", begin, end)
    return trace.write(folder / name)


def run_folder(folder: Path, median_ns: int) -> Path:
    """Return a Run folder as a capture leaves it: timed steps and an nsys recording."""
    folder.mkdir()
    recording(folder)
    timed = [median_ns - 10, median_ns, median_ns + 10, median_ns - 5, median_ns + 5]
    manifest: dict[str, Any] = {
        "name": "gpt2-tiny", "workload": "gpt2", "options": {"ctx": 256, "compile": False},
        "program": [], "device": "cuda", "warmup": 3, "steps": 5, "seed": 7, "stop": True,
        "created": "2026-11-20T10:00:00+00:00", "command": ["tracelens", "capture", "gpt2-tiny"],
        "cost": {"flops": 10**9, "parameters": 1000, "items": 512, "unit": "tokens"},
        "machine": {
            "cuda": "13.0", "versions": {"torch": "2.11.0"}, "python": "3.12.1",
            "gpus": [{"name": "NVIDIA H200"}],
            "nvidia_smi": [{"driver_version": "580.95.05", "power.limit": "700.00 W"}],
        },
        "passes": [
            {"recorder": "timer", "state": "done", "steps_ns": timed},
            {"recorder": "nsys", "state": "done", "steps_ns": [2 * ns for ns in timed]},
        ],
        "recordings": [{"recorder": "nsys", "path": "run.sqlite"}],
        "tracelens": "0.1.0",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(manifest))
    return folder


def titles(text: str) -> list[str]:
    return re.findall(r"^## (.*)$", text, flags=re.MULTILINE)


def test_what_readers_of_performance_reports_ask_for_is_there(shell: Shell, tmp_path: Path) -> None:
    base, new = run_folder(tmp_path / "base", 3_000), run_folder(tmp_path / "new", 2_000)

    said = shell("report", base, new, "-o", tmp_path / "r.md")

    assert said.status == 0, said.err
    text = (tmp_path / "r.md").read_text()
    missing = {need: t for need, parts in ASKED.items() for t in parts if t not in text}
    assert not missing


def test_a_run_folder_tells_steps_without_a_profiler_and_what_recording_costs(
    shell: Shell, tmp_path: Path
) -> None:
    text = shell("report", run_folder(tmp_path / "run", 3_000)).out

    assert "A step takes 3.00 µs without a profiler (median of 5 steps" in text
    assert "What recording costs: nsys makes a step 100 % longer." in text
    assert "That is 170,666,667 tokens/s." in text  # 512 tokens in 3 µs
    assert "| power limit | 700.00 W |" in text
    assert "ctx 256, compile off" in text


def test_a_baseline_is_what_the_others_are_faster_than(shell: Shell, tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / name, ns) for name, ns in (("a", 3_000), ("b", 2_000))]

    shell("report", *runs, "-o", tmp_path / "r.md")

    drawn = (tmp_path / "r_files" / "step_time_drawn.svg").read_text()
    assert "2.00 µs, 1.50×" in drawn


def test_numbers_of_the_summary_are_those_of_the_expected_tables(shell: Shell) -> None:
    def rows(name: str) -> list[dict[str, str]]:
        text = (XL / "expected" / f"{name}.csv").read_text(encoding="utf-8")
        return list(csv.DictReader(text.splitlines()))

    text = shell("report", XL / "run.sqlite.gz").out

    (totals,) = rows("totals")
    busy, span, idle = (int(totals[f"{what}_ns"]) for what in ("busy", "span", "idle"))
    assert (
        f"The GPU works {units.time(busy)} of {units.time(span)} ({units.share(busy / span)}), "
        f"and idles {units.time(idle)} (table totals)."
    ) in text
    family: dict[str, int] = {}
    for row in rows("families"):
        family[row["family"]] = family.get(row["family"], 0) + int(row["kernel_time_ns"])
    gemm = units.share(family["gemm"] / sum(family.values()))
    assert f"By kind of work: gemm {gemm}, elementwise" in text
    top = rows("kernels")[0]
    assert f"{units.time(int(top['total_ns']))} in {top['calls']} calls" in text


def test_a_report_of_a_sample_says_the_peak_that_its_snapshot_holds(shell: Shell) -> None:
    text = shell("report", XL).out

    expected = (XL / "expected" / "memory" / "devices.csv").read_text(encoding="utf-8")
    (row,) = csv.DictReader(expected.splitlines())
    peak = units.size(int(row["peak_active_bytes"]))
    assert f"Memory peaks at {peak}, in {row['peak_phase']} of step {row['peak_step']}" in text
    assert "GPU work and memory by phase and step" in text


@pytest.mark.parametrize("suffix", ["md", "html", "tex"])
def test_the_same_files_give_the_same_report_byte_for_byte(
    shell: Shell, tmp_path: Path, suffix: str
) -> None:
    path = recording(tmp_path)

    for name in ("a", "b"):
        shell("report", path, "-o", tmp_path / f"{name}.{suffix}", "--attach", tmp_path / name)

    first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("a", "b"))
    assert first.replace(b"a_files", b"b_files") == second
    inside = {
        name: {
            str(file.relative_to(tmp_path / name)): file.read_bytes()
            for file in (tmp_path / name).rglob("*")
            if file.is_file()
        }
        for name in ("a", "b")
    }
    assert inside["a"] == inside["b"]
    assert len(inside["a"]) > 20


def test_a_date_is_said_if_it_was_given(shell: Shell, tmp_path: Path) -> None:
    path = recording(tmp_path)

    assert "\n\n20 November 2026\n\n" in shell("report", path, "--date", "20 November 2026").out
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", shell("report", path).out)


def test_provenance_has_the_hash_of_every_file(shell: Shell, tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", 3_000)

    text = shell("report", run).out

    content = (run / "run.sqlite").read_bytes()
    row = next(line for line in text.splitlines() if line.startswith("| `run.sqlite`"))
    assert hashlib.sha256(content).hexdigest() in row
    assert f"{len(content):,}" in row


def test_nothing_is_written_beside_the_input(shell: Shell, tmp_path: Path) -> None:
    there, elsewhere = tmp_path / "in", tmp_path / "out"
    there.mkdir()
    elsewhere.mkdir()
    path = recording(there)
    before = path.read_bytes()

    said = shell("report", path, "-o", elsewhere / "r.md", "--attach", elsewhere / "more")

    assert said.status == 0
    assert [file.name for file in there.iterdir()] == ["run.sqlite"]
    assert path.read_bytes() == before
    assert sorted(file.name for file in elsewhere.iterdir()) == ["more", "r.md", "r_files"]


def test_printed_markdown_names_no_figures(shell: Shell, tmp_path: Path) -> None:
    assert "![" not in shell("report", recording(tmp_path)).out


def test_figures_that_markdown_names_are_there(shell: Shell, tmp_path: Path) -> None:
    shell("report", recording(tmp_path), "-o", tmp_path / "my report.md")

    text = (tmp_path / "my report.md").read_text()
    named = re.findall(r"!\[.*\]\(<my%20report_files/(.*)>\)", text)
    assert sorted(named) == sorted(p.name for p in (tmp_path / "my report_files").iterdir())
    assert "timeline.svg" in named


@pytest.mark.parametrize("existing", ["r.md", "r_files", "more"])
def test_nothing_is_overwritten_without_force(shell: Shell, tmp_path: Path, existing: str) -> None:
    path = recording(tmp_path)
    ours = ("r.md", "r_files/old.svg", "more/old.csv")
    for name in ours:
        if name.startswith(existing):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("mine")
    asked = ("report", path, "-o", tmp_path / "r.md", "--attach", tmp_path / "more")

    said = shell(*asked)

    assert said.status == 2
    assert "--force" in said.err
    assert shell(*asked, "--force").status == 0
    assert not list(tmp_path.rglob("old.*"))


@pytest.mark.parametrize("option", ["-o", "--attach"])
def test_force_removes_nothing_that_is_not_ours(shell: Shell, tmp_path: Path, option: str) -> None:
    path = recording(tmp_path)
    folder = tmp_path / "r_files"
    folder.mkdir()
    (folder / "thesis.docx").write_text("mine")
    place = tmp_path / "r.md" if option == "-o" else folder

    said = shell("report", path, option, place, "--force")

    assert said.status == 2
    assert "thesis.docx" in said.err
    assert (folder / "thesis.docx").read_text() == "mine"


def test_a_folder_that_cannot_be_replaced_stays_as_it_was(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recording(tmp_path)
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "old.csv").write_text("mine")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    said = shell("report", path, "--attach", folder, "--force")

    assert (said.status, "No space left" in said.err) == (2, True)
    assert (folder / "old.csv").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["more", "run.sqlite"]


def test_a_folder_of_recordings_is_not_replaced(shell: Shell, tmp_path: Path) -> None:
    table = tmp_path / "run.csv"
    folder = tmp_path / "in"
    folder.mkdir()
    path = recording(folder)

    said = shell("report", path, "--attach", folder, "--force")

    assert said.status == 2
    assert path.exists()
    assert not table.exists()


@pytest.mark.parametrize(
    ("output", "hint"),
    [("r.pdf", "pdflatex makes the .pdf"), ("r.docx", "must end in .md"), ("r", "must end in")],
)
def test_other_endings_are_refused_with_a_hint(
    shell: Shell, tmp_path: Path, output: str, hint: str
) -> None:
    said = shell("report", recording(tmp_path), "-o", tmp_path / output)

    assert said.status == 2
    assert hint in said.err


def test_a_format_that_is_named_overrides_the_ending(shell: Shell, tmp_path: Path) -> None:
    shell("report", recording(tmp_path), "-o", tmp_path / "r.txt", "--format", "latex")

    assert r"\documentclass" in (tmp_path / "r.txt").read_text()


def test_what_is_no_recording_ends_with_3(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no trace")

    said = shell("report", path, "-o", tmp_path / "r.md")

    assert (said.status, list(tmp_path.iterdir())) == (3, [path])


def test_a_recording_of_nothing_ends_with_4_and_leaves_no_file(
    shell: Shell, tmp_path: Path
) -> None:
    path = Nsys().write(tmp_path / "empty.sqlite")

    said = shell("report", path, "-o", tmp_path / "r.md")

    assert said.status == 4
    assert "Nothing to report of" in said.err
    assert list(tmp_path.iterdir()) == [path]


def test_a_snapshot_alone_is_a_report_on_memory(shell: Shell, tmp_path: Path) -> None:
    path = training(steps=2).write(tmp_path / "train.pickle")

    text = shell("report", path).out

    assert "Memory" in titles(text)
    assert "Top kernels" not in titles(text)
    assert "Memory peaks at" in text
    assert "Top kernels: a memory snapshot alone: GPU work was not recorded" in text


def test_a_trace_of_the_cpu_alone_is_a_report_on_the_cpu(shell: Shell, tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    main.annotation("ProfilerStep#1", 0, 100_000)
    main.op("aten::mm", 10_000, 50_000)
    path = trace.write(tmp_path / "cpu.json")

    text = shell("report", path).out

    assert "CPU time of PyTorch ops" in text
    assert "GPU work in all" not in text
    assert "A step takes 100.0 µs on the CPU while it is recorded (one step" in text


def test_without_kernels_a_report_shows_what_else_was_recorded(
    shell: Shell, tmp_path: Path
) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("reader", 0, 100)
    main.call("cudaFree_v3020", 10, 90)
    path = trace.write(tmp_path / "run.sqlite")

    said = shell("report", path)

    assert said.status == 0
    assert "`reader`" in said.out
    assert "cudaFree" in said.out


def test_where_graphs_hide_the_kernels_no_kernel_is_said_to_take_most_time(
    shell: Shell, tmp_path: Path
) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("gemm", at=0, run=(10, 20))
    main.graph(at=30, run=(40, 4_000), graph_id=1)
    path = trace.write(tmp_path / "run.sqlite")

    text = shell("report", path).out

    assert "CUDA graphs launched as a whole" in text
    assert "The kernel that takes most time" not in text


def test_ranks_of_one_job_are_one_run(shell: Shell, tmp_path: Path) -> None:
    job = write_ranks(tmp_path / "job", (((5_000, 9_000),), ((7_000, 8_000),)))

    text = shell("report", job, "-o", tmp_path / "r.html").err
    page = (tmp_path / "r.html").read_text()

    assert not text
    assert "Ranks and communication" in page
    assert "GPU time by phase, all ranks" in page


def test_a_folder_of_ranks_and_a_file_are_two_runs(shell: Shell, tmp_path: Path) -> None:
    job = write_ranks(tmp_path / "job", (((5_000, 9_000),), ((7_000, 8_000),)))

    text = shell("report", job, recording(tmp_path)).out

    assert text.startswith("# Performance of job and run.sqlite\n")
    assert text.count("### job") == text.count("### run.sqlite") > 4


def test_recordings_of_one_name_are_told_apart_by_their_folders(
    shell: Shell, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    text = shell("report", *(recording(tmp_path / name) for name in ("a", "b"))).out

    assert "### a/run.sqlite" in text
    assert "### b/run.sqlite" in text


def test_a_run_that_cannot_be_compared_is_reported_all_the_same(
    shell: Shell, tmp_path: Path
) -> None:
    work = recording(tmp_path)
    memory = training(steps=2).write(tmp_path / "train.pickle")

    said = shell("report", work, memory)

    assert said.status == 0
    assert "Top kernels" in titles(said.out)
    assert "Memory" in titles(said.out)


def test_targets_are_held_against_the_runs(shell: Shell) -> None:
    targets = SAMPLES.parent / "docs" / "targets" / "training-step.toml"

    text = shell("report", XL, "--targets", targets).out

    assert "Targets" in titles(text)
    graded = shell("grade", XL, "--targets", targets, "--format", "markdown").out
    rows = [re.sub(" +", " ", line) for line in graded.splitlines() if " fail " in line]
    assert rows
    assert set(rows) <= {re.sub(" +", " ", line) for line in text.splitlines()}


def test_ops_with_shapes_are_drawn_below_the_roofline(shell: Shell, tmp_path: Path) -> None:
    sample = SAMPLES / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz"

    shell("report", sample, "-o", tmp_path / "r.md")

    text = (tmp_path / "r.md").read_text()
    (row,) = shell("roofline", sample, "-t", "roofline_totals", "--format", "json").json["tables"][
        "roofline_totals"
    ]
    assert f"the GPU reaches {units.share(row['mfu'])} of its rate" in text
    drawn = ET.parse(tmp_path / "r_files" / "roofline_drawn.svg")  # noqa: S314 (our own)
    assert len(drawn.findall(".//{http://www.w3.org/2000/svg}circle")) > 20


def test_measured_ceilings_take_the_place_of_the_data_sheet(shell: Shell, tmp_path: Path) -> None:
    path = recording(tmp_path)
    file = ceilings.written(tmp_path / "ceilings.json")

    text = shell("report", path, "--ceilings", file).out

    measured = "bf16 matmul 730.0 TFLOP/s, memory 4.30 TB/s, a launch 2.00 µs"
    assert f"measured 2026-11-20 on NVIDIA H200, driver 580.95: {measured}" in text
    assert "; measured" not in shell("report", path).out
    assert "memory 4.80 TB/s" in shell("report", path).out


def test_a_file_of_ceilings_that_is_none_ends_with_3(shell: Shell, tmp_path: Path) -> None:
    path = recording(tmp_path)

    assert shell("report", path, "--ceilings", path).status == 3


def test_the_page_on_the_command_quotes_what_it_writes(shell: Shell) -> None:
    page = (SAMPLES.parent / "docs" / "commands" / "report.md").read_text(encoding="utf-8")
    quoted = page.partition("```markdown\n")[2].partition("```")[0].splitlines()

    written = shell("report", SAMPLES / "gpt2-small-ctx512-bf16-h200").out.splitlines()

    assert len(quoted) > 10
    assert {line for line in quoted if line != "…"} <= set(written)


def test_the_comparison_is_that_of_compare(shell: Shell, tmp_path: Path) -> None:
    runs = [recording(tmp_path, f"{name}.sqlite") for name in ("a", "b")]

    text = shell("report", *runs).out
    compared = shell("compare", *runs, "--table", "compare", "--format", "markdown").out

    rows = [re.sub(" +", " ", line) for line in compared.splitlines() if line.startswith("| ")]
    assert len(rows) > 3
    assert set(rows) <= {re.sub(" +", " ", line) for line in text.splitlines()}


def test_a_run_json_of_other_shapes_does_no_harm(shell: Shell, tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", 3_000)
    told = json.loads((run / "run.json").read_text())
    told["machine"] = {"gpus": [1, {"name": 2}], "nvidia_smi": "x", "versions": [], "cpus": {}}
    told["cost"] = {"flops": "many", "items": [], "phases": 3}
    (run / "run.json").write_text(json.dumps(told))

    said = shell("report", run)

    assert said.status == 0, said.err
    assert "A step takes 3.00 µs without a profiler" in said.out


def test_top_cuts_tables_and_0_shows_all(shell: Shell, tmp_path: Path) -> None:
    path = recording(tmp_path)

    assert "more rows" in shell("report", path, "--top", "1").out
    assert "more row" not in shell("report", path, "--top", "0").out


def test_phases_are_what_the_user_says(shell: Shell, tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.push("epilogue", 0, 100).kernel("gemm", at=10, run=(20, 30))
    path = trace.write(tmp_path / "run.sqlite")

    assert "| loss " in shell("report", path, "--phases", "loss=epi").out


def test_every_section_says_what_it_is_or_why_it_is_not_there(shell: Shell, tmp_path: Path) -> None:
    text = shell("report", recording(tmp_path)).out

    _, _, missing = text.partition("## Sections that could not be made")
    absent = re.findall(r"^- (.*?): ", missing, flags=re.MULTILINE)
    assert len(titles(text)) - 1 + len(absent) == len(sections())
    assert set(ORDER) <= set(sections())


def test_names_of_a_recording_are_inert_in_every_format(shell: Shell, tmp_path: Path) -> None:
    name = '<script>alert(1)</script>|`[x](http://e)`@user #1 \\input{x} "\x1b[31m\u202e'
    trace = Profile()
    torch_step(trace)
    main = trace.thread("python3")
    main.annotation(name, 0, 10_000)
    main.op(name, 0, 10_000)
    main.kernel(name, run=(10_000, 90_000_000), at=5_000)
    path = trace.write(tmp_path / "run.json")

    for suffix in ("md", "html", "tex"):
        said = shell("report", path, "-o", tmp_path / f"r.{suffix}", "--force")
        assert said.status == 0, said.err
        text = (tmp_path / f"r.{suffix}").read_text()
        assert "\x1b" not in text
        assert "\u202e" not in text
        prose = re.sub(r"`+.*?`+", "", text) if suffix == "md" else text
        assert not re.search(r"(?<!\\)<script", prose)
        assert r"\input{x}" not in text or suffix != "tex"


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "nsys/mordred-rtx6000-2021.sqlite",
        "nsys/poolformer-titan-startend.sqlite",
        "nsys/torchrun-h100x2-after.sqlite",
        "nsys/weather-4060-2025.5.sqlite",
        "nsys_parquet/gpt2-small-ctx256-a100-train_pqtdir",
        "kineto/cudagraph-replay-h200.json.gz",
        "kineto/three-streams-overlap-h200.json.gz",
        "memory/oom-observer-h200.pickle.gz",
        "multirank/gpt2-medium-fsdp-h200x2",
    ],
)
def test_recordings_of_other_people_become_reports(
    shell: Shell, tmp_path: Path, corpus: Path, name: str
) -> None:
    said = shell("report", corpus / name, "-o", tmp_path / "r.html")

    assert (said.status, said.err) == (0, "")
    page = (tmp_path / "r.html").read_text()
    assert hashed(corpus / name) <= set(re.findall(r"\b[0-9a-f]{64}\b", page))


def hashed(path: Path) -> set[str]:
    """Return the hashes of a file, or of the first files of a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file())[:5] if path.is_dir() else [path]
    return {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.slow
@story.needs_latex
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda _: [XL], id="run"),
        pytest.param(lambda _: [SAMPLES / "gpt2-medium-ddp-h200x2"], id="ranks"),
        pytest.param(lambda _: [SAMPLES / "oom-h200" / "memory.pickle.gz"], id="memory"),
        pytest.param(
            lambda folder: [run_folder(folder / "a", 3_000), run_folder(folder / "b", 2_000)],
            id="two",
        ),
    ],
)
def test_latex_compiles_by_itself_within_the_page(
    shell: Shell, tmp_path: Path, make: Callable[[Path], list[Path]]
) -> None:
    said = shell("report", *make(tmp_path), "-o", tmp_path / "r.tex")
    assert said.status == 0, said.err

    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "r.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:]
    assert "Overfull" not in done.stdout


@pytest.mark.slow
@story.needs_latex
def test_attached_files_compile_in_a_paper(shell: Shell, tmp_path: Path) -> None:
    shell("report", XL, "--attach", tmp_path / "more")
    lines = [
        rf"\input{{{file.relative_to(tmp_path).as_posix()}}}\clearpage"
        for file in sorted((tmp_path / "more").rglob("*.tex"))
    ]
    head = r"\documentclass{article}\usepackage{booktabs,tikz}\begin{document}"
    (tmp_path / "paper.tex").write_text("\n".join([head, *lines, r"\end{document}"]))

    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:]
    assert len(lines) > 15

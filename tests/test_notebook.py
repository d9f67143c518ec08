"""`tracelens.open`: recordings, runs and ranks as a notebook sees them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import tracelens
from tests import snapshots
from tests.build import Nsys, training_step
from tests.ranks import write_ranks
from tracelens import errors, registry
from tracelens.__main__ import run as main
from tracelens.links.linked import link
from tracelens.readers.open import open_trace
from tracelens.render import Options
from tracelens.tables import build

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracelens.notebook import Recording

SAMPLES = Path(__file__).parents[1] / "samples"
NOTEBOOK = SAMPLES.parent / "docs" / "notebooks" / "where-the-time-goes.ipynb"
HOSTILE = "<img src=x onerror=alert(1)>&\x1b[31m"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give an export of two steps of training."""
    trace = Nsys("3.20.3")
    trace.device(0, "NVIDIA H200")
    training_step(trace, at=training_step(trace).end_ns)
    return trace.write(tmp_path / "run.sqlite")


def snapshot(path: Path) -> Path:
    made = snapshots.Snapshot()
    made.device(0).alloc(5_000_000, stack=("model.py:12 forward",))
    return made.write(path)


def asked(recording: Recording) -> dict[str, pl.DataFrame]:
    """Return the answer to every analysis that has one."""
    found = {}
    for name in recording.analyses:
        try:
            found[name] = getattr(recording, name)()
        except errors.NothingToShowError:
            continue
    return found


class Page(HTMLParser):
    """The elements of an HTML text, and their text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.cells.append(data.strip())


def test_every_analysis_of_the_room_is_a_method_that_gives_its_frame(path: Path) -> None:
    recording = tracelens.open(path)
    linked = link(open_trace(path))
    answers = asked(recording)

    assert {"kernels", "phases", "families", "totals", "steps"} <= answers.keys()
    assert set(registry.names("analysis")) <= set(dir(recording))
    for name, frame in answers.items():
        assert frame.equals(registry.load("analysis", name)(linked)), name


def test_an_analysis_says_what_it_answers(path: Path) -> None:
    kernels = tracelens.open(path).kernels

    assert kernels.__name__ == "kernels"
    assert kernels.__doc__ == registry.load("analysis", "kernels").run.__doc__


def test_a_table_is_that_of_summarize_with_its_frame(path: Path) -> None:
    table = tracelens.open(path).table("kernels")
    same = build.fill(link(open_trace(path)), "kernels")

    assert table.frame.equals(same.frame)
    assert table.name == "kernels"
    assert repr(table).startswith(same.table.title)
    assert "sgemm" in repr(table) or same.frame["short_name"][0] in table.to("csv")


def test_a_table_goes_by_the_name_of_nsyss_report_too(path: Path) -> None:
    recording = tracelens.open(path)

    assert recording.table("cuda_gpu_kern_sum").frame.equals(recording.table("kernels").frame)


def test_a_table_shows_as_many_rows_as_asked_for(path: Path) -> None:
    recording = tracelens.open(path)
    rows = recording.kernels().height
    html = recording.table("kernels", top=1)._repr_html_()

    assert rows > 1
    assert html.count("<tr>") == 2
    assert f"… and {rows - 1} more row" in html
    assert recording.table("kernels", top=None)._repr_html_().count("<tr>") == 1 + rows


def test_the_recording_shows_headline_trust_and_overview(path: Path) -> None:
    recording = tracelens.open(path)
    report = build.report(recording.linked, ["overview"])
    html = recording._repr_html_()

    for text in (repr(recording), html):
        flat = " ".join(text.split())
        assert report.headline in flat
        assert all(line in flat for line in report.trust)
        assert "GPU time by phase" in flat
    assert html.count("<table>") == 1


def test_a_run_that_was_captured_says_how_long_its_steps_take(path: Path) -> None:
    said = {
        "name": "gpt2", "workload": None, "options": {}, "program": [], "device": "cuda",
        "warmup": 1, "steps": 2, "seed": 0, "stop": True, "created": "", "command": [],
        "passes": [{"recorder": "timer", "state": "done", "steps_ns": [16_000_000] * 10}],
        "recordings": [{"recorder": "nsys", "path": path.name, "rank": None}],
    }  # fmt: skip
    assert tracelens.open(path.parent).captured == ()
    (path.parent / "run.json").write_text(json.dumps(said), encoding="utf-8")
    recording = tracelens.open(path.parent)

    assert recording.captured[0].startswith("Step 16.0 ms without a profiler")
    assert "Step 16.0 ms without a profiler" in repr(recording)
    (path.parent / "run.json").write_text(json.dumps({"recordings": said["recordings"]}))
    assert tracelens.open(path.parent).captured == ()


def test_without_gpu_work_the_recording_shows_what_there_is(tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python").push("forward", 0, 10)
    recording = tracelens.open(trace.write(tmp_path / "ranges.sqlite"))

    assert "Ranges" in repr(recording) or "ranges" in repr(recording)
    assert recording.ranges()["name"].to_list() == ["forward"]


def test_a_cell_acts_on_nothing_around_it(path: Path) -> None:
    html = tracelens.open(path)._repr_html_()
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)

    assert style is not None
    assert style[1].lstrip().startswith("div.tracelens {")
    assert style[1].count("{") == style[1].count("}")
    depth = 0
    for mark in re.findall(r"[{}]", style[1].strip())[:-1]:
        depth += 1 if mark == "{" else -1
        assert depth > 0, "a rule stands outside of div.tracelens"
    assert not {"h1", "h2", "script", "html", "body"} & set(Page(html).tags)


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    trace = Nsys()
    trace.device(0, HOSTILE)
    main = trace.thread("python")
    main.push(HOSTILE, 0, 100)
    main.kernel(HOSTILE, at=10, run=(20, 30))
    recording = tracelens.open(trace.write(tmp_path / "run.sqlite"))

    shown = [recording, recording.table("kernels"), recording.table("ranges"), recording.report()]
    for one in shown:
        page = Page(one._repr_html_())
        assert "img" not in page.tags
        assert "\x1b" not in one._repr_html_() + repr(one)
    assert any("onerror" in cell for cell in Page(shown[2]._repr_html_()).cells)


def test_a_cut_is_that_of_summarize(path: Path) -> None:
    recording = tracelens.open(path)
    one = recording.cut(step=1)
    backward = one.cut(phase="backward")

    assert one.totals()["kernels"].item() * 2 == recording.totals()["kernels"].item()
    assert backward.phases()["phase"].to_list() == ["backward"]
    assert backward.totals()["kernels"].item() < one.totals()["kernels"].item()
    assert tracelens.open(path, step=1, phase=["backward"]).kernels().equals(backward.kernels())
    assert recording.cut().kernels().equals(recording.kernels())


def test_own_rules_name_phases(path: Path) -> None:
    recording = tracelens.open(path, phases={"all": ".*"})

    assert set(recording.phases()["phase"].drop_nulls()) == {"all"}


def test_by_execution_is_another_split(path: Path) -> None:
    by_launch = tracelens.open(path)
    by_execution = tracelens.open(path, attribution="execution")

    assert by_execution.linked.by_execution
    assert not by_launch.cut(attribution="launch").linked.by_execution


def test_a_snapshot_alone_shows_its_memory(tmp_path: Path) -> None:
    recording = tracelens.open(snapshot(tmp_path / "memory.pickle"))

    assert "PyTorch memory snapshot" in repr(recording)
    assert recording.memory.devices()["peak_active_bytes"].to_list() == [5_000_000]
    assert recording.memory.table("live").frame["bytes"].to_list() == [5_000_000]
    assert "live" in dir(recording.memory)
    with pytest.raises(errors.NothingToShowError, match=r"\.memory"):
        recording.kernels()


def test_memory_can_be_looked_at_at_another_moment(tmp_path: Path) -> None:
    made = snapshots.Snapshot()
    gpu = made.device(0)
    gpu.free(gpu.alloc(8_000_000))
    gpu.alloc(3_000_000)
    memory = tracelens.open(made.write(tmp_path / "memory.pickle")).memory

    assert memory.live()["bytes"].sum() == 8_000_000
    assert memory.at("end").live()["bytes"].sum() == 3_000_000
    assert memory.at("end").at(group="phase").live()["at"].to_list() == ["end"]
    with pytest.raises(errors.UsageError):
        memory.at(group="colour").live()


def test_a_snapshot_beside_a_trace_is_its_memory(path: Path) -> None:
    snapshot(path.parent / "memory.pickle")
    recording = tracelens.open(path.parent)

    assert recording.path == path
    assert recording.kernels().height
    assert recording.memory.devices()["peak_active_bytes"].to_list() == [5_000_000]
    assert "memory.pickle" in repr(recording)


@pytest.fixture
def ranks(tmp_path: Path) -> Path:
    """Give the traces of two ranks."""
    return write_ranks(tmp_path / "job", [[[5_000], [6_000]], [[15_000], [16_000]]])


def test_frames_of_several_ranks_stand_in_one_with_their_rank_first(ranks: Path) -> None:
    run = tracelens.open(ranks)
    kernels = run.kernels()

    assert run.rank_numbers == (0, 1)
    assert kernels.columns[0] == "rank"
    for rank in (0, 1):
        alone = tracelens.open(ranks, rank=rank).kernels()
        assert kernels.filter(rank=rank).drop("rank").equals(alone)
        assert run.rank(rank).kernels().equals(alone)


def test_what_ranks_wait_for_is_asked_of_all_of_them(ranks: Path) -> None:
    run = tracelens.open(ranks)

    assert run.collectives()["waiting_ns"].sum() == 20_000
    assert run.ranks().sort("rank")["waiting_ns"].to_list() == [0, 20_000]
    assert "2 ranks" in repr(run)
    assert "Collectives" in run._repr_html_()
    assert run.cut(step=0).collectives()["waiting_ns"].sum() == 10_000


def test_what_is_of_one_rank_says_so(ranks: Path) -> None:
    run = tracelens.open(ranks)

    for ask in (lambda: run.trace, lambda: run.memory, lambda: run.to_parquet(ranks / "x")):
        with pytest.raises(errors.UsageError, match=r"such as \.rank\(0\)"):
            ask()
    with pytest.raises(errors.UsageError, match="Ranks: 0, 1"):
        run.rank(2)


def test_the_tables_can_be_written_and_read_again(path: Path, tmp_path: Path) -> None:
    recording = tracelens.open(path, step=0)
    written = recording.to_parquet(tmp_path / "tables")

    assert tracelens.open(written).kernels().equals(recording.kernels())
    with pytest.raises(errors.UsageError, match="exists already"):
        recording.to_parquet(tmp_path / "tables")


def test_findings_are_those_of_the_rules(path: Path) -> None:
    from tracelens.findings import look

    recording = tracelens.open(path)
    found, same = recording.findings(), look(recording.linked)

    assert (*found,) == same.findings
    assert found.could_not == same.could_not
    assert all(one.says.split(".")[0] in " ".join(repr(found).split()) for one in same.findings)
    assert all(rule in found._repr_html_() for rule in same.could_not)


def test_two_recordings_are_compared_as_by_the_command(path: Path, tmp_path: Path) -> None:
    slower = Nsys("3.20.3")
    slower.device(0, "NVIDIA H200")
    end = training_step(slower).end_ns
    training_step(slower, at=end)
    slower.thread("python").kernel("gemm", at=end + 10, run=(2 * end, 3 * end))
    other, written = slower.write(tmp_path / "slower.sqlite"), tmp_path / "compared.md"
    a, b = tracelens.open(path), tracelens.open(other)
    command = ["compare", str(path), str(other), "--by", "phase", "-f", "html", "-o", str(written)]

    assert main(command) == 0
    assert a.compare(b, by="phase").to("html") == written.read_text(encoding="utf-8")
    assert a.compare(b)._repr_html_().count("<table>") > 1
    with pytest.raises(errors.UsageError, match="is cut"):
        a.compare(b.cut(step=0))
    with pytest.raises(errors.UsageError, match="one run"):
        a.compare()


WRONG: dict[str, tuple[type[errors.TracelensError], Callable[[Recording], Any]]] = {
    "Did you mean kernels": (errors.UsageError, lambda run: run.kernelz),
    "no table named": (errors.UsageError, lambda run: run.table("kernelz")),
    "no name": (errors.UsageError, lambda run: run.table(3)),  # type: ignore[arg-type]
    "'all' is no int": (errors.UsageError, lambda run: run.cut(step="all")),  # type: ignore[arg-type]
    "There is no step 9": (errors.UsageError, lambda run: run.cut(step=9).kernels()),
    "no phase named": (errors.UsageError, lambda run: run.cut(phase="bwd").kernels()),
    "name of a phase": (errors.UsageError, lambda run: run.cut(phase=[1])),  # type: ignore[list-item]
    "launch or execution": (errors.UsageError, lambda run: run.cut(attribution="time")),
    "has no rank 0": (errors.UsageError, lambda run: run.rank(0)),
    "no renderer named": (errors.UsageError, lambda run: run.report().to("word")),
    "no memory events": (errors.NothingToShowError, lambda run: run.memory.live()),
    "There is no file": (
        errors.UnreadableError,
        lambda run: tracelens.open(run.path.with_name("nope")),
    ),
    "is no path": (errors.UsageError, lambda _: tracelens.open(3)),  # type: ignore[arg-type]
    "regular expression": (errors.UsageError, lambda run: tracelens.open(run.path, phases="a=b")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("says", WRONG)
def test_what_goes_wrong_is_an_error_of_ours(path: Path, says: str) -> None:
    kind, ask = WRONG[says]
    recording = tracelens.open(path)

    with pytest.raises(kind, match=re.escape(says)):
        ask(recording)


def test_python_may_ask_for_attributes_that_are_not_there(path: Path) -> None:
    recording = tracelens.open(path)

    assert not hasattr(recording, "kernelz")
    assert getattr(recording, "_ipython_canary_method_should_not_exist_", None) is None


def test_a_folder_of_several_runs_names_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        trace = Nsys()
        trace.thread("python").kernel("gemm", at=0, run=(1, 2))
        trace.write(tmp_path / name / "run.sqlite")

    with pytest.raises(errors.UsageError, match="open one of a, b"):
        tracelens.open(tmp_path)


def test_importing_tracelens_imports_nothing_heavy() -> None:
    code = (
        "import sys, tracelens; "
        "assert 'open' in dir(tracelens) and 'instrument' in dir(tracelens); "
        "print(sorted({'polars', 'torch', 'rich', 'tracelens.notebook'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "[]"


def test_star_imports_and_unknown_names_are_as_before() -> None:
    assert {"open", "instrument", "phase", "span", "step"} == set(tracelens.__all__)
    with pytest.raises(AttributeError, match="no attribute 'opn'"):
        tracelens.opn  # type: ignore[attr-defined]  # noqa: B018 (asking for it is the test)


def test_the_example_notebook_runs_and_its_diagnosis_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert all(not cell.outputs for cell in code), "commit it without outputs"
    client.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    ).execute()

    outputs = [output for cell in code for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"execute_result"}
    assert len(outputs) == len(code)
    found = ast.literal_eval(outputs[-1].data["text/plain"])
    assert found == diagnosis()
    assert outputs[0].data["text/html"].count("<table>") == 1


def diagnosis() -> dict[str, float]:
    """Return what the example has to find, counted from the recording's own tables."""
    sample = SAMPLES / "gpt2-xl-ctx256-h200"
    trace = open_trace(sample / "run.sqlite.gz")
    kernels = trace["gpu_ops"].filter(kind="kernel").collect()
    took = kernels["end_ns"] - kernels["start_ns"]
    expected = pl.read_csv(sample / "expected" / "families.csv")
    gemm_ns = expected.filter(family="gemm")["kernel_time_ns"].sum()
    idle = pl.read_csv(sample / "expected" / "gaps.csv").filter(cause="launch_bound")["idle_ns"]
    optimizer = expected.filter(phase="optimizer")["kernels"].sum()
    tokens, layers, width, words = 4 * 256, 48, 1600, 50257
    weights = layers * 12 * width**2 + words * width
    forward = 2 * tokens * weights + layers * 4 * tokens * 256 * width
    return {
        "kernels": kernels.height,
        "gemm_share": round(gemm_ns / took.sum(), 3),
        "gemm_tflops_per_s": round(2 * 3 * forward / gemm_ns / 1e3, 1),
        "optimizer_launches_per_step": optimizer // 2,
        "launch_bound_idle_ms": round(idle.sum() / 1e6, 1),
        "peak_gib": round(
            pl.read_csv(sample / "expected" / "memory" / "devices.csv")["peak_active_bytes"].max()
            / 2**30,
            1,
        ),
    }


def test_the_options_of_views_reach_the_renderer(path: Path) -> None:
    recording = tracelens.open(path)
    linked = link(open_trace(path))
    same = registry.load("renderer", "markdown").render(
        [build.report(linked, ["phases"])], Options(top=3, width=100)
    )

    assert recording.report("phases", top=3).to("markdown") == same

"""All rules together: on every recording there is, in each output, and on their page."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from tests import kineto, ranks, snapshots
from tests.asking import Shell, linked
from tests.build import Nsys, training_step
from tests.findings.asked import looked
from tracelens import registry, run
from tracelens.findings import NOT_ASKED, About, Evidence, Finding, Looked, look, ordered, rules
from tracelens.links.linked import link
from tracelens.links.memory import remember
from tracelens.readers.open import open_trace
from tracelens.tables import Unit, build, standout
from tracelens.tables.memory_report import MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "samples").glob("*/*.gz"))
FOLDERS = ("nsys", "kineto", "memory", "multirank/*")


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell."""
    return Shell(capsys)


def of_file(path: Path) -> Looked:
    """Return what the rules find in a recording, of work or of memory."""
    trace = open_trace(path, cache=False)
    if run.Known(trace.source.format).is_snapshot:
        return look(remember(trace), "memory")
    return look(link(trace))


def is_sound(answer: Looked) -> None:
    """Check what holds of every answer."""
    tables = {*registry.names("table"), *registry.names("memory_table")}
    asked = {found.rule for found in answer.findings} | set(answer.could_not)
    assert asked <= set(registry.names("finding"))
    assert list(answer.findings) == list(ordered(answer.findings))
    for found in answer.findings:
        assert found.rule not in answer.could_not
        assert found.says.endswith(".")
        assert found.evidence
        assert {one.table for one in found.evidence} <= tables
        assert {one.unit for one in found.evidence} <= set(get_args(Unit))
        assert (found.gain_ns or 0) <= (found.cost_ns or 0)
        assert (found.gain_bytes or 0) <= (found.cost_bytes or 0)
        assert found.assumption or (found.gain_ns, found.gain_bytes) == (None, None)
    for why in answer.could_not.values():
        assert why
        assert not why.endswith(".")


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_sample_is_looked_at_by_all_rules(path: Path) -> None:
    is_sound(of_file(path))


@pytest.mark.corpus
def test_every_recording_of_the_corpus_is_looked_at_by_all_rules(corpus: Path) -> None:
    files = [file for folder in FOLDERS for file in sorted(corpus.glob(f"{folder}/*.*"))]
    recordings = [file for file in files if file.suffix in (".sqlite", ".gz")]

    for path in recordings:
        is_sound(of_file(path))

    assert len(recordings) > 30


def test_what_is_found_in_our_samples_is_what_an_engineer_would_say() -> None:
    said: dict[str, set[str]] = {path.parent.name: set() for path in SAMPLES}
    for path in SAMPLES:
        said[path.parent.name] |= {found.rule for found in of_file(path).findings}

    assert said["gpt2-xl-ctx256-h200"] == {
        "fp32_matmul_without_tf32", "tail_effects", "launch_bound", "for_loop_optimizer",
        "memory_peak", "fragmentation", "churn",
    }  # fmt: skip
    assert said["gpt2-small-ctx512-bf16-h200"] == {
        "launch_bound", "cpu_bound", "unfused_elementwise", "for_loop_optimizer",
        "tiny_kernels", "unaligned_gemms", "memory_peak", "churn",
    }  # fmt: skip
    assert said["oom-h200"] == {"out_of_memory", "memory_peak"}


def test_costly_rules_are_asked_on_request_alone(tmp_path: Path) -> None:
    trace = Nsys()
    training_step(trace)
    of = linked(trace, tmp_path)

    quick, whole = look(of, costly=False), look(of)

    costly = {name for name, rule in rules("work").items() if rule.costly}
    assert costly
    assert {name for name, why in quick.could_not.items() if why == NOT_ASKED} == costly
    assert NOT_ASKED not in whole.could_not.values()


@pytest.mark.parametrize("about", get_args(About))
def test_each_rule_is_about_one_thing(about: About) -> None:
    others = [set(rules(other)) for other in get_args(About) if other != about]

    assert rules(about)
    assert not set(rules(about)).intersection(*others)


def test_findings_stand_in_order_of_cost_and_then_of_memory() -> None:
    def finding(rule: str, cost_ns: int | None, cost_bytes: int | None) -> Finding:
        return Finding(rule, "It is.", (), cost_ns=cost_ns, cost_bytes=cost_bytes)

    mixed = [
        finding("trust", None, None), finding("small", None, 5), finding("large", None, 9),
        finding("short", 3, None), finding("long", 7, None),
    ]  # fmt: skip

    assert [one.rule for one in ordered(mixed)] == ["long", "short", "large", "small", "trust"]


# outputs


def test_text_has_the_costliest_five_in_two_lines_each(tmp_path: Path) -> None:
    trace = ROOT / "samples" / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz"
    of = linked(trace)
    found = standout.looked_at(of).findings

    report = build.report(of, ("totals",))
    whole = build.report(of, ("findings",))

    assert len(report.findings) == min(standout.MOST, len(found))
    assert [text.startswith(one.says) for text, one in zip(report.findings, found, strict=False)]
    assert all(len(textwrap.wrap(text, 76)) <= 2 for text in report.findings)
    assert len(whole.findings) == len(look(of).findings) >= len(report.findings)


def test_the_recorders_own_doubts_are_left_to_the_lines_on_trust(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("zzyzx", at=0, run=(0, 100), stream=7)
    main.kernel("zzyzx", at=1, run=(50, 150), stream=8)
    trace.diagnostic("Not all CUDA events might have been collected.")

    report = build.report(linked(trace, tmp_path), ("totals",))

    assert {"lost_events", "overlapping_work"} <= {one.rule for one in report.found.findings}
    assert len(report.findings) == 1
    assert "family other" in report.findings[0]


def test_a_change_that_does_not_fit_is_left_to_the_table() -> None:
    evidence = (Evidence("gaps", "idle", 1, "ns"),)
    short = Finding("rule", "It idles.", evidence, "Work more.")
    long = Finding(
        "rule", f"It {'really ' * 20}idles.", evidence, "Work more, and then still more."
    )

    assert standout.sentence(short) == "It idles. Work more. See --table gaps."
    assert standout.sentence(long) == long.says


def test_json_has_findings_as_objects_and_what_could_not_be_looked_for(
    shell: Shell, tmp_path: Path
) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("ampere_sgemm_128x64_tn", at=0, run=(100, 9_000))
    path = trace.write(tmp_path / "run.sqlite")
    trace.device(0, "NVIDIA H200")
    known = trace.write(tmp_path / "known.sqlite")

    blank = shell("summarize", path, "-f", "json").json
    (found,) = shell("summarize", known, "-f", "json", "-t", "totals").json["found"]

    assert "capability" in blank["could_not_look"]["fp32_matmul_without_tf32"]
    assert found["rule"] == "fp32_matmul_without_tf32"
    assert found["cost_ns"] == 8_900
    assert found["evidence"][0] == {
        "table": "kernels", "says": "time of sgemm kernels", "value": 8_900, "unit": "ns",
    }  # fmt: skip


def test_the_table_has_a_row_per_finding_and_says_what_was_not_looked_for(tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    trace.device(0, "NVIDIA H200")
    main.kernel("ampere_sgemm_128x64_tn", at=0, run=(100, 9_000))

    filled = build.fill(linked(trace, tmp_path), "findings")

    row, *_ = filled.frame.to_dicts()
    assert (row["rule"], row["cost_ns"]) == ("fp32_matmul_without_tf32", 8_900)
    assert row["evidence"].startswith("8.90 µs time of sgemm kernels (kernels); 100 % of kernel")
    assert "Could not look for" in filled.table.note
    assert "idle_between_steps: fewer than two steps are known" in filled.table.note


def test_the_table_of_memory_has_what_is_found_in_memory(tmp_path: Path) -> None:
    path = snapshots.training().write(tmp_path / "snapshot.pickle")

    filled = build.fill_on(remember(open_trace(path)), "findings", MEMORY)

    assert filled.frame["rule"].to_list() == ["memory_peak"]
    assert filled.frame["cost_bytes"].to_list() == [16 * snapshots.MIB]


def test_a_run_joins_work_memory_and_ranks(shell: Shell, tmp_path: Path) -> None:
    job = ranks.write_ranks(tmp_path / "job", [((28_000,),) * 2, ((18_000,),) * 2])
    for rank in range(2):
        snapshots.training(device=rank).write(job / f"rank{rank}.pickle")

    document = shell("summarize", job, "-f", "json").json

    found = {one["rule"]: one["says"] for one in document["found"]}
    assert {"exposed_communication", "skewed_ranks", "memory_peak"} <= found.keys()
    assert found["memory_peak"].startswith("Rank ")
    of_ranks = {row["rank"] for row in document["tables"]["findings"]}
    assert of_ranks == {None, 0, 1}


def test_what_a_single_run_folder_says_has_its_memory_too(shell: Shell, tmp_path: Path) -> None:
    trace = kineto.Profile()
    kineto.training_step(trace)
    trace.write(tmp_path / "trace.json")
    snapshots.training().write(tmp_path / "memory.pickle")

    document = shell("summarize", tmp_path, "-f", "json").json

    assert "memory_peak" in {one["rule"] for one in document["found"]}
    assert "memory_peak" in {row["rule"] for row in document["tables"]["findings"]}


def test_names_of_a_trace_cannot_leave_their_sentence(shell: Shell, tmp_path: Path) -> None:
    trace = Nsys()
    main = trace.thread("python")
    main.kernel("<script>alert(1)</script>\x1b[31m", at=0, run=(100, 9_000))
    path = trace.write(tmp_path / "run.sqlite")

    assert "unclassified" in {found.rule for found in looked(trace, tmp_path).findings}
    assert "<script>" not in shell("summarize", path, "-f", "html", "-t", "findings").out
    assert "\x1b" not in shell("summarize", path, "-t", "findings").out


# the page


def sections() -> Iterator[tuple[str, str]]:
    """Give the rules that docs/findings.md describes, and what it says of each."""
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    yield from re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)


def test_the_page_describes_every_rule_once() -> None:
    described = [name for name, _ in sections()]

    assert sorted(described) == sorted(registry.names("finding"))


@pytest.mark.parametrize("rule", registry.names("finding"))
def test_the_page_says_what_a_rule_looks_at_its_threshold_and_what_it_assumes(rule: str) -> None:
    text = dict(sections())[rule]

    assert re.findall(r"^- \*\*(.*?)\*\*", text, re.MULTILINE) == [
        "Looks at", "Speaks from", "Gain", "Cannot look",
    ]  # fmt: skip

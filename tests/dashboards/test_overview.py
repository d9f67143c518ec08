"""The overview: its numbers are those of `tracelens summarize`, and its links lead to places."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest

from tests.dashboards.recordings import training
from tests.dashboards.waits import count, quiet, reads
from tests.kineto import Profile
from tracelens import units
from tracelens.analyses.families import families
from tracelens.analyses.longest_gaps import longest_gaps
from tracelens.analyses.ranks import ranks
from tracelens.analyses.totals import totals
from tracelens.links.linked import link
from tracelens.readers.open import open_trace
from tracelens.tables.standout import looked_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.dashboards.conftest import Explorer

pytest.importorskip("dash")

from dash.development.base_component import Component
from tracelens_dashboards import about, comparison, standing_out
from tracelens_dashboards.figures import overview as figures
from tracelens_dashboards.library import Item, Library
from tracelens_dashboards.pages import overview

SAMPLES = Path(__file__).parents[2] / "samples"
SAMPLE = SAMPLES / "gpt2-small-ctx512-bf16-h200"


def walk(part: Any) -> Iterator[Component]:
    """Give all components of a part."""
    for one in part if isinstance(part, list | tuple) else [part]:
        if isinstance(one, Component):
            yield one
            yield from walk(getattr(one, "children", None))


def texts(part: Any) -> str:
    """Return all text of a part."""
    if isinstance(part, str | int | float):
        return str(part)
    if isinstance(part, list | tuple):
        return " ".join(texts(one) for one in part)
    return texts(getattr(part, "children", "")) if isinstance(part, Component) else ""


def links(part: Any) -> list[str]:
    """Return the addresses that a part leads to."""
    return [one.href for one in walk(part) if getattr(one, "href", None)]


def only(path: Path) -> Any:
    """Return the one recording of a path, opened."""
    library = Library([path])
    return library.open(library.items[0].id)


def test_the_first_numbers_are_those_of_the_toolkit() -> None:
    opened = only(SAMPLE)
    linked = link(open_trace(SAMPLE / "trace.json.gz"))
    sums = totals(linked).row(0, named=True)

    said = texts(overview._facts(opened))

    assert units.time(ranks(linked)["step_median_ns"][0]) in said
    assert units.share(sums["busy_ns"] / sums["span_ns"]) in said
    assert units.time(sums["idle_ns"]) in said
    assert units.count(sums["kernels"]) in said
    assert "NVIDIA H200" in said


def test_the_frame_comes_without_reading_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = only(training(tmp_path / "run.sqlite"))
    monkeypatch.setattr(type(opened), "once", lambda *_: pytest.fail("it was read"))

    frame = overview._layout(opened, {})

    ids = [one.id for one in walk(frame) if isinstance(getattr(one, "id", None), dict)]
    slots = {one.get("part") or one.get("late") for one in ids} - {None}
    assert slots == set(overview.PARTS)


def test_all_findings_and_all_doubts_are_told() -> None:
    opened = only(SAMPLE)

    said = texts(standing_out.of_trace(opened.item.id, opened.linked))

    found = looked_at(opened.linked).findings
    assert len(found) > 3
    for finding in found:
        assert finding.says in said
    assert "--table" not in said
    assert "nothing reported lost" in said
    assert "of GPU time attributed" in said


def test_the_idle_finding_leads_to_the_longest_idle_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_out, "pages", lambda: ("overview", "timeline"))
    opened = only(training(tmp_path / "run.sqlite", idle_ns=400_000))

    places = links(standing_out.of_trace(opened.item.id, opened.linked))

    gap = longest_gaps(opened.linked).row(0, named=True)
    asked = urlsplit(places[0])
    seen = {name: int(value[0]) for name, value in parse_qs(asked.query).items()}
    assert asked.path == f"/{opened.item.id}/timeline"
    assert seen["from"] < gap["start_ns"] < gap["end_ns"] < seen["to"]


def test_the_most_frequent_kernel_of_a_phase_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_out, "pages", lambda: ("overview", "kernels"))
    opened = only(SAMPLE)

    places = links(standing_out.of_trace(opened.item.id, opened.linked))

    ids = [re.fullmatch(rf"/{opened.item.id}/kernels\?kernel=(\d+)", href) for href in places]
    shown = {int(found[1]) for found in ids if found}
    optimizer = pl.col("phase").cast(pl.String) == "optimizer"
    used = opened.linked.ops.filter(optimizer)["name_id"].value_counts(sort=True)
    assert len(ids) == len(places)
    assert used["name_id"][0] in shown
    assert shown <= set(standing_out.kernel_ids(opened.linked).values())


def test_no_link_leads_to_a_page_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_out, "pages", lambda: ("overview",))
    opened = only(SAMPLE)
    made = [part.make(opened) for part in overview.PARTS.values() if part.make]

    assert links(made) == []


def test_overlap_and_unattributed_work_lead_to_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_out, "pages", lambda: ("timeline",))
    from tests.build import Nsys

    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    main.push("forward", 0, 1_000)
    main.kernel("one", at=10, run=(2_000, 9_000))
    main.kernel("two", at=20, run=(5_000, 12_000), stream=8)
    main.kernel("outside", at=1_500, run=(20_000, 50_000))
    opened = only(trace.write(tmp_path / "run.sqlite"))

    part = standing_out.of_trace(opened.item.id, opened.linked)

    assert "work overlaps on 2 streams" in texts(part)
    spans = [parse_qs(urlsplit(href).query) for href in links(part)]
    seen = [(int(s["from"][0]), int(s["to"][0])) for s in spans]
    assert any(start < 5_000 and end > 9_000 and end < 40_000 for start, end in seen)
    assert any(start < 20_000 and end > 50_000 for start, end in seen)


def test_the_stack_adds_up_to_the_table(tmp_path: Path) -> None:
    linked = only(SAMPLE).linked
    table = families(linked)

    figure = figures.families(table)

    drawn = sum(sum(bar.x) for bar in figure.data)
    whole = (table["kernel_time_ns"] + table["graph_time_ns"]).sum() / 1e6
    assert drawn == pytest.approx(whole)
    assert {bar.name for bar in figure.data} == set(table["family"])


def test_a_recording_of_the_cpu_alone_shows_its_phases(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    trace = Profile("2026-02")
    main = trace.thread("python3", pid=100)
    main.annotation("forward", 0, 90_000)
    main.op("aten::mm", 5_000, 60_000, dims=[[4, 8], [8, 2]])
    path = trace.write(tmp_path / "cpu.json")

    page.goto(explorer([path]))
    page.wait_for_selector("h2:has-text('What each phase does on the CPU')")
    page.wait_for_selector(".js-plotly-plot .bars path")

    reads(page, "main", "no work on a GPU was recorded")
    quiet(page)
    assert page.query_selector("h2:has-text('Top kernels')") is None


@pytest.mark.parametrize(
    "name", ["gpt2-small-ctx512-bf16-h200", "gpt2-xl-ctx256-h200", "gpt2-medium-ddp-h200x2"]
)
def test_it_opens_on_our_recordings(explorer: Explorer, page: Any, name: str) -> None:
    page.goto(explorer([SAMPLES / name]))

    for title in ("What each phase does", "Steps", "Top kernels", "Why the GPU idles", "Memory"):
        page.wait_for_selector(f"h2:text-is('{title}')")
    page.wait_for_selector(".fact:has-text('Memory peak')")
    page.wait_for_selector("h2:text-is('What was captured')")
    count(page, ".js-plotly-plot", 2)


def test_memory_alone_has_an_overview_too(explorer: Explorer, page: Any) -> None:
    page.goto(explorer([SAMPLES / "oom-h200"]))

    page.wait_for_selector(".fact:has-text('out of memory')")
    page.wait_for_selector("h2:text-is('Memory')")
    page.wait_for_selector("h2:text-is('What was captured')")
    count(page, ".waiting", 0)


def test_the_facts_of_a_run_folder_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "gpt2-20261120"
    folder.mkdir()
    training(folder / "run.sqlite")
    said = {
        "name": "gpt2",
        "created": "2026-11-20T12:00:00+00:00",
        "command": ["tracelens", "capture", "gpt2"],
        "machine": {"python": "3.11.7", "versions": {"torch": "2.13.0"}},
        "revision": {"commit": "a" * 40, "changed": True},
        "passes": [{"recorder": "nsys", "state": "failed", "why": "<b>no</b>", "seconds": 1.25}],
        "recordings": [{"recorder": "torch", "path": "run.sqlite"}],
    }
    (folder / "run.json").write_text(json.dumps(said))

    told = texts(about.card(only(tmp_path)))

    for text in ("gpt2", "tracelens capture gpt2", "torch 2.13.0", "(with changes)", "<b>no</b>"):
        assert text in told


@pytest.mark.parametrize("said", ["[]", "{", '{"passes": 3, "machine": [], "revision": "x"}', ""])
def test_a_run_json_of_any_shape_does_no_harm(tmp_path: Path, said: str) -> None:
    path = training(tmp_path / "run.sqlite")
    (tmp_path / "run.json").write_text(said)
    opened = only(path)
    item = Item(**{**vars(opened.item), "folder": tmp_path})

    assert about.manifest(item.folder) in ({}, {"passes": 3, "machine": [], "revision": "x"})
    opened.item = item
    assert "run.sqlite" in texts(about.card(opened))


def test_recordings_of_one_run_are_compared_first_and_eight_at_most(tmp_path: Path) -> None:
    items = [Item(f"{n:012x}", str(n), tmp_path, None, None, f"run {n // 3}") for n in range(20)]

    chosen, others = comparison.choose(items, items[10])

    assert len(chosen) == comparison.MOST
    assert others == 12
    assert {"9", "10", "11"} <= {one.title for one in chosen}


def test_the_comparison_agrees_with_each_recording_and_keeps_none_open(tmp_path: Path) -> None:
    paths = [training(tmp_path / f"{n}.sqlite", idle_ns=100_000 * (n + 1)) for n in range(3)]
    library = Library([tmp_path])
    opened = library.open(library.items[0].id)

    part = comparison.card(library, opened.item)

    for path in paths:
        sums = totals(link(open_trace(path))).row(0, named=True)
        assert units.share(sums["busy_ns"] / sums["span_ns"]) in texts(part)
    assert list(library._opened) == [opened.item.id]
    assert links(part) == [f"/{item.id}/overview" for item in library.items[1:]]


def test_a_damaged_neighbour_is_compared_by_its_reason(tmp_path: Path) -> None:
    training(tmp_path / "a.sqlite")
    bad = training(tmp_path / "b.sqlite")
    bad.write_bytes(bad.read_bytes()[:16] + bytes(5_000))
    library = Library([tmp_path])

    part = comparison.card(library, library.items[0])

    assert "b.sqlite" in texts(part)
    assert library.is_failed(library.items[1].id)


def test_large_neighbours_wait_until_they_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(2):
        training(tmp_path / f"{n}.sqlite")
    monkeypatch.setattr(comparison, "LARGEST_BYTES", 1)
    library = Library([tmp_path])

    part = comparison.card(library, library.items[0])

    assert texts(part).count("large: open it once") == 2


def test_one_recording_is_compared_with_nothing(tmp_path: Path) -> None:
    library = Library([training(tmp_path / "run.sqlite")])

    assert comparison.card(library, library.items[0]) is None


@pytest.mark.parametrize(
    ("label", "leads_to"),
    [
        ("Show the longest", "timeline?from="),
        ("Show the most frequent", "kernels?kernel="),
        ("Show the memory", "memory"),
    ],
)
def test_what_stands_out_is_one_click_from_its_place(
    explorer: Explorer, page: Any, label: str, leads_to: str
) -> None:
    page.goto(explorer([SAMPLE]))

    page.locator(f".standing-out a:text-is('{label}')").first.click()

    page.wait_for_url(lambda url: leads_to in url)
    page.wait_for_selector(".standing-out", state="detached")
    page.go_back()
    page.wait_for_selector(f".standing-out a:text-is('{label}')")


def test_a_part_that_fails_leaves_the_others(
    explorer: Explorer, page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_opened: Any) -> Any:
        raise ValueError("a <b>bug</b>")

    monkeypatch.setitem(overview.PARTS, "kernels", overview._Part(fails, wide=True))

    page.goto(explorer([training(tmp_path / "run.sqlite")]))

    page.wait_for_selector("[role=alert]:has-text('This part failed: ValueError: a <b>bug</b>')")
    page.wait_for_selector("h2:text-is('Why the GPU idles')")

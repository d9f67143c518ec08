"""Comparing in a browser: the verdict, bars that add up, choices in the address, hostile names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

pytest.importorskip("dash", reason="no dash: the explorer is not installed")

from tracelens_dashboards import sides
from tracelens_dashboards.library import Item, Library
from tracelens_dashboards.pages import compare

from tests.build import Nsys
from tests.dashboards.recordings import hostile, training
from tests.dashboards.waits import copied, count, quiet, reads, says, soon
from tracelens.tables import compare as tables

if TYPE_CHECKING:
    from tests.dashboards.conftest import Explorer

STEPS: Final = 12
FIGURE: Final = "#compare-figure .js-plotly-plot"


def steps(path: Path, *, matmul_ns: int = 100_000, kernel: str = "ampere_sgemm_128x64_tn") -> Path:
    """Write steps of a matmul and a little more, one like the other but for some noise."""
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    at = 0
    for step in range(STEPS):
        took = matmul_ns + 500 * (step * 7 % 5)
        main.push(f"step {step}", at, at + took + 150_000)
        main.push("forward", at + 1_000, at + took + 60_000)
        main.kernel(kernel, at=at + 2_000, run=(at + 3_000, at + 3_000 + took))
        main.push("backward", at + took + 61_000, at + took + 140_000)
        begin = at + took + 62_000
        main.kernel("vectorized_elementwise_kernel", at=begin, run=(begin + 1_000, begin + 71_000))
        at += took + 160_000
    return trace.write(path)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Return a folder of a run, a slower one, and one whose matmul has another name."""
    steps(tmp_path / "a.sqlite")
    steps(tmp_path / "b.sqlite", matmul_ns=130_000)
    steps(tmp_path / "c.sqlite", kernel="nvjet_tst_128x256_64x4")
    return tmp_path


def opened(explorer: Explorer, page: Any, folder: Path, place: int, query: str = "") -> list[str]:
    """Open the page of the recording at a place; return all ids."""
    ids = [item.id for item in Library([folder]).items]
    page.goto(f"{explorer([folder])}/{ids[place]}/compare{query}")
    page.wait_for_selector("#compare-shown > :not(.waiting)")
    quiet(page)
    return ids


def headline(folder: Path, a: int, b: int) -> str:
    library = Library([folder])
    ids = [item.id for item in library.items]
    return tables.report([sides.side(library, ids[place]) for place in (a, b)]).headline


def bars(page: Any) -> list[float]:
    """Return the lengths of the bars, from A to B."""
    read = f"document.querySelector('{FIGURE}')?.data?.[0]?.x"
    lengths = soon(page, lambda: page.evaluate(f"[...({read} ?? [])]"), lambda seen: len(seen) > 2)
    return list(lengths)


def test_the_verdict_comes_first_and_is_that_of_the_command(
    explorer: Explorer, page: Any, three: Path
) -> None:
    opened(explorer, page, three, 1)

    said = reads(page, ".verdict", "slower per step")
    assert said == headline(three, 0, 1)
    reads(page, "#compare-shown .note", "B: ")
    reads(page, "tr:has(td:has-text('step')) td:has-text('slower')", "slower")


def test_bars_add_up_from_a_to_b(explorer: Explorer, page: Any, three: Path) -> None:
    opened(explorer, page, three, 1)

    begin, *parts, end = bars(page)

    assert end - begin == pytest.approx(30, rel=0.2)
    assert begin + sum(parts) == pytest.approx(end)
    labels = page.evaluate(f"[...document.querySelector('{FIGURE}').data[0].y]")
    assert labels[1].startswith("forward · gemm")


def test_the_baseline_is_chosen_and_stands_in_the_address(
    explorer: Explorer, page: Any, three: Path
) -> None:
    ids = opened(explorer, page, three, 1)
    says(page, baseline=ids[0])

    page.click("#compare-baseline")
    page.click("[role=option]:visible:has-text('c.sqlite')")
    says(page, baseline=ids[2])
    reads(page, ".verdict", "c.sqlite")
    page.go_back()
    says(page, baseline=ids[0])
    reads(page, ".verdict", "a.sqlite")
    page.reload()

    reads(page, ".verdict", "a.sqlite")


def test_sides_are_swapped(explorer: Explorer, page: Any, three: Path) -> None:
    ids = opened(explorer, page, three, 1, "?theme=dark")
    reads(page, ".verdict", "slower")

    page.click("#compare-swap")
    page.wait_for_url(f"**/{ids[0]}/compare?*")

    says(page, baseline=ids[1], theme="dark")
    reads(page, ".verdict", "faster")


def test_the_picker_changes_b(explorer: Explorer, page: Any, three: Path) -> None:
    ids = opened(explorer, page, three, 1)

    page.click("#run")
    page.click("[role=option]:visible:has-text('c.sqlite')")
    page.wait_for_url(f"**/{ids[2]}/compare*")

    reads(page, "#compare-shown .note", "B: ")
    reads(page, "#page h1", "c.sqlite")
    reads(page, ".verdict", "c.sqlite")


def test_renamed_kernels_stand_in_one_row_that_leads_to_them(
    explorer: Explorer, page: Any, three: Path
) -> None:
    ids = opened(explorer, page, three, 2, f"?baseline={Library([three]).items[0].id}")
    card = page.locator(".card:has(h2:text-is('By kernel'))")

    text = copied(page, card.locator("text=Copy as CSV"))
    assert "ampere_sgemm_128x64_tn → nvjet_tst_128x256_64x4" in text
    card.locator("a:has-text('nvjet')").click()
    page.wait_for_url(f"**/{ids[2]}/kernels?*")

    says(page, filter="nvjet_tst_128x256_64x4")
    reads(page, ".kernel-said", "1 names")


def test_one_recording_alone_has_no_such_page_and_is_told_how_to_get_it(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    path = steps(tmp_path / "run.sqlite")
    base = explorer([path])
    page.goto(f"{base}/{Library([path]).items[0].id}/compare")

    reads(page, "#page [role=alert]", "Name several recordings, or their folder")
    count(page, "#navigation a:has-text('Compare')", 0)


@pytest.mark.parametrize("asked", ["0123456789ab", "%3Cb%3E", ""])
def test_a_baseline_that_there_is_not_is_the_usual_one(
    explorer: Explorer, page: Any, three: Path, asked: str
) -> None:
    ids = opened(explorer, page, three, 1, f"?baseline={asked}")

    reads(page, ".verdict", "a.sqlite")
    says(page, baseline=ids[0])


def test_a_damaged_baseline_says_why(explorer: Explorer, page: Any, three: Path) -> None:
    bad = three / "a.sqlite"
    bad.write_bytes(bad.read_bytes()[:16] + bytes(5_000))
    opened(explorer, page, three, 1)

    reads(page, "#compare-shown [role=alert]", "a.sqlite")


def test_runs_of_two_formats_are_compared_and_what_differs_is_told(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    samples = Path(__file__).parents[2] / "samples"
    paths = [samples / "gpt2-small-ctx512-bf16-h200", samples / "gpt2-xl-ctx256-h200"]
    first, second = Library(paths).items
    page.goto(f"{explorer(paths)}/{second.id}/compare?baseline={first.id}")

    reads(page, ".caveats", "The recorders differ")
    for title in ("Per step", "By phase", "By kernel", "By PyTorch op", "Memory"):
        page.wait_for_selector(f"h2:text-is('{title}')")
    begin, *parts, end = bars(page)
    assert begin + sum(parts) == pytest.approx(end)


def test_names_run_nothing(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    hostile(tmp_path / "<img src=x onerror=window.__hacked=1>.sqlite")
    training(tmp_path / "<b>b.sqlite")
    for place in (0, 1):
        opened(explorer, page, tmp_path, place)
        page.wait_for_selector(".verdict")
        page.click("#compare-baseline")
        page.wait_for_selector("[role=option]:visible")

        assert "<b>" in page.inner_text("#page")
        assert page.evaluate("window.__hacked") is None
        assert page.locator("#page img, #page script, #page td b, #page .verdict b").count() == 0
        assert "\u202e" not in page.inner_text("#page")


def test_the_nearest_one_before_is_the_baseline_unless_asked_for() -> None:
    a, b, c = (Item(name * 12, name, Path(name), None, None, name) for name in "abc")
    memory = Item("d" * 12, "d", None, Path("d"), None, "d")
    items = [a, b, memory, c]

    assert compare.baseline(items, c.id, "") == b.id
    assert compare.baseline(items, a.id, "") == b.id
    assert compare.baseline(items, c.id, a.id) == a.id
    assert compare.baseline(items, c.id, c.id) == b.id
    assert compare.baseline(items, c.id, memory.id) == b.id
    assert compare.baseline([a], a.id, "") == ""

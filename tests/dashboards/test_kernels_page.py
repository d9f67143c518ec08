"""The kernels page in a browser: two grids, the chosen kernel, the address, hostile names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from tracelens_dashboards.library import Library

from tests.dashboards.recordings import hostile, training
from tests.dashboards.waits import copied, count, quiet, reads, says, soon, state

if TYPE_CHECKING:
    from tests.dashboards.conftest import Explorer

SAMPLE: Final = (
    Path(__file__).parents[2] / "samples" / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz"
)
NAMES, CALLS = "#kernel-names .ag-center-cols-container", "#kernel-calls .ag-center-cols-container"


def opened(explorer: Explorer, page: Any, path: Path, query: str = "") -> str:
    recording = Library([path]).items[0].id
    page.goto(f"{explorer([path])}/{recording}/kernels{query}")
    answered(page, "names")
    answered(page, "calls")
    return recording


def answered(page: Any, grid: str, times: int = 1) -> None:
    """Wait until a grid has got so many pages of rows and shows them."""
    page.wait_for_function(
        "([grid, times]) => Number(document.getElementById('kernels')?.dataset[grid] || 0) >= times"
        " && document.querySelector(`#kernel-${grid} .ag-row[row-index='0'] .ag-cell-value`)"
        "?.textContent",
        arg=[grid, times],
    )


def cell(rows: str, row: int, column: str) -> str:
    return f"{rows} [row-index='{row}'] [col-id='{column}']"


def holds(page: Any, rows: str, row: int, column: str, wanted: Any) -> None:  # a cell
    """Wait until a cell of a grid is as wanted."""
    fits = wanted if callable(wanted) else lambda text: text == wanted
    reads(page, cell(rows, row, column), fits)


def is_all(page: Any, wanted: dict[str, str]) -> None:
    """Wait until the address says just this."""
    soon(page, lambda: state(page), wanted)


def test_the_largest_kernel_stands_first_and_the_longest_call(
    explorer: Explorer, page: Any
) -> None:
    opened(explorer, page, SAMPLE)

    holds(page, NAMES, 0, "calls", "294")
    holds(page, NAMES, 0, "share", "9.3 %")
    holds(page, CALLS, 0, "took_ns", "1,671.996")
    reads(page, ".kernel-said", "53 names, 4,286 calls, 37.5 ms")


def test_sorting_is_done_on_the_server_and_stands_in_the_address(
    explorer: Explorer, page: Any
) -> None:
    opened(explorer, page, SAMPLE)

    page.locator("#kernel-names .ag-header-cell[col-id='max_ns']").click()

    is_all(page, {"sort": "max_ns.desc"})
    holds(page, NAMES, 0, "max_ns", "1,672.0 µs")
    page.reload()
    answered(page, "names")
    holds(page, NAMES, 0, "max_ns", "1,672.0 µs")


def test_a_click_on_a_name_shows_its_calls_and_launchers(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)

    page.click(cell(NAMES, 0, "short_name"))
    page.wait_for_selector("#kernel-histogram .main-svg")
    page.wait_for_selector("#kernel-scatter .main-svg")

    reads(page, "#kernel-calls-said", lambda text: text.startswith("294 calls"))
    reads(page, "#kernel-detail h2", lambda text: text.startswith("unrolled_elementwise"))
    reads(page, ".kernel-launchers", "aten::copy_")
    holds(page, CALLS, 0, "took_ns", "294.911")
    page.go_back()
    page.wait_for_selector("#kernel-calls-title:has-text('Calls of all kernels')")
    page.wait_for_selector("#kernel-detail h2", state="detached")


def test_the_longest_call_leads_to_its_place_in_the_timeline(explorer: Explorer, page: Any) -> None:
    chosen = opened(explorer, page, SAMPLE)
    page.click(cell(NAMES, 1, "short_name"))

    page.get_by_role("link", name="Go to the longest call").click()
    page.wait_for_url(re.compile(f"/{chosen}/timeline"))

    said = soon(page, lambda: state(page), lambda said: said.keys() >= {"pick", "from", "to"})
    assert said["pick"].split(":")[1].isdigit()
    assert int(said["to"]) - int(said["from"]) == 3 * 1_671_996


def test_a_row_leads_to_the_timeline_and_back(explorer: Explorer, page: Any) -> None:
    chosen = opened(explorer, page, SAMPLE)

    page.click(f"{cell(CALLS, 0, 'id')} button")
    page.wait_for_url(re.compile(f"/{chosen}/timeline"))
    page.wait_for_selector("#timeline")
    page.go_back()
    page.wait_for_selector("#kernels")
    answered(page, "calls")

    holds(page, CALLS, 0, "took_ns", "1,671.996")


def test_filters_stand_in_the_address(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)

    page.get_by_role("button", name="softmax").click()
    page.get_by_role("button", name="backward").click()

    is_all(page, {"family": "softmax", "phase": "backward"})
    reads(page, ".kernel-said", lambda text: text.startswith("2 names, 26 calls"))
    page.keyboard.press("/")
    page.keyboard.type("cunn")
    says(page, filter="cunn")
    reads(page, ".kernel-said", lambda text: text.startswith("1 names, 2 calls"))
    page.wait_for_selector("#kernel-calls-csv[href*='filter=cunn']")


def test_an_address_shows_what_it_says(explorer: Explorer, page: Any) -> None:
    where = '{"took_ns":{"filterType":"number","type":"lessThan","filter":100}}'
    opened(explorer, page, SAMPLE, f"?order=took_ns.desc&family=gemm&where={where}")

    holds(page, CALLS, 0, "took_ns", lambda text: text and float(text) < 100)
    holds(page, CALLS, 0, "family", "gemm")
    pressed = page.locator(".kernel-chips [aria-pressed='true']")
    soon(page, pressed.all_inner_texts, ["gemm"])


def test_scrolling_asks_for_further_pages(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)

    page.evaluate("dash_ag_grid.getApi('kernel-calls').ensureIndexVisible(4285)")
    page.wait_for_selector(f"{CALLS} [row-index='4285'] [col-id='took_ns']:has-text('0.')")

    # Rows out of sight are not in the page.
    count(page, f"{CALLS} .ag-row", lambda rows: 0 < rows < 100)


def test_the_whole_table_is_copied(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)

    text = copied(page, page.get_by_role("button", name="Copy as CSV").first)

    assert len(text.strip().splitlines()) == 54
    with page.expect_download() as saved:
        page.locator("#kernel-calls-csv").click()
    assert len(Path(saved.value.path()).read_text().splitlines()) == 4_287


def test_a_recording_without_kernels_says_why(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    from tests.build import Nsys

    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    main.copy(run=(10, 20), bytes=8, at=0)
    path = trace.write(tmp_path / "copies.sqlite")
    page.goto(f"{explorer([path])}/{Library([path]).items[0].id}/kernels")

    page.wait_for_selector("text=There are no kernels")


def test_names_run_nothing(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    opened(explorer, page, hostile(tmp_path / "x.sqlite"))
    for row in range(4):
        page.click(cell(NAMES, row, "short_name"))
        page.wait_for_selector(f"{NAMES} .ag-row-selected[row-index='{row}']")
        reads(page, "#kernel-calls-said", lambda text: text.startswith("1 call"))
        quiet(page)
        page.wait_for_selector("#kernel-histogram .main-svg")

    assert page.evaluate("window.__hacked") is None
    assert page.locator(".kernels-page b, .kernels-page img").count() == 0
    assert "\u202e" not in page.locator(".kernels-page").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_are_readable(
    explorer: Explorer, page: Any, tmp_path: Path, scheme: str
) -> None:
    opened(explorer, page, training(tmp_path / "run.sqlite"), f"?theme={scheme}")
    both = """() => ["color", "backgroundColor"].map((what) => {
      const row = document.querySelector("#kernel-names .ag-row");
      return getComputedStyle(row)[what].match(/\\d+/g).slice(0, 3)
        .reduce((sum, part) => sum + Number(part), 0);
    })"""

    soon(page, lambda: page.evaluate(both), lambda seen: abs(seen[0] - seen[1]) > 400)

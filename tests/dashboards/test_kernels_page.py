"""The kernels page in a browser: two grids, the chosen kernel, the address, hostile names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
from tracelens_dashboards.library import Library

from tests.dashboards.recordings import hostile, training

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


def count(page: Any, grid: str) -> int:
    return int(page.locator("#kernels").get_attribute(f"data-{grid}"))


def cell(page: Any, rows: str, row: int, column: str) -> Any:
    return page.locator(f"{rows} [row-index='{row}'] [col-id='{column}']")


def state(page: Any) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def test_the_largest_kernel_stands_first_and_the_longest_call(
    explorer: Explorer, page: Any
) -> None:
    opened(explorer, page, SAMPLE)

    assert cell(page, NAMES, 0, "calls").inner_text() == "294"
    assert cell(page, NAMES, 0, "share").inner_text() == "9.3 %"
    assert cell(page, CALLS, 0, "took_ns").inner_text() == "1,671.996"
    assert page.locator(".kernel-said").inner_text() == "53 names, 4,286 calls, 37.5 ms"


def test_sorting_is_done_on_the_server_and_stands_in_the_address(
    explorer: Explorer, page: Any
) -> None:
    opened(explorer, page, SAMPLE)
    before = count(page, "names")

    page.locator("#kernel-names .ag-header-cell[col-id='max_ns']").click()
    answered(page, "names", before + 1)

    assert state(page) == {"sort": "max_ns.desc"}
    assert cell(page, NAMES, 0, "max_ns").inner_text() == "1,672.0 µs"
    page.reload()
    answered(page, "names")
    assert cell(page, NAMES, 0, "max_ns").inner_text() == "1,672.0 µs"


def test_a_click_on_a_name_shows_its_calls_and_launchers(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)
    before = count(page, "calls")

    cell(page, NAMES, 0, "short_name").click()
    answered(page, "calls", before + 1)
    page.wait_for_selector("#kernel-histogram .main-svg")
    page.wait_for_selector("#kernel-scatter .main-svg")

    assert page.locator("#kernel-calls-said").inner_text().startswith("294 calls")
    assert page.locator("#kernel-detail h2").first.inner_text().startswith("unrolled_elementwise")
    assert "aten::copy_" in page.locator(".kernel-launchers").inner_text()
    assert cell(page, CALLS, 0, "took_ns").inner_text() == "294.911"
    page.go_back()
    page.wait_for_selector("#kernel-calls-title:has-text('Calls of all kernels')")
    page.wait_for_selector("#kernel-detail h2", state="detached")


def test_the_longest_call_leads_to_its_place_in_the_timeline(explorer: Explorer, page: Any) -> None:
    chosen = opened(explorer, page, SAMPLE)
    cell(page, NAMES, 1, "short_name").click()

    page.get_by_role("link", name="Go to the longest call").click()
    page.wait_for_url(re.compile(f"/{chosen}/timeline"))

    assert state(page)["pick"].split(":")[1].isdigit()
    assert int(state(page)["to"]) - int(state(page)["from"]) == 3 * 1_671_996


def test_a_row_leads_to_the_timeline_and_back(explorer: Explorer, page: Any) -> None:
    chosen = opened(explorer, page, SAMPLE)

    cell(page, CALLS, 0, "id").locator("button").click()
    page.wait_for_url(re.compile(f"/{chosen}/timeline"))
    page.wait_for_selector("#timeline")
    page.go_back()
    page.wait_for_selector("#kernels")
    answered(page, "calls")

    assert cell(page, CALLS, 0, "took_ns").inner_text() == "1,671.996"


def test_filters_stand_in_the_address(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)
    before = count(page, "names")

    page.get_by_role("button", name="softmax").click()
    answered(page, "names", before + 1)
    page.get_by_role("button", name="backward").click()
    answered(page, "names", before + 2)

    assert state(page) == {"family": "softmax", "phase": "backward"}
    assert page.locator(".kernel-said").inner_text().startswith("2 names, 26 calls")
    page.keyboard.press("/")
    page.keyboard.type("cunn")
    answered(page, "names", before + 3)
    assert state(page)["filter"] == "cunn"
    assert page.locator(".kernel-said").inner_text().startswith("1 names, 2 calls")
    assert "filter=cunn" in page.locator("#kernel-calls-csv").get_attribute("href")


def test_an_address_shows_what_it_says(explorer: Explorer, page: Any) -> None:
    where = '{"took_ns":{"filterType":"number","type":"lessThan","filter":100}}'
    opened(explorer, page, SAMPLE, f"?order=took_ns.desc&family=gemm&where={where}")

    assert float(cell(page, CALLS, 0, "took_ns").inner_text()) < 100
    assert cell(page, CALLS, 0, "family").inner_text() == "gemm"
    pressed = page.locator(".kernel-chips [aria-pressed='true']")
    assert pressed.all_inner_texts() == ["gemm"]


def test_scrolling_asks_for_further_pages(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)

    page.evaluate("dash_ag_grid.getApi('kernel-calls').ensureIndexVisible(4285)")
    page.wait_for_selector(f"{CALLS} [row-index='4285'] [col-id='took_ns']:has-text('0.')")

    rows = page.locator("#kernel-calls .ag-center-cols-container .ag-row")
    assert rows.count() < 100, "rows out of sight are not in the page"


def test_the_whole_table_is_copied(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)

    page.get_by_role("button", name="Copy as CSV").first.click()
    page.wait_for_selector("text=Copied")

    text = page.evaluate("navigator.clipboard.readText()")
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
        before = count(page, "calls")
        cell(page, NAMES, row, "short_name").click()
        answered(page, "calls", before + 1)
        page.wait_for_selector("#kernel-histogram .main-svg")

    assert page.evaluate("window.__hacked") is None
    assert page.locator(".kernels-page b, .kernels-page img").count() == 0
    assert "\u202e" not in page.locator(".kernels-page").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_are_readable(
    explorer: Explorer, page: Any, tmp_path: Path, scheme: str
) -> None:
    opened(explorer, page, training(tmp_path / "run.sqlite"), f"?theme={scheme}")
    ink, ground = page.evaluate(
        """() => ["color", "backgroundColor"].map((what) => {
          const row = document.querySelector("#kernel-names .ag-row");
          return getComputedStyle(row)[what].match(/\\d+/g).slice(0, 3)
            .reduce((sum, part) => sum + Number(part), 0);
        })"""
    )

    assert abs(ink - ground) > 400

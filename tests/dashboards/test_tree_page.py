"""The tree page: its route, and a browser that clicks, searches and goes back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from tracelens_dashboards.library import Library
from tracelens_dashboards.serve import wsgi

from tests.build import Nsys
from tests.dashboards.recordings import PAYLOADS, hostile
from tests.dashboards.waits import copied, quiet, reads, says, soon, state

if TYPE_CHECKING:
    from tests.dashboards.conftest import Explorer

SAMPLE: Final = (
    Path(__file__).parents[2] / "samples" / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz"
)
ALL_NS: Final = 38_197_419
CANVAS: Final = "#tree canvas"


@pytest.fixture(scope="module")
def asking() -> Any:
    library = Library([SAMPLE])
    client = wsgi(library).test_client()

    def ask(run: str | None = None, **query: str) -> Any:
        place = f"/api/tree/{run or library.items[0].id}/bars"
        return client.get(place, query_string=query)

    return ask


def test_the_answer_is_small_and_adds_up(asking: Any) -> None:
    for query in ({}, {"view": "ordered"}, {"backward": "waiting"}, {"alike": "0"}):
        answer = asking(**query)
        bars = answer.json["bars"]

        assert bars["value"][0] == sum(bars["own"]) == ALL_NS
        assert len(bars["depth"]) <= 5_000
        assert len(gzip.compress(answer.data, 1)) < 60_000
        assert {len(column) for column in bars.values()} == {len(bars["depth"])}


def test_answers_are_packed_for_those_who_unpack(asking: Any) -> None:
    recording = Library([SAMPLE]).items[0].id
    client = wsgi(Library([SAMPLE])).test_client()
    packed = client.get(f"/api/tree/{recording}/bars", headers={"Accept-Encoding": "gzip"})

    assert packed.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.data)) == asking().json


@pytest.mark.parametrize(
    "query",
    [
        {"root": "999999"}, {"root": "x"}, {"root": "-1"}, {"root": "9" * 40}, {"by": "x"},
        {"view": "x"}, {"backward": "thread"}, {"alike": "x"},
    ],
)  # fmt: skip
def test_a_state_that_makes_no_sense_is_the_usual_one(asking: Any, query: dict[str, str]) -> None:
    assert asking(**query).json == asking().json


def test_a_root_shows_the_way_to_it(asking: Any) -> None:
    whole = asking().json
    node = whole["bars"]["node"][3]
    part = asking(root=str(node)).json

    assert part["bars"]["value"][0] == whole["bars"]["value"][3]
    named = [part["names"][name] for _, name in part["path"]]
    assert named == ["step N", "forward"]
    assert part["names"][part["bars"]["name"][0]] == "GPT"


def test_a_search_counts_nothing_twice(asking: Any) -> None:
    hits = asking(q="SOFTMAX").json["hits"]

    assert hits["nodes"] > 3
    assert hits["share"] == "12 %"
    assert asking(q="nothing like it").json["hits"]["nodes"] == 0


def test_an_unknown_recording_is_not_found(asking: Any) -> None:
    assert asking(run="0" * 12).status_code == 404


# In the browser


def opened(explorer: Explorer, page: Any, path: Path, query: str = "") -> None:
    page.goto(f"{explorer([path])}/{Library([path]).items[0].id}/tree{query}")
    shown(page, 1)


def shown(page: Any, times: int) -> None:
    """Wait until so many answers have been drawn."""
    page.wait_for_function(
        "(times) => Number(document.getElementById('tree')?.dataset.shown || 0) >= times"
        " && document.querySelector('#tree canvas').dataset.drawn",
        arg=times,
    )


def bar(page: Any, row: int, x: float = 0.1) -> dict[str, float]:
    """Return a place within the picture: in a row, at a part of its width."""
    width = page.locator(CANVAS).bounding_box()["width"]
    return {"x": x * width, "y": row * 20 + 10}


def click(page: Any, row: int, x: float = 0.1) -> None:
    page.click(CANVAS, position=bar(page, row, x))


def point(page: Any, row: int, x: float = 0.1) -> None:
    page.hover(CANVAS, position=bar(page, row, x))


def looks_at(page: Any, *path: str) -> None:
    """Wait until this is looked at, below all of these."""
    soon(page, page.locator(".tree-path button").all_inner_texts, list(path))


def test_a_click_looks_at_a_bar_and_back_at_all(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)
    looks_at(page, "All GPU work")
    reads(page, ".tree-path .sum", "38.2 ms")

    click(page, 3)
    shown(page, 2)

    looks_at(page, "All GPU work", "step N", "forward", "GPT")
    page.wait_for_selector("#tree-detail .fact-value:has-text('28.0 ms')")
    page.wait_for_selector("#tree-detail h2:has-text('Kernels of GPT')")
    page.go_back()
    shown(page, 3)
    looks_at(page, "All GPU work")
    soon(page, lambda: state(page), {})


def test_keys_walk_and_go_up(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)

    page.locator("#tree canvas").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    shown(page, 2)
    looks_at(page, "All GPU work", "step N", "optimizer")
    page.keyboard.press("Escape")
    shown(page, 3)
    looks_at(page, "All GPU work", "step N")
    page.keyboard.press("f")
    shown(page, 4)
    looks_at(page, "All GPU work")


def test_choices_stand_in_the_address(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)

    page.locator("[data-choice='by']").select_option("cpu")
    shown(page, 2)
    page.locator("[data-choice='view']").select_option("ordered")
    shown(page, 3)
    page.locator("[data-choice='colour']").select_option("family")

    says(page, by="cpu", view="ordered", colour="family")
    looks_at(page, "All threads")
    page.wait_for_selector("[data-choice='backward']", state="hidden")
    page.reload()
    shown(page, 1)
    soon(page, page.locator("[data-choice='by']").input_value, "cpu")
    soon(page, page.locator("[data-choice='colour']").input_value, "family")


def test_a_search_says_how_much_it_found(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)

    page.keyboard.press("/")
    page.keyboard.type("softmax")

    says(page, q="softmax")
    reads(page, ".tree-found", "12 %")


def test_the_table_says_what_is_drawn(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)

    page.locator(".tree-table summary").click()
    page.wait_for_selector(".tree-table tbody tr")
    first = page.locator(".tree-table tbody tr").nth(1).locator("td").all_inner_texts()

    assert first[:3] == ["· step N", "100.0 %", "38,197.4 µs"]
    rows = page.locator(".tree-table tbody tr").count()
    assert rows == page.evaluate("document.querySelectorAll('.tree-table td.name').length")
    text = copied(page, page.locator(".tree-table .copy-table").first)
    assert len(text.strip().splitlines()) == rows + 1


def test_the_pointer_tells_what_lies_below_it(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)

    point(page, 2)
    page.wait_for_selector(".tree-tip >> text=forward")

    reads(page, ".tree-tip", "GPU time 29")
    page.mouse.move(0, 0)
    page.wait_for_selector(".tree-tip", state="hidden")


def test_leaving_and_coming_back_draws_it_again(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE, "?by=calls")
    page.locator("#navigation a").first.click()
    page.wait_for_selector("#tree", state="detached")
    assert page.locator(".tree-tip").count() <= 1

    page.go_back()
    shown(page, 1)
    looks_at(page, "All calls")


def test_a_call_leads_to_the_timeline(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)
    click(page, 1)

    page.get_by_role("link", name="See its longest call in the timeline").click()
    page.wait_for_url("**/timeline?*")

    soon(page, lambda: state(page), lambda said: "pick" in said)


def test_a_recording_without_ranges_says_why(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    trace = Nsys()
    trace.thread("python", pid=100, tid=100).kernel("gemm", at=0, run=(10, 20))
    path = trace.write(tmp_path / "bare.sqlite")
    page.goto(f"{explorer([path])}/{Library([path]).items[0].id}/tree")

    page.wait_for_selector("text=ranges were not recorded")


def test_names_run_nothing(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    opened(explorer, page, hostile(tmp_path / "x.sqlite"), "?alike=0")

    page.locator(".tree-table summary").click()
    page.wait_for_selector(".tree-table tbody tr")
    point(page, 1, 0.05)
    page.wait_for_selector(".tree-tip b")
    click(page, 1, 0.05)
    shown(page, 2)
    page.wait_for_selector("#tree-detail h2")
    quiet(page)

    reads(page, ".tree-path", PAYLOADS[0])
    assert page.evaluate("window.__hacked") is None
    assert page.locator(".tree-page img, .tree-page script, .tree-page td b").count() == 0
    assert "\u202e" not in page.locator(".tree-page").inner_text()

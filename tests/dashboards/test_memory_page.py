"""The memory page in a browser: zoom, the cursor, tiles and rows, the address, hostile names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.snapshots import MIB, Snapshot, training

if TYPE_CHECKING:
    from pathlib import Path

    from tests.dashboards.conftest import Explorer

PAYLOADS = (
    "<script>window.__hacked=1</script>",
    "<img src=x onerror=window.__hacked=1>",
    "<b>bold</b><a href='javascript:window.__hacked=1'>click</a>",
    "\u202egnp.exe\u2066 \x1b[31mred\x1b[0m",
)
COURSE = "#memory-course"


def drawn(page: Any, name: str, times: int = 1) -> None:
    """Wait until a picture has been drawn from so many replies."""
    page.wait_for_function(
        "([name, times]) => Number(document.getElementById('memory-page')"
        "?.dataset[name + 'Drawn'] || 0) >= times",
        arg=[name, times],
    )


def count(page: Any, name: str) -> int:
    return int(page.locator("#memory-page").get_attribute(f"data-{name}-drawn"))


def state(page: Any) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def opened(explorer: Explorer, page: Any, path: Path, query: str = "") -> None:
    address = explorer([path])
    page.goto(address)
    page.wait_for_selector("#navigation a")
    recording = page.locator("#navigation a").first.get_attribute("href").split("/")[1]
    page.goto(f"{address}/{recording}/memory{query}")
    for name in ("course", "lifetimes", "segments"):
        drawn(page, name)


def spot(page: Any, selector: str, x: float, y: float) -> tuple[float, float]:
    """Return a place within a picture: parts of its width and height."""
    page.locator(selector).scroll_into_view_if_needed()
    box = page.locator(selector).bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the snapshot of two steps of training."""
    return training(steps=2).write(tmp_path / "train.pickle")


def test_a_click_shows_what_was_live_then(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path)
    assert "At the peak" in page.locator("#memory-held h3").inner_text()
    replies = count(page, "course")

    page.mouse.click(*spot(page, COURSE, 0.2, 0.5))
    page.wait_for_selector("#memory-held h3:has-text('After event')")
    drawn(page, "course", replies + 1)

    at = state(page)["at"]
    assert f"event {at}" in page.locator("#memory-held h3").inner_text()
    page.go_back()
    page.wait_for_selector("#memory-held h3:has-text('At the peak')")
    assert "at" not in state(page)


def test_the_address_says_the_moment_the_part_and_the_choices(
    explorer: Explorer, page: Any, path: Path
) -> None:
    opened(explorer, page, path, "?x=event&from=3&to=20&by=phase&group=file&at=7")

    assert "After event 7" in page.locator("#memory-held h3").inner_text()
    assert page.locator("#memory-range").inner_text() == "17 events shown"
    assert "forward" in page.locator("#memory-legend").inner_text()
    assert page.locator("#memory-table th").all_inner_texts()[-1] == "line"


def test_the_wheel_zooms_and_fit_shows_all(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path, "?x=event")
    replies = count(page, "course")

    page.mouse.move(*spot(page, COURSE, 0.5, 0.5))
    page.mouse.wheel(0, -300)
    drawn(page, "course", replies + 1)

    assert float(state(page)["to"]) - float(state(page)["from"]) < 25
    replies = count(page, "course")
    page.click("#memory-fit")
    drawn(page, "course", replies + 1)
    assert "from" not in state(page)


def test_dragging_moves_and_is_no_click(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path, "?x=event&from=10&to=22")
    replies = count(page, "course")

    page.mouse.move(*spot(page, COURSE, 0.6, 0.5))
    page.mouse.down()
    page.mouse.move(*spot(page, COURSE, 0.3, 0.5), steps=4)
    page.mouse.up()
    drawn(page, "course", replies + 1)

    assert float(state(page)["from"]) > 12
    assert "at" not in state(page)


def test_keys_step_from_event_to_event(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path, "?at=7")

    page.keyboard.press("ArrowRight")

    page.wait_for_selector("#memory-held h3:has-text('After event 8')")
    assert state(page)["at"] == "8"


def test_choices_are_drawn_and_stand_in_the_address(
    explorer: Explorer, page: Any, path: Path
) -> None:
    opened(explorer, page, path)
    replies = count(page, "course")

    page.click("#memory-by >> text=Line of code")
    drawn(page, "course", replies + 1)
    page.click("#memory-group >> text=Category")
    page.wait_for_function("() => document.querySelectorAll('#memory-table th').length === 4")

    assert "model.py:20 forward" in page.locator("#memory-legend").inner_text()
    assert state(page)["by"] == "site"
    assert state(page)["group"] == "category"


def test_tiles_and_rows_know_each_other(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path)
    tile = page.locator(".memory-tile[data-row='0']")

    tile.click()

    row = page.locator("#memory-table tbody tr").first
    assert "chosen" in row.get_attribute("class")
    assert row.locator("details").get_attribute("open") is not None
    assert "adamw.py:30 step" in row.locator("pre").inner_text()
    page.locator("#memory-table tbody tr").nth(1).hover()
    assert "over" in page.locator(".memory-tile[data-row='1']").get_attribute("class")


def test_a_click_on_a_block_shows_its_stack(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path)

    page.mouse.click(*spot(page, "#memory-lifetimes", 0.5, 0.9))
    page.wait_for_selector("#memory-block dl")

    assert "4.00 MiB" in page.locator("#memory-block").inner_text()
    assert "before the first event" in page.locator("#memory-block").inner_text()
    page.mouse.click(*spot(page, "#memory-segments", 0.02, 0.1))
    page.wait_for_selector("#memory-segment-block dl")


def test_the_pointer_tells_what_lies_below_it(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path)

    page.mouse.move(*spot(page, COURSE, 0.3, 0.5))

    page.wait_for_selector("#memory-tip >> text=reserved")
    page.mouse.move(*spot(page, "#memory-lifetimes", 0.5, 0.9))
    page.wait_for_selector("#memory-tip >> text=not within the recording")


def test_pictures_follow_theme_and_width(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path)
    replies = count(page, "course")

    page.click("#scheme")
    page.set_viewport_size({"width": 1920, "height": 1000})
    drawn(page, "course", replies + 1)

    assert page.locator(COURSE).bounding_box()["width"] > 1400


def test_leaving_the_page_and_coming_back_draws_it_again(
    explorer: Explorer, page: Any, path: Path
) -> None:
    opened(explorer, page, path)

    page.locator("#navigation a").first.click()
    page.wait_for_selector("#memory-page", state="detached")
    page.click("#navigation >> text=Memory")

    drawn(page, "course")


def test_names_run_nothing(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    for line, name in enumerate(PAYLOADS):
        with snapshot.range(name):
            gpu.alloc((line + 1) * MIB, stack=(f"x.py:{line + 1} {name}",))
    opened(explorer, page, snapshot.write(tmp_path / "x.pickle"), "?by=site")

    page.mouse.move(*spot(page, COURSE, 0.9, 0.6))
    page.wait_for_selector("#memory-tip >> text=script")
    page.locator(".memory-tile[data-row='0']").click()
    page.mouse.click(*spot(page, "#memory-lifetimes", 0.9, 0.9))
    page.wait_for_selector("#memory-block dl")

    assert page.evaluate("window.__hacked") is None
    assert page.locator("#memory-page img, #memory-page script, #memory-page b").count() == 0
    assert "\u202e" not in page.locator("#memory-page").inner_text()

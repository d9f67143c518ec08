"""The memory page in a browser: zoom, the cursor, tiles and rows, the address, hostile names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.dashboards.waits import quiet, reads, says, soon, state
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


def opened(explorer: Explorer, page: Any, path: Path, query: str = "") -> None:
    address = explorer([path])
    page.goto(address)
    page.wait_for_selector("#navigation a")
    recording = page.locator("#navigation a").first.get_attribute("href").split("/")[1]
    page.goto(f"{address}/{recording}/memory{query}")
    for name in ("course", "lifetimes", "segments"):
        drawn(page, name)
    quiet(page)


def spot(page: Any, selector: str, x: float, y: float) -> dict[str, float]:
    """Return a place within a picture: parts of its width and height."""
    box = page.locator(selector).bounding_box()
    return {"x": x * box["width"], "y": y * box["height"]}


def click(page: Any, selector: str, x: float, y: float) -> None:
    """Click a place within a picture, once that has come to rest."""
    page.click(selector, position=spot(page, selector, x, y))


def point(page: Any, selector: str, x: float, y: float) -> None:
    """Move the pointer to a place within a picture, once that has come to rest."""
    page.hover(selector, position=spot(page, selector, x, y))


def held(page: Any, wanted: str) -> None:
    """Wait until the part about what is live has this heading."""
    page.wait_for_selector(f"#memory-held h3:has-text('{wanted}')")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the snapshot of two steps of training."""
    return training(steps=2).write(tmp_path / "train.pickle")


def test_a_click_shows_what_was_live_then(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path)
    held(page, "At the peak")

    click(page, COURSE, 0.2, 0.5)
    held(page, "After event")

    held(page, f"event {state(page)['at']}")
    page.go_back()
    held(page, "At the peak")
    says(page, at=None)


def test_the_address_says_the_moment_the_part_and_the_choices(
    explorer: Explorer, page: Any, path: Path
) -> None:
    opened(explorer, page, path, "?x=event&from=3&to=20&by=phase&group=file&at=7")

    held(page, "After event 7")
    reads(page, "#memory-range", "17 events shown")
    reads(page, "#memory-legend", "forward")
    heads = page.locator("#memory-table th")
    soon(page, heads.all_inner_texts, lambda texts: texts[-1] == "line")


def test_the_wheel_zooms_and_fit_shows_all(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path, "?x=event")

    point(page, COURSE, 0.5, 0.5)
    page.mouse.wheel(0, -300)

    said = soon(page, lambda: state(page), lambda said: said.keys() >= {"from", "to"})
    assert float(said["to"]) - float(said["from"]) < 25
    page.click("#memory-fit")
    says(page, **{"from": None, "to": None})
    reads(page, "#memory-range", lambda text: int(text.split()[0]) > 25)


def test_dragging_moves_and_is_no_click(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path, "?x=event&from=10&to=22")

    point(page, COURSE, 0.6, 0.5)
    page.mouse.down()
    for x in (0.5, 0.4, 0.3):
        point(page, COURSE, x, 0.5)
    page.mouse.up()

    said = soon(page, lambda: state(page), lambda said: float(said["from"]) > 12)
    assert "at" not in said


def test_keys_step_from_event_to_event(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path, "?at=7")

    page.keyboard.press("ArrowRight")

    held(page, "After event 8")
    says(page, at="8")


def test_choices_are_drawn_and_stand_in_the_address(
    explorer: Explorer, page: Any, path: Path
) -> None:
    opened(explorer, page, path)

    page.click("#memory-by >> text=Line of code")
    says(page, by="site")
    page.click("#memory-group >> text=Category")

    says(page, by="site", group="category")
    reads(page, "#memory-legend", "model.py:20 forward")
    page.wait_for_function("() => document.querySelectorAll('#memory-table th').length === 4")


def test_tiles_and_rows_know_each_other(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path)

    page.click(".memory-tile[data-row='0']")

    row = "#memory-table tbody tr:first-child.chosen"
    page.wait_for_selector(f"{row} details[open]")
    reads(page, f"{row} pre", "adamw.py:30 step")
    page.hover("#memory-table tbody tr:nth-child(2)")
    page.wait_for_selector(".memory-tile.over[data-row='1']")


def test_a_click_on_a_block_shows_its_stack(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path)

    click(page, "#memory-lifetimes", 0.5, 0.9)
    page.wait_for_selector("#memory-block dl")

    reads(page, "#memory-block", "4.00 MiB")
    reads(page, "#memory-block", "before the first event")
    click(page, "#memory-segments", 0.02, 0.1)
    page.wait_for_selector("#memory-segment-block dl")


def test_the_pointer_tells_what_lies_below_it(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path)

    point(page, COURSE, 0.3, 0.5)

    page.wait_for_selector("#memory-tip >> text=reserved")
    point(page, "#memory-lifetimes", 0.5, 0.9)
    page.wait_for_selector("#memory-tip >> text=not within the recording")


def test_pictures_follow_theme_and_width(explorer: Explorer, page: Any, path: Path) -> None:
    opened(explorer, page, path)
    replies = int(page.locator("#memory-page").get_attribute("data-course-drawn"))

    page.click("#scheme")
    page.set_viewport_size({"width": 1920, "height": 1000})
    drawn(page, "course", replies + 1)

    soon(page, lambda: page.locator(COURSE).bounding_box()["width"], lambda width: width > 1400)


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

    point(page, COURSE, 0.9, 0.6)
    page.wait_for_selector("#memory-tip >> text=script")
    page.locator(".memory-tile[data-row='0']").click()
    click(page, "#memory-lifetimes", 0.9, 0.9)
    page.wait_for_selector("#memory-block dl")

    assert page.evaluate("window.__hacked") is None
    assert page.locator("#memory-page img, #memory-page script, #memory-page b").count() == 0
    assert "\u202e" not in page.locator("#memory-page").inner_text()

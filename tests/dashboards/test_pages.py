"""Every page of every sample in a browser; and what is shown where there is nothing to show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("dash", reason="no dash: the explorer is not installed")

from tracelens_dashboards.library import Library

from tests.dashboards.recordings import training
from tests.dashboards.visits import SHOWN, addresses, is_shown, visit
from tests.dashboards.waits import count, quiet, reads, soon
from tests.snapshots import training as snapshot

if TYPE_CHECKING:
    from tests.dashboards.conftest import Explorer

SAMPLES: Final = Path(__file__).parents[2] / "samples"
LACKING: Final = {
    ("capture-ddp-medium-h200x2", "memory"): "memory",
    ("capture-gpt2-small-ctx512-graph-h200", "memory"): "memory",
    ("gpt2-small-1layer-ncu-h200", "memory"): "memory",
}
"""What these recordings have no page of, and what is then told."""

CHROME: Final = ("#navigation", "#run", "#refresh", "#copy-link", ".copy-buttons")


@pytest.mark.parametrize("sample", sorted(p.name for p in SAMPLES.iterdir() if p.is_dir()))
def test_every_page_of_the_samples_opens(explorer: Explorer, page: Any, sample: str) -> None:
    recordings = [SAMPLES / sample]
    for address in addresses(explorer(recordings), recordings):
        page.set_viewport_size({"width": 1280, "height": 900})
        name = visit(page, f"{address}?theme=light")
        fits(page, 1280)
        if (sample, name) in LACKING:
            reads(page, "#page [role=alert]:visible", LACKING[sample, name])
            continue
        page.set_viewport_size({"width": 1920, "height": 900})
        page.keyboard.press("t")
        page.wait_for_selector("html[data-mantine-color-scheme=dark]")
        page.wait_for_selector(SHOWN[name])
        quiet(page)
        fits(page, 1920)

        assert is_shown(page, name)
        assert page.query_selector("#page .problem") is None


def fits(page: Any, width: int) -> None:
    reach = "document.documentElement.scrollWidth"
    soon(page, lambda: page.evaluate(reach), lambda reached: reached <= width)


@pytest.mark.parametrize("name", ["nothing_like_it", "<b>Kernels<b>", "memory/2"])
def test_an_unknown_page_is_told_and_leads_to_those_there_are(
    explorer: Explorer, page: Any, tmp_path: Path, name: str
) -> None:
    path = training(tmp_path / "run.sqlite")
    base = explorer([path])
    recording = Library([path]).items[0].id

    page.goto(f"{base}/{recording}/{quote(name)}")
    reads(page, "#page [role=alert]", "There is no")
    page.locator("#page [role=alert] a").first.click()

    page.wait_for_selector("h1:has-text('run.sqlite')")
    soon(page, lambda: urlsplit(page.url).path in {"/", f"/{recording}/overview"}, True)
    assert page.locator("main b").count() == 0


def test_a_page_that_a_recording_lacks_says_what_it_lacks(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    path = snapshot().write(tmp_path / "memory.pickle")

    page.goto(f"{explorer([path])}/{Library([path]).items[0].id}/kernels")

    reads(page, "#page [role=alert]", "memory.pickle has no page Kernels: it holds memory alone")
    count(page, "#navigation [data-active]", 0)


@pytest.mark.parametrize("address", ["0123456789ab/timeline", "0123456789ab"])
def test_an_unknown_recording_is_told(
    explorer: Explorer, page: Any, tmp_path: Path, address: str
) -> None:
    base = explorer([training(tmp_path / "run.sqlite")])

    page.goto(f"{base}/{address}")
    page.wait_for_selector("#page [role=alert]:has-text('no such recording')")
    page.click("#page [role=alert] a")

    page.wait_for_selector("h1:has-text('run.sqlite')")


@pytest.mark.parametrize("width", [600, 767, 1000])
def test_navigation_and_header_fit_into_narrow_windows(
    explorer: Explorer, page: Any, tmp_path: Path, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(explorer([training(tmp_path / "run.sqlite")]))
    page.wait_for_selector(".fact-value")
    quiet(page)
    fits(page, width)

    page.click("#navigation a:has-text('Kernels')")
    page.wait_for_selector(SHOWN["kernels"])
    fits(page, width)
    page.click("#navigation a:has-text('Overview')")
    page.click("#help")
    page.wait_for_selector("#key-list")


def test_each_page_of_a_damaged_recording_says_why(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    bad = training(tmp_path / "bad.sqlite")
    bad.write_bytes(bad.read_bytes()[:16] + bytes(5_000))
    page.provoked.append("404")  # the timeline's own request is refused, and a browser tells it
    for address in addresses(explorer([bad]), [bad]):
        visit(page, address)
        why = "bad.sqlite is an SQLite file, but it cannot be read"
        reads(page, "#page [role=alert]:visible", why)


def test_a_folder_without_recordings_says_so(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")

    page.goto(explorer([tmp_path]))

    page.wait_for_selector("[role=alert]:has-text('No recording was found')")
    assert page.query_selector("#navigation a") is None


def test_on_paper_no_page_has_navigation_or_buttons(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    path = training(tmp_path / "run.sqlite")
    for address in addresses(explorer([path]), [path]):
        visit(page, address)
        page.emulate_media(media="print")
        for part in CHROME:
            count(page, f"{part}:visible", 0)
        page.emulate_media(media="screen")


def test_a_damaged_snapshot_says_why_on_the_overview(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    bad = snapshot().write(tmp_path / "memory.pickle")
    bad.write_bytes(bad.read_bytes()[:-100])

    for address in addresses(explorer([bad]), [bad]):
        visit(page, address)
        reads(page, "#page [role=alert]:visible", "memory.pickle is cut off")

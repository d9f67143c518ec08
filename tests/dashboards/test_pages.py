"""Every page of every sample in a browser; and what is shown where there is nothing to show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

pytest.importorskip("dash", reason="no dash: the explorer is not installed")

from tracelens_dashboards.library import Library

from tests.dashboards.recordings import training
from tests.dashboards.visits import SHOWN, addresses, is_shown, visit
from tests.snapshots import training as snapshot

if TYPE_CHECKING:
    from tests.dashboards.conftest import Explorer

SAMPLES: Final = Path(__file__).parents[2] / "samples"
CHROME: Final = ("#navigation", "#run", "#refresh", "#copy-link", ".copy-buttons")


@pytest.mark.parametrize("sample", sorted(p.name for p in SAMPLES.iterdir() if p.is_dir()))
def test_every_page_of_the_samples_opens(explorer: Explorer, page: Any, sample: str) -> None:
    recordings = [SAMPLES / sample]
    for address in addresses(explorer(recordings), recordings):
        page.set_viewport_size({"width": 1280, "height": 900})
        name = visit(page, f"{address}?theme=light")
        fits(page, 1280)
        page.set_viewport_size({"width": 1920, "height": 900})
        page.keyboard.press("t")
        page.wait_for_selector("html[data-mantine-color-scheme=dark]")
        page.wait_for_selector(SHOWN[name])
        fits(page, 1920)

        assert is_shown(page, name)
        assert page.query_selector("#page .problem") is None


def fits(page: Any, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_unknown_page_is_the_first_one(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    path = training(tmp_path / "run.sqlite")
    base = explorer([path])

    page.goto(f"{base}/{Library([path]).items[0].id}/nothing_like_it")

    page.wait_for_selector("h1:has-text('run.sqlite')")
    assert page.inner_text("#navigation [data-active]") == "Overview"


@pytest.mark.parametrize("address", ["0123456789ab/timeline", "0123456789ab", "no/such/place"])
def test_an_unknown_recording_is_told_or_the_first_one_is_shown(
    explorer: Explorer, page: Any, tmp_path: Path, address: str
) -> None:
    base = explorer([training(tmp_path / "run.sqlite")])

    page.goto(f"{base}/{address}")

    page.wait_for_selector("#page [role=alert]:has-text('no such recording'), h1")
    assert ("run.sqlite" in page.inner_text("#page")) == address.startswith("no")


def test_each_page_of_a_damaged_recording_says_why(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    bad = training(tmp_path / "bad.sqlite")
    bad.write_bytes(bad.read_bytes()[:16] + bytes(5_000))
    for address in addresses(explorer([bad]), [bad]):
        visit(page, address)
        said = page.inner_text("#page [role=alert]:visible")
        assert "bad.sqlite is an SQLite file, but it cannot be read" in said

    # The timeline's own request is refused, which a browser always reports.
    page.complaints[:] = [one for one in page.complaints if "404" not in one]


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
        shown = [one for one in CHROME if page.locator(f"{one}:visible").count()]
        page.emulate_media(media="screen")

        assert shown == []


def test_a_damaged_snapshot_says_why_on_the_overview(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    bad = snapshot().write(tmp_path / "memory.pickle")
    bad.write_bytes(bad.read_bytes()[:-100])

    for address in addresses(explorer([bad]), [bad]):
        visit(page, address)
        assert "memory.pickle is cut off" in page.inner_text("#page [role=alert]:visible")

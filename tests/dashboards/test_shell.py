"""The shell in a browser: picking, pages, theme, keys, the address, and copying tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.dashboards.recordings import PAYLOADS, hostile, training
from tests.dashboards.waits import answers, copied, leave_dialog, quiet, reads, says, soon
from tracelens.errors import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.dashboards.conftest import Explorer

pytest.importorskip("dash")

from tracelens_dashboards import app as shell
from tracelens_dashboards import palette, parts
from tracelens_dashboards.library import Library

SCHEME = "document.documentElement.dataset.mantineColorScheme"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    training(tmp_path / "first.sqlite")
    training(tmp_path / "second.sqlite", idle_ns=400_000)
    return tmp_path


def ready(page: Any) -> None:
    page.wait_for_selector(".fact-value")
    quiet(page)


def is_scheme(page: Any, wanted: str) -> None:
    soon(page, lambda: page.evaluate(SCHEME), wanted)


def test_a_recording_is_picked_and_the_back_button_returns(
    explorer: Explorer, page: Any, two: Path
) -> None:
    base = explorer([two])
    first, second = (item.id for item in Library([two]).items)
    page.goto(f"{base}/{first}/overview")
    ready(page)

    page.click("#run")
    page.click("[role=option]:has-text('second.sqlite')")
    page.wait_for_selector("h1:has-text('second.sqlite')")
    soon(page, lambda: page.url, f"{base}/{second}/overview")
    page.go_back()
    page.wait_for_selector("h1:has-text('first.sqlite')")

    page.wait_for_function("() => document.querySelector('#run').value.includes('first.sqlite')")
    page.wait_for_function("() => document.title.includes('first.sqlite · Overview')")
    soon(page, lambda: page.url, f"{base}/{first}/overview")


def test_the_theme_follows_the_system_then_the_choice_then_the_address(
    explorer: Explorer, page: Any, two: Path
) -> None:
    base = explorer([two])
    page.emulate_media(color_scheme="dark")
    page.goto(base)
    ready(page)
    is_scheme(page, "dark")

    page.keyboard.press("t")
    is_scheme(page, "light")
    says(page, theme="light")
    page.goto(base)
    ready(page)
    is_scheme(page, "light")
    page.goto(f"{base}/?theme=dark")
    ready(page)

    is_scheme(page, "dark")
    assert page.evaluate("localStorage.getItem('mantine-color-scheme-value')") == "light"


def test_figures_follow_the_theme(explorer: Explorer, page: Any, two: Path) -> None:
    page.goto(explorer([two]) + "/?theme=light")
    page.wait_for_selector(".js-plotly-plot .ytick text")
    ready(page)
    is_scheme(page, "light")
    colour = "getComputedStyle(document.querySelector('.js-plotly-plot .ytick text')).fill"
    light = page.evaluate(colour)

    page.click("#scheme")
    is_scheme(page, "dark")

    soon(page, lambda: page.evaluate(colour), lambda dark: dark != light)


def test_keys_are_told_and_digits_open_pages(explorer: Explorer, page: Any, two: Path) -> None:
    page.goto(explorer([two]))
    ready(page)

    page.keyboard.press("?")
    page.wait_for_selector("#key-list >> text=light or dark")
    leave_dialog(page)
    page.keyboard.press("1")

    page.wait_for_url(re.compile(r"/[0-9a-f]{12}/overview$"))


def test_keys_in_a_field_belong_to_the_field(explorer: Explorer, page: Any, two: Path) -> None:
    page.goto(explorer([two]))
    ready(page)
    before = page.evaluate(SCHEME)

    page.click("#run")
    page.keyboard.type("t?1")
    soon(page, page.locator("#run").input_value, lambda text: "t?1" in text)

    assert page.evaluate(SCHEME) == before
    assert page.query_selector("#key-list") is None


def test_the_link_names_the_page_that_is_shown(explorer: Explorer, page: Any, two: Path) -> None:
    base = explorer([two])
    page.goto(f"{base}/?theme=dark")
    ready(page)

    answers(page, page.locator("#copy-link"), "Copied")

    first = Library([two]).items[0].id
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == f"{base}/{first}/overview?theme=dark"


def test_new_runs_are_told_and_shown_when_asked_for(
    explorer: Explorer, page: Any, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "_WATCH_MS", 200)
    page.goto(explorer([two]))
    ready(page)
    page.evaluate("document.querySelector('h1').dataset.mine = 'kept'")

    training(two / "third.sqlite")
    page.wait_for_selector("#notice:has-text('1 new run')")
    page.click("#refresh")
    page.wait_for_selector("#notice:has-text('1 new run')", state="detached")
    page.click("#run")
    page.wait_for_selector("[role=option]:has-text('third.sqlite')")

    assert page.evaluate("document.querySelector('h1').dataset.mine") == "kept"


def test_a_recording_that_changed_is_read_again_when_asked_for(
    explorer: Explorer, page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "_WATCH_MS", 200)
    path = training(tmp_path / "run.sqlite")
    page.goto(explorer([tmp_path]))
    page.wait_for_selector(".fact-value:has-text('4')")

    path.unlink()
    hostile(path)
    page.wait_for_selector("#notice:has-text('1 new run')")
    page.click("#refresh")

    page.wait_for_selector(f".fact-value:has-text('{len(PAYLOADS)}')")


def test_a_damaged_file_is_listed_with_its_reason(explorer: Explorer, page: Any, two: Path) -> None:
    bad = training(two / "bad.sqlite")
    bad.write_bytes(bad.read_bytes()[:16] + bytes(5_000))
    base = explorer([two])
    broken = next(item.id for item in Library([two]).items if item.trace == bad)

    page.goto(f"{base}/{broken}/overview")
    page.wait_for_selector("[role=alert]:has-text('bad.sqlite')")
    page.goto(base)
    ready(page)
    page.wait_for_selector("#problems-open:has-text('1 not readable')")
    page.click("#problems-open")
    page.wait_for_selector("[role=dialog] li:has-text('bad.sqlite')")
    leave_dialog(page)
    page.click("#run")

    page.wait_for_selector("[role=option]:has-text('bad.sqlite (cannot be read)')")


def test_an_error_behind_the_page_is_told(
    explorer: Explorer, page: Any, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_self: Library) -> int:
        raise UnreadableError("<b>The folder is gone.</b>")

    monkeypatch.setattr(Library, "unseen", fails)

    page.goto(explorer([two]))

    page.wait_for_selector("#notice:has-text('Not shown: <b>The folder is gone.</b>')")
    ready(page)


def test_tables_are_copied_as_csv_and_markdown(explorer: Explorer, page: Any, two: Path) -> None:
    page.goto(explorer([two]))
    table = page.locator(".card:has(h2:text-is('Top kernels'))")
    table.wait_for()
    ready(page)

    csv = copied(page, table.locator("text=Copy as CSV")).replace("\r", "").splitlines()
    markdown = copied(page, table.locator("text=Copy as Markdown")).splitlines()

    assert csv[0] == "short_name,family,calls,total_ns,share,median_ns"
    assert csv[1].startswith("ampere_sgemm_128x64_tn,gemm,2,200000,0.52")
    assert markdown[0] == "| kernel | family | calls | total | share | median |"
    assert markdown[1] == "| --- | --- | --: | --: | --: | --: |"
    assert markdown[2].startswith("| `ampere_sgemm_128x64_tn` | gemm | 2 | 200.0 µs |")


def test_names_that_are_markup_are_text(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x onerror=window.__hacked=1>"
    folder.mkdir()
    hostile(folder / "<script>window.__hacked=1<.sqlite")
    page.goto(explorer([tmp_path]))
    page.wait_for_selector("text=Top kernels")
    page.wait_for_selector("text=What was captured")
    page.click("#run")
    page.wait_for_selector("[role=option]")

    quiet(page)
    assert page.evaluate("window.__hacked") is None
    assert page.query_selector("main img, main svg[onload], main script") is None
    reads(page, "h1", "<script>")
    text = page.inner_text("body")
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_two_users_do_not_see_each_others_state(
    explorer: Explorer, tab: Callable[..., Any], two: Path
) -> None:
    base = explorer([two])
    first, second = (item.id for item in Library([two]).items)
    pages = [tab() for _ in range(2)]
    for page, chosen in zip(pages, (first, second), strict=True):
        page.goto(f"{base}/{chosen}/overview")
        ready(page)

    before = pages[1].evaluate(SCHEME)
    pages[0].keyboard.press("t")
    soon(pages[0], lambda: pages[0].evaluate(SCHEME), lambda scheme: scheme != before)
    pages[0].click("#refresh")
    quiet(pages[0])

    says(pages[0], theme=pages[0].evaluate(SCHEME))
    assert pages[1].url == f"{base}/{second}/overview"
    assert "second.sqlite" in pages[1].inner_text("h1")
    assert pages[1].evaluate(SCHEME) == before


@pytest.mark.parametrize("width", [1280, 1920])
def test_nothing_reaches_beyond_the_window(
    explorer: Explorer, page: Any, two: Path, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(explorer([two]))
    page.wait_for_selector("text=What was captured")
    quiet(page)

    reach = "document.documentElement.scrollWidth"
    soon(page, lambda: page.evaluate(reach), lambda reached: reached <= width)


def test_on_paper_there_is_no_navigation_and_it_is_light(
    explorer: Explorer, page: Any, two: Path
) -> None:
    page.goto(explorer([two]) + "/?theme=dark")
    ready(page)

    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")

    is_scheme(page, "light")
    for part in ("#navigation", "#run"):
        page.wait_for_selector(part, state="hidden")
    assert page.is_visible("h1")


def test_colours_are_the_same_in_python_and_in_the_browser(
    explorer: Explorer, page: Any, two: Path
) -> None:
    page.goto(explorer([two]))
    ready(page)
    names = ["forward", "my own phase", "Größe", "", "🙂"]

    seen = page.evaluate("(names) => names.map((name) => tracelens.colour('phase', name))", names)
    families = page.evaluate("['gemm', 'unheard of'].map((n) => tracelens.colour('family', n))")

    assert seen == [palette.phase(name) for name in names]
    assert families == [palette.family("gemm"), palette.NONE]


def test_addresses_are_made_of_constants_and_escaped_state() -> None:
    href = parts.place("0123456789ab", "kernels", kernel="&a=<b>", none=None)

    assert href == "/0123456789ab/kernels?kernel=%26a%3D%3Cb%3E"
    assert shell.query("?kernel=%26a%3D%3Cb%3E") == {"kernel": "&a=<b>"}

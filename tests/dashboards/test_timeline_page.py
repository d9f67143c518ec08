"""The timeline in a real browser: its picture, what keys and pointer do, what the URL holds."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

pytest.importorskip("dash", reason="no dash: the explorer is not installed")

from tracelens_dashboards.library import Library

from tests.build import Nsys
from tests.dashboards.recordings import PAYLOADS, hostile, training
from tests.dashboards.waits import copied, count, reads, says, soon, state
from tracelens import units
from tracelens.tables.build import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Explorer = Callable[[Sequence[Path]], str]

SAMPLES: Final = Path(__file__).parents[2] / "samples"
KINETO: Final = SAMPLES / "gpt2-small-ctx512-bf16-h200"
RECORDINGS: Final = ("gpt2-small-ctx512-bf16-h200", "gpt2-xl-ctx256-h200", "gpt2-medium-ddp-h200x2")
STREAM: Final = "[data-row^=s]"


@pytest.fixture
def small(explorer: Explorer, page: Any, tmp_path: Path) -> Any:
    """Give a page on the timeline of two short steps, drawn."""
    return opened(page, explorer, training(tmp_path / "run.sqlite"))


def opened(page: Any, explorer: Explorer, path: Path, query: str = "") -> Any:
    page.goto(f"{explorer([path])}/{Library([path]).items[0].id}/timeline{query}")
    return settled(page)


def settled(page: Any) -> Any:
    """Wait until nothing follows out of what was done: busy begins with the key or the click."""
    page.wait_for_selector("#timeline[aria-busy=false] .tl-canvas")
    return page


def window(page: Any) -> tuple[float, float]:
    """Return the time in view, in ns."""
    axis = page.evaluate("[tracelens.timeline.now.axis.from, tracelens.timeline.now.axis.to]")
    return axis[0], axis[1]


def shows(page: Any, begin: float, end: float, within: float = 1e-6) -> None:
    """Wait until just this time is in view."""
    soon(page, lambda: window(settled(page)), pytest.approx((begin, end), rel=1e-6, abs=within))


def picked(page: Any, start_ns: int) -> None:
    """Wait until what begins then is picked."""
    soon(page, lambda: page.evaluate("tracelens.timeline.now.picked?.start_ns"), start_ns)


def where(page: Any, ns: float, row: str = STREAM) -> tuple[float, float]:
    """Return the point of the screen that shows a time of a row."""
    label, canvas = (page.locator(of).first.bounding_box() for of in (row, ".tl-canvas"))
    x = page.evaluate("ns => tracelens.timeline.now.axis.x(ns)", ns)
    return canvas["x"] + x, label["y"] + 8


def pixel(page: Any, x: float, y: float) -> list[int]:
    """Return red, green and blue at a point of the screen, where the canvas is."""
    canvas = page.locator(".tl-canvas").bounding_box()
    read = "([x, y]) => [...tracelens.timeline.now.painter.context.getImageData(x, y, 1, 1).data]"
    rgb: list[int] = page.evaluate(read, [int(x - canvas["x"]), int(y - canvas["y"])])[:3]
    return rgb


def facts(page: Any) -> dict[str, str]:
    """Return the details in the panel, label -> text."""
    page.wait_for_selector(".tl-details")
    lists = page.locator(".tl-details dl")
    return dict(
        zip(
            lists.locator("dt").all_inner_texts(),
            lists.locator("dd").all_inner_texts(),
            strict=True,
        )
    )


def table(page: Any, title: str) -> list[dict[str, str]]:
    """Return the rows of a statistics table as its CSV has them."""
    page.wait_for_selector(".tl-statistics")
    part = page.locator(".tl-statistics div", has=page.get_by_role("heading", name=title)).last
    text = copied(page, part.get_by_role("button", name="Copy as CSV"))
    return list(csv.DictReader(io.StringIO(text)))


def in_url(page: Any) -> tuple[float, float]:
    """Return the time in view as the address says it."""
    said = state(page)
    return float(said.get("from", "nan")), float(said.get("to", "nan"))


def pick(page: Any, ns: float, row: str = STREAM) -> dict[str, str]:
    page.mouse.click(*where(page, ns, row))
    page.wait_for_selector(".tl-details")
    return facts(settled(page))


@pytest.mark.parametrize("name", RECORDINGS)
def test_it_opens_on_our_recordings(explorer: Explorer, page: Any, name: str) -> None:
    opened(page, explorer, SAMPLES / name)

    kinds = page.locator(".tl-label").evaluate_all("all => all.map(one => one.dataset.row[0])")
    assert {"s", "a", "r"} <= set(kinds)
    soon(page, lambda: page.evaluate("tracelens.timeline.drawn"), lambda drawn: drawn > 0)
    soon(page, lambda: page.evaluate("tracelens.timeline.pending"), 0)
    reads(page, ".tl-legend", lambda text: text.split()[:1] == ["forward"])


def test_keys_zoom_and_move(small: Any) -> None:
    whole = window(small)
    drawn = small.evaluate("tracelens.timeline.drawn")
    small.keyboard.press("w")
    small.keyboard.press("w")
    near = window(settled(small))
    small.keyboard.press("d")
    right = window(settled(small))
    small.keyboard.press("a")
    left = window(settled(small))
    for _ in range(4):
        small.keyboard.press("s")

    assert whole[0] < near[0] < near[1] < whole[1]
    assert right[0] > near[0]
    assert right[1] - right[0] == pytest.approx(near[1] - near[0])
    assert left == pytest.approx(near)
    shows(small, *whole)
    soon(small, lambda: small.evaluate("tracelens.timeline.drawn"), lambda now: now > drawn)
    says(small, **{"from": None, "to": None})


def test_the_wheel_zooms_at_the_pointer_and_the_url_says_so(small: Any) -> None:
    ns = 400_000
    x, y = where(small, ns)
    small.mouse.move(x, y)
    small.mouse.wheel(0, -400)
    soon(small, lambda: state(small), lambda said: said.keys() >= {"from", "to"})
    begin, end = window(settled(small))

    soon(small, lambda: in_url(small), pytest.approx((begin, end), abs=1))
    assert end - begin < 1_000_000
    assert where(small, ns)[0] == pytest.approx(x, abs=1)


def test_the_wheel_with_shift_moves(small: Any) -> None:
    small.keyboard.press("w")
    before, _ = soon(small, lambda: in_url(small), lambda said: said[0] == said[0])
    small.mouse.move(*where(settled(small), 500_000))
    small.keyboard.down("Shift")
    small.mouse.wheel(0, 60)

    soon(small, lambda: in_url(small)[0], lambda now: now > before)
    small.keyboard.up("Shift")


def test_where_rows_do_not_fit_the_wheel_scrolls_them(explorer: Explorer, page: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 520})
    opened(page, explorer, KINETO)
    page.mouse.move(700, 300)
    page.mouse.wheel(0, 100)
    page.wait_for_function("() => tracelens.timeline.now.stage.scrollTop > 0")
    whole = window(settled(page))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    soon(page, lambda: window(settled(page))[0], lambda begin: begin > whole[0])
    page.keyboard.up("Control")

    soon(page, lambda: in_url(page)[0], lambda begin: begin > whole[0])


def test_dragging_moves(small: Any) -> None:
    for _ in range(4):
        small.keyboard.press("w")
    begin, end = window(settled(small))
    x, y = where(small, begin + 100)
    small.mouse.move(x + 300, y)
    small.mouse.down()
    small.mouse.move(x + 200, y, steps=3)
    small.mouse.up()

    per_px = small.evaluate("tracelens.timeline.now.axis.nsPerPx")
    shows(small, begin + 100 * per_px, end + 100 * per_px)


def test_a_click_shows_the_kernel_with_its_launch_ranges_and_phase(small: Any) -> None:
    known = pick(small, 50_000)

    assert known["duration"] == units.time(100_000)
    assert known["start"] == "0.003 ms"
    assert known["phase"] == "forward"
    assert known["kind of work"] == "gemm"
    assert known["launched by"].startswith("cudaLaunchKernel")
    assert known["in range"].startswith("forward")
    assert small.evaluate("tracelens.timeline.now.picked.launch.row").startswith("a")


def test_the_longest_kernel_takes_as_long_as_the_table_says(explorer: Explorer, page: Any) -> None:
    linked = Library([KINETO]).open(Library([KINETO]).items[0].id).linked
    longest = fill(linked, "kernels").frame.sort("max_ns").tail(1).to_dicts()[0]
    ops = linked.ops.filter((linked.ops["end_ns"] - linked.ops["start_ns"]) == longest["max_ns"])
    start, end = ops.row(0, named=True)["start_ns"], ops.row(0, named=True)["end_ns"]
    opened(page, explorer, KINETO, f"?from={start - 5_000}&to={end + 5_000}")

    assert pick(page, (start + end) / 2)["duration"] == units.time(longest["max_ns"])
    reads(page, ".tl-title", longest["short_name"])


def test_buttons_in_the_details_go_there(small: Any) -> None:
    pick(small, 50_000)
    small.get_by_role("button", name="cudaLaunchKernel").click()
    small.wait_for_selector(".tl-title:has-text('cudaLaunchKernel')")
    known = facts(settled(small))
    small.go_back()
    small.wait_for_selector(".tl-title:has-text('sgemm')")

    assert known["what"] == "CUDA call"
    assert "sgemm" in known["launched"]
    assert facts(settled(small))["duration"] == units.time(100_000)


def test_arrow_keys_step_from_kernel_to_kernel(small: Any) -> None:
    steps = {"ArrowRight": (3_000, 353_000, 1_003_000), "ArrowLeft": (353_000, 3_000)}
    for key, starts in steps.items():
        for start_ns in starts:
            small.keyboard.press(key)
            picked(settled(small), start_ns)
    small.keyboard.press("ArrowLeft")

    reads(small, ".tl-status", "There is none before this.")
    picked(small, 3_000)


def test_f_shows_the_picked_kernel_then_everything(small: Any) -> None:
    whole = window(small)
    pick(small, 50_000)
    small.keyboard.press("f")
    shows(small, 0, 128_000)
    small.keyboard.press("f")

    shows(small, *whole)


def test_search_marks_what_it_finds_and_n_walks_through_it(small: Any) -> None:
    small.keyboard.press("/")
    small.keyboard.type("elementwise")
    small.wait_for_selector(".tl-found:has-text('2 in view')")
    settled(small)
    row = small.evaluate("[...tracelens.timeline.now.search.hits.bins.keys()]")
    label = small.locator(STREAM).bounding_box()
    x, _ = where(small, 400_000)
    marked, bare = (pixel(small, at, label["y"]) for at in (x, where(small, 50_000)[0]))
    small.keyboard.press("Enter")
    picked(small, 353_000)
    settled(small)
    small.keyboard.press("Escape")
    small.keyboard.press("/")
    small.keyboard.type("elementwise")
    small.wait_for_selector(".tl-found:has-text('2 in view')")
    small.keyboard.press("Tab")
    small.evaluate("document.activeElement.blur()")
    small.keyboard.press("n")
    picked(small, 1_353_000)
    settled(small)
    small.keyboard.press("Shift+N")
    picked(small, 353_000)

    assert [name[0] for name in row] == ["s"]
    assert marked != bare
    says(small, q="elementwise")


def test_search_takes_regular_expressions_and_says_when_it_is_none(small: Any) -> None:
    small.get_by_label("regex").check()
    small.get_by_label("Search names").fill("^step [01]$")
    small.wait_for_selector(".tl-found:has-text('2 in view')")
    small.get_by_label("Search names").fill("step (")

    small.wait_for_selector(".tl-found:has-text('no regular expression')")
    says(small, q="step (", regex="1")


def test_statistics_of_everything_are_those_of_the_summary(explorer: Explorer, page: Any) -> None:
    linked = Library([KINETO]).open(Library([KINETO]).items[0].id).linked
    opened(page, explorer, KINETO, "?sel=0-153865527")
    shown = table(page, "GPU work by phase")
    kernels = table(page, "GPU time by kernel")

    phases = fill(linked, "phases").frame
    for row, expected in zip(shown, phases.iter_rows(named=True), strict=True):
        assert row["phase"] == expected["phase"]
        for name in ("kernels", "kernel_time_ns", "busy_ns", "copies", "copy_time_ns"):
            assert int(row[name]) == expected[name]
    top = fill(linked, "kernels").frame.row(0, named=True)
    assert kernels[0]["short_name"] == top["short_name"]
    assert int(kernels[0]["total_ns"]) == top["total_ns"]


def test_dragging_with_shift_selects_a_range_for_statistics(small: Any) -> None:
    (x0, y), (x1, _) = where(small, 53_000), where(small, 300_000)
    small.keyboard.down("Shift")
    small.mouse.move(x0, y)
    small.mouse.down()
    small.mouse.move(x1, y, steps=3)
    small.mouse.up()
    small.keyboard.up("Shift")
    rows = table(small, "GPU work by phase")
    said = soon(small, lambda: state(small), lambda said: "sel" in said)
    begin, _ = (int(text) for text in said["sel"].split("-"))

    assert [row["phase"] for row in rows] == ["forward"]
    assert int(rows[0]["kernel_time_ns"]) == 103_000 - begin
    reads(small, ".tl-statistics", "crosses the edges")


def test_r_selects_what_is_picked_and_escape_takes_it_back(small: Any) -> None:
    pick(small, 50_000)
    small.keyboard.press("r")
    says(small, sel="3000-103000")
    assert table(small, "GPU work by phase")[0]["kernel_time_ns"] == "100000"
    small.keyboard.press("Escape")
    says(small, sel=None)
    small.keyboard.press("Escape")

    says(small, pick=None)


def test_colours_say_phase_kind_row_or_name(small: Any) -> None:
    at = where(small, 50_000)
    seen = {}
    for by in ("phase", "family", "stream", "name"):
        small.get_by_label("Colour by").last.select_option(by)
        says(small, color=None if by == "phase" else by)
        seen[by] = (settled(small), pixel(small, *at), small.locator(".tl-legend").inner_text())[1:]

    assert seen["phase"] == ([47, 127, 193], "forward\nbackward\nno phase")
    assert "gemm" in seen["family"][1]
    assert seen["stream"][1] == seen["name"][1] == ""
    assert all(colour != [255, 255, 255] for colour, _ in seen.values())


def test_a_link_shows_what_was_seen(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    path = training(tmp_path / "run.sqlite")
    opened(page, explorer, path)
    (stream,) = page.locator(STREAM).evaluate_all("all => all.map(one => one.dataset.row)")
    (ranges,) = page.locator("[data-row^=r]").evaluate_all("all => all.map(one => one.dataset.row)")
    query = f"?from=1000&to=500000&pick={stream}:1&color=family&q=sgemm&sel=2000-90000"
    opened(page, explorer, path, f"{query}&hidden={ranges}&pinned={stream}")

    shows(page, 1_000, 500_000)
    count(page, "[data-row^=r]", 0)
    count(page, f".tl-fixed {STREAM}", 1)
    soon(page, page.get_by_label("Colour by").last.input_value, "family")
    soon(page, page.get_by_label("Search names").input_value, "sgemm")
    reads(page, ".tl-statistics", lambda text: text.startswith("88.0 µs selected"))
    picked(page, 353_000)


def test_the_back_button_undoes_jumps(small: Any) -> None:
    small.keyboard.press("w")
    near = window(settled(small))
    small.keyboard.press("f")
    whole = window(settled(small))
    small.go_back()
    shows(small, *near, within=1)
    small.go_forward()

    shows(small, *whole)


def test_rows_can_be_hidden_pinned_filtered_and_groups_closed(small: Any) -> None:
    rows = small.locator(".tl-label").count()
    small.get_by_role("button", name="Pin stream 7").focus()
    small.keyboard.press("Enter")
    small.wait_for_selector(f".tl-fixed {STREAM}")
    small.get_by_role("button", name="Hide stream 7").focus()
    small.keyboard.press("Enter")
    small.wait_for_selector(STREAM, state="detached")
    small.get_by_role("button", name="Show 1 hidden row").click()
    small.wait_for_selector(STREAM)
    small.get_by_role("button", name="python (pid 100)").click()
    small.wait_for_selector("[data-row^=r]", state="detached")
    says(small, closed="python (pid 100)")
    small.get_by_role("button", name="python (pid 100)").click()
    small.get_by_label("Filter rows").fill("stream")
    small.wait_for_selector("[data-row^=r]", state="detached")

    assert rows > 1
    count(small, ".tl-label", 1)
    says(small, rows="stream", closed=None, hidden=None)


def test_a_lone_kernel_of_a_nanosecond_is_seen_from_afar(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    main.push("all of it", 0, 10_000_000_000)
    main.kernel("lone", at=100, run=(5_000_000_000, 5_000_000_001))
    opened(page, explorer, trace.write(tmp_path / "run.sqlite"))
    x, y = where(page, 5_000_000_000)
    soon(
        page,
        lambda: [pixel(page, x + by, y) for by in (-1, 0, 1)],
        lambda colours: sum(colour != [255, 255, 255] for colour in colours) == 1,
    )
    page.mouse.move(x, y)
    page.wait_for_selector(".tl-tip:has-text('1 ns')")

    reads(page, ".tl-tip", lambda text: text.startswith("lone"))


def test_many_kernels_in_one_pixel_are_counted(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    main.push("all of it", 0, 10_000_000_000)
    for place in range(30):
        at = 5_000_000_000 + place * 10
        main.kernel("tiny", at=100, run=(at, at + 5))
    opened(page, explorer, trace.write(tmp_path / "run.sqlite"))
    page.mouse.move(*where(page, 5_000_000_000))

    page.wait_for_selector(".tl-tip:has-text('30 pieces in this pixel')")


def test_from_afar_a_pixel_says_how_many_it_holds_and_a_click_picks_one(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    trace = Nsys()
    for at in range(0, 22_000_000, 1_000):
        trace.kernel_without_launch("tiny", (at, at + 500))
    opened(page, explorer, trace.write(tmp_path / "run.sqlite"))
    x, y = where(page, 11_000_000)
    page.mouse.move(x, y)
    tip = page.wait_for_selector(".tl-tip:has-text('in this pixel')").inner_text()
    page.mouse.click(x, y)
    page.wait_for_selector(".tl-details")
    page.get_by_role("button", name="In view").click()
    reads(page, ".tl-body", lambda text: text.startswith("There is more GPU work in view"))

    assert page.evaluate("tracelens.timeline.now.tiles.get('s0').mode") == "bins"
    assert 20 <= int(tip.split()[0]) <= 30
    assert "busy 50 % of it" in tip or "busy 51 % of it" in tip or "busy 49 % of it" in tip
    per_px = page.evaluate("tracelens.timeline.now.axis.nsPerPx")
    start_ns = page.evaluate("tracelens.timeline.now.picked.start_ns")
    assert start_ns == pytest.approx(11_000_000, abs=per_px + 1_000)


def test_a_reply_that_fails_says_why(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    refusal = {"status": 400, "json": {"error": "Not today."}}
    page.provoked.append("400")
    page.route("**/view?*", lambda route: route.fulfill(**refusal))
    path = training(tmp_path / "run.sqlite")
    page.goto(f"{explorer([path])}/{Library([path]).items[0].id}/timeline")
    page.wait_for_selector(".tl-status:has-text('Not today.')")


def test_what_is_in_view_stands_in_a_table_too(small: Any) -> None:
    small.get_by_role("button", name="In view").click()
    names = small.locator(".tl-body td.name")
    names.nth(3).wait_for()
    small.wait_for_selector(".tl-body td.name:has-text('sgemm')")
    names.first.get_by_role("button").click()

    assert facts(settled(small))["duration"] == units.time(100_000)


def test_marks_stay_in_the_url(small: Any) -> None:
    small.mouse.move(*where(small, 500_000))
    small.keyboard.press("m")
    at = int(soon(small, lambda: state(small).get("marks"), lambda marks: marks))
    small.keyboard.press("m")

    assert at == pytest.approx(500_000, abs=2_000)
    says(small, marks=None)


def test_dark_is_dark(small: Any) -> None:
    at = where(small, 200_000)
    light = pixel(small, *at)
    small.click("#scheme")
    small.wait_for_selector("html[data-mantine-color-scheme=dark]")

    assert sum(light) > 600
    soon(small, lambda: pixel(settled(small), *at), lambda dark: sum(dark) < 300)


def test_hostile_names_stay_text(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    opened(page, explorer, hostile(tmp_path / "run.sqlite"))
    page.mouse.move(*where(page, 2_000))
    page.wait_for_selector(".tl-tip:not([hidden])")
    shown = []
    for _ in PAYLOADS:
        page.keyboard.press("ArrowRight")
        settled(page)
        shown.append(page.locator(".tl-title").inner_text())
    page.get_by_role("button", name="In view").click()
    page.locator(".tl-body td.name").nth(4).wait_for()
    page.get_by_label("Search names").fill("<img")
    page.wait_for_selector(".tl-found:has-text('in view')")
    page.get_by_role("button", name="Statistics").click()
    page.wait_for_selector(".tl-statistics")

    assert "<img src=x onerror=window.__hacked=1>" in shown
    assert page.locator("#timeline img, #timeline svg, #timeline script").count() == 0
    assert page.evaluate("window.__hacked") is None


def test_leaving_the_page_stops_it(small: Any) -> None:
    small.get_by_role("link", name="Overview").click()
    small.wait_for_selector("#timeline", state="detached")
    soon(small, lambda: small.evaluate("tracelens.timeline.now"), None)
    before = small.url
    small.keyboard.press("w")
    small.keyboard.press("f")

    soon(small, lambda: small.evaluate("tracelens.timeline.pending"), 0)
    assert small.url == before


def test_another_recording_gets_a_timeline_of_its_own(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    paths = [training(tmp_path / "a.sqlite"), training(tmp_path / "b.sqlite", kernel="other")]
    first, second = Library(paths).items
    address = explorer(paths)
    page.goto(f"{address}/{first.id}/timeline?q=sgemm")
    settled(page)
    page.goto(f"{address}/{second.id}/timeline")
    settled(page)
    pick(page, 50_000)

    reads(page, ".tl-title", "other")
    assert page.evaluate("tracelens.timeline.now.run") == second.id

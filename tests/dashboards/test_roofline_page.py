"""The roofline in a browser: its points and numbers, clicks, its choice, and why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest

pytest.importorskip("dash", reason="no dash: the explorer is not installed")

from tracelens_dashboards.figures import roofline as figures
from tracelens_dashboards.library import Library, Opened
from tracelens_dashboards.pages import roofline

from tests.dashboards.recordings import PAYLOADS, training
from tests.dashboards.waits import copied, count, quiet, reads, says
from tests.kineto import Profile
from tracelens import units
from tracelens.tables.build import fill

if TYPE_CHECKING:
    from tests.dashboards.conftest import Explorer

SAMPLE: Final = (
    Path(__file__).parents[2] / "samples" / "gpt2-small-ctx512-bf16-h200" / "trace.json.gz"
)
POINTS: Final = "#roofline-figure .scatterlayer .point"


def library_of(path: Path) -> Opened:
    library = Library([path])
    return library.open(library.items[0].id)


@pytest.fixture(scope="module")
def sample() -> Opened:
    return library_of(SAMPLE)


def opened(explorer: Explorer, page: Any, path: Path, query: str = "") -> str:
    recording = Library([path]).items[0].id
    page.goto(f"{explorer([path])}/{recording}/roofline{query}")
    page.wait_for_selector("#roofline-shown > :not(.waiting)")
    quiet(page)
    return recording


def test_phases_add_up_to_the_rows_of_the_command(sample: Opened) -> None:
    key = ["name", "dims", "types", "format", "source"]
    mine = roofline.by_phase(sample).group_by(key).agg(pl.col("time_ns", "calls").sum())
    whole = (
        fill(sample.linked, "roofline").frame.group_by(key).agg(pl.col("time_ns", "calls").sum())
    )

    assert mine.sort(pl.all()).equals(whole.sort(pl.all()))
    assert set(roofline.by_phase(sample)["phase"]) == {"forward", "backward", "optimizer"}


def test_points_stand_where_operations_bytes_and_time_put_them(sample: Opened) -> None:
    rows = figures.drawable(roofline.by_phase(sample))
    on = roofline.ceilings_of(sample.linked)
    figure = figures.roofline(
        rows, on, by="phase", colour=lambda _: "#000000", places=[""] * rows.height
    )
    marks = [one for one in figure.data if one.mode == "markers"]
    lines = [one for one in figure.data if one.mode == "lines"]
    counted = rows.select("flops", "bytes", "time_ns").rows()

    assert sorted(x for one in marks for x in one.x) == pytest.approx(
        sorted(flops / size for flops, size, _ in counted)
    )
    assert sorted(y for one in marks for y in one.y) == pytest.approx(
        sorted(flops / took * 1e9 for flops, _, took in counted)
    )
    assert sorted(line.y[-1] for line in lines) == pytest.approx([66.9e12, 989.4e12])
    for line in lines:
        for x, y in zip(line.x[:-1], line.y[:-1], strict=True):
            assert y == pytest.approx(x * 4.8e12)


def test_the_largest_circle_is_the_longest_and_areas_are_times() -> None:
    sizes = figures._sizes([400, 100, 0])

    assert sizes == [figures.LARGEST_PX, figures.LARGEST_PX / 2, figures.SMALLEST_PX]


def test_it_shows_points_numbers_and_where_ceilings_are_from(
    explorer: Explorer, page: Any, sample: Opened
) -> None:
    opened(explorer, page, SAMPLE)
    [whole] = fill(sample.linked, "roofline_totals").frame.to_dicts()
    rows = figures.drawable(roofline.by_phase(sample))

    count(page, POINTS, rows.height)
    reads(page, ".fact:has-text('MFU in all') .fact-value", units.share(whole["mfu"]))
    reads(page, ".fact:has-text('MBU in all') .fact-value", units.share(whole["mbu"]))
    reads(page, ".card:has(#roofline-figure) .note", "H200, data sheet")
    page.wait_for_selector("#roofline-figure .infolayer:has-text('989.4 TFLOP/s')")


def test_a_click_on_a_point_leads_to_the_kernels_of_the_op(explorer: Explorer, page: Any) -> None:
    recording = opened(explorer, page, SAMPLE)
    count(page, POINTS, lambda points: points > 0)

    page.locator(POINTS).first.click(force=True)
    page.wait_for_url(f"**/{recording}/kernels?*")

    assert says(page, filter="aten::mm")["phase"] in {"forward", "backward"}
    reads(page, ".kernel-said", "names")
    page.go_back()
    count(page, POINTS, lambda points: points > 0)


def test_what_colours_say_stands_in_the_address(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE)
    legend = "#roofline-figure .legend:has-text('{}')"
    page.wait_for_selector(legend.format("optimizer"))

    page.click("#roofline-colour >> text=what bounds it")
    says(page, colour="bound")
    page.wait_for_selector(legend.format("latency"))
    page.go_back()
    says(page, colour=None)
    page.wait_for_selector(legend.format("optimizer"))
    page.go_forward()
    page.wait_for_selector(legend.format("latency"))
    page.reload()

    page.wait_for_selector(legend.format("latency"))


def test_a_colour_that_there_is_not_is_the_usual_one(explorer: Explorer, page: Any) -> None:
    opened(explorer, page, SAMPLE, "?colour=%3Cb%3E")

    page.wait_for_selector("#roofline-figure .legend:has-text('optimizer')")


def test_the_table_beside_holds_the_same_and_is_copied(
    explorer: Explorer, page: Any, sample: Opened
) -> None:
    opened(explorer, page, SAMPLE)
    first = roofline.by_phase(sample).row(0, named=True)

    page.click(".card:has(#roofline-figure) summary")
    beside = page.locator(".beside:has(.copy-table)").first
    text = copied(page, beside.locator("text=Copy as CSV"))
    rows = [line.split(",") for line in text.replace("\r", "").splitlines()]

    assert rows[0][:2] == ["phase", "name"]
    assert rows[1][:2] == [first["phase"], first["name"]]
    assert str(first["lost_ns"]) in rows[1]


def test_without_shapes_it_says_what_would_record_them(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    opened(explorer, page, training(tmp_path / "run.sqlite"))

    reads(page, "#roofline-shown .nothing", "record_shapes=True")
    count(page, "#roofline-figure", 0)


def test_of_an_unknown_gpu_there_are_points_without_ceilings(
    explorer: Explorer, page: Any, tmp_path: Path
) -> None:
    trace = Profile("2026-02")
    main = trace.thread("python", pid=100)
    main.op("aten::mm", 0, 30_000, dims=[[64, 64], [64, 64]], types=["float", "float"])
    main.kernel("gemm", at=1_000, run=(2_000, 15_000))
    opened(explorer, page, trace.write(tmp_path / "run.json"))

    count(page, POINTS, 1)
    reads(page, ".card:has(#roofline-figure) .note", "ceilings")


def test_names_run_nothing(explorer: Explorer, page: Any, tmp_path: Path) -> None:
    trace = Profile("2026-02")
    main = trace.thread("python", pid=100)
    for place, name in enumerate(PAYLOADS):
        at = place * 100_000
        main.annotation(name, at, at + 90_000)
        main.op("aten::mm", at, at + 30_000, dims=[[64, 64], [64, 64]], types=["float", "float"])
        main.kernel(name, at=at + 1_000, run=(at + 2_000, at + 15_000))
        main.op(name, at + 40_000, at + 60_000, dims=[[4, 8]], types=[name])
        main.kernel(name, at=at + 50_000, run=(at + 52_000, at + 55_000))
    opened(explorer, page, trace.write(tmp_path / "run.json"))
    count(page, POINTS, lambda points: points > 0)
    page.locator(POINTS).first.hover(force=True)
    page.wait_for_selector("#roofline-figure .hoverlayer .hovertext")
    page.click(".card:has(#roofline-figure) summary")

    reads(page, "#roofline-shown", PAYLOADS[0])
    assert page.evaluate("window.__hacked") is None
    assert page.locator("#page img, #page script, #page td b").count() == 0
    assert "\u202e" not in page.inner_text("#page")


def test_more_points_than_a_picture_holds_are_the_longest(
    monkeypatch: pytest.MonkeyPatch, sample: Opened
) -> None:
    monkeypatch.setattr(roofline, "_POINTS", 3)
    rows = roofline.by_phase(sample)
    drawn: list[pl.DataFrame] = []
    draw = figures.roofline

    def watched(points: pl.DataFrame, *given: Any, **said: Any) -> Any:
        drawn.append(points)
        return draw(points, *given, **said)

    monkeypatch.setattr(roofline.figures, "roofline", watched)
    roofline._cards(sample, rows, "phase")

    longest = figures.drawable(rows)["time_ns"].sort(descending=True)[:3]
    assert drawn[0]["time_ns"].to_list() == longest.to_list()

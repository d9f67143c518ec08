"""HTML: one file that loads nothing, runs nothing and shows names as they are."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from tests.render import story
from tracelens.render import Options
from tracelens.render._shape import clean
from tracelens.render.html import RENDERER

if TYPE_CHECKING:
    from tracelens.tables import Report

VOID = {"meta"}


class _Page(HTMLParser):
    """Reads a page strictly: tags close in order; collects tags, titles and the text of codes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.codes: list[str] = []
        self.titles: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.titles += [value or "" for key, value in attrs if key == "title"]
        if tag == "code":
            self.codes.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "code":
            self.codes[-1] += data


def rendered(*reports: Report, **options: Any) -> str:
    return RENDERER.render(reports, Options(**options))


def test_the_page_may_load_and_run_nothing() -> None:
    text = rendered(story.report(story.phases(), story.kernels()))

    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in text
    assert not {"script", "link", "img", "a"} & _Page(text).tags
    assert "url(" not in text


def test_everything_the_report_says_is_there() -> None:
    text = rendered(story.report(story.phases()))

    for said in ("GPU busy 604 ms", "nothing lost", "Warning: CUDA graphs", "A kernel belongs to"):
        assert said in text
    assert "<h2>What stands out</h2>\n<ul><li>The GPU idles" in text
    assert "<h2>Not shown</h2>\n<ul><li>ranges: no NVTX" in text


def test_numbers_stand_to_the_right_and_shares_have_bars() -> None:
    text = rendered(story.report(story.phases()))

    assert '<td>forward</td><td class="number">5,536</td>' in text
    assert '<td class="number bar" style="--share:27.5%">27.5 %</td>' in text


def test_a_share_that_is_not_known_has_no_bar() -> None:
    rows = [("forward", 1, 1, 1, None), ("backward", 1, 1, 1, 0.0), ("loss", 1, 1, 1, float("nan"))]

    text = rendered(story.report(story.filled("phases", story.PHASES, rows)))

    assert '<td class="number bar' not in text
    assert text.count('<td class="number">\N{EN DASH}</td>') == 2


def test_a_short_name_has_the_full_one_as_its_title() -> None:
    page = _Page(rendered(story.report(story.kernels())))

    assert page.titles == [story.CUTLASS, "adam<int>(float*)"]


def test_a_name_that_is_too_long_is_shortened() -> None:
    name = "k" * 50 + "<" * 50
    page = _Page(rendered(story.report(story.named(name))))

    assert page.codes == ["k" * 48 + "…" + "<" * 31]
    assert page.titles == [name]


def test_cut_rows_are_counted() -> None:
    assert "… and 3 more rows (share 72 %)" in rendered(story.report(story.phases()), top=1)


def test_several_reports_are_one_page() -> None:
    text = rendered(story.report(path="a<b"), story.report(path="b"))

    assert "<title>tracelens: a&lt;b · b</title>" in text
    assert text.count("<h1>") == 2


@given(st.lists(st.text(max_size=8), max_size=9), st.text())
def test_names_add_no_markup(names: list[str], said: str) -> None:
    tame = _Page(rendered(story.report(story.named("k"), headline="h", findings=("f",))))
    page = _Page(rendered(story.report(story.named(*names), headline=said, findings=(said,))))

    assert page.tags - tame.tags == set()
    assert page.codes == [clean(name) for name in names]

"""Markdown: what GitHub makes of it is what was meant."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # rich depends on it, so it is there

from tests.render import story
from tracelens.render import Options
from tracelens.render._shape import clean
from tracelens.render.markdown import RENDERER, sentence

if TYPE_CHECKING:
    from tracelens.tables import Report

GOLDEN = """\
### GPU time by phase

| phase     | kernels | GPU time |  share |
| --------- | ------: | -------: | -----: |
| forward   |   5,536 | 165.9 ms | 27.5 % |
| backward  |   9,912 | 344.0 ms | 57.0 % |
| optimizer |  14,208 |  91.3 ms | 15.1 % |
| (none)    |      74 |   2.8 ms |  0.4 % |

*A kernel belongs to the phase that launched it, not the one it ran during.*
"""


class _Codes(HTMLParser):
    """Collects what stands in code spans."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside = tag == "code"
        if self.inside:
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1] += data


def rendered(*reports: Report, **options: Any) -> str:
    return RENDERER.render(reports, Options(**options))


def as_html(markdown: str) -> str:
    html = MarkdownIt("commonmark").enable("table").render(markdown)
    assert isinstance(html, str)
    return html


def test_one_table_is_what_people_paste() -> None:
    assert rendered(story.report(story.phases())) == GOLDEN


def test_more_tables_come_with_what_limits_them() -> None:
    text = rendered(story.report(story.phases(), story.kernels()))

    assert text.startswith("**nsys 2025.3 · NVIDIA A100")
    assert "- attributed 99.8 %\n- nothing lost\n- Warning: CUDA graphs" in text
    assert "### What stands out\n\n- The GPU idles 61 %" in text
    assert "### Not shown\n\n- ranges: no NVTX ranges were recorded" in text


def test_cut_rows_are_counted() -> None:
    assert "\n*… and 3 more rows (share 72 %)*\n" in rendered(story.report(story.phases()), top=1)


def test_names_with_pipes_and_ticks_read_literally() -> None:
    text = rendered(story.report(story.kernels()))

    assert r"| `` a\|b_`c` `` " in text
    assert "<code>a|b_`c`</code>" in as_html(text)


def test_several_reports_stand_under_their_paths() -> None:
    text = rendered(story.report(story.phases(), path="a_1"), story.report(path="b"))

    assert text.startswith("## `a_1`\n\n### GPU time by phase")
    assert "\n\n## `b`\n\n**nsys" in text


@given(st.lists(st.text(), max_size=9))
def test_every_row_has_as_many_cells_as_the_heading(names: list[str]) -> None:
    text = rendered(story.report(story.named(*names)))

    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3] * (len(names) + 2)


@given(
    st.lists(
        st.text(alphabet=st.characters(codec="ascii") | st.sampled_from("`|\\_* ")), max_size=3
    )
)
def test_names_read_literally(names: list[str]) -> None:
    codes = _Codes()
    codes.feed(as_html(rendered(story.report(story.named(*names)))))

    assert [code.strip(" ") for code in codes.found] == [
        clean(name).strip(" ") for name in names if name
    ]


@given(st.text(alphabet=st.sampled_from("ab1-+.)#|`*_<>[]()!&;~\\ $=")).map(str.strip))
def test_sentences_read_literally(finding: str) -> None:
    text = rendered(story.report(headline=finding or "-", findings=(finding or "-",)))

    points = re.findall(r"<li>(.*?)</li>", as_html(text), flags=re.DOTALL)
    said = re.sub(
        "&(lt|gt|amp|quot);", lambda c: {"lt": "<", "gt": ">", "amp": "&"}[c[1]], points[3]
    ).replace("<!-- -->", "")
    assert said == " ".join((finding or "-").split())


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("ask @octocat", "ask @<!-- -->octocat"),
        ("see #12 and GH-12", "see \\#<!-- -->12 and GH-<!-- -->12"),
        ("https://a.b or www.a.b", "https:<!-- -->//a.b or www<!-- -->.a.b"),
        ("a :tada: b", "a :<!-- -->tada: b"),
    ],
)
def test_github_links_nothing_that_a_name_says(text: str, apart: str) -> None:
    assert sentence(text) == apart

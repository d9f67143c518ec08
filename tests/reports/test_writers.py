"""Documents in each format: what a name says stays what it says, and adds nothing else."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # rich depends on it, so it is there

from tests.reports import story
from tracelens.render._shape import clean, one_line
from tracelens.reports import attach
from tracelens.reports.drawing import as_file
from tracelens.reports.writers import writer

if TYPE_CHECKING:
    from pathlib import Path

    from markdown_it.token import Token

texts = st.text(min_size=1, max_size=40) | st.sampled_from(story.HOSTILE)
SVG = "{http://www.w3.org/2000/svg}"
COMMAND = re.compile(r"\\([A-Za-z]+|.)", re.DOTALL)


class _Page(HTMLParser):
    """Reads a page strictly: elements close in order; keeps elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: set[tuple[str, tuple[str, ...]]] = set()
        self.links: set[str | None] = set()
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add((tag, tuple(sorted(name for name, _ in attrs if name != "title"))))
        self.links |= {value for name, value in attrs if name in ("href", "src", "xlink:href")}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def html(text: str) -> _Page:
    return _Page(writer("html")(story.document(text), "").text)


def markdown(text: str) -> list[Token]:
    written = writer("markdown")(story.document(text), "r_files").text
    return MarkdownIt("commonmark").enable("table").parse(written)


def latex(text: str) -> str:
    return writer("latex")(story.document(text), "").text


def inside(tokens: list[Token]) -> list[Token]:
    return [child for token in tokens for child in (token, *(token.children or ()))]


def commands(source: str) -> set[str]:
    return set(COMMAND.findall(source))


@given(texts)
def test_html_has_no_element_attribute_or_link_from_a_name(text: str) -> None:
    page = html(text)

    assert page.elements <= html("plain").elements
    assert page.links == {"#first", "#second"}


@given(texts)
def test_html_says_the_name(text: str) -> None:
    assert one_line(text) in "".join(html(text).said)


def test_html_loads_and_runs_nothing() -> None:
    page = writer("html")(story.document("plain"), "").text

    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in page
    assert not {tag for tag, _ in html("plain").elements} & {"script", "link", "img", "iframe"}
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


@given(texts)
def test_markdown_has_no_markup_from_a_name(text: str) -> None:
    tokens, plain = markdown(text), markdown("plain")

    assert {token.type for token in inside(tokens)} <= {token.type for token in inside(plain)} | {
        "html_inline",
        "code_inline",
        "text_special",
        "hardbreak",
    } - {"hardbreak"}
    found = inside(tokens)
    assert {t.content for t in found if t.type == "html_inline"} <= {"<!-- -->"}
    assert not [t for t in found if t.type in ("link_open", "html_block")]
    assert [t.attrGet("src") for t in found if t.type == "image"] == ["r_files/drawn.svg"]


@given(texts.filter(lambda text: one_line(text) != ""))
def test_markdown_keeps_the_number_of_blocks(text: str) -> None:
    def shape(tokens: list[Token]) -> list[str]:
        return [token.type for token in tokens]

    assert shape(markdown(text)) == shape(markdown("plain"))


@given(texts.filter(lambda text: one_line(text) != ""))
def test_nothing_that_github_links_stands_in_a_sentence(text: str) -> None:
    written = writer("markdown")(story.document(text), "r_files").text
    prose = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)|!\[.*", "", written)

    assert not re.search(r"@\w|\bGH-\d|#\d|://|\bwww\.", prose)


@given(texts)
def test_latex_knows_no_command_from_a_name(text: str) -> None:
    source = latex(text)

    assert source.isascii()
    assert commands(source) <= commands(latex("plain")) | ESCAPES
    bare = source.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert "^^" not in source


ESCAPES = {
    *r"{}&%$#_",
    *(c[1:].removesuffix("{}") for c in (r"\textbackslash{}", r"\textasciitilde{}")),
    "textasciicircum", "textless", "textgreater", "textbar", "textquotedbl",
    "mu", "ldots", "leq", "geq", "neq", "approx", "times", "cdot", "bullet", "pm", "rightarrow",
    "infty", "circ", "allowbreak", "emph", "textit",
}  # fmt: skip


@given(texts)
def test_a_figure_is_svg_that_does_nothing(text: str) -> None:
    root = ET.fromstring(as_file(story.figure(text)))  # noqa: S314 (what is tested)

    assert {element.tag for element in root.iter()} <= {
        f"{SVG}{tag}" for tag in ("svg", "style", "title", "g", "rect", "text")
    }
    assert not [
        name for element in root.iter() for name in element.attrib if name.startswith(("on", "{"))
    ]
    assert clean(text) in "".join(t for e in root.iter(f"{SVG}title") for t in e.itertext())
    assert "var(" not in as_file(story.figure("plain"))


@given(texts)
def test_an_attached_table_holds_no_formula(text: str) -> None:
    rows = csv.reader(
        io.StringIO(attach.files(story.document(text))["tables/facts.csv"], newline="")
    )

    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
    assert [cell.removeprefix("'") for cell in cells[2:4]] == [text.removeprefix("'")] * 2


def test_what_is_attached_is_in_the_index_and_the_other_way_round() -> None:
    found = attach.files(story.document("plain"))

    linked = set(re.findall(r"\]\(<([^>]+)>\)", found["index.md"]))
    assert linked == set(found) - {"index.md"}
    assert sorted(linked) == [
        "figures/drawn.svg",
        "figures/drawn.tex",
        *(f"tables/{n}.{e}" for n in ("facts", "kernels", "named") for e in ("csv", "md", "tex")),
    ]


def test_figures_lie_beside_markdown_and_nowhere_else() -> None:
    document = story.document("plain")

    assert set(writer("markdown")(document, "r_files").beside) == {"drawn.svg"}
    assert "drawn.svg" not in writer("markdown")(document, "").text
    assert not writer("html")(document, "").beside
    assert not writer("latex")(document, "").beside


@pytest.mark.slow
@story.needs_latex
def test_pdflatex_compiles_a_document_of_every_hostile_name(tmp_path: Path) -> None:
    made = [story.document(text) for text in story.HOSTILE]
    bodies = [latex(text).partition(r"\begin{document}")[2] for text in story.HOSTILE]
    assert len(made) == len(bodies)
    head = latex("plain").partition(r"\begin{document}")[0]
    whole = "\n".join(body.replace(r"\end{document}", "") for body in bodies)
    (tmp_path / "r.tex").write_text(f"{head}\\begin{{document}}{whole}\\end{{document}}\n")

    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "r.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:]
    assert "Overfull" not in done.stdout
    assert "root:" not in (tmp_path / "r.log").read_text(errors="replace")

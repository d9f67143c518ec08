"""A document made by hand, with a text of the story's choice wherever names can reach."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.render import story
from tracelens.reports import (
    Document,
    Facts,
    Grid,
    Heading,
    Made,
    Paragraph,
    Point,
    Points,
)
from tracelens.reports.drawing import of_bars
from tracelens.tables.bars import Bar, Part

if TYPE_CHECKING:
    from tracelens.reports import Figure


def _has_latex() -> bool:
    if not shutil.which("pdflatex"):
        return False
    found = subprocess.run(["kpsewhich", "tikz.sty"], capture_output=True, check=False)
    return found.returncode == 0


needs_latex = pytest.mark.skipif(
    not _has_latex(), reason="pdflatex with TikZ is not installed (Debian: texlive-pictures)"
)
"""For tests that compile a report."""

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "]]></style><b>",
    '" onmouseover="x',
    "[click](https://evil.example)",
    "![x](http://evil.example/a.png)",
    "https://evil.example and www.evil.example",
    "@octocat #12 GH-3 :tada:",
    "| a | b |",
    "`a` ``b`` \\",
    "\x1b[31mred\x1b[0m \u202eright to left\u202c \u200f",
    "# heading",
    "- list",
    "1. list",
    "> quote",
    "=SUM(A1)",
    "+1",
    "-1",
    "@SUM",
    "\tformula",
    r"\input{/etc/passwd} \undefined ^^5e ^^M \write18{x}",
    "50% of $x_1^2$ & ~{}#",
    "日本語 é ß µ ≤ 😀",
    "a--b---c ``x'' ?`!` ,, [x] *y*",
    "\\",
    "{",
    "}",
    "%",
    "\\end{document}",
    "a" * 300,
)


def figure(text: str) -> Figure:
    """Return bars under labels of a text."""
    parts = [Part(text, "#2f7fc1", 3, text), Part("rest", "#8a9099", 2, "2")]
    drawn = of_bars("drawn", text, [Bar(text, parts, text)], note=text)
    assert drawn is not None
    return drawn


def document(text: str) -> Document:
    """Return a document that says a text wherever it says anything."""
    blocks = (
        Heading(text),
        Paragraph(text),
        Paragraph(text, "note"),
        Paragraph(text, "warning"),
        Points((Point(text, (text, text)), Point("b"))),
        Facts("facts", text, ((text, text), ("GPU", "NVIDIA H200"))),
        Grid("named", story.named(text)),
        Grid("kernels", story.kernels()),
        figure(text),
    )
    made = (Made("first", text, blocks), Made("second", "Second", (Paragraph("That is all."),)))
    return Document(text, text, made, {text: text})

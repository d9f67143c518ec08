"""LaTeX: tables that compile, whatever the names hold."""

from __future__ import annotations

import shutil
import string
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.render import story
from tracelens.render import Options
from tracelens.render.latex import RENDERER, escape

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.tables import Report

CAPTION = f"GPU time by phase. {story.PHASES.note}"
GOLDEN = r"""
\begin{table}[htbp]
\centering\small\setlength{\tabcolsep}{4pt}
\caption{CAPTION}
\label{tab:phases}
\begin{tabular}{@{}lrrr@{}}
\toprule
phase & kernels & GPU time & share \\
\midrule
forward & 5,536 & 165.9 ms & 28 \% \\
backward & 9,912 & 344.0 ms & 57 \% \\
\multicolumn{4}{@{}l@{}}{\emph{\ldots{} and 2 more rows (share 16 \%)}} \\
\bottomrule
\end{tabular}
\end{table}
"""

HOSTILE = (
    r"\input{/etc/passwd}",
    "a--b---c ``x'' ?`!` ,, [x] *y*",
    "日本語 é ü ß µs \N{EN DASH} … ≤ \N{MULTIPLICATION SIGN} · 😀",
    string.printable,
    "%",
    "",
    "}\\end{document}",
    "void f<int, 3>(float const*)",
)


def rendered(*reports: Report, **options: Any) -> str:
    return RENDERER.render(reports, Options(**options))


def test_a_table_is_a_float_with_a_caption_and_a_label() -> None:
    assert rendered(story.report(story.phases()), top=2).endswith(
        GOLDEN.replace("CAPTION", CAPTION)
    )


def test_the_source_says_what_it_needs_and_what_it_rests_on() -> None:
    comments = [c for c in rendered(story.report()).split("\n") if c]

    assert comments[0].startswith("% Needs \\usepackage{booktabs}")
    assert comments[-1] == "% Not shown: ranges: no NVTX ranges were recorded"
    assert all(c.startswith("% ") for c in comments)


def test_names_are_shortened_and_columns_left_out_to_fit_the_page() -> None:
    text = rendered(story.report(story.kernels()))

    assert "% Too narrow for: mean, median, min, max; --table kernels --format csv" in text
    assert r"\texttt{cutlass::Kernel2\textless{}cut\ldots{}x3\_nn\_align4\textgreater{}}" in text


def test_labels_differ_between_reports() -> None:
    text = rendered(story.report(story.phases(), path="r/a_1"), story.report(story.phases()))

    assert "\\subsection*{\\texttt{r/\\allowbreak{}a\\_1}}\n" in text
    assert r"\label{tab:phases-1}" in text
    assert r"\label{tab:phases-2}" in text


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("50 % of $x_1^2$ & #1", r"50 \% of \$x\_1\textasciicircum{}2\$ \& \#1"),
        ("~{\\}", r"\textasciitilde{}\{\textbackslash{}\}"),
        ("6.4 µs", r"6.4 $\mu$s"),
        ("a--b", "a-{-}b"),
        ("1 ≤ 2 \N{MULTIPLICATION SIGN} 3 …", r"1 $\leq$ 2 $\times$ 3 \ldots{}"),
        ("né ﬁ 日", "ne fi ?"),
    ],
)
def test_what_latex_would_take_for_an_order_is_set_as_it_is(text: str, latex: str) -> None:
    assert escape(text) == latex


@given(st.text())
def test_what_is_written_is_ascii_and_its_braces_are_even(text: str) -> None:
    bare = escape(text).replace(r"\{", "").replace(r"\}", "")

    assert bare.isascii()
    assert bare.count("{") == bare.count("}")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_pdflatex_compiles_every_name_within_the_page(tmp_path: Path) -> None:
    report = story.report(story.phases(), story.kernels(), story.named(*HOSTILE))
    document = (
        "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage{booktabs}"
        f"\\begin{{document}}\n{rendered(report, report)}\\end{{document}}\n"
    )
    (tmp_path / "report.tex").write_text(document, encoding="utf-8")

    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert "Overfull" not in done.stdout

"""LaTeX that compiles by itself: an article with its tables, and its figures as TikZ."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.render._shape import fit, one_line, shown
from tracelens.render.latex import escape, tabular
from tracelens.reports import Facts, Figure, Grid, Heading, Paragraph, Points
from tracelens.reports.tikz import picture
from tracelens.reports.writers import Written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block, Document

PREAMBLE: Final = r"""% pdflatex compiles this; on Debian it needs texlive-latex-recommended and
% texlive-pictures.
\documentclass[10pt,a4paper]{article}
\usepackage[utf8]{inputenc}
\usepackage[margin=2.2cm]{geometry}
\usepackage{array,booktabs,float,xcolor,tikz}
\usepackage[font=small,labelfont=bf]{caption}
\setlength{\parindent}{0pt}\setlength{\parskip}{4pt}
\emergencystretch=4em\sloppy
\renewcommand{\labelitemi}{$\bullet$}\renewcommand{\labelitemii}{--}
"""

_WIDTH: Final = 100  # characters of \footnotesize\texttt in the width of the text
_GAP: Final = 2
_LONG: Final = 18
_BREAKS: Final = re.compile(r"([/_:,.;=&-])(?=[^\s])")
_PIECE: Final = 12
_BREAK: Final = "\N{ZERO WIDTH SPACE}"


def write(document: Document, folder: str) -> Written:  # noqa: ARG001 (nothing lies beside it)
    """Return a document as the source of an article."""
    return Written("\n".join(_lines(document)) + "\n")


def _lines(document: Document) -> Iterator[str]:
    yield PREAMBLE + r"\begin{document}"
    yield rf"{{\LARGE\bfseries\raggedright {prose(document.title)}\par}}"
    if document.date:
        yield f"{prose(document.date)}\n"
    for section in document.sections:
        yield rf"\section{{{prose(section.title)}}}\label{{sec:{section.name}}}"
        for block in section.blocks:
            yield from _block(block, document.top)
    if document.left_out:
        yield r"\section{Sections that could not be made}"
        yield from _list([prose(f"{title}: {why}") for title, why in document.left_out.items()])
    yield r"\end{document}"


def _block(block: Block, top: int | None) -> Iterator[str]:
    match block:
        case Heading():
            yield rf"\subsection*{{\texttt{{{prose(block.text)}}}}}"
        case Paragraph():
            before = {"note": r"{\small\itshape ", "warning": r"{\bfseries "}.get(block.kind, "{")
            yield f"{before}{prose(block.text)}\\par}}"
        case Points():
            yield from _list(
                [_with_below(prose(point.text), point.below) for point in block.points]
            )
        case Facts():
            yield from _float("table", facts(block), block.title, block.name)
        case Grid():
            table = fit(shown(block.filled, top), _WIDTH, _GAP)
            narrow = table.dropped.partition(";")[0]  # what follows is for a command line
            notes = [table.note, *([f"{narrow}."] if narrow else [])]
            yield from _float(
                "table", "\n".join(tabular(table)), table.title, block.name, " ".join(notes)
            )
        case Figure():
            yield from _float("figure", picture(block), block.title, block.name, block.note)


def _float(kind: str, body: str, title: str, name: str, note: str = "") -> Iterator[str]:
    yield rf"\begin{{{kind}}}[H]\centering\footnotesize\setlength{{\tabcolsep}}{{4pt}}"
    named = rf" (\texttt{{{prose(name)}}})" if kind == "table" else ""
    caption = rf"\caption{{{prose(title.rstrip('.'))}{named}.}}\label{{{kind[:3]}:{name}}}"
    if kind == "table":
        yield caption
    yield body
    if kind == "figure":
        yield caption
    if note.strip():
        yield rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {prose(note)}}}"
    yield rf"\end{{{kind}}}"


def facts(block: Facts) -> str:
    """Return facts as a table whose second column wraps."""
    rows = (rf"{prose(name)} & {prose(value)} \\" for name, value in block.rows)
    columns = "".join(rf">{{\raggedright\arraybackslash}}p{{{wide}}}" for wide in ("4cm", "12cm"))
    head = rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}"
    return "\n".join([head, r"\toprule", *rows, r"\bottomrule", r"\end{tabular}"])


def _list(points: list[str]) -> Iterator[str]:
    yield r"\begin{itemize}\setlength{\itemsep}{1pt}"
    yield from (rf"\item {{}}{point}" for point in points)
    yield r"\end{itemize}"


def _with_below(text: str, below: tuple[str, ...]) -> str:
    return "\n".join([text, *_list([prose(one) for one in below])]) if below else text


def prose(text: str) -> str:
    """Return a text that LaTeX sets as it is, and in which long words may break."""
    words = one_line(text).split(" ")
    return " ".join(_word(word) if len(word) > _LONG else escape(word) for word in words)


def _word(word: str) -> str:
    """Return a long word that may break after signs, and anywhere in pieces without any."""
    parts = _BREAKS.sub(rf"\1{_BREAK}", word).split(_BREAK)
    pieces = [p[i : i + _PIECE] for p in parts for i in range(0, len(p), _PIECE)]
    return r"\allowbreak{}".join(map(escape, pieces))

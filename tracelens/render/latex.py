"""LaTeX tables for a paper, which need the package booktabs and nothing else."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from tracelens.render import Options, Renderer
from tracelens.render._shape import fit, one_line, path_of, shown, with_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.render._shape import Shown, Strip
    from tracelens.tables import Filled, Report

PREAMBLE: Final = (
    "% Needs \\usepackage{booktabs}, and \\usepackage[utf8]{inputenc} in a LaTeX before 2018."
)

_WIDTH = 72  # characters of \small\texttt in the \textwidth of article at 10 pt, 345 pt
_GAP = 2

_SPECIAL: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # These would join with what follows or precedes them: `` ?` -- '' ,, or \\[ and \\*.
    "`": "{`}",
    "'": "{'}",
    "-": "{-}",
    ",": "{,}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}
_SYMBOLS: Final = {
    "\N{MICRO SIGN}": r"$\mu$",
    "\N{GREEK SMALL LETTER MU}": r"$\mu$",
    "\N{EN DASH}": "--",
    "\N{EM DASH}": "---",
    "\N{LEFT SINGLE QUOTATION MARK}": "`",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "…": r"\ldots{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "·": r"$\cdot$",
    "•": r"$\bullet$",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "→": r"$\rightarrow$",
    "∞": r"$\infty$",
    "°": r"$^\circ$",
}
# A hyphen or a comma joins with its like alone, and is common: it is braced only there.
_JOINED = re.compile(r"(?<=-)-|(?<=,),|[^-,]", re.DOTALL)


def render(reports: Sequence[Report], options: Options) -> str:
    """Return each table as a float with a caption and the label ``tab:NAME``.

    Names are shortened and columns left out as far as the text width of an article asks for it.
    Where several reports have a table of the same name, its label ends in the report's number.
    """
    blocks = [PREAMBLE]
    for number, report in enumerate(reports, start=1):
        several = len(reports) > 1
        blocks.append(_comments(report))
        if several:
            blocks.append(f"\\subsection*{{{breakable(path_of(report))}}}")
        suffix = f"-{number}" if several else ""
        blocks += (
            _float(fit(shown(filled, options.top), _WIDTH, _GAP), suffix)
            for filled in with_rows(report)
        )
    return "\n\n".join(blocks) + "\n"


def alone(filled: Filled, top: int | None) -> str:
    """Return one table as a float, to be put into a paper."""
    return f"{PREAMBLE}\n{_float(fit(shown(filled, top), _WIDTH, _GAP), '')}\n"


def _comments(report: Report) -> str:
    """Return what the tables rest on, for whoever reads the source."""
    missing = (f"Not shown: {name}: {why}" for name, why in report.left_out.items())
    warnings = (f"Warning: {warning}" for warning in report.warnings)
    lines = (report.headline, *report.trust, *warnings, *missing)
    return "\n".join(f"% {one_line(line)}" for line in lines)


def _float(table: Shown, suffix: str) -> str:
    said = [text if text[-1] in ".!?" else f"{text}." for text in (table.title, table.note) if text]
    caption = escape(" ".join(said))
    return "\n".join(
        [
            *([f"% {table.dropped}"] if table.dropped else []),
            r"\begin{table}[htbp]",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            f"\\caption{{{caption}}}",
            f"\\label{{tab:{table.name}{suffix}}}",
            *tabular(table),
            r"\end{table}",
        ]
    )


def tabular(table: Shown) -> Iterator[str]:
    """Give a table without its float; it needs booktabs."""
    sides = "".join("r" if strip.is_number else "l" for strip in table.strips)
    head, *rows = zip(*map(_column, table.strips), strict=True)
    yield f"\\begin{{tabular}}{{@{{}}{sides}@{{}}}}"
    yield r"\toprule"
    yield _row(head)
    yield r"\midrule"
    yield from map(_row, rows)
    if table.cut:
        yield f"\\multicolumn{{{len(sides)}}}{{@{{}}l@{{}}}}{{\\emph{{{escape(table.cut)}}}}} \\\\"
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _column(strip: Strip) -> list[str]:
    texts = [escape(cell) for cell in strip.cells]
    if strip.is_name:
        texts = [f"\\texttt{{{text}}}" for text in texts]
    return [escape(strip.heading), *texts]


def _row(texts: Sequence[str]) -> str:
    return f"{' & '.join(texts)} \\\\"


def escape(text: str) -> str:
    """Return a text that LaTeX sets as it is.

    Letters with accents lose them, and what has no counterpart becomes a question mark.
    """
    return _JOINED.sub(lambda c: _SPECIAL.get(c[0]) or _set(c[0]), text)


def _set(character: str) -> str:
    if character.isascii():
        return character
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _SYMBOLS.get(character) or escape(bare) or "?"


def breakable(path: str) -> str:
    """Return a path that may break after each slash."""
    return r"\texttt{" + escape(path).replace("/", r"/\allowbreak{}") + "}"


RENDERER = Renderer(render=render)

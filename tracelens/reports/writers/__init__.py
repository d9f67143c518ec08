"""Writers: one file = one format, from a document to a text and the files that lie beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracelens.reports import Document

FORMATS: Final = {".md": "markdown", ".html": "html", ".htm": "html", ".tex": "latex"}
"""The format that the end of a file's name stands for."""


@dataclass(frozen=True)
class Written:
    """A report in one format; ``beside`` are files by their name in the folder of figures."""

    text: str
    beside: Mapping[str, str] = field(default_factory=dict)


def writer(form: str) -> Callable[[Document, str], Written]:
    """Return the function that writes a document in a format.

    It takes the document and the folder of figures, as the text is to name it; where that is
    empty, a format that needs files beside it goes without figures.
    """
    if form == "markdown":
        from tracelens.reports.writers.markdown import write
    elif form == "html":
        from tracelens.reports.writers.html import write
    else:
        from tracelens.reports.writers.latex import write
    return write

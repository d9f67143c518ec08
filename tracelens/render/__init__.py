"""Renderers: one file = one output format, from a Report to a string."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracelens.tables import Report


@dataclass(frozen=True)
class Options:
    """What a renderer may be told.

    ``top`` rows are shown of each table (None: all); JSON and CSV are always complete.
    ``width`` is the terminal's width in columns; ``colour`` allows ANSI styles.
    """

    top: int | None = 20
    width: int = 80
    colour: bool = False


@dataclass(frozen=True)
class Renderer:
    """One output format; ``render`` takes one report per input and returns the whole text."""

    render: Callable[[Sequence[Report], Options], str]

"""Draw what `tracelens summarize` prints of the sample as docs/summarize.svg.

usage: python docs/screenshot.py
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tracelens.links.linked import link
from tracelens.readers.open import open_trace
from tracelens.render import Options
from tracelens.render.text import RENDERER
from tracelens.tables import build

ROOT = Path(__file__).parents[1]
SAMPLE = Path("samples/gpt2-xl-ctx256-h200/run.sqlite.gz")
WIDTH = 92


def main() -> None:
    """Write the picture."""
    report = build.report(link(open_trace(ROOT / SAMPLE, cache=False)), build.DEFAULT)
    text = RENDERER.render([report], Options(top=6, width=WIDTH, colour=True))
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ tracelens summarize {SAMPLE}", style="bold"))
    console.print(Text.from_ansi(text))
    console.save_svg(str(ROOT / "docs" / "summarize.svg"), title="tracelens")


if __name__ == "__main__":
    main()

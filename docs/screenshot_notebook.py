"""Draw what a recording shows of itself in a notebook as docs/notebook.png.

usage: python -m docs.screenshot_notebook
"""

from __future__ import annotations

from pathlib import Path

import tracelens
from tests.browsers import launched

ROOT = Path(__file__).parents[1]
CELLS = ("run", 'run.table("kernels", top=3)', "run.findings()")
PAGE = """\
<!doctype html><meta charset="utf-8">
<style>body {{ margin: 12px; font: 13px system-ui, sans-serif; color: #1d2329; }}
pre {{ background: #f5f6f7; border: 1px solid #dfe3e7; padding: 6px 10px; margin: 14px 0 8px; }}
</style>{}"""


def main() -> None:
    """Write the picture."""
    run = tracelens.open(ROOT / "samples" / "gpt2-xl-ctx256-h200")
    shown = (run, run.table("kernels", top=3), run.findings())
    cells = (
        f"<pre>{cell}</pre>{one._repr_html_()}" for cell, one in zip(CELLS, shown, strict=True)
    )
    with launched() as browser:
        page = browser.new_page(viewport={"width": 1040, "height": 700})
        page.set_content(PAGE.format("".join(cells)))
        page.screenshot(path=ROOT / "docs" / "notebook.png", full_page=True)


if __name__ == "__main__":
    main()

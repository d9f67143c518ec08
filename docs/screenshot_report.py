"""Draw the roofline and the memory of the report on a sample as docs/report.png, in chromium.

usage: python -m docs.screenshot_report
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from tests.browsers import launched
from tracelens.__main__ import run

DOCS: Final = Path(__file__).parent
SAMPLE: Final = DOCS.parent / "samples" / "gpt2-small-ctx512-bf16-h200"
WIDTH: Final = 1000
SHOWN: Final = "figure:has(svg.roofline), figure:has(svg.course)"


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        file = Path(folder) / "report.html"
        run(["report", str(SAMPLE), "-o", str(file)])
        page = browser.new_page(viewport={"width": WIDTH, "height": 800}, color_scheme="light")
        page.goto(file.as_uri())
        page.add_style_tag(content=f"body > :not({SHOWN}) {{ display: none; }}")
        page.screenshot(path=DOCS / "report.png", full_page=True)


if __name__ == "__main__":
    main()

"""Judge a junit report of pytest: no test may be skipped but for want of a GPU or of the corpus.

A test that is skipped because a tool is not installed proves nothing, and nobody reads skips.
"""

# ruff: noqa: INP001, T201 -- a script, which prints

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

ALLOWED = re.compile(r"\bGPUs?\b|\bthe corpus of recordings is absent\b")


def main(report: Path) -> int:
    """Print the skips that are not allowed, then the counts; return the exit status."""
    if not report.is_file():
        print(f"No report of the tests was written: {report}\n0 passed, 1 failed, 0 skipped")
        return 1
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 -- our own report
    failed = [case for case in cases if case.find("failure") is not None or _is_error(case)]
    skipped = {case: reason for case in cases if (reason := _reason(case))}
    wrong = {case: why for case, why in skipped.items() if not ALLOWED.search(why)}
    for case, why in wrong.items():
        print(f"skipped without a GPU or the corpus being the reason: {_name(case)}: {why}")
    passed = len(cases) - len(failed) - len(skipped)
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    return int(bool(wrong or failed or not passed))


def _is_error(case: ET.Element) -> bool:
    return case.find("error") is not None


def _reason(case: ET.Element) -> str:
    skip = case.find("skipped")
    if skip is None or skip.get("type") == "pytest.xfail":
        return ""
    message = skip.get("message", "")  # of a whole file: "collection skipped", and why in the text
    return (skip.text if message == "collection skipped" else message) or "no reason given"


def _name(case: ET.Element) -> str:
    return f"{case.get('classname', '')}::{case.get('name', '')}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

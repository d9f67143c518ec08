"""Documents audited in a test: from a text or a file to what every check says."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracelens.audit import judge, mapping, reading, sheets
from tracelens.audit.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.audit.judge import Judged

HERE = Path(__file__).parent
BAD = (Verdict.IMPOSSIBLE, Verdict.INCONSISTENT)
Golden = list[dict[str, str]]


def audited(path: Path, said: Mapping[str, Any] | Path | None = None, gpu: str = "") -> Judged:
    """Return the verdicts on a file; ``said`` is a mapping, or a file of one."""
    guide = mapping.load(said) if isinstance(said, Path) else mapping.parse(said or {})
    return judge.judged(sheets.understood(reading.read(path), guide, gpu))


def of_text(text: str, folder: Path, said: Mapping[str, Any] | None = None, **more: Any) -> Judged:
    """Return the verdicts on a text, by way of a Markdown file."""
    path = folder / "results.md"
    path.write_text(text, encoding="utf-8")
    return audited(path, said, **more)


def verdicts(judged: Judged, check: str) -> list[tuple[int, Verdict]]:
    """Return row and verdict of everything that a check said."""
    return [(one.row.number, one.verdict) for name, one in judged.checks if name == check]


def said(judged: Judged, check: str) -> list[str]:
    """Return the arithmetic of a check."""
    return [one.arithmetic for name, one in judged.checks if name == check]


def wrong(judged: Judged) -> list[tuple[str, int, int, Verdict]]:
    """Return check, table, row and verdict of whatever does not hold, each once."""
    found = ((n, c.row.table, c.row.number, c.verdict) for n, c in judged.checks)
    return list(dict.fromkeys(one for one in found if one[3] in BAD))


def golden(judged: Judged) -> Golden:
    """Return what is kept of an audit: every row's verdict, and the checks that do not hold."""
    rows = [
        {
            "table": str(row.table), "row": str(row.number), "line": str(row.line),
            "check": "", "verdict": str(verdict), "claimed": "", "computed": "",
        }
        for row, verdict in judged.rows
    ]  # fmt: skip
    checks = [
        {
            "table": str(one.row.table), "row": str(one.row.number), "line": str(one.row.line),
            "check": name, "verdict": str(one.verdict),
            "claimed": _digits(one.claimed), "computed": _digits(one.computed),
        }
        for name, one in judged.checks
        if one.verdict in BAD
    ]  # fmt: skip
    return rows + checks


def compare(found: Golden, expected: Path, *, update: bool) -> None:
    """Hold an audit against its golden file, or write that anew."""
    if update:
        with expected.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(found[0]))
            writer.writeheader()
            writer.writerows(found)
    with expected.open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == found


def _digits(number: float | None) -> str:
    return "" if number is None else f"{number:.4g}"

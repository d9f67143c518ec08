"""Ask every check of a document, and give each row its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracelens import registry
from tracelens.audit.verdicts import Checked, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracelens.audit.sheets import Audited, Row
    from tracelens.audit.verdicts import Check

ORDER: Final = tuple(Verdict)
"""The verdicts, the one that counts most first."""


@dataclass(frozen=True)
class Judged:
    """What was found.

    Attributes:
        checks: name of the check and what it says, in the order of the document.
        rows: every row with its verdict; lines of text and claims of the mapping after those.
    """

    checks: tuple[tuple[str, Checked], ...]
    rows: tuple[tuple[Row, Verdict], ...]

    def counts(self) -> Mapping[Verdict, int]:
        """Return how many rows have each verdict."""
        return {one: sum(verdict == one for _, verdict in self.rows) for one in ORDER}


def judged(audited: Audited) -> Judged:
    """Ask every check of the room."""
    found: list[tuple[str, Checked]] = []
    for name, entry in registry.entries("audit_check").items():
        check: Check = entry.load()
        found += ((name, checked) for checked in check.find(audited))
    found.sort(key=lambda one: _place(one[1].row))
    verdicts: dict[tuple[int, int, int], Verdict] = {}
    rows = {_place(row): row for _, row in audited.rows()}
    for _, checked in found:
        place = _place(checked.row)
        rows.setdefault(place, checked.row)
        before = verdicts.get(place, Verdict.UNCHECKED)
        verdicts[place] = min(before, checked.verdict, key=ORDER.index)
    return Judged(
        tuple(found),
        tuple((rows[at], verdicts.get(at, Verdict.UNCHECKED)) for at in sorted(rows, key=_order)),
    )


def _place(row: Row) -> tuple[int, int, int]:
    return (row.table, row.number, row.line)


def _order(place: tuple[int, int, int]) -> tuple[bool, tuple[int, int, int]]:
    """Put what stands in no table last."""
    return (place[0] == 0, place)

"""Numbers that the mapping gives a formula for: settings and numbers of the row by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens.audit import formula, names
from tracelens.audit.verdicts import Check, Checked, Verdict, equal, said, stated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tracelens.audit.interval import Interval
    from tracelens.audit.sheets import Audited, Row, Value


def find(audited: Audited) -> Iterator[Checked]:
    """Check every number that has a formula."""
    known = names.of_guide(audited)
    for _, row in audited.rows():
        for value in row.values:
            if value.formula and not value.is_bound and not value.second:
                yield _checked(row, value, [{**known, **way} for way in names.of_row(row)])


def _checked(row: Row, value: Value, ways: Sequence[Mapping[str, Interval]]) -> Checked:
    missing = formula.unknown_names(value.formula, ways[0])
    if missing:
        why = f"{value.formula}: {', '.join(missing)} is not known in this row"
        return stated(row, f"{value.name} {value.text}", Verdict.UNCHECKED, why)
    aliases = [v for v in row.values if v.alias and v.alias in value.formula]
    given = "".join(f", {one.alias} {said(one)}" for one in aliases)
    return equal(
        row,
        value,
        [formula.value(value.formula, known) for known in ways],
        f"{value.formula}{given}",
    )


CHECK = Check(find)

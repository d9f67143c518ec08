"""CSV of one table for spreadsheets and scripts: every row and column, in ns and bytes.

It follows RFC 4180. A text that a spreadsheet would compute, since it begins with ``=``, ``+``,
``-``, ``@`` or a control character, gets an apostrophe before it; numbers stay as they are. JSON
has every name as it was recorded.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from typing import TYPE_CHECKING, Final

from tracelens.errors import NothingToShowError, UsageError
from tracelens.render import Options, Renderer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tracelens.tables import Filled, Report

_FORMULA: Final = re.compile(r"[=+\-@\t\r\n]")


def render(reports: Sequence[Report], options: Options) -> str:  # noqa: ARG001
    """Return the one table that all reports have, under the names of its columns.

    With several reports the first column, ``path``, tells where a row comes from.

    Raises:
        UsageError: there is more than one table.
        NothingToShowError: there is none.
    """
    names = dict.fromkeys(filled.name for report in reports for filled in report.tables)
    if not names:
        raise NothingToShowError(_why_nothing(reports))
    if len(names) > 1:
        raise UsageError(
            f"CSV holds one table and there are {len(names)}. "
            f"Add --table NAME, one of: {', '.join(names)}."
        )
    return _written(_lines(reports))


def of_one(filled: Filled) -> str:
    """Return one table, under the names of its columns."""
    return _written([[column.name for column in filled.table.columns], *_rows(filled)])


def _written(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    # A path that is not UTF-8 comes with lone surrogates, which no encoder would write.
    return text.getvalue().encode(errors="backslashreplace").decode()


def _why_nothing(reports: Sequence[Report]) -> str:
    reasons = [f"{name}: {why}" for report in reports for name, why in report.left_out.items()]
    return "There is no table to write. " + " ".join(reasons)


def _lines(reports: Sequence[Report]) -> Iterator[Sequence[object]]:
    several = len(reports) > 1
    head = True
    for report in reports:
        for filled in report.tables:
            if head:
                yield ["path"] * several + [c.name for c in filled.table.columns]
                head = False
            path = [_cell(report.source.get("path", ""))] * several
            yield from ([*path, *row] for row in _rows(filled))


def _rows(filled: Filled) -> Iterator[Sequence[object]]:
    frame = filled.frame.select(column.name for column in filled.table.columns)
    for row in frame.iter_rows():
        yield [_cell(value) for value in row]


def _cell(value: object) -> object:
    """Return a value as CSV holds it: nothing for what JSON would call null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) else value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


RENDERER = Renderer(render=render)

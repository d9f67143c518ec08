"""The names that formulas of a mapping can use: its values, settings, and numbers of a row."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from tracelens.audit import gpus
from tracelens.audit.interval import Interval, exact
from tracelens.audit.printed import number
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited, Row

_MOST_WAYS: Final = 16


def of_guide(audited: Audited) -> dict[str, Interval]:
    """Return what holds for the whole document: settings and values of the mapping, and the GPU.

    `peak` is the GPU's stated rate in the document's number format, `bandwidth` that of its memory.
    Values may be formulas of those before them. Raises UsageError.
    """
    from tracelens.audit import formula

    found = {name: _exact(name, text) for name, text in audited.guide.settings.items()}
    if audited.gpus:
        formats = (audited.guide.dtype,) if audited.guide.dtype else ()
        found["peak"] = exact(gpus.matmul_stated(audited.gpus, formats, sparse=False))
        found["bandwidth"] = exact(max(one.bandwidth_bytes_per_s for one in audited.gpus))
    for name, text in audited.guide.values.items():
        found[name] = formula.value(text, found)
    return found


def of_row(row: Row) -> Iterator[dict[str, Interval]]:
    """Give the settings of a row and its numbers that have a name, each way to read 12K."""
    numbers = {v.alias: v.span for v in row.values if v.alias and not v.second}
    ways = itertools.product(*row.settings.values())
    for way in itertools.islice(ways, _MOST_WAYS):
        settings = {name: exact(one) for name, one in zip(row.settings, way, strict=True)}
        yield {**numbers, **settings}


def _exact(name: str, text: str) -> Interval:
    one = number(text)
    if one is None:
        raise UsageError(f"The setting {name} = {text!r} is no number.")
    return exact(one.value)

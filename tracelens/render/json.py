"""JSON for programs: every table whole, integers as integers, in a form that stays stable."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import tracelens
from tracelens.render import Options, Renderer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracelens.tables import Filled, Report

SCHEMA = 1
"""Raised when a key changes its meaning or goes away; new keys do not raise it."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def render(reports: Sequence[Report], options: Options) -> str:  # noqa: ARG001
    """Return one object; several reports are the list ``runs`` in it.

    Numbers that JSON cannot hold (NaN, infinity) are null.
    """
    head = {"tracelens": _text(tracelens.__version__), "schema": _text(SCHEMA)}
    if len(reports) == 1:
        document = _object({**head, **_report(reports[0], " ")}, "")
    else:
        runs = (_object(_report(report, "   "), "  ") for report in reports)
        document = _object({**head, "runs": _array(runs, " ")}, "")
    # A path that is not UTF-8 comes with lone surrogates, which no encoder would write.
    return _LONE_SURROGATE.sub(lambda c: f"\\u{ord(c[0]):04x}", document) + "\n"


def _report(report: Report, indent: str) -> dict[str, str]:
    tables = {filled.name: _rows(filled, f"{indent} ") for filled in report.tables}
    return {
        "source": _text(report.source),
        "devices": _text(report.devices),
        "phase_source": _text(report.phase_source),
        "coverage": _text(report.coverage),
        "tables": _object(tables, indent),
        "findings": _text(report.findings),
        "left_out": _text(report.left_out),
        "warnings": _text(report.warnings),
    }


def _rows(filled: Filled, indent: str) -> str:
    return _array(map(_text, filled.frame.iter_rows(named=True)), indent)


def _object(pairs: Mapping[str, str], indent: str) -> str:
    """Return an object of values that are JSON already, one key to a line."""
    lines = (f"{_text(key)}: {value}" for key, value in pairs.items())
    return f"{{{_lines(lines, indent)}}}"


def _array(items: Iterable[str], indent: str) -> str:
    """Return an array of values that are JSON already, one to a line."""
    return f"[{_lines(items, indent)}]"


def _lines(items: Iterable[str], indent: str) -> str:
    joined = f",\n{indent} ".join(items)
    return f"\n{indent} {joined}\n{indent}" if joined else ""


def _otherwise(value: object) -> object:
    """Return what stands for a value that JSON does not know."""
    return dict(value) if isinstance(value, Mapping) else str(value)


# json.dumps with an indent takes the slow encoder written in Python; a row to a line is read as
# easily, and 100,000 rows of 11 columns take 0.6 s instead of 3.5 s.
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_otherwise)


def _text(value: object) -> str:
    try:
        return _encoder.encode(value)
    except ValueError:
        return _encoder.encode(_finite(value))


def _finite(value: Any) -> Any:
    """Return a value with null in place of every number that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


RENDERER = Renderer(render=render)

"""JSON for programs: every table whole, integers as integers, in a form that stays stable."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import tracelens
from tracelens.render import Options, Renderer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.tables import Report

SCHEMA = 1
"""Raised when a key changes its meaning or goes away; new keys do not raise it."""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def render(reports: Sequence[Report], options: Options) -> str:  # noqa: ARG001
    """Return one object; several reports are the list ``runs`` in it.

    Numbers that JSON cannot hold (NaN, infinity) are null.
    """
    runs = [_report(report) for report in reports]
    body: dict[str, Any] = runs[0] if len(runs) == 1 else {"runs": runs}
    document = {"tracelens": tracelens.__version__, "schema": SCHEMA, **body}
    try:
        text = _dumps(document)
    except ValueError:
        text = _dumps(_finite(document))
    # A path that is not UTF-8 comes with lone surrogates, which no encoder would write.
    return _LONE_SURROGATE.sub(lambda c: f"\\u{ord(c[0]):04x}", text) + "\n"


def _report(report: Report) -> dict[str, Any]:
    return {
        "source": report.source,
        "devices": report.devices,
        "phase_source": report.phase_source,
        "coverage": report.coverage,
        "tables": {filled.name: filled.frame.to_dicts() for filled in report.tables},
        "findings": report.findings,
        "found": [asdict(found) for found in report.found.findings],
        "could_not_look": report.found.could_not,
        "left_out": report.left_out,
        "warnings": report.warnings,
    }


def _dumps(document: object) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1, default=_otherwise)


def _otherwise(value: object) -> object:
    """Return what stands for a value that JSON does not know."""
    return dict(value) if isinstance(value, Mapping) else str(value)


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

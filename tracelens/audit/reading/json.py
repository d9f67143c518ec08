"""JSON: every list of objects is a table, wherever it stands; what is around it is said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from tracelens.audit.document import Document, Grid, Line
from tracelens.errors import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DEEPEST: Final = 50
_MOST_COLUMNS: Final = 1000


class _Digits(str):
    """A number as it is written: how many digits were printed says how exact it is."""

    __slots__ = ()


def parse(path: str, text: str) -> Document:
    """Return the tables of a JSON file, or of one JSON object a line.

    Raises:
        UnreadableError: it is no JSON.
    """
    try:
        value = _loaded(text)
    except (ValueError, RecursionError) as error:
        value = _by_lines(text)
        if value is None:
            raise UnreadableError(f"{path} is no JSON: {error}.") from error
    grids = tuple(_grids(value, (), {}))
    if not grids and isinstance(value, dict):
        grids = tuple(_grids([value], (), {}))
    return Document(path, "json", grids)


def _loaded(text: str) -> Any:
    return json.loads(text, parse_float=_Digits, parse_int=_Digits, parse_constant=lambda _: "nan")


def _by_lines(text: str) -> list[Any] | None:
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        return [_loaded(line) for line in lines] if len(lines) > 1 else None
    except (ValueError, RecursionError):
        return None


def _grids(value: Any, title: tuple[str, ...], around: Mapping[str, str]) -> Iterator[Grid]:
    if len(title) > _DEEPEST:
        return
    if isinstance(value, list):
        objects = [one for one in value if isinstance(one, dict)]
        if objects and len(objects) * 2 > len(value):
            yield _grid(objects, title, around)
        for one in objects:
            for key, inner in one.items():
                if _holds_objects(inner):
                    yield from _grids(inner, (*title, str(key)), {**around, **_scalars(one)})
        return
    if not isinstance(value, dict):
        return
    rows = _named_rows(value)
    if rows:
        yield _grid(rows, title, around)
        return
    said = {**around, **_scalars(value)}
    for key, inner in value.items():
        if isinstance(inner, list | dict):
            yield from _grids(inner, (*title, str(key)), said)


def _holds_objects(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict) for one in value)


def _named_rows(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an object whose values are objects with the same keys: name -> row."""
    inner = list(value.values())
    if len(inner) < 2 or not all(isinstance(one, dict) and _scalars(one) for one in inner):
        return []
    keys = set(_flat(inner[0]))
    if not all(keys & set(_flat(one)) for one in inner):
        return []
    return [{"name": name, **row} for name, row in value.items()]


def _grid(objects: list[dict[str, Any]], title: tuple[str, ...], around: Mapping[str, str]) -> Grid:
    flat = [_flat(one) for one in objects]
    headings = tuple(dict.fromkeys(key for row in flat for key in row))[:_MOST_COLUMNS]
    rows = tuple(
        Line(number, tuple(row.get(key, "") for key in headings))
        for number, row in enumerate(flat, 1)
    )
    return Grid(headings, rows, 0, title, settings=around)


def _flat(value: Mapping[str, Any], before: str = "", depth: int = 0) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, inner in value.items():
        name = f"{before}{key}"
        if isinstance(inner, dict) and depth < _DEEPEST:
            found |= _flat(inner, f"{name}.", depth + 1)
        elif isinstance(inner, list):
            if inner and not any(isinstance(one, dict | list) for one in inner):
                found[name] = ", ".join(map(str, inner[:20]))
        else:
            found[name] = _text(inner)
    return found


def _scalars(value: Mapping[str, Any]) -> dict[str, str]:
    return {str(k): _text(v) for k, v in value.items() if not isinstance(v, list | dict)}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

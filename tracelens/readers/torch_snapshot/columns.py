"""Cutting a list of dictionaries into columns: fast where all is as it should be.

A value that is missing becomes NULL, one that cannot be true BAD; nothing raises.
"""

from __future__ import annotations

import json
import math
import struct
from functools import cached_property
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from tracelens.readers.torch_snapshot.handed import BAD, NULL, packed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracelens.readers.torch_snapshot.handed import Column, Texts
    from tracelens.readers.torch_snapshot.stacks import Stacks

_WIDEST: Final = 2**63
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_MOST_ITEMS: Final = 64
_MOST_KEYS: Final = 64


class Rows:
    """The dictionaries of one list; ``aside`` counts what is none."""

    def __init__(self, items: Any, texts: Texts, stacks: Stacks) -> None:
        listed = items if type(items) is list or type(items) is tuple else ()
        self.aside = int(items is not None and listed is not items)
        if listed and set(map(type, listed)) != {dict}:
            dictionaries = [item for item in listed if type(item) is dict]
            self.aside += len(listed) - len(dictionaries)
            listed = dictionaries
        self.items: list[dict[Any, Any]] | tuple[dict[Any, Any], ...] = listed
        self._texts = texts
        self._stacks = stacks

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.items)

    def values(self, key: str, missing: int | None = None) -> Sequence[Any]:
        """Return the values of a key, ``missing`` for none; nothing at all if no row has one."""
        if key in self._common:
            return self._common[key]
        if self._has_no_others:
            return ()
        found = [item.get(key, missing) for item in self.items]
        return () if found.count(missing) == len(found) else found

    def integers(self, key: str) -> Column:
        """Return sizes and the like."""
        return self._numbers(key, integer)

    def addresses(self, key: str) -> Column:
        """Return addresses: 64 bits in two's complement."""
        return self._numbers(key, _address)

    def times(self, key: str) -> Column:
        """Return times, which JSON may give as fractions."""
        return self._numbers(key, time)

    def labels(self, key: str, read: Callable[[Any], str | int]) -> Column:
        """Return the texts' numbers, of what ``read`` makes of a value: a text, NULL or BAD."""

        def number(value: Any) -> int:
            text = read(value)
            return text if isinstance(text, int) else self._texts.id_of(text)

        values = self.values(key)
        if not values:
            return NULL
        if _is_constant(values):
            return number(values[0])
        if not _is_flat(values):
            return packed(list(map(number, values)))
        distinct = {value: number(value) for value in set(values)}
        if len(distinct) == 1:
            return next(iter(distinct.values()))
        return packed(list(map(distinct.__getitem__, values)))

    def stacks(self, key: str = "frames") -> Column:
        """Return the call stacks' numbers."""
        return self._stacks.ids(self.values(key))

    @cached_property
    def _common(self) -> Mapping[str, Sequence[Any]]:
        """The values of the keys that all rows have, in one pass of C: 20 ns a value."""
        first = self.items[0] if self.items else {}
        keys = [key for key in islice(first, _MOST_KEYS) if type(key) is str]
        while len(keys) > 1:
            try:
                columns = zip(*map(itemgetter(*keys), self.items), strict=True)
            except KeyError as missing:
                keys.remove(missing.args[0])
            else:
                return dict(zip(keys, columns, strict=True))
        return {}

    @cached_property
    def _has_no_others(self) -> bool:
        return set(map(len, self.items)) == {len(self._common)}

    def _numbers(self, key: str, read: Callable[[Any], int]) -> Column:
        values = self.values(key, NULL)
        if not values:
            return NULL
        if _is_constant(values):
            return read(values[0])
        try:
            return packed(values)
        except struct.error:
            return packed(list(map(read, values)))


def _is_constant(values: Sequence[Any]) -> bool:
    """Tell whether all are one scalar: comparing takes a third of what packing does."""
    first = values[0]
    alike = type(first) in _SCALARS and first == values[-1]
    return alike and values.count(first) == len(values)


def _is_flat(values: Sequence[Any]) -> bool:
    """Tell whether all are scalars, or all tuples of integers: hashing others may never end."""
    kinds = set(map(type, values))
    if kinds == {tuple}:
        return set(map(type, chain.from_iterable(values))) <= {int}
    return kinds <= _SCALARS


def text(value: Any) -> str | int:
    """Return a text that is there."""
    return value if type(value) is str else NULL if value is None else BAD


def scalar(value: Any) -> str | int:
    """Return a text as it is, a number or a truth as JSON, and NULL for anything else."""
    if type(value) is str:
        return value
    if type(value) is int and abs(value) >= _WIDEST:
        return NULL  # writing it takes a time that grows with its square
    return json.dumps(value) if type(value) in _SCALARS and value is not None else NULL


def remark(value: Any) -> str | int:
    """Return a text, or the JSON of a flat dictionary; NULL for what stands for nothing."""
    if type(value) is str:
        return NULL if value in {"", "N/A"} else value
    if type(value) is not dict:
        return text(value)
    if len(value) > _MOST_ITEMS or any(type(key) is not str for key in value):
        return BAD
    if any(v is not None and scalar(v) == NULL for v in value.values()):
        return BAD
    return json.dumps(value) if value else NULL


def pool(value: Any) -> str | int:
    """Return a pool id, two integers, as ``1,0``; NULL for the default pool."""
    if value is None:
        return NULL
    if type(value) not in {tuple, list} or [type(part) for part in value[:3]] != [int, int]:
        return BAD
    first, second = value
    if max(abs(first), abs(second)) >= _WIDEST:
        return BAD
    return f"{first},{second}" if first or second else NULL


def integer(value: Any) -> int:
    """Return an integer that fits 64 bits, or a truth as 0 or 1."""
    if type(value) is int or type(value) is bool:
        return int(value) if -_WIDEST <= value < _WIDEST else BAD
    if type(value) is float:
        return int(value) if value.is_integer() and abs(value) < _WIDEST else BAD
    return NULL if value is None else BAD


def _address(value: Any) -> int:
    if type(value) is int and _WIDEST <= value < 2 * _WIDEST:
        return value - 2 * _WIDEST
    return integer(value)


def time(value: Any) -> int:
    """Return a time, its fraction cut off."""
    if type(value) is float and math.isfinite(value):
        return integer(math.floor(value))
    return integer(value)

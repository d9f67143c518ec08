"""Cutting a snapshot into columns, in the child process.

The tables handed over, in this order: `segments`, `blocks`, `annotations`, `memory` (no piece of
two devices) and those of `stacks`. Facts: the allocator's settings, counts of what was set aside,
and what the file had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracelens.readers.torch_snapshot.columns import Rows, pool, remark, scalar, text
from tracelens.readers.torch_snapshot.handed import mended, packed
from tracelens.readers.torch_snapshot.stacks import Stacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tracelens.readers.torch_snapshot.handed import Column, Hand

MARKS: Final = ("segments", "device_traces")
"""A dictionary with one of these keys is a snapshot."""
_KNOWN: Final = {
    "segments", "device_traces", "allocator_settings", "external_annotations",
    "trace_alloc_overflowed", "trace_alloc_max_entries",
}  # fmt: skip
_ENTRY_KEYS: Final = {
    "action", "addr", "size", "stream", "time_us", "frames", "device_free", "compile_context",
    "user_metadata", "pool_id",
}  # fmt: skip
_RINGS: Final = ("trace_alloc_overflowed", "trace_alloc_max_entries")
_MOST_DEVICES: Final = 1024
_MOST_SETTINGS: Final = 256
_MOST_KEY: Final = 80
_MOST_VALUE: Final = 4096
_PART_ROWS: Final = 2048
_SAMPLE_EVERY: Final = 512


def cut(content: Mapping[str, Any], hand: Hand) -> dict[str, Any]:
    """Hand the tables of a snapshot over and return its facts."""
    stacks = Stacks(hand.texts)
    aside: dict[str, int] = {}

    def rows(table: str, items: Any) -> Rows:
        found = Rows(items, hand.texts, stacks)
        aside[table] = aside.get(table, 0) + found.aside
        return found

    hand.begin("snapshot")
    # What is small comes first: the parent is done with it before the history ends.
    segments = rows("segments", content.get("segments"))
    _segments(segments, hand)
    _blocks(segments, rows, hand)
    annotations = rows("annotations", content.get("external_annotations"))
    if len(annotations):
        _annotations(annotations, hand)
    traces = _traces(content.get("device_traces"), aside)
    other: set[str] = set()
    for device, trace in enumerate(traces):
        hand.flush()
        for some in _in_parts(trace):
            entries = rows("memory", some)
            if len(entries):
                hand.part("memory", len(entries), _memory(entries, device))
                other |= _other_keys(entries)
    stacks.write(hand)
    return {
        "settings": _settings(content),
        "rings": _rings(content, len(traces)),
        "aside": aside,
        "damaged_frames": stacks.damaged_frames,
        "cut_texts": hand.texts.cut,
        "visible_devices": len(traces),
        "unread": {k: _length(v) for k, v in content.items() if _is_unread(k, v)},
        "unread_keys": sorted(other),
    }


def _traces(found: Any, aside: dict[str, int]) -> list[Any]:
    if type(found) not in {list, tuple}:
        aside["memory"] = int(found is not None)
        return []
    aside["memory"] = max(0, len(found) - _MOST_DEVICES)
    return list(found[:_MOST_DEVICES])


def _in_parts(trace: Any) -> Iterator[Any]:
    """Return a trace some thousands of entries at a time, which stay in the processor's cache.

    Every column is a pass over the entries: this halves what they take together.
    """
    if type(trace) not in {list, tuple}:
        yield trace
        return
    for first in range(0, len(trace), _PART_ROWS):
        yield trace[first : first + _PART_ROWS]


def _memory(entries: Rows, device: int) -> dict[str, Column]:
    return {
        "device": device,
        "action": entries.labels("action", text),
        "address": entries.addresses("addr"),
        "size_bytes": entries.integers("size"),
        "stream": entries.addresses("stream"),
        "time_us": entries.times("time_us"),
        "stack_id": entries.stacks(),
        "free_bytes": entries.integers("device_free"),
        "pool": entries.labels("pool_id", pool),
        "context": entries.labels("compile_context", remark),
        "metadata": entries.labels("user_metadata", remark),
    }


def _other_keys(entries: Rows) -> set[str]:
    """Return keys of entries that are not read, of one entry in some hundred."""
    some = entries.items[::_SAMPLE_EVERY]
    said = (key for item in some for key, value in item.items() if not _is_nothing(value))
    return {key[:_MOST_KEY] for key in said if type(key) is str and key not in _ENTRY_KEYS}


def _segments(segments: Rows, hand: Hand) -> None:
    hand.part(
        "segments",
        len(segments),
        {
            "device": segments.integers("device"),
            "address": segments.addresses("address"),
            "size_bytes": segments.integers("total_size"),
            "stream": segments.addresses("stream"),
            "pool": segments.labels("segment_pool_id", pool),
            "segment_kind": segments.labels("segment_type", text),
            "expandable": segments.integers("is_expandable"),
            "stack_id": segments.stacks(),
        },
    )


def _blocks(segments: Rows, rows: Callable[[str, Any], Rows], hand: Hand) -> None:
    of: list[int] = []
    items: list[dict[Any, Any]] = []
    for number, listed in enumerate(segments.values("blocks")):
        found = rows("blocks", listed).items
        hand.check(len(items) + len(found))
        of += [number] * len(found)
        items += found
    if any("history" in block for block in items):
        items = [_with_history(block) for block in items]
    blocks = rows("blocks", items)
    hand.part(
        "blocks",
        len(blocks),
        {
            "segment_id": packed(of),
            "address": blocks.addresses("address"),
            "size_bytes": blocks.integers("size"),
            "requested_bytes": blocks.integers("requested_size"),
            "state": blocks.labels("state", text),
            "stack_id": blocks.stacks(),
        },
    )


def _with_history(block: dict[Any, Any]) -> dict[Any, Any]:
    """Return a block as later versions write it: up to 2.0 it lists its uses, newest first."""
    history = block.get("history")
    newest = history[0] if type(history) is list and history else None
    if type(newest) is not dict:
        return block
    asked = {"frames": newest.get("frames"), "requested_size": newest.get("real_size")}
    return {**asked, **block}


def _annotations(annotations: Rows, hand: Hand) -> None:
    hand.part(
        "annotations",
        len(annotations),
        {
            "name": annotations.labels("name", text),
            "stage": annotations.labels("stage", text),
            "device": annotations.integers("device"),
            "time_us": annotations.times("time_us"),
        },
    )


def _settings(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the allocator's settings as text, nested ones as JSON."""
    found = content.get("allocator_settings")
    if type(found) is not dict:
        return {}
    named = [(k, v) for k, v in found.items() if type(k) is str and k not in _RINGS]
    texts = [(key, remark(v) if type(v) is dict else scalar(v)) for key, v in named]
    return {
        mended(key[:_MOST_KEY]): mended(value[:_MOST_VALUE])
        for key, value in texts[:_MOST_SETTINGS]
        if isinstance(value, str)
    }


def _rings(content: Mapping[str, Any], devices: int) -> dict[str, dict[str, int]]:
    """Return by device what the file says of the ring that held the history.

    Versions disagree on the place, and on one value for all, a list or a dictionary by device.
    """
    settings = content.get("allocator_settings")
    said: dict[str, dict[str, int]] = {}
    for key in _RINGS:
        value: Any = content.get(key)
        if value is None and type(settings) is dict:
            value = settings.get(key)
        if isinstance(value, int):
            value = [value] * max(1, devices)
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if type(value) is dict:
            fit = [(d, v) for d, v in value.items() if type(v) in {int, bool} and abs(v) <= 2**63]
            said[key] = {
                str(d)[:8]: int(v) for d, v in fit[:_MOST_DEVICES] if type(d) in {int, str}
            }
    return said


def _is_unread(key: Any, value: Any) -> bool:
    return type(key) is str and key not in _KNOWN and not _is_nothing(value)


def _is_nothing(value: Any) -> bool:
    return value is None or (type(value) in {str, list, tuple, dict} and not value)


def _length(value: Any) -> int:
    """Return how many entries a value has in its lists, one level deep."""
    if type(value) is not list:
        return 1
    return sum(len(v) if type(v) is list else 1 for v in value)

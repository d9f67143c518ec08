"""Interning call stacks: a million events have a few hundred distinct ones."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from tracelens.readers.torch_snapshot.handed import BAD, NULL, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.readers.torch_snapshot.handed import Column, Hand, Texts

_CANDIDATES: Final = 8
_PLAIN: Final = (str, int, float, bool, type(None))


class Stacks:
    """Distinct stacks and frames, numbered in order of appearance.

    Objects are told apart by identity first, which is cheap and, since pickles share frames,
    nearly always enough, and then by content. They must outlive this object.
    """

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._alike: dict[tuple[int, ...], list[tuple[Sequence[Any], int]]] = {}
        self._by_identity: dict[tuple[int, ...], int] = {}
        self._by_content: dict[tuple[int, ...], int] = {}
        self._frames_by_identity: dict[int, int] = {}
        self._frames: dict[tuple[int, int, int], int] = {}
        self.damaged_frames = 0

    def ids(self, lists: Sequence[Any]) -> Column:
        """Return the stack of each list of frames: NULL for an empty one or None.

        BAD for what is no list.
        """
        filled = list(filter(None, lists))
        if not filled:
            return NULL
        stacks: dict[int, int] = {}
        for key, frames in dict(zip(map(id, filled), filled, strict=True)).items():
            if type(frames) is not list and type(frames) is not tuple:
                stacks[key] = BAD
                continue
            # Comparing a list with one that looks alike costs a quarter of hashing its 70 frames.
            looks = (id(frames[0]), id(frames[len(frames) >> 1]), id(frames[-1]), len(frames))
            for known, stack_id in self._alike.get(looks, ()):
                if known == frames:
                    stacks[key] = stack_id
                    break
            else:
                stacks[key] = self._stack(frames, looks)
        return packed([stacks[id(frames)] if frames else NULL for frames in lists])

    def write(self, hand: Hand) -> None:
        """Write the tables `frames`, `stack_lengths` and `stack_frames`."""
        frames = list(zip(*self._frames, strict=True)) or [(), (), ()]
        columns: dict[str, Column] = {
            name: packed(values)
            for name, values in zip(("function", "file", "line"), frames, strict=True)
        }
        hand.part("frames", len(self._frames), columns)
        lengths = list(map(len, self._by_content))
        hand.part("stack_lengths", len(lengths), {"length": packed(lengths)})
        flat = list(chain.from_iterable(self._by_content))
        hand.part("stack_frames", len(flat), {"frame_id": packed(flat)})

    def _stack(self, frames: Sequence[Any], looks: tuple[int, ...]) -> int:
        identity = tuple(map(id, frames))
        stack_id = self._by_identity.get(identity)
        if stack_id is None:
            content = tuple(f for f in map(self._frame, frames) if f != BAD)
            stack_id = self._by_content.setdefault(content, len(self._by_content))
            self._by_identity[identity] = stack_id
        alike = self._alike.setdefault(looks, [])
        if len(alike) < _CANDIDATES and all(map(_is_flat, frames)):
            alike.append((frames, stack_id))
        return stack_id

    def _frame(self, frame: Any) -> int:
        known = self._frames_by_identity.get(id(frame))
        if known is not None:
            return known
        if type(frame) is not dict:
            self.damaged_frames += 1
            return BAD
        line = frame.get("line")
        content = (
            self._text(frame.get("name")),
            self._text(frame.get("filename")),
            line if type(line) is int and 0 <= line < 2**31 else NULL,
        )
        frame_id = self._frames.setdefault(content, len(self._frames))
        self._frames_by_identity[id(frame)] = frame_id
        return frame_id

    def _text(self, value: Any) -> int:
        return self._texts.id_of(value) if type(value) is str else NULL


def _is_flat(frame: Any) -> bool:
    """Tell whether comparing with this frame takes a bounded time, whatever it is compared with."""
    return type(frame) is dict and all(type(value) in _PLAIN for value in frame.values())

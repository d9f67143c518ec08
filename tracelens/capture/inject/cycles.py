"""Where one round of events that repeat ends and the next begins."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Rounds(Generic[T]):
    """Tells where a round begins, by the first event that repeats."""

    def __init__(self) -> None:
        self._seen: list[T] = []

    def begins(self, event: T) -> bool:
        """Take the next event; return whether a round begins with it."""
        is_first = not self._seen or event in self._seen
        self._seen = [event] if is_first else [*self._seen, event]
        return is_first


class Ends(Generic[T]):
    """Tells where a round ends, as soon as that can be known.

    A round has ended once it holds all that can happen, or all that the last one did. Before
    that is known, the first event that repeats tells that the round before it has ended.
    """

    def __init__(self) -> None:
        self._seen: list[T] = []
        self._all: list[T] | None = None

    def ends(self, event: T, can_happen: int) -> bool:
        """Take the next event; return whether a round ends with it.

        Args:
            event: what happened.
            can_happen: how many different events there can be.
        """
        is_late = event in self._seen
        if is_late:
            self._all, self._seen = self._seen, []
        self._seen.append(event)
        known = self._all
        is_whole = len(self._seen) >= can_happen or (
            known is not None and all(one in self._seen for one in known)
        )
        if is_whole:
            self._all, self._seen = self._seen, []
        return is_whole or is_late

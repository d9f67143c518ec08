"""Smaller versions of a workload: what to offer where it does not fit into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracelens.workload import Workload

W = TypeVar("W", bound="Workload")


def largest_first(whole: Workload, candidates: Iterable[W]) -> list[W]:
    """Return the candidates that need less memory, each once; of equals, the first given first."""
    sizes = {one: one.cost().memory_bytes for one in candidates}
    fits = [one for one, size in sizes.items() if size < whole.cost().memory_bytes]
    return sorted(fits, key=lambda one: -sizes[one])


def halves(most: int, least: int = 1) -> list[int]:
    """Return a number and its halves down to the least: 512, 256, 128."""
    found = [most]
    while found[-1] // 2 >= least:
        found.append(found[-1] // 2)
    return found

"""Analyses: one file = one question, from a Linked trace to a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    import polars as pl


class Asked(Protocol):
    """What is asked: a trace made ready for questions, which keeps their answers."""

    def once(self, name: str, make: Callable[[Self], pl.DataFrame]) -> pl.DataFrame:
        """Return ``make`` of this, computed at most once."""
        ...


Of = TypeVar("Of", bound=Asked)


@dataclass(frozen=True)
class Analysis(Generic[Of]):
    """One question; ``run`` raises NothingToShowError where the trace cannot answer it.

    Calling the analysis answers it once per trace: others may ask again.
    """

    run: Callable[[Of], pl.DataFrame]

    def __call__(self, of: Of) -> pl.DataFrame:
        """Return the answer for this trace, which was made ready for such questions."""
        return of.once(f"{self.run.__module__}.{self.run.__qualname__}", self.run)

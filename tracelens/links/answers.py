"""Answers that several analyses need: worked out once, whichever thread asks first."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
Answers = dict[str, Future[Any]]
"""What has been found out, or is being found out, by name."""


def once(answers: Answers, name: str, make: Callable[[], _T]) -> _T:
    """Return what ``make`` returns or raises, called at most once for a name."""
    mine: Future[_T] = Future()
    answer: Future[_T] = answers.setdefault(name, mine)
    if answer is mine:
        try:
            mine.set_result(make())
        except BaseException as error:
            mine.set_exception(error)
            raise
    return answer.result()

"""Words of kernel names, and the search for the phrases that tell a family among them."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|\^|\$")
_LONGEST = 64


@lru_cache(maxsize=16384)
def words(text: str) -> tuple[str, ...]:
    """Split snake_case, CamelCase and digits: `fp8CastTranspose_v2` is fp, 8, cast, transpose, v, 2."""
    return tuple(word.lower() for word in _WORD.findall(text))


class Vocabulary:
    """Phrases in order of precedence, each telling a family, found in a sequence of words.

    A phrase of several words also matches where they are written as one (`layer norm`, `layernorm`). A word that
    no phrase knows is looked up by the stem within it (`hgemm` is `gemm`, `mysoftmax` is `softmax`).
    """

    def __init__(self, rules: Iterable[tuple[str, str]], stems: str = "") -> None:
        """Index the rules, a family and its comma-separated phrases each, by the first word of a phrase."""
        self._by_first: dict[str, list[tuple[int, tuple[str, ...], str]]] = {}
        known = set()
        for rank, (family, phrases) in enumerate(rules):
            for phrase in phrases.split(","):
                for spelling in _spellings(phrase.split()):
                    known.update(spelling)
                    entry = (rank, spelling, family)
                    self._by_first.setdefault(spelling[0], []).append(entry)
        self._known = frozenset(known)
        self._stem = re.compile("|".join(stems.split()) or r"(?!)")

    def find(self, text: Sequence[str]) -> str | None:
        """Return the family of the phrase of highest precedence among the words, None where there is none."""
        text = ("^", *(word if word in self._known else self._stemmed(word) for word in text), "$")
        best: tuple[int, str] | None = None
        for at, word in enumerate(text):
            for rank, phrase, family in self._by_first.get(word, ()):
                if best and best[0] <= rank:
                    break
                if tuple(text[at : at + len(phrase)]) == phrase:
                    best = (rank, family)
                    break
        return best[1] if best else None

    def _stemmed(self, word: str) -> str:
        found = self._stem.search(word) if 4 <= len(word) <= _LONGEST else None  # noqa: PLR2004
        return found[0] if found else word


def _spellings(phrase: Sequence[str]) -> set[tuple[str, ...]]:
    """Return every way of writing neighbouring words of the phrase as one."""
    ways = set()
    for glued in product((False, True), repeat=len(phrase) - 1):
        spelling = [phrase[0]]
        for word, glue in zip(phrase[1:], glued, strict=True):
            if glue and word.isalpha() and spelling[-1].isalpha():
                spelling[-1] += word
            else:
                spelling.append(word)
        ways.add(tuple(spelling))
    return ways

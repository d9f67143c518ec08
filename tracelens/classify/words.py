"""Words of kernel names, and the search for the phrases that tell a family among them."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import groupby, product
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|\^|\$")
_SHORTEST, _LONGEST = 4, 64


@lru_cache(maxsize=16384)
def words(text: str) -> tuple[str, ...]:
    """Split snake_case, CamelCase and digits: `fp8CastT_v2` is fp, 8, cast, t, v, 2."""
    return tuple(word.lower() for word in _WORD.findall(text))


class Vocabulary:
    """Phrases in order of precedence, each telling a family, found in a sequence of words.

    A phrase of several words also matches where they are written as one (`layer norm`,
    `layernorm`). A word that no phrase knows is looked up by the stem within it (`hgemm` is `gemm`,
    `mysoftmax` is `softmax`).
    """

    def __init__(self, rules: Iterable[tuple[str, str]], stems: str = "") -> None:
        """Index the rules, a family and its comma-separated phrases each."""
        self._ranked: dict[tuple[str, ...], tuple[int, str]] = {}
        for rank, (family, phrases) in enumerate(rules):
            for phrase in phrases.split(","):
                for spelling in _spellings(phrase.split()):
                    self._ranked.setdefault(spelling, (rank, family))
        self._known = frozenset(word for phrase in self._ranked for word in phrase)
        self._lengths = {
            first: tuple(sorted({len(phrase) for phrase in phrases}))
            for first, phrases in groupby(sorted(self._ranked), key=itemgetter(0))
        }
        self._stem = re.compile("|".join(stems.split()) or r"(?!)")

    def find(self, text: Sequence[str]) -> str | None:
        """Return the family of the phrase of highest precedence among the words, if any."""
        text = ("^", *(word if word in self._known else self._stemmed(word) for word in text), "$")
        found = (
            self._ranked[text[at : at + length]]
            for at, word in enumerate(text)
            for length in self._lengths.get(word, ())
            if text[at : at + length] in self._ranked
        )
        best = min(found, default=None)
        return best[1] if best else None

    def _stemmed(self, word: str) -> str:
        """Return the known word that an unknown one stands for: its singular, or a stem in it."""
        if not _SHORTEST <= len(word) <= _LONGEST:
            return word
        if word.endswith("s") and word[:-1] in self._known:
            return word[:-1]
        found = self._stem.search(word)
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

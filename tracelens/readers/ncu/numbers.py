"""From the texts of ncu's tables to numbers in base units: digits in groups, either comma."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.readers.ncu.units import unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_POINT: Final = r"^[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?(?:[eE][-+]?\d+)?$"
_COMMA: Final = r"^[-+]?(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d*)?(?:[eE][-+]?\d+)?$"
_MUST_BE_POINT: Final = r"^[-+]?[\d,]*\d\.\d{1,2}$|\d,\d{3}\.\d"
_MUST_BE_COMMA: Final = r"^[-+]?[\d.]*\d,\d{1,2}$|\d\.\d{3},\d|^\d{1,3}(?:\.\d{3}){2,}$"
_INSTANCES: Final = r"\s*\([^()]*\)$"
_SPACES: Final = r"[\s\u00a0\u202f']"
_UNMEASURED: Final = (
    "",
    "n/a",
    "nan",
    "-nan",
    "inf",
    "-inf",
    "no data",
    "(!) n/a",
    "not available",
)
_LISTED: Final = 4
_SEVERAL: Final = "(several)"


class Numbers:
    """Makes numbers of texts, part by part, and remembers what were none."""

    def __init__(self) -> None:
        self._rule: str | None = None
        self._odd: Counter[str] = Counter()
        self._unmeasured: set[str] = set()
        self._units: dict[str, set[str]] = {}
        self._is_scaled = False
        self._words: dict[str, str] = {}
        self._numeric: set[str] = set()

    def of(self, texts: pl.DataFrame) -> pl.DataFrame:
        """Return launch, name, value and base unit of launch, name, text and unit.

        Rows that hold no number are left out.
        """
        plain = pl.col("text").str.replace(_INSTANCES, "").str.replace_all(_SPACES, "")
        texts = texts.with_columns(plain=plain)
        rule = self._style(texts["plain"])
        digits = (
            pl.col("plain").str.replace_all(",", "", literal=True)
            if rule == _POINT
            else pl.col("plain")
            .str.replace_all(".", "", literal=True)
            .str.replace_all(",", ".", literal=True)
        )
        value = pl.when(pl.col("plain").str.contains(rule)).then(
            digits.cast(pl.Float64, strict=False)
        )
        valued = texts.with_columns(value=value)
        self._remember(valued.filter(pl.col("value").is_null()), valued)
        return self._in_base_units(valued.drop_nulls("value"))

    def words(self) -> dict[str, str]:
        """Return the text of each metric none of whose values is a number."""
        return {name: text for name, text in self._words.items() if name not in self._numeric}

    def caveats(self) -> Iterator[tuple[str, str]]:
        """Give what there is to say of the values, as kind and text."""
        odd = {name: count for name, count in self._odd.items() if name in self._numeric}
        if odd:
            yield (
                "damaged",
                (
                    f"{sum(odd.values()):,} values are no numbers, and were set aside: "
                    f"{_listed(list(odd))}."
                ),
            )
        if lost := sorted(self._unmeasured):
            yield "missing", f"Metrics that ncu could not measure everywhere: {_listed(lost)}."
        if self._units:
            said = [
                f"{text[:40]!r} (of {_listed(sorted(of)[:1])})" for text, of in self._units.items()
            ]
            yield (
                "note",
                (f"Units that are not known here, whose values are as written: {_listed(said)}."),
            )
        if self._is_scaled:
            yield (
                "note",
                (
                    "Values were printed in scaled units, rounded to two decimals: "
                    "--print-units base prints them whole."
                ),
            )

    def _style(self, plain: pl.Series) -> str:
        """Return the rule for numbers: by the first part in which one must be of either kind."""
        if self._rule is None:
            points = plain.str.contains(_MUST_BE_POINT).any()
            commas = plain.str.contains(_MUST_BE_COMMA).any()
            if not (points or commas):
                return _POINT
            self._rule = _COMMA if commas and not points else _POINT
        return self._rule

    def _remember(self, without: pl.DataFrame, texts: pl.DataFrame) -> None:
        self._numeric.update(texts.drop_nulls("value")["name"].unique())
        gone = pl.col("text").str.strip_chars().str.to_lowercase().is_in(_UNMEASURED)
        is_blank = pl.col("text").str.strip_chars() == ""
        self._unmeasured.update(without.filter(gone & ~is_blank)["name"].unique())
        rest = without.filter(~gone)
        said = rest.group_by("name", maintain_order=True).agg(
            pl.len(), first=pl.col("text").first(), kinds=pl.col("text").n_unique()
        )
        for name, count, first, kinds in said.iter_rows():
            self._odd[name] += count
            is_one = kinds == 1 and self._words.get(name, first) == first
            self._words[name] = first if is_one else _SEVERAL

    def _in_base_units(self, valued: pl.DataFrame) -> pl.DataFrame:
        written = valued["unit"].unique().to_list()
        known = {text: unit(text) for text in written}
        for text, found in known.items():
            if not found.known:
                names = valued.filter(pl.col("unit") == text)["name"].unique().to_list()
                self._units.setdefault(text, set()).update(names)
            self._is_scaled |= found.scaled
        table = pl.DataFrame(
            {
                "unit": written,
                "base": [known[text].base for text in written],
                "factor": [known[text].factor for text in written],
            },
            schema={"unit": pl.String, "base": pl.String, "factor": pl.Float64},
        )
        return valued.join(table, on="unit", maintain_order="left").select(
            "launch", "name", value=pl.col("value") * pl.col("factor"), unit="base"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:_LISTED])
    more = len(names) - _LISTED
    return f"{shown} and {more} more" if more > 0 else shown

"""Tables as they are understood: rows of values, each of a quantity, and what they are measured on.

What is nearest to a number counts: its cell, its column, its row, the mapping, the headings above
the table, and the document last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from tracelens.audit import gpus, headings, quantities
from tracelens.audit.mapping import Column, TableMapping
from tracelens.audit.printed import Printed, fraction, is_absent, number, pair, plain
from tracelens.audit.work import Work, of_row, recognised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tracelens.audit.document import Document, Grid, Line
    from tracelens.audit.headings import Meaning
    from tracelens.audit.interval import Interval
    from tracelens.audit.mapping import Guide
    from tracelens.hardware import Device

_LONGEST_LABEL: Final = 60
_FEW: Final = 3
_BINARY_THOUSAND: Final = 1.024
_SETTING: Final = re.compile(
    r"([A-Za-z][A-Za-z _-]{0,24}?)\s*[=:]\s*(\d+(?:,\d{3})*(?:\.\d+)?[kK]?)(?![\w.])"
)
_COUNTED: Final = re.compile(
    r"(?<![\w.])(\d[\d,]*)[ -](layers?|hidden|heads?|experts?|groups|gpus|workers|clients)\b",
    re.IGNORECASE,
)
_TIMES_GPU: Final = re.compile(r"(?<![\w.])(\d{1,4}) ?[x×] ?(?:NVIDIA )?((?:RTX )?[A-Z]+\d+\w*)")
_NAMES: Final = {
    "layer": "layers", "hidden": "d_model", "head": "heads", "expert": "experts",
    "workers": "concurrency", "clients": "concurrency",
}  # fmt: skip
_CIRCUMSTANCE: Final = re.compile(
    r"\W*(?:\d+ ?[x×]|config\w*|settings?|setup|workload|shapes?|param\w*|gpu|hardware|model|"
    r"batch|d?type|precision|device)(?!\w)",
    re.IGNORECASE,
)
_SPARSE: Final = re.compile(r"spars|\b2:4\b", re.IGNORECASE)
_UNITLESS: Final = frozenset(
    {quantities.SPEEDUP, quantities.COUNT, quantities.REQUESTS_PER_S, quantities.TOKENS_PER_S,
     quantities.ITEMS_PER_S, quantities.PARAMETERS, quantities.NUMBER}
)  # fmt: skip
_OF_PARTS: Final = {quantities.SHARE, quantities.EFFICIENCY, quantities.REDUCTION}


@dataclass(frozen=True)
class Value:
    """One number that a row claims.

    Attributes:
        name: the heading of its column.
        column: the place of that.
        text: as it is printed.
        quantity: one of `quantities.QUANTITIES`.
        span: all that it can stand for, in base units.
        unit_known: whether base units are known; if not, only ratios of one column follow.
        relation: `=`, `~`, or a bound: `<`, `>`.
        percent: it was printed in per cent.
        statistic, tags: as in `headings.Meaning`.
        per_unit: it is of one token or item.
        second: the second number of a cell such as `80.6 -> 82.5`.
        series, alias, formula: as in `mapping.Column`.
        gpus: on which of these it was measured; empty: not known.
        dtypes: the formats it was computed in; empty: not known.
        sparse: whether 2:4 sparsity is spoken of.
        part: the pass that a time is of: `forward`, `backward`, `both`.
    """

    name: str
    column: int
    text: str
    quantity: str
    span: Interval
    unit_known: bool = True
    relation: str = "="
    percent: bool = False
    statistic: str = ""
    tags: frozenset[str] = frozenset()
    per_unit: bool = False
    second: bool = False
    series: str = ""
    alias: str = ""
    formula: str = ""
    gpus: tuple[Device, ...] = ()
    dtypes: tuple[str, ...] = ()
    sparse: bool = False
    part: str = "forward"

    @property
    def is_bound(self) -> bool:
        """Whether it is a target or a bound, which nothing must equal."""
        return self.relation in {"<", ">"}


@dataclass(frozen=True)
class Row:
    """One row, the table it stands in and what it is a measurement of.

    `settings` have each value that a number may stand for: 12K is 12,000 or 12,288.
    """

    table: int
    number: int
    line: int
    label: str
    values: tuple[Value, ...] = ()
    settings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    fractions: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    cells: tuple[str, ...] = ()

    def of(self, *quantities: str) -> tuple[Value, ...]:
        """Return the values of some quantities, in the order of the columns."""
        return tuple(one for one in self.values if one.quantity in quantities)

    def known(self) -> dict[str, float]:
        """Return the settings, each as the least that it may stand for."""
        return {name: min(values) for name, values in self.settings.items()}


@dataclass(frozen=True)
class Sheet:
    """One table: its rows and what a mapping says of it."""

    number: int
    title: str
    grid: Grid
    rows: tuple[Row, ...]
    guide: TableMapping = field(default_factory=TableMapping)
    work: Mapping[str, Any] = field(default_factory=dict)

    def work_of(self, row: Row, part: str) -> tuple[str, Work] | None:
        """Return what a row does, by the mapping or as its settings suggest; None: not known."""
        known = {**row.known(), **_numbers(self.work)}
        kind = self.work.get("kind") or recognised(known, f"{self.title} {' '.join(row.words)}")
        if not kind:
            return None
        found = of_row(kind, known, self.work.get("pass", part))
        return (kind, found) if found else None


@dataclass(frozen=True)
class Audited:
    """A document as it is understood: what every check looks at."""

    path: str
    form: str
    sheets: tuple[Sheet, ...]
    text: tuple[Line, ...]
    guide: Guide
    gpus: tuple[Device, ...] = ()
    warnings: tuple[str, ...] = ()

    def rows(self) -> Iterator[tuple[Sheet, Row]]:
        """Give every row with its table."""
        for sheet in self.sheets:
            for row in sheet.rows:
                yield sheet, row


@dataclass(frozen=True)
class Spoken:
    """What a document speaks of anywhere: its GPU if it is one, and all its number formats."""

    gpus: tuple[Device, ...]
    dtypes: tuple[str, ...]


def understood(document: Document, guide: Guide, gpu: str = "") -> Audited:
    """Return a document as it is understood; ``gpu`` is what it was measured on, unless it says."""
    on = gpus.found(gpu or guide.gpu) or _only_gpu(_all_text(document))
    named = {name for line in _all_text(document) for name in gpus.dtypes(line)}
    spoken = Spoken(on, tuple(name for name in gpus.DTYPES if name in named))
    sheets = []
    for place, grid in enumerate(document.grids, 1):
        own = _guide_of(grid, place, guide)
        if not own.skip:
            sheets.append(_sheet(grid, place, own, guide, spoken))
    warnings = tuple(_unused(document, guide))
    return Audited(document.path, document.form, tuple(sheets), document.text, guide, on, warnings)


def _unused(document: Document, guide: Guide) -> Iterator[str]:
    """Give what the mapping says that fits nothing in the document: a slip, most often."""
    for one in guide.tables:
        name = f"number {one.number}" if one.number else f"title {one.title!r}"
        grids = [g for i, g in enumerate(document.grids, 1) if _fits(one, g, i)]
        if not grids:
            yield f"The mapping's [[table]] with {name} fits no table."
            continue
        there = {plain(heading) for grid in grids for heading in grid.headings}
        strange = [key for key in one.columns if plain(key) not in there and key[:1] not in "#*"]
        yield from (f"The mapping's column {key!r} ({name}) is in no table." for key in strange)


def settings_in(text: str) -> dict[str, tuple[float, ...]]:
    """Return the settings that a text names, as in `batch=4, seq_len=2048` or `12 layers`."""
    found: dict[str, tuple[float, ...]] = {}
    for name, digits in _SETTING.findall(text):
        setting = headings.setting(name.strip(" -")) or headings.setting(name.split()[-1])
        if setting in quantities.SETTINGS and (values := _setting(digits)):
            found.setdefault(setting, values)
    for digits, name in _TIMES_GPU.findall(text):
        if gpus.named(name):
            found.setdefault("gpus", (float(digits),))
    for digits, noun in _COUNTED.findall(text):
        setting = _NAMES.get(noun.lower().rstrip("s"), _NAMES.get(noun.lower(), noun.lower()))
        if setting in quantities.SETTINGS and (values := _setting(digits)):
            found.setdefault(setting, values)
    return found


def _numbers(said: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in said.items() if isinstance(v, int | float)}


def _all_text(document: Document) -> list[str]:
    lines = [line.cells[0] for line in document.text]
    for grid in document.grids:
        lines += [*grid.title, *grid.headings, *grid.settings.values()]
        lines += [" ".join(row.cells) for row in grid.rows[:200]]
    return lines


def _only_gpu(lines: Sequence[str]) -> tuple[Device, ...]:
    """Return the GPU that some lines speak of, if it is one alone, as narrowly as any says."""
    families = {name for line in lines for name in gpus.named(line)}
    if len(families) != 1:
        return ()
    mentions = [found for line in lines if (found := gpus.found(line))]
    return min(mentions, key=len, default=())


def _guide_of(grid: Grid, place: int, guide: Guide) -> TableMapping:
    """Return what the mapping says of a table; what is said of it by number comes first."""
    fits = [one for one in guide.tables if _fits(one, grid, place)]
    fits.sort(key=lambda one: (one.number is None, not one.title))
    if not fits:
        return TableMapping()
    merged = fits[0]
    for one in fits[1:]:
        merged = replace(
            merged,
            settings={**one.settings, **merged.settings},
            gpu=merged.gpu or one.gpu,
            dtype=merged.dtype or one.dtype,
            work=merged.work or one.work,
            columns={**one.columns, **merged.columns},
            sums=(*merged.sums, *one.sums),
            skip=merged.skip or one.skip,
            sparse=merged.sparse or one.sparse,
            not_to_sum=merged.not_to_sum or one.not_to_sum,
        )
    return merged


def _fits(one: TableMapping, grid: Grid, place: int) -> bool:
    return (one.number is None or one.number == place) and (
        one.title.lower() in " / ".join(grid.title).lower()
    )


def _sheet(grid: Grid, place: int, own: TableMapping, guide: Guide, spoken: Spoken) -> Sheet:
    reading = _Reading(grid, own, guide, spoken)
    rows = tuple(reading.row(place, i, line) for i, line in enumerate(grid.rows, 1))
    return Sheet(
        number=place,
        title=" / ".join(grid.title),
        grid=grid,
        rows=rows,
        guide=own,
        work=own.work or guide.work,
    )


class _Reading:
    """One table as it is read: what holds for all its rows, and its columns."""

    def __init__(self, grid: Grid, own: TableMapping, guide: Guide, spoken: Spoken) -> None:
        self.grid = grid
        around = [*grid.title, *(line for line in grid.before if _CIRCUMSTANCE.match(line))]
        said = [f"{name}={value}" for name, value in grid.settings.items()]
        self.settings: dict[str, tuple[float, ...]] = {}
        for text in (*around, *said):
            self.settings |= settings_in(plain_line(text))
        for settings in (guide.settings, own.settings):
            self.settings |= {k: v for k, s in settings.items() if (v := _setting(s))}
        self.gpus = (
            gpus.found(own.gpu) or _only_gpu([*around, *grid.settings.values()]) or spoken.gpus
        )
        nearest = [*grid.title, *(line for line in reversed(grid.before) if line in around)]
        named = next((found for text in reversed(nearest) if (found := gpus.dtypes(text))), ())
        listed = {headings.setting(k): v for k, v in grid.settings.items()}
        self.dtypes = (
            _format(own.dtype or guide.dtype)
            or gpus.dtypes(listed.get("dtype", ""))
            or named
            or spoken.dtypes
        )
        self.sparse = own.sparse or any(_SPARSE.search(text) for text in around)
        self.meanings = [headings.understood(heading) for heading in grid.headings]
        self.guides = [_column_of(heading, i, own) for i, heading in enumerate(grid.headings)]
        self.zeros = [self._zeros(i) for i in range(len(grid.headings))]

    def row(self, table: int, number_: int, line: Line) -> Row:
        settings = dict(self.settings)
        words: list[str] = []
        formats: tuple[str, ...] = ()
        on: tuple[Device, ...] = ()
        for i, cell in enumerate(line.cells):
            setting = self._setting_of(i)
            if setting == "dtype":
                formats = gpus.dtypes(cell) or formats
            elif setting == "gpu":
                on = gpus.found(cell) or on
            elif setting:
                settings |= {setting: v} if (v := _setting(cell)) else {}
            elif cell and number(cell) is None:
                settings |= settings_in(plain(cell))
                on = on or gpus.found(plain(cell))
                formats = formats or gpus.dtypes(plain(cell))
            if cell and (setting or _is_word(cell)):
                words.append(_word(self.grid.headings[i], cell, setting))
        values = tuple(
            value
            for i, cell in enumerate(line.cells)
            if not self._setting_of(i) and not self.guides[i].ignore
            for value in self._values(i, cell, on, formats)
        )
        fractions = {i: f for i, cell in enumerate(line.cells) if (f := fraction(cell))}
        label = ", ".join(words)[:_LONGEST_LABEL]
        return Row(
            table, number_, line.line, label, values, settings, tuple(words), fractions, line.cells
        )

    def _setting_of(self, i: int) -> str:
        asked = self.guides[i].quantity
        if asked in {*quantities.SETTINGS, "dtype", "gpu"}:
            return asked
        return "" if asked else self.meanings[i].setting

    def _zeros(self, i: int) -> int:
        """Return how many zeros at the end of a column's whole numbers are rounding.

        It is what all of them end in: one that does not shows that none is rounded.
        """
        found = [one for row in self.grid.rows if (one := number(row.cells[i]))]
        whole = [one.trailing for one in found if one.ulp == 1 and not one.multiple]
        return min(whole, default=0) if len(whole) == len(found) or len(found) < _FEW else 0

    def _values(
        self, i: int, cell: str, on: tuple[Device, ...], formats: tuple[str, ...]
    ) -> Iterator[Value]:
        both = pair(cell)
        if both:
            for second, one in enumerate(both):
                if value := self._value(i, cell, one, on, formats):
                    yield replace(value, second=bool(second), series="" if second else value.series)
            return
        single = number(cell)
        if single and (value := self._value(i, cell, single, on, formats)):
            yield value

    def _value(
        self, i: int, cell: str, one: Printed, on: tuple[Device, ...], formats: tuple[str, ...]
    ) -> Value | None:
        meaning, guide = self.meanings[i], self.guides[i]
        quantity = guide.quantity or _quantity(meaning, one)
        if not quantity:
            return None
        scale = _scale(meaning, guide, one, quantity)
        exactly = quantity in {quantities.COUNT, quantities.PARAMETERS}
        tags = meaning.tags if guide.tags is None else guide.tags
        heading = plain(self.grid.headings[i])
        return Value(
            name=heading,
            column=i,
            text=plain(cell),
            quantity=quantity,
            span=one.span(
                scale or 1.0, 0 if exactly and one.relation == "=" else self._rounded(i, one)
            ),
            unit_known=scale is not None,
            relation=one.relation,
            percent=one.quantity == quantities.SHARE or (meaning.percent and not one.quantity),
            statistic=meaning.statistic if guide.statistic is None else guide.statistic,
            tags=tags,
            per_unit=meaning.per_unit,
            series=guide.series,
            alias=guide.name,
            formula=guide.formula,
            gpus=gpus.found(guide.gpu) or gpus.found(heading) or on or self.gpus,
            dtypes=_format(guide.dtype) or _loose(gpus.dtypes(heading) or formats or self.dtypes),
            sparse=self.sparse or _SPARSE.search(f"{heading} {cell}") is not None,
            part=guide.part or _part(tags),
        )

    def _rounded(self, i: int, one: Printed) -> int | None:
        return None if one.relation == "~" else self.zeros[i]


def plain_line(text: str) -> str:
    """Return a line of text without marks and not longer than a page."""
    return re.sub(r"\*\*|__|`", "", text[:2000])


def _column_of(heading: str, i: int, own: TableMapping) -> Column:
    """Return what the mapping says of a column, by its heading or its number (from 1)."""
    said = plain(heading)
    for key in (heading, said, f"#{i + 1}"):
        if key in own.columns:
            return own.columns[key]
    return own.columns.get("*", Column())


def _quantity(meaning: Meaning, one: Printed) -> str:
    """Return what a number is of: its own unit tells, and of shares and ratios the heading."""
    by_cell = one.quantity
    if by_cell == quantities.RATIO:
        return meaning.quantity if meaning.quantity == quantities.REDUCTION else quantities.SPEEDUP
    if by_cell == quantities.SHARE:
        keeps = meaning.quantity in {*_OF_PARTS, quantities.SPEEDUP}
        return meaning.quantity if keeps else quantities.SHARE
    return by_cell or meaning.quantity


def _scale(meaning: Meaning, guide: Column, one: Printed, quantity: str) -> float | None:
    if one.quantity:
        return one.scale
    if guide.unit:
        known = quantities.unit(guide.unit)
        return known[1] if known else None
    if meaning.percent:
        return 0.01
    if quantity == quantities.BYTES and one.multiple:
        return 1.0
    if meaning.scale is not None:
        return meaning.scale
    if quantity in _UNITLESS or (quantity in _OF_PARTS and abs(one.value) <= 1):
        return 1.0
    return None


def _setting(text: str) -> tuple[float, ...]:
    one = number(text)
    if one is None or one.quantity or one.value <= 0:
        return ()
    if one.multiple == "k":
        return (one.value * _BINARY_THOUSAND, one.value)
    return (one.value,)


def _is_word(cell: str) -> bool:
    """Tell whether a cell names its row: it is no number of any form."""
    return not is_absent(cell) and not (number(cell) or pair(cell) or fraction(cell))


def _word(heading: str, cell: str, setting: str) -> str:
    said = plain(cell)
    return f"{plain(heading)} {said}" if setting and heading else said


def _format(name: str) -> tuple[str, ...]:
    return (name,) if name else ()


def _loose(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Return formats with those that people mean by them, too: float32 may be run as tf32."""
    return (*formats, "tf32") if "fp32" in formats and "tf32" not in formats else formats


def _part(tags: frozenset[str]) -> str:
    if {"fwd", "bwd"} <= tags:
        return "both"
    return "backward" if "bwd" in tags else "forward"

"""What a difference of step times is made of, as a figure: from A, part by part, to B."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from tracelens import units
from tracelens.analyses.compare import explain
from tracelens.errors import NothingToShowError
from tracelens.figures.files import LOOK, as_file, empty
from tracelens.tables.compare import words

if TYPE_CHECKING:
    from tracelens.analyses.compare.side import Side

_MOST: Final = 14
_MORE, _LESS, _WHOLE = "#d2503c", "#1f9a72", "#6f7f8f"
_NOTHING: Final = "\u200b"  # has no width
_MARGINS: Final = 220  # pixels around the bars
_BAR: Final = 34


def draw(a: Side, b: Side, form: str) -> bytes:
    """Return the figure as a file: `html` (complete, with all it needs), `svg` or `png`.

    Raises:
        UsageError: plotly, kaleido or the browser that kaleido draws with is not installed.
        NothingToShowError: the steps of one of the runs are not known.
    """
    if not (a.has_time and b.has_time):
        raise NothingToShowError("There are no steps to draw: one of the runs is memory alone.")
    labels, lengths = bars(a, b)
    figure = _figure(labels, lengths, words.verdict(a, b))
    return as_file(figure, form, height=_MARGINS + _BAR * len(labels))


def bars(a: Side, b: Side) -> tuple[list[str], list[float]]:
    """Return the bars from A to B: labels, and nanoseconds, the first and last from zero.

    Of many parts the smallest are one: the bars between still add up to the difference.
    """
    rows = [row for row in explain.explained(a, b).to_dicts() if row["difference_ns"]]
    kept, rest = rows[:_MOST], rows[_MOST:]
    labels = [words.part(row) for row in kept]
    lengths = [float(row["difference_ns"]) for row in kept]
    if rest:
        labels.append(f"{len(rest)} more")
        lengths.append(float(sum(row["difference_ns"] for row in rest)))
    whole_a, whole_b = (float(explain.whole(side)) for side in (a, b))
    return [f"A: {a.label}", *labels, f"B: {b.label}"], [whole_a, *lengths, whole_b]


def _figure(labels: list[str], lengths: list[float], title: str) -> Any:
    figure = empty()
    factor, unit = next(
        (s for s in reversed(units.LADDERS["ns"]) if s[0] <= max(lengths)), units.LADDERS["ns"][0]
    )
    texts = [
        units.time(lengths[0]),
        *units.column("more_ns", lengths[1:-1]),
        units.time(lengths[-1]),
    ]
    figure.add_waterfall(
        # Labels that are the same must not fall into one.
        y=[f"{escape(label)}{_NOTHING * i}" for i, label in enumerate(labels)],
        x=[length / factor for length in lengths],
        measure=["absolute", *["relative"] * (len(labels) - 2), "total"],
        orientation="h",
        text=texts,
        textposition="outside",
        cliponaxis=False,
        increasing={"marker": {"color": _MORE}},
        decreasing={"marker": {"color": _LESS}},
        totals={"marker": {"color": _WHOLE}},
        connector={"line": {"width": 1, "color": "#b0b7bd"}},
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    figure.update_layout(
        **LOOK, title={"text": escape(title), "font": {"size": 16}}, showlegend=False
    )
    least = min(lengths[0], lengths[-1])
    spread = sum(abs(length) for length in lengths[1:-1])
    low = max(0.0, least - 1.5 * spread) / factor
    high = (max(lengths[0], lengths[-1]) + spread) / factor
    note = "time of a step as recorded" + (" (the axis does not begin at zero)" if low else "")
    figure.update_xaxes(ticksuffix=unit, range=[low, high], title=note)
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure

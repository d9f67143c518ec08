"""Drawings for LaTeX: our SVG as a TikZ picture, which a paper's author can still edit.

Of SVG it knows what drawings of ours are made of: rectangles, lines, circles, texts, and paths of
straight lines in absolute coordinates. A rule of style is one class or element, perhaps after the
class of the drawing; what comes later wins, and attributes yield to rules, as in CSS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from tracelens.render.latex import escape
from tracelens.reports.drawing import in_the_light

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracelens.reports import Figure

    Place = tuple[float, float]

Style = dict[str, str]

WIDTH_CM: Final = 16.4
"""How wide a drawing is; `\\resizebox{\\columnwidth}{!}{...}` makes it fit elsewhere."""

_RULE: Final = re.compile(r"([^{}]+)\{([^{}]*)\}")
_ORDER: Final = re.compile(r"([MLHVZ])([^MLHVZ]*)")
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_HEX: Final = re.compile(r"#([0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE)
_STYLED: Final = (
    "fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity",
    "opacity", "font-size", "font", "font-weight", "text-anchor",
)  # fmt: skip
_ANCHORS: Final = {"start": "base west", "middle": "base", "end": "base east"}
_OPACITY: Final = {
    "opacity": "opacity", "fill-opacity": "fill opacity", "stroke-opacity": "draw opacity",
}  # fmt: skip
_TURNED: Final = re.compile(r"rotate\((-?\d+(?:\.\d+)?)")
_FONT: Final = 13.0
_POINTS_OF_CM: Final = 28.45


@dataclass(frozen=True)
class _Rule:
    """What is said of elements of a tag or class (``of``) inside of a class (empty: anywhere)."""

    inside: str
    of: str
    style: Style


@dataclass(frozen=True)
class _Pen:
    """What an element finds: the rules, the style and classes around it, and points of a unit."""

    rules: Sequence[_Rule]
    points: float
    style: Style = field(default_factory=dict)
    inside: frozenset[str] = frozenset()

    def at(self, element: ET.Element) -> _Pen:
        """Return the pen for an element; classes count for more than tags."""
        classes = {f".{name}" for name in element.get("class", "").split()}
        inside = self.inside | classes | {""}
        style = {name: value for name, value in self.style.items() if name != "opacity"}
        style |= {name: element.attrib[name] for name in _STYLED if name in element.attrib}
        for names in ({_tag(element)}, classes):
            for rule in self.rules:
                if rule.of in names and rule.inside in inside:
                    style |= rule.style
        style |= _declared(element.get("style", ""))
        return replace(self, style=style, inside=inside)


def picture(figure: Figure) -> str:
    """Return a figure as a `tikzpicture`."""
    root = ET.fromstring(in_the_light(figure.svg))  # noqa: S314 (our own drawing)
    _, _, width, height = map(float, root.get("viewBox", "0 0 1000 1000").split())
    unit = WIDTH_CM / width
    pen = _Pen(_rules(in_the_light(figure.style)), unit * _POINTS_OF_CM)
    return "\n".join(
        [
            rf"\begin{{tikzpicture}}[x={unit:.5f}cm,y=-{unit:.5f}cm,line width=0.4pt]",
            rf"\useasboundingbox (0,0) rectangle ({width:g},{height:g});",
            *_drawn(root, pen),
            r"\end{tikzpicture}",
        ]
    )


def _drawn(element: ET.Element, around: _Pen) -> Iterator[str]:
    """Give the orders for an element and what is in it."""
    pen = around.at(element)
    tag = _tag(element)
    if tag in ("svg", "g"):
        for child in element:
            yield from _drawn(child, pen)
    elif tag == "text":
        yield _text(element, pen)
    elif tag in _SHAPES and (options := _painted(pen, tag)):
        yield from (rf"\path[{options}] {path};" for path in _SHAPES[tag](element))


def _rect(element: ET.Element) -> Iterator[str]:
    x, y, width, height = (_of(element, name) for name in ("x", "y", "width", "height"))
    yield f"({x:g},{y:g}) rectangle ({x + width:g},{y + height:g})"


def _line(element: ET.Element) -> Iterator[str]:
    begin, end = ((_of(element, f"x{i}"), _of(element, f"y{i}")) for i in (1, 2))
    yield _joined([begin, end])


def _circle(element: ET.Element) -> Iterator[str]:
    x, y, radius = (_of(element, name) for name in ("cx", "cy", "r"))
    yield f"({x:g},{y:g}) ellipse [x radius={radius:g},y radius={radius:g}]"


def _poly(element: ET.Element) -> Iterator[str]:
    numbers = _numbers(element.get("points", ""))
    places = list(zip(numbers[::2], numbers[1::2], strict=False))
    if len(places) > 1:
        yield _joined(places) + (" -- cycle" if _tag(element) == "polygon" else "")


def _path(element: ET.Element) -> Iterator[str]:
    """Give each part of a path that the pen begins anew."""
    places: list[Place] = []
    for order, text in _ORDER.findall(element.get("d", "")):
        numbers = _numbers(text)
        if order == "M" and len(places) > 1:
            yield _joined(places)
        if order == "M":
            places = []
        if order == "Z":
            yield f"{_joined(places)} -- cycle"
            places = []
        elif order == "H":
            places += [(x, places[-1][1]) for x in numbers]
        elif order == "V":
            places += [(places[-1][0], y) for y in numbers]
        else:
            places += zip(numbers[::2], numbers[1::2], strict=False)
    if len(places) > 1:
        yield _joined(places)


_SHAPES: Final = {
    "rect": _rect,
    "line": _line,
    "circle": _circle,
    "polyline": _poly,
    "polygon": _poly,
    "path": _path,
}


def _text(element: ET.Element, pen: _Pen) -> str:
    """Return a text; its place is on its base line."""
    size = _size(pen.style) * pen.points
    bold = r"\bfseries" if pen.style.get("font-weight") in ("600", "700", "bold") else ""
    options = [
        "inner sep=0",
        f"anchor={_ANCHORS.get(pen.style.get('text-anchor', 'start'), 'base west')}",
        rf"font=\fontsize{{{size:.1f}}}{{{size * 1.2:.1f}}}\selectfont\sffamily{bold}",
        f"text={_colour(pen.style.get('fill', '')) or 'black'}",
    ]
    if turned := _TURNED.match(element.get("transform", "")):
        options.append(f"rotate={-float(turned[1]):g}")
    said = escape("".join(element.itertext()))
    return (
        rf"\node[{','.join(options)}] at ({_of(element, 'x'):g},{_of(element, 'y'):g}) {{{said}}};"
    )


def _painted(pen: _Pen, tag: str) -> str:
    """Return how a shape is filled and drawn; nothing if it is not seen."""
    style = pen.style
    fill = "" if tag == "line" else _colour(style.get("fill", "#000"))
    stroke = _colour(style.get("stroke", ""))
    options = [f"fill={fill}"] if fill else []
    if stroke:
        width = _numbers(style.get("stroke-width", "1"))[0] * pen.points
        options += [f"draw={stroke}", f"line width={width:.2f}pt"]
    if stroke and (dashes := _numbers(style.get("stroke-dasharray", ""))):
        on, off = dashes[0] * pen.points, dashes[-1] * pen.points
        options.append(f"dash pattern=on {on:.2f}pt off {off:.2f}pt")
    if options:
        options += [f"{name}={style[key]}" for key, name in _OPACITY.items() if key in style]
    return ",".join(options)


def _joined(places: Sequence[Place]) -> str:
    return " -- ".join(f"({x:g},{y:g})" for x, y in _thinned(places))


def _thinned(places: Sequence[Place]) -> list[Place]:
    """Return a line with at most four places in one unit: where it comes in, turns and goes out.

    TeX's memory holds some ten thousand, and no more can be seen.
    """
    thin: list[Place] = []
    column: list[Place] = []
    for place in (*places, None):
        if place is not None and (not column or int(place[0]) == int(column[0][0])):
            column.append(place)
            continue
        low, high = min(column, key=_height), max(column, key=_height)
        kept = {0, len(column) - 1, column.index(low), column.index(high)}
        thin += [column[i] for i in sorted(kept)]
        column = [] if place is None else [place]
    return thin


def _numbers(text: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(text)]


def _height(place: Place) -> float:
    return place[1]


def _of(element: ET.Element, name: str) -> float:
    return float(element.get(name, "0").removesuffix("px"))


def _size(style: Style) -> float:
    """Return the size of letters, in units of the drawing."""
    for name in ("font-size", "font"):
        found = re.search(r"(\d+(?:\.\d+)?)px", style.get(name, ""))
        if found:
            return float(found[1])
    return _FONT


def _colour(text: str) -> str:
    """Return a colour as TikZ knows it; nothing for `none`."""
    found = _HEX.fullmatch(text.strip())
    if found is None:
        return ""
    digits = found[1] if len(found[1]) == 6 else "".join(2 * digit for digit in found[1])
    red, green, blue = (int(digits[i : i + 2], 16) for i in (0, 2, 4))
    return f"{{rgb,255:red,{red};green,{green};blue,{blue}}}"


def _rules(style: str) -> list[_Rule]:
    found = []
    for selectors, body in _RULE.findall(style):
        for selector in selectors.split(","):
            *around, last = selector.split()
            found.append(_Rule(around[-1] if around else "", last, _declared(body)))
    return found


def _declared(text: str) -> Style:
    pairs = (declaration.partition(":") for declaration in text.split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip() in _STYLED}


def _tag(element: ET.Element) -> str:
    """Return the name of an element without its namespace."""
    return element.tag.rpartition("}")[2]

"""Template arguments of a C++ name, as a tree."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = re.compile(r"[<>(){},]|[^<>(){},]+")
_CALL_OPERATOR = re.compile(r"::operator ?\(\)(?: ?\(\))?|->")


class Argument:
    """A template argument `name<args>::{lambda(types)#number}`, its parameter lists left out."""

    __slots__ = ("args", "name", "number", "types")

    def __init__(self) -> None:
        """Begin an argument of which nothing is known yet."""
        self.name = ""
        self.args: list[Argument] = []
        self.types = ""
        self.number = ""


def arguments(text: str) -> list[Argument]:
    """Parse a comma-separated list of template arguments.

    Brackets that do not match are taken as they come: any text can be parsed.
    """
    root = Argument()
    root.args.append(Argument())
    parents = [root]
    for piece in _pieces(_CALL_OPERATOR.sub("", text)):
        now = parents[-1].args[-1]
        if piece == "<":
            now.args.append(Argument())
            parents.append(now)
        elif piece == ">":
            del parents[max(1, len(parents) - 1) :]
        elif piece == ",":
            parents[-1].args.append(Argument())
        elif piece.startswith("{"):
            now.name = now.name.removesuffix("::")
            now.types, _, now.number = piece[1:].partition("#")
        else:
            now.name += piece
    return root.args


def _pieces(text: str) -> Iterator[str]:
    """Yield names and the signs between them, and no parameter lists.

    A lambda is one piece, `{types#number`.
    """
    depth = 0
    within = ""
    for piece in _PIECE.findall(text):
        if piece in "()":
            depth = max(0, depth + (1 if piece == "(" else -1))
        elif piece == "{" and not depth:
            within = piece
        elif piece == "}" and not depth:
            yield within or "{"
            within = ""
        elif within:
            within += piece.removeprefix("lambda")
        elif not depth:
            yield piece

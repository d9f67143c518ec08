"""Template arguments of a C++ name, as a tree."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"[<>(){},]|[^<>(){},]+")
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
    """Parse a comma-separated list of template arguments; unbalanced brackets are closed at the end."""
    root = Argument()
    root.args.append(Argument())
    parents = [root]
    round_depth = 0
    in_lambda = False
    for token in _TOKEN.findall(_CALL_OPERATOR.sub("", text)):
        now = parents[-1].args[-1]
        if token == "(":
            round_depth += 1
        elif token == ")":
            round_depth = max(0, round_depth - 1)
        elif round_depth:
            if in_lambda and round_depth == 1:
                now.types += token
        elif token in "{}":
            in_lambda = token == "{"
            if in_lambda:
                now.name = now.name.removesuffix("::")
                now.types = now.number = ""
        elif in_lambda:
            now.number += token.strip("lambd# ")
        elif token == "<":
            now.args.append(Argument())
            parents.append(now)
        elif token == ">":
            if len(parents) > 1:
                parents.pop()
        elif token == ",":
            parents[-1].args.append(Argument())
        else:
            now.name += token
    return root.args

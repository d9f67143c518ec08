"""Normalise the spellings of a GPU kernel's name (Kineto, nsys, mangled) into its parts."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

LIMIT = 4096
"""Characters of a name that are read; what decides stands at its beginning."""

_BOUND = 2 * LIMIT
"""Characters taken before casts and anonymous namespaces are dropped, which shortens the name."""

_TRAILER = re.compile(r"(?:\.kd| ?\[clone [^\]]*\])+$")
_ANONYMOUS = re.compile(r"(?:\(anonymous namespace\)|<unnamed>|_GLOBAL__N_\w{0,99})::")
_CAST = re.compile(r"\((?:(?:unsigned|signed) )?(?:int|long|char|short|long long)\)(?=-?\d)")
_BOOL = re.compile(r"\(bool\)([01])")
_SUFFIX = re.compile(r"\b(\d+)u?l?l?\b")
_NSYS_LAMBDA = re.compile(r"\[lambda\(([^\[\]]*)\) \(instance (\d+)\)\]")
_POINTER = re.compile(r" {1,3}(?=[*&>)\]])")
_DELIMITER = re.compile(r"->|operator *(?:\(\)|[<>=!+*/&|-]{1,3})|[<>(){}\[\] ]")
_MANGLED = re.compile(r"S[0-9A-Z]*_|T\d*_|DF16[b_]|L[a-z]n?\d+E|E\d+E|Ul([^_]{0,80}?)E\d*_|(\d+)")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_LETTER_TYPES = {
    "f": "float", "d": "double", "i": "int", "l": "long", "b": "bool", "h": "unsigned char",
    "a": "signed char", "s": "short", "j": "unsigned int", "m": "unsigned long",
}  # fmt: skip


class Parts(NamedTuple):
    """A kernel's name taken apart: `scope::head<inner>(…)`."""

    scope: str
    """Namespaces and enclosing classes, joined by `::`."""
    head: str
    """The function's own name."""
    inner: str
    """The text of its template arguments."""
    params: str
    """The text of its parameter list."""


@lru_cache(maxsize=8192)
def parts(name: str) -> Parts:
    """Take a name in any of its spellings apart."""
    text = name[:_BOUND].strip()
    if text.startswith(("_Z", "__Z")):
        return _mangled_parts(text[:LIMIT])
    return _demangled_parts(canonical(text))


def canonical(text: str) -> str:
    """One spelling for what Kineto and nsys spell differently.

    Anonymous namespaces, `.kd`, casts of literals and their suffixes go; lambdas are written as
    Kineto does.
    """
    text = _TRAILER.sub("", text[:_BOUND])
    if "::" in text:
        text = _ANONYMOUS.sub("", text)
    if "(" in text or "<" in text:
        text = _NSYS_LAMBDA.sub(r"{lambda(\1)#\2}", text)
        text = _CAST.sub("", text)
        text = _BOOL.sub(lambda found: "true" if found[1] == "1" else "false", text)
        text = _SUFFIX.sub(r"\1", text)
        text = _POINTER.sub("", text)
    return text[:LIMIT]


def _demangled_parts(text: str) -> Parts:
    """Read up to the parameter list, and forget the return type: all before the last free blank."""
    depth = 0
    free: list[str] = []  # the pieces of the qualified name that lie outside every bracket
    inner = ""
    start = opened = 0
    end = len(text)
    for found in _DELIMITER.finditer(text):
        sign, at = found[0], found.start()
        if len(sign) > 1:
            continue
        if sign in "<([{":
            if depth == 0:
                free.append(text[start:at])
                if sign == "(":
                    end = start = at
                    break
                opened = at + 1
            depth += 1
        elif sign in ">)]}":
            depth = max(0, depth - 1)
            if depth == 0:
                inner, start = text[opened:at] if opened else inner, found.end()
                opened = 0
        elif depth == 0:
            free, inner, start = [], "", found.end()
    else:
        free.append("" if depth else text[start:end])
        inner = text[opened:] if opened else inner
    scope, _, head = "".join(free).rpartition("::")
    return Parts(scope, head, inner, text[end:])


def _mangled_parts(text: str) -> Parts:
    """Read the length-prefixed identifiers of an Itanium-mangled name."""
    path, inner = identifiers(text)
    return Parts("::".join(path[:-1]), path[-1] if path else text, ", ".join(inner), "")


def identifiers(text: str) -> tuple[list[str], list[str]]:
    """Return the path of a mangled function, and the identifiers within its template arguments.

    The parameter types of lambdas (`EUlffE_`) are kept among the latter as `{lambda(float)#1}`.
    """
    path: list[str] = []
    inner: list[str] = []
    at, into = 0, path
    while found := _MANGLED.search(text, at):
        if path and "I" in text[at : found.start()]:
            into = inner
        at = found.end()
        if found[1] is not None:
            inner.append(f"{{lambda({_LETTER_TYPES.get(found[1][:1], '')})#1}}")
        if found[2] is None:
            into = inner if path else path
            continue
        word = text[at : at + min(int(found[2][:6]), LIMIT)]
        if _IDENTIFIER.fullmatch(word):
            at += len(word)
            if not word.startswith("_GLOBAL__N_"):
                into.append(word)
    return path, inner

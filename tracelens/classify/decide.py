"""Decide a kernel's family from the parts of its name, and from the operator that launched it."""

from __future__ import annotations

import re
from functools import cache

from tracelens.classify import rules
from tracelens.classify.normalise import Parts, parts
from tracelens.classify.words import Vocabulary, words

_COMMAND = re.compile(r"\[?(?:cuda |hip )?(memcpy|memset)\b|(?:cuda|hip) ?graph", re.IGNORECASE)
_FUNCTOR_END = re.compile(r", ?(?:std::array<char|at::detail::Array<char|std::__\w+::array<char)")
_READ = 800
"""Characters of template arguments that are read."""


def decide(name: str, op: str | None) -> str:
    """Return the family of a kernel, `other` where neither its name nor its operator tell."""
    if command := _COMMAND.match(name[:40].strip()):
        return command[1].lower() if command[1] else "cuda_graph"
    part = parts(name)
    head = words(part.head)
    return (
        _explicit().find(head)
        or _wrapped(part, head, op)
        or _explicit().find(words(part.scope))
        or ("gemm" if "cublas" in part.inner or "cublas" in part.params else None)
        or _plain().find(head)
        or by_operator(op)
        or _libraries().find(words(f"{part.scope} {part.head} {part.params[:_READ]}"))
        or _by_arguments(part)
        or _homes().find(words(part.scope))
        or "other"
    )


def by_operator(op: str | None) -> str | None:
    """Return what kernels the operator launches, where its name tells."""
    if not op:
        return None
    text = words(op[:_READ].rpartition("::")[2])
    return (
        _operators().find(text)
        or _explicit().find(text)
        or _explicit().find(words(op[:_READ]))
        or _plain().find(text)
    )


def _wrapped(part: Parts, head: tuple[str, ...], op: str | None) -> str | None:
    """Look into the template arguments of a function that does what they say."""
    wrapper = _wrappers().find(head)
    if wrapper == "elementwise":
        functor = words(_FUNCTOR_END.split(part.inner[:_READ], maxsplit=1)[0])
        named = [word for word in functor if not word.isdigit()]
        return _functors().find(functor) or (None if named else by_operator(op)) or "elementwise"
    return _by_arguments(part) if wrapper else None


def _by_arguments(part: Parts) -> str | None:
    """Judge by the template arguments, where the function's own name says nothing."""
    inner = words(part.inner[:_READ])
    return _explicit().find(inner) or _plain().find(inner)


@cache
def _explicit() -> Vocabulary:
    return Vocabulary(rules.EXPLICIT, rules.STEMS)


@cache
def _plain() -> Vocabulary:
    return Vocabulary(rules.PLAIN, rules.STEMS)


@cache
def _libraries() -> Vocabulary:
    return Vocabulary(rules.LIBRARIES)


@cache
def _homes() -> Vocabulary:
    return Vocabulary(rules.HOMES)


@cache
def _functors() -> Vocabulary:
    return Vocabulary(rules.FUNCTORS)


@cache
def _wrappers() -> Vocabulary:
    return Vocabulary(rules.WRAPPERS)


@cache
def _operators() -> Vocabulary:
    return Vocabulary(
        (family, ",".join(f"^ {op} $" for op in ops.split(","))) for family, ops in rules.OPS
    )

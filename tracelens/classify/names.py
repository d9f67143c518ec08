"""Shorten kernel names for tables, keeping what tells one kernel from another."""

from __future__ import annotations

import re
from binascii import crc32
from itertools import groupby

from tracelens.classify.arguments import Argument, arguments
from tracelens.classify.normalise import Parts, parts
from tracelens.classify.words import words

WIDTH = 60
"""Characters of a short name at most."""

_DEEPEST = 8
_SPECIAL = re.compile(r"[<(]|::|\.kd$|^_?_Z| \[clone ")
_QUALIFIER = re.compile(r"(?:\w+::)+|\bconst\b|\bvoid (?=\w)|[&*]")
_AFFIX = re.compile(
    r"^CUDAFunctor_?|(?:_kernel)?_cuda(?:_kernel)?$|_kernel(?:_impl)?$|(?:CUDA)?Kernel(?:Impl)?$"
    r"|_?[Ff]unctor$|Ops$"
)
_NOISE = re.compile(
    r"(?:\w*OffsetCalculator|\w+With(?:out)?Cast|\w*ListMetadata|TensorIterator\w*|[Aa]rray)$"
)
_FIRST_SAYS = re.compile(r"(?:enable_\w+|gpu_\w+)$")
_SECOND_SAYS = re.compile(r"(?:ReduceOp|func_wrapper_t)$")
_WRAPPER = re.compile(r"(?:Kernel2?|device_kernel|kentry)$")
_TELLING = re.compile(r"[A-Z_{]")
_TYPES = {
    "BFloat16": "bf16", "__nv_bfloat16": "bf16", "__hip_bfloat16": "bf16", "bfloat16_t": "bf16",
    "Half": "half", "__half": "half", "half_t": "half", "long long": "long",
}  # fmt: skip


def shorten(name: str) -> str:
    """Return the short name that `tracelens.classify.short_name` describes."""
    text = " ".join(name[:8192].split())
    if not _SPECIAL.search(text):
        return _cut(text)
    part = parts(text)
    if not part.head.strip():
        return _cut(text)
    if text.startswith(("_Z", "__Z")):
        return _mangled(part, text)
    return _cut(_function(part))


def _mangled(part: Parts, whole: str) -> str:
    """Write a mangled kernel, of whose template arguments only the identifiers are known."""
    if not part.inner:
        return _cut(_function(part))
    telling = ", ".join(word for word in part.inner.split(", ") if _TELLING.search(word))
    return _marked(_function(part._replace(inner=telling)), whole)


def _function(part: Parts) -> str:
    """Write a kernel: its name and its template arguments."""
    # Nsight Compute writes at:: for at::native::.
    native = "at::native" in part.scope or "at::native" in part.inner or part.scope == "at"
    args = arguments(part.inner)
    if _WRAPPER.match(part.head) and (says := next((arg for arg in args if not _plain(arg)), None)):
        return _argument(says, native=native, depth=0)
    head = _AFFIX.sub("", part.head) or part.head if native else part.head
    if len(words(head)) == 1 and part.scope and not native:
        head = f"{part.scope.rpartition('::')[2]}::{head}"
    texts = [text for arg in args if (text := _argument(arg, native=native, depth=0))]
    if native:
        texts = _once(texts)
    return f"{head}<{', '.join(_runs(texts))}>" if texts else head


def _once(texts: list[str]) -> list[str]:
    """Leave out types that an earlier argument has shown: `Binary<float>, plus<float>, float`."""
    kept: list[str] = []
    shown: set[str] = set()
    for text in texts:
        name, _, types = text.removesuffix(">").partition("<")
        if name not in shown:
            kept.append(name if types and set(types.split(",")) <= shown else text)
        shown.update(types.split(",") if types else ())
    return kept


def _runs(texts: list[str]) -> list[str]:
    """Write three and more equal neighbours as one: `float*3`."""
    runs = ((text, len(list(run))) for text, run in groupby(texts))
    return [
        each
        for text, count in runs
        for each in ([f"{text}*{count}"] if count > 2 else [text] * count)
    ]


def _argument(arg: Argument, *, native: bool, depth: int) -> str:
    """Write one template argument, or what it wraps; nothing where it is bookkeeping."""
    name = _QUALIFIER.sub("", arg.name).strip()
    if depth > _DEEPEST or (native and _NOISE.match(name)):
        return ""
    if _FIRST_SAYS.match(name) and arg.args:
        says = _argument(arg.args[0], native=native, depth=depth)
        return f"{says} cast" if name == "gpu_kernel_impl" else says
    if _SECOND_SAYS.match(name) and len(arg.args) > 1:
        return _argument(arg.args[1], native=native, depth=depth)
    name = (_AFFIX.sub("", name) or name) if native else _TYPES.get(name, name)
    name = _TYPES.get(name, name)
    texts = _nested(arg, native=native, depth=depth + 1) or (_lambda_types(arg) if native else [])
    number = f"#{arg.number}" if arg.number not in {"", "1"} else ""
    return f"{name}<{','.join(texts)}>{number}" if texts else name + number


def _nested(arg: Argument, *, native: bool, depth: int) -> list[str]:
    """Write the arguments of an argument; PyTorch repeats types there, which are written once."""
    texts: list[str] = []
    for each in arg.args:
        text = _argument(each, native=native, depth=depth)
        name, _, types = text.partition("<")
        if native and types and set(types.removesuffix(">").split(",")) <= set(texts):
            text = name
        if text and not (native and text in texts):
            texts.append(text)
    return texts


def _lambda_types(arg: Argument) -> list[str]:
    """Write the types a functor's lambda takes, each once."""
    types = (_QUALIFIER.sub("", each).strip() for each in arg.types.split(","))
    return list(dict.fromkeys(_TYPES.get(each, each) for each in types if each))


def _plain(arg: Argument) -> bool:
    """Tell whether the argument is a literal."""
    return not arg.args and (arg.name.strip().isdigit() or arg.name.strip() in {"true", "false"})


def _cut(text: str) -> str:
    """Cut to the width, and mark what was cut."""
    return text if len(text) <= WIDTH else _marked(text, text)


def _marked(text: str, whole: str) -> str:
    """Cut to the width less a mark of the whole, and append it."""
    shown = text[: WIDTH - 5].rstrip(" ,")
    return f"{shown}~{crc32(whole.encode(errors='replace')) & 0xFFFF:04x}"

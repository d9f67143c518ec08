"""Call stacks: the line of user code in each, and what they tell of the phase of training.

Frames of PyTorch, of other installed packages, of Python's own library and of C++ are skipped to
find the line that the user wrote; it is the innermost one that is left.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import polars as pl

from tracelens.trace.schema import FRAMES, STACKS

if TYPE_CHECKING:
    from tracelens.trace.model import Trace

_INSTALLED: Final = re.compile(
    r"(?:^|/)(?:site-packages|dist-packages)/|(?:^|/)lib(?:64)?/python[0-9.]+/|^<(?:frozen|__array)"
    r"|^torch/|/torch/(?:_\w+(?:\.py$|/)|functional\.py$|(?:amp|ao|autograd|compiler|cuda|distributed"
    r"|fx|func|jit|nn|onnx|optim|profiler|sparse|utils)/)|/torchinductor_\w+/"
)
_PYTHON: Final = re.compile(r"\.pyw?$|^<(?:stdin|string|ipython-input.*|eval.*)>$|^<ipython")
# torch.profiler writes files relative to the folders that Python imports from.
_STANDARD: Final = re.compile(
    r"^(?:abc|asyncio/.*|collections/.*|concurrent/.*|contextlib|copy|dataclasses|enum|functools"
    r"|importlib/.*|inspect|logging/.*|multiprocessing/.*|queue|re/.*|runpy|selectors|threading"
    r"|typing|warnings|weakref|_weakrefset)(?:\.py)?$"
)
_ENGINE: Final = ("torch::autograd::Engine", "autograd::engine::evaluate_function")
_NODE: Final = re.compile(r"(?:^|::|: )(\w+Backward\w*)")
_OP: Final = re.compile(r"^at::_ops::(\w+)::call")
_PLUMBING: Final = re.compile(
    r"^(?:\?\?|_*Py|_PyEval|c10::|torch::(?:unwind|CapturedTraceback|cuda)|std::|at::detail::empty"
    r"|__libc|_start|clone)"
)
_CHECKPOINT: Final = frozenset({"backward", "recompute_fn", "unpack_hook", "unpack"})
_PACKAGE: Final = re.compile(r".*(?:site-packages|dist-packages)/")

BACKWARD, FORWARD, OPTIMIZER = "backward", "forward", "optimizer"
_FRAMES_SCHEMA: Final = {
    "frame_id": pl.UInt32,
    "place": pl.String,
    "file": pl.String,
    "mine": pl.Boolean,
    "python": pl.Boolean,
    "node": pl.Boolean,
    "engine": pl.Boolean,
    "says": pl.String,
}


def call_stacks(trace: Trace) -> pl.DataFrame:
    """Return one row per distinct call stack.

    Columns: stack_id; `site`, the innermost line of user code as ``folder/file.py:12 function``,
    or else the innermost Python frame, or else the function of autograd that ran, or else the
    innermost PyTorch op; `via`, the innermost Python frame where it is another one; `file`, that
    of the site; `mine`, whether the site is user code; `library_frames`, how many
    frames lie inside of it; `python`, whether
    the stack has Python frames; and `says`, the phase that it tells of, or null: backward where
    autograd's engine runs, else what the innermost telling frame is of (a function named forward,
    a file of torch.optim, a call of backward).
    """
    stacks, frames = trace.get("stacks"), trace.get("frames")
    rows = STACKS.empty() if stacks is None else stacks.collect()
    known = _classified(FRAMES.empty() if frames is None else frames.collect())
    joined = rows.sort("stack_id", "depth").join(
        known, on="frame_id", how="left", maintain_order="left"
    )
    mine, python = pl.col("mine").fill_null(value=False), pl.col("python").fill_null(value=False)
    node, named = pl.col("node").fill_null(value=False), pl.col("place").is_not_null()
    best = [mine, python, node, named]
    found = joined.group_by("stack_id", maintain_order=True).agg(
        innermost=pl.col("place").filter(python).first(),
        site=pl.coalesce(pl.col("place").filter(fits).first() for fits in best),
        file=pl.coalesce(pl.col("file").filter(fits).first() for fits in best),
        mine=mine.any(),
        library_frames=pl.when(mine.any()).then(mine.arg_max()).otherwise(pl.len()).cast(pl.Int64),
        python=python.any(),
        says=pl.when(pl.col("engine").fill_null(value=False).any())
        .then(pl.lit(BACKWARD))
        .otherwise(pl.col("says").drop_nulls().first()),
    )
    elsewhere = pl.col("innermost") != pl.col("site")
    name = pl.col("innermost").str.replace(r"^.*/", "")
    return found.with_columns(via=pl.when(elsewhere).then(name)).drop("innermost")


def texts(trace: Trace, stack_ids: pl.Series) -> pl.DataFrame:
    """Return stack_id and `stack`: the frames as ``file:line function``, the innermost first."""
    stacks, frames = trace.get("stacks"), trace.get("frames")
    rows = STACKS.empty().lazy() if stacks is None else stacks
    known = FRAMES.empty().lazy() if frames is None else frames
    line = pl.when(pl.col("line") > 0).then(pl.format(":{}", "line")).otherwise(pl.lit(""))
    place = pl.concat_str(pl.col("file").fill_null(""), line)
    text = pl.format("{} {}", place, pl.col("function").fill_null("")).str.strip_chars()
    return (
        rows.filter(pl.col("stack_id").is_in(stack_ids.implode()))
        .join(known.select("frame_id", text=text), on="frame_id", how="left")
        .sort("stack_id", "depth")
        .group_by("stack_id", maintain_order=True)
        .agg(stack=pl.col("text").fill_null("?"))
        .collect()
    )


def _classified(frames: pl.DataFrame) -> pl.DataFrame:
    """Return one row per frame: where it is, whose code it is, and the phase that it tells of."""
    rows = [
        (frame_id, *_judged(function or "", file or "", line))
        for frame_id, function, file, line in frames.select(
            "frame_id", "function", "file", "line"
        ).iter_rows()
    ]
    return pl.DataFrame(rows, schema=_FRAMES_SCHEMA, orient="row")


def _judged(
    function: str, file: str, line: int | None
) -> tuple[str | None, str, bool, bool, bool, bool, str | None]:
    path = file.replace("\\", "/")
    python = bool(_PYTHON.search(path))
    installed = bool(_INSTALLED.search(path) or _STANDARD.search(path))
    node = None if python else _NODE.search(function)
    return (
        f"{_short(path)}:{line} {function}" if python else _native(function, node),
        _PACKAGE.sub("", path) if python else "(C++)",
        python and not installed,
        python,
        node is not None,
        any(engine in function for engine in _ENGINE) or _recomputes(function, path),
        _says(function, path) if python else None,
    )


def _recomputes(function: str, path: str) -> bool:
    """Tell whether a frame runs a forward again for a backward (activation checkpointing)."""
    return path.endswith("torch/utils/checkpoint.py") and function in _CHECKPOINT


def _native(function: str, node: re.Match[str] | None) -> str | None:
    """Return what a frame of C++ is of: a function of autograd, or an op; None if neither."""
    if node:
        return node[1]
    if op := _OP.match(function):
        return f"aten::{op[1]}"
    return None if not function or _PLUMBING.match(function) else function.partition("(")[0]


def _says(function: str, path: str) -> str | None:
    if "torch/optim/" in path:
        return OPTIMIZER
    if function == "backward" and "torch/" in path:
        return BACKWARD
    return FORWARD if function == "forward" else None


def _short(path: str) -> str:
    """Return a file's last two parts, of a package all that follows where it is installed."""
    inside = _PACKAGE.sub("", path)
    return inside if inside != path else "/".join(path.rsplit("/", 2)[-2:])

"""Measuring cells one after the other, each in a process of its own: what dies costs one of them.

Where a process that measured several implementations dies, the one that is to blame is tried
again by itself, and the others together without it; if nobody is to blame, each by itself.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tracelens import tools, units
from tracelens.bench import cell as cells
from tracelens.bench import processes
from tracelens.bench.cell import Failure
from tracelens.bench.processes import Heard, Program
from tracelens.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tracelens.bench.cell import Cell, Line, Row
    from tracelens.bench.results import Results

CHILD: Final = "tracelens.bench.kernel_child"
SILENCE_S: Final = 300.0
"""How long nothing may be heard of a process: compiling is the longest that it does."""

_DISTRIBUTIONS: Final = ("torch", "triton", "numpy", "tracelens-gpu")
_ON_CPU: Final = {"TRITON_INTERPRET": "1"}


@dataclass
class Found:
    """What processes have said of a cell.

    Attributes:
        rows: of its implementations.
        failures: why others have none.
        device: what was measured.
        is_gpu: whether it is no CPU.
        facts: circumstances.
    """

    rows: list[Row] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    device: str = ""
    is_gpu: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, other: Found) -> None:
        """Take in what another process has said."""
        self.rows += other.rows
        self.failures += other.failures
        self.device = self.device or other.device
        self.is_gpu = self.is_gpu or other.is_gpu
        self.facts |= other.facts


@dataclass
class _Answer(Found):
    """What one process has said, and whom it had begun with when it ended."""

    begun: str = ""
    over: bool = False
    heard: Heard = field(default_factory=Heard)


def check_torch() -> None:
    """Raise CaptureError if nothing can be measured for want of a library."""
    missing = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
    if missing:
        raise CaptureError(
            f"Measuring kernels needs {' and '.join(missing)}: "
            "pip install 'tracelens-gpu[kernels]' (Triton is for Linux alone)."
        )


def run(
    results: Results, say: Callable[[str], None], silence_s: float = SILENCE_S
) -> Iterator[Results]:
    """Measure the cells that are waiting; give what is known after each of them.

    Args:
        results: what was asked for, and what an earlier run may have found.
        say: told how far it has come.
        silence_s: a process that nothing was heard of for so long is ended.

    Raises:
        CaptureError: there is no GPU, or the first process dies before it measures anything.
        UsageError: what is to be gone on with was measured on something else.
    """
    waiting = results.waiting
    for count, number in enumerate(waiting, start=1):
        cell = results.cells[number]
        say(f"[{count}/{len(waiting)}] {told(cell)}")
        found = measured(cell, silence_s)
        if not (found.device or results.device):
            why = "; ".join(failure.message for failure in found.failures)
            raise CaptureError(f"Nothing can be measured here: {why}")
        if results.device and found.device and found.device != results.device:
            raise UsageError(
                f"This was begun on {results.device}, and here is {found.device}: "
                "measure anew, into another file."
            )
        for line in _lines(found):
            say(f"      {line}")
        results = results.with_cell(
            number,
            found.rows,
            found.failures,
            device=results.device or found.device,
            environment=_circumstances(results.environment, found.facts),
        )
        yield results


def check(
    results: Results, say: Callable[[str], None], silence_s: float = SILENCE_S, jobs: int = 1
) -> Results:
    """Build and check everything, several cells at a time; time nothing.

    It fills the caches of compilers, too. Cells that find no memory beside others are tried again
    by themselves.

    Args:
        results: what was asked for.
        say: told how far it has come.
        silence_s: see `run`.
        jobs: processes at a time.

    Raises:
        CaptureError: there is no GPU, or no process says a word.
    """
    cells_of = [replace(cell, quantities=()) for cell in results.cells]

    def heard(cell: Cell, one: Found) -> None:
        bad = "".join(f"\n      {line}" for line in _lines(one))
        say(f"{told(cell)}: {bad or 'all right'}")

    found = dict(enumerate(at_once(cells_of, heard, silence_s, jobs)))
    crowded = [number for number, one in found.items() if jobs > 1 and _lacks_memory(one)]
    for number in crowded:
        say(f"again, by itself: {told(cells_of[number])}")
        found[number] = measured(cells_of[number], silence_s)
    if not any(one.device for one in found.values()):
        why = "; ".join(failure.message for failure in found[0].failures)
        raise CaptureError(f"Nothing can be measured here: {why}")
    results = replace(results, cells=tuple(cells_of))
    for number, one in found.items():
        facts = _circumstances(results.environment, one.facts)
        device = results.device or one.device
        results = results.with_cell(number, (), one.failures, device=device, environment=facts)
    return results


def at_once(
    those: Sequence[Cell],
    heard: Callable[[Cell, Found], None],
    silence_s: float = SILENCE_S,
    jobs: int = 1,
) -> list[Found]:
    """Return what is found of cells, several measured at a time; each is told when it is done.

    Raises:
        CaptureError: there is no GPU.
    """

    def one(cell: Cell) -> Found:
        found = measured(cell, silence_s)
        heard(cell, found)
        return found

    pool = ThreadPoolExecutor(jobs)
    try:
        return list(pool.map(one, those))
    except BaseException:  # an interrupt, too: nothing of it may run on
        pool.shutdown(wait=False, cancel_futures=True)
        processes.end_all()
        raise
    finally:
        pool.shutdown()


def _lacks_memory(found: Found) -> bool:
    return any("memory" in f"{one.error} {one.message}".lower() for one in found.failures)


def measured(cell: Cell, silence_s: float = SILENCE_S) -> Found:
    """Return what is found of a cell, by as many processes as it takes.

    Raises:
        CaptureError: there is no GPU.
    """
    found = Found()
    _measure(cell, _names(cell), found, silence_s)
    return found


def told(cell: Cell) -> str:
    """Return a cell as people read it: `softmax forward 8192x8192 bf16`."""
    return f"{cell.kernel} {cell.operation} {sizes(cell.shape)} {cell.dtype}"


def sizes(shape: dict[str, int]) -> str:
    """Return a shape without the names of its axes, as `--shapes` takes it."""
    return "x".join(map(str, shape.values()))


def circumstances() -> dict[str, Any]:
    """Return what is known of this machine without a device: versions, and the git commit."""
    versions = {}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found: dict[str, Any] = {"python": platform.python_version(), "versions": versions}
    if revision := _revision(Path(__file__).parent):
        found["revision"] = revision
    return found


def _measure(cell: Cell, names: tuple[str, ...], found: Found, silence_s: float) -> None:
    """Measure some implementations of a cell together, and if that fails by parts."""
    answer = _asked(_only(cell, names), silence_s)
    alone, together, failures = _left(names, answer)
    answer.failures += failures
    if not (alone or together):
        found.add(answer)
        return
    # Rows of a process that died come again, beside one another, from those that live.
    answer.rows.clear()
    found.add(answer)
    if together:
        _measure(cell, together, found, silence_s)
    for name in alone:
        _measure(cell, (name,), found, silence_s)


def _left(
    names: tuple[str, ...], answer: _Answer
) -> tuple[tuple[str, ...], tuple[str, ...], list[Failure]]:
    """Return what is to be tried by itself, what together, and what has failed for good."""
    if answer.over:
        return (), (), []
    failed = {failure.implementation for failure in answer.failures}
    if "" in failed:
        return (), (), []  # the inputs could not be made: not for the others either
    if not answer.device:
        return (), (), [_lost(answer)]  # it died before anybody's turn
    rest = tuple(name for name in names if name not in failed)
    if failed and answer.heard.status == _BROKEN:
        return (), rest, []  # whom CUDA was left unusable by has said so
    lost = _lost(answer)
    begun = answer.begun if answer.begun in rest else ""
    if len(rest) <= 1 or (begun and answer.heard.error == "Timeout"):
        named = begun or (rest[0] if rest else "")
        failures = [replace(lost, implementation=named)] if rest else []
        return (), tuple(name for name in rest if name != named), failures
    if begun:
        return (begun,), tuple(name for name in rest if name != begun), []
    return rest, (), []


_BROKEN: Final = 3


def _lost(answer: _Answer) -> Failure:
    heard = answer.heard
    why = heard.why or "it ended before it had measured everything"
    if not heard.gone:
        why += "; it could not be ended, and may still use the GPU"
    return Failure(implementation="", stage="process", error=heard.error or "Exit", message=why)


def _asked(cell: Cell, silence_s: float) -> _Answer:
    """Run one process, and take in its answers until it ends."""
    answer = _Answer()
    variables = _ON_CPU if cell.device == "cpu" else {}
    program = Program(CHILD, (cells.encode(cell),), silence_s, variables)
    lines = program.lines(answer.heard)
    try:
        for text in lines:
            _take(cells.said(text), answer, cell)
            if answer.over:
                break
    except msgspec.MsgspecError as error:
        answer.heard.error = type(error).__name__
        answer.heard.why = f"an answer was not understood: {error}"
    finally:
        lines.close()
    return answer


def _take(line: Line, answer: _Answer, cell: Cell) -> None:
    answer.facts |= line.facts
    if line.device is not None:
        answer.device, answer.is_gpu = line.device, line.is_gpu
        if cell.device == "auto" and not line.is_gpu:
            raise CaptureError(
                "torch sees no GPU here. --device cpu measures on the processor, ours in Triton's "
                "interpreter: that tells whether they are right, and nothing about a GPU."
            )
    if line.begun is not None:
        answer.begun = line.begun
    if line.row is not None:
        answer.rows.append(line.row)
    if line.failure is not None:
        answer.failures.append(line.failure)
    answer.over = answer.over or line.over


def _names(cell: Cell) -> tuple[str, ...]:
    """Return what is measured side by side; with candidates, what they are held against stays."""
    return tuple(cell.candidates) or cell.implementations


def _only(cell: Cell, names: Sequence[str]) -> Cell:
    if cell.candidates:
        kept = {name: one for name, one in cell.candidates.items() if name in names}
        return replace(cell, candidates=kept)
    return replace(cell, implementations=tuple(names))


def _lines(found: Found) -> Iterator[str]:
    """Give a line of each implementation."""
    for row in found.rows:
        of = f", {row.pair.ratio:.3g} of {row.pair.other}" if row.pair else ""
        what = f"{row.quantity.replace('_', ' ')}, {row.l2} L2"
        yield tools.plain(f"{row.implementation}: {units.time(row.median_s * 1e9)}{of} ({what})")
    for failure in found.failures:
        name = failure.implementation or "all"
        why = failure.message.strip().partition("\n")[0]
        yield tools.plain(f"{name}: {failure.stage}: {failure.error} {why}".replace(":  ", ": "))


def _circumstances(before: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of the machine: the GPU before the first cell, and after the last."""
    return {**before, **facts, **({"before": before["before"]} if "before" in before else {})}


def _revision(folder: Path) -> dict[str, Any] | None:
    """Return the git commit that the toolkit's own source stands at, if it is in a repository."""
    git = ("git", "--no-optional-locks", "-C", str(folder))
    commit = tools.ask(*git, "rev-parse", "HEAD").text.strip()
    if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        return None
    changed = tools.ask(*git, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": bool(changed.text.strip())}

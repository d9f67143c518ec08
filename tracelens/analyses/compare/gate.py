"""Gates: how much slower or larger a run may be, as written, and whether it is.

A gate is ``WHAT>LIMIT``. WHAT is ``total`` (the time of a step), ``recorded``, ``busy``, ``idle``,
``kernels`` (the sum of their durations), ``memory`` or ``reserved`` (the highest peak), or
``phase:NAME``, ``family:NAME``, ``kernel:NAME``, ``range:NAME`` and ``op:NAME``. LIMIT is a
percentage of the baseline (``5%``), a time (``2ms``; ns, us, ms, s) or, of memory, a size
(``64MiB``; B, KiB, MiB, GiB, kB, MB, GB).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tracelens import registry
from tracelens.analyses.compare import measures, memory, noise
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens.analyses.compare.noise import Difference
    from tracelens.analyses.compare.side import Side

Outcome = Literal["regression", "passed", "not judged"]

TIMES: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9}
SIZES: Final = {
    "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9,
}  # fmt: skip
_MEMORY: Final = {"memory": "peak_active_bytes", "reserved": "peak_reserved_bytes"}
_LIMIT: Final = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%|[A-Za-zµ]+)\s*")
_HELP: Final = "Write WHAT>LIMIT, as in 'total>5%', 'phase:backward>2ms' or 'memory>64MiB'."


@dataclass(frozen=True)
class Gate:
    """One gate: ``limit`` is a share of the baseline (``unit`` `share`), or `ns`, or `bytes`."""

    text: str
    what: str
    name: str | None
    limit: float
    unit: Literal["share", "ns", "bytes"]

    @property
    def is_memory(self) -> bool:
        """Whether it is about bytes."""
        return self.what in _MEMORY


@dataclass(frozen=True)
class Judged:
    """What came of a gate: both numbers, the difference, and why it could not be judged."""

    gate: Gate
    outcome: Outcome
    a: float | None = None
    b: float | None = None
    difference: Difference | None = None
    why: str = ""


def parsed(text: str) -> Gate:
    """Return the gate that a text writes.

    Raises:
        UsageError: it is none; the message says how to write one.
    """
    subject, sign, limit = text.rpartition(">")
    what, _, name = subject.strip().partition(":")
    kinds = (*measures.TIMES, *_MEMORY, *measures.NAMED)
    number = _LIMIT.fullmatch(limit)
    if not sign or not number:
        raise UsageError(f"--gate {text!r}: {_HELP}")
    if what not in kinds:
        raise UsageError(f"--gate {text!r}: {registry.unknown('gate', what, dict.fromkeys(kinds))}")
    if bool(name) != (what in measures.NAMED):
        how = f"{what} needs a name, as in '{what}:NAME>5%'" if not name else f"{what} has no name"
        raise UsageError(f"--gate {text!r}: {how}. {_HELP}")
    value, unit = float(number[1]), number[2]
    if unit == "%":
        return Gate(text, what, name or None, value / 100, "share")
    scale = SIZES if what in _MEMORY else TIMES
    if unit not in scale:
        raise UsageError(f"--gate {text!r}: the unit of {what} is %, {', '.join(scale)}.")
    of: Literal["bytes", "ns"] = "bytes" if what in _MEMORY else "ns"
    return Gate(text, what, name or None, value * scale[unit], of)


def judged(gates: Sequence[Gate], a: Side, b: Side) -> list[Judged]:
    """Return what comes of each gate.

    A time is a regression where its difference is above the limit and more than noise
    (`noise.of_total`, at its level divided by the number of gates); the noise of fewer than three
    steps is not known, and such a gate is not judged. Bytes have no noise.

    Raises:
        UsageError: neither run has a thing of that name.
    """
    times = sum(not gate.is_memory for gate in gates)
    return [
        _memory(gate, a, b) if gate.is_memory else _time(gate, a, b, noise.LEVEL / times)
        for gate in gates
    ]


def _memory(gate: Gate, a: Side, b: Side) -> Judged:
    one, two = (memory.highest(side, _MEMORY[gate.what]) for side in (a, b))
    if one is None or two is None:
        missing = " and ".join(n for n, value in (("A", one), ("B", two)) if value is None)
        return Judged(gate, "not judged", one, two, why=f"no memory was recorded of {missing}")
    outcome: Outcome = "regression" if _is_above(gate, one, two) else "passed"
    return Judged(gate, outcome, one, two)


def _time(gate: Gate, a: Side, b: Side, level: float) -> Judged:
    pair = measures.of(a, b, gate.what, gate.name)
    if pair is None:
        known = dict.fromkeys(measures.known(a, b, gate.what))
        raise UsageError(
            f"--gate {gate.text!r}: {registry.unknown(gate.what, str(gate.name), known)}"
        )
    one, two = (sum(samples) / len(samples) for samples in pair)
    difference = noise.of_total(*pair, level)
    if difference.verdict == "too few steps":
        steps = " and ".join(str(len(samples)) for samples in pair)
        why = f"{steps} steps do not tell the noise: record at least {noise.LEAST}"
        return Judged(gate, "not judged", one, two, difference, why)
    is_above = difference.verdict == "slower" and _is_above(gate, one, two)
    return Judged(gate, "regression" if is_above else "passed", one, two, difference)


def _is_above(gate: Gate, one: float, two: float) -> bool:
    more = two - one
    return more > (gate.limit * one if gate.unit == "share" else gate.limit)

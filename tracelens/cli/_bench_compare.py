"""`tracelens compare` and `grade` of results of kernels: which paths they are, what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens.errors import NothingToShowError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tracelens.analyses.compare.gate import Gate
    from tracelens.tables import Report
    from tracelens.targets import Measured

_REGRESSION: Final = 1


def are_results(paths: Sequence[Path]) -> bool:
    """Tell whether all paths are results of kernels.

    Raises:
        UsageError: some are, and others are not.
    """
    from tracelens.bench import results

    said = [results.are_results(path) for path in paths]
    if any(said) and not all(said):
        other = paths[said.index(False)]
        raise UsageError(f"Results of kernels are compared with their like, and {other} is none.")
    return bool(said) and all(said)


def compared(named: Sequence[tuple[str, Path]], gates: Sequence[Gate]) -> tuple[Report, int]:
    """Return the report on files of results, those of one name together, and the exit status.

    Raises:
        UsageError: they are all of one name.
        UnreadableError: one cannot be read.
    """
    from tracelens.bench import compared as comparing
    from tracelens.bench import results
    from tracelens.bench.compared import Side

    sides: dict[str, list[results.Results]] = {}
    for label, (_, path) in zip(_labels(named), named, strict=True):
        sides.setdefault(label, []).append(results.load(path))
    report = comparing.report([Side(label, tuple(of)) for label, of in sides.items()], gates)
    return report, _status(report, gates)


def measured(paths: Sequence[Path], *, cache: bool) -> list[Measured]:
    """Return what was measured at paths of any kind: see `targets.measured`."""
    from tracelens import targets
    from tracelens.bench import graded, results

    found: list[Measured] = []
    for path in paths:
        if results.are_results(path):
            found += graded.measured(results.load(path))
        else:
            found += targets.measured([path], cache=cache)
    return found


def check_options(given: Mapping[str, object]) -> None:
    """Raise UsageError where an option was given that is of recordings alone."""
    for option, value in given.items():
        if value:
            raise UsageError(f"{option} is for recordings, and these are results of kernels.")


def _labels(named: Sequence[tuple[str, Path]]) -> list[str]:
    """Return a label for each path: the name that it was given, or as much as tells it apart."""
    paths = [str(path) for _, path in named]
    short = [path.name for _, path in named]
    found: list[str] = []
    for i, (name, _) in enumerate(named):
        label = name or (short[i] if short.count(short[i]) == 1 else paths[i])
        found.append(label if name or label not in found else f"{label} ({i + 1})")
    return found


def _status(report: Report, gates: Sequence[Gate]) -> int:
    if not gates:
        return 0
    outcomes = report.tables[0].frame
    if "regression" in outcomes["outcome"].to_list():
        return _REGRESSION
    for gate, outcome, said in outcomes.select("gate", "outcome", "said").iter_rows():
        if outcome == "not judged":
            raise NothingToShowError(f"--gate {gate!r} could not be judged: {said}.")
    return 0

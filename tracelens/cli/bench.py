"""Measure what this machine can reach, and how long kernels take beside others and beside that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracelens import registry
from tracelens.cli._options import FORCE, FORMAT, TOP
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracelens.cli._bench import Given, Printed
    from tracelens.tables import Report

    Function = Callable[..., Any]
    Option = Callable[[Function], Function]

_EPILOG = """
\b
Examples:
  tracelens bench
  tracelens bench softmax --shapes 8192x8192 --dtype bf16
  tracelens bench flash-attention --operation forward,backward --baseline sdpa-cudnn -o fa.json
  tracelens bench --resume fa.json
  tracelens bench softmax --tune
  tracelens bench ceilings --quick -o h200.json
  TRACELENS_CEILINGS=h200.json tracelens capture gpt2-xl --ctx 256
"""
_HERE: Final = "-"
_CEILINGS: Final = "ceilings"


def _complete(_ctx: Any, _param: Any, typed: str) -> list[str]:
    known = (_CEILINGS, "all", *(name.replace("_", "-") for name in registry.names("kernel")))
    return [word for word in known if word.startswith(typed)]


def _several(name: str, metavar: str, about: str, dest: str | None = None) -> Option:
    given = (f"--{name}", dest) if dest else (f"--{name}",)
    return click.option(*given, multiple=True, metavar=metavar, help=about)


@click.command(epilog=_EPILOG)
@click.argument("what", nargs=-1, metavar="[WHAT]...", shell_complete=_complete)
@_several("shapes", "SHAPE", "Sizes of the axes: 8192x8192, or rows=8192,columns=8192.")
@_several("dtype", "FORMAT", "Number formats (bf16,fp16), or all; otherwise the first.", "dtypes")
@_several(
    "baseline", "NAME", "What ours is held against (eager,compile), or none; otherwise all.",
    "baselines",
)  # fmt: skip
@_several(
    "operation", "NAME", "What is timed (forward,backward), or all; otherwise the first.",
    "operations",
)  # fmt: skip
@_several(
    "quantity", "NAME", "kernel_time (what is measured otherwise), call_latency, throughput, all.",
    "quantities",
)  # fmt: skip
@_several("l2", "STATE", "Of the cache before each call: cold (otherwise), hot, or all.")
@click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|N",
    help="What to measure: the first GPU (for ceilings or else the processor), the processor, or "
    "GPU number N.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="Less time, and figures that are known less well.")
@click.option(
    "--precision", type=click.FloatRange(0.01, 50), metavar="PERCENT",
    help="Go on until each median is known to ± this (0.5), or --budget is used up.",
)  # fmt: skip
@click.option(
    "--budget", type=click.FloatRange(0.01), metavar="SECONDS",
    help="Most time for the samples of one implementation and quantity (2).",
)  # fmt: skip
@click.option(
    "--limit", type=click.FloatRange(1), metavar="SECONDS",
    help="End a process that nothing was heard of for so long (300).",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the random inputs (0).")
@click.option("--default-config", is_flag=True, help="Ours with its defaults, not as tuned.")
@click.option(
    "--tune", is_flag=True,
    help="Look for the fastest configuration of each kernel, and keep it for this kind of GPU.",
)  # fmt: skip
@click.option(
    "--check", is_flag=True,
    help="Build and check all, several at a time; time nothing. Fills the compilers' caches.",
)  # fmt: skip
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N",
    help="Processes of --check, and of compiling for --tune (half of the processors, at most 8).",
)  # fmt: skip
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="FILE",
    help="Measure what a file of results lacks, into that file.",
)  # fmt: skip
@click.option(
    "--retry-failed", "retry", type=click.Path(path_type=Path), metavar="FILE",
    help="Measure again what failed, into the same file.",
)  # fmt: skip
@click.option(
    "--ranks", type=click.IntRange(min=1), metavar="N",
    help="Processes of the all-reduce; otherwise as many as there are GPUs, if more than one.",
)  # fmt: skip
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE",
    help="Write to this file. Otherwise results go to runs/, and ceilings and what was tuned to "
    "your own file of this GPU.",
)  # fmt: skip
@FORCE
@click.option(
    "--show", is_flag=False, flag_value=_HERE, metavar="[FILE]",
    help="Measure nothing; print what is known of the GPUs here, or what a file says.",
)  # fmt: skip
@click.option("--list", "is_list", is_flag=True, help="List what there is to measure.")
@_several("table", "NAME", "Print this table alone: bench, matrix, failures.", "tables")
@TOP
@FORMAT
def bench(what: tuple[str, ...], renderer: str, show: str | None, **given: Any) -> int:
    """Measure WHAT: kernels by name, or `ceilings`, what this machine can reach at most.

    A kernel is measured beside other implementations of the same, each checked against a
    reference first, in a process of its own for every shape. Ceilings take the place of the data
    sheet's wherever tracelens holds work against one. Without WHAT it lists what there is.
    """
    from tracelens.cli import _bench

    printed = _bench.Printed(renderer, given.pop("tables"), given.pop("top"))
    registry.load("renderer", renderer)
    _check_names(what)
    if _CEILINGS not in what:
        _check_tables(printed.tables, given)
    goes_on = given["resume"] or given["retry"]
    if show is not None:
        return _shown(show, what, given["output"], printed)
    if _CEILINGS in what and not given["is_list"]:
        return _ceilings(what, printed, given)
    if given["is_list"] or not (what or goes_on):
        names = [word for word in what if word != _CEILINGS]
        click.echo("\n".join(_bench.listed(names)))
        return 0
    asked = _given(what, given)
    if asked.tune:
        from tracelens.cli._bench_tune import tune

        return tune(asked, printed)
    return _bench.check(asked, printed) if asked.check else _bench.measure(asked, printed)


def _check_names(what: tuple[str, ...]) -> None:
    """Raise UsageError, with the nearest name, if there is nothing of a name."""
    known = {name.replace("_", "-"): None for name in registry.names("kernel")}
    for word in what:
        if word.replace("_", "-") not in (*known, _CEILINGS, "all"):
            told = registry.unknown("thing to measure", word, {**known, _CEILINGS: None})
            raise UsageError(told)


def _check_tables(names: tuple[str, ...], given: dict[str, Any]) -> None:
    """Raise UsageError, with the nearest name, if there is no table of a name."""
    whole = ("bench", "matrix", "failures")
    known = ("tuned",) if given["tune"] else whole[1:] if given["check"] else whole
    if unknown := [name for name in names if name not in known]:
        raise UsageError(registry.unknown("table", unknown[0], dict.fromkeys(known)))


def _given(what: tuple[str, ...], given: dict[str, Any]) -> Given:
    """Return what was typed about kernels."""
    from tracelens.cli import _bench

    if given.pop("ranks") is not None:
        raise UsageError("--ranks is for ceilings: leave it out.")
    given.pop("is_list")
    _check_device(given["device"])
    lists = ("dtypes", "operations", "baselines", "quantities", "l2")
    told: dict[str, Any] = given | {name: _bench.words(given[name]) for name in lists}
    told["shapes"] = _bench.shapes(given["shapes"])
    if nothing := [name for name in (*lists, "shapes") if given[name] and not told[name]]:
        option = _OPTIONS.get(nothing[0], f"--{nothing[0]}")
        raise UsageError(f"{option} names nothing: leave it out, or name what is to be measured.")
    return _bench.Given(kernels=tuple(word.replace("-", "_") for word in what), **told)


def _check_device(device: str) -> None:
    if device not in ("auto", "cpu") and not device.isdecimal():
        raise UsageError(f"--device {device}: write auto, cpu, or the number of a GPU.")


def _shown(show: str, what: tuple[str, ...], output: Path | None, printed: Printed) -> int:
    from tracelens.bench import results
    from tracelens.cli import _bench

    if output is not None:
        raise UsageError("--show measures nothing that could be written to a file: leave -o out.")
    if show != _HERE and results.are_results(Path(show)):
        named = () if {_CEILINGS, "all"}.intersection(what) else what
        return _bench.show(Path(show), named, printed)
    _put(_known(None if show == _HERE else Path(show)), printed)
    return 0


def _known(file: Path | None) -> list[Report]:
    from tracelens.bench import here, shown

    return [shown.known(one) for one in here.known(file)]


def _ceilings(what: tuple[str, ...], printed: Printed, given: dict[str, Any]) -> int:
    """Measure ceilings alone, and print them."""
    if len(what) > 1:
        raise UsageError("Ceilings are measured by themselves: name them alone.")
    own = ("device", "quick", "ranks", "output", "force")
    if more := [name for name, value in given.items() if value and name not in own]:
        raise UsageError(f"{_OPTIONS.get(more[0], f'--{more[0]}')} is for kernels: leave it out.")
    _check_device(given["device"])
    _put([_measured(**{name: given[name] for name in own})], printed)
    return 0


_OPTIONS: Final = {
    "dtypes": "--dtype", "baselines": "--baseline", "operations": "--operation",
    "quantities": "--quantity", "default_config": "--default-config", "retry": "--retry-failed",
}  # fmt: skip


def _put(reports: list[Report], printed: Printed) -> None:
    from tracelens.cli import _output

    render: Any = registry.load("renderer", printed.renderer).render
    _output.put(render(reports, _output.options(0, None)), None)


def _measured(
    *, device: str, quick: bool, ranks: int | None, output: Path | None, force: bool
) -> Report:
    from tracelens.bench import ceilings, shown
    from tracelens.cli import _bench, _files
    from tracelens.hardware import measured

    _files.check_free(output, (), force=force)
    found = ceilings.measure(device, _bench.say, quick=quick, ranks=ranks)
    place = output or measured.place(found.device)
    if output is None:
        _bench.make(place.parent)
    _files.write(place, measured.encode(found))
    _bench.say(f"Written to {place}")
    return shown.measured(found, place)


COMMAND = bench

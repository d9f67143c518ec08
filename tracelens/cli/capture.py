"""Run a workload, or a program of yours, under profilers, and summarize what they recorded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracelens import registry
from tracelens.errors import CaptureError, TracelensError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracelens.capture.folder import Manifest
    from tracelens.capture.plan import Plan, Request
    from tracelens.workload import Option, Workload

_EPILOG = """
\b
Examples:
  tracelens capture gpt2-xl --ctx 256
  tracelens capture gpt2-small --batch 8 --dtype bf16 --with timer --with torch:stacks,memory
  tracelens capture attention --d 64 --seq 4096 --dtype bf16
  tracelens capture gpt2-xl --dry-run
  tracelens capture -- python train.py --epochs 1
  tracelens capture --with nsys -- torchrun --nproc-per-node 2 train.py
  tracelens capture --resume runs/gpt2-xl-ctx256-20261120-101500
"""
_META: Final = "tracelens.capture"


class _Capture(click.Command):
    """A command whose options are its own and those of the workload that is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the workload, or the user's program behind `--`, then parse what is left."""
        own, program = list(args), []
        if "--" in args:
            at = args.index("--")
            own, program = args[:at], args[at + 1 :]
            if not program:
                raise click.UsageError("Name a program behind --, as in: -- python train.py", ctx)
        ctx.meta[f"{_META}.program"] = tuple(program)
        name = _first_word(own, self.params)
        if name and not program:
            try:
                kind, values = _find(name)
            except UsageError as error:
                if ctx.resilient_parsing:
                    return super().parse_args(ctx, own)
                raise click.UsageError(str(error), ctx) from error
            ctx.meta[_META] = (kind, values, _options_of(kind, values))
        return super().parse_args(ctx, own)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters and the workload's."""
        return [*super().get_params(ctx), *_workload_options(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the workload's options, or which workloads there are, then the command's own."""
        options = _workload_options(ctx)
        if options:
            kind, _, _ = ctx.meta[_META]
            with formatter.section("Options of the workload"):
                formatter.write_dl(
                    [r for p in options if (r := p.get_help_record(ctx)) is not None]
                )
            if kind.presets:
                with formatter.section("Presets"):
                    formatter.write_dl([(n, _given(v)) for n, v in kind.presets.items()])
        else:
            known = registry.entries("workload")
            with formatter.section("Workloads (their own options: capture NAME --help)"):
                formatter.write_dl([(n.replace("_", "-"), e.summary) for n, e in known.items()])
        with formatter.section("Options"):
            mine = [p for p in super().get_params(ctx) if isinstance(p, click.Option)]
            records = [p.get_help_record(ctx) for p in mine]
            formatter.write_dl([record for record in records if record is not None])


@click.command(cls=_Capture, epilog=_EPILOG)
@click.argument("workload", required=False, metavar="[WORKLOAD | -- PROGRAM...]")
@click.option(
    "--with",
    "recorders",
    multiple=True,
    metavar="RECORDER[:OPTION,...]",
    help="Record with this (again for more): timer, nsys, torch, memory, ncu. Otherwise: timer, "
    "nsys or else torch, memory.",
)
@click.option(
    "--warmup", type=click.IntRange(min=0), default=3, show_default=True, metavar="N",
    help="Steps before the recorded ones.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(min=1), default=5, show_default=True, metavar="N",
    help="Steps to record.",
)  # fmt: skip
@click.option(
    "--whole", is_flag=True, help="Record your program from its start to its end, not some steps."
)
@click.option(
    "--run-on", is_flag=True, help="Let your program run to its end after the recorded steps."
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Where to run.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of torch's random numbers.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="DIR",
    help="The Run folder to make. Otherwise: runs/WORKLOAD-OPTIONS-TIME.",
)  # fmt: skip
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="DIR",
    help="Run the passes that a Run folder lacks, and those of --with.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
    help="End a pass that takes longer.",
)  # fmt: skip
@click.option("--verbose", "-v", is_flag=True, help="Show what the program prints.")
@click.option(
    "--force", is_flag=True,
    help="Run what may not fit into memory; record into a Run folder that is there.",
)  # fmt: skip
@click.pass_context
def capture(ctx: click.Context, /, **given: Any) -> int:
    """Run a workload, or your program, once per recorder, and summarize what was recorded.

    Each recorder is a pass of its own, since two profilers cannot listen at once. All of it goes
    into one Run folder, which `tracelens summarize`, `memory` and `explore` read.
    """
    from tracelens.capture import folder as folders
    from tracelens.capture import machine as machines
    from tracelens.capture import plan as plans
    from tracelens.capture import record

    program: tuple[str, ...] = ctx.meta.get(f"{_META}.program", ())
    _check(given, program)
    asked = tuple(plans.parse_asked(text) for text in given["recorders"])
    resume: Path | None = given["resume"]
    if resume is not None:
        request, manifest = record.resumed(resume, asked)
        path = resume
    else:
        request, manifest = _request(ctx, given, program, asked), None
        path = given["output"] or _new_folder(request, folders.now())
    machine = machines.look()
    plan = plans.make(request, machine, path)
    if given["dry_run"]:
        click.echo("\n".join(_dry(request, plan, path, record.cost(request, machine))))
        return 0
    if resume is None:
        folders.create(path, force=given["force"])
    with folders.locked(path):
        if manifest is None:
            manifest = record.begin(request, plan, machine, path, ["tracelens", *sys.argv[1:]])
        _say(f"Run folder: {path}")
        for note in plan.notes:
            _say(note)
        try:
            manifest = record.run(
                request, plan, manifest, path, _say,
                limit_s=given["timeout"], echo=given["verbose"],
            )  # fmt: skip
        except KeyboardInterrupt:
            _say(f"Stopped. What was recorded is in {path}; to go on: "
                 f"tracelens capture --resume {path}")  # fmt: skip
            return 130
    _show(path, manifest)
    return _status(request, manifest, path)


def _check(given: Mapping[str, Any], program: Sequence[str]) -> None:
    """Raise UsageError where options do not go together."""
    if given["resume"] is not None:
        if given["workload"] or program or given["output"]:
            raise UsageError("--resume DIR knows what to run, and where: name nothing else.")
    elif given["workload"] and program:
        raise UsageError("Name a workload, or a program behind --, not both.")
    elif not given["workload"] and not program:
        raise UsageError(
            "Name a workload (tracelens list workloads), or a program: -- python train.py"
        )
    if not program and given["resume"] is None and (given["whole"] or given["run_on"]):
        raise UsageError("--whole and --run-on are for a program of yours, behind --.")


def _request(
    ctx: click.Context, given: Mapping[str, Any], program: tuple[str, ...], asked: tuple[Any, ...]
) -> Request:
    from tracelens import workload
    from tracelens.capture.plan import Request

    common: dict[str, Any] = {
        "asked": asked,
        "device": given["device"],
        "warmup": 0 if given["whole"] else given["warmup"],
        "steps": None if given["whole"] else given["steps"],
        "seed": given["seed"],
        "force": given["force"],
    }
    if program:
        return Request(_program_name(program), program=program, stop=not given["run_on"], **common)
    kind, values, options = ctx.meta[_META]
    typed = {o.name: given[o.name] for o in options if given.get(o.name) is not None}
    made = workload.make(kind, {**values, **typed})
    name = given["workload"].lower().replace("_", "-")
    return Request(name, made, workload.split(name)[0], **common)


def _new_folder(request: Request, now: Any) -> Path:
    from tracelens import workload
    from tracelens.capture import folder as folders

    changed: Mapping[str, Any] = {}
    if request.workload is not None:
        _, preset = workload.find(request.name)
        stands_for = {**type(request.workload)().options(), **preset}
        options = request.workload.options()
        changed = {name: value for name, value in options.items() if value != stands_for[name]}
    return Path("runs") / folders.folder_name(request.name, changed, now)


def _program_name(program: Sequence[str]) -> str:
    """Return what a program is called: its script's or module's name, else the command's."""
    script = next((word for word in program[1:] if word.endswith(".py")), None)
    if script is not None:
        return Path(script).stem
    if "-m" in program[:-1]:
        return program[program.index("-m") + 1]
    return Path(program[0]).stem


def _show(path: Path, manifest: Manifest) -> None:
    """Print the summary of what was recorded, and what the capture itself has measured."""
    from tracelens.capture import summary

    if manifest.recordings:
        try:
            _summarize(path)
        except TracelensError as error:
            _say(str(error))
    click.echo("\n".join(summary.lines(manifest)))
    click.echo(f"\nMore: {' · '.join(_more(path, manifest))}")


def _summarize(path: Path) -> None:
    from tracelens.cli import _output, _reading
    from tracelens.links.linked import Cut

    reports = _reading.reports([path], (), Cut())
    render: Any = registry.load("renderer", "text").render
    _output.put(render(reports, _output.options(6, None)), None)


def _more(path: Path, manifest: Manifest) -> list[str]:
    found = [f"tracelens summarize {path}"] if manifest.recordings else []
    found += [f"tracelens memory {path / f.path}" for f in manifest.recordings
              if f.recorder == "memory"][:1]  # fmt: skip
    if any(p.state != "done" for p in manifest.passes):
        found.append(f"tracelens capture --resume {path}")
    return [*found, str(path / "run.json")]


def _status(request: Request, manifest: Manifest, path: Path) -> int:
    """Return the exit status: 4 where nothing, or not what was asked for, was recorded."""
    failed = [p.recorder for p in manifest.passes if p.state != "done"]
    if len(failed) == len(manifest.passes):
        raise CaptureError(f"Nothing was recorded; the logs are in {path / 'logs'}.")
    return CaptureError.exit_status if failed and request.asked else 0


def _dry(request: Request, plan: Plan, path: Path, cost: dict[str, Any]) -> list[str]:
    import shlex

    from tracelens.capture import plan as plans
    from tracelens.capture import summary

    wanted = plans.wanted_by(request, plan.device, path)
    found = [f"Would make {path}, on the {'GPU' if plan.device == 'cuda' else 'CPU'}:"]
    for one in plan.passes:
        its = plans.with_options(wanted, one.options)
        command = one.recorder.command(plans.program(request), its)
        files = ", ".join(one.recorder.files(its)) or "no files"
        found += [f"  {one.name} → {files}", f"    {shlex.join(command)}"]
    return summary.plan_lines(cost, plan.notes, found)


def _say(line: str) -> None:
    click.echo(line, err=True)


# The workload's options


def _find(name: str) -> tuple[type[Workload], Mapping[str, Any]]:
    from tracelens import workload

    return workload.find(name)


def _first_word(args: Sequence[str], params: Sequence[click.Parameter]) -> str | None:
    """Return the word that names the workload: one that does, else the first that could."""
    takes_value = {
        name
        for param in params
        if isinstance(param, click.Option) and not param.is_flag
        for name in param.opts
    }
    words = []
    is_value = False
    for arg in args:
        if arg.startswith("-") and len(arg) > 1:
            is_value = arg in takes_value
            continue
        if not is_value:
            words.append(arg)
        is_value = False
    for word in words:
        try:
            _find(word)
        except UsageError:
            continue
        return word
    return words[0] if words else None


def _workload_options(ctx: click.Context) -> list[click.Parameter]:
    found = ctx.meta.get(_META)
    return list(found[2]) if found else []


def _options_of(kind: type[Workload], values: Mapping[str, Any]) -> list[click.Option]:
    from tracelens import workload

    return [_click_option(one, values) for one in workload.options_of(kind)]


def _click_option(one: Option, values: Mapping[str, Any]) -> click.Option:
    """Return a workload's option for click; without a default, so that presets keep theirs."""
    flag = one.name.replace("_", "-")
    default = values.get(one.name, one.default)
    shown = "" if default is None else f"  [default: {_value(default)}]"
    if one.type is bool:
        return click.Option([f"--{flag}/--no-{flag}"], default=None, help=one.help + shown)
    kind = click.Choice(one.choices) if one.choices else one.type
    return click.Option([f"--{flag}", one.name], type=kind, default=None, help=one.help + shown)


def _value(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _given(values: Mapping[str, Any]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {_value(v)}" for name, v in values.items())


COMMAND = capture

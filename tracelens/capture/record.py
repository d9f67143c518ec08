"""A capture from its request to its Run folder: one pass after another, each kept as it ends."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracelens import __version__, hardware, registry, workload
from tracelens.capture import folder as folders
from tracelens.capture import machine as machines
from tracelens.capture import passes
from tracelens.capture import plan as plans
from tracelens.capture.folder import File, Manifest, Pass
from tracelens.capture.plan import Asked, Request
from tracelens.errors import TracelensError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracelens.capture.machine import Machine
    from tracelens.capture.plan import Plan, Planned
    from tracelens.capture.recorder import Made

_SQLITE: Final = "run.sqlite"


def begin(
    request: Request, plan: Plan, machine: Machine, path: Path, command: Sequence[str]
) -> Manifest:
    """Write the run.json of a capture that is about to run, and return what it says."""
    made = Manifest(
        name=request.name,
        workload=request.module,
        options=request.workload.options() if request.workload else {},
        program=list(request.program),
        device=plan.device,
        warmup=request.warmup,
        steps=request.steps,
        seed=request.seed,
        stop=request.stop,
        created=folders.now().isoformat(timespec="seconds"),
        command=list(command),
        cost=cost(request, machine),
        machine=machine.facts,
        revision=machines.revision(Path.cwd()),
        passes=[Pass(one.name, dict(one.options)) for one in plan.passes],
        tracelens=__version__,
    )
    folders.save(path, made)
    return made


def run(
    request: Request,
    plan: Plan,
    manifest: Manifest,
    path: Path,
    say: Callable[[str], None],
    *,
    limit_s: float | None = None,
    echo: bool = False,
) -> Manifest:
    """Run the passes of a plan; return what run.json says in the end.

    A pass that fails leaves the others. Where nsys fails in a capture that named no recorder,
    torch.profiler takes its place.

    Raises:
        KeyboardInterrupt: the user stopped it; run.json says how far it came.
        UsageError: the workload's options cannot be had on this device.
        CaptureError: run.json cannot be written.
    """
    waiting = list(plan.passes)
    done = 0
    while waiting:
        planned = waiting.pop(0)
        done += 1
        say(f"[{done}/{done + len(waiting)}] {planned.name}: {_what(planned)}")
        manifest = manifest.with_pass(Pass(planned.name, dict(planned.options), "running"))
        folders.save(path, manifest)
        try:
            result, made = passes.run(planned, request, plan, path, say, limit_s=limit_s, echo=echo)
        except passes.Interrupted as stop:
            folders.save(path, _with(manifest, stop.result, stop.made))
            raise KeyboardInterrupt from None
        except passes.RefusedError as refusal:
            folders.save(path, manifest.with_pass(refusal.result))
            raise
        except (TracelensError, OSError) as error:
            result, made = Pass(planned.name, dict(planned.options), "failed", str(error)), []
        manifest = _with(manifest, result, made)
        folders.save(path, manifest)
        say(f"      {_told(result)}")
        if result.state != "done" and planned.name == "nsys" and not request.asked:
            waiting = _instead(waiting, say)
    return manifest


def resumed(path: Path, more: Sequence[Asked]) -> tuple[Request, Manifest]:
    """Return the request that a Run folder was made for, with only the passes that it lacks.

    Raises:
        UsageError: it is of no capture, or lacks nothing.
    """
    manifest = folders.load(path)
    lacking = [Asked(p.recorder, p.options) for p in manifest.passes if p.state != "done"]
    named = {one.recorder for one in more}
    asked = [*(one for one in lacking if one.recorder not in named), *more]
    if not asked:
        raise UsageError(f"{path} lacks nothing: all of its passes are done. --with adds others.")
    made = None
    if manifest.workload is not None:
        kind, _ = workload.find(manifest.workload)
        made = workload.make(kind, manifest.options)
    request = Request(
        name=manifest.name,
        workload=made,
        module=manifest.workload,
        program=tuple(manifest.program),
        asked=tuple(asked),
        device=manifest.device,
        warmup=manifest.warmup,
        steps=manifest.steps,
        seed=manifest.seed,
        stop=manifest.stop,
        force=True,
    )
    return request, manifest


def cost(request: Request, machine: Machine) -> dict[str, Any]:
    """Return what a step costs by formula, and its bound on the GPU that is here."""
    if request.workload is None:
        return {}
    found = request.workload.cost()
    held = hardware.ceilings(machine.gpus[0].name) if machine.gpus else None
    bounds = {}
    if held is not None:
        for phase, parts in found.phases.items():
            bound = hardware.bound(parts, held)
            bounds[phase] = None if bound is None else asdict(bound)
    return {
        "parameters": found.parameters,
        "flops": found.flops,
        "items": found.items,
        "unit": found.unit,
        "memory_bytes": found.memory_bytes,
        "memory": dict(found.memory),
        "phases": {
            phase: [asdict(part) for part in parts] for phase, parts in found.phases.items()
        },
        "bounds": bounds,
        "bound_of": held.title if held else None,
        "bound_by": held.origin if held else None,
        "bound_caveats": list(held.caveats) if held else [],
    }


def _with(manifest: Manifest, result: Pass, made: Sequence[Made]) -> Manifest:
    """Return the manifest with what became of a pass, and with its recordings."""
    new = [File(result.recorder, m.path, m.rank) for m in made if m.is_recording]
    paths = {file.path for file in new}
    kept = [
        file
        for file in manifest.recordings
        if file.recorder != result.recorder and file.path not in paths
    ]
    of = result.recorder if _SQLITE in result.files else manifest.run_sqlite
    return replace(manifest.with_pass(result), recordings=[*kept, *new], run_sqlite=of)


def _instead(waiting: Sequence[Planned], say: Callable[[str], None]) -> list[Planned]:
    if any(one.name == "torch" for one in waiting):
        return list(waiting)
    say("      torch.profiler takes the place of nsys.")
    return [plans.Planned("torch", registry.load("recorder", "torch"), {}), *waiting]


def _what(planned: Planned) -> str:
    return registry.entries("recorder")[planned.name].summary


def _told(result: Pass) -> str:
    from tracelens.capture import summary

    if result.state != "done":
        return f"{result.state}: {result.why}"
    steps = summary.steps(result)
    files = ", ".join(result.files)
    return " · ".join(filter(None, [steps, files, result.why]))

"""Recorders and workloads for tests of what is around them: they do what they are told."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from tracelens import registry
from tracelens.capture.recorder import Made, Recorder, Wanted
from tracelens.errors import CaptureError, UsageError
from tracelens.workload import Cost, Work, Workload, option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pytest


@dataclass
class Scripted(Recorder):
    """A recorder that answers as it was told, and runs its program as it is."""

    name: str = "scripted"
    why_not: str | None = None
    leaves: Sequence[Made] = ()
    fails: str = ""
    says: str = ""
    around: Sequence[str] = ()
    listens: bool = True
    options: Mapping[str, str] = field(default_factory=lambda: {"depth": "How deep."})
    finished: list[Wanted] = field(default_factory=list)

    def unusable(self, wanted: Wanted) -> str | None:
        """Return what it was told to."""
        return self.why_not

    def command(self, program: Sequence[str], wanted: Wanted) -> list[str]:
        """Put what it was told to before the program."""
        return [*self.around, *program]

    def files(self, wanted: Wanted) -> list[str]:
        """Return what it leaves."""
        return [made.path for made in self.leaves]

    def finish(self, wanted: Wanted, say: Callable[[str], None]) -> list[Made]:
        """Say and leave what it was told to, or fail."""
        self.finished.append(wanted)
        if self.says:
            say(self.says)
        if self.fails:
            raise CaptureError(self.fails)
        for made in self.leaves:
            (wanted.folder / made.path).write_text("recorded", encoding="utf-8")
        return list(self.leaves)


@dataclass(frozen=True, kw_only=True)
class Toy(Workload):
    """A workload whose memory is an option."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"gigabytes": 1},
        "huge": {"gigabytes": 4000},
    }

    gigabytes: int = option(2, "What it needs.")
    ranks: int = option(1, "Processes.")
    fast: bool = option(False, "Whether it hurries.")

    def check(self) -> None:
        """Refuse what cannot be."""
        if self.gigabytes < 1:
            raise UsageError("--gigabytes is at least 1.")

    def cost(self) -> Cost:
        """Cost what it is told."""
        forward = Work("matmul", flops=66_900_000_000, bytes=1, dtype="fp32")
        return Cost(
            phases={"forward": [forward], "backward": [forward, forward]},
            memory={"parameters": self.gigabytes * 10**9},
            parameters=7,
            items=1000,
        )

    @property
    def processes(self) -> int:
        """How many it is told."""
        return self.ranks

    def variants(self) -> list[Toy]:
        """Give those of 1,000, 1 and 1 (fast) GB."""
        return [Toy(gigabytes=1000), Toy(gigabytes=1), Toy(gigabytes=1, fast=True)]


def known(monkeypatch: pytest.MonkeyPatch, **things: Any) -> None:
    """Let the registry know these recorders and workloads, and no others."""

    @dataclass(frozen=True)
    class There:
        name: str
        summary: str
        thing: Any

        def load(self) -> Any:
            return self.thing

    real = registry.entries

    def entries(kind: str) -> Mapping[str, Any]:
        if kind not in ("recorder", "workload"):
            return real(kind)
        fits = Recorder if kind == "recorder" else type
        found = {n: t for n, t in things.items() if isinstance(t, fits)}
        return {name: There(name, f"A {name}.", thing) for name, thing in found.items()}

    monkeypatch.setattr(registry, "entries", entries)


def python(text: str) -> tuple[str, ...]:
    """Return the command line that runs a Python program."""
    return (sys.executable, "-c", text)

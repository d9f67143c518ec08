"""What a recorder is: a command around the program, and a session inside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence  # noqa: TC003
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 (msgspec reads the annotations)
from typing import Any, Literal

Kind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Wanted:
    """What is asked of a pass, the same for all recorders.

    Attributes:
        folder: the Run folder; recorders write into it, and nowhere else.
        device: whether the program works on GPUs.
        warmup: steps that run before the recorded ones.
        steps: steps to record; None: from the program's start to its end.
        processes: how many the program is known to have; None if it is the user's own.
        options: of this recorder, by name (see `Recorder.options`).
    """

    folder: Path
    device: Kind
    warmup: int = 3
    steps: int | None = 5
    processes: int | None = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    def is_on(self, option: str, *, default: bool = False) -> bool:
        """Return whether an option is switched on, as by `option` or `option=on`."""
        value = self.options.get(option, default)
        return value not in (False, None, "off", "no", "false", "0")


@dataclass(frozen=True)
class Made:
    """A file that a pass leaves in the Run folder.

    Attributes:
        path: relative to the folder.
        rank: whose it is; None: of all processes, or of the only one.
        is_recording: whether `tracelens summarize` can read it.
    """

    path: str
    rank: int | None = None
    is_recording: bool = True


class Session:
    """A recorder inside the recorded process: told when, it starts and stops. All may do nothing.

    The order is `open`, `warm`, `begin`, `stepped`..., `end`, `close`. A program that fails, or
    ends early, goes from wherever it is to `close`.
    """

    def open(self) -> None:
        """The program begins; torch may not be imported yet."""

    def warm(self) -> None:
        """The step before the first recorded one begins (left out without warm-up)."""

    def begin(self) -> None:
        """The first recorded step begins."""

    def stepped(self) -> None:
        """A recorded step has ended."""

    def is_enough(self, steps_ns: Sequence[int]) -> bool:
        """Return whether the recording may end, now that the wanted steps have been recorded.

        Args:
            steps_ns: wall-clock time of each recorded step.
        """
        return True

    def end(self) -> None:
        """The last recorded step has ended, and the device has done its work."""

    def close(self, error: BaseException | None) -> list[Made]:
        """The program ends, by `error` if that is not None; return what was written."""
        return []


class Recorder:
    """One way to record a program. Each is a pass and a process (tree) of its own."""

    name: str
    listens: bool = True
    """Whether it takes marks: then the program's steps, phases and layers are marked."""
    options: Mapping[str, str] = {}
    """Options that `--with NAME:OPTION,OPTION` may give, and what each does and costs."""

    def unusable(self, wanted: Wanted) -> str | None:
        """Return why it cannot record this here, and what to do about it; None if it can."""
        return None

    def command(self, program: Sequence[str], wanted: Wanted) -> list[str]:
        """Return the command line that runs the program under this recorder."""
        return list(program)

    def environment(self, wanted: Wanted) -> dict[str, str]:
        """Return environment variables the program needs beyond its own."""
        return {}

    def files(self, wanted: Wanted) -> list[str]:
        """Return what it is expected to write, for `--dry-run`."""
        return []

    def session(self, wanted: Wanted, rank: int | None) -> Session:
        """Return its part inside the recorded process of a rank (None: the only one)."""
        return Session()

    def finish(self, wanted: Wanted, say: Callable[[str], None]) -> list[Made]:
        """Turn what the pass left into what can be read, after the program has ended.

        Args:
            wanted: as for the pass.
            say: takes a line on what is being done, and on what could not be.

        Raises:
            CaptureError: nothing that can be read came of it; the text says why and what to do.
        """
        return []

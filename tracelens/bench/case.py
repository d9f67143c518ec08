"""What is measured: one thing in one size, and the device that it is measured on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tracelens.hardware.measured import Unit

Clock = Literal["device", "queued", "wall", "host"]
"""How a case is timed.

`device`: between two events on the GPU, around calls that follow one another without a pause; on
the CPU by the wall clock. `queued`: the same, begun while the GPU was kept busy until all calls
were in its queue, so that the host plays no part. `wall`: by the wall clock, the device waited
for. `host`: by the wall clock, the device not waited for: what a call takes of the host's time.
"""


@dataclass(frozen=True)
class Target:
    """The device that is measured.

    Attributes:
        torch: the module, imported.
        device: `cpu` or `cuda:0`.
        quick: fewer sizes, and less time for each.
        free_bytes: of its memory.
        l2_bytes: of its cache; 0: not known.
        capability: compute capability; (0, 0) of a CPU.
    """

    torch: Any
    device: str
    quick: bool = False
    free_bytes: int = 0
    l2_bytes: int = 0
    capability: tuple[int, int] = (0, 0)

    @property
    def is_gpu(self) -> bool:
        """Whether it is no CPU."""
        return self.device != "cpu"


@dataclass(frozen=True)
class Case:
    """One thing in one size.

    Attributes:
        name: see `hardware.measured.Result`.
        unit: of the rate that is told.
        work: bytes or operations of one call; 0 where the time itself is told.
        build: makes what is needed on the device, and returns the call.
        needs_bytes: of the device's memory.
        size: what one call does.
        clock: how it is timed.
        note: what else is to be known.
    """

    name: str
    unit: Unit
    work: int
    build: Callable[[Target], Callable[[], object]]
    needs_bytes: int = 0
    size: dict[str, int] = field(default_factory=dict)
    clock: Clock = "device"
    note: str = ""


@dataclass(frozen=True)
class Measure:
    """A file of this room: ``cases`` gives what is to be measured on a device, small ones first."""

    cases: Callable[[Target], Iterable[Case]]

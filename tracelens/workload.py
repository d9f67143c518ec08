"""What can be recorded by name: its options, what a step costs by formula, and the steps.

A workload is a frozen dataclass in the room `tracelens_workloads`; its fields become options of
`tracelens capture`. What a step costs is known without torch; only `Workload.program` imports it.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, Self

from tracelens import registry
from tracelens.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DTYPES: Final[Mapping[str, int]] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
"""The number formats that matrices are multiplied in, and the bytes of one element in memory."""
_TYPES: Final[Mapping[str, type]] = {"bool": bool, "int": int, "float": float, "str": str}


@dataclass(frozen=True)
class Work:
    """The least that a part of a phase has to do, in one step.

    Attributes:
        part: what it is: `linear`, `attention`, `softmax`, `adamw`, ...
        flops: floating-point operations; a multiplication and its addition are two.
        bytes: moved from and to memory if every operand is read once and every result written
            once, and what one kernel could keep to itself is neither.
        dtype: the format it computes in, one of `DTYPES`: tells which ceiling holds.
        matmul: whether the operations are matrix products, which tensor cores can do.
        wire_bytes: that one process sends to others; they go through memory too, see `bytes`.
    """

    part: str
    flops: int = 0
    bytes: int = 0
    dtype: str = "fp32"
    matmul: bool = True
    wire_bytes: int = 0


@dataclass(frozen=True)
class Cost:
    """What a workload costs by formula.

    Attributes:
        phases: phase (`forward`, `backward`, `optimizer`, ...) -> its parts, of one step in one
            process.
        memory: what stands in memory at the peak, by kind (`parameters`, `gradients`,
            `optimizer state`, `activations`, ...), in bytes in one process.
        parameters: of the model; 0 without one.
        items: what one step works through in all processes, in `unit`.
        unit: `tokens`, `elements`, ...
    """

    phases: Mapping[str, Sequence[Work]]
    memory: Mapping[str, int]
    parameters: int = 0
    items: int = 0
    unit: str = "tokens"

    @property
    def flops(self) -> int:
        """Floating-point operations of a step."""
        return sum(work.flops for parts in self.phases.values() for work in parts)

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory at the peak."""
        return sum(self.memory.values())


class Program(Protocol):
    """A workload built on a device, ready to run."""

    def step(self) -> None:
        """Run one step within `tracelens.step()`, its phases marked, and wait for the device."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The base of all workloads; a field made by `option` is an option of the command line."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Name of a preset -> the values it stands for: `gpt2-xl` is preset `xl` of `gpt2`."""

    def check(self) -> None:
        """Raise UsageError where the options contradict one another (no torch needed)."""

    def cost(self) -> Cost:
        """Return what one step costs by formula (no torch needed)."""
        raise NotImplementedError

    def program(self, device: str) -> Program:
        """Build it on a torch device (`cpu`, `cuda`, `cuda:1`), with the global random seed.

        Where `processes` is more than one, this runs in each of them, with the process group
        made already.

        Raises:
            UsageError: the device cannot do what the options ask for.
        """
        raise NotImplementedError

    @property
    def processes(self) -> int:
        """How many processes (ranks) run it."""
        return 1

    def variants(self) -> Iterable[Self]:
        """Give smaller versions of this, the largest first, to offer where this does not fit."""
        return ()

    def changed(self) -> dict[str, Any]:
        """Return the options that are not at their default, by name."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) != f.default}

    def options(self) -> dict[str, Any]:
        """Return the value of every option, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Option:
    """One option of a workload, as the command line needs it."""

    name: str
    type: type
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    optional: bool = False


def option(default: Any, text: str, *, choices: Iterable[str] = ()) -> Any:
    """Return a dataclass field that is an option: bool, int, float or str, or `None` by default.

    Args:
        default: its value unless given.
        text: one sentence of help.
        choices: the only values it may have.
    """
    return field(default=default, metadata={"help": text, "choices": tuple(choices)})


def options_of(workload: type[Workload]) -> list[Option]:
    """Return the options of a workload, in the order of its fields."""
    found = []
    for one in fields(workload):
        if one.default is MISSING:
            raise TypeError(f"{workload.__name__}.{one.name} has no default")
        name, _, rest = str(one.type).partition(" | ")
        text, choices = one.metadata["help"], one.metadata["choices"]
        found.append(Option(one.name, _TYPES[name], one.default, text, choices, rest == "None"))
    return found


def find(name: str) -> tuple[type[Workload], Mapping[str, Any]]:
    """Return the workload of a name and the values of its preset: `gpt2-xl`, `softmax`.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    stem, preset = split(name)
    workload: type[Workload] = registry.load("workload", stem)
    if not preset:
        return workload, {}
    presets = {key.replace("_", "-"): key for key in workload.presets}
    if (key := presets.get(preset)) is None:
        base = stem.replace("_", "-")
        full = [base, *(f"{base}-{known}" for known in presets)]
        raise UsageError(registry.unknown("workload", name, dict.fromkeys(full)))
    return workload, workload.presets[key]


def split(name: str) -> tuple[str, str]:
    """Return a workload's name in its room, and what stands behind it: its preset, or nothing.

    Raises:
        UsageError: no workload's name begins so.
    """
    known = registry.entries("workload")
    typed = name.lower().replace("_", "-")
    for stem in sorted(known, key=len, reverse=True):
        base = stem.replace("_", "-")
        if typed == base:
            return stem, ""
        if typed.startswith(f"{base}-"):
            return stem, typed[len(base) + 1 :]
    raise UsageError(registry.unknown("workload", name, dict.fromkeys(all_names())))


def all_names() -> list[str]:
    """Return every name that `find` knows, presets included; imports all workloads."""
    found = []
    for stem, entry in registry.entries("workload").items():
        name = stem.replace("_", "-")
        found += [name, *(f"{name}-{p}".replace("_", "-") for p in entry.load().presets)]
    return sorted(found)


def make(workload: type[Workload], values: Mapping[str, Any]) -> Workload:
    """Return a workload with these options, checked.

    Raises:
        UsageError: an option is unknown, of another type, or they contradict one another.
    """
    known = {one.name: one for one in options_of(workload)}
    made = workload()
    for name, value in values.items():
        if name not in known:
            raise UsageError(registry.unknown("option", name, known))
        made = replace(made, **{name: _checked(known[name], value)})
    made.check()
    return made


def _checked(one: Option, value: Any) -> Any:
    if value is None and one.optional:
        return None
    if one.type is float and type(value) is int:
        value = float(value)
    if type(value) is not one.type:
        raise UsageError(f"--{one.name}: {value!r} is no {one.type.__name__}.")
    if one.choices and value not in one.choices:
        near = registry.unknown("value", str(value), dict.fromkeys(one.choices))
        raise UsageError(f"--{one.name.replace('_', '-')}: {near}")
    return value

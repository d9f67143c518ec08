"""Tuned configurations of kernels: files of them, and which one holds on a GPU.

A file is one JSON object per kind of GPU, written by `tracelens bench --tune`; the attributes of
`Store` are its keys. Your own (`place`) come before those that are shipped with the kernels.
`chosen` is asked in every call of a kernel, and takes less than a microsecond.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import math
import os
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tracelens import registry
from tracelens.errors import CaptureError, UnreadableError
from tracelens.hardware import measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tracelens.kernel import Config

KIND: Final = "tuned"
SCHEMA: Final = 1
FILE: Final = "TRACELENS_TUNED"
"""Names a file of tuned configurations in the environment, or is `off`: defaults alone."""

_OFF: Final = "off"
_LARGEST_BYTES: Final = 64 << 20
_LARGEST: Final = 1 << 20
_WARPS: Final = (1, 2, 4, 8, 16, 32)
_MOST_STAGES: Final = 16
_PLAIN: Final = ("_configs", "_checks")  # what they say does not change how fast a kernel is
_NONE: Final[Mapping[tuple[str, str], Config | None]] = {}


@dataclass(frozen=True)
class Circumstances:
    """What a configuration holds for, besides the kernel.

    Attributes:
        gpu: what CUDA calls it.
        capability: its compute capability: `9.0`.
        triton: version, which compiles the kernel.
    """

    gpu: str
    capability: str
    triton: str


@dataclass(frozen=True)
class Entry:
    """The configuration of one kernel's operation for one key.

    Attributes:
        kernel: file name in `ops`: `flash_attention`.
        operation: as in `Kernel.operations`.
        key: as `Tuning.key` makes it.
        config: the best; the default where no other is faster by more than noise.
        default: what the kernel would take otherwise.
        median_s: of a call with the one.
        default_median_s: and with the other, measured in turns with it.
        ratio: median of the paired ratios of the time with `config` to that with `default`.
        low: where the 95 % interval of the ratio begins.
        high: where it ends.
        gpu: see `Circumstances`, as the next two.
        capability: compute capability.
        triton: version.
        torch: version; it is not looked at.
        source: `source_of` the kernel when it was tuned.
        shape: that it was measured in.
        dtype: and the number format.
        tried: how many configurations were.
        made: local time with its offset, ISO 8601.
    """

    kernel: str
    operation: str
    key: str
    config: dict[str, int]
    default: dict[str, int]
    median_s: float
    default_median_s: float
    gpu: str
    capability: str
    triton: str
    source: str
    torch: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    shape: dict[str, int] = field(default_factory=dict)
    dtype: str = ""
    tried: int = 0
    made: str = ""

    @property
    def of(self) -> tuple[str, str, str]:
        """What it is the configuration of."""
        return self.kernel, self.operation, self.key


@dataclass(frozen=True)
class Store:
    """What a file says.

    Attributes:
        entries: each (kernel, operation, key) once.
        damaged: why other entries of the file could not be understood.
        kind: `tuned`.
        schema: 1.
        tracelens: the version that wrote it.
    """

    entries: list[Entry] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    kind: str = KIND
    schema: int = SCHEMA
    tracelens: str = ""


_forced: Mapping[tuple[str, str], Config | None] = _NONE
_known: dict[tuple[int, str, str, str], Config | None] = {}


def chosen(
    kernel: str, operation: str, key: str, default: Config, device: int | None = None
) -> Config:
    """Return the configuration for a kernel's operation: forced, or tuned here, or the default.

    A file that is damaged, of another GPU, another Triton or another state of the kernel's source
    is passed over with one warning.

    Args:
        kernel: file name in `ops`: `flash_attention`.
        operation: as in `Kernel.operations`.
        key: as `Tuning.key` makes it.
        default: where nothing was forced or tuned.
        device: number of the GPU; None: the current one.
    """
    if _forced:
        forced_one = _forced.get((kernel, operation), _NONE)
        if forced_one is None:
            return default
        if forced_one is not _NONE:
            return forced_one  # type: ignore[return-value]
    number = _current() if device is None else device
    try:
        config = _known[number, kernel, operation, key]
    except KeyError:
        config = _looked_up(number, kernel, operation, key, default)
    return default if config is None else config


@contextlib.contextmanager
def forced(kernel: str, operation: str, config: Config | None) -> Iterator[None]:
    """Let a kernel's operation use this configuration, whatever was tuned; None: its default.

    In all threads: backward passes on a GPU run in one of autograd's own.
    """
    global _forced  # noqa: PLW0603 (a variable of the context is not seen by other threads)
    before = _forced
    _forced = {**before, (kernel, operation): config}
    try:
        yield
    finally:
        _forced = before


def forget() -> None:
    """Look at files anew from the next call on: they were written, or the environment changed."""
    _known.clear()
    _warned.clear()
    _here.cache_clear()
    _stores.cache_clear()
    source_of.cache_clear()


def folder() -> Path:
    """Return the folder of the user's own files."""
    return measured.folder() / "tuned"


def place(gpu: str) -> Path:
    """Return where the user's own file of a GPU is, or would be."""
    return folder() / measured.place(gpu).name


def shipped(gpu: str) -> Path | None:
    """Return where the kernels' own file of a GPU is, or would be; None without kernels."""
    spec = importlib.util.find_spec("tracelens_kernels")
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / "tuned" / measured.place(gpu).name if places else None


def load(file: Path) -> Store:
    """Return what a file says; entries that make no sense are in `Store.damaged` alone.

    Raises:
        UnreadableError: it cannot be read, is damaged, is of something else, or is of a newer
            tracelens.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise UnreadableError(f"{file} cannot be read: {error.strerror or error}.") from error
    try:
        return _store(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableError(
            f"{file} is no file of tuned configurations: {error}. "
            "`tracelens bench KERNEL --tune` writes one."
        ) from error


def save(entry: Entry, file: Path) -> None:
    """Write an entry into a file, in place of one of the same kernel, operation and key.

    Raises:
        UnreadableError: there is a file already that cannot be understood.
        CaptureError: it cannot be written.
    """
    from tracelens import __version__

    others = load(file).entries if os.path.lexists(file) else []
    kept = {one.of: one for one in others} | {entry.of: entry}
    store = Store([kept[of] for of in sorted(kept)], tracelens=__version__)
    told = {name: value for name, value in msgspec.to_builtins(store).items() if name != "damaged"}
    text = msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n"
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(text)
        beside.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise CaptureError(f"{file} cannot be written: {error.strerror or error}.") from error


def stale(entry: Entry, here: Circumstances, source: str) -> str:
    """Return why an entry does not hold here, or an empty text."""
    for what, then, now in (
        ("GPU", entry.gpu, here.gpu),
        ("compute capability", entry.capability, here.capability),
        ("triton", entry.triton, here.triton),
    ):
        if then != now:
            return f"tuned for {what} {then[:60]}, and this is {now}"
    return "" if entry.source == source else "tuned before its source changed"


@functools.cache
def source_of(kernel: str) -> str:
    """Return a hash of a kernel's source, and of what it imports from its own distribution.

    Comments, docstrings and layout do not count, nor does the constant `KERNEL`: shapes, formats
    and baselines.
    """
    entry = registry.entries("kernel")[kernel]
    top = entry.module.partition(".")[0]
    digest = hashlib.blake2b(digest_size=16)
    waiting, seen = [entry.module], {entry.module}
    while waiting:
        tree = _parsed(waiting.pop(0))
        if tree is None:
            continue
        for text in _told(tree):
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        for name in sorted(_imported(tree, top) - seen):
            seen.add(name)
            waiting.append(name)
    return digest.hexdigest()


def circumstances(number: int) -> Circumstances:
    """Return what configurations must hold for on a GPU of this process."""
    import torch
    import triton

    about = torch.cuda.get_device_properties(number)
    return Circumstances(about.name, f"{about.major}.{about.minor}", str(triton.__version__))


def is_valid(config: object, default: Config) -> bool:
    """Tell whether a kernel can be compiled with it: the default's names, and sizes of sense."""
    if not isinstance(config, dict) or config.keys() != default.keys():
        return False
    if not all(type(size) is int and 0 <= size <= _LARGEST for size in config.values()):
        return False
    warps, stages = config.get("num_warps", 4), config.get("num_stages", 1)
    return warps in _WARPS and stages <= _MOST_STAGES


_here = functools.cache(circumstances)
_warned: set[str] = set()


def _current() -> int:
    """Return the number of the current GPU; -1: there is none."""
    global _current  # noqa: PLW0603 (asked in every call of every kernel)
    torch = sys.modules.get("torch")
    if torch is None:
        return -1
    ask: Callable[[], int] = torch.cuda.current_device if torch.cuda.is_available() else _nowhere
    _current = ask
    return ask()


def _nowhere() -> int:
    return -1


def _looked_up(
    number: int, kernel: str, operation: str, key: str, default: Config
) -> Config | None:
    """Return the configuration that was tuned for this GPU, and remember it."""
    found = None
    if number >= 0:
        try:
            found = _tuned(_here(number), (kernel, operation, key), default)
        except Exception as error:  # noqa: BLE001 (no file of ours may keep a kernel from running)
            _warn(f"Tuned configurations are not used: {type(error).__name__}: {error}"[:300])
    _known[number, kernel, operation, key] = found
    return found


def _tuned(here: Circumstances, of: tuple[str, str, str], default: Config) -> Config | None:
    for file in _files(here.gpu):
        entry = _entries(file).get(of)
        if entry is None:
            continue
        why = stale(entry, here, source_of(of[0]))
        if not why and not is_valid(entry.config, default):
            why = "not one that it could be compiled with"
        if not why:
            return entry.config
        again = f"`tracelens bench {of[0].replace('_', '-')} --tune` tunes it anew."
        _warn(f"{file}: the configuration of {of[0]} was {why}: its default is used. {again}")
    return None


def _files(gpu: str) -> list[Path]:
    said = os.environ.get(FILE)
    if said == _OFF:
        return []
    if said:
        return [Path(said)]
    own, of_kernels = place(gpu), shipped(gpu)
    return [own, *([of_kernels] if of_kernels else [])]


def _entries(file: Path) -> Mapping[tuple[str, str, str], Entry]:
    if not os.path.lexists(file):
        return {}
    return _stores(file)


@functools.cache
def _stores(file: Path) -> Mapping[tuple[str, str, str], Entry]:
    try:
        store = load(file)
    except UnreadableError as error:
        _warn(f"{error} Defaults are used.")
        return {}
    if store.damaged:
        _warn(f"{file}: {len(store.damaged)} entries are damaged ({store.damaged[0]}), and unused.")
    return {entry.of: entry for entry in store.entries}


def _warn(text: str) -> None:
    """Say it, once in this process; also where warnings are errors a kernel has to run."""
    if text in _warned:
        return
    _warned.add(text)
    with contextlib.suppress(Warning):
        warnings.warn(text, RuntimeWarning, stacklevel=2)


class _Head(msgspec.Struct):
    kind: str = ""
    schema: int = 0
    entries: list[msgspec.Raw] = []
    tracelens: str = ""


def _store(content: bytes) -> Store:
    if len(content) > _LARGEST_BYTES:
        raise ValueError("it is too large")
    head = msgspec.json.decode(content, type=_Head)
    if head.kind != KIND or head.schema != SCHEMA:
        raise ValueError(f"its kind is {head.kind[:40]!r}, schema {head.schema}")
    entries, damaged = [], []
    for raw in head.entries:
        try:
            entries.append(_checked(msgspec.json.decode(raw, type=Entry)))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            damaged.append(str(error)[:160])
    return Store(entries, damaged, tracelens=head.tracelens)


def _checked(entry: Entry) -> Entry:
    for seconds in (entry.median_s, entry.default_median_s):
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"a time of {entry.kernel[:40]!r} is not above zero")
    if not is_valid(entry.config, entry.default):
        raise ValueError(f"the configuration of {entry.kernel[:40]!r} makes no sense")
    return entry


def _parsed(module: str) -> ast.Module | None:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return ast.parse(Path(spec.origin).read_bytes())


def _imported(tree: ast.Module, top: str) -> set[str]:
    """Return the modules of the same distribution that a file imports and that may matter."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    own = {name for name in names if name.startswith(f"{top}.")}
    return {name for name in own if name.rpartition(".")[2] not in _PLAIN and _is_module(name)}


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a name inside of a module
        return False


def _told(node: ast.AST) -> Iterator[str]:
    """Give what a piece of source says, the same in every version of Python."""
    yield type(node).__name__
    for name, value in ast.iter_fields(node):
        parts: Sequence[Any] = value if isinstance(value, list) else [value]
        if name == "body":
            parts = [part for part in parts if not (_is_docstring(part) or _is_constant(part))]
        if isinstance(node, ast.JoinedStr):  # some versions put empty pieces between others
            parts = [part for part in parts if getattr(part, "value", None) != ""]
        for part in parts:
            if isinstance(part, ast.AST):
                yield from _told(part)
            elif part is not None:
                yield f"{name}={part!r}"


def _is_docstring(node: object) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_constant(node: object) -> bool:
    """Tell whether it is the constant that the bench reads."""
    name = registry.ROOMS["kernel"].constant
    if isinstance(node, ast.Assign):
        return any(isinstance(to, ast.Name) and to.id == name for to in node.targets)
    return isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == name

"""What is to be measured: the cells of kernels, operations, formats and shapes that were named."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tracelens import kernel as kernels
from tracelens import registry
from tracelens.bench.cell import QUANTITIES, STATES, Cell
from tracelens.errors import CaptureError, TracelensError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tracelens.kernel import Kernel

ALL: Final = "all"
NONE: Final = "none"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked for; what is empty is what the kernel itself says.

    Attributes:
        kernels: names.
        shapes: as `kernel.parse_shape` reads them.
        dtypes: number formats, or `all`.
        operations: names, or `all`; empty: the first.
        baselines: implementations besides ours, or `none`; empty: all.
        quantities: names, or `all`.
        l2: states of the cache, or `all`.
        like: the rest of each cell.
    """

    kernels: Sequence[str]
    shapes: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    operations: Sequence[str] = ()
    baselines: Sequence[str] = ()
    quantities: Sequence[str] = ()
    l2: Sequence[str] = ()
    like: Cell = Cell(kernel="", shape={}, dtype="")  # noqa: RUF009 (frozen)


def loaded(names: Sequence[str]) -> dict[str, Kernel]:
    """Return kernels by the names of their files; `all` names every one.

    Raises:
        UsageError: there is none of a name.
        CaptureError: its file cannot be imported.
    """
    known = registry.entries("kernel")
    if ALL in names:
        names = sorted(known)
    return {name.replace("-", "_"): _loaded(name) for name in names}


def cells(asked: Asked) -> tuple[Cell, ...]:
    """Return the cells, each once: kernel by kernel, and shape by shape.

    Raises:
        UsageError: something was named that there is not, or nothing would be measured.
        CaptureError: a kernel cannot be imported.
    """
    found = loaded(asked.kernels)
    _check_names(asked, found)
    quantities = _among("quantity", asked.quantities, QUANTITIES) or asked.like.quantities
    states = _among("state of the cache", asked.l2, STATES) or asked.like.l2
    like = replace(asked.like, quantities=quantities, l2=states)
    plan: dict[str, Cell] = {}
    for name, kernel in found.items():
        for cell in _of_kernel(name, kernel, asked, like):
            plan.setdefault(repr((cell.kernel, cell.operation, cell.dtype, cell.shape)), cell)
    if not plan:
        raise UsageError("Nothing that was named has all of these operations and formats.")
    return tuple(plan.values())


def shapes_of(name: str, kernel: Kernel, texts: Sequence[str]) -> list[dict[str, int]]:
    """Return the shapes that were named, or the kernel's own.

    Raises:
        UsageError: one is none of this kernel.
    """
    if not texts:
        return [kernels.complete(kernel, shape) for shape in kernel.shapes]
    try:
        return [kernels.parse_shape(kernel, text) for text in texts]
    except UsageError as error:
        raise UsageError(f"{name.replace('_', '-')}: {error}") from error


def _loaded(name: str) -> Kernel:
    try:
        return kernels.find(name)
    except TracelensError:
        raise
    except ModuleNotFoundError as error:
        raise CaptureError(
            f"{name} needs {error.name}, which is not installed: "
            "pip install 'tracelens-gpu[kernels]'."
        ) from error
    except Exception as error:
        raise CaptureError(
            f"{name} cannot be loaded: {type(error).__name__}: {str(error)[:200]}"
        ) from error


def _of_kernel(name: str, kernel: Kernel, asked: Asked, like: Cell) -> Iterator[Cell]:
    dtypes = _wanted(asked.dtypes, kernel.dtypes, kernel.dtypes[:1])
    operations = _wanted(
        asked.operations, tuple(kernel.operations), (next(iter(kernel.operations)),)
    )
    for operation in operations:
        implementations = _implementations(kernel, operation, asked.baselines)
        for dtype in dtypes:
            for shape in shapes_of(name, kernel, asked.shapes):
                yield replace(
                    like,
                    kernel=name,
                    operation=operation,
                    shape=shape,
                    dtype=dtype,
                    implementations=implementations,
                )


def _wanted(
    names: Sequence[str], known: tuple[str, ...], unless_named: tuple[str, ...]
) -> tuple[str, ...]:
    """Return those of the names that there are, in the kernel's order."""
    if ALL in names:
        return known
    return tuple(name for name in known if name in names) if names else unless_named


def _implementations(kernel: Kernel, operation: str, baselines: Sequence[str]) -> tuple[str, ...]:
    known = tuple(kernel.operations[operation].implementations)
    ours = tuple(name for name in known if name == kernels.OURS)
    others = tuple(name for name in known if name != kernels.OURS)
    if baselines and ALL not in baselines:
        others = tuple(name for name in others if name in baselines)
    return (*ours, *others)


def _check_names(asked: Asked, found: Mapping[str, Kernel]) -> None:
    """Raise UsageError where a name is of none of the kernels."""
    operations = {name: one for kernel in found.values() for name, one in kernel.operations.items()}
    baselines = {
        name: None
        for kernel in found.values()
        for operation in kernel.operations.values()
        for name in operation.implementations
        if name != kernels.OURS
    }
    formats = {dtype: None for kernel in found.values() for dtype in kernel.dtypes}
    checks: tuple[tuple[str, Sequence[str], Mapping[str, Any]], ...] = (
        ("operation", asked.operations, operations),
        ("number format", asked.dtypes, formats),
        ("baseline", asked.baselines, {**baselines, NONE: None}),
    )
    for what, names, known in checks:
        for name in names:
            if name != ALL and name not in known:
                raise UsageError(registry.unknown(what, name, known))


def _among(what: str, names: Sequence[str], known: tuple[Any, ...]) -> tuple[Any, ...]:
    if ALL in names:
        return known
    for name in names:
        if name not in known:
            raise UsageError(registry.unknown(what, name, dict.fromkeys(known)))
    return tuple(one for one in known if one in names)

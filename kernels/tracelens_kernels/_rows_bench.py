"""What the bench asks of kernels that work row by row: inputs, references, baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracelens.kernel import OURS, Implementation, Tuning
from tracelens.workload import DTYPES, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch
    from torch import Tensor

    from tracelens.kernel import Config, Shape, Tensors

    Function = Callable[[Mapping[str, Tensor]], Tensor]
    """An output of inputs by name, differentiable in those."""

SHAPES: Final[tuple[Shape, ...]] = tuple(
    {"rows": rows, "columns": columns}
    for rows, columns in (
        (8192, 8192),
        (4096, 16384),
        (8192, 32768),
        (65536, 768),
        (1823, 781),
        (1024, 131072),
    )
)
"""Shapes that are measured: the targets', short rows, an irregular shape, and long rows."""
FORMATS: Final = ("bf16", "fp16", "fp32")
SIZES: Final = DTYPES
"""Bytes of an element of each format."""
_ELEMENTS: Final = 1 << 24
"""Of a matrix that is looked at in float64 at a time: 128 MiB."""


def source(device: str, seed: int) -> torch.Generator:
    """Return a source of random numbers on a device."""
    import torch

    return torch.Generator(device).manual_seed(seed)


def random(sizes: Sequence[int], dtype: str, generator: torch.Generator) -> Tensor:
    """Return numbers of a format, drawn from N(0, 1) on the generator's device."""
    import torch

    from tracelens_kernels import _rows

    numbers = torch.empty(*sizes, dtype=_rows.DTYPES[dtype], device=generator.device)
    return numbers.normal_(generator=generator)


def matrices(*names: str, vectors: tuple[str, ...] = ()) -> Callable[..., dict[str, Tensor]]:
    """Return what makes random matrices [rows, columns] and vectors [columns], by name."""

    def inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
        generator = source(device, seed)
        sizes = (shape["rows"], shape["columns"])
        found = {name: random(sizes, dtype, generator) for name in names}
        return found | {name: random(sizes[1:], dtype, generator) for name in vectors}

    return inputs


def traffic(part: str, flops: int, passes: int, vectors: int = 0) -> Callable[[Shape, str], Work]:
    """Return what counts the work of a matrix that crosses memory so many times.

    Args:
        part: what it is called.
        flops: of an element.
        passes: matrices that are read or written.
        vectors: of its columns, that are read or written.
    """

    def work(shape: Shape, dtype: str) -> Work:
        elements = shape["rows"] * shape["columns"]
        moved = (passes * elements + vectors * shape["columns"]) * SIZES[dtype]
        return Work(part, flops * elements, moved, dtype, matmul=False)

    return work


def forward(ours: Function, plain: Function, eager: str) -> dict[str, Implementation]:
    """Return our function, plain PyTorch's and that compiled, each giving `y`."""

    def build_with(run: Function) -> Callable[[Tensors, Shape], Callable[[], Tensors]]:
        return lambda tensors, _shape: lambda: {"y": run(tensors)}

    return _three(build_with, ours, plain, eager)


def backward(
    ours: Function, plain: Function, eager: str, wanted: tuple[str, ...]
) -> dict[str, Implementation]:
    """Return the same, each giving the gradients of inputs: `dx`, `dweight`.

    The input `dy` is the gradient of what the functions return.
    """

    def build_with(run: Function) -> Callable[[Tensors, Shape], Callable[[], Tensors]]:
        def build(tensors: Tensors, _shape: Shape) -> Callable[[], Tensors]:
            import torch

            leaves = {name: tensors[name].detach().requires_grad_() for name in wanted}
            y = run({**tensors, **leaves})

            def call() -> Tensors:
                found = torch.autograd.grad(
                    y, list(leaves.values()), tensors["dy"], retain_graph=True
                )
                return {f"d{name}": one for name, one in zip(wanted, found, strict=True)}

            return call

        return build

    return _three(build_with, ours, plain, eager)


def _three(
    build_with: Callable[[Function], Callable[[Tensors, Shape], Callable[[], Tensors]]],
    ours: Function,
    plain: Function,
    eager: str,
) -> dict[str, Implementation]:
    def build_compiled(tensors: Tensors, shape: Shape) -> Callable[[], Tensors]:
        call = build_with(compiled(plain))(tensors, shape)
        call()
        return call

    return {
        OURS: Implementation("Triton", build_with(ours)),
        "eager": Implementation(eager, build_with(plain)),
        "compile": Implementation("the same by torch.compile", build_compiled),
    }


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function compiled for the shapes it is given, whose backward can be run again."""
    import torch
    from torch._functorch import config

    config.donated_buffer = False  # it would forbid `retain_graph`
    fast: Callable[..., Any] = torch.compile(function, dynamic=False)
    return fast


def in_float64(
    function: Function, outputs: Mapping[str, str]
) -> Callable[[Tensors, Shape], dict[str, Tensor]]:
    """Return the reference of a function of rows: computed in float64, some rows at a time.

    Args:
        function: see `Function`.
        outputs: name of an output -> what it is: `y`, or the input whose gradient it is. Vectors
            are inputs of every row, so their gradients are added up.
    """

    def reference(tensors: Tensors, shape: Shape) -> dict[str, Tensor]:
        import torch

        step = max(1, _ELEMENTS // shape["columns"])
        found: dict[str, list[Tensor]] = {name: [] for name in outputs}
        for start in range(0, shape["rows"], step):
            some = {
                name: (one if one.ndim == 1 else one[start : start + step]).double()
                for name, one in tensors.items()
            }
            leaves = {of: some[of].requires_grad_() for of in outputs.values() if of != "y"}
            y = function({**some, **leaves})
            gradients = torch.autograd.grad(y, list(leaves.values()), some["dy"]) if leaves else ()
            given = {"y": y.detach()} | dict(zip(leaves, gradients, strict=True))
            for name, of in outputs.items():
                matrix = given[of].ndim > 1
                found[name].append(given[of].float() if matrix else given[of])
        return {
            name: torch.cat(parts) if parts[0].ndim > 1 else torch.stack(parts).sum(0)
            for name, parts in found.items()
        }

    return reference


def tuning(default: Callable[[int, str], Config], operation: str) -> Tuning:
    """Return how the configuration of a row-wise operation is looked for."""

    def wanted(shape: Shape, _dtype: str) -> Config:
        return default(shape["columns"], operation)

    def coarse(shape: Shape, _dtype: str) -> Iterator[Config]:
        return _coarse(shape["columns"], operation)

    return Tuning(key, wanted, coarse, _fine)


def key(shape: Shape, dtype: str) -> str:
    """Return under which key configurations of rows so long are kept."""
    from tracelens_kernels._rows import columns_key

    return columns_key(shape["columns"], dtype)


def _coarse(columns: int, operation: str) -> Iterator[Config]:
    """Give rows in registers, by threads and programs, and rows read twice, by block."""
    from tracelens_kernels._rows import config, power_of_2

    block = power_of_2(columns)
    if block <= 65536:
        tall = max(1, 2048 // block)
        for warps in (4, 8, 16, 32):
            if 4 <= tall * block // (32 * warps) <= 64:
                for programs in (0, 1, 2, 4):
                    if programs or operation == "forward":
                        yield config(rows=tall, num_warps=warps, programs=programs)
    if block >= 4096:
        for part in (2048, 4096, 8192, 16384):
            for warps in (8, 16, 32):
                if 8 <= part // (32 * warps) <= 32:
                    yield config(block=part, num_warps=warps, programs=int(operation == "backward"))


def _fine(best: Config, _shape: Shape, _dtype: str) -> Iterator[Config]:
    """Give the neighbours of a configuration: taller tiles, loads ahead, more programs."""
    for warps in (best["num_warps"] // 2, best["num_warps"], best["num_warps"] * 2):
        if not 1 <= warps <= 32:
            continue
        if best["block"]:
            for block in (best["block"] // 2, best["block"], best["block"] * 2):
                yield {**best, "block": block, "num_warps": warps}
            continue
        for rows in {max(1, best["rows"] // 2), best["rows"], best["rows"] * 2}:
            for stages in (1, 2, 3):
                for programs in {best["programs"], max(1, best["programs"]) * 2}:
                    yield {
                        **best,
                        "rows": rows,
                        "stages": stages,
                        "programs": programs,
                        "num_warps": warps,
                    }

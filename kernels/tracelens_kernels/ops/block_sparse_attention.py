"""Attention in which each block of queries sees listed blocks of keys alone.

    Oᵢ = Σⱼ softmaxⱼ(scale · qᵢ · kⱼ) vⱼ   over the keys j of the blocks that the block of i lists

`block_sparse_attention` does it in one kernel, as flash attention over the listed blocks, and
keeps nothing of the size of a block in memory; where there are few blocks of queries their lists
are split over several programs, whose results are added. `block_sparse_attention_unfused` is what
it is held against: a grouped product for the scores, a softmax over each row's segments in place,
and a grouped product with the values, with all weights in memory between. Sums are float32.

A block of queries that lists no keys has output 0. The lists are checked when a `BlockStructure`
is made of them, once; a call with one does not wait for the GPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import torch

from tracelens.kernel import OURS, Implementation, Kernel, Operation, Tuning
from tracelens.workload import DTYPES, Work
from tracelens_kernels import _checks, _configs
from tracelens_kernels._attention import bench, block_sparse, dense, launching, tuning
from tracelens_kernels._attention.block_sparse import BlockStructure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from tracelens.kernel import Config, Shape, Tensors

    Blocks = BlockStructure | Tensor | tuple[Tensor, Tensor]

__all__ = ["KERNEL", "BlockStructure", "block_sparse_attention", "block_sparse_attention_unfused"]


def block_sparse_attention(  # noqa: PLR0917
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: Blocks,
    block_size: int = 128,
    scale: float | None = None,
) -> Tensor:
    """Return attention over the listed blocks of keys; differentiable once.

    Args:
        q: [B, H, Sq, D], or [Sq, D], which is one head; float32, float16 or bfloat16; D ≤ 256.
        k: [B, Hkv, Sk, D] or [Sk, D], of the same format, with H a multiple of Hkv.
        v: as k.
        blocks: a `BlockStructure`; or what one is made of in every call, which waits for the GPU:
            compressed rows (offsets, columns), or a mask, bool [query blocks, key blocks]. One
            list for all heads, or one for each, or for each of each member of the batch.
        block_size: of lists that are no structure yet: 16, 32, 64, 128 or 256.
        scale: of the products, positive; D ** -0.5 unless given.

    Raises:
        ValueError: shapes do not fit one another or the lists, which must be on the same GPU; a
            block is listed twice or is not there; a tensor is empty or on the wrong device; or
            scale is not positive.
        TypeError: formats differ, or are none of the three; lists are no integers.
        RuntimeError: the GPU is too old.
    """
    if torch.compiler.is_compiling():
        out: Tensor = _apart(q, k, v, blocks, block_size, scale)
        return out
    return _attend(q, k, v, blocks, block_size, scale)


def block_sparse_attention_unfused(  # noqa: PLR0917
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks: Blocks,
    block_size: int = 128,
    scale: float | None = None,
) -> Tensor:
    """Return `block_sparse_attention`, by three kernels with all weights in memory; no gradient.

    The scores are kept in the format of q before and after the softmax: in float16 one above
    65,504 is infinite.

    Raises:
        RuntimeError: an input needs a gradient, or the GPU is too old.
        ValueError: see `block_sparse_attention`.
        TypeError: see `block_sparse_attention`.
    """
    if dense.is_differentiated(q, k, v):
        raise RuntimeError(
            "block_sparse_attention_unfused has no gradient: use block_sparse_attention."
        )
    q4, k4, v4, structure, _ = _checked(q, k, v, blocks, block_size)
    scale = dense.scale_of(q, scale)
    config = block_sparse.default_unfused(q4, structure)
    return block_sparse.unfused(q4, k4, v4, structure, scale, config).view_as(q)


class _BlockSparse(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        structure: BlockStructure,
        run: block_sparse.Forward,
        scale: float,
    ) -> Tensor:
        o, lse = run(q, k, v, structure, scale=scale)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.structure, ctx.scale = structure, scale
        return o

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dense.once("block_sparse_attention")
        q, k, v, o, lse = ctx.saved_tensors
        config = _backward_config(q, ctx.structure)
        gradients = block_sparse.backward(
            grads[0], q, k, v, o, lse, ctx.structure, ctx.scale, config
        )
        return (*dense.needed(gradients, ctx.needs_input_grad[:3]), None, None, None)


def _attend(  # noqa: PLR0917
    q: Tensor, k: Tensor, v: Tensor, blocks: Blocks, block_size: int, scale: float | None
) -> Tensor:
    q, k, v = dense.autocast(q, k, v)
    q4, k4, v4, structure, run = _checked(q, k, v, blocks, block_size)
    scale = dense.scale_of(q, scale)
    if dense.is_differentiated(q, k, v):
        out: Tensor = _BlockSparse.apply(q4, k4, v4, structure, run, scale)
    else:
        out, _ = run(q4, k4, v4, structure, scale=scale)
    return out if q.dim() == 4 else out[0, 0]


_apart = torch.compiler.disable(_attend)


def _checked(
    q: Tensor, k: Tensor, v: Tensor, blocks: Blocks, block_size: int
) -> tuple[Tensor, Tensor, Tensor, BlockStructure, block_sparse.Forward]:
    """Return q, k, v with all axes, the structure, and what does a forward pass of this form."""
    dims = {one.dim() for one in (q, k, v)}
    _checks.shaped(
        "q, k, v [B, H, S, D] or [S, D]", ok=len(dims) == 1 and dims <= {2, 4}, q=q, k=k, v=v
    )
    if dims == {2}:
        q, k, v = q[None, None], k[None, None], v[None, None]
    q, k, v = (one if one.stride(-1) == 1 else one.contiguous() for one in (q, k, v))
    structure = blocks if isinstance(blocks, BlockStructure) else _made(blocks, k, block_size)
    form = launching.form_of(q, k, v)
    if (run := structure.kept.get(form)) is None:
        dense.check(q, k, v)
        _check_structure(q, k, structure)
        run = structure.kept.add(form, block_sparse.Forward(q, structure))
    return q, k, v, structure, run


def _made(blocks: Tensor | tuple[Tensor, Tensor], k: Tensor, block_size: int) -> BlockStructure:
    if isinstance(blocks, torch.Tensor):
        return BlockStructure.from_mask(blocks, block_size, k.device)
    offsets, columns = blocks
    key_blocks = math.ceil(k.shape[2] / block_size) if block_size > 0 else 0
    return BlockStructure(
        offsets, columns, key_blocks=key_blocks, block_size=block_size, device=k.device
    )


_MOST_HEADS: Final = 65_535
"""Programs that a launch has along an axis other than the first."""


def _check_structure(q: Tensor, k: Tensor, structure: BlockStructure) -> None:
    if q.shape[0] * q.shape[1] > _MOST_HEADS:
        raise ValueError(
            f"q has {q.shape[0]} x {q.shape[1]} heads; at most {_MOST_HEADS} are possible: "
            "split the batch."
        )
    if structure.columns.device != q.device:
        raise ValueError(
            f"q is on {q.device}, and the lists on {structure.columns.device}: make the "
            "BlockStructure with that device."
        )
    size = structure.block_size
    there = math.ceil(q.shape[2] / size), math.ceil(k.shape[2] / size)
    listed = structure.query_blocks, structure.key_blocks
    if there != listed:
        raise ValueError(
            f"q and k have {there[0]} and {there[1]} blocks of {size}; the lists are for "
            f"{listed[0]} and {listed[1]}."
        )
    if structure.lists not in {1, q.shape[1], q.shape[0] * q.shape[1]}:
        raise ValueError(
            f"There are {structure.lists} lists; with {q.shape[0]} x {q.shape[1]} heads there "
            f"must be 1, {q.shape[1]} or {q.shape[0] * q.shape[1]}."
        )


def _backward_config(q: Tensor, structure: BlockStructure) -> Config:
    default, key = block_sparse.default_backward(q, structure), block_sparse.key_of(q, structure)
    return _configs.chosen("block_sparse_attention", "backward", key, default)


def _size(shape: Shape) -> int:
    """Return the blocks of queries; as many of keys."""
    return shape["query_blocks"] or round(math.sqrt(shape["blocks"] / 0.2))


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    generator = torch.Generator(device).manual_seed(seed)
    form = bench.torch_dtype(dtype)
    rows = _size(shape) * shape["block"]
    size = (shape["batch"], shape["heads"], rows, shape["head_dim"])
    tensors = {
        name: torch.randn(size, generator=generator, device=device, dtype=form)
        for name in ("q", "k", "v", "do")
    }
    blocks = _size(shape)
    places = torch.randperm(blocks * blocks, generator=generator, device=device)
    mask = torch.zeros(blocks * blocks, dtype=torch.bool, device=device)
    mask[places[: shape["blocks"]]] = True
    return {**tensors, "mask": mask.reshape(blocks, blocks)}


def reference(  # noqa: PLR0917
    q: Tensor,
    k: Tensor,
    v: Tensor,
    structure: BlockStructure,
    scale: float,
    do: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return o, and with do also dq, dk, dv, of [B, H, S, D] in float64, by masked attention."""
    group = q.shape[1] // k.shape[1]
    found = {"o": torch.empty_like(q, dtype=torch.float64)}
    if do is not None:
        found["dq"] = torch.empty_like(found["o"])
        found["dk"] = torch.zeros_like(k, dtype=torch.float64)
        found["dv"] = torch.zeros_like(found["dk"])
    masks = structure.mask()
    for place in range(q.shape[0] * q.shape[1]):
        at = divmod(place, q.shape[1])
        kv_at = at[0], at[1] // group
        q1, k1, v1 = q[at].double(), k[kv_at].double(), v[kv_at].double()
        p = _weights(q1, k1, _elements(masks[place % len(masks)], structure, q1, k1), scale)
        found["o"][at] = p @ v1
        if do is not None:
            do1 = do[at].double()
            ds = p * (do1 @ v1.mT - (do1 * found["o"][at]).sum(-1, keepdim=True)) * scale
            found["dq"][at] = ds @ k1
            found["dk"][kv_at] += ds.mT @ q1
            found["dv"][kv_at] += p.mT @ do1
    return found


def _elements(mask: Tensor, structure: BlockStructure, q: Tensor, k: Tensor) -> Tensor:
    """Return the mask of queries and keys of a mask of blocks."""
    size = structure.block_size
    return mask.repeat_interleave(size, 0).repeat_interleave(size, 1)[: len(q), : len(k)]


def _weights(q: Tensor, k: Tensor, seen: Tensor, scale: float) -> Tensor:
    p = torch.softmax((q @ k.mT * scale).masked_fill(~seen, -torch.inf), -1)
    return p.masked_fill(~seen, 0)  # of queries that see nothing softmax is not a number


def _structure(tensors: Tensors, shape: Shape) -> BlockStructure:
    return BlockStructure.from_mask(tensors["mask"], shape["block"])


def _expected(operation: str) -> Callable[[Tensors, Shape], Tensors]:
    def expected(tensors: Tensors, shape: Shape) -> Tensors:
        do = None if operation == "forward" else tensors["do"]
        scale = shape["head_dim"] ** -0.5
        q, k, v = (tensors[name] for name in "qkv")
        found = reference(q, k, v, _structure(tensors, shape), scale, do)
        return found if do is None else {name: found[name] for name in ("dq", "dk", "dv")}

    return expected


def _build(
    operation: str, make: Callable[[Tensors, Shape], Callable[..., Tensor]]
) -> Callable[[Tensors, Shape], Callable[[], Tensors]]:
    """Return the `build` of an operation, of what makes a function of q, k and v."""

    def build(tensors: Tensors, shape: Shape) -> Callable[[], Tensors]:
        attend = make(tensors, shape)
        q, k, v = (tensors[name].detach() for name in "qkv")
        if operation == "forward":

            def forward() -> Tensors:
                with torch.no_grad():
                    return {"o": attend(q, k, v)}

            return forward
        needing = tuple(one.requires_grad_() for one in (q, k, v))
        out = attend(*needing)

        def backward() -> Tensors:
            found = torch.autograd.grad(out, needing, tensors["do"], retain_graph=True)
            return dict(zip(("dq", "dk", "dv"), found, strict=True))

        return backward

    return build


def _ours(tensors: Tensors, shape: Shape) -> Callable[..., Tensor]:
    structure = _structure(tensors, shape)
    return lambda q, k, v: block_sparse_attention(q, k, v, structure)


def _unfused(tensors: Tensors, shape: Shape) -> Callable[..., Tensor]:
    structure = _structure(tensors, shape)
    return lambda q, k, v: block_sparse_attention_unfused(q, k, v, structure)


def _seen(tensors: Tensors, shape: Shape) -> Tensor:
    structure = _structure(tensors, shape)
    return _elements(structure.mask()[0], structure, tensors["q"][0, 0], tensors["k"][0, 0])


def _eager(tensors: Tensors, shape: Shape) -> Callable[..., Tensor]:
    seen, scale = _seen(tensors, shape), shape["head_dim"] ** -0.5
    return lambda q, k, v: _weights(q, k, seen, scale) @ v


def _compiled(tensors: Tensors, shape: Shape) -> Callable[..., Tensor]:
    compiled: Callable[..., Tensor] = torch.compile(_eager(tensors, shape))
    return compiled


def _masked_sdpa(tensors: Tensors, shape: Shape) -> Callable[..., Tensor]:
    seen = _seen(tensors, shape)
    return lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def _flex(tensors: Tensors, shape: Shape) -> Callable[..., Tensor]:
    from torch.nn.attention import flex_attention as flex

    mask, size = tensors["mask"], shape["block"]
    rows = len(mask) * size
    lists = flex.create_block_mask(
        lambda _b, _h, i, j: mask[i // size, j // size],
        None, None, rows, rows, device=str(mask.device), BLOCK_SIZE=size,
    )  # fmt: skip
    compiled: Any = torch.compile(flex.flex_attention)
    return lambda q, k, v: compiled(q, k, v, block_mask=lists)


def _work(operation: str) -> Callable[[Shape, str], Work]:
    def work(shape: Shape, dtype: str) -> Work:
        heads = shape["batch"] * shape["heads"]
        each = _size(shape) * shape["block"] * shape["head_dim"] * DTYPES[dtype]
        flops = 4 * shape["blocks"] * shape["block"] ** 2 * shape["head_dim"] * heads
        if operation == "forward":
            return Work("attention", flops, 4 * each * heads, dtype)
        return Work("attention", flops * 5 // 2, 8 * each * heads, dtype)

    return work


def _needs_gpu(_shape: Shape, _dtype: str) -> str:
    return "" if torch.cuda.is_available() else "needs an NVIDIA GPU"


def _no_sdpa(shape: Shape, _dtype: str) -> str:
    few = shape["blocks"] < 5 * _size(shape)
    return "a query may see nothing, of which it makes something else than 0" if few else ""


def _no_kernel(_shape: Shape, _dtype: str) -> str:
    there = torch.cuda.is_available() or _checks.interpreted()
    return "" if there else "needs an NVIDIA GPU"


def _operation(name: str) -> Operation:
    ways = {
        OURS: Implementation("one Triton kernel", _build(name, _ours), _no_kernel),
        "unfused": Implementation(
            "three Triton kernels, weights in memory", _build(name, _unfused), _no_kernel
        ),
        "eager": Implementation("masked products and softmax", _build(name, _eager)),
        "compile": Implementation("torch.compile of eager", _build(name, _compiled), _needs_gpu),
        "sdpa": Implementation("SDPA with a mask", _build(name, _masked_sdpa), _no_sdpa),
        "flex": Implementation("FlexAttention, compiled", _build(name, _flex), _needs_gpu),
    }
    if name == "backward":
        del ways["unfused"]
    return Operation(
        work=_work(name), inputs=_inputs, reference=_expected(name), implementations=ways
    )


def _shape(blocks: int, **others: int) -> Shape:
    return {name: default or 0 for name, default in _AXES.items()} | {"blocks": blocks, **others}


_AXES: Final[Mapping[str, int | None]] = {
    "blocks": None,
    "query_blocks": 0,  # so many that a fifth of all pairs is listed
    "head_dim": 64,
    "block": 128,
    "batch": 1,
    "heads": 1,
}


def _meant(shape: Shape, dtype: str) -> tuple[Tensor, BlockStructure]:
    """Return a q and a structure of a shape, as far as a configuration depends on them."""
    tensors = _inputs({**shape, "batch": 1, "heads": 1}, dtype, "cpu", 0)
    q = tensors["q"].expand(shape["batch"], shape["heads"], -1, -1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return q.to(device), BlockStructure.from_mask(tensors["mask"], shape["block"])


def _tuning_key(shape: Shape, dtype: str) -> str:
    return block_sparse.key_of(*_meant(shape, dtype))


def _tuning_default(shape: Shape, dtype: str) -> Config:
    return block_sparse.default_forward(*_meant(shape, dtype))


def _coarse(shape: Shape, dtype: str) -> Iterable[Config]:
    default = _tuning_default(shape, dtype)
    return tuning.block_sparse_tiles(default, shape["block"], shape["head_dim"], dtype)


KERNEL = Kernel(
    axes=_AXES,
    shapes=(
        _shape(800),
        _shape(1600),
        _shape(3200),
        _shape(100, query_blocks=50, block=64, head_dim=80, batch=2, heads=3),
        _shape(700, query_blocks=32, head_dim=128, heads=16),
    ),
    dtypes=("fp16", "bf16", "fp32"),
    operations={name: _operation(name) for name in ("forward", "backward")},
    tuning={"forward": Tuning(_tuning_key, _tuning_default, _coarse)},
    function=lambda: block_sparse_attention,
)

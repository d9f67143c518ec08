"""What attention is held against: shapes, inputs, a reference in float64, PyTorch's own ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracelens.kernel import OURS, Implementation, Operation
from tracelens.workload import DTYPES, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch import Tensor

    from tracelens.kernel import Shape, Tensors

    Attention = Callable[[Tensor, Tensor, Tensor, bool, float], Tensor]

AXES: Final[Mapping[str, int | None]] = {
    "batch": None,
    "heads": None,
    "queries": None,
    "head_dim": 64,
    "keys": 0,  # as many as queries
    "kv_heads": 0,  # as many as heads
    "causal": 0,
}


def _shape(batch: int, heads: int, queries: int, head_dim: int, **others: int) -> Shape:
    return {**dict.fromkeys(AXES, 0), "batch": batch, "heads": heads, "queries": queries,
            "head_dim": head_dim, **others}  # fmt: skip


SHAPES: Final = (
    *(
        _shape(*sizes, causal=causal)
        for sizes in (
            (4, 16, 2048, 64),
            (16, 16, 2048, 64),
            (4, 16, 8192, 128),
            (2, 16, 16384, 128),
            (1, 16, 16384, 64),
            (32, 32, 4096, 128),
        )
        for causal in (0, 1)
    ),
    _shape(1, 8, 128, 64),
    _shape(4, 16, 512, 64),
    _shape(2, 8, 1000, 64, causal=1),
    _shape(2, 16, 512, 128, keys=4096, causal=1),
    _shape(2, 32, 4096, 128, kv_heads=8, causal=1),
    _shape(4, 12, 1024, 80, causal=1),
    _shape(8, 32, 1, 128, keys=8192, kv_heads=8),
    _shape(2, 8, 4096, 256, causal=1),
)
"""Those of PyTorch's own measurements, of two courses, and some that fill no tile."""


def keys(shape: Shape) -> int:
    """Return how many keys each head has."""
    return shape["keys"] or shape["queries"]


def kv_heads(shape: Shape) -> int:
    """Return how many heads of keys there are."""
    return shape["kv_heads"] or shape["heads"]


def pairs(shape: Shape) -> int:
    """Return how many keys the queries of one head see together."""
    queries, seen = shape["queries"], keys(shape)
    if not shape["causal"]:
        return queries * seen
    first = seen - queries + 1  # what query 0 sees, if that is any
    blind = max(0, -first + 1) if first < 1 else 0
    seeing = max(0, queries - blind)
    return (max(first, 1) + seen) * seeing // 2


def _elements(shape: Shape) -> tuple[int, int, int]:
    """Return the elements of Q, of K, and the rows of Q."""
    rows = shape["batch"] * shape["heads"] * shape["queries"]
    kv = shape["batch"] * kv_heads(shape) * keys(shape) * shape["head_dim"]
    return rows * shape["head_dim"], kv, rows


def forward_work(shape: Shape, dtype: str) -> Work:
    """Return 4·D operations per visible pair; Q, K, V read, O and the logarithms written."""
    q, kv, rows = _elements(shape)
    flops = 4 * shape["batch"] * shape["heads"] * pairs(shape) * shape["head_dim"]
    return Work("attention", flops, DTYPES[dtype] * (2 * q + 2 * kv) + 4 * rows, dtype)


def backward_work(shape: Shape, dtype: str) -> Work:
    """Return five products for the two of forward; all of it read, and three gradients written."""
    q, kv, rows = _elements(shape)
    flops = forward_work(shape, dtype).flops * 5 // 2
    return Work("attention", flops, DTYPES[dtype] * (4 * q + 4 * kv) + 4 * rows, dtype)


def both_work(shape: Shape, dtype: str) -> Work:
    """Return the work of forward and backward together."""
    one, other = forward_work(shape, dtype), backward_work(shape, dtype)
    return Work("attention", one.flops + other.flops, one.bytes + other.bytes, dtype)


def torch_dtype(dtype: str) -> torch.dtype:
    """Return torch's name of a format."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(dtype, torch.float32)


def inputs(shape: Shape, dtype: str, device: str, seed: int) -> Tensors:
    """Return random q, k, v, and do, the gradient of the output."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)

    def normal(heads: int, rows: int) -> Tensor:
        size = (shape["batch"], heads, rows, shape["head_dim"])
        form = torch_dtype(dtype)
        return torch.randn(size, generator=generator, device=device, dtype=form)

    heads, queries = shape["heads"], shape["queries"]
    few, seen = kv_heads(shape), keys(shape)
    return {
        "q": normal(heads, queries),
        "k": normal(few, seen),
        "v": normal(few, seen),
        "do": normal(heads, queries),
    }


def reference(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool, scale: float, do: Tensor | None = None
) -> dict[str, Tensor]:
    """Return o and lse, and with do also dq, dk and dv, in float64, head by head.

    q is [B, H, Sq, D], k and v are [B, Hkv, Sk, D]; any format and strides.
    """
    import torch

    group = q.shape[1] // k.shape[1]
    out = {"o": torch.empty_like(q, dtype=torch.float64)}
    out["lse"] = out["o"].new_empty(q.shape[:3])
    if do is not None:
        out["dq"] = torch.empty_like(out["o"])
        out["dk"] = torch.zeros_like(k, dtype=torch.float64)
        out["dv"] = torch.zeros_like(out["dk"])
    hidden = _hidden(q.shape[2], k.shape[2], q.device) if causal else None
    for batch in range(q.shape[0]):
        for head in range(q.shape[1]):
            at, kv_at = (batch, head), (batch, head // group)
            q1, k1, v1 = q[at].double(), k[kv_at].double(), v[kv_at].double()
            p = q1 @ k1.mT * scale
            if hidden is not None:
                p.masked_fill_(hidden, -torch.inf)
            lse = p.logsumexp(-1)
            # A row that sees nothing has no weights.
            p.sub_(lse.masked_fill(lse == -torch.inf, 0)[:, None]).exp_()
            out["lse"][at] = lse
            out["o"][at] = p @ v1
            if do is None:
                continue
            do1 = do[at].double()
            out["dv"][kv_at] += p.mT @ do1
            ds = do1 @ v1.mT
            ds.sub_((do1 * out["o"][at]).sum(-1, keepdim=True)).mul_(p).mul_(scale)
            out["dq"][at] = ds @ k1
            out["dk"][kv_at] += ds.mT @ q1
    return out


def _hidden(queries: int, keys: int, device: Any) -> Tensor:
    """Return which keys a query does not see, the last query seeing all."""
    import torch

    every = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return every.triu(keys - queries + 1)


def eager(  # noqa: PLR0917
    q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float, hidden: Tensor | None = None
) -> Tensor:
    """Return attention with its scores in memory, by plain PyTorch in the format of q."""
    import torch

    if (group := q.shape[1] // k.shape[1]) > 1:
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = q @ k.mT * scale
    if not causal:
        return torch.softmax(s, -1) @ v
    if hidden is None:
        hidden = _hidden(q.shape[2], k.shape[2], q.device)
    p = torch.softmax(s.masked_fill(hidden, -torch.inf), -1)
    if q.shape[2] > k.shape[2]:  # there are queries that see nothing
        p = p.masked_fill(hidden, 0)
    return p @ v


def _scale(shape: Shape) -> float:
    return float(shape["head_dim"] ** -0.5)


def _call(make: Callable[[], Attention], operation: str) -> Callable[[Tensors, Shape], Any]:
    """Return the `build` of an operation of a differentiable function."""

    def build(tensors: Tensors, shape: Shape) -> Callable[[], Tensors]:
        import torch

        attend: Any = make()
        causal, scale = bool(shape["causal"]), _scale(shape)
        q, k, v = (tensors[name].detach() for name in "qkv")
        do = tensors["do"]
        if operation == "forward":

            def forward() -> Tensors:
                with torch.no_grad():
                    return {"o": attend(q, k, v, causal, scale)}

            return forward
        needing = tuple(one.requires_grad_() for one in (q, k, v))

        def differentiate(o: Tensor) -> dict[str, Tensor]:
            dq, dk, dv = torch.autograd.grad(o, needing, do, retain_graph=operation == "backward")
            return {"dq": dq, "dk": dk, "dv": dv}

        if operation == "backward":
            o = attend(*needing, causal, scale)
            return lambda: differentiate(o)

        def both() -> Tensors:
            o = attend(*needing, causal, scale)
            return {"o": o.detach(), **differentiate(o)}

        return both

    return build


def _ours() -> Attention:
    from tracelens_kernels import flash_attention

    return lambda q, k, v, causal, scale: flash_attention(q, k, v, causal, scale=scale)


def _portable() -> Attention:
    import torch

    from tracelens_kernels._attention import portable

    class Portable(torch.autograd.Function):
        @staticmethod
        def forward(  # noqa: PLR0917
            ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
        ) -> Tensor:
            o, lse = portable.forward(q, k, v, causal=causal, scale=scale)
            ctx.save_for_backward(q, k, v, o, lse)
            ctx.how = {"causal": causal, "scale": scale}
            return o

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            return (*portable.backward(grads[0], *ctx.saved_tensors, **ctx.how), None, None)

    return Portable.apply


def _compiled() -> Attention:
    import torch

    return torch.compile(eager)


def _sdpa(backend: str) -> Callable[[], Attention]:
    def make() -> Attention:
        import torch
        from torch.nn import attention

        one = getattr(attention.SDPBackend, backend)

        def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> Tensor:
            with attention.sdpa_kernel(one):
                return torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
                )

        return attend

    return make


def _no_sdpa(name: str) -> Callable[[Shape, str], str]:
    def why_not(shape: Shape, dtype: str) -> str:
        import torch

        if not torch.cuda.is_available():
            return "needs an NVIDIA GPU"
        if shape["causal"] and keys(shape) != shape["queries"]:
            return "its causal mask lets the first query see the first key alone"
        if name == "efficient":
            return "needs as many heads of keys" if kv_heads(shape) != shape["heads"] else ""
        if dtype not in ("bf16", "fp16"):
            return f"cannot do {dtype}"
        if name == "cudnn" and shape["head_dim"] > 128:
            return "head_dim is above 128"
        return "head_dim is no multiple of 8" if shape["head_dim"] % 8 else ""

    return why_not


def _too_large(copies: int) -> Callable[[Shape, str], str]:
    """Return whether `copies` of the scores fit into the GPU."""

    def why_not(shape: Shape, dtype: str) -> str:
        import torch

        scores = shape["batch"] * shape["heads"] * shape["queries"] * keys(shape) * DTYPES[dtype]
        if not torch.cuda.is_available():
            return ""
        total = torch.cuda.get_device_properties().total_memory
        if scores * copies < 0.9 * total:
            return ""
        return f"its scores are {scores / 1e9:.0f} GB, {copies} times"

    return why_not


def _cannot(_shape: Shape, _dtype: str) -> str:
    import torch

    from tracelens_kernels import _checks

    if torch.cuda.is_available() or _checks.interpreted():
        return ""
    return "needs an NVIDIA GPU"


def operation(name: str) -> Operation:
    """Return `forward`, `backward` or `forward_backward`."""
    work = {"forward": forward_work, "backward": backward_work, "forward_backward": both_work}
    copies = 3 if name == "forward" else 6

    def expected(tensors: Tensors, shape: Shape) -> Tensors:
        found = reference(
            tensors["q"], tensors["k"], tensors["v"], causal=bool(shape["causal"]),
            scale=_scale(shape), do=None if name == "forward" else tensors["do"],
        )  # fmt: skip
        wanted = {"forward": "o", "backward": "dq dk dv"}.get(name, "o dq dk dv").split()
        return {one: found[one] for one in wanted}

    return Operation(
        work=work[name],
        inputs=inputs,
        reference=expected,
        implementations={
            OURS: Implementation("Triton; on Hopper Gluon", _call(_ours, name), _cannot),
            "portable": Implementation("Triton on every GPU", _call(_portable, name), _cannot),
            "eager": Implementation(
                "products and softmax in memory", _call(lambda: eager, name), _too_large(copies)
            ),
            "compile": Implementation(
                "torch.compile of eager", _call(_compiled, name), _too_large(copies)
            ),
            "sdpa-flash": Implementation(
                "SDPA by FlashAttention-2", _call(_sdpa("FLASH_ATTENTION"), name), _no_sdpa("flash")
            ),
            "sdpa-cudnn": Implementation(
                "SDPA by cuDNN", _call(_sdpa("CUDNN_ATTENTION"), name), _no_sdpa("cudnn")
            ),
            "sdpa-efficient": Implementation(
                "SDPA by CUTLASS", _call(_sdpa("EFFICIENT_ATTENTION"), name), _no_sdpa("efficient")
            ),
        },
    )

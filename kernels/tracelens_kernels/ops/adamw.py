"""AdamW on any number of tensors in one launch: every number is read once and written once.

m ← m + (1 − β₁)(g − m), v ← β₂ v + (1 − β₂) g², p ← (1 − lr·decay) p − lr/c₁ · m / (√v/√c₂ + ε),
with c₁ = 1 − β₁ᵗ and c₂ = 1 − β₂ᵗ (I. Loshchilov and F. Hutter, "Decoupled weight decay
regularization", ICLR 2019). Everything is computed in fp32 and rounded once, to the format of each
tensor. A table on the GPU holds the addresses of all tensors, another which of them each program
works on; both stay there until an address changes.
"""

# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import functools
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import torch
import triton
import triton.language as tl

from tracelens.kernel import OURS, Implementation, Kernel, Operation, Tuning
from tracelens.workload import Work
from tracelens_kernels import _checks, _configs, _rows
from tracelens_kernels import _rows_bench as bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from tracelens.kernel import Config, Shape, Tensors

_TRITON: Final = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
_VECTOR_BYTES: Final = 16
_KEPT: Final[list[Tensor]] = []
"""Tables on the host that CUDA graphs copy again each time they are replayed."""
_DEFAULT: Final[Config] = {"chunk": 1024, "block": 1024, "num_warps": 4}


class AdamW(torch.optim.Optimizer):
    """`torch.optim.AdamW`, with one launch for all tensors of a group that have one format.

    Its state has the names and meanings of torch's, and either loads the other's. The count of
    steps is kept on the host, without waiting for the GPU. Parameters without a gradient are left
    as they are, as in torch.

    Args:
        params: tensors, named tensors or groups of them, on GPUs; bf16, fp16 or fp32.
        lr: learning rate.
        betas: how much of the running means of gradients, and of their squares, a step keeps.
        eps: added to the root of the mean square.
        weight_decay: by lr times this, parameters shrink in a step.
        amsgrad: must be false.
        maximize: go up the gradient instead of down.
        capturable: count the steps on the GPU, so that a CUDA graph of the step counts on each time
            it is replayed; all parameters of a group then count the same steps.
        state_dtype: of the running means; None for that of each parameter, as in torch.

    Raises:
        ValueError: a number is out of its range, or amsgrad is asked for.
    """

    def __init__(  # noqa: PLR0917
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        capturable: bool = False,
        state_dtype: torch.dtype | None = None,
    ) -> None:
        _check_numbers(lr, betas, eps, weight_decay)
        if amsgrad:
            raise ValueError("amsgrad is not supported: use torch.optim.AdamW.")
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": False,
            "maximize": maximize,
            "capturable": capturable,
            "state_dtype": state_dtype,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters; return what the closure returns, run first, if there is one.

        Raises:
            RuntimeError: a gradient is sparse.
            ValueError, TypeError: see `adamw_`.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for step, tensors in self._by_step(group).items():
                adamw_(
                    *tensors,
                    step=step,
                    lr=float(group["lr"]),
                    betas=group["betas"],
                    eps=group["eps"],
                    weight_decay=group["weight_decay"],
                    maximize=group["maximize"],
                )
        return loss

    def _by_step(self, group: dict[str, Any]) -> dict[int | Tensor, tuple[list[Tensor], ...]]:
        """Return parameters, gradients and state, by the number of the step that it is for them.

        A number on the GPU is that of the step before, which `adamw_` counts on from.
        """
        found: dict[int | Tensor, tuple[list[Tensor], ...]] = defaultdict(lambda: ([], [], [], []))
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.is_sparse:
                raise RuntimeError("AdamW takes no sparse gradients: use torch.optim.SparseAdam.")
            state = self.state[parameter]
            if not state:
                dtype = group["state_dtype"] or parameter.dtype
                state["step"] = self._shared_count(group, parameter) if group["capturable"] else 0
                state["exp_avg"] = torch.zeros_like(parameter, dtype=dtype)
                state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=dtype)
            if not group["capturable"]:
                state["step"] += 1
            parameters, gradients, means, squares = found[state["step"]]
            parameters.append(parameter)
            gradients.append(gradient)
            means.append(state["exp_avg"])
            squares.append(state["exp_avg_sq"])
        return found

    def _shared_count(self, group: dict[str, Any], parameter: Tensor) -> Tensor:
        """Return the count of steps that others of a group have on a parameter's GPU, or a new."""
        for other in group["params"]:
            state = self.state.get(other)
            if state and state["step"].device == parameter.device:
                count: Tensor = state["step"]
                return count
        return torch.zeros((), dtype=torch.float32, device=parameter.device)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of this class or of torch's; running means keep their format."""
        super().load_state_dict(state_dict)
        saved = (name for group in state_dict["param_groups"] for name in group["params"])
        for group in self.param_groups:
            if group.get("amsgrad"):
                raise ValueError("The state is of AMSGrad, which is not supported.")
            group.setdefault("state_dtype", self.defaults["state_dtype"])
            counts: dict[torch.device, Tensor] = {}
            for parameter, name in zip(group["params"], saved, strict=False):
                state = self.state.get(parameter)
                if not state:
                    continue
                if group["capturable"]:
                    count = torch.as_tensor(state["step"], dtype=torch.float32)
                    here = count.to(parameter.device, copy=True)
                    state["step"] = counts.setdefault(parameter.device, here)
                else:
                    state["step"] = int(state["step"])
                dtype = group["state_dtype"] or parameter.dtype
                for part in ("exp_avg", "exp_avg_sq"):
                    # torch's has rounded it to the format of the parameter.
                    kept = state_dict["state"][name][part]
                    state[part] = kept.to(parameter.device, dtype, copy=True)


def adamw_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    *,
    step: int | Tensor,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    maximize: bool = False,
) -> None:
    """Update parameters, running means and running means of squares in place, by AdamW.

    One launch for all tensors of the same formats on one GPU (two, if some do not begin at a
    multiple of 16 bytes).

    Args:
        params: bf16, fp16 or fp32, of any shapes; views must be dense.
        grads: one of the same shape for each.
        exp_avgs: one of the same shape and layout for each.
        exp_avg_sqs: the same, and of the same format.
        step: the first is 1; or a number in fp32 on the GPU, which is first counted up by 1.
        lr: see `AdamW`, as for the rest.
        betas: the same.
        eps: the same.
        weight_decay: the same.
        maximize: the same.

    Raises:
        ValueError: lists or shapes differ, a tensor is not dense or on no GPU, or a number is out
            of its range.
        TypeError: a format is another, or the two means have different ones.
        RuntimeError: a CUDA graph is captured, and the step is a number on the host.
    """
    _check_numbers(lr, betas, eps, weight_decay)
    _check_step(step)
    lists = (params, grads, exp_avgs, exp_avg_sqs)
    if len({len(one) for one in lists}) != 1:
        raise ValueError(f"Expected lists of the same length; got {[len(one) for one in lists]}.")
    scales = _scales(step, lr, betas)
    numbers = (1 - lr * weight_decay, 1 - betas[0], betas[1], 1 - betas[1], eps)
    for (device, *formats), tensors in _alike(lists).items():
        sizes = tuple(four[0].numel() for four in tensors)
        addresses = tuple(one.data_ptr() for four in tensors for one in four)
        config = _configs.chosen("adamw", "step", _key(formats), _DEFAULT, device.index)
        with _rows.on(device):
            stream = torch.cuda.current_stream().cuda_stream if device.type == "cuda" else 0
            for table, those, aligned in _tables(addresses, sizes, device, stream):
                chunks = _chunks(those, config["chunk"], device, stream)
                _update[(chunks.shape[0],)](
                    table,
                    chunks,
                    *scales,
                    *numbers,
                    *(_TRITON[one] for one in formats),
                    MAXIMIZE=maximize,
                    ALIGNED=aligned,
                    CHUNK=config["chunk"],
                    BLOCK=config["block"],
                    num_warps=config["num_warps"],
                )


def _check_step(step: int | Tensor) -> None:
    if isinstance(step, torch.Tensor):
        _checks.dtype_among((torch.float32,), step=step)
        _checks.on_gpu(step=step)
    elif step < 1:
        raise ValueError(f"step is {step}; the first is 1.")
    elif _capturing():
        raise RuntimeError(
            "A CUDA graph would repeat this one step: use AdamW(..., capturable=True), which "
            "counts the steps on the GPU."
        )


def _scales(
    step: int | Tensor, lr: float, betas: tuple[float, float]
) -> tuple[float, float, Tensor | None]:
    """Return lr / c₁ and 1 / √c₂ of a step; or nothing, and where on the GPU they will be."""
    if not isinstance(step, torch.Tensor):
        return lr / (1 - betas[0] ** step), 1 / math.sqrt(1 - betas[1] ** step), None
    scales = torch.empty(2, dtype=torch.float32, device=step.device)
    logs = [math.log(max(beta, 1e-30)) for beta in betas]
    with _rows.on(step.device):
        _count[(1,)](step, scales, lr, *logs, num_warps=1)
    return 0.0, 0.0, scales


def _key(formats: Iterable[torch.dtype]) -> str:
    parameter, _, state = (_rows.NAMES[one] for one in formats)
    return parameter if parameter == state else f"{parameter} state={state}"


def _check_numbers(lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    for name, number in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
        if not number >= 0:
            raise ValueError(f"{name} is {number}; it must be at least 0.")
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas are {betas}; each must be at least 0 and below 1.")


def _alike(lists: Sequence[Sequence[Tensor]]) -> dict[Any, list[tuple[Tensor, ...]]]:
    """Return parameter, gradient, mean and square of each that is not empty, by device, formats."""
    found: dict[Any, list[tuple[Tensor, ...]]] = defaultdict(list)
    for parameter, given, mean, square in zip(*lists, strict=True):
        gradient = given
        if not parameter.shape == gradient.shape == mean.shape == square.shape:
            raise ValueError(
                f"Expected four tensors of one shape; got parameter {list(parameter.shape)}, "
                f"gradient {list(gradient.shape)}, means {list(mean.shape)} and "
                f"{list(square.shape)}."
            )
        if not parameter.numel():
            continue
        device, state = parameter.device, mean.dtype
        key = (device, parameter.dtype, gradient.dtype, state)
        together = device == gradient.device == mean.device == square.device
        if not together or square.dtype != state or key not in found:
            _check_four(parameter, gradient, mean, square)
        layout = parameter.stride()
        if not _dense(parameter) or mean.stride() != layout or square.stride() != layout:
            raise ValueError(f"A parameter {list(parameter.shape)} or its state is not dense.")
        if gradient.stride() != layout:
            gradient = torch.empty_like(parameter, dtype=gradient.dtype).copy_(gradient)
        found[key].append((parameter, gradient, mean, square))
    return found


def _check_four(parameter: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> None:
    tensors = {"parameter": parameter, "gradient": gradient, "mean": mean, "square": square}
    _checks.dtype_among(_rows.FLOATS, **tensors)
    _checks.same_dtype(mean=mean, square=square)
    _checks.on_gpu(**tensors)


def _dense(x: Tensor) -> bool:
    """Tell whether a tensor's elements lie together, in whatever order."""
    if x.is_contiguous():
        return True
    reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return reach + 1 == x.numel()


@functools.lru_cache(maxsize=32)
def _tables(
    addresses: tuple[int, ...],
    sizes: tuple[int, ...],
    device: torch.device,
    stream: int,  # noqa: ARG001 (what is copied on one stream is not yet there for another)
) -> list[tuple[Tensor, tuple[int, ...], bool]]:
    """Return a launch's [tensors, (4 addresses, size)], its sizes, and whether all are aligned."""
    four = torch.tensor(addresses, dtype=torch.int64).view(-1, 4)
    table = torch.cat([four, torch.tensor(sizes, dtype=torch.int64)[:, None]], 1)
    aligned = (four % _VECTOR_BYTES == 0).all(1)
    found = []
    for which in (True, False):
        some = table[aligned == which]
        if len(some):
            found.append((_sent(some, device), tuple(some[:, 4].tolist()), which))
    return found


@functools.lru_cache(maxsize=32)
def _chunks(
    sizes: tuple[int, ...],
    chunk: int,
    device: torch.device,
    stream: int,  # noqa: ARG001 (see above)
) -> Tensor:
    """Return which tensor, and which of its chunks, each program works on."""
    counts = (torch.tensor(sizes) + chunk - 1) // chunk
    tensor = torch.arange(len(sizes)).repeat_interleave(counts)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return _sent(torch.stack([tensor, torch.arange(len(tensor)) - first], 1).int(), device)


def _sent(table: Tensor, device: torch.device) -> Tensor:
    """Return a table on the device; a copy from pinned memory does not wait for the stream."""
    table = table.contiguous()
    if device.type != "cuda":
        return table
    pinned = table.pin_memory()
    if _capturing():
        _KEPT.append(pinned)
    return pinned.to(device, non_blocking=True)


def _capturing() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


@triton.jit
def _count(step_ptr, scales_ptr, lr, log_beta1, log_beta2):
    """Count a step, and write lr / c₁ and 1 / √c₂; in float64, for c₂ is small at first."""
    step = tl.load(step_ptr) + 1.0
    tl.store(step_ptr, step)
    many = step.to(tl.float64)
    tl.store(scales_ptr, (lr / (1.0 - tl.exp(many * log_beta1))).to(tl.float32))
    tl.store(scales_ptr + 1, (1.0 / tl.sqrt(1.0 - tl.exp(many * log_beta2))).to(tl.float32))


@triton.jit
def _update(  # noqa: PLR0917
    table_ptr,
    chunks_ptr,
    step_size,
    root_correction,
    scales_ptr,
    kept,
    mean_share,
    beta2,
    square_share,
    eps,
    PARAMETER: tl.constexpr,
    GRADIENT: tl.constexpr,
    STATE: tl.constexpr,
    MAXIMIZE: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # read 4 · CHUNK elements; write 3 · CHUNK elements
    chunk_ptr = chunks_ptr + tl.program_id(0) * 2
    entry_ptr = table_ptr + tl.load(chunk_ptr) * 5
    first = tl.load(chunk_ptr + 1).to(tl.int64) * CHUNK
    p_ptr = tl.load(entry_ptr).to(tl.pointer_type(PARAMETER))
    g_ptr = tl.load(entry_ptr + 1).to(tl.pointer_type(GRADIENT))
    m_ptr = tl.load(entry_ptr + 2).to(tl.pointer_type(STATE))
    v_ptr = tl.load(entry_ptr + 3).to(tl.pointer_type(STATE))
    size = tl.load(entry_ptr + 4)
    if ALIGNED:
        p_ptr = tl.multiple_of(p_ptr, 16)
        g_ptr = tl.multiple_of(g_ptr, 16)
        m_ptr = tl.multiple_of(m_ptr, 16)
        v_ptr = tl.multiple_of(v_ptr, 16)
    if scales_ptr is not None:
        step_size = tl.load(scales_ptr)
        root_correction = tl.load(scales_ptr + 1)
    sign = -1.0 if MAXIMIZE else 1.0
    for offset in range(0, CHUNK, BLOCK):
        place = first + offset + tl.arange(0, BLOCK)
        if first + offset + BLOCK <= size:  # without a mask, 16 bytes are moved at a time
            p = tl.load(p_ptr + place).to(tl.float32)
            g = tl.load(g_ptr + place).to(tl.float32)
            m = tl.load(m_ptr + place).to(tl.float32)
            v = tl.load(v_ptr + place).to(tl.float32)
            p, m, v = _adamw(
                p,
                sign * g,
                m,
                v,
                kept,
                mean_share,
                beta2,
                square_share,
                step_size,
                root_correction,
                eps,
            )
            tl.store(p_ptr + place, p.to(PARAMETER))
            tl.store(m_ptr + place, m.to(STATE))
            tl.store(v_ptr + place, v.to(STATE))
        elif first + offset < size:
            inside = place < size
            p = tl.load(p_ptr + place, inside, other=0.0).to(tl.float32)
            g = tl.load(g_ptr + place, inside, other=0.0).to(tl.float32)
            m = tl.load(m_ptr + place, inside, other=0.0).to(tl.float32)
            v = tl.load(v_ptr + place, inside, other=0.0).to(tl.float32)
            p, m, v = _adamw(
                p,
                sign * g,
                m,
                v,
                kept,
                mean_share,
                beta2,
                square_share,
                step_size,
                root_correction,
                eps,
            )
            tl.store(p_ptr + place, p.to(PARAMETER), inside)
            tl.store(m_ptr + place, m.to(STATE), inside)
            tl.store(v_ptr + place, v.to(STATE), inside)


@triton.jit
def _adamw(p, g, m, v, kept, mean_share, beta2, square_share, step_size, root_correction, eps):  # noqa: PLR0917
    """Return parameter, running mean and running mean of squares after a step, in fp32."""
    m += mean_share * (g - m)
    v = beta2 * v + square_share * g * g
    return kept * p - step_size * (m / (tl.sqrt_rn(v) * root_correction + eps)), m, v


def _shapes(millions: int) -> Iterator[tuple[int, ...]]:
    """Give shapes of GPT-2 small's blocks until they hold so many numbers; the last is cut."""
    left, width = millions * 10**6, 768
    matrices = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    block = [(width,)] * 4 + [size for matrix in matrices for size in (matrix, matrix[:1])]
    while True:
        for size in block:
            if math.prod(size) >= left:
                yield (left,)
                return
            yield size
            left -= math.prod(size)


_NAMES: Final = ("params", "grads", "exp_avgs", "exp_avg_sqs")
_STEP: Final = 10


def _inputs(shape: Shape, dtype: str, device: str, seed: int) -> dict[str, Tensor]:
    """Return four flat tensors, which hold those of all shapes, one after another."""
    generator = bench.source(device, seed)
    found = {name: bench.random([shape["millions"] * 10**6], dtype, generator) for name in _NAMES}
    found["exp_avgs"].mul_(0.1)
    found["exp_avg_sqs"].square_()
    return found


def _parts(tensors: Tensors, shape: Shape) -> list[list[Tensor]]:
    """Return the tensors that lie in the flat ones."""
    sizes = list(_shapes(shape["millions"]))
    lengths = [math.prod(size) for size in sizes]
    return [
        [part.view(size) for part, size in zip(tensors[name].split(lengths), sizes, strict=True)]
        for name in _NAMES
    ]


def _work(shape: Shape, dtype: str) -> Work:
    """Count four numbers read and three written, and 14 operations, for each parameter."""
    numbers = shape["millions"] * 10**6
    return Work("adamw", 14 * numbers, 7 * numbers * bench.SIZES[dtype], dtype, matmul=False)


def _reference(tensors: Tensors, _shape: Shape) -> dict[str, Tensor]:
    """Return parameters and state after the step, computed in float64 some at a time."""
    found: dict[str, list[Tensor]] = {name: [] for name in _OUTPUTS}
    pieces = zip(*(tensors[name].split(1 << 24) for name in _NAMES), strict=True)
    for some in pieces:
        p, g, m, v = (one.double() for one in some)
        m = m + 0.1 * (g - m)
        v = 0.999 * v + 0.001 * g * g
        scale = 1e-3 / (1 - 0.9**_STEP)
        p = p * (1 - 1e-3 * 1e-2) - scale * m / ((v / (1 - 0.999**_STEP)).sqrt() + 1e-8)
        for name, one in zip(_OUTPUTS, (p, m, v), strict=True):
            found[name].append(one.float())
    return {name: torch.cat(parts) for name, parts in found.items()}


_OUTPUTS: Final = tuple(name for name in _NAMES if name != "grads")


def _implementation(summary: str, step: Callable[..., Any]) -> Implementation:
    def build(tensors: Tensors, shape: Shape) -> Callable[[], Tensors]:
        parts = _parts(tensors, shape)

        def call() -> Tensors:
            step(*parts)
            return {name: tensors[name] for name in _OUTPUTS}

        return call

    return Implementation(summary, build)


def _torchs(*, foreach: bool) -> Callable[..., None]:
    """Return torch's AdamW: tensor by tensor, or by lists of them."""

    def step(params: Any, grads: Any, means: Any, squares: Any) -> None:
        from torch.optim.adamw import adamw

        counts = torch.full((len(params),), float(_STEP - 1)).unbind()  # it counts on in them
        adamw(
            params,
            grads,
            means,
            squares,
            [],
            list(counts),
            foreach=foreach,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=1e-3,
            weight_decay=1e-2,
            eps=1e-8,
            maximize=False,
        )

    return step


def _fused(params: Any, grads: Any, means: Any, squares: Any) -> None:
    """Do what torch's fused AdamW does once it has counted the step."""
    count = torch.full((), float(_STEP), device=params[0].device)
    torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
        params,
        grads,
        means,
        squares,
        [],
        [count] * len(params),
        lr=1e-3,
        beta1=0.9,
        beta2=0.999,
        weight_decay=1e-2,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )


KERNEL = Kernel(
    axes={"millions": 124},
    shapes=({"millions": 537}, {"millions": 124}, {"millions": 1}),
    dtypes=("fp32", "bf16"),
    operations={
        "step": Operation(
            work=_work,
            inputs=_inputs,
            reference=_reference,
            implementations={
                OURS: _implementation("Triton", functools.partial(adamw_, step=_STEP)),
                "eager": _implementation("torch's AdamW by tensors", _torchs(foreach=False)),
                "foreach": _implementation("torch's AdamW by lists", _torchs(foreach=True)),
                "fused": _implementation("torch._fused_adamw_", _fused),
            },
            in_place=_OUTPUTS,
        )
    },
    tuning={
        "step": Tuning(
            key=lambda _shape, dtype: dtype,
            default=lambda _shape, _dtype: _DEFAULT,
            coarse=lambda _shape, _dtype: _coarse(),
        )
    },
    function=lambda: AdamW,
)


def _coarse() -> Iterator[Config]:
    """Give sizes of what a thread does at a time, and of what a program does."""
    for block, warps in ((1024, 4), (2048, 8), (2048, 4), (4096, 8)):
        for blocks in (1, 4, 16):
            yield {"chunk": block * blocks, "block": block, "num_warps": warps}

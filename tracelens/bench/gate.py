"""Whether outputs are right: compared with the reference, after what they lie in was poisoned."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tracelens.kernel import Operation, Tensors

_CHUNK: Final = 1 << 25
"""Elements that are compared at a time: in float64 they take 256 MiB."""

_COPIES: Final = 2
_EAGER: Final = 2.0
"""An error may be that many times that of plain PyTorch,"""

_MOST: Final = 0.25
"""but not more than this: then plain PyTorch is wrong, too."""


@dataclass(frozen=True)
class Found:
    """How far outputs are from the reference.

    Attributes:
        errors: by output, ‖out − reference‖ / ‖reference‖ over what is finite in the reference;
            0.0 of one that is equal bit by bit.
        wrong: by output, what is wrong whatever the error: a shape, a format, a NaN, bits.
        missing: outputs of the reference that there are none of.
    """

    errors: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def verdict(self, allowed: Mapping[str, float]) -> str:
        """Return what is wrong, in a sentence for each output; "": nothing."""
        told = [f"{name} {what}" for name, what in self.wrong.items()]
        told += [
            f"{name} is {error:.3g} off, and {allowed[name]:.3g} is allowed"
            for name, error in self.errors.items()
            if name not in self.wrong and not error <= allowed[name]
        ]
        if not self.errors and not self.wrong:
            told.append("it gives none of the outputs of the reference")
        return ". ".join(text[0].upper() + text[1:] for text in told)


def compare(outputs: object, reference: Tensors, exact: tuple[str, ...]) -> Found:
    """Return how far outputs are from a reference.

    Args:
        outputs: by name; tensors that the reference does not name are passed over.
        reference: by name.
        exact: those that must be equal bit by bit, but for the bits of NaNs.
    """
    if not isinstance(outputs, Mapping):
        return Found(wrong={"the call": f"returns {type(outputs).__name__}, not tensors by name"})
    found = Found(missing=tuple(name for name in reference if outputs.get(name) is None))
    for name, expected in reference.items():
        if name in found.missing:
            continue
        given = outputs[name]
        if tuple(given.shape) != tuple(expected.shape):
            found.wrong[name] = f"is {list(given.shape)}, and should be {list(expected.shape)}"
        elif name in exact:
            if why := _bits(given, expected):
                found.wrong[name] = why
            found.errors[name] = 0.0
        else:
            error, why = _error(given, expected)
            if why:
                found.wrong[name] = why
            found.errors[name] = error
    return found


def allowed(operation: Operation, reference: Tensors, dtype: str, eager: Found) -> dict[str, float]:
    """Return the error that each output may have: twice eager's, or what rounding may do."""
    least = operation.tolerance.get(dtype, 0.0)
    return {
        name: 0.0
        if name in operation.exact
        else max(least, min(_MOST, _EAGER * eager.errors.get(name, 0.0)))
        for name in reference
    }


def poisoned(
    call: Callable[[], object], inputs: Tensors, restore: Callable[[], object], torch: Any
) -> object:
    """Return the outputs of a call whose memory was poisoned before.

    It is called twice, each time on inputs that were restored. What the first call returned is
    filled with NaN (or the least integer) and freed, but for what is part of the inputs; on a GPU,
    memory of the same sizes is taken, filled and freed as well, so that what the second call is
    given for its outputs is full of NaN. On the CPU torch fills new tensors itself. So what a call
    does not write is seen, and so is a call that gives what it gave before.
    """
    kept = {_place(one) for one in tensors(inputs)}
    with _filled(torch, is_gpu=any(one.is_cuda for one in tensors(inputs))):
        restore()
        first = [one for one in tensors(call()) if _place(one) not in kept]
        shapes = [(one.untyped_storage().nbytes(), one.device) for one in first]
        for one in first:
            poison(one, torch)
        first.clear()
        spoilt = [
            torch.full((size,), 255, dtype=torch.uint8, device=device)
            for size, device in shapes * _COPIES
            if device.type == "cuda" and _fits(size, torch)
        ]
        del spoilt
        restore()
        return call()


def poison(tensor: Any, torch: Any) -> None:
    """Fill a tensor with NaN, or with the least integer; one that lies over itself stays."""
    if tensor.dtype == torch.bool:
        value: float = True
    elif tensor.is_floating_point() or tensor.is_complex():
        value = math.nan
    else:
        value = torch.iinfo(tensor.dtype).min
    with torch.no_grad(), contextlib.suppress(RuntimeError):
        tensor.detach().fill_(value)


def overwritten(inputs: Tensors, fresh: Tensors, in_place: tuple[str, ...]) -> list[str]:
    """Return the inputs that a call changed and should not have.

    Args:
        inputs: after the call.
        fresh: the same inputs, made anew.
        in_place: those that it may change.
    """
    return [
        name
        for name, one in inputs.items()
        if name not in in_place
        and any(
            _bits(given, made)
            for given, made in zip(tensors(one), tensors(fresh[name]), strict=True)
        )
    ]


def tensors(value: object) -> list[Any]:
    """Return the tensors in a value: itself, or those in its lists, tuples and mappings."""
    if isinstance(value, Mapping):
        return [one for part in value.values() for one in tensors(part)]
    if isinstance(value, (list, tuple)):
        return [one for part in value for one in tensors(part)]
    return [value] if hasattr(value, "untyped_storage") else []


def size_bytes(value: object) -> int:
    """Return the bytes of the tensors in a value; memory that several share counts once."""
    stores = {_place(one): one.untyped_storage().nbytes() for one in tensors(value)}
    return sum(stores.values())


def _place(tensor: Any) -> tuple[Any, int]:
    return tensor.device, tensor.untyped_storage().data_ptr()


def _fits(size: int, torch: Any) -> bool:
    free, _ = torch.cuda.mem_get_info()
    return bool(size < free // 2)


@contextlib.contextmanager
def _filled(torch: Any, *, is_gpu: bool) -> Iterator[None]:
    """Let torch fill new tensors of the CPU; on GPUs that would choose other algorithms."""
    if is_gpu:
        yield
        return
    was = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of what has no deterministic algorithm
            yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = fills
        torch.use_deterministic_algorithms(mode=was, warn_only=warned)


def _bits(given: Any, expected: Any) -> str:
    """Return how two tensors differ bit by bit; two NaNs are equal."""
    if given.dtype != expected.dtype:
        return f"is {_name(given)}, and should be {_name(expected)}"
    wrong = 0
    for one, other in _chunks(given, expected):
        differ = _raw(one) != _raw(other)
        if one.is_floating_point():
            differ &= ~(one.float().isnan() & other.float().isnan())
        wrong += int(differ.sum())
    if not wrong:
        return ""
    return f"differs from the reference in {wrong:,} of {expected.numel():,} elements"


def _error(given: Any, expected: Any) -> tuple[float, str]:
    """Return the relative error, and what is wrong apart from it."""
    off = norm = 0.0
    odd = 0
    for one, other in _chunks(given, expected):
        out, ref = one.double(), other.to(one.device).double()
        known = ref.isfinite()
        # Where the reference is infinite or NaN, so must the output be.
        same = (out == ref) | (out.isnan() & ref.isnan())
        odd += int((~known & ~same).sum()) + int((known & ~out.isfinite()).sum())
        both = known & out.isfinite()
        ref = ref.where(both, 0.0)
        off += float((out.where(both, 0.0) - ref).square().sum())
        norm += float(ref.square().sum())
    error = math.sqrt(off / norm) if norm else math.sqrt(off)
    why = f"has {odd:,} elements that are NaN or infinite and should not be, or the reverse"
    return error, why if odd else ""


def _chunks(given: Any, expected: Any) -> Iterator[tuple[Any, Any]]:
    """Give two tensors of one shape in parts that are small enough to be compared."""
    if given.numel() <= _CHUNK or given.dim() == 0:
        yield given.detach(), expected.detach().to(given.device)
        return
    rows = max(1, _CHUNK // max(1, given[0].numel()))
    for begin in range(0, given.shape[0], rows):
        yield from _chunks_of(given[begin : begin + rows], expected[begin : begin + rows])


def _chunks_of(given: Any, expected: Any) -> Iterator[tuple[Any, Any]]:
    if given.shape[0] == 1 and given.numel() > _CHUNK:
        yield from _chunks(given[0], expected[0])
    else:
        yield given.detach(), expected.detach().to(given.device)


def _raw(tensor: Any) -> Any:
    import torch

    by_size = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.contiguous().view(by_size[tensor.element_size()])


def _name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")

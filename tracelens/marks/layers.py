"""`tracelens.instrument`: ranges of phases and layers on a model, without edits to its program."""

from __future__ import annotations

import contextlib
import functools
import weakref
from typing import TYPE_CHECKING, Any, Final, Self

from tracelens.marks import calls
from tracelens.marks.phases import shared, watch_backward, watch_optimizer
from tracelens.marks.ranges import is_compiling, is_recording, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

_WRAPPED: Final = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_WRAPPERS: Final = frozenset({"DataParallel", "DistributedDataParallel", "DeepSpeedEngine"})
"""Classes of modules that hold the model as `module`."""

_listeners: list[tuple[Callable[[Any], None], Callable[[Any], None] | None]] = []
"""What `watch_compile` has been given."""


class Instrumented:
    """Ranges that have been put on a model; as a context manager, they go with the block."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo = undo

    def remove(self) -> None:
        """Take all of them off again; doing so twice does no harm."""
        undo, self._undo = self._undo, _nothing
        undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()


def instrument(
    model: Any,
    optimizer: Any = None,
    *,
    phases: bool = True,
    depth: int | None = None,
    name: str = "",
) -> Instrumented:
    """Put ranges on a model and its optimizers that need no edits to the training loop.

    Each call of a module has a range named by its path, such as `blocks.3.attn`, in forward and,
    on the thread that autograd works on, in backward; the model's own has the name of its class.
    The phase `forward` is around each outermost call, `backward` around each backward pass of the
    process, `optimizer` around `step` and `zero_grad`. Nothing that is computed changes; copies of
    the model have no ranges, and what is pickled of it holds nothing of tracelens.

    Args:
        model: a `torch.nn.Module`, compiled, wrapped or plain. Modules that are put into it later
            have no ranges; those of TorchScript cannot have any.
        optimizer: one, several, or none.
        phases: whether to mark phases, too.
        depth: how many names the longest path has: 2 for `blocks.3`; 0 for the model alone.
        name: comes before all paths, to tell models apart.

    Returns:
        What takes the ranges off again.

    Raises:
        TypeError: this is no module, or no optimizer.
        ValueError: the depth is negative.
    """
    import torch

    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"instrument() takes a torch.nn.Module, not {_kind(model)}.")
    if depth is not None and depth < 0:
        raise ValueError(f"The depth of layers is 0 or more, not {depth}.")
    optimizers = _optimizers(optimizer)
    undo = contextlib.ExitStack()
    for path, module in paths(model, name, depth):
        if _before(module) is None:
            undo.callback(_hook(module, path, "forward" if phases else None))
    _watch_compile(undo)
    if phases:
        undo.callback(watch_backward())
        for one in optimizers:
            undo.callback(watch_optimizer(one))
    return Instrumented(undo.close)


def paths(model: Any, name: str = "", depth: int | None = None) -> Iterator[tuple[str, Any]]:
    """Give the modules of a model, each once, and what their ranges are called.

    What has been wrapped around a model (torch.compile, DistributedDataParallel, checkpointing)
    is no part of a path.
    """
    own = name or type(_unwrapped(model)).__name__
    for names, module in _walk(model, (), set()):
        if depth is None or len(names) <= depth:
            yield ".".join(filter(None, (name, *names))) or own, module


def is_instrumented(module: Any) -> bool:
    """Whether a module has ranges of `instrument`."""
    return _before(module) is not None


def wrap_compiled(module: Any, before: Callable[..., None], after: Callable[..., None]) -> None:
    """Put hooks around what `Module.compile` has made of a module: its own are compiled away.

    Where that has happened already, by whomever, nothing is done.
    """
    if isinstance(module._compiled_call_impl, _Compiled):
        return
    module._compiled_call_impl = _Compiled(module, module._compiled_call_impl, before, after)


class _Before:
    """A hook that begins the range of a module's call.

    Copies and pickles hold something of Python's own instead, which does nothing.
    """

    __slots__ = ("path", "phase")

    def __init__(self, path: str, phase: str | None) -> None:
        self.path = path
        self.phase = phase

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if is_recording():
            calls.begin(self.path, module, (*args, *kwargs.values()), self.phase)

    def __reduce__(self) -> Any:
        return getattr, (contextlib.nullcontext(), "__exit__")


class _After:
    """A hook that ends the range of a module's call."""

    __slots__ = ()

    def __call__(self, module: Any, _args: Any, _kwargs: Any, output: Any) -> None:
        if not is_compiling() and opened():
            calls.end(module, output)

    def __reduce__(self) -> Any:
        return getattr, (contextlib.nullcontext(), "__exit__")


class _Compiled:
    """What a module compiled in place is called by, with the range that it cannot have inside."""

    def __init__(
        self, module: Any, call: Any, before: Callable[..., None], after: Callable[..., None]
    ) -> None:
        self._module = weakref.ref(module)
        self.call = call
        self._before = before
        self._after = after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return self.call(*args, **kwargs)
        module, output = self._module(), None
        self._before(module, args, kwargs)
        try:
            output = self.call(*args, **kwargs)
        finally:
            self._after(module, args, kwargs, output)
        return output


def _hook(module: Any, path: str, phase: str | None) -> Callable[[], None]:
    before, after = _Before(path, phase), _After()
    hooks = (
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True, always_call=True),
    )
    if module._compiled_call_impl is not None:
        wrap_compiled(module, before, after)

    def undo() -> None:
        for hook in hooks:
            hook.remove()
        if isinstance(module._compiled_call_impl, _Compiled):
            module._compiled_call_impl = module._compiled_call_impl.call

    return undo


def _before(module: Any) -> _Before | None:
    """Return the hook by which a module is instrumented already."""
    return next(
        (one for one in module._forward_pre_hooks.values() if isinstance(one, _Before)), None
    )


def _watch_compile(undo: contextlib.ExitStack) -> None:
    """Have modules that are compiled from now on keep their ranges."""

    def in_place(module: Any) -> None:
        if (before := _before(module)) is not None:
            wrap_compiled(module, before, _After())

    def around(module: Any) -> None:
        if (before := _before(module._orig_mod)) is not None and _before(module) is None:
            undo.callback(_hook(module, before.path, before.phase))

    undo.callback(watch_compile(in_place, around))


def watch_compile(
    in_place: Callable[[Any], None], around: Callable[[Any], None] | None = None
) -> Callable[[], None]:
    """Have functions called with the modules that are compiled.

    Args:
        in_place: takes those that `Module.compile` has compiled.
        around: takes those that `torch.compile` has made around others.

    Returns:
        What ends this.
    """
    listener = (in_place, around)
    _listeners.append(listener)
    end = _tell_of_compiling()

    def undo() -> None:
        if listener in _listeners:
            _listeners.remove(listener)
        end()

    return undo


@shared
def _tell_of_compiling() -> Callable[[], None]:
    """Have all listeners told of each module that is compiled."""
    import torch

    def in_place(module: Any, _made: Any) -> None:
        for tell, _ in tuple(_listeners):
            tell(module)

    def around(_model: Any, made: Any) -> None:
        if isinstance(made, torch.nn.Module) and hasattr(made, "_orig_mod"):
            for _, tell in tuple(_listeners):
                if tell is not None:
                    tell(made)

    undo_method = _after(torch.nn.Module, "compile", in_place)
    undo_function = _after(torch, "compile", around)

    def undo() -> None:
        undo_method()
        undo_function()

    return undo


def _after(owner: Any, name: str, tell: Callable[[Any, Any], None]) -> Callable[[], None]:
    """Have a function told of the first argument and the result of each call of another."""
    original = getattr(owner, name)
    is_on = True

    @functools.wraps(original)
    def called(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        if is_on and not is_compiling():
            tell(args[0] if args else None, made)
        return made

    def undo() -> None:
        nonlocal is_on
        is_on = False
        if getattr(owner, name) is called:
            setattr(owner, name, original)

    setattr(owner, name, called)
    return undo


def _walk(
    module: Any, names: tuple[str, ...], seen: set[Any]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    import torch

    if module in seen or isinstance(module, torch.jit.ScriptModule):
        return
    seen.add(module)
    yield names, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _walk(child, names if _wraps(module, name) else (*names, name), seen)


def _unwrapped(model: Any) -> Any:
    for name, child in model._modules.items():
        if _wraps(model, name):
            return _unwrapped(child)
    return model


def _wraps(module: Any, name: str) -> bool:
    """Whether a module is no more than a wrapper around its child of this name."""
    return name in _WRAPPED or (name == "module" and type(module).__name__ in _WRAPPERS)


def _optimizers(given: Any) -> list[Any]:
    import torch

    if given is None:
        return []
    found = list(given) if isinstance(given, (list, tuple, set)) else [given]
    for one in found:
        if not isinstance(one, torch.optim.Optimizer):
            raise TypeError(f"instrument() takes torch.optim.Optimizer, not {_kind(one)}.")
    return found


def _kind(value: object) -> str:
    return f"a {type(value).__name__}"


def _nothing() -> None:
    pass

"""Phases that hooks put on a program: backward and optimizer, where it marks none itself."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, Final

from tracelens.marks.ranges import PHASES, Span, is_compiling, is_recording, opened, pop, push

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_PASSES: Final = frozenset({"forward", "loss", "backward"})
_WITHIN: Final[Mapping[str, frozenset[str]]] = {"backward": frozenset({"optimizer"})}
"""What may begin within a phase of a hook: an optimizer whose step is part of backward."""


class HookPhase(Span):
    """A phase that a hook has begun.

    Attributes:
        allows: the phases that hooks may begin within it.
        is_sure: whether its end is told even if what it is around raises.
    """

    __slots__ = ("allows", "is_sure")

    def __init__(self, name: str, allows: frozenset[str], *, is_sure: bool) -> None:
        super().__init__(name, is_phase=True)
        self.allows = allows
        self.is_sure = is_sure


def begin(name: str, *, calls_closure: bool = False, is_sure: bool = True) -> HookPhase | None:
    """Begin a phase on this thread, unless the work belongs to one that is open already.

    Args:
        name: one of `PHASES`.
        calls_closure: an optimizer runs forward and backward itself, as LBFGS does.
        is_sure: whether its end is told even if what it is around raises.

    Returns:
        What `end` takes; None: nothing was begun.
    """
    if not is_recording() or (name in _PASSES and _in_backward()):
        return None
    for outer in _open_phases():
        if isinstance(outer, HookPhase) and not outer.is_sure and not outer.allows:
            pop(outer)  # it raised
        elif isinstance(outer, HookPhase) and name in outer.allows:
            break
        else:
            return None
    allows = _PASSES if calls_closure else _WITHIN.get(name, frozenset())
    made = HookPhase(name, allows, is_sure=is_sure)
    push(made, name)
    return made


def end(begun: HookPhase | None) -> None:
    """End a phase that `begin` returned."""
    if begun is not None:
        pop(begun)


def shared(start: Callable[[], Callable[[], None]]) -> Callable[[], Callable[[], None]]:
    """Return a function that starts something for its first user, and ends it with its last.

    Args:
        start: starts it, and returns what ends it.

    Returns:
        What each user calls, and what that returns when he is done; twice does no harm.
    """
    users: set[object] = set()
    ends: list[Callable[[], None]] = []

    def use() -> Callable[[], None]:
        user = object()
        if not users:
            ends.append(start())
        users.add(user)

        def done() -> None:
            if user in users:
                users.remove(user)
                if not users:
                    ends.pop()()

        return done

    return use


@shared
def watch_backward() -> Callable[[], None]:
    """Put a phase `backward` around every backward pass of this process; return what ends it.

    These are `Tensor.backward`, `torch.autograd.backward` and `torch.autograd.grad`. A pass within
    another phase belongs to that.
    """
    import torch

    undo_backward = wrap(torch.autograd, "backward", "backward")
    undo_grad = wrap(torch.autograd, "grad", "backward")

    def undo() -> None:
        undo_backward()
        undo_grad()

    return undo


def watch_optimizer(optimizer: Any) -> Callable[[], None]:
    """Put a phase `optimizer` around an optimizer's `step` and `zero_grad`; return what ends it."""

    def before(_optimizer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        begin("optimizer", calls_closure=has_closure(args[1:], kwargs), is_sure=False)

    def after(_optimizer: Any, _args: Any, _kwargs: Any) -> None:
        if is_compiling():
            return
        for one in _open_phases():
            if isinstance(one, HookPhase) and one.name == "optimizer" and not one.is_sure:
                pop(one)
                return

    hooks = optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)
    undo_zero_grad = wrap(optimizer, "zero_grad", "optimizer")

    def undo() -> None:
        undo_zero_grad()
        for hook in hooks:
            hook.remove()

    return undo


def has_closure(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether an optimizer's step, called like this, runs forward and backward itself."""
    return (args[0] if args else kwargs.get("closure")) is not None


def wrap(owner: Any, name: str, phase: str) -> Callable[[], None]:
    """Put a phase around every call of a function of a module, class or object.

    Returns:
        What takes it off again.
    """
    original = getattr(owner, name)
    was_own = name in vars(owner)
    is_on = True

    @functools.wraps(original)
    def marked(*args: Any, **kwargs: Any) -> Any:
        begun = begin(phase) if is_on else None
        try:
            return original(*args, **kwargs)
        finally:
            end(begun)

    def undo() -> None:
        nonlocal is_on
        is_on = False
        if vars(owner).get(name) is not marked:
            return  # somebody has wrapped it, too
        if was_own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)

    setattr(owner, name, marked)
    return undo


def _open_phases() -> Iterator[Span]:
    """Give the open phases of this thread that hooks know of, the innermost first."""
    for one in reversed(tuple(opened())):
        if isinstance(one.key, Span) and one.key.is_phase and one.key.name in PHASES:
            yield one.key


def _in_backward() -> bool:
    """Whether this thread is working for the autograd engine: what it computes is backward's."""
    return bool(sys.modules["torch"]._C._current_graph_task_id() != -1)

"""Hooks on all of torch: they see a program's models, optimizers and steps, and mark them."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Final

from tracelens.capture.inject.cycles import Ends, Rounds
from tracelens.marks import calls, layers, phases, steps
from tracelens.marks.ranges import RECORDING, is_compiling, is_recording, opened

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRES_TWICE: Final = "Using `torch.compile\\(module\\)` when there are global hooks"
"""A warning of torch's: our hooks do fire for the wrapper, too, and know it."""


class _Thread(threading.local):
    def __init__(self) -> None:
        self.calls = 0
        self.optimizers: list[Any] = []
        self.stepped: Any = None


class Steps:
    """A program's steps, where it does not call `tracelens.step` itself.

    A step ends with the optimizer's; where there are several, once all that take turns have made
    theirs. A program without any has a step from each outermost call of a module to the next.
    """

    def __init__(self) -> None:
        self.optimizers: weakref.WeakSet[Any] = weakref.WeakSet()
        self.is_open = False
        self._ends: Ends[int] = Ends()
        self._rounds: Rounds[int] = Rounds()

    def called(self, module: Any) -> None:
        """An outermost call of a module begins."""
        if steps.is_marked() or next(module.parameters(), None) is None:
            return
        if not self.optimizers:
            if self._rounds.begins(id(module)):
                self._begin()
        elif not self.is_open:
            self._begin()

    def stepped(self, optimizer: Any) -> None:
        """An optimizer has made its step."""
        if steps.is_marked():
            return
        is_over = self._ends.ends(id(optimizer), len(self.optimizers))
        if is_over or not self.is_open:
            self._begin()

    def _begin(self) -> None:
        self.is_open = True
        steps.begin()


class Hooks:
    """All hooks on the program.

    Args:
        works: called once, when the program first makes a parameter of a model, or a step.
    """

    def __init__(self, works: Callable[[], None]) -> None:
        self.steps = Steps()
        self._works = works
        self._thread = _Thread()
        self._paths: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._watched: set[type] = set()
        self._undo = contextlib.ExitStack()
        self._undo_calls = contextlib.ExitStack()
        self._install()

    def remove(self) -> None:
        """Take all of them off again."""
        self._undo_calls.close()
        self._undo.close()

    def no_calls(self) -> None:
        """Watch the calls of modules no longer."""
        self._undo_calls.close()

    def _install(self) -> None:
        import torch
        from torch.nn.modules import module

        undo, hear = self._undo, module.register_module_parameter_registration_hook
        undo.callback(hear(self._parameter).remove)
        undo.callback(self._watch_optimizers(torch.optim.Optimizer))
        undo.callback(_around(torch.amp.GradScaler, "step", self._scaled_step))
        calls_ = self._undo_calls
        calls_.callback(module.register_module_forward_pre_hook(self._before).remove)
        after = module.register_module_forward_hook(self._after, always_call=True)
        calls_.callback(after.remove)
        warnings.filterwarnings("ignore", message=_FIRES_TWICE)
        if RECORDING in os.environ:
            undo.callback(phases.watch_backward())
            undo.callback(phases.wrap(torch.optim.Optimizer, "zero_grad", "optimizer"))
            undo.callback(layers.watch_compile(self._compiled))

    def _parameter(self, _module: Any, _name: str, _parameter: Any) -> None:
        if not is_compiling():
            self._works()

    # Modules

    def _before(self, module: Any, args: tuple[Any, ...], kwargs: Any = None) -> None:
        if is_compiling():
            return
        is_outermost = self._thread.calls == 0
        if is_outermost and not _loads_data():
            self.steps.called(module)
        self._thread.calls += 1
        if is_recording() and not (_is_instrumented(module) or self._is_generated(module)):
            inputs = (*args, *kwargs.values()) if kwargs else args
            path = self._path(module, is_root=is_outermost)
            calls.begin(path, module, inputs, _phase_of(module))

    def _is_generated(self, module: Any) -> bool:
        """Whether this is a graph that torch.compile calls, and no module of the program's own."""
        fx = sys.modules.get("torch.fx")
        is_graph = fx is not None and isinstance(module, fx.GraphModule)
        return is_graph and self._thread.calls > 1 and module not in self._paths

    def _after(self, module: Any, _args: Any, output: Any) -> None:
        if is_compiling():
            return
        self._thread.calls = max(0, self._thread.calls - 1)
        if opened():
            calls.end(module, output)

    def _compiled(self, module: Any) -> None:
        def after(module: Any, args: Any, _kwargs: Any, output: Any) -> None:
            self._after(module, args, output)

        layers.wrap_compiled(module, self._before, after)

    def _path(self, module: Any, *, is_root: bool) -> str:
        if module not in self._paths:
            root = module if is_root else self._root(module)
            for path, part in layers.paths(root):
                self._paths[part] = path
        return self._paths.get(module) or type(module).__name__

    def _root(self, module: Any) -> Any:
        """Return the outermost module that is being called; this one has been put into it late."""
        for one in opened():
            if isinstance(one.key, calls.Call) and one.key.parent is None:
                found = next((m for m in self._paths if id(m) == one.key.module), None)
                return module if found is None else found
        return module

    # Optimizers

    def _watch_optimizers(self, base: Any) -> Callable[[], None]:
        def made(original: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            if not is_compiling():
                self.steps.optimizers.add(optimizer)
                self._watch_step(type(optimizer))

        return _around(base, "__init__", made)

    def _watch_step(self, kind: Any) -> None:
        owner = next(one for one in kind.__mro__ if "step" in vars(one))
        if owner not in self._watched:
            self._watched.add(owner)
            self._undo.callback(_around(owner, "step", self._step))

    def _step(self, original: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        stepping = self._thread.optimizers
        if is_compiling() or any(one is optimizer for one in stepping):
            return original(optimizer, *args, **kwargs)
        closure = phases.has_closure(args, kwargs)
        begun = phases.begin("optimizer", calls_closure=closure)
        stepping.append(optimizer)
        try:
            result = original(optimizer, *args, **kwargs)
        finally:
            stepping.pop()
            phases.end(begun)
        self.stepped(optimizer)
        return result

    def _scaled_step(
        self, original: Any, scaler: Any, optimizer: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Count the step that a GradScaler skips because a gradient is not finite."""
        self._thread.stepped = None
        result = original(scaler, optimizer, *args, **kwargs)
        if self._thread.stepped is not optimizer:
            self.stepped(optimizer)
        return result

    def stepped(self, optimizer: Any) -> None:
        self._thread.stepped = optimizer
        self.steps.stepped(optimizer)


def _phase_of(module: Any) -> str:
    import torch

    is_loss = isinstance(module, torch.nn.modules.loss._Loss)  # noqa: SLF001 (base of all of torch's)
    return "loss" if is_loss else "forward"


def _is_instrumented(module: Any) -> bool:
    """Whether the program has put ranges on a module itself."""
    return bool(module._forward_pre_hooks) and layers.is_instrumented(module)  # noqa: SLF001 (as torch names it)


def _loads_data() -> bool:
    """Whether this is a worker of a DataLoader: its modules prepare data."""
    import torch.utils.data

    return torch.utils.data.get_worker_info() is not None


def _around(owner: Any, name: str, call: Callable[..., Any]) -> Callable[[], None]:
    """Have calls of a function of a class go through another, which gets it as first argument."""
    original = getattr(owner, name)
    is_on = True

    @functools.wraps(original)
    def called(*args: Any, **kwargs: Any) -> Any:
        return call(original, *args, **kwargs) if is_on else original(*args, **kwargs)

    def undo() -> None:
        nonlocal is_on
        is_on = False
        if getattr(owner, name) is called:
            setattr(owner, name, original)

    setattr(owner, name, called)
    return undo

"""Doing something as soon as a program has imported a module, and not a moment earlier."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec


def when_imported(module: str, do: Callable[[], None]) -> None:
    """Call `do` at once if a module has been imported, else once it is."""
    if module in sys.modules:
        do()
    else:
        sys.meta_path.insert(0, _Finder(module, do))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module as all others would, and hands it on with something to do after it.

    Who only asks whether the module is there is answered, too, and imports nothing.
    """

    def __init__(self, module: str, do: Callable[[], None]) -> None:
        self._module = module
        self._do = do
        self._is_asking = False

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        if fullname != self._module or self._is_asking:
            return None
        self._is_asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._loaded)
        return spec

    def _loaded(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self._do()


class _Loader(importlib.abc.Loader):
    """Loads a module by its own loader, and then does what is to be done."""

    def __init__(self, loader: Any, do: Callable[[], None]) -> None:
        self._loader = loader
        self._do = do

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._do()

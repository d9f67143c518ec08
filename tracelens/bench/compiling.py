"""What was compiled, and what came from a cache, while something ran for the first time."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TORCH: Final = {
    ("stats", "unique_graphs"): "traced by torch.compile",
    ("inductor", "fxgraph_cache_miss"): "compiled by Inductor",
    ("inductor", "fxgraph_cache_hit"): "from Inductor's cache",
    ("aot_autograd", "autograd_cache_hit"): "from AOTAutograd's cache",
}
"""Where torch.compile counts graphs, and what is said of them."""


@dataclass
class Seen:
    """What was seen.

    Attributes:
        compiled: kernels that Triton compiled.
        cached: kernels that Triton found in its cache.
        torch: torch.compile's own counts, by what is said of them.
    """

    compiled: int = 0
    cached: int = 0
    torch: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What was seen, in a few words; "": nothing that can be told."""
        parts = [f"{_many(count, 'graph')} {say}" for say, count in self.torch.items() if count]
        if self.compiled:
            parts.append(f"{_many(self.compiled, 'kernel')} compiled by Triton")
        if self.cached:
            parts.append(f"{_many(self.cached, 'kernel')} from Triton's cache")
        return ", ".join(parts)


@contextlib.contextmanager
def seen() -> Iterator[Seen]:
    """See what is compiled within; it is complete at the end."""
    found = Seen()
    before = _counts()
    with _heard(found):
        yield found
    after = _counts()
    found.torch = {say: after[say] - before.get(say, 0) for say in after}


@contextlib.contextmanager
def _heard(found: Seen) -> Iterator[None]:
    """Listen to Triton's compiler, and let who listened before hear it, too."""
    try:
        from triton import knobs
    except ImportError:  # not installed, or an older one
        yield
        return
    knob: Any = knobs.compilation
    before: Callable[..., None] | None = knob.listener

    def listen(*, cache_hit: bool, **more: Any) -> None:
        found.cached += cache_hit
        found.compiled += not cache_hit
        if before is not None:
            before(cache_hit=cache_hit, **more)

    knob.listener = listen
    try:
        yield
    finally:
        knob.listener = before


def _counts() -> dict[str, int]:
    """Return what torch.compile has counted so far; nothing if it was not loaded."""
    utils = sys.modules.get("torch._dynamo.utils")
    counters: Any = getattr(utils, "counters", {})
    return {
        say: int(counters[group].get(name, 0)) if group in counters else 0
        for (group, name), say in _TORCH.items()
    }


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"

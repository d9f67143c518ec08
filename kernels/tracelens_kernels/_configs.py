"""Which configuration a kernel is compiled with: forced, or tuned on this GPU, or its default."""

from __future__ import annotations

from tracelens.tuned import chosen, forced

__all__ = ["chosen", "forced"]

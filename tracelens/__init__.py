"""tracelens tells where a GPU's time and memory go, phase by phase."""

from tracelens.marks import phase, span, step

__version__ = "0.1.0"
__all__ = ["phase", "span", "step"]

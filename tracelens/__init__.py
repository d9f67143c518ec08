"""tracelens tells where a GPU's time and memory go, phase by phase."""

__version__ = "0.1.0"

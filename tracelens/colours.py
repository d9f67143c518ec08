"""Colours of phases, families and categories of memory, the same in every picture.

A colour stands on white and on black alike (at least 2.6 to 1 against either), and families of one
group (`analyses.overview.GROUPS`) are shades of one hue. Hues follow Okabe and Ito, whose colours
colour-blind readers tell apart; a legend or a label always says the name, too.
"""

from __future__ import annotations

from typing import Final

from tracelens.classify import FAMILIES

NONE: Final = "#8a9099"
"""What belongs to no phase, and what is not known."""

PHASES: Final = {
    "forward": "#2f7fc1",
    "loss": "#8b6fd0",
    "backward": "#d97706",
    "backward (inferred)": "#c48a42",
    "optimizer": "#1f9a72",
    "prefill": "#c2589b",
    "decode": "#2e9fb3",
    "(none)": NONE,
}

GROUPS: Final = {
    "matmul": "#2f7fc1",
    "attention": "#8b6fd0",
    "elementwise": "#d97706",
    "optimizer": "#1f9a72",
    "norm_softmax": "#c2589b",
    "reduction": "#a08a1c",
    "copy": "#2e9fb3",
    "comm": "#d2503c",
    "graph": "#6f7f8f",
    "rest": NONE,
}
"""Of the groups of `analyses.overview.GROUPS`, and of the rest."""

_SHADES: Final = {
    "gemm": "#2f7fc1", "conv": "#5b9bd5", "triton_template": "#2a68a8", "linalg": "#4a73b8",
    "attention": "#8b6fd0", "kv_cache": "#a58be0", "ssm": "#7455bf",
    "elementwise": "#d97706", "triton_pointwise": "#b8650f", "rng": "#c98a3a",
    "optimizer": "#1f9a72", "triton_foreach": "#17805e",
    "normalization": "#c2589b", "softmax": "#a9467f", "loss": "#d37db3",
    "reduction": "#a08a1c", "triton_reduction": "#857316", "sort_scan": "#b59d3b",
    "copy": "#2e9fb3", "gather_scatter": "#25849a", "embedding": "#4ba7bb",
    "memcpy": "#2b7f8c", "memset": "#5f9ea8",
    "comm": "#d2503c", "moe": "#b8473a",
    "quantization": "#9a7b5a", "pooling_resize": "#7f8f4a",
    "cuda_graph": "#6f7f8f", "triton_unnamed": "#7d8590", "other": NONE,
}  # fmt: skip

SPARE: Final = (
    "#2f7fc1", "#d97706", "#1f9a72", "#c2589b", "#8b6fd0", "#a08a1c", "#2e9fb3", "#d2503c",
    "#6b8e23", "#9a7b5a", "#4a73b8", "#b8473a",
)  # fmt: skip
"""For whatever has no colour of its own: streams, ranges, phases that users define."""

CATEGORIES: Final = {
    "before the recording": "#95a0ab",
    "pre-existing (no alloc stack)": "#95a0ab",
    "parameters/optimizer state (inferred)": "#7d8fa6",
    "parameters": "#8b6fd0",
    "activations": "#2f7fc1",
    "forward temporaries": "#5f9ccd",
    "gradients": "#d97706",
    "backward temporaries": "#c48a42",
    "optimizer state": "#1f9a72",
    "optimizer temporaries": "#4ea688",
    "communication": "#d2503c",
    "autotuning": "#a08a1c",
}
"""Of memory, by the rules of `links.memory_categories`."""

FAMILY: Final = {family: _SHADES.get(family, NONE) for family in FAMILIES}


def phase(name: str | None) -> str:
    """Return the colour of a phase; those that users define get one by their name."""
    return NONE if name is None else PHASES.get(name) or of_name(name)


def family(name: str | None) -> str:
    """Return the colour of a family of kernels."""
    return FAMILY.get(name or "", NONE)


def category(name: str | None) -> str:
    """Return the colour of a category of memory; those that users define get one by their name."""
    return NONE if name is None else CATEGORIES.get(name) or of_name(name)


def of_name(name: str) -> str:
    """Return a colour for any name, always the same one (FNV-1a; the browser does the same)."""
    digest = 0x811C9DC5
    for byte in name.encode("utf-8", "replace"):
        digest = (digest ^ byte) * 0x01000193 & 0xFFFFFFFF
    return SPARE[digest % len(SPARE)]


def of_place(index: int) -> str:
    """Return a colour for the thing of a place in a list, neighbours far apart."""
    return SPARE[index % len(SPARE)]

"""Readers: one entry = one format, from a file or folder to a Trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracelens import registry
from tracelens.errors import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tracelens.trace.model import Trace

"""Temporary folders that live as long as something reads from them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path


class Scratch:
    """A temporary folder, removed when this object is collected or the program ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="tracelens-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

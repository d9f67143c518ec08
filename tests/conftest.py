"""What every test can ask for, and what no test may touch: the user's cache and terminal."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("ci" if os.environ.get("CI") else "default")

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
TERMINAL = (
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLORTERM",
    "FORCE_COLOR",
    "NO_COLOR",
    "PYTHON_COLORS",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
)


def _has_gpu() -> bool:
    """Ask NVIDIA's driver, since torch may not be there, and takes seconds to load."""
    try:
        return ctypes.CDLL("libcuda.so.1").cuInit(0) == 0
    except OSError:
        return False


if not _has_gpu():
    # Triton decides when it is loaded, and for good, whether kernels are interpreted.
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-samples`, which rewrites the expected tables of our own recordings."""
    parser.addoption(
        "--update-samples",
        action="store_true",
        help="write samples/*/expected/*.csv anew; explain every difference in the pull request",
    )


@pytest.fixture
def update_samples(request: pytest.FixtureRequest) -> bool:
    """Return whether the expected tables are to be written anew."""
    return bool(request.config.getoption("--update-samples"))


@pytest.fixture(autouse=True)
def _a_machine_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Give the test an empty cache and a terminal of 100 columns without colours."""
    for name in [*TERMINAL, *(name for name in os.environ if name.startswith("TRACELENS_"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACELENS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("TRACELENS_DATA_DIR", str(tmp_path_factory.mktemp("data")))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "40")
    monkeypatch.setenv("TERM", "dumb")
    yield
    if store := sys.modules.get("tracelens.trace.store"):
        store.flush()  # what one test leaves to be written must not meet the next


@contextmanager
def _nobody() -> Iterator[None]:
    """Be a user without rights for a while: root may do what nobody is permitted to."""
    if os.geteuid():
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def nobody() -> Iterator[tuple[Path, Callable[[], AbstractContextManager[None]]]]:
    """Give a folder that everybody can enter, and a context in which one is not root."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no users like those of Unix")
    folder = Path(tempfile.mkdtemp(prefix="tracelens-test-"))
    folder.chmod(0o755)
    yield folder, _nobody
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Return the folder of real recordings, which are not part of the repository."""
    if not CORPUS.is_dir():
        pytest.skip("the corpus of recordings is absent: ../shared/corpus")
    return CORPUS


@pytest.fixture(scope="session")
def nsys() -> str:
    """Return the path of an nsys that runs."""
    path = shutil.which("nsys")
    if path is None or subprocess.run([path, "--version"], capture_output=True).returncode != 0:  # noqa: PLW1510
        pytest.skip("nsys is not on PATH")
    return path

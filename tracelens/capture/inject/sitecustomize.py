"""What Python runs first in a program that is captured; says nothing, and harms nothing.

It takes its own folder off the path, runs the sitecustomize that it hides, and waits for torch.
"""

# ruff: noqa: PTH100, PTH120, PTH123 (pathlib is not loaded yet, and takes longer than all of this)

import os
import sys


def _run_hidden() -> None:
    import importlib.machinery
    import importlib.util

    here = os.path.dirname(os.path.abspath(__file__))
    # Else the program could import what lies beside this by its bare name.
    sys.path[:] = [path for path in sys.path if not path or os.path.abspath(path) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _watch() -> None:
    try:
        from tracelens.capture.inject import program

        program.watch()
    except Exception as error:  # noqa: BLE001 (whatever it is: the program runs as it would)
        _note(error)


def _note(error: Exception) -> None:
    """Leave a line for whoever started the capture, beside the job."""
    job = os.environ["TRACELENS_JOB"].removesuffix(".json")
    try:
        with open(f"{job}.trouble.txt", "a", encoding="utf-8") as file:
            file.write(f"{sys.executable}: {type(error).__name__}: {error}\n")
    except OSError:
        pass


try:
    _run_hidden()
finally:
    if os.environ.get("TRACELENS_JOB"):
        _watch()

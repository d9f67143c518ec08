"""Real processes joined by gloo (or NCCL), each running the same function of a test's file.

    results = run("tests.workloads.test_collectives:what_each_rank_does", 2, tmp_path)

Each rank calls ``function(rank, world_size, folder)``; what it returns comes back, by rank.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_ROOT = Path(__file__).parents[2]
_LIMIT_S = 120


def run(function: str, world_size: int, folder: Path, backend: str = "gloo") -> list[Any]:
    """Run a function in each of several ranks, and return what each of them returned."""
    module = [sys.executable, "-W", "error", "-m", "tests.workloads.gloo"]
    command = [*module, function, str(folder), backend]
    ranks = []
    for rank in range(world_size):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "OMP_NUM_THREADS": 1}
        environment = os.environ | {name: str(value) for name, value in names.items()}
        ranks.append(
            subprocess.Popen(
                command,
                cwd=_ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        said = [process.communicate(timeout=_LIMIT_S)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    failed = [text for process, text in zip(ranks, said, strict=True) if process.returncode]
    if failed:
        raise AssertionError("\n".join(failed))
    return [torch.load(_answer(folder, rank), weights_only=False) for rank in range(world_size)]


def _answer(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.pt"


def _main() -> int:
    where, folder, backend = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    module, _, name = where.partition(":")
    meeting = f"file://{folder / 'meeting'}"
    if backend == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=world_size)
    try:
        result = getattr(importlib.import_module(module), name)(rank, world_size, folder)
    except BaseException:  # noqa: BLE001 (the parent shows it, whatever it is)
        traceback.print_exc()
        return 1
    torch.save(result, _answer(folder, rank))
    dist.barrier()
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    status = _main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread of gloo may yet want Python's lock, and aborts if it finds the interpreter gone.
    os._exit(status)

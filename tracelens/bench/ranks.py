"""The processes that measure an all-reduce: run by torch.distributed.run, one for each GPU.

Sizes and bandwidths are as nccl-tests counts them (its doc/PERFORMANCE.md): the size is what each
rank holds, and the bus bandwidth 2 (n - 1) / n of it over the time of the slowest rank.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

from tracelens.bench import job, timing
from tracelens.bench.job import Line
from tracelens.hardware.measured import Result

_QUICK_BYTES: Final = (1 << 10, 1 << 20, 1 << 26, 1 << 30)
_ALL_BYTES: Final = tuple(1 << power for power in range(10, 31, 2))
_CPU_BYTES: Final = (1 << 10, 1 << 20)
_SAMPLES: Final = 20
_SAMPLE_S: Final = 0.01
_MOST_CALLS: Final = 1000


def main() -> int:
    """Measure every size, and let the first rank write the answers to a file."""
    import torch
    import torch.distributed as dist

    asked, file = job.decode(sys.argv[1]), Path(sys.argv[2])
    on_gpu = asked.backend == "nccl"
    if on_gpu:
        number = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(number)
        device = f"cuda:{number}"
        dist.init_process_group("nccl", device_id=torch.device(device))
    else:
        device = "cpu"
        dist.init_process_group(asked.backend)
    try:
        sizes = (_QUICK_BYTES if asked.quick else _ALL_BYTES) if on_gpu else _CPU_BYTES
        for size in sizes:
            found = _measured(torch, dist, device, size, asked.backend)
            if dist.get_rank() == 0:
                with file.open("ab") as stream:
                    stream.write(job.line(Line(result=found)))
    finally:
        dist.destroy_process_group()
    return 0


def _measured(torch: Any, dist: Any, device: str, size: int, backend: str) -> Result:
    buffer = torch.rand(size // 4, dtype=torch.float32, device=device)

    def timed(calls: int) -> float:
        """Return the seconds of one call, of the slowest rank."""
        dist.barrier()
        if device != "cpu":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            dist.all_reduce(buffer)
        if device != "cpu":
            torch.cuda.synchronize()
        took = torch.tensor([(time.perf_counter() - begin) / calls], device=device)
        dist.all_reduce(took, op=dist.ReduceOp.MAX)
        buffer.fill_(1.0)  # sums of sums would become infinite
        return float(took.item())

    timed(1)
    once = timed(5)  # the same in every rank, and so is what follows
    calls = min(max(1, round(_SAMPLE_S / max(once, 1e-9))), _MOST_CALLS)
    timed(calls)
    samples = [timed(calls) for _ in range(_SAMPLES)]
    ranks = dist.get_world_size()
    median = statistics.median(samples)
    return Result(
        name="all_reduce",
        unit="bytes_per_s",
        value=2 * (ranks - 1) / ranks * size / median,
        median_s=median,
        mad_s=timing.Timing(samples, settled=True).mad_s,
        samples_s=samples,
        size={"bytes": size, "ranks": ranks},
        clock="wall clock",
        note=f"{backend}; bus bandwidth, of the slowest rank",
    )


if __name__ == "__main__":
    sys.exit(main())

"""Results of kernels as what targets are held against: see `tracelens grade`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tracelens.bench.sweep import sizes
from tracelens.targets import Measured, Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.bench.cell import Row
    from tracelens.bench.results import Results
    from tracelens.targets.quantities import Dimension

_TIMES: Final = {"kernel_time": "kernel_time", "call_latency": "latency"}


def measured(results: Results) -> list[Measured]:
    """Return what was measured, the quantities of one implementation in one cell together.

    The config of each has the kernel, its operation, format, implementation, state of the cache and
    sizes by their names. Metrics are `kernel_time`, `latency` (`call_latency`), `calls_per_s`
    (`throughput`), `flops_per_s`, `bytes_per_s` and `bound_share` (of `kernel_time`), and `error`.
    """
    found: dict[str, Measured] = {}
    for row in results.rows:
        config = _config(row)
        name = f"{row.implementation} of {config['kernel']} {sizes(row.shape)} {row.dtype}"
        one = found.setdefault(repr(config), Measured(name, results.device or None, config, {}))
        readings: dict[str, Reading] = dict(one.readings)
        readings |= dict(_readings(row))
        found[repr(config)] = Measured(name, one.gpu, config, readings)
    return list(found.values())


def _config(row: Row) -> dict[str, Any]:
    return {
        "kernel": row.kernel.replace("_", "-"),
        "operation": row.operation,
        "dtype": row.dtype,
        "implementation": row.implementation,
        "l2": row.l2,
        **row.shape,
    }


def _readings(row: Row) -> Iterator[tuple[str, Reading]]:
    if row.errors:
        yield "error", Reading(max(row.errors.values()), "number", how="bench")
    if row.quantity == "throughput":
        yield "calls_per_s", _inverse(row, 1.0, "rate")
        return
    yield _TIMES[row.quantity], _reading(row, 1e9, "time")
    if row.quantity != "kernel_time":
        return
    if row.flops:
        yield "flops_per_s", _inverse(row, row.flops, "flops_per_s")
    if row.bytes:
        yield "bytes_per_s", _inverse(row, row.bytes, "bytes_per_s")
    if row.bound_s is not None:
        yield "bound_share", _inverse(row, row.bound_s, "share")


def _reading(row: Row, factor: float, dimension: Dimension) -> Reading:
    low, high = (None if x is None else x * factor for x in (row.low_s, row.high_s))
    return Reading(row.median_s * factor, dimension, low, high, row.n, how="bench")


def _inverse(row: Row, amount: float, dimension: Dimension) -> Reading:
    """Return an amount over the time; the longest time is the lowest rate."""
    low, high = (None if not x else amount / x for x in (row.high_s, row.low_s))
    return Reading(amount / row.median_s, dimension, low, high, row.n, how="bench")

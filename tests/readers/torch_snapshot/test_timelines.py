"""Timelines of `export_memory_timeline`: sums per category, in its two kinds of JSON."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.readers.torch_snapshot.reading import refused_if_at_all, said, table, written
from tracelens.errors import UnreadableError
from tracelens.readers.open import open_trace
from tracelens.trace.schema import TABLES

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.trace.model import Trace

NOW_US = 1_700_000_000_000_000
PARAMETER, TEMPORARY, ACTIVATION = 0, 3, 4


def read(content: Any, folder: Path) -> Trace:
    """Write JSON and read it."""
    path = written(json.dumps(content).encode(), folder, "timeline.json")
    return open_trace(path, cache=False)


def sizes(**bytes_of: int) -> list[int]:
    """Return a row of sizes as the profiler writes it: a zero, then eight categories."""
    row = [0] * 9
    for category, size in bytes_of.items():
        row[1 + {"parameter": PARAMETER, "activation": ACTIVATION}[category]] = size
    return row


def samples(trace: Trace, name: str) -> list[tuple[int, float]]:
    """Return the times and values of a counter."""
    rows = table(trace, "counters").filter(name=f"{name} (bytes)")
    return list(rows.select("time_ns", "value").iter_rows())


def test_sizes_over_time_become_a_counter_per_category(tmp_path: Path) -> None:
    content = [
        [NOW_US, NOW_US + 5],
        [sizes(parameter=4096), sizes(parameter=4096, activation=512)],
    ]

    trace = read(content, tmp_path)

    assert trace.source.format == "torch-memory-timeline"
    assert trace.source.facts["epoch_ns"] == "0"
    counters = table(trace, "counters")
    assert counters.schema == TABLES["counters"].schema()
    assert counters["name"].n_unique() == 8
    assert "memory" not in trace
    assert samples(trace, "PARAMETER") == [(NOW_US * 1000, 4096), ((NOW_US + 5) * 1000, 4096)]
    assert samples(trace, "ACTIVATION") == [(NOW_US * 1000, 0), ((NOW_US + 5) * 1000, 512)]
    assert "sums per category only" in said(trace, "missing")


def test_changes_are_summed_per_category(tmp_path: Path) -> None:
    content = [
        [-1, 1, 4096, PARAMETER],
        [5_000, 2, 512, ACTIVATION],
        [6_000, 3, -512, ACTIVATION],
        [6_000, 3, 512, TEMPORARY],
        [9_000, 4, -512, TEMPORARY],
    ]
    path = tmp_path / "timeline.raw.json.gz"
    path.write_bytes(gzip.compress(json.dumps(content).encode()))

    trace = open_trace(path, cache=False)

    assert samples(trace, "PARAMETER") == [(5_000, 4096)]
    assert samples(trace, "ACTIVATION") == [(5_000, 512), (6_000, 0)]
    assert samples(trace, "TEMPORARY") == [(6_000, 512), (9_000, 0)]
    assert "epoch_ns" not in trace.source.facts


def test_rows_of_another_shape_are_counted(tmp_path: Path) -> None:
    content = [[1, 2, 3, "x"], [sizes(), [1, 2], sizes(), sizes(parameter=7)]]

    trace = read(content, tmp_path)

    assert samples(trace, "PARAMETER") == [(1000, 0), (3000, 0)]
    assert "set aside: they are not shaped as the others" in said(trace, "damaged")


def test_a_sum_of_sizes_beyond_64_bits_does_not_turn_negative(tmp_path: Path) -> None:
    content = [[n, 2, 2**62, PARAMETER] for n in range(1, 9)]

    assert samples(read(content, tmp_path), "PARAMETER")[-1] == (8, 2.0**65)


@pytest.mark.parametrize(
    "content",
    [
        [[], []],
        [[1, 2], []],
        [[1], [[0]]],
        [[1], [[]]],
        [[1, 2, 3, 4]],
        [[1.5, 2, 3, 4], "x", None, [1, 2, 3, None]],
        [[1, 2, 3, 10**30]],
        [[1, 9, 3, -4]],
        [[10**30], [[0] * 9]],
        [[1], [["x"] * 9]],
        [[1], [[0] * 5000]],
        [[1, 2, 3]],
        [[1], [2]],
    ],
    ids=json.dumps,
)
def test_what_is_nearly_a_timeline_is_read_or_refused(tmp_path: Path, content: Any) -> None:
    path = written(json.dumps(content).encode(), tmp_path, "timeline.json")

    reason = refused_if_at_all(path)

    assert reason is None or "no memory snapshot" in reason or "no torch.profiler" in reason


def test_a_list_of_lists_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="holds a list of 2 list: no memory snapshot"):
        read([[1, 2, 3], [4, 5, 6]], tmp_path)

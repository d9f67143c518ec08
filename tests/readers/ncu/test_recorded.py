"""Real tables of ncu, against what Python's csv module reads out of them."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path

import pytest

from tracelens.readers.open import open_trace

SAMPLE = Path(__file__).parents[3] / "samples" / "gpt2-small-1layer-ncu-h200" / "ncu.csv.gz"


def by_hand(text: str) -> tuple[list[dict[str, str]], dict[tuple[int, str], float]]:
    """Return the launches, and every metric that Python takes for a number."""
    lines = [line for line in text.splitlines() if not line.startswith("==")]
    _, *launches = csv.DictReader(lines)  # the first row has units
    numbers = {}
    for place, launch in enumerate(launches):
        for name, value in launch.items():
            if "__" in name:
                try:
                    numbers[place, name] = float(value.replace(",", ""))
                except ValueError:
                    assert name.startswith(("launch__", "device__"))
    return launches, numbers


def check(path: Path, text: str) -> None:
    launches, numbers = by_hand(text)

    trace = open_trace(path, cache=False)

    ops = trace["gpu_ops"].join(trace["names"], on="name_id").sort("op_id").collect()
    assert ops["name"].to_list() == [launch["Kernel Name"] for launch in launches]
    took = [round(numbers[n, "gpu__time_duration.sum"]) for n in range(len(launches))]
    assert (ops["end_ns"] - ops["start_ns"]).to_list() == took
    rows = trace["op_counters"].collect().iter_rows()
    assert {(op_id, name): value for op_id, name, value, _ in rows} == numbers
    assert Counter(caveat.kind for caveat in trace.caveats) == {"note": 1}


def test_every_number_of_the_sample_is_read() -> None:
    check(SAMPLE, gzip.decompress(SAMPLE.read_bytes()).decode())


@pytest.mark.corpus
def test_every_number_of_a_recording_with_messages_is_read(corpus: Path) -> None:
    path = corpus / "ncu" / "roofline-raw-h200.csv"
    check(path, path.read_text(encoding="utf-8"))

"""Our own recordings give the tables that stand beside them, number by number."""

from __future__ import annotations

import csv
import gzip
import sqlite3
from pathlib import Path

import pytest

from tracelens.__main__ import run

SAMPLES = Path(__file__).parents[1] / "samples"
WORK = (
    "totals",
    "overview",
    "phases",
    "families",
    "kernels",
    "ranges",
    "steps",
    "copies",
    "memsets",
    "gaps",
    "launch_delay",
    "api",
    "streams",
    "devices",
)
ROOFLINE = ("roofline", "roofline_phases", "roofline_totals")
OPS = (
    "ops",
    "ops_by_shape",
    "modules",
    "module_classes",
    "memory_by_op",
    *ROOFLINE,
)
BOTH = ("overview", "kernels", "memory_by_phase")
MEMORY = (
    "devices",
    "phases",
    "live",
    "categories",
    "largest",
    "fragmentation",
    "churn",
)
RECORDINGS = (
    ("summarize", "gpt2-xl-ctx256-h200/run.sqlite.gz", "", WORK),
    ("memory", "gpt2-xl-ctx256-h200/memory.pickle.gz", "memory", (*MEMORY, "leaks")),
    ("summarize", "gpt2-small-ctx512-bf16-h200/trace.json.gz", "trace", (*WORK, *OPS)),
    ("memory", "gpt2-small-ctx512-bf16-h200/memory.pickle.gz", "memory", MEMORY),
    ("memory", "gpt2-small-ctx512-bf16-h200/trace.json.gz", "trace-memory", ("devices", "phases")),
    ("summarize", "gpt2-medium-ddp-h200x2", "", ("ranks", "collectives", "memory_by_phase")),
    (
        "summarize",
        "gpt2-small-1layer-ncu-h200/ncu.csv.gz",
        "ncu",
        ("kernel_counters", "families", "kernels", "launch_shapes", "devices", *ROOFLINE),
    ),
    ("roofline", "gpt2-small-1layer-ncu-h200", "run", ROOFLINE),
    ("summarize", "gpt2-small-1layer-ncu-h200/trace.json.gz", "trace", ROOFLINE),
    ("memory", "oom-h200/memory.pickle.gz", "memory", (*MEMORY, "ooms")),
    ("summarize", "capture-gpt2-xl-ctx256-h200", "", (*BOTH, "roofline_phases")),
    ("memory", "capture-gpt2-xl-ctx256-h200", "memory", ("devices", "phases", "categories")),
    ("summarize", "capture-gpt2-small-ctx512-stacks-h200", "", (*BOTH, "modules", "roofline")),
    ("summarize", "capture-gpt2-small-ctx512-graph-h200", "", ("overview", "kernels", "steps")),
    ("summarize", "capture-ddp-medium-h200x2", "", ("ranks", "collectives", "overview")),
)
"""Command, recording, folder inside of the sample's `expected`, and tables."""


@pytest.mark.parametrize(
    "case", [(*case, table) for *case, tables in RECORDINGS for table in tables], ids="-".join
)
def test_a_sample_gives_its_expected_table(
    case: tuple[str, ...], update_samples: bool, tmp_path: Path
) -> None:
    command, recording, folder, table = case
    sample = SAMPLES / recording.partition("/")[0]
    expected = sample / "expected" / folder / f"{table}.csv"
    made = tmp_path / expected.name

    status = run([command, str(SAMPLES / recording), "-t", table, "-f", "csv", "-o", str(made)])

    # A table of nothing (no leak, say) is an answer, too.
    assert status == (0 if len(_rows(made)) > 1 else 4)
    if update_samples:
        expected.parent.mkdir(parents=True, exist_ok=True)
        expected.write_bytes(made.read_bytes())
    assert _rows(made) == _rows(expected)


def test_the_gpt2_xl_sample_has_the_phases_that_plain_sql_finds(tmp_path: Path) -> None:
    """Each kernel's launch, looked up by hand: which phase range of the process was open?"""
    database = tmp_path / "run.sqlite"
    packed = SAMPLES / "gpt2-xl-ctx256-h200" / "run.sqlite.gz"
    database.write_bytes(gzip.decompress(packed.read_bytes()))
    by_hand = """
        SELECT n.text, count(*), sum(k.end - k.start)
        FROM CUPTI_ACTIVITY_KIND_KERNEL AS k
        JOIN CUPTI_ACTIVITY_KIND_RUNTIME AS r
          ON r.correlationId = k.correlationId AND (r.globalTid >> 24) = (k.globalPid >> 24)
        JOIN NVTX_EVENTS AS n
          ON n.text IN ('forward', 'backward', 'optimizer')
         AND r.start >= n.start AND r.start < n.end
        GROUP BY n.text
    """
    with sqlite3.connect(database) as db:
        truth = {(phase, count, time) for phase, count, time in db.execute(by_hand)}
    made = tmp_path / "phases.csv"

    assert run(["summarize", str(database), "-t", "phases", "-f", "csv", "-o", str(made)]) == 0

    rows = csv.DictReader(made.read_text().splitlines())
    assert {(r["phase"], int(r["kernels"]), int(r["kernel_time_ns"])) for r in rows} == truth


def _rows(file: Path) -> list[list[str]]:
    return list(csv.reader(file.read_text(encoding="utf-8").splitlines()))


def test_a_peak_of_requested_bytes_is_that_of_the_allocator_but_for_rounding(
    tmp_path: Path,
) -> None:
    """The profiler wrote the allocator's own totals, of which max_memory_allocated() is the most.

    Real programs ask for 0 to 3.7 % less than the allocator rounds up to.
    """
    peaks = {}
    for recording in ("memory.pickle.gz", "trace.json.gz"):
        made = tmp_path / f"{recording}.csv"
        path = str(SAMPLES / "gpt2-small-ctx512-bf16-h200" / recording)
        assert run(["memory", path, "-t", "devices", "-f", "csv", "-o", str(made)]) == 0
        (row,) = csv.DictReader(made.read_text().splitlines())
        peaks[recording] = int(row["peak_active_bytes"])
        assert row["peak_phase"] == "backward"

    requested, rounded = peaks["memory.pickle.gz"], peaks["trace.json.gz"]
    assert rounded * 0.963 <= requested <= rounded

"""Real nsys exports of 2021 to 2026 give the totals that other programs counted in them."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tests.asking import Shell, linked, nearly, table, the_row
from tracelens.trace.intervals import busy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracelens.links.linked import Linked

pytestmark = pytest.mark.corpus

FILES = (
    "cloverleaf-a100",
    "cs336-3070ti-fwd-bwd",
    "cs336-a100-cudagraph",
    "cs336-ada-win-2026",
    "fuser-h200-nvtx13k",
    "gpt2-small-ctx256-a100-train",
    "gpt2-xl-ctx256-a100-fwd-bwd",
    "gpt2-xl-ctx512-a100-train",
    "h100x2-1s",
    "mordred-rtx6000-2021",
    "poolformer-titan-startend",
    "rodinia-3090-8k",
    "saxpy-mpi-cudabacktrace",
    "torchrun-h100x2-after",
    "torchrun-h100x2-before",
    "trixi-v100-2023",
    "weather-4060-2025.5",
)
PARQUET = ("gpt2-small-ctx256-a100-train", "gpt2-xl-ctx256-a100-fwd-bwd")


@pytest.fixture(scope="module", params=FILES)
def recording(request: pytest.FixtureRequest, corpus: Path) -> Iterator[tuple[Linked, Any]]:
    """Give each recording with its work attributed, and what is known to be true of it."""
    truth = json.loads((corpus / "nsys_truth.json").read_text(encoding="utf-8"))
    file = corpus / "nsys" / f"{request.param}.sqlite"
    if not file.is_file():
        pytest.skip(f"{file} is absent")
    return linked(file), truth[file.name]


def test_no_recording_is_left_out(corpus: Path) -> None:
    assert sorted(file.stem for file in (corpus / "nsys").glob("*.sqlite")) == list(FILES)


def test_totals_are_true_to_the_nanosecond(recording: tuple[Linked, Any]) -> None:
    of, truth = recording
    row = the_row(of, "totals")

    assert (row["kernels"], row["kernel_time_ns"]) == (truth["kernels"], truth["kernel_ns"])
    assert (row["graph_launches"], row["graph_time_ns"]) == (truth["graphs"], truth["graph_ns"])
    assert (row["copies"], row["copy_time_ns"]) == (
        truth.get("memcpy", 0),
        truth.get("memcpy_ns", 0),
    )


def test_the_longest_kernels_have_their_calls_and_times(recording: tuple[Linked, Any]) -> None:
    of, truth = recording
    found = {row["name"]: (row["calls"], row["total_ns"]) for row in table(of, "kernels")}

    for name, calls, total_ns in truth.get("top", ()):
        assert found[name] == (calls, total_ns)


def test_the_union_of_kernels_is_true(recording: tuple[Linked, Any]) -> None:
    of, truth = recording
    kernels = of.ops.lazy().filter(pl.col("kind") == "kernel")

    assert busy(kernels, ["device"]).collect()["busy_ns"].sum() == truth.get(
        "busy_ns_per_device_union", 0
    )


def test_as_many_launches_are_missing_as_were_not_recorded(recording: tuple[Linked, Any]) -> None:
    of, truth = recording
    kernels = of.ops.filter(pl.col("kind") == "kernel")

    assert kernels["launch_ns"].null_count() == truth.get("unlinked", 0)


def test_phases_are_true_where_ranges_name_them(recording: tuple[Linked, Any]) -> None:
    of, truth = recording
    found = {
        str(row["phase"]): [row["kernels"], row["kernel_time_ns"]]
        for row in table(of, "phases")
        if row["kernels"]
    }

    if "phases" in truth:
        assert (of.phase_source, found) == ("ranges", truth["phases"])
    else:
        assert of.phase_source in ("inferred", "none") or not truth["kernels"]


def test_what_the_autograd_thread_launches_is_backward_without_names(corpus: Path) -> None:
    of = linked(corpus / "nsys" / "gpt2-xl-ctx256-a100-fwd-bwd.sqlite")
    phases = {row["phase"]: (row["kernels"], row["kernel_time_ns"]) for row in table(of, "phases")}

    assert of.phase_source == "inferred"
    assert phases["backward"] == (39_286, 4_806_111_473)
    assert phases["forward"] == (61_255 - 39_286, 7_031_615_123 - 4_806_111_473)


def test_all_gemms_of_one_step_of_the_forward_pass_are_forward(corpus: Path) -> None:
    """The table printed in document 002 has 88 of the 241 in backward: it went by GPU time."""
    of = linked(corpus / "nsys" / "gpt2-xl-ctx256-a100-fwd-bwd.sqlite", phases=("forward",))
    (gemm,) = [row for row in table(of, "kernels") if row["name"] == "ampere_sgemm_128x64_tn"]

    assert gemm["calls"] == 8 * 241


def test_phases_and_families_add_up_to_the_totals(recording: tuple[Linked, Any]) -> None:
    of, _ = recording
    totals = the_row(of, "totals")

    for name in ("phases", "families"):
        rows = table(of, name)
        assert sum(row["kernels"] for row in rows) == totals["kernels"]
        assert sum(row["kernel_time_ns"] for row in rows) == totals["kernel_time_ns"]
    assert sum(row["graph_time_ns"] for row in table(of, "phases")) == totals["graph_time_ns"]
    assert sum(row["copy_time_ns"] for row in table(of, "phases")) == totals["copy_time_ns"]
    assert sum(row["total_ns"] for row in table(of, "kernels")) == totals["kernel_time_ns"]


@pytest.mark.parametrize(
    "name", ["gpt2-small-ctx256-a100-train", "cs336-3070ti-fwd-bwd", "torchrun-h100x2-before"]
)
def test_a_plain_loop_over_the_file_finds_the_same_phases(corpus: Path, name: str) -> None:
    file = corpus / "nsys" / f"{name}.sqlite"
    found = {
        row["phase"]: (row["kernels"], row["kernel_time_ns"])
        for row in table(linked(file), "phases")
        if row["kernels"]
    }

    assert found == phases_by_loop(file)


def phases_by_loop(file: Path) -> dict[str | None, tuple[int, int]]:
    """Join by a dictionary and look through every range: slow, and nothing to get wrong."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as db:
        calls = {
            (thread >> 24, correlation): (start, thread)
            for start, thread, correlation in db.execute(
                "SELECT start, globalTid, correlationId FROM CUPTI_ACTIVITY_KIND_RUNTIME"
                " WHERE eventClass <> 67"
            )
        }
        sql = """SELECT start, end, globalTid, coalesce(text, value) FROM NVTX_EVENTS
                 LEFT JOIN StringIds ON id = textId
                 WHERE eventType IN (59, 60) AND end IS NOT NULL AND coalesce(domainId, 0) = 0"""
        ranges = [
            (start, end, thread, phase)
            for start, end, thread, text in db.execute(sql)
            if (phase := phase_by_words(text or ""))
        ]
        sql = "SELECT end - start, globalPid, correlationId FROM CUPTI_ACTIVITY_KIND_KERNEL"
        kernels = db.execute(sql).fetchall()
    count: Counter[str | None] = Counter()
    time_ns: Counter[str | None] = Counter()
    for took, process, correlation in kernels:
        at, thread = calls.get((process >> 24, correlation), (None, None))
        open_now = [r for r in ranges if at is not None and r[0] <= at < r[1]]
        own = [r for r in open_now if r[2] == thread]
        others = [r for r in open_now if r[2] >> 24 == process >> 24]
        phase = max(own or others, default=(0, 0, 0, None))[3]
        count[phase] += 1
        time_ns[phase] += took
    return {phase: (count[phase], time_ns[phase]) for phase in count}


def phase_by_words(text: str) -> str | None:
    words = {"forward": ("forward",), "backward": ("backward",), "optimizer": ("optim",)}
    fits = [p for p, some in words.items() if any(word in text.lower() for word in some)]
    return fits[0] if len(fits) == 1 else None


@pytest.mark.parametrize("name", PARQUET)
def test_a_parquet_export_gives_every_table_of_its_sqlite_twin(
    corpus: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    shell = Shell(capsys)
    asked = ("--table", "all", "--format", "json", "--no-cache")
    sqlite = shell("summarize", corpus / "nsys" / f"{name}.sqlite", *asked).json
    parquet = shell("summarize", corpus / "nsys_parquet" / f"{name}_pqtdir", *asked).json
    formats = [each["source"].pop("format") for each in (sqlite, parquet)]
    for each in (sqlite, parquet):
        each["source"].pop("path")

    assert formats == ["nsys-sqlite", "nsys-parquet"]
    assert len(parquet["tables"]) > 10
    ours, theirs = sqlite.pop("tables"), parquet.pop("tables")
    assert sqlite == parquet
    assert ours.keys() == theirs.keys()
    for key, rows in ours.items():
        assert (key, nearly(theirs[key])) == (key, nearly(rows))

"""NVIDIA's own reports say the same, where they are right."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.asking import linked, table
from tests.build import Nsys, training_step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asking import Row
    from tracelens.links.linked import Linked

pytestmark = pytest.mark.nsys

CORPUS = (
    "cloverleaf-a100",
    "cs336-3070ti-fwd-bwd",
    "cs336-ada-win-2026",
    "gpt2-small-ctx256-a100-train",
    "gpt2-xl-ctx512-a100-train",
    "h100x2-1s",
    "rodinia-3090-8k",
    "torchrun-h100x2-before",
)
# Ranges whose work is launched by the thread that holds them: NVIDIA's report sees no other.
OWN_THREAD = {
    "gpt2-small-ctx256-a100-train": ("forward", "optimizer", "TranformerBlock"),
    "gpt2-xl-ctx512-a100-train": ("forward", "optimizer"),
    "cs336-3070ti-fwd-bwd": ("Forward",),
}
NAMES = {"HtoD": "[CUDA memcpy HtoD]", "DtoH": "[CUDA memcpy DtoH]", "DtoD": "[CUDA memcpy DtoD]",
         "PtoP": "[CUDA memcpy PtoP]", "HtoH": "[CUDA memcpy HtoH]"}  # fmt: skip

# nsys and we cut versions off the names of functions, though not the same ones of all.
VERSION = r"(_v\d+)+$"
# What emit_nvtx appends to the names of operators, different in each call.
NUMBERS = r", (seq|op_id) = .*$"

Stats = dict[str, list[dict[str, str]]]


def stats(nsys: str, path: Path, *reports: str) -> Stats:
    """Return what `nsys stats` prints: report -> rows."""
    found = {}
    for report in reports:
        command = [nsys, "stats", "-r", report, "-f", "csv", "-q", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[report] = list(csv.DictReader(io.StringIO(done.stdout)))
    return found


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Give two steps of training and more: two streams, driver launches, marks, domains."""
    trace = Nsys("3.0.0")
    training_step(trace, at=training_step(trace).end_ns)
    main, other = trace.thread("python"), trace.thread("other", tid=105)
    for number, took in enumerate((7, 11, 30, 400)):
        at = 10_000 + 1_000 * number
        main.kernel("skewed", api=(at, at + 17), run=(at + 50, at + 50 + took), stream=8)
        other.copy(bytes=100 * took, kind="DtoH", at=at, run=(at + 1, at + 1 + took))
        other.memset(bytes=took, at=at, run=(at + 2, at + 2 + took))
    main.kernel("early", api=(20_000, 20_100), run=(20_050, 20_075), call="cuLaunchKernel",
                event_class=1)  # fmt: skip
    main.push("layer", 30_000, 30_100).push("layer", 40_000, 40_011).push("inner", 30_010, 30_020)
    main.push("gemm", 50_000, 50_001, domain="cuBLAS", registered=True)
    return trace.write(tmp_path / "built.sqlite")


@pytest.fixture(params=["built", *(pytest.param(c, marks=pytest.mark.corpus) for c in CORPUS)])
def recording(request: pytest.FixtureRequest, tmp_path: Path, built: Path) -> tuple[Path, Linked]:
    """Give a copy that nsys may write beside, and what we make of it."""
    if request.param == "built":
        return built, linked(built)
    corpus: Path = request.getfixturevalue("corpus")
    copy = tmp_path / f"{request.param}.sqlite"
    shutil.copyfile(corpus / "nsys" / copy.name, copy)
    return copy, linked(copy)


def assert_spread(row: Row, theirs: dict[str, str], calls: str) -> None:
    """Compare totals and extremes to the nanosecond, the rest to the digit that is printed."""
    assert row["calls"] == int(theirs[calls])
    assert row["total_ns"] == int(theirs["Total Time (ns)"])
    assert (row["min_ns"], row["max_ns"]) == (int(theirs["Min (ns)"]), int(theirs["Max (ns)"]))
    for ours, column in (
        ("mean_ns", "Avg (ns)"),
        ("median_ns", "Med (ns)"),
        ("std_ns", "StdDev (ns)"),
    ):
        assert row[ours] == pytest.approx(float(theirs[column] or 0), abs=0.051, rel=1e-9)


def test_kernels(nsys: str, recording: tuple[Path, Linked]) -> None:
    path, of = recording
    rows = stats(nsys, path, "gpukernsum")["gpukernsum"]
    theirs: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:  # one for each shape of launch
        theirs[row["Name"]].append(row)
    ours = {row["name"]: row for row in table(of, "kernels")}

    assert ours.keys() == theirs.keys()
    for name, row in ours.items():
        shapes = theirs[name]
        assert row["calls"] == sum(int(s["Instances"]) for s in shapes)
        assert row["total_ns"] == sum(int(s["Total Time (ns)"]) for s in shapes)
        assert row["min_ns"] == min(int(s["Min (ns)"]) for s in shapes)
        assert row["max_ns"] == max(int(s["Max (ns)"]) for s in shapes)
        if len(shapes) == 1:
            assert_spread(row, shapes[0], "Instances")


def test_copies_and_memsets(nsys: str, recording: tuple[Path, Linked]) -> None:
    path, of = recording
    theirs = {
        row["Operation"]: (int(row["Count"]), int(row["Total Time (ns)"]))
        for row in stats(nsys, path, "gpumemtimesum")["gpumemtimesum"]
    }
    ours = {NAMES[row["kind"]]: (row["calls"], row["total_ns"]) for row in table(of, "copies")}
    sets = table(of, "memsets")
    if sets:
        ours["[CUDA memset]"] = (
            sum(row["calls"] for row in sets),
            sum(row["total_ns"] for row in sets),
        )

    assert ours == theirs


def test_bytes_of_copies(nsys: str, recording: tuple[Path, Linked]) -> None:
    path, of = recording
    theirs = {
        row["Operation"]: (int(row["Count"]), float(row["Total (MB)"]))
        for row in stats(nsys, path, "gpumemsizesum")["gpumemsizesum"]
        if "memset" not in row["Operation"]
    }

    ours = {NAMES[row["kind"]]: (row["calls"], row["bytes"] / 1e6) for row in table(of, "copies")}

    assert ours.keys() == theirs.keys()
    for kind, (calls, megabytes) in ours.items():
        assert calls == theirs[kind][0]
        assert megabytes == pytest.approx(theirs[kind][1], abs=0.0006)


def test_api_calls(nsys: str, recording: tuple[Path, Linked]) -> None:
    path, of = recording
    theirs: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for row in stats(nsys, path, "cudaapisum")["cudaapisum"]:
        theirs[re.sub(VERSION, "", row["Name"])].append(row)
    ours: defaultdict[str, list[Row]] = defaultdict(list)
    for row in table(of, "api"):
        ours[re.sub(VERSION, "", row["name"])].append(row)

    assert ours.keys() == theirs.keys()
    for name, rows in ours.items():
        several = theirs[name]
        assert sum(row["calls"] for row in rows) == sum(int(s["Num Calls"]) for s in several)
        assert sum(r["total_ns"] for r in rows) == sum(int(s["Total Time (ns)"]) for s in several)
        if len(rows) == len(several) == 1:
            assert_spread(rows[0], several[0], "Num Calls")


def test_launch_delays(nsys: str, recording: tuple[Path, Linked]) -> None:
    path, of = recording
    theirs: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for row in stats(nsys, path, "kernexecsum")["kernexecsum"]:  # one for each thread and device
        theirs[row["Kernel Name"]].append(row)
    ours = {row["name"]: row for row in table(of, "launch_delay")}

    assert ours.keys() == theirs.keys()
    for name, row in ours.items():
        several = theirs[name]
        assert row["calls"] == sum(int(s["Count"]) for s in several)
        assert row["queued"] == sum(int(s["QCount"]) for s in several)
        for mean, column in (("api_mean_ns", "AAvg (ns)"), ("total_mean_ns", "TAvg (ns)"),
                             ("kernel_mean_ns", "KAvg (ns)")):  # fmt: skip
            total = sum(int(s["Count"]) * float(s[column]) for s in several)
            assert row[mean] == pytest.approx(total / row["calls"], abs=0.051, rel=1e-9)
        if row["queued"]:
            waits = [s for s in several if int(s["QCount"])]
            total = sum(int(s["QCount"]) * float(s["QAvg (ns)"]) for s in waits)
            assert row["queue_mean_ns"] == pytest.approx(total / row["queued"], abs=0.051, rel=1e-9)
            assert row["queue_max_ns"] == max(int(s["QMax (ns)"]) for s in waits)
        if len(several) == 1:
            medians = [("api_median_ns", "AMed (ns)")]
            medians += [("queue_median_ns", "QMed (ns)")] * bool(row["queued"])
            for median, column in medians:
                assert row[median] == pytest.approx(float(several[0][column]), abs=0.051)


def test_times_of_ranges(nsys: str, recording: tuple[Path, Linked]) -> None:
    path, of = recording
    rows = stats(nsys, path, "nvtxppsum")["nvtxppsum"]
    if "ranges" not in of.trace:
        assert rows == []
        return
    theirs: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for row in rows:
        name = re.sub(NUMBERS, "", row["Range"].removeprefix(":"))
        theirs[name] += int(row["Instances"])
        times[name] += int(row["Total Time (ns)"])
    ours: dict[str, Row] = {}
    for row in table(of, "ranges"):
        named = row["domain"] and not re.fullmatch(r"domain \d+", row["domain"])
        ours[f"{row['domain']}:{row['name']}" if named else row["name"]] = row

    assert {name: row["instances"] for name, row in ours.items()} == theirs
    # They add the time of a range inside another one of its name twice.
    assert all(row["cpu_ns"] <= times[name] for name, row in ours.items())
    assert sum(row["cpu_ns"] == times[name] for name, row in ours.items()) > 0.9 * len(ours)


@pytest.mark.corpus
@pytest.mark.parametrize("name", OWN_THREAD)
def test_work_of_ranges_launched_by_their_own_thread(
    nsys: str, corpus: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / f"{name}.sqlite"
    shutil.copyfile(corpus / "nsys" / path.name, path)
    theirs: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in stats(nsys, path, "nvtxkernsum")["nvtxkernsum"]:
        work = theirs[row["NVTX Range"].removeprefix(":")]
        work[0] += int(row["Kern Inst"])
        work[1] += int(row["Total Time (ns)"])
    ours = {row["name"]: row for row in table(linked(path), "ranges")}

    for range_name in OWN_THREAD[name]:
        row = ours[range_name]
        assert theirs[range_name][0] > 0
        assert [row["kernels"], row["kernel_time_ns"]] == theirs[range_name]


@pytest.mark.corpus
def test_what_they_lose_of_backward_we_do_not(nsys: str, corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    shutil.copyfile(corpus / "nsys" / "cs336-3070ti-fwd-bwd.sqlite", path)
    rows = [
        row
        for row in stats(nsys, path, "nvtxkernsum")["nvtxkernsum"]
        if row["NVTX Range"].removeprefix(":") == "Backward"
    ]
    ours = {row["phase"]: row for row in table(linked(path), "phases")}

    assert sum(int(row["Kern Inst"]) for row in rows) == 507
    assert (ours["backward"]["kernels"], ours["backward"]["kernel_time_ns"]) == (6_642, 760_790_753)

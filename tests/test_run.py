"""Runs: which recordings are those of one job, and which rank each is of."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.build import Nsys, training_step
from tests.kineto import Profile
from tests.ranks import of_rank, write_ranks
from tests.snapshots import Snapshot
from tracelens.errors import UnreadableError, UsageError
from tracelens.run import Known, Place, Recording, Run, as_run, found, only, peek

if TYPE_CHECKING:
    from collections.abc import Mapping

ALONE = [[5_000]]


def nsys(path: Path) -> Path:
    trace = Nsys()
    training_step(trace)
    path.parent.mkdir(parents=True, exist_ok=True)
    return trace.write(path)


def place(folder: str, known: Mapping[str, Known]) -> tuple[Place, dict[Path, Known]]:
    """Return recordings in a folder, and what they say, as if they had been read."""
    paths = {Path(folder) / name: told for name, told in known.items()}
    return Place(Path(folder), tuple(map(Recording, sorted(paths)))), paths


def kineto(rank: int | None = None, world_size: int | None = None) -> Known:
    facts = {"rank": rank, "world_size": world_size}
    return Known("kineto-json", {k: str(v) for k, v in facts.items() if v is not None})


NSYS = Known("nsys-sqlite")
SNAPSHOT = Known("torch-snapshot")


def ranks(known: Mapping[str, Known]) -> dict[int | None, tuple[str, str | None]] | None:
    """Return rank -> (trace, snapshot) of the run that recordings are; None if they are none."""
    run, _ = as_run(*place("job", known))
    return None if run is None else of(run)


def of(run: Run) -> dict[int | None, tuple[str, str | None]]:
    return {
        rank.number: (rank.trace.name, rank.snapshot.name if rank.snapshot else None)
        for rank in run.ranks
    }


def why_not(known: Mapping[str, Known]) -> str:
    run, said = as_run(*place("job", known))
    assert run is None
    return " ".join(said)


def test_a_recordings_own_word_outweighs_its_name() -> None:
    known = {"rank0.json": kineto(1, 2), "rank1.json": kineto(0, 2)}

    assert ranks(known) == {0: ("rank1.json", None), 1: ("rank0.json", None)}


@pytest.mark.parametrize(
    "names",
    [
        ("rank0.sqlite", "rank1.sqlite"),
        ("trace-rank_0.sqlite", "trace-rank_1.sqlite"),
        ("Rank-00.json.gz", "Rank-01.json.gz"),
        ("rank0/trace.json", "rank1/trace.json"),
        ("report_0.sqlite", "report_1.sqlite"),
        ("report.0.sqlite", "report.1.sqlite"),
        ("step_9_0.sqlite.gz", "step_9_1.sqlite.gz"),
        ("000000_step_10.json", "000001_step_10.json"),
    ],
)
def test_where_a_recording_does_not_say_its_rank_the_name_does(names: tuple[str, str]) -> None:
    known = dict.fromkeys(names, NSYS)

    assert ranks(known) == {n: (Path(name).name, None) for n, name in enumerate(names)}


@pytest.mark.parametrize(
    "names",
    [
        ("before.sqlite", "after.sqlite"),
        ("host_4711.json", "host_4712.json"),  # process ids
        ("run_1.sqlite", "run_2.sqlite"),  # not from 0
        ("a_0.sqlite", "b_1.sqlite"),  # not alike
        ("crank0.sqlite", "crank1.sqlite"),
        ("run_0.sqlite", "run_1.sqlite", "other.sqlite"),
        ("rank0.sqlite", "other.sqlite"),
    ],
)
def test_recordings_whose_names_tell_no_ranks_are_no_run(names: tuple[str, ...]) -> None:
    assert why_not(dict.fromkeys(names, NSYS)) == ""


def test_jobs_of_one_rank_are_no_run_of_each_other() -> None:
    assert why_not({"before.json": kineto(0, 1), "after.json": kineto(0, 1)}) == ""


def test_two_that_claim_one_rank_are_named() -> None:
    said = why_not({"a.json": kineto(0, 2), "b.json": kineto(0, 2), "c.json": kineto(1, 2)})

    assert "a.json and b.json are both of rank 0" in said
    assert "move one of them, or name the files" in said


def test_ranks_of_jobs_of_two_sizes_are_no_run() -> None:
    said = why_not({"a.json": kineto(0, 2), "b.json": kineto(1, 4)})

    assert "jobs of 2 and of 4 ranks" in said


def test_one_that_does_not_say_its_rank_among_those_that_do_is_named() -> None:
    said = why_not({"a.json": kineto(0, 2), "b.json": kineto(1, 2), "odd.json": kineto()})

    assert said.startswith("odd.json does not say its rank")


def test_snapshots_lie_beside_the_trace_of_their_rank() -> None:
    known = {
        "rank0.json": kineto(0, 3), "rank1.json": kineto(1, 3), "rank2.json": kineto(2, 3),
        "rank0.pickle": SNAPSHOT, "000002_step_10.pickle": SNAPSHOT,
    }  # fmt: skip

    assert ranks(known) == {
        0: ("rank0.json", "rank0.pickle"),
        1: ("rank1.json", None),
        2: ("rank2.json", "000002_step_10.pickle"),
    }


def test_a_trace_and_a_snapshot_are_a_run_of_one() -> None:
    assert ranks({"trace.json": kineto(), "mem.pickle": SNAPSHOT}) == {
        None: ("trace.json", "mem.pickle")
    }


def test_snapshots_that_cannot_be_placed_are_named() -> None:
    known = {"rank0.json": kineto(0, 2), "rank1.json": kineto(1, 2)}
    more = ("rank0.pickle", "rank0_later.pickle", "rank7.pickle", "mem.pickle")
    run, _ = as_run(*place("job", {**known, **dict.fromkeys(more, SNAPSHOT)}))

    assert run is not None
    assert of(run)[0] == ("rank0.json", "rank0_later.pickle")
    said = " ".join(run.caveats)
    assert "rank0.pickle is set aside" in said
    assert "rank7.pickle is not used: rank 7 has no trace" in said
    assert "mem.pickle is not used" in said


def test_of_two_recorders_of_a_rank_that_of_nsys_is_taken() -> None:
    known = {
        "rank0.json": kineto(0, 2), "rank1.json": kineto(1, 2),
        "rank0.sqlite": NSYS, "rank1.sqlite": NSYS,
    }  # fmt: skip
    run, _ = as_run(*place("job", known))

    assert run is not None
    assert of(run) == {0: ("rank0.sqlite", None), 1: ("rank1.sqlite", None)}
    assert "rank0.json is set aside: rank0.sqlite is a recording of rank 0, too." in run.caveats


def test_snapshots_alone_are_no_run() -> None:
    assert why_not({"rank0.pickle": SNAPSHOT, "rank1.pickle": SNAPSHOT}) == ""


names = st.lists(st.integers(0, 99), min_size=2, max_size=6, unique=True)


@given(names, st.randoms())
def test_ranks_do_not_depend_on_the_order_of_files(numbers: list[int], chance: Any) -> None:
    known = {f"{7919 * n % 101}.json": kineto(n, 100) for n in numbers}
    there, told = place("job", known)
    shuffled = list(there.recordings)
    chance.shuffle(shuffled)

    run, _ = as_run(Place(there.path, tuple(shuffled)), told)
    assert run is not None
    assert [rank.number for rank in run.ranks] == sorted(numbers)
    assert all(told[rank.trace].rank == rank.number for rank in run.ranks)
    assert run.world_size == 100


# In folders.


def test_a_folder_is_what_lies_in_it_and_each_inner_one_is_a_place_of_its_own(
    tmp_path: Path,
) -> None:
    write_ranks(tmp_path / "ddp", [ALONE, ALONE])
    write_ranks(tmp_path / "fsdp", [ALONE, ALONE])
    single = nsys(tmp_path / "single.sqlite")
    (tmp_path / "notes.txt").write_text("none")

    places = {p.path: [r.path.name for r in p.recordings] for p in found([tmp_path])}

    both = ["rank0.json", "rank1.json"]
    assert places == {
        tmp_path: [single.name], tmp_path / "ddp": both, tmp_path / "fsdp": both,
    }  # fmt: skip


def test_folders_named_after_ranks_are_one_place(tmp_path: Path) -> None:
    for rank in range(2):
        nsys(tmp_path / f"rank{rank}" / "run.sqlite")

    (whole,) = found([tmp_path])

    run, _ = as_run(whole, dict.fromkeys([r.path for r in whole.recordings], NSYS))
    assert run is not None
    assert [rank.trace.parent.name for rank in run.ranks] == ["rank0", "rank1"]


def test_a_recording_named_twice_is_read_once(tmp_path: Path) -> None:
    path = nsys(tmp_path / "run.sqlite")

    assert sum(len(p.recordings) for p in found([tmp_path, path, path])) == 1


def test_a_report_of_nsys_is_read_by_the_export_that_lies_beside_it(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / f"{name}.nsys-rep").write_bytes(b"report")
        nsys(tmp_path / f"{name}.sqlite")
    late = (tmp_path / "old.sqlite").stat().st_mtime + 60
    os.utime(tmp_path / "old.nsys-rep", (late, late))

    (whole,) = found([tmp_path])

    names = [r.path.name for r in whole.recordings]
    assert names == ["new.sqlite", "old.nsys-rep", "old.sqlite"]


def test_a_folder_without_recordings_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="holds no recording"):
        found([tmp_path])


def test_run_json_tells_what_belongs_together(tmp_path: Path) -> None:
    nsys(tmp_path / "left.sqlite")
    nsys(tmp_path / "right.sqlite")
    nsys(tmp_path / "other.sqlite")
    listed = [
        {"recorder": "nsys", "rank": 1, "path": "left.sqlite", "seconds": 3},
        {"recorder": "nsys", "rank": 0, "path": "right.sqlite"},
        {"recorder": "memory", "rank": 0, "path": "gone.pickle"},
        {"recorder": "ncu"},
        "nonsense",
    ]
    (tmp_path / "run.json").write_text(json.dumps({"recordings": listed, "workload": "gpt2"}))

    (whole,) = found([tmp_path])
    run, _ = as_run(whole, dict.fromkeys([r.path for r in whole.recordings], NSYS))

    assert run is not None
    assert of(run) == {0: ("right.sqlite", None), 1: ("left.sqlite", None)}
    assert run.caveats == ("run.json names gone.pickle, which is not there.",)


def test_a_run_json_of_one_recording_is_a_run(tmp_path: Path) -> None:
    nsys(tmp_path / "run.sqlite")
    listed = [{"recorder": "nsys", "rank": None, "path": "run.sqlite"}]
    (tmp_path / "run.json").write_text(json.dumps({"recordings": listed}))

    (whole,) = found([tmp_path])
    run, _ = as_run(whole, {whole.recordings[0].path: NSYS})

    assert run is not None
    assert of(run) == {None: ("run.sqlite", None)}


def test_a_run_folder_of_timings_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"recordings": []}')
    (tmp_path / "timer.json").write_text('{"steps_ns": [1, 2]}')
    (tmp_path / "passes").mkdir()
    (tmp_path / "passes" / "timer.job.json").write_text("{}")

    with pytest.raises(UnreadableError, match="holds no recording: no profiler ran"):
        found([tmp_path])


@pytest.mark.parametrize("text", ["{}", '{"recordings": 3}', "[]"])
def test_a_run_json_without_recordings_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    write_ranks(tmp_path, [ALONE, ALONE])
    (tmp_path / "run.json").write_text(text)

    (whole,) = found([tmp_path])

    assert ([r.path.name for r in whole.recordings], whole.declared) == (
        ["rank0.json", "rank1.json"], False,
    )  # fmt: skip


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_broken_run_json_is_named(tmp_path: Path, content: bytes) -> None:
    nsys(tmp_path / "run.sqlite")
    (tmp_path / "run.json").write_bytes(content)

    with pytest.raises(UnreadableError, match=r"run\.json cannot be understood.*remove it"):
        found([tmp_path])


# One rank.


@pytest.mark.parametrize("name", ["x{}.json", "x{}.json.gz", "x{}.zip"])
@pytest.mark.parametrize("after", [False, True])
def test_a_glance_tells_the_rank_wherever_it_stands(tmp_path: Path, name: str, after: bool) -> None:
    for rank in (0, 1):
        of_rank(rank, ALONE, after=after).write(tmp_path / name.format(9 - rank))
    (whole,) = found([tmp_path])

    assert [only(whole, rank).path.name for rank in (0, 1)] == [name.format(9), name.format(8)]


def test_a_glance_reads_as_far_as_it_must(tmp_path: Path) -> None:
    trace = of_rank(5, ALONE, world_size=8, after=True)
    main = trace.thread("python3", pid=105)
    for number in range(20_000):
        main.op("aten::" + "x" * 100, 100 * number, 100 * number + 50)

    path = trace.write(tmp_path / "large.json")

    assert path.stat().st_size > 3 << 20
    assert (peek(path).rank, peek(path).world_size) == (5, 8)


def test_a_glance_tells_snapshots_from_traces(tmp_path: Path) -> None:
    assert peek(nsys(tmp_path / "run.sqlite")) == Known("nsys")
    assert peek(Snapshot().write(tmp_path / "mem.pickle.gz")).is_snapshot
    (tmp_path / "empty.json.gz").write_bytes(b"\x1f\x8b")
    assert peek(tmp_path / "empty.json.gz") == Known("")
    assert not peek(tmp_path).is_snapshot


def test_a_rank_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    write_ranks(tmp_path, [ALONE] * 4)
    shutil.move(tmp_path / "rank2.json", tmp_path.parent / "elsewhere.json")
    (whole,) = found([tmp_path])

    with pytest.raises(UsageError, match=r"no recording of rank 2\. Ranks: 0, 1, 3"):
        only(whole, 2)


def test_a_rank_of_two_recordings_is_no_choice_of_ours(tmp_path: Path) -> None:
    of_rank(0, ALONE).write(tmp_path / "a.json")
    of_rank(0, ALONE).write(tmp_path / "b.json")
    (whole,) = found([tmp_path])

    with pytest.raises(UsageError, match=r"a\.json and b\.json are all of rank 0: name one"):
        only(whole, 0)


def test_without_ranks_we_say_so(tmp_path: Path) -> None:
    Profile().write(tmp_path / "a.json")
    (whole,) = found([tmp_path / "a.json"])

    with pytest.raises(UsageError, match="No recording says its rank"):
        only(whole, 0)

"""What the memory page draws: nothing is lost in pixels, and all sums are the toolkit's."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import itertools
import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from tracelens_dashboards.library import Library
from tracelens_dashboards.memory.course import Recording, course, window
from tracelens_dashboards.memory.held import held, squarified, tiles
from tracelens_dashboards.memory.lifetimes import blocks, lifetimes
from tracelens_dashboards.memory.segments import segments
from tracelens_dashboards.memory.view import View, view
from tracelens_dashboards.pages.memory import PAGE
from tracelens_dashboards.serve import wsgi

from tests.asking import Shell
from tests.build import Nsys
from tests.kineto import Profile
from tests.snapshots import MIB, Snapshot, training
from tracelens.links.memory import Ask, remember
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from pathlib import Path


def churning(events: int = 3_000, seed: int = 7) -> Snapshot:
    """Return a history of many sizes, lines and lifetimes, in three phases."""
    chance = random.Random(seed)  # noqa: S311 (no secret)
    snapshot = Snapshot()
    gpu = snapshot.device()
    live: list[Any] = []
    phases = ["forward", "backward", "optimizer"]
    for n in range(events // 3):
        if n % 200 == 0:
            name = phases[n // 200 % 3]
            snapshot.start(name)
        if live and chance.random() < 0.5:
            gpu.free(live.pop(chance.randrange(len(live))))
        size = chance.choice([600, 40_000, 3 * MIB, 11 * MIB])
        live.append(gpu.alloc(size, stack=(f"model.py:{size % 97} layer",)))
        if n % 200 == 199:
            snapshot.end(name)
    return snapshot


def known(path: Path) -> Recording:
    return Recording(remember(open_trace(path, cache=False), Ask()))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return a recording of 3,000 events."""
    return known(churning().write(tmp_path_factory.mktemp("memory") / "churn.pickle"))


def seen(recording: Recording, **asked: object) -> View:
    return view({name: str(value) for name, value in asked.items()}, recording)


def parts(count: int = 40) -> list[dict[str, object]]:
    chance = random.Random(3)  # noqa: S311 (no secret)
    found: list[dict[str, object]] = []
    for _ in range(count):
        begin = chance.randrange(-10, 3_000)
        axis = chance.choice(["event", "time"])
        unit = 1 if axis == "event" else 1_000
        end = begin + chance.choice([1, 12, 50, 400, 5_000])
        found.append(
            {
                "x": axis,
                "from": begin * unit,
                "to": end * unit,
                "width": chance.choice([50, 333, 1_000]),
            }
        )
    return found


@pytest.mark.parametrize("asked", parts())
def test_a_pixel_shows_the_highest_moment_in_it(
    recording: Recording, asked: dict[str, object]
) -> None:
    here = seen(recording, **asked)
    history = recording.history(0)
    part = window(history, here)
    along = history.along(here.axis)
    edges = np.linspace(part.begin, part.end, part.positions.size + 1)

    for k, (left, right) in enumerate(itertools.pairwise(edges)):
        inside = np.flatnonzero((along >= left - 1e-6) & (along < right - 1e-6))
        before = np.flatnonzero(along < left - 1e-6)[-1:]
        if k == part.positions.size - 1 and part.end >= along[-1]:
            inside = np.flatnonzero(along >= left - 1e-6)
        there = np.concatenate([before, inside]) if k == 0 or not inside.size else inside
        assert history.active[part.positions[k]] == history.active[there].max()
    assert (np.diff(part.positions) >= 0).all()


@pytest.mark.parametrize("by", ["category", "phase", "site"])
@pytest.mark.parametrize("asked", parts(6))
def test_layers_add_up_to_what_was_active(
    recording: Recording, asked: dict[str, object], by: str
) -> None:
    here = seen(recording, by=by, **asked)
    positions = window(recording.history(0), here).positions

    said = course(recording, here)

    total = sum(layer["held"].astype(np.int64) for layer in said["layers"])
    assert total.tolist() == recording.history(0).active[positions].tolist()


def test_the_peak_is_seen_at_any_width(recording: Recording) -> None:
    peak = int(recording.memory.events["active_bytes"].max())  # type: ignore[arg-type]

    for width in (50, 51, 777, 4_000):
        said = course(recording, seen(recording, width=width))
        assert int(said["active"].max()) == peak
        assert said["marks"][0]["bytes"] == peak


def test_only_the_largest_lines_of_code_have_a_layer_of_their_own(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device()
    for line in range(30):
        gpu.alloc((line + 1) * 1_024, stack=(f"model.py:{line} f",))
    here = known(snapshot.write(tmp_path / "x.pickle"))

    said = course(here, seen(here, by="site"))

    names = [layer["name"] for layer in said["layers"]]
    assert len(names) == 11
    assert "model.py:29 f" in names
    assert names[-1] == "other lines"


@pytest.mark.parametrize("asked", parts(8))
@pytest.mark.parametrize("how", ["stacked", "address"])
def test_blocks_and_the_rest_add_up_to_what_was_active(
    recording: Recording, asked: dict[str, object], how: str
) -> None:
    here = seen(recording, lives=how, **asked)
    every = blocks(recording, 0)

    said = lifetimes(recording, every, here, most=7)

    held_by = np.zeros(said["pixels"] + 1, np.int64)
    np.add.at(held_by, said["first"].astype(int), every.sizes[said["row"]])
    np.subtract.at(held_by, said["last"].astype(int), every.sizes[said["row"]])
    total = np.cumsum(held_by)[:-1]
    for band in said["rest"]:
        assert (band["held"] >= 0).all()
        total += band["held"].astype(np.int64)
    assert len(said["row"]) <= 7
    assert total.tolist() == said["active"].astype(np.int64).tolist()


def test_blocks_by_address_do_not_overlap(recording: Recording) -> None:
    said = lifetimes(recording, blocks(recording, 0), seen(recording, lives="address"))

    for k in range(0, said["pixels"], 50):
        there = np.flatnonzero((said["first"] <= k) & (said["last"] > k))
        order = there[np.argsort(said["offset"][there])]
        ends = said["offset"][order] + said["size"][order]
        assert (ends[:-1] <= said["offset"][order][1:] + 1).all()


@pytest.mark.parametrize("group", ["stack", "file", "category", "phase"])
@pytest.mark.parametrize("at", ["peak", "end", "555"])
def test_what_was_live_is_what_the_command_says(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, group: str, at: str
) -> None:
    path = churning(900).write(tmp_path / "churn.pickle")
    here = known(path)
    moment = f"event {at}" if at.isdecimal() else at
    by, table = ("stack", "categories") if group == "category" else (group, "live")
    words = ["--at", moment, "--group", by, "--table", table, "--format", "csv"]

    found = held(here, seen(here, at=at, group=group)).filled.frame

    said = list(csv.DictReader(io.StringIO(Shell(capsys)("memory", path, *words).out)))
    for column in ("bytes", "blocks", "category"):
        assert [str(value or "") for value in found[column]] == [row[column] for row in said]


def test_segments_hold_their_live_blocks_at_every_event(tmp_path: Path) -> None:
    snapshot = training(steps=2)
    gpu = snapshot.device()
    gpu.release(next(s for s in gpu.segments if not s.blocks))
    here = known(snapshot.write(tmp_path / "train.pickle"))
    every = blocks(here, 0)
    history = here.history(0)

    for index in range(history.events):
        said = segments(here, every, seen(here, at=index))
        ends = said["begin"] + said["size"]
        owner = np.searchsorted(said["begin"], said["block"], side="right") - 1
        assert history.reserved is not None
        assert said["reserved"] == history.reserved[index + 1]
        assert (said["block"] + said["length"] <= ends[owner]).all()
        assert said["blocks"] == np.sum((every.begun <= index + 1) & (every.ended > index + 1))


def test_small_blocks_are_drawn_together_with_their_neighbours(
    recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    every, here = blocks(recording, 0), seen(recording, at="end")
    whole = segments(recording, every, here)
    monkeypatch.setattr("tracelens_dashboards.memory.segments.MOST", 5)

    said = segments(recording, every, here)

    assert said["length"].sum() == whole["length"].sum()
    assert said["block"].size < whole["block"].size


def test_tiles_fill_the_picture_in_proportion() -> None:
    rows = pl.DataFrame(
        {
            "bytes": [600, 300, 60, 30, 10],
            "category": ["a", "b", "a", None, "b"],
            "site": ["x.py:1 f", "x.py:2 g", None, "x.py:3 h", "x.py:4 i"],
            "via": [None, None, None, "y.py:5 j", None],
        }
    )

    found = tiles(rows, "stack", 3.0)

    assert sum(tile.width * tile.height for tile in found) == pytest.approx(1)
    for tile in found:
        assert tile.width * tile.height == pytest.approx(tile.size_bytes / 1000)
        assert tile.left + tile.width <= 1 + 1e-9
        assert tile.top + tile.height <= 1 + 1e-9
    assert {tile.row for tile in found} == {0, 1, 2, 3, 4}
    assert "x.py:3 h by way of y.py:5 j" in {tile.label for tile in found}


def test_small_rows_share_a_tile() -> None:
    rows = pl.DataFrame({"bytes": [10] * 250, "category": ["a"] * 250, "site": ["f"] * 250})

    found = tiles(rows, "stack", 3.0)

    (rest,) = [tile for tile in found if tile.row is None]
    assert rest.label == "150 smaller"
    assert rest.size_bytes == 1500


def test_rectangles_are_nearly_square() -> None:
    found = squarified([4, 4, 4, 4], (0.0, 0.0, 2.0, 2.0))

    assert all(
        width == pytest.approx(1) and height == pytest.approx(1) for *_, width, height in found
    )
    assert squarified([], (0.0, 0.0, 1.0, 1.0)) == []


@pytest.mark.parametrize(
    "asked",
    [
        {"device": "9", "x": "up", "by": "colour", "group": "", "lives": "2", "at": "noon"},
        {"device": "nan", "from": "inf", "to": "-1e309", "width": "1e99", "at": "99999999"},
        {"from": "5", "to": "1", "at": "oom"},
        {"at": "²", "width": "-3"},
    ],
)
def test_an_address_that_makes_no_sense_shows_the_peak(
    recording: Recording, asked: dict[str, str]
) -> None:
    here = view(asked, recording)

    assert (here.device, here.at, here.by, here.group) == (0, "peak", "category", "stack")
    assert course(recording, here)["active"].size


def asked_of(path: Path, what: str, **headers: str) -> Any:
    library = Library([path])
    (item,) = library.items
    client = wsgi(library).test_client()
    return client.get(f"/api/memory/{item.id}/{what}", headers={"Host": "localhost", **headers})


def test_replies_are_json_with_packed_arrays(tmp_path: Path) -> None:
    path = churning(600).write(tmp_path / "x.pickle")

    plain = asked_of(path, "course?width=400")
    packed = asked_of(path, "course?width=400", **{"Accept-Encoding": "gzip"})

    said = json.loads(plain.data)
    active = np.frombuffer(base64.b64decode(said["active"]["base64"]), np.dtype("<f8"))
    assert said["active"]["dtype"] == "float64"
    assert active.size == 400
    assert json.loads(gzip.decompress(packed.data)) == said
    assert len(packed.data) < len(plain.data)


def test_a_block_tells_its_life(tmp_path: Path) -> None:
    path = training(steps=1).write(tmp_path / "x.pickle")

    told = [asked_of(path, f"block/{row}").json for row in range(6)]

    facts = [dict(one["facts"]) for one in told]
    assert any("forward, step 0" in f["Allocated"] for f in facts)
    assert any(f["Allocated"] == "before the first event" for f in facts)
    assert ["model.py:20 forward"] in [one["stack"] for one in told]
    assert asked_of(path, "block/999").status_code == 404


def test_what_is_not_there_is_404(tmp_path: Path) -> None:
    client = wsgi(Library([training().write(tmp_path / "x.pickle")])).test_client()

    found = client.get("/api/memory/0123456789ab/course", headers={"Host": "localhost"})

    assert found.status_code == 404
    assert "no such recording" in found.json["error"]


def nsys(folder: Path) -> Path:
    trace = Nsys()
    for n in range(3):
        trace.memory_usage(n * 1000, 20 * MIB, address=n << 30)
    trace.memory_usage(4000, 20 * MIB, address=0, free=True)
    return trace.write(folder / "run.sqlite")


def profiler(folder: Path) -> Path:
    trace = Profile()
    main = trace.thread("python3")
    main.annotation("forward", 10_000, 90_000)
    main.op("aten::mm", 20_000, 60_000)
    main.memory(30_000, 4 * MIB, allocated=9 * MIB, reserved=20 * MIB, address=1 << 30)
    main.memory(95_000, -4 * MIB, allocated=5 * MIB, reserved=20 * MIB, address=1 << 30)
    return trace.write(folder / "trace.json")


def sums(folder: Path) -> Path:
    path = folder / "timeline.json"
    sizes = [[0, 100, 0, 0, 0, 10 * n, 0, 0, 0] for n in (1, 3, 2)]
    path.write_text(json.dumps([[1000, 2000, 3000], sizes]), encoding="utf-8")
    return path


def state_alone(folder: Path) -> Path:
    snapshot = Snapshot()
    gpu = snapshot.device()
    gpu.recording = False
    gpu.alloc(5 * MIB)
    return snapshot.write(folder / "state.pickle")


def out_of_memory(folder: Path) -> Path:
    snapshot = Snapshot()
    for number in (0, 1):
        gpu = snapshot.device(number)
        gpu.alloc(3 * MIB, stack=("a.py:1 f",))
        gpu.oom(90 * MIB, 5 * MIB, stack=("a.py:2 g",))
    return snapshot.write(folder / "oom.pickle")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (nsys, "Nsight Systems records CUDA&#x27;s own allocations"),
        (profiler, "segments are not known"),
        (sums, "sums by category and nothing else"),
        (state_alone, "no history was recorded"),
        (out_of_memory, "Out of memory at a.py:2 g"),
    ],
)
def test_every_kind_of_recording_has_a_page_and_says_what_is_not_known(
    tmp_path: Path, made: Any, says: str
) -> None:
    library = Library([made(tmp_path)])
    opened = library.open(library.items[0].id)

    text = json.dumps(
        PAGE.layout(opened, {}).to_plotly_json(), default=lambda c: c.to_plotly_json()
    )
    every = asked_of(library.paths[0], "course"), asked_of(library.paths[0], "lifetimes")

    assert says.replace("&#x27;", "'") in text
    assert [reply.status_code for reply in every] == [200, 200]
    assert asked_of(library.paths[0], "segments").status_code in (200, 404)


def test_each_device_has_a_page(tmp_path: Path) -> None:
    here = known(out_of_memory(tmp_path))

    assert here.devices == [0, 1]
    assert seen(here, device=1, at="oom").device == 1
    assert course(here, seen(here, device=1))["marks"][1]["kind"] == "oom"

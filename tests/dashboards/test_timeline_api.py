"""The timeline's routes: rows, pictures, details, search, and what is refused."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

np = pytest.importorskip("numpy", reason="no numpy: the explorer is not installed")
pytest.importorskip("dash", reason="no dash: the explorer is not installed")

from flask import Flask  # noqa: E402
from tracelens_dashboards.library import Library  # noqa: E402
from tracelens_dashboards.timeline import register  # noqa: E402

from tests.build import Nsys  # noqa: E402
from tests.kineto import Profile  # noqa: E402
from tracelens.links.memory import remember  # noqa: E402 (after the skips)
from tracelens.links.ops import launched, ops_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES: Final = Path(__file__).parents[2] / "samples"
KINETO: Final = SAMPLES / "gpt2-small-ctx512-bf16-h200"
TYPES: Final = {"f32": "<f4", "f64": "<f8", "u8": "u1", "u32": "<u4"}
Row = dict[str, Any]


class Asked:
    """The routes of one recording."""

    def __init__(self, path: Path) -> None:
        self.library = Library([path])
        server = Flask("test")
        register(Served(server), self.library)  # type: ignore[arg-type]
        self.client = server.test_client()
        self.id = next(item.id for item in self.library.items)

    def get(self, what: str, **query: object) -> Any:
        """Return the response."""
        return self.client.get(f"/api/timeline/{self.id}/{what}", query_string=query)

    def json(self, what: str, **query: object) -> Any:
        """Return what a route answers."""
        answer = self.get(what, **query)
        assert answer.status_code == 200, answer.text
        return answer.json

    def view(self, from_ns: float, to_ns: float, px: int, **more: object) -> dict[str, Row]:
        """Return the rows of a picture, each with its arrays."""
        query = {"from": from_ns, "to": to_ns, "px": px, **more}
        data = self.get("view", **query).data
        length = int.from_bytes(data[:4], "little")
        head = json.loads(data[4 : 4 + length])
        assert (4 + length) % 8 == 0
        for row in head["rows"]:
            for name, (offset, kind, count) in row["arrays"].items():
                assert offset % 8 == 0
                at = 4 + length + offset
                row[name] = np.frombuffer(data, TYPES[kind], count, at).tolist()
        return {row["id"]: row for row in head["rows"]}

    def row(self, kind: str, label: str = "") -> Row:
        """Return the only row of a kind whose label ends so."""
        rows = self.json("rows")["rows"]
        (found,) = (r for r in rows if r["kind"] == kind and r["label"].endswith(label))
        return found  # type: ignore[no-any-return]


class Served:
    """All that the routes need of the explorer."""

    def __init__(self, server: Flask) -> None:
        self.server = server


@pytest.fixture
def ask(tmp_path: Path) -> Callable[[Nsys | Profile], Asked]:
    """Give a function that serves a recording made by hand."""

    def serve(trace: Nsys | Profile) -> Asked:
        name = "run.sqlite" if isinstance(trace, Nsys) else "trace.json.gz"
        return Asked(trace.write(tmp_path / name))

    return serve


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """Give a recording of ours, with its memory."""
    folder = tmp_path_factory.mktemp("sample")
    for file in KINETO.glob("*.gz"):
        (folder / file.name).write_bytes(file.read_bytes())
    return Asked(folder)


def step() -> Nsys:
    """A step of two kernels: the second begins on another stream before the first has ended."""
    trace = Nsys()
    main = trace.thread("python", pid=100, tid=100)
    main.push("step 0", 0, 1_000)
    main.push("forward", 10, 500)
    main.kernel("ampere_sgemm_128x64_tn", at=20, run=(100, 300))
    main.kernel("softmax_warp_forward", at=40, run=(200, 400), stream=8)
    main.copy(run=(600, 700), bytes=4_096, at=550)
    return trace


def test_rows_stand_in_order_threads_first(ask: Callable[[Nsys], Asked]) -> None:
    rows = ask(step()).json("rows")

    assert [(r["kind"], r["group"], r["label"]) for r in rows["rows"]] == [
        ("ranges", "python (pid 100)", "python 100: ranges"),
        ("api", "python (pid 100)", "python 100: CUDA calls"),
        ("stream", "GPU 0", "stream 7"),
        ("stream", "GPU 0", "stream 8"),
    ]
    assert [r["lanes"] for r in rows["rows"]] == [2, 1, 1, 1]
    assert [r["count"] for r in rows["rows"]] == [2, 3, 2, 1]
    assert (rows["start_ns"], rows["end_ns"]) == (0, 1_000)
    assert rows["phases"][0] == {"name": "forward"}
    assert {"name": "gemm"} in rows["families"]
    assert [s["name"] for s in rows["steps"]] == ["step 0"]


def test_processes_and_devices_are_never_mixed(ask: Callable[[Nsys], Asked]) -> None:
    trace = Nsys()
    for pid in (100, 200):
        thread = trace.thread("python", pid=pid, tid=pid)
        for device in (0, 1):
            thread.kernel("k", at=5, run=(10 * pid, 10 * pid + 5 + device), device=device)
    asked = ask(trace)
    streams = [r for r in asked.json("rows")["rows"] if r["kind"] == "stream"]
    shown = asked.view(0, 3_000, 3_000)

    assert [r["group"] for r in streams] == [
        "GPU 0 (pid 100)", "GPU 0 (pid 200)", "GPU 1 (pid 100)", "GPU 1 (pid 200)",
    ]  # fmt: skip
    assert [shown[r["id"]]["x0"] for r in streams] == [[1_000], [2_000], [1_000], [2_000]]
    assert [shown[r["id"]]["x1"] for r in streams] == [[1_005], [2_005], [1_006], [2_006]]


def test_a_picture_of_few_items_shows_each(ask: Callable[[Nsys], Asked]) -> None:
    asked = ask(step())
    stream, ranges = asked.row("stream", "7"), asked.row("ranges")
    rows = asked.json("rows")
    shown = asked.view(50, 650, 600)

    one = shown[stream["id"]]
    assert one["mode"] == "items"
    assert (one["x0"], one["x1"]) == ([50, 550], [250, 601])
    phases = [None if p == 255 else rows["phases"][p]["name"] for p in one["phase"]]
    families = [rows["families"][f]["name"] for f in one["family"]]
    assert phases == ["forward", None]
    assert families == ["gemm", "memcpy"]
    names = asked.json("name", ids=",".join(map(str, one["name"])))
    assert names[str(one["name"][0])] == "ampere_sgemm_128x64_tn"
    nested = shown[ranges["id"]]
    assert (nested["x0"], nested["x1"], nested["lane"]) == ([-1, -1], [601, 450], [0, 1])


def test_a_picture_of_many_items_shows_sums(ask: Callable[[Nsys], Asked]) -> None:
    trace = step()
    thread = trace.thread("python", pid=100, tid=100)
    for n in range(100):
        thread.kernel("k", at=30, run=(2_000 + 10 * n, 2_005 + 10 * n))
    asked = ask(trace)
    stream = asked.row("stream", "7")["id"]
    shown = asked.view(0, 3_000, 3, rows=stream)

    assert list(shown) == [stream]
    assert (shown[stream]["mode"], shown[stream]["lanes"]) == ("bins", 1)
    assert shown[stream]["count"] == [2, 0, 100]
    assert shown[stream]["busy"] == pytest.approx([0.3, 0, 0.5], abs=1e-3)


def test_what_is_busy_is_never_shown_as_idle() -> None:
    from tracelens_dashboards.timeline.view import _share

    assert _share(np.array([0, 1e-12, 0.5, 1 - 1e-12, 1])).tolist() == [
        0, 1 / 1024, 0.5, 1023 / 1024, 1,
    ]  # fmt: skip


def test_a_kernel_s_details_name_call_op_and_ranges(ask: Callable[[Profile], Asked]) -> None:
    trace = Profile("2026-02")
    main = trace.thread("python3", pid=100)
    main.annotation("step", 0, 95_000)
    main.annotation("forward", 1_000, 90_000)
    main.op("aten::linear", 2_000, 60_000)
    main.op("aten::mm", 5_000, 50_000)
    main.kernel("ampere_sgemm_128x64_tn", at=10_000, run=(20_000, 40_000))
    asked = ask(trace)
    stream, item = asked.row("stream"), 0
    told = asked.json("item", row=stream["id"], item=item)

    assert (told["name"], told["kind"], told["family"]) == (
        "ampere_sgemm_128x64_tn", "kernel", "gemm",
    )  # fmt: skip
    assert (told["phase"], told["duration_ns"]) == ("forward", 20_000)
    assert told["op"]["name"] == "aten::mm"
    assert [r["name"] for r in told["ranges"]] == ["step", "forward"]
    assert told["launch"]["row"] == asked.row("api")["id"]
    facts = {fact["label"]: fact["text"] for fact in told["facts"]}
    assert facts["device"] == "0"
    assert "grid" in facts
    assert "block" in facts

    call = asked.json("item", **{k: told["launch"][k] for k in ("row", "item")})
    assert call["launched_count"] == 1
    assert call["launched"][0]["row"] == stream["id"]
    assert call["launched"][0]["start_ns"] == told["start_ns"]

    op = asked.json("item", **{k: told["op"][k] for k in ("row", "item")})
    assert op["work"] == {"kernels": 1, "kernel_time_ns": 20_000}
    assert op["op"]["name"] == "aten::linear"


def test_a_range_holds_what_autograd_s_thread_launched_for_it(
    ask: Callable[[Profile], Asked],
) -> None:
    trace = Profile("2026-02")
    main = trace.thread("python3", pid=100)
    main.annotation("backward", 1_000, 90_000)
    engine = trace.thread("pt_autograd_0", pid=100, tid=200)
    engine.op("autograd::engine::evaluate_function: MmBackward0", 10_000, 50_000)
    engine.kernel("ampere_sgemm_128x64_nt", at=20_000, run=(30_000, 60_000))
    asked = ask(trace)

    told = asked.json("item", row=asked.row("ranges")["id"], item=0)

    assert told["name"] == "backward"
    assert told["work"] == {"kernels": 1, "kernel_time_ns": 30_000}


def test_the_op_of_a_kernel_is_that_of_the_table_ops(sample: Asked) -> None:
    opened = sample.library.open(sample.id)
    ops = ops_of(opened.linked)
    assert ops is not None
    rows = launched(opened.linked, ops)["row"]
    ranges = ops.nest["range_id"].gather(rows)
    stream = sample.row("stream")["id"]

    for item in range(0, opened.linked.ops.height, 371):
        op = sample.json("item", row=stream, item=item)["op"]
        assert (op and op["item"]) == ranges[item]


def test_walking_from_kernel_to_kernel_meets_each_once(ask: Callable[[Nsys], Asked]) -> None:
    trace = Nsys()
    thread = trace.thread("python", pid=100, tid=100)
    for start in (10, 10, 10, 20, 25, 25, 40):
        thread.kernel(f"k{start}", at=5, run=(start, start + 30))
    asked = ask(trace)
    row = asked.row("stream")["id"]
    for direction, ns in ((1, -1), (-1, 1_000)):
        met: list[tuple[int, int]] = []
        query: dict[str, Any] = {"row": row, "ns": ns, "direction": direction}
        while found := asked.json("next", **query):
            met.append((found["start_ns"], found["item"]))
            query |= {"ns": found["start_ns"], "item": found["item"]}

        assert [start for start, _ in met][::direction] == [10, 10, 10, 20, 25, 25, 40]
        assert len(set(met)) == 7


def test_walking_from_hit_to_hit_passes_by_all_others(ask: Callable[[Nsys], Asked]) -> None:
    asked = ask(step())
    first = asked.json("next", ns=0, direction=1, q="SOFTMAX")
    before = asked.json("next", ns=1_000, direction=-1, q="sgemm")
    after = asked.json(
        "next", ns=first["start_ns"], direction=1, q="softmax", row=first["row"],
        item=first["item"],
    )  # fmt: skip

    assert (first["start_ns"], first["row"]) == (200, asked.row("stream", "8")["id"])
    assert (before["start_ns"], before["row"]) == (100, asked.row("stream", "7")["id"])
    assert after == {}


def test_a_search_counts_and_marks_hits(ask: Callable[[Nsys], Asked]) -> None:
    asked = ask(step())
    text = asked.json("search", q="softmax", **{"from": 0, "to": 1_000, "px": 10})
    regex = asked.json("search", q="^(ampere|step)", regex=1, **{"from": 0, "to": 1_000, "px": 10})
    dots = asked.json("search", q="a.*", **{"from": 0, "to": 1_000, "px": 10})

    assert (text["count"], regex["count"], dots["count"]) == (1, 2, 0)
    assert [n["kind"] for n in text["names"]] == ["GPU"]
    marks = {row: list(base64.b64decode(bins)) for row, bins in text["bins"].items()}
    assert marks == {asked.row("stream", "8")["id"]: [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]}


def test_a_regex_that_would_take_for_ever_does_not(ask: Callable[[Nsys], Asked]) -> None:
    trace = step()
    trace.thread("python", pid=100, tid=100).push("a" * 5_000, 0, 5)

    assert ask(trace).json("search", q="(a|a|aa)+$x", regex=1)["count"] == 0


def test_a_range_s_statistics_count_the_parts_inside(ask: Callable[[Nsys], Asked]) -> None:
    asked = ask(step())
    stats = asked.json("stats", **{"from": 250, "to": 650})

    assert stats["totals"] == {
        "ops": 3, "crossing": 3, "kernels": 2, "kernel_time_ns": 200, "copies": 1,
        "copy_time_ns": 50, "memsets": 0, "memset_time_ns": 0, "graph_launches": 0,
        "graph_time_ns": 0, "busy_ns": 200, "idle_ns": 200,
    }  # fmt: skip
    assert stats["devices"] == [{"device": 0, "busy_ns": 200, "idle_ns": 200, "busy_share": 0.5}]
    kernels = next(t for t in stats["tables"] if t["name"] == "kernels")
    assert [(r["short_name"], r["total_ns"]) for r in kernels["rows"]] == [
        ("softmax_warp_forward", 150), ("ampere_sgemm_128x64_tn", 50),
    ]  # fmt: skip
    assert len(kernels["text"][0]) == len(kernels["columns"])
    alone = asked.json("stats", rows=asked.row("stream", "8")["id"], **{"from": 250, "to": 650})
    assert alone["totals"]["kernel_time_ns"] == 150


def test_memory_is_shown_by_its_least_and_most_in_each_pixel(sample: Asked) -> None:
    row, span = sample.row("memory"), sample.json("rows")
    opened = sample.library.open(sample.id)
    memory = remember(opened.trace)
    shown = sample.view(span["start_ns"], span["end_ns"], 50, rows=row["id"])[row["id"]]

    assert shown["mode"] == "curve"
    most = np.nanmax(shown["allocated_max"])
    assert most == memory.events["allocated_bytes"].max()
    low, high = np.array(shown["allocated_min"]), np.array(shown["allocated_max"])
    assert (low <= high)[~np.isnan(low)].all()


def test_large_replies_are_packed_for_those_who_can_unpack(sample: Asked) -> None:
    address = f"/api/timeline/{sample.id}/view?from=60000000&to=90000000&px=1500"
    plain = sample.client.get(address)
    packed = sample.client.get(address, headers={"Accept-Encoding": "gzip"})

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert len(packed.data) < 60_000


@pytest.mark.parametrize(
    ("what", "query", "status"),
    [
        ("rows", {"_id": "000000000000"}, 404),
        ("nothing", {}, 404),
        ("view", {"from": 0, "to": 10, "px": 10, "rows": "s99"}, 404),
        ("view", {"from": 0, "to": 10}, 400),
        ("view", {"from": 10, "to": 0, "px": 10}, 400),
        ("view", {"from": "nan", "to": 10, "px": 10}, 400),
        ("view", {"from": "-inf", "to": 10, "px": 10}, 400),
        ("view", {"from": 0, "to": 1e300, "px": 10}, 400),
        ("view", {"from": 0, "to": "9" * 5_000, "px": 10}, 400),
        ("view", {"from": 0, "to": 10, "px": 1e9}, 400),
        ("view", {"from": 0, "to": 10, "px": 0}, 400),
        ("item", {"row": "s2", "item": 99}, 404),
        ("item", {"row": "s2", "item": -1}, 404),
        ("item", {"row": "s2", "item": "x"}, 400),
        ("item", {"row": "r0", "item": 5}, 404),
        ("item", {"row": "<script>", "item": 0}, 404),
        ("next", {"row": "s2", "ns": 0, "direction": 2}, 400),
        ("next", {"row": "s2", "ns": 0, "direction": 1, "item": 77}, 404),
        ("search", {"q": ""}, 400),
        ("search", {"q": "(", "regex": 1}, 400),
        ("search", {"q": "(a{1000}){1000}", "regex": 1}, 400),
        ("search", {"q": "x" * 501}, 400),
        ("name", {"ids": "1,zwei"}, 400),
        ("name", {"ids": ",".join(["1"] * 2_001)}, 400),
        ("stats", {"from": 5, "to": 5}, 400),
    ],
)
def test_what_makes_no_sense_is_refused_with_one_line(
    ask: Callable[[Nsys], Asked], what: str, query: dict[str, Any], status: int
) -> None:
    asked = ask(step())
    asked.id = query.pop("_id", asked.id)
    answer = asked.get(what, **query)

    assert answer.status_code == status
    assert "\n" not in answer.json["error"]


def test_extreme_windows_are_answered(ask: Callable[[Nsys], Asked]) -> None:
    asked = ask(step())
    far = 1 << 62
    for from_ns, to_ns in ((-far, far), (far - 1, far), (-far, 1 - far), (100.2, 100.4)):
        shown = asked.view(from_ns, to_ns, 100)

        assert len(shown) == 4


def test_a_recording_without_gpu_work_has_rows_all_the_same(ask: Callable[[Nsys], Asked]) -> None:
    trace = Nsys()
    trace.thread("python", pid=100, tid=100).push("forward", 5, 50)
    asked = ask(trace)

    assert [r["kind"] for r in asked.json("rows")["rows"]] == ["ranges"]
    assert asked.json("stats", **{"from": 0, "to": 100})["totals"]["ops"] == 0
    assert asked.json("search", q="forward")["count"] == 1


def test_names_are_fit_to_be_shown(ask: Callable[[Nsys], Asked]) -> None:
    trace = step()
    trace.thread("python\u202e", pid=100, tid=7).push("\x1b[31m\u202ered", 0, 5)
    asked = ask(trace)
    found = asked.json("search", q="red")

    assert found["names"][0]["name"] == "\ufffd[31m\ufffdred"
    assert "\u202e" not in asked.get("rows").text

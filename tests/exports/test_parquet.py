"""Tables as Parquet files: what is written, that it reads back as it was, and foreign folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from tests.build import Nsys, training_step
from tests.exports.handmade import assert_same, made, pytorch_step, rows, snapshot
from tracelens.__main__ import run
from tracelens.exports.parquet import write
from tracelens.links.linked import Cut, link
from tracelens.readers.open import is_recording, open_trace
from tracelens.trace.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracelens.trace.model import Trace

    Damage = Callable[[Path], object]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Return a recording with a row in every table that nsys can fill."""
    trace = Nsys(schema="3.25.0")
    step = training_step(trace)
    training_step(trace, at=step.end_ns)
    main = trace.thread("python")
    main.push("started", 50, 4_000, kind="start_end")
    main.push("open", 4_400, None, domain="lib")
    main.memset(bytes=64, at=4_410, run=(4_420, 4_430))
    main.graph(graph_id=3, at=4_440, run=(4_450, 4_500))
    trace.device(0, "NVIDIA H200")
    trace.memory_usage(5, 1_024, 0x1000)
    trace.gpu_metric("SM Active [%]", 7, 80)
    trace.diagnostic("1 CUDA events lost", severity="error")
    return trace.write(tmp_path / "run.sqlite")


@pytest.fixture
def export(recording: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = recording.with_name("tables-of-it")
    assert run(["export", str(recording), "--to", "parquet", "-o", str(folder)]) == 0
    capsys.readouterr()
    return folder


def summary(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    capsys.readouterr()
    status = run(["summarize", str(path), "--format", "json", *more])
    said = capsys.readouterr()
    assert status == 0, said.err
    answer: dict[str, Any] = json.loads(said.out)
    return answer


def without_source(answer: dict[str, Any]) -> dict[str, Any]:
    """Return all but where it comes from, which sentences name, too."""
    name = Path(answer["source"]["path"]).name
    rest = json.dumps({key: value for key, value in answer.items() if key != "source"})
    # The last digits of deviations depend on how polars shares rows out among threads.
    result: dict[str, Any] = json.loads(
        rest.replace(name, "IT"), parse_float=lambda text: f"{float(text):.12g}"
    )
    return result


def test_every_table_is_a_file_with_the_columns_of_the_schema_and_more(export: Path) -> None:
    trace = open_trace(export.with_name("run.sqlite"), everything=True)

    for name in trace.tables:
        have = pl.read_parquet(export / f"{name}.parquet")
        want = TABLES[name].schema(everything=True)
        assert dict(have.select(list(want)).schema) == dict(want)
        # Numbers of names are the reader's own, and may differ each time.
        columns = [column for column in want if column != "name_id"]
        assert name == "names" or have.select(columns).equals(trace[name].collect()[columns])
    ops = pl.read_parquet(export / "gpu_ops.parquet")
    assert {"launch_ns", "launch_end_ns", "launch_tid", "phase", "how"} <= set(ops.columns)
    phases = dict(ops.filter(pl.col("kind") == "kernel").group_by("phase").len().iter_rows())
    assert phases == {"forward": 8, "backward": 6, "optimizer": 4}
    names = pl.read_parquet(export / "names.parquet")
    families = dict(names.select("name", "family").iter_rows())
    assert families["ampere_sgemm_128x64_tn"] == "gemm"
    assert families["forward"] is None
    assert sorted(f.name for f in export.iterdir() if f.suffix != ".parquet") == ["trace.json"]


def test_summaries_of_the_export_and_of_the_recording_are_the_same(
    recording: Path, export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ((), ("--no-cache",), ("--phase", "backward"), ("--step", "1"), ()):
        first, second = summary(recording, capsys, *more), summary(export, capsys, *more)

        assert without_source(first) == without_source(second)
        assert second["source"]["format"] == "tracelens-parquet"
        assert second["source"]["producer"] == first["source"]["producer"]
        assert second["source"]["facts"]["exported_from"] == "run.sqlite"


def test_an_export_of_an_export_is_the_same_but_for_its_origin(
    export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = export.with_name("tables-again")
    assert run(["export", str(export), "--to", "parquet", "-o", str(again)]) == 0

    for file in export.glob("*.parquet"):
        assert pl.read_parquet(again / file.name).equals(pl.read_parquet(file)), file.name
    assert without_source(summary(export, capsys)) == without_source(summary(again, capsys))


def test_a_cut_is_exported_with_the_ranges_that_name_its_phases(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recording.with_name("cut")
    options = ("--within", "backward#1")

    assert run(["export", str(recording), "--to", "parquet", "-o", str(folder), *options]) == 0

    answer = summary(folder, capsys)
    (phase,) = answer["tables"]["phases"]
    assert (phase["phase"], phase["kernels"]) == ("backward", 3)
    assert "This export was cut to 3 of 22 GPU operations." in answer["warnings"]
    ranges = pl.read_parquet(folder / "ranges.parquet")
    names = dict(pl.read_parquet(folder / "names.parquet").select("name_id", "name").iter_rows())
    assert {names[i] for i in ranges["name_id"]} == {"backward", "started"}


def test_it_is_recognised_by_its_manifest_and_not_taken_for_nsys(
    export: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    pl.DataFrame({"a": [1]}).write_parquet(foreign / "gpu_ops.parquet")
    (foreign / "trace.json").write_text('{"format": "something else"}')

    assert is_recording(export)
    assert not is_recording(foreign)


def test_a_folder_of_exports_is_searched(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = export.with_name("runs")
    runs.mkdir()
    export.rename(runs / "a")

    assert summary(runs, capsys)["source"]["path"] == str(runs / "a")


def test_a_trace_without_gpu_work_and_ranges_stays_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = Nsys()
    trace.thread("python").call("cudaMalloc_v3020", 0, 10)
    path, folder = trace.write(tmp_path / "run.sqlite"), tmp_path / "tables-of-it"
    assert run(["export", str(path), "--to", "parquet", "-o", str(folder)]) == 0

    assert without_source(summary(path, capsys)) == without_source(summary(folder, capsys))
    assert not (folder / "gpu_ops.parquet").exists()


# What PyTorch recorded


def exported(trace: Trace, folder: Path, cut: Cut | None = None) -> Trace:
    """Return what becomes of a trace on its way to Parquet files and back."""
    out = folder / "exported"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    write(link(trace, cut), out)
    return open_trace(out, everything=True, cache=False)


def test_what_pytorch_recorded_reads_back_as_it_was(tmp_path: Path) -> None:
    for before in (pytorch_step(), snapshot()):
        assert_same(before, exported(before, tmp_path))


def test_memory_of_the_allocator_is_kept_at_hand_and_that_of_cuda_is_not(
    tmp_path: Path, export: Path
) -> None:
    assert "memory" not in exported(pytorch_step(), tmp_path).on_request
    assert "memory" not in exported(snapshot(), tmp_path).on_request
    assert "memory" in open_trace(export).on_request


def test_a_cut_renumbers_what_refers_to_its_work(tmp_path: Path) -> None:
    after = exported(pytorch_step(), tmp_path, Cut(within="backward"))

    assert rows(after, "gpu_ops")["name"].to_list() == ["ncclDevKernel_AllReduce"]
    names = ["train.py(3): step", "backward", "MmBackward0"]
    assert rows(after, "ranges")["name"].to_list() == names
    # The forward op was cut away.
    assert after["ops"].select("range_id", "sequence", "forward").collect().rows() == [(2, 7, None)]
    assert after["launched_by"].collect().rows() == [(0, 2)]
    assert after["collectives"].select("op_id", "collective").collect().rows() == [(0, "allreduce")]


def test_a_device_that_was_cut_away_takes_its_launches_along(tmp_path: Path) -> None:
    kernel = {"kind": "kernel", "pid": 1, "name": "k"}
    before = made(
        gpu_ops=[
            {**kernel, "device": 0, "start_ns": 5, "end_ns": 7},
            {**kernel, "device": 1, "start_ns": 6, "end_ns": 8},
        ],
        ranges=[
            {"kind": "op", "pid": 1, "tid": n, "start_ns": n, "end_ns": 3, "name": "aten::mm"}
            for n in range(2)
        ],
        launched_by=[{"op_id": 0, "range_id": 0}, {"op_id": 1, "range_id": 1}],
    )

    after = exported(before, tmp_path, Cut(device=1))

    assert after["launched_by"].collect().rows() == [(0, 1)]


def test_rows_whose_numbers_are_lost_take_along_what_refers_to_them(tmp_path: Path) -> None:
    folder = exported(pytorch_step(), tmp_path).source.path
    rewritten(lambda t: t.filter(pl.col("kind") != "copy").reverse())(folder)
    rewritten(lambda t: t.filter(pl.col("range_id") != 2), "ranges")(folder)

    after = open_trace(folder, cache=False)

    # The kernels stand the other way round, and the forward op is gone.
    assert after["collectives"].collect()["op_id"].to_list() == [0]
    assert after["launched_by"].collect().rows() == [(0, 3)]
    assert after["ops"].select("range_id", "forward").collect().rows() == [(3, None)]
    said = {caveat.text for caveat in after.caveats}
    assert "1 rows of ops.parquet were set aside: what they are about is not there." in said


def test_blocks_that_no_memory_could_hold_are_set_aside(tmp_path: Path) -> None:
    folder = exported(snapshot(), tmp_path).source.path
    rewritten(lambda t: t.with_columns(size_bytes=pl.lit(2**62)), "blocks")(folder)

    after = open_trace(folder, cache=False)

    assert after["blocks"].collect().is_empty()
    assert any("2 rows of blocks.parquet were set aside" in c.text for c in after.caveats)


def test_without_numbers_of_rows_nothing_can_refer_to_them(tmp_path: Path) -> None:
    for lie in (pl.lit(5, pl.UInt32), pl.lit(None, pl.UInt32)):
        folder = exported(pytorch_step(), tmp_path).source.path
        rewritten(lambda t, lie=lie: t.with_columns(op_id=lie))(folder)

        after = open_trace(folder, cache=False)

        assert "ops" in after
        assert not {"launched_by", "collectives"} & after.tables.keys()
        assert any(
            "rows of gpu_ops.parquet have no numbers" in caveat.text for caveat in after.caveats
        )


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kineto", "memory", "multirank"])
def test_real_recordings_of_pytorch_read_back_as_they_were(
    corpus: Path, tmp_path: Path, kind: str
) -> None:
    for path in sorted(file for file in (corpus / kind).rglob("*") if file.is_file()):
        before = open_trace(path, everything=True)

        assert_same(before, exported(before, tmp_path))


# Damage


def rewritten(change: Callable[[pl.DataFrame], pl.DataFrame], table: str = "gpu_ops") -> Damage:
    def damage(folder: Path) -> None:
        file = folder / f"{table}.parquet"
        change(pl.read_parquet(file)).write_parquet(file)

    return damage


def manifest(text: str) -> Damage:
    return lambda folder: (folder / "trace.json").write_text(text)


def changed(**values: object) -> Damage:
    def damage(folder: Path) -> None:
        said = json.loads((folder / "trace.json").read_text())
        (folder / "trace.json").write_text(json.dumps({**said, **values}))

    return damage


def cut_off(table: str, at: float) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / f"{table}.parquet"
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * at)])

    return damage


def garbled(folder: Path) -> None:
    """Overwrite the pages and leave the footer, which is read first."""
    file = folder / "gpu_ops.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:8] + b"\xaa" * 400 + content[408:])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (manifest('{"format": "tracelens-parquet"'), "cannot be read"),
        (manifest('["tracelens-parquet"]'), "no manifest"),
        (manifest('{"x": "tracelens-parquet"}'), "no manifest"),
        (manifest("[" * 100_000 + '"tracelens-parquet"'), "nested too deeply"),
        (manifest('"tracelens-parquet"' + "[" * 100_000), "cannot be read"),
        (changed(layout=99, tracelens="9.9"), "written by a newer tracelens (9.9)"),
        (changed(layout="1"), "no manifest"),
        (changed(tables={}), "without a readable names.parquet"),
        (changed(tables=7), "without a readable names.parquet"),
        (lambda folder: (folder / "names.parquet").unlink(), "without a readable names.parquet"),
        (cut_off("names", 0.5), "without a readable names.parquet"),
    ],
)
def test_what_cannot_be_read_at_all_says_what_to_do(
    export: Path, capsys: pytest.CaptureFixture[str], damage: Damage, says: str
) -> None:
    damage(export)

    status = run(["summarize", str(export)])

    said = capsys.readouterr().err
    assert status == 3
    assert says in said
    assert said.count("\n") <= 2


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "api.parquet").unlink(), "api.parquet is missing"),
        (cut_off("api", 0.7), "api.parquet was set aside"),
        (cut_off("ranges", 0), "ranges.parquet was set aside"),
        (garbled, "gpu_ops.parquet was set aside"),
        (rewritten(lambda t: t.drop("start_ns")), "it has no column start_ns"),
        (rewritten(lambda t: t.with_columns(end_ns=pl.lit("soon"))), "it has no column end_ns"),
        (rewritten(lambda t: t.with_columns(kind=pl.lit(0))), "it has no column kind"),
        (rewritten(lambda t: t.drop("bytes")), "has no usable bytes"),
        (rewritten(lambda t: t.with_columns(stream=pl.lit("7"))), "has no usable stream"),
        (rewritten(lambda t: t.with_columns(end_ns=pl.col("start_ns") - 1)), "cannot be true"),
        (rewritten(lambda t: t.with_columns(kind=pl.lit("party"))), "cannot be true"),
        (rewritten(lambda t: pl.concat([t, t]), "names"), "they are doubles"),
        (rewritten(lambda t: t.with_columns(parent=pl.lit(1), depth=pl.lit(-9)), "ranges"), ""),
        (rewritten(lambda t: t.with_columns(op_id=pl.lit(5, pl.UInt32))), ""),
        (rewritten(lambda t: t.cast({pl.Int32: pl.Int64})), ""),
        (rewritten(lambda t: t.cast({"kind": pl.String, "phase": pl.String})), ""),
        (changed(caveats=["x", ["a", "b"], [1], 3], source=None), "b"),
        (changed(caveats=None, source={"producer": 3, "facts": [1]}), ""),
    ],
)
def test_a_damaged_table_is_set_aside_and_the_rest_is_shown(
    export: Path, capsys: pytest.CaptureFixture[str], damage: Damage, says: str
) -> None:
    damage(export)

    answer = summary(export, capsys)

    assert not says or any(says in warning for warning in answer["warnings"])


def test_numbers_that_follow_from_the_rows_are_not_believed(
    recording: Path, export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lies = {"range_id": 0, "parent": 0, "depth": 0, "lane": 0}
    rewritten(lambda t: t.with_columns(pl.lit(v).alias(k) for k, v in lies.items()), "ranges")(
        export
    )
    rewritten(lambda t: t.with_columns(op_id=pl.lit(5, pl.UInt32), phase=pl.lit("x")))(export)

    lied, true = (without_source(summary(of, capsys))["tables"] for of in (export, recording))
    said = [finding["says"] for finding in lied.pop("findings")]
    true.pop("findings")  # of the recording they say nothing of changed files
    assert lied == true
    assert any("not as tracelens wrote it" in text for text in said)


def test_a_changed_number_is_not_passed_on_in_silence(
    export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(lambda t: t.with_columns(pl.col("end_ns") + 1))(export)

    (warning,) = (w for w in summary(export, capsys)["warnings"] if "gpu_ops" in w)

    assert warning == ("gpu_ops.parquet is not as tracelens wrote it: its numbers may be wrong.")


# The command


def test_an_existing_output_is_replaced_by_force_alone(
    recording: Path, export: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(recording), "--to", "parquet", "-o", str(export)]
    (export / "stale.parquet").write_text("")

    refused = run(command)
    assert "exists already" in capsys.readouterr().err
    replaced = run([*command, "--force"])

    assert (refused, replaced) == (2, 0)
    assert not (export / "stale.parquet").exists()


@pytest.mark.parametrize("target", ["parquet", "perfetto"])
def test_force_removes_no_folder_of_other_things_and_not_the_recording(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    before = recording.read_bytes()

    for output in (other, recording):
        options = ["--to", target, "-o", str(output), "--force"]
        assert run(["export", str(recording), *options]) == 2

    assert (other / "thesis.tex").exists()
    assert recording.read_bytes() == before
    said = capsys.readouterr().err
    assert "does not remove" in said
    assert "is the recording itself" in said


def test_nothing_is_left_of_an_export_that_failed(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", full)

    status = run(["export", str(recording), "--to", "parquet", "-o", str(tmp_path / "out")])

    assert status == 2
    assert sorted(tmp_path.iterdir()) == before


def test_without_a_name_the_export_is_named_after_the_recording_in_the_current_folder(
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    assert run(["export", str(recording), "--to", "perfetto"]) == 0
    assert run(["export", str(recording), "--to", "parquet"]) == 0

    said = capsys.readouterr().out.splitlines()
    assert sorted(f.name for f in here.iterdir()) == ["run.perfetto.json.gz", "run.tracelens"]
    assert [line.split(" (")[0] for line in said] == [
        "Wrote run.perfetto.json.gz",
        "Wrote run.tracelens",
    ]


def test_wrong_usage_has_status_2(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (
        ["--to", "vtune"],
        [],
        ["--to", "parquet", "-o", str(recording / "x" / "y")],
        ["--to", "parquet", "--within", "no such range"],
        ["--to", "parquet", "--device", "9"],
    ):
        assert run(["export", str(recording), *options]) == 2, options
    assert run(["export", "no such file", "--to", "parquet"]) == 3
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.corpus
@pytest.mark.slow
def test_real_recordings_read_back_the_same(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((corpus / "nsys").glob("*.sqlite")):
        folder = tmp_path / "tables-of-it"
        assert run(["export", str(path), "--to", "parquet", "-o", str(folder)]) == 0
        first, second = summary(path, capsys), summary(folder, capsys)

        assert without_source(first) == without_source(second), path.name
        shutil.rmtree(folder)

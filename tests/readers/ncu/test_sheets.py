"""Tables that ncu prints become launches and counters in base units; what is lost is said."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ncu import Ncu, instructions
from tracelens import run
from tracelens.__main__ import run as command
from tracelens.errors import UnreadableError
from tracelens.readers.ncu.numbers import Numbers
from tracelens.readers.ncu.units import unit
from tracelens.readers.open import is_recording, open_trace

if TYPE_CHECKING:
    from pathlib import Path

    from tracelens.trace.model import Trace

MESSAGES = """\
==WARNING== Note: Running with unmodified GPU clocks.
==PROF== Connected to process 41 (/usr/bin/python3)
loss 3.25
==PROF== Disconnected from process 41
"""
DETAILS = "ID,Process ID,Kernel Name,Section Name,Metric Name,Metric Unit,Metric Value"


def values(trace: Trace) -> dict[tuple[int, str], tuple[float, str]]:
    rows = trace["op_counters"].collect().iter_rows()
    return {(op_id, name): (value, unit) for op_id, name, value, unit in rows}


def said(trace: Trace) -> str:
    return " ".join(f"{caveat.kind}: {caveat.text}" for caveat in trace.caveats)


def test_launches_stand_in_order_one_after_the_other(tmp_path: Path) -> None:
    table = Ncu().launch("gemm", 2_500).launch("relu", 40, stream=9)

    trace = open_trace(table.write(tmp_path / "ncu.csv"), cache=False)

    ops = trace["gpu_ops"].collect()
    names = trace["names"].collect()
    assert ops.select("start_ns", "end_ns", "stream", "pid").rows() == [
        (0, 2_500, 7, 41),
        (2_500, 2_540, 9, 41),
    ]
    assert ops.join(names, on="name_id")["name"].to_list() == ["gemm", "relu"]
    assert trace.source.format == "ncu"
    assert "starts are not known" in said(trace)


def test_grids_blocks_and_registers_are_read_when_asked_for(tmp_path: Path) -> None:
    metrics = {"launch__registers_per_thread": "168", "launch__shared_mem_per_block": "135,168"}
    table = Ncu().launch("gemm", metrics=metrics, grid=(2, 66, 1), block=(384, 1, 1))

    trace = open_trace(table.write(tmp_path / "ncu.csv"), cache=False, everything=True)

    (row,) = trace["gpu_ops"].collect().to_dicts()
    assert [row[f"grid_{axis}"] for axis in "xyz"] == [2, 66, 1]
    assert [row[f"block_{axis}"] for axis in "xyz"] == [384, 1, 1]
    assert (row["registers"], row["shared_bytes"]) == (168, 135_168)


def test_messages_of_ncu_and_the_program_before_the_table_are_passed_over(tmp_path: Path) -> None:
    plain, spoken = Ncu().launch("gemm", 70), Ncu(before=MESSAGES).launch("gemm", 70)
    packed = tmp_path / "spoken.csv.gz"
    packed.write_bytes(gzip.compress(spoken.text().encode()))

    first = open_trace(plain.write(tmp_path / "plain.csv"), cache=False)
    second = open_trace(packed, cache=False)

    assert values(first) == values(second)
    assert values(first)[0, "gpu__time_duration.sum"] == (70.0, "ns")


def test_a_gpu_is_what_its_attributes_say(tmp_path: Path) -> None:
    metrics = {
        "device__attribute_multiprocessor_count": "132",
        "device__attribute_memory_clock_rate": "3,201,000",
        "device__attribute_global_memory_bus_width": "6,016",
    }
    path = Ncu().launch("gemm", metrics=metrics).write(tmp_path / "ncu.csv")

    (gpu,) = open_trace(path, cache=False)["devices"].collect().to_dicts()

    assert (gpu["name"], gpu["sm_count"], gpu["capability"]) == ("NVIDIA H200", 132, "9.0")
    assert gpu["bandwidth_bytes_per_s"] == 3_201_000_000 * 2 * 6_016 // 8


@pytest.mark.parametrize(
    ("text", "written", "value", "base"),
    [
        ("1,964.50", "Kbyte", 1_964_500, "byte"),
        ("2.35", "Tbyte/s", 2.35e12, "byte/s"),
        ("3.10", "byte/ns", 3.1e9, "byte/s"),
        ("1.96", "cycle/nsecond", 1.96e9, "hz"),
        ("1,961,425,284.73", "cycle/second", 1_961_425_284.73, "hz"),
        ("1.75", "Ghz", 1.75e9, "hz"),
        ("6.40", "us", 6_400, "ns"),
        ("0.50", "msecond", 500_000, "ns"),
        ("33.79", "Kbyte/block", 33_790, "byte/block"),
        ("168", "register/thread", 168, "register/thread"),
        ("99.50", "%", 99.5, "%"),
        ("17", "furlong", 17, "furlong"),
        ("12 (3; 4; 5)", "inst", 12, "inst"),
    ],
)
def test_values_become_base_units(
    tmp_path: Path, text: str, written: str, value: float, base: str
) -> None:
    table = Ncu(units={"sm__x.sum": written}).launch("k", metrics={"sm__x.sum": text})

    trace = open_trace(table.write(tmp_path / "ncu.csv"), cache=False)

    found, unit_of = values(trace)[0, "sm__x.sum"]
    assert found == pytest.approx(value)
    assert unit_of == base
    assert ("not known here" in said(trace)) == (written == "furlong")
    assert ("rounded to two decimals" in said(trace)) == (
        written[:1] in "KTGum" or written in ("byte/ns", "cycle/nsecond")
    )


def test_a_table_with_decimal_commas_says_the_same(tmp_path: Path) -> None:
    pairs = {"sm__a.sum": ("1,234.50", "1.234,50"), "sm__b.sum": ("2,048", "2.048")}
    point = Ncu().launch("k", 1_500, {name: one for name, (one, _) in pairs.items()})
    comma = Ncu().launch("k", "1.500", {name: other for name, (_, other) in pairs.items()})

    first = open_trace(point.write(tmp_path / "point.csv"), cache=False)
    second = open_trace(comma.write(tmp_path / "comma.csv"), cache=False)

    assert values(first) == values(second)
    assert values(first)[0, "sm__a.sum"][0] == 1234.5


@given(
    st.lists(st.integers(0, 10**15), min_size=1, max_size=20), st.sampled_from([",", ".", "\u202f"])
)
def test_groups_of_digits_are_read_back(numbers: list[int], group: str) -> None:
    """A fraction in the table tells which comma is which."""
    decimal = "," if group == "." else "."
    texts = [f"{number:,}".replace(",", group) for number in numbers] + [f"0{decimal}25"]
    frame = pl.DataFrame(
        {
            "launch": range(len(texts)),
            "name": "sm__x.sum",
            "text": texts,
            "unit": "inst",
        },
        schema_overrides={"launch": pl.UInt32},
    )

    found = Numbers().of(frame)

    assert found["value"].to_list() == [*numbers, 0.25]


def test_values_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    table = (
        Ncu()
        .launch("a", metrics={"sm__x.sum": "7", "sm__y.sum": "n/a", "launch__policy": "Spread"})
        .launch("b", metrics={"sm__x.sum": "se7en", "sm__y.sum": "8", "launch__policy": "Spread"})
    )

    trace = open_trace(table.write(tmp_path / "ncu.csv"), cache=False)

    assert (1, "sm__x.sum") not in values(trace)
    assert "damaged: 1 values are no numbers, and were set aside: sm__x.sum" in said(trace)
    assert "could not measure everywhere: sm__y.sum" in said(trace)
    assert trace.source.facts["launch__policy"] == "Spread"


def test_words_that_differ_between_launches_are_not_taken_for_all(tmp_path: Path) -> None:
    table = Ncu()
    for word in ("Spread", "Balance"):
        table.launch("k", metrics={"launch__policy": word})

    trace = open_trace(table.write(tmp_path / "ncu.csv"), cache=False)

    assert trace.source.facts["launch__policy"] == "(several)"


@pytest.mark.parametrize("form", ["html", "csv", "text"])
def test_hostile_names_are_inert(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "=cmd|' /C calc'!A0<script>alert(1)</script>\x1b[31m"
    path = (
        Ncu(device="<img src=x>")
        .launch(hostile, 5, instructions(ffma=7))
        .write(tmp_path / "ncu.csv")
    )

    status = command(["summarize", str(path), "-t", "kernel_counters", "-f", form, "--no-cache"])

    out = capsys.readouterr().out
    assert status == 0
    assert "\x1b" not in out
    assert not any(line.startswith(("=", '"=')) for line in out.splitlines())
    assert form != "html" or ("<script>alert" not in out and "<img" not in out)


def test_a_table_that_was_cut_keeps_its_whole_rows(tmp_path: Path) -> None:
    text = Ncu().launch("a", 5).launch("b", 6).launch("c", 7).text()
    path = tmp_path / "ncu.csv"
    path.write_text(text[: -len(text.splitlines()[-1]) // 2])

    trace = open_trace(path, cache=False)

    assert trace["gpu_ops"].collect().height == 2
    assert "damaged: 1 lines of the table are no rows" in said(trace)


def test_tables_of_several_processes_with_one_head_are_one(tmp_path: Path) -> None:
    first, second = Ncu().launch("a", 5).text(), Ncu().launch("b", 6).text()
    path = tmp_path / "ncu.csv"
    path.write_text(first + second)

    trace = open_trace(path, cache=False)

    assert trace["gpu_ops"].collect().height == 2
    assert "damaged" not in said(trace)


def test_a_metric_per_row_is_read_too(tmp_path: Path) -> None:
    """What `ncu --csv --metrics a,b` prints."""
    head = ["ID", "Process ID", "Kernel Name", "Section Name", "Metric Name", "Metric Unit"]
    rows = [
        [*head, "Metric Value"],
        ["0", "41", "gemm", "Command line profiler metrics", "dram__bytes.sum", "Mbyte", "1.50"],
        [
            "0",
            "41",
            "gemm",
            "Command line profiler metrics",
            "gpu__time_duration.sum",
            "us",
            "2.50",
        ],
        [
            "1",
            "41",
            "relu",
            "Command line profiler metrics",
            "gpu__time_duration.sum",
            "us",
            "1.25",
        ],
    ]
    path = tmp_path / "ncu.csv"
    path.write_text("".join('"' + '","'.join(row) + '"\n' for row in rows))

    trace = open_trace(path, cache=False)

    assert trace["gpu_ops"].collect()["end_ns"].to_list() == [2_500, 3_750]
    assert values(trace)[0, "dram__bytes.sum"] == (1_500_000, "byte")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("==PROF== Connected to process 41\n", "no table of what it measured"),
        ("==ERROR== ERR_NVGPUCTRPERM - denied\n", "ncu said: ERR_NVGPUCTRPERM"),
        ('"ID","Process ID","Kernel Name","dram__bytes.sum"\n', "without any launch"),
        ('"ID","Process ID","Host Name"\n"0","1","x"\n', "no column Kernel Name"),
        ('"ID","Process ID","Kernel Name","a__b","a__b"\n', "two columns 'a__b'"),
        (
            f"{DETAILS}\n0,1,k,Speed Of Light,DRAM Throughput,%,3\n",
            "headings of ncu's details page",
        ),
        ('"ID","Process ID","Kernel Name","Section Name"\n', "another page"),
    ],
)
def test_what_is_no_table_of_metrics_is_told_what_to_do(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "ncu.csv"
    path.write_text(text)

    with pytest.raises(UnreadableError, match="page raw --csv") as error:
        open_trace(path, cache=False)

    assert why in str(error.value)


@pytest.mark.parametrize("damage", [b"\0", b"\xff\xfe", b'"', b"\r", b"\n", b","])
@pytest.mark.parametrize("place", [3, 60, 200, 400])
def test_damage_is_an_error_of_ours_or_a_trace(tmp_path: Path, damage: bytes, place: int) -> None:
    whole = Ncu().launch("a", 5).launch("b<\u00e9>", 6).text().encode()
    path = tmp_path / "ncu.csv"
    path.write_bytes(whole[:place] + damage + whole[place:])

    try:
        trace = open_trace(path, cache=False)
    except UnreadableError:
        return

    assert trace["gpu_ops"].collect().height in (1, 2)


def test_a_duration_that_was_not_measured_is_said(tmp_path: Path) -> None:
    table = Ncu().launch("a", "n/a").launch("b", 6).launch("c", "99,999,999,999,999,999")

    trace = open_trace(table.write(tmp_path / "ncu.csv"), cache=False)

    assert trace["gpu_ops"].collect()["end_ns"].to_list() == [0, 6, 6]
    assert "The duration of 2 launches was not measured" in said(trace)


def test_other_tables_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("ID,Price\n1,2\n")

    assert not is_recording(path)
    assert is_recording(Ncu().launch("a").write(tmp_path / "ncu.csv"))


def test_a_run_folder_with_nothing_else_is_its_table(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"recordings": []}')
    (tmp_path / "ncu.ncu-rep").write_bytes(b"NVR\0")
    table = Ncu().launch("a").write(tmp_path / "ncu.csv")

    (place,) = run.found([tmp_path])

    assert [recording.path for recording in place.recordings] == [table]


@pytest.mark.parametrize("target", ["parquet", "nsys-sqlite"])
def test_counters_survive_an_export(tmp_path: Path, target: str) -> None:
    table = Ncu().launch("a", 5, instructions(ffma=7)).launch("b", 6, {"dram__bytes.sum": "9"})
    path = table.write(tmp_path / "ncu.csv")
    out = tmp_path / ("tables" if target == "parquet" else "run.sqlite")

    assert command(["export", str(path), "--to", target, "-o", str(out)]) == 0

    again, before = (open_trace(place, cache=False) for place in (out, path))
    assert values(again) == values(before)


def test_a_unit_is_what_it_was_when_it_is_in_base_units() -> None:
    for text in ("byte", "ns", "hz", "byte/s", "inst/cycle", "cycle", "SM", "%/register", ""):
        assert unit(text).base == text
        assert unit(text).factor == 1

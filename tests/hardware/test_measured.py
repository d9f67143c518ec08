"""Files of measured ceilings: what is written is read again, and what is damaged is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracelens.errors import UnreadableError
from tracelens.hardware import measured
from tracelens.hardware.measured import Failed, Measured, Result

if TYPE_CHECKING:
    from pathlib import Path

COPY = Result(
    name="copy",
    unit="bytes_per_s",
    value=4.248e12,
    median_s=1.011e-3,
    mad_s=1e-6,
    samples_s=[1.01e-3, 1.011e-3, 1.012e-3],
    size={"bytes": 2**32},
    clock="CUDA events",
)
WHOLE = Measured(
    device="NVIDIA H200",
    made="2026-11-20T15:00:00+01:00",
    results=[COPY],
    failed=[Failed("matmul.fp8", "no such format")],
    quick=True,
    environment={"driver": "580.95", "before": {"clocks.sm": "345 MHz"}},
    tracelens="0.1.0",
)
seconds = st.floats(1e-9, 1e3)
results = st.builds(
    Result,
    name=st.text(),
    unit=st.sampled_from(["bytes_per_s", "flops_per_s", "s"]),
    value=st.floats(1e-9, 1e18),
    median_s=seconds,
    mad_s=st.floats(0, 1),
    samples_s=st.lists(seconds, min_size=1, max_size=4),
    size=st.dictionaries(st.text(), st.integers(0, 2**53), max_size=3),
    clock=st.sampled_from(["CUDA events", "wall clock"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(device=st.text(), rows=st.lists(results, max_size=4))
def test_what_is_written_is_read_again(tmp_path: Path, device: str, rows: list[Result]) -> None:
    one = replace(WHOLE, device=device, results=rows)
    file = tmp_path / "file.json"

    file.write_text(measured.encode(one), encoding="utf-8")

    assert measured.load(file) == one


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    text = measured.encode(WHOLE).rstrip()
    file = tmp_path / "file.json"
    for length in range(0, len(text), 7):
        file.write_text(text[:length], encoding="utf-8")

        with pytest.raises(UnreadableError, match=r"file\.json is no file of measured ceilings"):
            measured.load(file)


def changed(**values: Any) -> str:
    return json.dumps({**json.loads(measured.encode(WHOLE)), **values})


def result(**values: Any) -> list[dict[str, Any]]:
    return [{**json.loads(measured.encode(WHOLE))["results"][0], **values}]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no file of measured ceilings"),
        ("[]", "no file of measured ceilings"),
        ("[" * 100_000, "no file of measured ceilings"),
        ('{"traceEvents": []}', "it has no kind"),
        (changed(kind="trace"), "its kind is 'trace'"),
        (changed(kind="x" * 10_000), "its kind is 'xxx"),
        (changed(schema=2), "it has schema 2, and this tracelens knows 1"),
        (changed(device=5), "device"),
        (changed(results={}), "results"),
        (changed(results=result(value=0)), "'copy' has a number that is not above zero"),
        (changed(results=result(value=-1.0)), "not above zero"),
        (changed(results=result(median_s="1")), "median_s"),
        (changed(results=result(samples_s=[1e-3, 0.0])), "not above zero"),
        (changed(results=result(unit="furlongs")), "unit"),
    ],
)
def test_a_file_of_something_else_is_refused_and_told_what_to_do(
    tmp_path: Path, text: str, why: str
) -> None:
    file = tmp_path / "file.json"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(UnreadableError) as refusal:
        measured.load(file)

    assert why in str(refusal.value)
    assert "tracelens bench ceilings -o FILE" in str(refusal.value)
    assert len(str(refusal.value)) < 400 + len(str(file))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")

    with pytest.raises(UnreadableError):
        measured.load(file)


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="cannot be read: No such file"):
        measured.load(tmp_path / "absent.json")
    with pytest.raises(UnreadableError, match="cannot be read: Is a directory"):
        measured.load(tmp_path)


def test_keys_of_a_later_version_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    file.write_text(changed(weather="fine"), encoding="utf-8")

    assert measured.load(file) == WHOLE


def test_each_gpu_has_a_file_of_its_own_in_the_users_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRACELENS_DATA_DIR", str(tmp_path))

    assert measured.place("NVIDIA H200") == tmp_path / "ceilings" / "NVIDIA-H200.json"
    # What is lost of a name is told by a hash.
    names = ["NVIDIA-H200", "NVIDIA  H200", "../../etc/passwd", "..", "", "\x00", "é", "a" * 10_000]
    places = [measured.place(name) for name in ["NVIDIA H200", *names]]

    assert len(set(places)) == len(places)
    assert all(place.parent == tmp_path / "ceilings" for place in places)
    assert all(place.name[0] != "." and len(place.name) < 80 for place in places)


@given(st.text())
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    place = measured.place(name)

    assert place.parent == measured.folder() / "ceilings"
    assert place.suffix == ".json"


def test_the_folder_is_the_platforms_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRACELENS_DATA_DIR")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)

    assert measured.folder() == tmp_path / ".local" / "share" / "tracelens"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert measured.folder() == tmp_path / "data" / "tracelens"


def test_it_says_when_and_on_what_it_was_measured() -> None:
    assert WHOLE.said == "measured 2026-11-20 on NVIDIA H200, driver 580.95"
    assert replace(WHOLE, environment={}).said == "measured 2026-11-20 on NVIDIA H200"

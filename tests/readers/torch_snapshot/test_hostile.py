"""Files built to do harm: nothing in them runs, none takes the machine, and each ends in words."""

from __future__ import annotations

import gc
import json
import math
import os
import pickle
import struct
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.readers.torch_snapshot.reading import (
    read,
    refused,
    refused_if_at_all,
    said,
    table,
    written,
)
from tests.snapshots import MIB, Snapshot, changed, dump, training
from tracelens.readers.open import open_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEEP: Final = 100_000


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


class Built:
    """Pickles as an object whose state is set (NEWOBJ and BUILD)."""

    def __init__(self) -> None:
        self.touched = True


class NoProtocol0:
    """Pickles as a persistent id, by `Persistent`."""


class Persistent(pickle.Pickler):
    """Writes a persistent id."""

    def persistent_id(self, obj: object) -> object:
        return "somewhere else" if isinstance(obj, NoProtocol0) else None


def opcodes(mark: Path) -> Iterator[tuple[str, bytes, str]]:
    """Return pickles that would touch a file: what they do, and what the refusal names."""
    command = f"touch '{mark}'".encode()
    text = b"\x8c" + bytes([len(command)]) + command
    yield (
        "GLOBAL and REDUCE",
        b"cos\nsystem\n(S" + repr(command.decode()).encode() + b"\ntR.",
        "os.system",
    )
    yield "GLOBAL in protocol 2", b"\x80\x02cposix\nsystem\n" + text + b"\x85R.", "posix.system"
    yield (
        "STACK_GLOBAL",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + text + b"\x85R.",
        "posix.system",
    )
    yield "INST", b"\x80\x02(" + text + b"iposix\nsystem\n.", "posix.system"
    yield "OBJ", b"\x80\x02(csubprocess\nPopen\n" + text + b"o.", "subprocess.Popen"
    yield (
        "NEWOBJ",
        b"\x80\x02csubprocess\nPopen\n" + text + b"\x85\x81.",
        "subprocess.Popen",
    )
    yield (
        "NEWOBJ_EX",
        b"\x80\x04\x8c\nsubprocess\x8c\x05Popen\x93" + text + b"\x85}\x92.",
        "subprocess.Popen",
    )
    yield "eval", b"\x80\x02cbuiltins\neval\n" + text + b"\x85R.", "builtins.eval"
    yield "a dotted name", b"\x80\x04\x8c\x02os\x8c\x0bpath.os.abc\x93.", "os.path.os.abc"
    yield "BUILD", b"\x80\x02}}b.", "damaged pickle"
    yield "EXT1", b"\x80\x02\x82\x01.", "damaged pickle"
    yield "EXT4", b"\x80\x02\x84\x01\x00\x00\x00.", "damaged pickle"
    yield "PERSID", b"Pa\n.", "persistent id"
    yield "BINPERSID", b"\x80\x02K\x01Q.", "persistent id"
    yield "REDUCE of a text", b"\x80\x02" + text + b")R.", "damaged pickle"
    yield "a buffer from outside", b"\x80\x05\x97.", "damaged pickle"


# No pickle of a snapshot begins with P: such a file is in no known format.
CASES: Final = [
    (what, inside)
    for what, content, _ in opcodes(__file__)  # type: ignore[arg-type]
    for inside in (False, True)
    if inside or not content.startswith(b"P")
]


@pytest.mark.parametrize(("what", "inside"), CASES)
def test_nothing_in_a_pickle_is_executed(tmp_path: Path, what: str, inside: bool) -> None:
    mark = tmp_path / "executed"
    content, named = next((c, n) for w, c, n in opcodes(mark) if w == what)
    if inside:  # of a dictionary with the key of a snapshot
        body = content[2:-1] if content.startswith(b"\x80") else content[:-1]
        content = b"\x80\x04}\x8c\x08segments" + body + b"s."

    text = refused(written(content, tmp_path))

    assert named in text
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("where", ["root", "frames", "name", "key", "pool", "annotation"])
def test_a_call_is_refused_wherever_it_stands(tmp_path: Path, protocol: int, where: str) -> None:
    mark = tmp_path / "executed"
    call = Calls(os.system, f"touch '{mark}'")
    content: Any = training().content()
    if where == "root":
        content = call
    elif where == "frames":
        content["device_traces"][0][3]["frames"] = call
    elif where == "name":
        content["device_traces"][0][3]["frames"] = [{"name": call}]
    elif where == "key":
        content["device_traces"][0][3] = {"a": {call: 1}}
    elif where == "pool":
        content["segments"][0]["segment_pool_id"] = (call, 0)
    else:
        content["external_annotations"][0]["name"] = call

    text = refused(dump(content, tmp_path / "snapshot.pickle", protocol))

    assert f"names {os.name}.system, which could run code: nothing was executed" in text
    assert not mark.exists()


def test_an_object_of_a_class_is_refused_by_its_name(tmp_path: Path) -> None:
    text = refused(dump({"segments": [Built()]}, tmp_path / "snapshot.pickle"))

    assert "test_hostile.Built" in text


def test_a_persistent_id_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pickle"
    with path.open("wb") as file:
        Persistent(file, 4).dump({"segments": [NoProtocol0()]})

    assert "persistent id" in refused(path)


def test_what_a_class_is_called_cannot_harm_the_terminal(tmp_path: Path) -> None:
    name = "\x1b]0;owned\x07\u202e" + "x" * 5000
    encoded = name.encode()
    content = b"\x80\x04\x8c\x02os\x8d" + struct.pack("<Q", len(encoded)) + encoded + b"\x93)R."

    text = refused(written(content, tmp_path))

    assert "os.?]0;owned" in text


def laughs(levels: int = 60) -> list[Any]:
    """Return a list that is small, and larger than any memory where its sharing is undone."""
    shared: list[Any] = ["ha"]
    for _ in range(levels):
        shared = [shared, shared]
    return shared


@pytest.mark.parametrize(
    ("what", "content"),
    [
        ("a memo of 2**31 places", b"\x80\x02}r\xff\xff\xff\x7f."),
        ("a memo of 2**32 places", b"\x80\x02}r\xff\xff\xff\xff."),
        ("a text of 2**62 bytes", b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc."),
        ("a text of 1 TB", b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc."),
        ("a text of 4 GB", b"\x80\x02X\xff\xff\xff\xffabc."),
        ("bytes of 1 TB", b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc."),
        ("an integer of 2 GB", b"\x80\x02\x8b\xff\xff\xff\x7fabc."),
        ("a frame of 1 TB", b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}."),
        ("too many ends", b"\x80\x04" + b"." * 100),
        ("nothing on the stack", b"\x80\x04" + b"0" * 10 + b"."),
        ("marks without end", b"\x80\x04" + b"(" * DEEP),
        ("a get of nothing", b"\x80\x04h\x05."),
        ("lists 100,000 deep", b"\x80\x04" + b"]" * DEEP + b"a" * (DEEP - 1) + b"."),
        ("tuples 100,000 deep", b"\x80\x04)" + b"\x85" * DEEP + b"."),
        ("dictionaries 100,000 deep", b"\x80\x04" + b"}K\x01" * DEEP + b"}" + b"s" * DEEP + b"."),
        ("a key 100,000 deep", b"\x80\x04})" + b"\x85" * DEEP + b"}s."),
    ],
)
def test_what_claims_too_much_ends_in_words(tmp_path: Path, what: str, content: bytes) -> None:
    text = refused(written(content, tmp_path))

    assert text.startswith("snapshot.pickle "), what


@pytest.mark.parametrize(
    "place", ["segments", "device_traces", "frames", "entry", "action", "pool"]
)
def test_billion_laughs_are_not_laughed(tmp_path: Path, place: str) -> None:
    content = training().content()
    if place in content:
        content[place] = laughs()
    elif place == "frames":
        for entry in content["device_traces"][0]:
            entry["frames"] = [{"name": "f", "filename": laughs(), "line": 1}]
    elif place == "entry":
        content["device_traces"][0][0] = laughs()
    else:
        key = {"action": "action", "pool": "pool_id"}[place]
        content["device_traces"][0][0][key] = tuple(laughs())

    trace = read(content, tmp_path)

    assert "set aside" in said(trace, "damaged") or place == "frames"


@pytest.mark.parametrize("close", ["]a", "\x85"])
@pytest.mark.parametrize("key", ["action", "addr", "frames", "pool_id", "user_metadata"])
def test_what_is_nested_too_deep_is_set_aside(tmp_path: Path, key: str, close: str) -> None:
    text = key.encode()
    head = b"\x80\x04}\x8c\x0ddevice_traces]]}\x8c" + bytes([len(text)]) + text
    deep = b"]" * DEEP + b"a" * (DEEP - 1) if close == "]a" else b")" + b"\x85" * DEEP

    trace = open_trace(written(head + deep + b"saas.", tmp_path), cache=False)

    assert "1 trace entries were set aside" in said(trace, "damaged")


@pytest.mark.parametrize("what", ["list", "entry", "frames", "segments", "blocks"])
def test_what_holds_itself_is_walked_once(tmp_path: Path, what: str) -> None:
    content = training().content()
    trace = content["device_traces"][0]
    if what == "list":
        trace.append(trace)
    elif what == "entry":
        trace[0]["frames"] = [trace[0]]
    elif what == "frames":
        for entry in trace[:3]:
            frames: list[Any] = [{"name": "f"}]
            frames[0]["filename"] = frames
            frames.append(frames)
            entry["frames"] = frames
    elif what == "segments":
        content["segments"].append(content["segments"])
    else:
        content["segments"][0]["blocks"].append(content["segments"][0])

    found = read(content, tmp_path)

    assert table(found, "memory").height >= len(training().content()["device_traces"][0]) - 1


def test_one_trace_named_a_million_times_is_refused(tmp_path: Path) -> None:
    trace = training(steps=200).content()["device_traces"][0]
    content = {"segments": [], "device_traces": [trace] * 1000}

    assert "names the same lists again and again" in refused(
        dump(content, tmp_path / "snapshot.pickle")
    )


def test_one_list_of_blocks_named_a_million_times_is_refused(tmp_path: Path) -> None:
    content = training().content()
    blocks = content["segments"][0]["blocks"] * 2000
    content["segments"] = [content["segments"][0] | {"blocks": blocks} for _ in range(2000)]

    assert "names the same lists again and again" in refused(
        dump(content, tmp_path / "snapshot.pickle")
    )


def test_more_devices_than_any_machine_has_are_set_aside(tmp_path: Path) -> None:
    content = {"segments": [], "device_traces": [[] for _ in range(5000)]}

    assert "3,976 trace entries were set aside" in said(read(content, tmp_path), "damaged")


def test_long_texts_are_cut_and_kept_once(tmp_path: Path) -> None:
    snapshot = Snapshot()
    gpu = snapshot.device(0)
    long = "x" * 1_000_000
    for n in range(50):
        gpu.alloc(1000, stack=(f"{long}:{n} {long}",))

    trace = read(snapshot.content(), tmp_path)

    frames = table(trace, "frames")
    assert frames.height == 50
    assert frames["file"].str.len_chars().max() == 2**14 + 1
    assert "1 texts were cut" in said(trace, "note")


def test_texts_that_are_no_unicode_are_mended(tmp_path: Path) -> None:
    content = changed(training(), 0, 1, user_metadata="half \ud800 a pair")

    events = table(read(content, tmp_path), "memory")

    assert events["metadata"][1] == "half ? a pair"


def test_memory_that_a_file_may_not_take_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("resource")
    if sys.platform != "linux":
        pytest.skip("only Linux limits address space")
    path = training(steps=2000).write(tmp_path / "snapshot.pickle")
    monkeypatch.setenv("TRACELENS_SNAPSHOT_LIMIT_BYTES", str(8 * MIB))

    text = refused(path)

    assert "asks for more than 8.00 MiB of memory" in text
    assert f"TRACELENS_SNAPSHOT_LIMIT_BYTES={32 * MIB}" in text


def test_time_that_a_file_may_not_take_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = training(steps=3000).write(tmp_path / "snapshot.pickle")
    monkeypatch.setattr("tracelens.readers.torch_snapshot.process.PATIENCE_S", 0)

    assert "could not be read within 0 s" in refused(path)


def test_a_python_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = training().write(tmp_path / "snapshot.pickle")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    assert "No process could be started" in refused(path)


def test_the_child_is_not_led_astray_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pickle", "array", "json", "sitecustomize", "tracelens"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit(7)", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "pickle.py"))
    monkeypatch.chdir(tmp_path)

    assert table(read(training().content(), tmp_path), "memory").height


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))

    trace = read(training().content(), tmp_path)
    refused(written(b"\x80\x04cos\nsystem\n.", tmp_path))
    del trace
    gc.collect()

    assert list(scratch.iterdir()) == []


ODD: Final = (
    None, "x", "", b"x", 1.5, math.nan, math.inf, -1, 2**63, -(2**63) - 1, 2**200, True, [], {}, (),
    [1], {"a": 1}, (1, 2, 3), "\ud800", -(2**63) + 1, -(2**63) + 3,
)  # fmt: skip


@pytest.mark.parametrize(
    "key",
    ["action", "addr", "size", "stream", "time_us", "frames", "compile_context", "user_metadata",
     "pool_id", "device_free"],
)  # fmt: skip
def test_any_value_in_an_entry_costs_that_entry_at_most(tmp_path: Path, key: str) -> None:
    base = training(steps=8)
    content = base.content()
    entries = content["device_traces"][0]
    for place, value in enumerate(ODD):
        entries[3 * place] = entries[3 * place] | {key: value}

    trace = read(content, tmp_path)

    kept = table(trace, "memory")
    expected = table(read(base.content(), tmp_path), "memory")
    assert len(entries) - len(ODD) <= kept.height <= len(entries)
    assert kept["size_bytes"].min() >= 0  # type: ignore[operator]
    untouched = expected.with_row_index().filter(~_changed("index", len(ODD)))
    marked = untouched.join(kept, on=["time_ns", "action", "address"], how="left", suffix="_now")
    assert (marked["size_bytes"] == marked["size_bytes_now"]).all()


def _changed(index: str, count: int) -> Any:
    import polars as pl

    return pl.col(index).is_in([3 * n for n in range(count)])


def test_numbers_and_texts_that_no_file_can_hold_are_no_settings(tmp_path: Path) -> None:
    content = changed(training(), 0, 0, user_metadata={"n": 10**100_000})
    content["allocator_settings"] |= {"n": 10**100_000, "text": "\ud800", "\udfff": 1, "d": {1: 2}}

    trace = read(content, tmp_path)

    facts = trace.source.facts
    assert facts["text"] == "?"
    assert facts["?"] == "1"
    assert not {"n", "d"} & facts.keys()
    assert "1 remarks were set aside" in said(trace, "damaged")


@pytest.mark.parametrize("part", ["segments", "blocks", "external_annotations", "frames"])
def test_any_value_elsewhere_costs_its_row_at_most(tmp_path: Path, part: str) -> None:
    base = training(steps=3).content()
    rows = {
        "segments": lambda c: c["segments"],
        "blocks": lambda c: c["segments"][0]["blocks"],
        "external_annotations": lambda c: c["external_annotations"],
        "frames": lambda c: c["device_traces"][0][1]["frames"],
    }[part]
    for key in rows(base)[0]:
        content = unshared(base)
        rows(content).extend({**rows(base)[0], key: value} for value in ODD)

        trace = read(content, tmp_path)

        assert table(trace, "memory").height == len(base["device_traces"][0])
        if part in {"segments", "blocks"}:
            found = table(trace, part).height - table(read(base, tmp_path), part).height
            assert 0 <= found <= len(ODD) * (2 if part == "blocks" else 1)


def unshared(content: Any) -> Any:
    """Return a copy in which nothing is shared with the original."""
    return pickle.loads(pickle.dumps(content))  # noqa: S301


@pytest.mark.parametrize(
    "key",
    ["segments", "device_traces", "allocator_settings", "external_annotations",
     "trace_alloc_overflowed", "new_table"],
)  # fmt: skip
def test_any_value_for_a_whole_part_is_no_crash(tmp_path: Path, key: str) -> None:
    for value in ("x", -1, 2**200, math.nan, {"a": 1}, [1], (1, 2, 3), [[1]]):
        trace = read({**training().content(), key: value}, tmp_path)

        for name in trace.tables:
            table(trace, name)


def test_json_with_numbers_that_are_none(tmp_path: Path) -> None:
    text = json.dumps(training().content()).replace('"size": 4194304', '"size": NaN')
    text = text.replace('"time_us": 17', '"time_us": 1' + "0" * 30)
    path = tmp_path / "snapshot.json"
    path.write_text(text, encoding="utf-8")

    trace = open_trace(path, cache=False)

    assert "trace entries were set aside" in said(trace, "damaged")
    assert "times were set aside" in said(trace, "damaged")


@pytest.mark.parametrize(
    "text",
    [
        '{"segments": ' + "[" * DEEP,
        '{"segments": ' + "[" * DEEP + "]" * DEEP + "}",
        '{"segments": ' + "9" * 50_000 + "}",
        '{"segments": "\\ud800"}',
        '{"segments": [] , "segments": 1}',
        "[[" + "1," * 1000,
    ],
)
def test_hostile_json_ends_in_words(tmp_path: Path, text: str) -> None:
    reason = refused_if_at_all(written(text.encode(), tmp_path, "snapshot.json"))

    assert reason is None or reason.startswith("snapshot.json ")


def test_times_may_go_back_and_the_order_stays(tmp_path: Path) -> None:
    snapshot = training()
    content = changed(snapshot, 0, 4, time_us=5)

    trace = read(content, tmp_path)

    events = table(trace, "memory")
    assert events["time_ns"][4] == 5000
    assert events["action"].to_list() == [e["action"] for e in content["device_traces"][0]]
    assert "Time goes back 1 times" in said(trace, "note")


def test_a_block_given_out_twice_is_as_it_was_written(tmp_path: Path) -> None:
    content = training().content()
    entries = content["device_traces"][0]
    entries.insert(2, dict(entries[1]))

    assert table(read(content, tmp_path), "memory").height == len(entries)

"""Damaged and hostile JSON: what can be read is shown, what cannot is counted, nothing hangs."""

from __future__ import annotations

import gzip
import json
import re
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.asking import Said, Shell, linked, the_row
from tests.kineto import Profile, Raw, training_step
from tests.readers.kineto import fuzz
from tests.readers.kineto.reading import (
    a_step,
    forwards,
    opened,
    read,
    read_or_refused,
    rows,
    said,
    story,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tracelens.trace.model import Trace

SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
FEWER = settings(SHARED, max_examples=40)
FOR_EYES = ("text", "markdown", "latex", "html")


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell to run commands in."""
    return Shell(capsys)


def refused(said: Said, *words: str) -> None:
    """Assert that nothing was shown, for a reason of one or two lines with these words."""
    assert (said.status, said.out) == (3, "")
    assert 1 <= len(said.err.strip().splitlines()) <= 2
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


def shown(shell: Shell, path: Path) -> tuple[Any, str]:
    """Return the totals that `summarize` shows, and all that it says beside them."""
    told = shell("summarize", path, "--format", "json", "--no-cache")
    assert told.status == 0, told.err
    document = told.json
    (totals,) = document["tables"]["totals"]
    for table in ("phases", "families"):
        found = document["tables"].get(table, [])
        assert sum(row["kernel_time_ns"] for row in found) == totals["kernel_time_ns"]
    return totals, " ".join([*document["warnings"], *document["left_out"].values()])


def damage(trace: Trace) -> str:
    """Return what is said of damage, in one text; there must be something."""
    told = said(trace, "damaged", "lost")
    assert told
    return " ".join(told)


def work(trace: Trace, of: Profile) -> Counter[Any]:
    """Return GPU work, calls and ranges, on the builder's clock, without what depends on others."""
    about = {
        "gpu_ops": ("start_ns", "end_ns", "kind", "device", "stream", "name"),
        "api": ("start_ns", "end_ns", "tid", "name"),
        "ranges": ("start_ns", "end_ns", "tid", "kind", "name"),
    }
    return Counter(
        (table, *row)
        for table, columns in about.items()
        if table in trace
        for row in rows(trace, table, *columns, of=of)
    )


def swapped(content: bytes, old: str, new: str | bytes) -> bytes:
    """Replace the first of a text, which must be there."""
    assert old.encode() in content
    return content.replace(old.encode(), new if isinstance(new, bytes) else new.encode(), 1)


# --- Cut off --------------------------------------------------------------------------------------

STEP = a_step()
CONTENT = STEP.content()
ENDS = [found.end() for found in re.finditer(rb"\n  \}", CONTENT)]
EVENTS = CONTENT.index(b'"traceEvents"')


@pytest.fixture(scope="module")
def every_event(tmp_path_factory: pytest.TempPathFactory) -> list[Counter[Any]]:
    """Give what each of the events alone adds to the work, in order; nothing for most."""
    folder = tmp_path_factory.mktemp("whole")
    whole = work(opened(STEP, folder), STEP)
    found = []
    for event in json.loads(CONTENT)["traceEvents"]:
        ns = [round(event.get(key, 0) * 1_000) for key in ("ts", "dur")]
        start = ns[0] - round(json.loads(CONTENT)["traceEvents"][0]["ts"] * 1_000) + 100_000
        mine = [row for row in whole if row[1:3] == (start, start + ns[1])
                and row[-1] == event["name"] and event.get("cat") != "Trace"]  # fmt: skip
        found.append(Counter(mine[:1]))
    assert sum(found, Counter()) == whole
    return found


@SHARED
@given(cut=st.integers(0, len(CONTENT) - 1))
@example(cut=ENDS[0])
@example(cut=ENDS[7] + 1)
@example(cut=ENDS[-1])
@example(cut=len(CONTENT) - 1)
@example(cut=EVENTS + len('"traceEvents": ['))
def test_a_trace_cut_off_at_any_byte_shows_every_event_before_it(
    tmp_path: Path, every_event: list[Counter[Any]], cut: int
) -> None:
    found = read_or_refused(CONTENT[:cut], tmp_path)
    if found is None:
        assert cut < ENDS[1] + 5
        return
    told = work(found, STEP)
    whole = sum(end <= cut for end in ENDS)

    assert damage(found)
    assert told <= sum(every_event, Counter())
    assert told <= sum(every_event[: whole + 1], Counter())
    assert told >= sum(every_event[: max(0, whole - 1)], Counter())


@FEWER
@given(data=st.data())
def test_a_list_of_events_cut_off_at_any_byte_is_read(tmp_path: Path, data: st.DataObject) -> None:
    trace = a_step("2020-12")
    content = trace.content()
    cut = data.draw(st.integers(len(content) // 4, len(content) - 3))

    found = read(content[:cut], tmp_path)

    assert damage(found)
    assert work(found, trace) <= work(opened(trace, tmp_path, "whole.json"), trace)


@FEWER
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_packed_trace_cut_off_at_any_byte_shows_what_it_can(tmp_path: Path, share: float) -> None:
    packed = gzip.compress(CONTENT, 1)
    found = read_or_refused(packed[: int(share * len(packed))], tmp_path, "trace.json.gz")
    if found is None:
        assert share < 0.6
        return

    assert damage(found)
    assert work(found, STEP) <= work(opened(STEP, tmp_path, "whole.json"), STEP)


@pytest.mark.parametrize(
    "cut", [b'"ts": 42', b'{\n    "ph"', b'"args": {\n', b'"dur": 300', b"\n  },", b'"name": "amp',
            b'"grid": [4, 6', b'"queued"'],
)  # fmt: skip
def test_a_trace_cut_off_inside_of_an_event_says_so(
    tmp_path: Path, shell: Shell, cut: bytes
) -> None:
    at = CONTENT.rindex(cut, 0, CONTENT.index(b"multi_tensor_apply_kernel")) + len(cut)
    path = tmp_path / "trace.json"
    path.write_bytes(CONTENT[:at])

    totals, told = shown(shell, path)

    assert totals["kernels"] in (6, 7)
    assert "cut off" in told


@pytest.mark.parametrize("flip", [10, 200, -200, -6, -2])
def test_a_packed_trace_with_a_wrong_byte_is_read_in_part_or_refused(
    tmp_path: Path, shell: Shell, flip: int
) -> None:
    packed = bytearray(gzip.compress(CONTENT, 9))
    packed[flip] ^= 0x55
    path = tmp_path / "trace.json.gz"
    path.write_bytes(packed)

    told = shell("summarize", path, "--format", "json", "--no-cache")

    if told.status == 0:
        assert told.json["warnings"]
    else:
        refused(told)


def test_a_zip_cut_off_or_without_a_trace_is_refused(tmp_path: Path, shell: Shell) -> None:
    path = STEP.write(tmp_path / "trace.zip")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:30], b"PK\x03\x04", b"PK\x05\x06" + bytes(18)):
        path.write_bytes(content)
        refused(shell("summarize", path, "--no-cache"))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", "no trace")
    refused(shell("summarize", path, "--no-cache"))


# --- Text that is no JSON -------------------------------------------------------------------------

_BLOCKS = '"blocks per SM": 1.939394'
REPAIRS: dict[str, Callable[[bytes], bytes]] = {
    "NaN": lambda c: swapped(c, _BLOCKS, '"blocks per SM": NaN'),
    "nan": lambda c: swapped(c, _BLOCKS, '"blocks per SM": nan'),
    "-nan": lambda c: swapped(c, _BLOCKS, '"blocks per SM": -nan'),
    "inf": lambda c: swapped(c, _BLOCKS, '"blocks per SM": inf'),
    "-inf": lambda c: swapped(c, _BLOCKS, '"blocks per SM":-inf'),
    "Infinity": lambda c: swapped(c, _BLOCKS, '"blocks per SM": Infinity'),
    "-Infinity": lambda c: swapped(c, _BLOCKS, '"blocks per SM": -Infinity'),
    "N/A": lambda c: swapped(c, '"memory bandwidth (GB/s)": 0.1024',
                             '"memory bandwidth (GB/s)": N/A'),
    "a comma too many": lambda c: swapped(c, "\n  }\n  ]", "\n  },\n  ]"),
    "a comma too many in arguments": lambda c: swapped(c, '"Ev Idx": 1\n', '"Ev Idx": 1,\n'),
    "a comma too many in a list": lambda c: swapped(c, "[8, 8]", "[8, 8,]"),
    "two commas": lambda c: swapped(c, "\n  },\n  {", "\n  },,\n  {"),
    "no comma": lambda c: swapped(c, "\n  },\n  {", "\n  }\n  {"),
    "a bell in the name of the trace": lambda c: swapped(c, "/tmp/", b"/tm\x07p/"),  # noqa: S108
    "NUL between events": lambda c: swapped(c, "\n  },\n  {", b"\n  },\0\n  {"),
    "NULs at the end": lambda c: c + bytes(500),
    "more at the end": lambda c: c + b"\n\n{}",
    "a text at the end": lambda c: c + b"\nDone.\n",
    "a backslash around": lambda c: swapped(c, "/tmp/", "C:\\Users\\"),  # noqa: S108
    "a quote around": lambda c: swapped(c, "/tmp/", '/tm"p/'),  # noqa: S108
    "a key without value": lambda c: swapped(c, '"record_shapes": 1', '"record_shapes": '),
    "a number with leading zeros": lambda c: swapped(c, '"queued": 0', '"queued": 007'),
    "a plus": lambda c: swapped(c, '"queued": 0', '"queued": +1'),
    "hexadecimal": lambda c: swapped(c, '"queued": 0', '"queued": 0x1F'),
    "a comment": lambda c: swapped(c, "\n  },\n  {", "\n  }, // next\n  {"),
    "True": lambda c: swapped(c, '"queued": 0', '"queued": True'),
}  # fmt: skip


@pytest.mark.parametrize("what", REPAIRS)
def test_text_that_is_no_json_costs_at_most_an_event_and_is_told(tmp_path: Path, what: str) -> None:
    whole = work(opened(STEP, tmp_path, "whole.json"), STEP)
    content = REPAIRS[what](CONTENT)
    assert content != CONTENT

    found = read(content, tmp_path)

    lost = whole - work(found, STEP)
    assert lost.total() <= 1
    assert work(found, STEP) <= whole
    assert re.search(r"\d|at its end", damage(found))


@pytest.mark.parametrize(
    "what", ["NaN", "inf", "-inf", "Infinity", "N/A", "a comma too many", "NULs at the end",
             "a comma too many in arguments", "a backslash around"],
)  # fmt: skip
def test_what_kineto_is_known_to_write_costs_nothing(tmp_path: Path, what: str) -> None:
    found = read(REPAIRS[what](CONTENT), tmp_path)

    assert story(found) == story(opened(STEP, tmp_path, "whole.json"))


@pytest.mark.parametrize(
    ("old", "new"),
    [("/tmp/", b"/tm\xffp/"), ('"queued": 0', b'"queued": 1e999'), ("TALLY", b"\xff\xfe")],  # noqa: S108
)
def test_what_is_not_read_may_be_anything(tmp_path: Path, old: str, new: bytes) -> None:
    content = CONTENT.replace(b'"trace_id": "', b'"trace_id": "TALLY')

    found = read(swapped(content, old, new), tmp_path)

    assert story(found) == story(opened(STEP, tmp_path, "whole.json"))
    assert said(found) == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_trace_in_another_encoding_is_read_or_refused(
    tmp_path: Path, shell: Shell, encoding: str
) -> None:
    """Windows PowerShell writes what is sent to a file as UTF-16, with a mark."""
    path = tmp_path / "trace.json"
    path.write_bytes(CONTENT.decode().encode(encoding))

    told = shell("summarize", path, "--format", "json", "--no-cache")

    if encoding in ("utf-8-sig", "utf-16"):
        assert told.status == 0, told.err
    if told.status:
        refused(told)
    else:
        assert told.json["tables"]["totals"][0]["kernel_time_ns"] == 1_710_000


NAMES: dict[str, tuple[bytes, str | None]] = {
    "a path of Windows": (rb"C:\Users\me\train.py(7): step", r"C:\Users\me\train.py(7): step"),
    "a backslash at the end": (b"a\\", None),
    "quotes": (b'say "hi" now', 'say "hi" now'),
    "one quote": (b'5" disk', None),
    "quotes around it all": (b'"quoted"', None),
    "quotes and a comma": (b'a", "b', None),
    "quotes and a colon": (b'lambda: {"key": 1}', None),
    "quotes, and an end": (b'x"}', None),
    "the beginning of an event": (b'x"}, {"ph": "X', None),
    "a line break": (b"two\nlines", None),
    "a tab": (b"a\tb", None),
    "a bell": (b"a\x07b", None),
    "an escape of the terminal": (b"\x1b[31mred", None),
    "NUL": (b"a\0b", None),
    "bad UTF-8": (b"\xff\xfe bad", "\ufffd\ufffd bad"),
    "a surrogate": (b"\xed\xa0\x80x", None),
    "half of a pair": (rb"\ud83d", None),
    "an escape that is none": (rb"\x41 \q \u12", r"\x41 \q \u12"),
    "braces": (b"{}}{[]", "{}}{[]"),
    "a megabyte": (b"x" * 1_000_000, "x" * 1_000_000),
    "a megabyte of quotes": (b'"' * 100_000, None),
    "a megabyte of brackets": (b"[" * 1_000_000, "[" * 1_000_000),
}


@pytest.mark.parametrize("what", NAMES)
def test_a_name_that_breaks_the_json_costs_its_own_event_at_most(tmp_path: Path, what: str) -> None:
    spelt, name = NAMES[what]
    trace = Profile()
    training_step(trace)
    whole = work(opened(trace, tmp_path, "whole.json"), trace)
    main = trace.thread("python3")
    main.annotation(spelt, 2_300_000, 2_400_000)
    main.annotation("after", 2_500_000, 2_600_000)

    found = opened(trace, tmp_path)

    told = work(found, trace)
    assert whole <= told
    assert ("ranges", 2_500_000, 2_600_000, 100, "annotation", "after") in told
    more = [row[-1] for row in told - whole if row[-1] != "after"]
    assert len(more) <= 1
    if name is not None:
        assert more == [name]
    if not more:
        assert re.search(r"\b1\b", damage(found))


@pytest.mark.parametrize("renderer", FOR_EYES)
def test_no_name_can_write_to_the_terminal(tmp_path: Path, shell: Shell, renderer: str) -> None:
    trace = Profile()
    main = trace.thread("python3")
    for number, (spelt, _) in enumerate(NAMES.values()):
        if len(spelt) < 1_000 and b'"' not in spelt:
            main.annotation(spelt, 10_000 * number, 10_000 * number + 9_000)
            main.kernel(spelt, at=10_000 * number, run=(10_000 * number, 10_000 * number + 500))
    path = trace.write(tmp_path / "trace.json")

    for asked in ("kernels", "ranges"):
        told = shell("summarize", path, "-t", asked, "-f", renderer, "--top", "0")

        assert told.status == 0, told.err
        assert not {"\x1b", "\0", "\x07", "\x9b"} & set(told.out)
        told.out.encode()


@pytest.mark.parametrize(
    "hole", [(0.3, 0.31), (0.5, 0.5001), (0.1, 0.12), (0.6, 0.9), (0.45, 0.4503)]
)
@pytest.mark.parametrize("filling", [b"", b"\0", b"x", b"\xff", b'"', b"{", b"}", b"\n", b"]"])
def test_around_a_hole_everything_is_read(
    tmp_path: Path, hole: tuple[float, float], filling: bytes
) -> None:
    """Disks give blocks of zeros, and networks forget some."""
    trace = Profile()
    for number in range(40):
        training_step(trace, at=3_000_000 * number)
    content = trace.content()
    start, end = (int(share * len(content)) for share in hole)

    found = read(content[:start] + filling * (end - start) + content[end:], tmp_path)

    whole = work(opened(trace, tmp_path, "whole.json"), trace)
    told = work(found, trace)
    assert (told - whole).total() <= 2  # the two events that the hole made one
    assert told.total() >= whole.total() * (1 - hole[1] + hole[0]) - 8
    try:
        json.loads(content[:start] + filling * (end - start) + content[end:])
    except ValueError:
        assert re.search(r"\d", damage(found))


def test_two_documents_in_one_file_are_not_silently_one(tmp_path: Path, shell: Shell) -> None:
    path = tmp_path / "trace.json"
    for content in (
        CONTENT + CONTENT,
        CONTENT + b"\n" + a_step(start_ns=STEP.start_ns + 5).content(),
    ):
        path.write_bytes(content)
        told = shell("summarize", path, "--format", "json", "--no-cache")
        if told.status == 0:
            assert told.json["warnings"]
            assert told.json["tables"]["totals"][0]["kernels"] in (9, 18)
        else:
            refused(told)


def test_events_one_to_a_line_are_read_or_refused(tmp_path: Path, shell: Shell) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(json.dumps(e) for e in json.loads(CONTENT)["traceEvents"]))

    told = shell("summarize", path, "--format", "json", "--no-cache")

    if told.status == 0:
        assert told.json["tables"]["totals"][0]["kernels"] in (8, 9)
        assert told.json["warnings"]
    else:
        refused(told)


# --- What is no trace, or an empty one ------------------------------------------------------------

OTHERS: dict[str, Any] = {
    "nothing in an object": {},
    "nothing in a list": [],
    "a number": 5,
    "a package": {"name": "left-pad", "version": "1.3.0", "dependencies": {}},
    "a map": {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}}]},
    "records": [{"id": 1, "price": 2.5}, {"id": 2, "price": 3.5}],
    "numbers": [1, 2, 3],
    "lists": [[1, 2], [3, 4]],
    "texts": ["a", "b"],
    "a notebook": {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5},
    "a flame graph": {"$schema": "https://www.speedscope.app/file-format-schema.json",
                      "profiles": [], "shared": {"frames": []}},
    "traceEvents of another kind": {"traceEvents": 5},
    "traceEvents in an object": {"traceEvents": {"a": 1}},
    "no traceEvents": {"traceEvents": None, "schemaVersion": 1},
    "an empty trace": {"schemaVersion": 1, "deviceProperties": [], "traceEvents": []},
    "a browser's trace": {"traceEvents": [
        {"pid": 1, "tid": 2, "ts": 3, "ph": "X", "cat": "toplevel", "name": "RunTask", "dur": 5,
         "tdur": 4, "tts": 1, "args": {}},
        {"args": {"name": "CrBrowserMain"}, "cat": "__metadata", "name": "thread_name", "ph": "M",
         "pid": 1, "tid": 2, "ts": 0},
    ], "metadata": {"clock-domain": "LINUX_CLOCK_MONOTONIC"}},
    "a compiler's trace": {"traceEvents": [
        {"pid": 1, "tid": 2, "ts": 3, "ph": "X", "name": "Source", "dur": 5, "args": {}}
    ], "beginningOfTime": 1_700_000_000_000_000},
    "events that are texts": {"traceEvents": ["a", "b", None, 5]},
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_json_of_another_kind_is_refused_with_what_to_do(
    tmp_path: Path, shell: Shell, what: str
) -> None:
    path = tmp_path / "trace.json"
    for indent in (None, 2):
        path.write_text(json.dumps(OTHERS[what], indent=indent))
        told = shell("summarize", path, "--no-cache")

        assert told.status in (3, 4)
        assert told.out == ""
        assert "trace.json" in told.err
        assert 1 <= len(told.err.strip().splitlines()) <= 2
        assert re.search("torch.profiler|[Rr]ecord", told.err)


@pytest.mark.parametrize(
    "content",
    [b"{", b"[", b'{"', b'{"traceEvents": [', b'{"traceEvents": [{', b'{"traceEvents"', b"[{",
     b'[{"ph": "X"', b"{" + bytes(5_000), b"[" * 5_000, b"{" * 5_000, b'{"a": ' * 100_000,
     b"[" * 10_000_000, b'{"traceEvents": ' + b"[" * 1_000_000, b"\xef\xbb\xbf", b"\xff\xfe",
     b"\xff\xfe{\0", b"  \n\t ", b'{"traceEvents": [\xff\xff', b'["', b"{}{}{}", b"[]]]", b"{nan}"],
)  # fmt: skip
def test_hardly_anything_is_refused(tmp_path: Path, shell: Shell, content: bytes) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(content)

    told = shell("summarize", path, "--no-cache")

    assert told.status in (3, 4)
    assert told.out == ""
    assert 1 <= len(told.err.strip().splitlines()) <= 2


@pytest.mark.parametrize("version", ["2020-12", "2026-02"])
def test_a_trace_of_names_alone_says_how_to_record_more(
    tmp_path: Path, shell: Shell, version: str
) -> None:
    trace = Profile(version)
    trace.thread("python3")

    told = shell("summarize", trace.write(tmp_path / "trace.json"), "--no-cache", "-f", "json")

    assert told.status in (0, 3, 4)
    text = told.err if told.status else " ".join(told.json["warnings"])
    assert "torch.profiler" in text


# --- Events that no profiler would write ----------------------------------------------------------

ODD = [None, True, [], {}, "", "x", -1, 0.5, Raw("1e400"), 2**31, 2**63, 2**64, -(2**70), [1], "7",
       {"a": 1}, Raw("1e18"), "\u2028", b"\xff"]  # fmt: skip


def one_odd_event(key: str, value: Any) -> tuple[Profile, Profile]:
    """Return a step, and a step in which one kernel's key has a value."""
    plain, odd = a_step(), a_step()
    kernel = next(e for e in odd.events if e.fields.get("cat") == "kernel")
    if value == "gone":
        del kernel.fields[key]
    else:
        kernel.fields[key] = value
    return plain, odd


@pytest.mark.parametrize("key", ["ph", "cat", "name", "pid", "tid", "ts", "dur", "args"])
@pytest.mark.parametrize("value", [*ODD, "gone"], ids=repr)
def test_a_value_of_any_type_costs_its_own_event_at_most(
    tmp_path: Path, key: str, value: Any
) -> None:
    plain, odd = one_odd_event(key, value)
    whole = opened(plain, tmp_path, "whole.json")

    found = opened(odd, tmp_path)

    theirs = work(whole, plain)
    lost, more = theirs - work(found, odd), work(found, odd) - theirs
    assert lost.total() <= 1
    assert more.total() <= 1
    kernels = rows(found, "gpu_ops", "kind").count(("kernel",))
    if kernels == 8 and key not in ("ph", "cat"):
        assert re.search(r"\b1\b", damage(found))
    assert linked(tmp_path / "trace.json").coverage()["gpu_ops"] == kernels + 1


ARGUMENTS = {
    "kernel": ("device", "stream", "context", "correlation", "External id", "grid", "block",
               "registers per thread", "shared memory", "graph id", "graph node id",
               "Collective name"),
    "cpu_op": ("External id", "Sequence number", "Fwd thread id", "Input Dims", "Input type",
               "Concrete Inputs"),
    "cuda_runtime": ("correlation", "External id", "cbid"),
    "gpu_memcpy": ("bytes", "device", "memory bandwidth (GB/s)"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("category", "key"), [(c, k) for c, keys in ARGUMENTS.items() for k in keys]
)
def test_an_argument_of_any_type_costs_itself_only(tmp_path: Path, category: str, key: str) -> None:
    plain = a_step()
    whole = work(opened(plain, tmp_path, "whole.json"), plain)
    for value in [*ODD, "gone"]:
        trace = a_step()
        events = [e for e in trace.events if e.fields.get("cat") == category]
        event = events[len(events) // 2]
        event.fields["args"][key] = value
        if value == "gone":
            del event.fields["args"][key]

        found = opened(trace, tmp_path)

        told = work(found, trace)
        if key in ("device", "stream"):  # the row is there, on another GPU or stream
            assert {row[:4] for row in told} == {row[:4] for row in whole}
        else:
            assert told == whole, value
        of = linked(tmp_path / "trace.json")
        assert the_row(of, "totals")["kernel_time_ns"] == 1_710_000
        assert of.trace["names"].collect()["name_id"].is_unique().all()


@pytest.mark.parametrize("key", ["Bytes", "Addr", "Device Id", "Device Type", "Total Allocated",
                                 "Total Reserved"])  # fmt: skip
@pytest.mark.parametrize("value", [*ODD, "gone"], ids=repr)
def test_an_event_of_memory_with_any_value_costs_itself_at_most(
    tmp_path: Path, key: str, value: Any
) -> None:
    trace = Profile()
    main = trace.thread("python3")
    for number in range(5):
        event = main.memory(1_000 * number, 512, allocated=512 * number, reserved=1 << 21)
    event.fields["args"][key] = value
    if value == "gone":
        del event.fields["args"][key]

    found = opened(trace, tmp_path)

    kept = rows(found, "memory", "time_ns", "size_bytes")
    assert len(kept) in (4, 5)
    assert kept[:4] == [(time, 512) for time, _ in kept[:4]]
    if len(kept) == 4:
        assert re.search(r"\b1\b", damage(found))
    assert all(size >= 0 for _, size in kept)


@pytest.mark.parametrize(
    "key", ["In msg nelems", "Group size", "dtype", "Process Group Name", "Seq", "Comms Id",
            "Process Group Ranks", "Dst Rank"],
)  # fmt: skip
def test_a_collective_with_any_value_is_a_kernel_all_the_same(tmp_path: Path, key: str) -> None:
    for value in [*ODD, "gone"]:
        trace = Profile()
        args = {key: value}
        event = trace.thread("python3").collective(
            "allreduce", 8, at=0, run=(5_000, 6_000), args=args
        )
        if value == "gone":
            del event.fields["args"][key]

        found = opened(trace, tmp_path)

        assert len(rows(found, "gpu_ops", "op_id")) == 1
        assert rows(found, "collectives", "collective") == [("allreduce",)]


@pytest.mark.parametrize(
    "spelt", ["-5.000", "-0.001", "1.8446744073709551e16", "9e300", "1e400", "4e12", '"long"',
              "18446744073709551615", "NaN", "null"],
)  # fmt: skip
def test_a_duration_that_cannot_be_is_set_aside_and_said(
    tmp_path: Path, shell: Shell, spelt: str
) -> None:
    trace = a_step()
    kernel = next(e for e in trace.events if e.fields.get("cat") == "kernel")  # of 300 µs
    kernel.fields["dur"] = Raw(spelt)

    totals, told = shown(shell, trace.write(tmp_path / "trace.json"))

    assert (totals["kernels"], totals["kernel_time_ns"]) == (8, 1_410_000)
    assert totals["busy_ns"] <= totals["span_ns"] < 3_000_000
    assert re.search(r"\b1 events", told)


@pytest.mark.parametrize("kind", ["cpu_op", "user_annotation", "cuda_runtime"])
def test_a_range_longer_than_the_trace_is_set_aside_and_said(tmp_path: Path, kind: str) -> None:
    trace = a_step()
    whole = work(opened(trace, tmp_path, "whole.json"), trace)
    event = next(e for e in trace.events if e.fields.get("cat") == kind)
    event.fields["dur"] = Raw("3600000000.000")  # an hour

    found = opened(trace, tmp_path)

    assert (whole - work(found, trace)).total() == 1
    assert re.search(r"\b1 events .*longer", damage(found))


@pytest.mark.parametrize("spelt", ["-1.000", "NaN", "null", '"now"', "1e30", "-9e18", "[]"])
def test_a_time_that_is_none_costs_its_event(tmp_path: Path, spelt: str) -> None:
    trace = a_step()
    kernel = next(e for e in trace.events if e.fields.get("cat") == "kernel")
    kernel.fields["ts"] = Raw(spelt)

    of = linked(trace.write(tmp_path / "trace.json"))

    totals = the_row(of, "totals")
    assert (totals["kernels"], totals["kernel_time_ns"]) in ((8, 1_410_000), (9, 1_710_000))
    assert said(of.trace)


def test_a_time_before_the_base_was_written_as_zero_and_that_is_said(
    tmp_path: Path, shell: Shell
) -> None:
    """Kineto writes 0 where a time is some nanoseconds before what it counts from."""
    trace = a_step()
    kernel = next(e for e in trace.events if e.fields.get("cat") == "kernel")
    kernel.fields["ts"] = Raw("0.000")

    _, told = shown(shell, trace.write(tmp_path / "trace.json"))

    assert re.search("days|set aside", told)


def test_a_trace_of_texts_for_times_is_read(tmp_path: Path) -> None:
    trace = a_step()
    whole = story(opened(trace, tmp_path))
    content = re.sub(rb'"(ts|dur)": (-?[\d.]+)', rb'"\1": "\2"', trace.content())

    assert story(read(content, tmp_path)) == whole


def test_ids_that_come_many_times_multiply_nothing(tmp_path: Path) -> None:
    trace = Profile()
    main = trace.thread("python3")
    for number in range(50):
        at = 10_000 * number
        op = main.op(f"op {number}", at, at + 9_000, seq=5, fwd_thread=number % 2)
        op.fields["args"] |= {"External id": 7, "Ev Idx": 1}
        main.kernel(f"k{number}", at=at + 1_000, run=(at + 2_000, at + 3_000), correlation=7)
        trace.flow(op, op)
    for event in trace.events:
        event.fields["id"] = 1

    of = linked(trace.write(tmp_path / "trace.json"))

    assert of.coverage()["gpu_ops"] == 50
    assert len(rows(of.trace, "ranges", "name")) == 50
    assert len(rows(of.trace, "ops", "range_id")) == 50
    forwards(of.trace)


@pytest.mark.parametrize("correlation", [2**32 - 1, 2**32, 2**40, -1, 2**64, 0])
def test_correlations_of_any_size_link_or_are_unlinked(tmp_path: Path, correlation: int) -> None:
    trace = a_step()
    for event in trace.events[-200:]:
        args = event.fields.get("args")
        if isinstance(args, dict) and args.get("correlation") == 1_005:
            args["correlation"] = correlation

    of = linked(trace.write(tmp_path / "trace.json"))

    coverage = of.coverage()
    assert coverage["gpu_ops"] == 10
    assert coverage["unlinked"] + coverage["inferred"] <= 1
    assert the_row(of, "totals")["kernel_time_ns"] == 1_710_000


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("depth", [500, 2_000, 100_000])
@pytest.mark.parametrize("where", ["args", "an argument", "around", "before", "name"])
def test_what_is_nested_deep_costs_its_event_at_most(
    tmp_path: Path, depth: int, where: str
) -> None:
    deep = "[" * depth + "]" * depth
    trace = a_step()
    kernel = next(e for e in trace.events if e.fields.get("cat") == "kernel")
    if where == "args":
        kernel.fields["args"] = Raw('{"a":' * depth + "{}" + "}" * depth)
    elif where == "an argument":
        kernel.fields["args"]["deep"] = Raw(deep)
    elif where == "around":
        trace.after["deep"] = Raw(deep)
    elif where == "before":
        trace.metadata["deep"] = Raw(deep)
    else:
        kernel.fields["name"] = Raw(deep)

    found = read_or_refused(trace.content(), tmp_path)

    if found is None:
        assert depth > 1_000
        return
    kernels = rows(found, "gpu_ops", "kind").count(("kernel",))
    assert kernels in (8, 9)
    assert kernels == 9 or damage(found)


@pytest.mark.parametrize("broken", [True, False])
def test_a_million_arguments_are_read_in_one_go(tmp_path: Path, *, broken: bool) -> None:
    trace = a_step()
    ops = [e for e in trace.events if e.fields.get("cat") == "cpu_op"]
    ops[2].fields["args"]["Input Dims"] = [[8]] * 1_000_000
    ops[3].fields["args"]["Input type"] = ["float"] * 300_000
    ops[4].fields["args"]["more"] = dict.fromkeys(map(str, range(200_000)), "x")
    content = trace.content()

    found = read(REPAIRS["no comma"](content) if broken else content, tmp_path)

    assert len(rows(found, "gpu_ops", "op_id")) >= 9
    assert bool(said(found, "damaged", "lost")) is broken


def test_ten_thousand_names_threads_and_categories_are_read(tmp_path: Path) -> None:
    trace = Profile()
    for number in range(10_000):
        main = trace.thread(f"thread {number}", pid=number % 50 + 100, tid=number)
        main.op(f"op {number}", number, number + 5_000)
        trace.add(f"category {number}", "work", (0, 7), (number, number + 5), None)
    trace.thread("python3").kernel("k", at=0, run=(5_000, 6_000))

    found = opened(trace, tmp_path)

    assert len(rows(found, "ranges", "range_id")) == 10_000
    assert all(len(text) < 1_000 for text in said(found))


# --- Everything else ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_few_of_the_fuzzers_cases(tmp_path: Path, kind: str) -> None:
    """The long run is `python -m tests.readers.kineto.fuzz --cases 10000`."""
    import random

    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = fuzz.KINDS[kind][0](random.Random(f"{kind} {number}"), folder)  # noqa: S311

        assert fuzz.judged(path, kind, every=number == 0).complaints == []

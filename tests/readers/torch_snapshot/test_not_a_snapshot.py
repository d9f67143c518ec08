"""Files that are something else: each gets a sentence that says what it is and what to do."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.readers.torch_snapshot.reading import read, refused, refused_if_at_all, said, written
from tests.snapshots import dump, training
from tracelens.errors import UnreadableError
from tracelens.readers.open import is_recording, open_trace

if TYPE_CHECKING:
    from pathlib import Path

HOW = "torch.cuda.memory._record_memory_history() before the work"


OTHERS: Final[list[tuple[Any, str]]] = [
    ({"epoch": 1, "model": {}}, "a dictionary of epoch, model"),
    ({n: n for n in range(20)}, "a dictionary of int, int, int, int, int, int …"),
    ({}, "an empty dictionary"),
    ([], "an empty list"),
    ([1, 2, 3], "a list of 3 int"),
    ([{"a": 1}], "a list of 1 dict"),
    ("text", "one str"),
    (None, "one NoneType"),
    ((1, 2), "one tuple"),
    (b"bytes", "one bytes"),
    ({1, 2}, "one set"),
]
# Protocol 2 names a class for bytes and sets.
CASES: Final = [
    (content, what, protocol)
    for content, what in OTHERS
    for protocol in (2, 4, 5)
    if protocol > 2 or not isinstance(content, (bytes, set))
]


@pytest.mark.parametrize(("content", "what", "protocol"), CASES)
def test_a_pickle_of_something_else(tmp_path: Path, content: Any, what: str, protocol: int) -> None:
    text = refused(dump(content, tmp_path / "results.pickle", protocol))

    assert text.startswith(f"results.pickle holds {what}: no memory snapshot.")
    assert HOW in text


def test_a_model_checkpoint_of_today(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"weight": 1}, 2))
        archive.writestr("model/data/0", b"\0" * 64)

    assert "model.pt is a checkpoint of a PyTorch model" in refused(path)


def test_a_checkpoint_that_reaches_the_reader(tmp_path: Path) -> None:
    from tracelens.readers.torch_snapshot import READER

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"weight": 1}, 2))
    path = written(packed.getvalue(), tmp_path, "model.pt")

    assert READER.recognises(path, packed.getvalue()[:4096])
    with pytest.raises(UnreadableError, match=r"model.pt is a model checkpoint .*" + HOW[:20]):
        READER.read(path)


def test_a_model_checkpoint_of_old(tmp_path: Path) -> None:
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    state = pickle.dumps(OrderedDict(weight=1), 2)
    path = written(magic + pickle.dumps(1001, 2) + state, tmp_path, "model.pth")

    assert refused(path).startswith("model.pth is a model checkpoint (torch.save), no recording.")


def test_the_pickle_inside_of_a_checkpoint(tmp_path: Path) -> None:
    content = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00)R."

    text = refused(written(content, tmp_path, "data.pkl"))

    assert "names torch._utils._rebuild_tensor_v2, as a model checkpoint does" in text
    assert "not executed" in text


def test_arrays_of_numpy(tmp_path: Path) -> None:
    content = b"\x80\x04cnumpy.core.multiarray\nscalar\n)R."

    assert "names numpy.core.multiarray.scalar" in refused(written(content, tmp_path))


@pytest.mark.parametrize(
    "page",
    [
        b"\n<!DOCTYPE html>\n<html><body><script type='module'>const local_files = []</script>",
        b"<html><head><title>GPU Memory Timeline HTML</title></head></html>",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_web_page(tmp_path: Path, page: bytes, packed: bool) -> None:
    path = written(gzip.compress(page) if packed else page, tmp_path, "snapshot.html")

    text = refused(path)

    assert "is a web page" in text
    assert "the .pickle file itself" in text


@pytest.mark.parametrize("protocol", range(6))
def test_a_truncated_pickle(tmp_path: Path, protocol: int) -> None:
    whole = pickle.dumps(training(steps=30).content(), protocol)
    for length in (len(whole) - 1, len(whole) // 2, 200):
        path = written(whole[:length], tmp_path)

        assert "snapshot.pickle is " in refused(path)
        assert "Copy or record it again." in refused(path)


def test_a_truncated_packed_pickle(tmp_path: Path) -> None:
    packed = gzip.compress(pickle.dumps(training(steps=30).content(), 4), mtime=0)
    path = written(packed[: len(packed) // 2], tmp_path, "run.pickle.gz")

    assert "run.pickle is cut off" in refused(path)


@pytest.mark.parametrize("between", [b"", b"\0\0", b"\n"])
def test_two_pickles_in_one_file(tmp_path: Path, between: bytes) -> None:
    one = pickle.dumps(training().content(), 4)

    text = refused(written(one + between + one, tmp_path))

    assert "holds two pickles, one after the other" in text


def test_something_else_after_the_pickle(tmp_path: Path) -> None:
    path = written(pickle.dumps(training().content(), 4) + b"\0\0and so on", tmp_path)

    trace = open_trace(path, cache=False)

    assert "9 bytes after the end of the snapshot were not read" in said(trace, "damaged")


def test_truncated_json(tmp_path: Path) -> None:
    whole = json.dumps(training().content())

    text = refused(written(whole[: len(whole) // 2].encode(), tmp_path, "snapshot.json"))

    assert "is damaged JSON" in text


def test_an_empty_pickle(tmp_path: Path) -> None:
    assert "is empty" in refused(written(b"", tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"hello world\n", b"cat and dog\n", b"\x80", b"\x80\x09.", b"PK\x05\x06", b"x" * 5000],
)
def test_no_known_format(tmp_path: Path, content: bytes) -> None:
    assert "in no format that tracelens knows" in refused(written(content, tmp_path))


def test_damage_is_a_sentence_wherever_it_is(tmp_path: Path) -> None:
    whole = bytearray(pickle.dumps(training().content(), 4))
    for place in range(2, 400, 13):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path = written(bytes(damaged), tmp_path)
        assert "\n" not in (refused_if_at_all(path) or "")


def test_only_pickles_of_known_protocols_are_asked_for(tmp_path: Path) -> None:
    for protocol in range(6):
        path = training().write(tmp_path / f"{protocol}", protocol)
        assert is_recording(path), protocol
    path = written(struct.pack("<I", 0xFEEDFACE), tmp_path)
    assert not is_recording(path)


def test_other_pickles_in_a_folder_are_no_recordings(tmp_path: Path) -> None:
    page = written(b"<html>segments</html>", tmp_path, "snapshot.html")
    results = dump({"loss": [1.0]}, tmp_path / "results.pkl")
    code = written(b"cos\nsystem\n(S'true'\ntR.", tmp_path, "code.pkl")

    assert not any(is_recording(path) for path in (page, results, code))


@pytest.mark.parametrize("text", ["cat\ndog\n", "d\n", "l\n", "concatenate\nnumpy\n"])
def test_text_is_no_pickle_without_a_protocol(tmp_path: Path, text: str) -> None:
    assert "in no format that tracelens knows" in refused(written(text.encode(), tmp_path))


def test_a_damaged_copy_is_not_remembered(tmp_path: Path) -> None:
    path = written(pickle.dumps(training().content(), 4)[:-5], tmp_path)
    refused(path)
    training().write(path)

    assert "memory" in open_trace(path)


def test_a_folder_is_no_snapshot(tmp_path: Path) -> None:
    from tracelens.readers.torch_snapshot import READER

    assert not READER.recognises(tmp_path, b"")


def test_a_file_is_read_by_its_content_not_by_its_name(tmp_path: Path) -> None:
    content = training().content()

    assert read(content, tmp_path).source.format == "torch-snapshot"
    assert "memory" in open_trace(dump(content, tmp_path / "run.sqlite"), cache=False)

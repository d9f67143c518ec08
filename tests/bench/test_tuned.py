"""Which configuration a kernel gets: forced, yours, shipped, or its default, and never an error."""

from __future__ import annotations

import functools
import json
import sys
import threading
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracelens import registry, tuned
from tracelens.errors import CaptureError, UnreadableError
from tracelens.registry import Entry as Listed
from tracelens.tuned import Circumstances, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

H200 = Circumstances("NVIDIA H200", "9.0", "3.6.0")
DEFAULT = {"BLOCK": 64, "num_warps": 4}
BEST = {"BLOCK": 128, "num_warps": 8}
KEY = "columns=8192 bf16"
SOURCE = '"""Made up."""\nimport made_up_kernels._shared\nTILE = 1\nKERNEL = 1\n'


@pytest.fixture(autouse=True)
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the folder of a made-up distribution with one kernel, on a made-up H200."""
    package = tmp_path / "made_up_kernels"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "_shared.py").write_text("def tile():\n    return 1\n", encoding="utf-8")
    (package / "made_up.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    listed = {"made_up": Listed("made_up", "made_up_kernels.made_up", "Made up.", "KERNEL")}
    monkeypatch.setattr(registry, "entries", lambda _kind: listed)
    monkeypatch.setattr(tuned, "_current", lambda: 0)
    monkeypatch.setattr(tuned, "_here", functools.cache(lambda _number: H200))
    monkeypatch.setattr(tuned, "shipped", lambda _gpu: package / "tuned" / "h200.json")
    tuned.forget()
    yield package
    tuned.forget()
    for name in [name for name in sys.modules if name.startswith("made_up_kernels")]:
        del sys.modules[name]


def entry(**changed: Any) -> Entry:
    made = Entry(
        kernel="made_up",
        operation="forward",
        key=KEY,
        config=BEST,
        default=DEFAULT,
        median_s=1e-5,
        default_median_s=2e-5,
        gpu=H200.gpu,
        capability=H200.capability,
        triton=H200.triton,
        source=tuned.source_of("made_up"),
    )
    return replace(made, **changed)


def own() -> Path:
    return tuned.place(H200.gpu)


def chosen() -> tuple[Any, list[str]]:
    """Return what a kernel gets, and what is said; asked twice, since it is said once."""
    tuned.forget()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        first = tuned.chosen("made_up", "forward", KEY, DEFAULT)
        second = tuned.chosen("made_up", "forward", KEY, DEFAULT)
    assert first == second
    return first, [str(one.message) for one in said]


def test_what_was_tuned_on_this_gpu_is_taken() -> None:
    tuned.save(entry(), own())

    assert chosen() == (BEST, [])
    assert tuned.chosen("made_up", "backward", KEY, DEFAULT) == DEFAULT
    assert tuned.chosen("made_up", "forward", "columns=1 bf16", DEFAULT) == DEFAULT


def test_yours_comes_before_what_is_shipped(kernels: Path) -> None:
    shipped = {"BLOCK": 32, "num_warps": 2}
    tuned.save(entry(config=shipped), kernels / "tuned" / "h200.json")

    assert chosen() == (shipped, [])

    tuned.save(entry(), own())

    assert chosen() == (BEST, [])


def test_what_is_forced_comes_first_and_ends_with_its_block() -> None:
    tuned.save(entry(), own())
    other = {"BLOCK": 16, "num_warps": 1}

    with tuned.forced("made_up", "forward", other):
        assert tuned.chosen("made_up", "forward", KEY, DEFAULT) == other
        with tuned.forced("made_up", "forward", None):
            assert tuned.chosen("made_up", "forward", KEY, DEFAULT) == DEFAULT
        assert tuned.chosen("made_up", "backward", KEY, DEFAULT) == DEFAULT
    assert tuned.chosen("made_up", "forward", KEY, DEFAULT) == BEST


def test_what_is_forced_is_forced_in_the_threads_of_autograd_too() -> None:
    seen: list[Any] = []

    with tuned.forced("made_up", "backward", BEST):
        other = threading.Thread(
            target=lambda: seen.append(tuned.chosen("made_up", "backward", KEY, DEFAULT))
        )
        other.start()
        other.join()

    assert seen == [BEST]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"gpu": "NVIDIA A100"}, "GPU NVIDIA A100, and this is NVIDIA H200"),
        ({"capability": "8.0"}, "compute capability 8.0, and this is 9.0"),
        ({"triton": "3.9.0"}, "triton 3.9.0, and this is 3.6.0"),
        ({"source": "0"}, "before its source changed"),
        (
            {"config": {"BLOCK": 1, "num_warps": 4, "x": 1}, "default": {"BLOCK": 1, "x": 1}},
            "makes no sense",
        ),
        ({"config": {"TILE": 1}, "default": {"TILE": 1}}, "not one that it could be compiled with"),
    ],
)
def test_what_was_tuned_for_something_else_is_refused_with_one_warning(
    changed: dict[str, Any], says: str
) -> None:
    tuned.save(entry(**changed), own())

    config, said = chosen()

    assert config == DEFAULT
    assert len(said) == 1
    assert says in said[0]
    assert str(own()) in said[0]


def test_a_stale_one_of_yours_leaves_the_shipped_one(kernels: Path) -> None:
    tuned.save(entry(triton="3.5.0"), own())
    tuned.save(entry(), kernels / "tuned" / "h200.json")

    config, said = chosen()

    assert config == BEST
    assert len(said) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"kind": "ceilings", "schema": 1}',
        b'{"kind": "tuned", "schema": 2, "entries": []}',
        b'{"kind": "tuned", "schema": 1, "entries": 7}',
        b'{"kind": "tuned", "schema": 1, "entries": [{"kernel": "made_up"}]}',
    ],
)
def test_a_damaged_file_costs_a_warning_and_is_not_written_over(content: bytes) -> None:
    own().parent.mkdir(parents=True)
    own().write_bytes(content)

    config, said = chosen()

    assert config == DEFAULT
    assert len(said) == 1
    if b"made_up" in content:
        return  # one entry is: the file itself is whole
    with pytest.raises(UnreadableError, match="no file of tuned configurations"):
        tuned.save(entry(), own())
    assert own().read_bytes() == content


@pytest.mark.parametrize(
    "config",
    [
        {"BLOCK": "128", "num_warps": 4},
        {"BLOCK": -1, "num_warps": 4},
        {"BLOCK": 2**40, "num_warps": 4},
        {"BLOCK": 1.5, "num_warps": 4},
        {"BLOCK": True, "num_warps": 4},
        {"BLOCK": None, "num_warps": 4},
        {"BLOCK": 64, "num_warps": 3},
        {"BLOCK": 64},
        {"BLOCK": 64, "num_warps": 4, "__import__('os')": 1},
        [64, 4],
        "BLOCK",
    ],
)
def test_hostile_values_are_passed_over_and_others_hold(config: Any) -> None:
    tuned.save(entry(), own())
    tuned.save(entry(operation="backward"), own())
    told = json.loads(own().read_text(encoding="utf-8"))
    told["entries"][1]["config"] = config
    own().write_text(json.dumps(told), encoding="utf-8")

    got, said = chosen()

    assert got == DEFAULT
    assert len(said) == 1
    assert tuned.chosen("made_up", "backward", KEY, DEFAULT) == BEST


@given(cut=st.floats(0, 1, exclude_max=True), flipped=st.integers(0, 255))
def test_no_file_keeps_a_kernel_from_running(cut: float, flipped: int) -> None:
    if own().exists():
        own().unlink()
    tuned.save(entry(), own())
    whole = own().read_bytes()
    at = int(cut * len(whole))
    for content in (whole[:at], whole[:at] + bytes([flipped]) + whole[at + 1 :]):
        own().write_bytes(content)

        config, _ = chosen()

        assert config == DEFAULT or tuned.is_valid(config, DEFAULT)


def test_a_folder_in_its_place_or_no_right_to_read_it_is_a_warning() -> None:
    own().mkdir(parents=True)

    config, said = chosen()

    assert config == DEFAULT
    assert "cannot be read" in said[0]


def test_warnings_that_are_errors_keep_no_kernel_from_running() -> None:
    own().parent.mkdir(parents=True)
    own().write_bytes(b"{")
    tuned.forget()

    assert tuned.chosen("made_up", "forward", KEY, DEFAULT) == DEFAULT  # pytest makes them errors


def test_what_goes_wrong_in_looking_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    @functools.cache
    def fails(_number: int) -> Circumstances:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(tuned, "_here", fails)
    with pytest.warns(RuntimeWarning, match="illegal memory access"):
        assert tuned.chosen("made_up", "forward", KEY, DEFAULT) == DEFAULT


def test_a_variable_names_another_file_or_turns_them_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned.save(entry(), own())
    tuned.save(entry(config={"BLOCK": 16, "num_warps": 1}), tmp_path / "mine.json")

    monkeypatch.setenv(tuned.FILE, str(tmp_path / "mine.json"))
    assert chosen() == ({"BLOCK": 16, "num_warps": 1}, [])

    monkeypatch.setenv(tuned.FILE, "off")
    assert chosen() == (DEFAULT, [])


def test_without_a_gpu_there_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned.save(entry(), own())
    monkeypatch.setattr(tuned, "_current", lambda: -1)

    assert chosen() == (DEFAULT, [])
    assert tuned.chosen("made_up", "forward", KEY, DEFAULT, device=0) == BEST


def test_an_entry_takes_the_place_of_its_own_kind_alone() -> None:
    tuned.save(entry(), own())
    tuned.save(entry(operation="backward"), own())
    tuned.save(entry(config=DEFAULT, triton="3.7.0"), own())

    store = tuned.load(own())

    assert [(one.operation, one.triton) for one in store.entries] == [
        ("backward", "3.6.0"),
        ("forward", "3.7.0"),
    ]
    assert not [file for file in own().parent.iterdir() if file != own()]


def test_a_file_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(CaptureError, match="cannot be written"):
        tuned.save(entry(), tmp_path / "file" / "tuned.json")


def test_comments_and_docstrings_are_no_change_of_a_kernel_and_code_is(kernels: Path) -> None:
    file, shared = kernels / "made_up.py", kernels / "_shared.py"
    tuned.save(entry(), own())

    file.write_text(SOURCE.replace("Made up.", "Made   up") + "# more\n\n", encoding="utf-8")
    assert chosen() == (BEST, [])

    shared.write_text("def tile():\n    return 2\n", encoding="utf-8")
    assert chosen()[0] == DEFAULT

    shared.write_text("def tile():\n    return 1\n", encoding="utf-8")
    assert chosen() == (BEST, [])

    file.write_text(SOURCE.replace("KERNEL = 1", "KERNEL = 2"), encoding="utf-8")
    assert chosen() == (BEST, [])  # what the bench is told of it

    file.write_text(SOURCE.replace("TILE = 1", "TILE = 2"), encoding="utf-8")
    assert chosen()[0] == DEFAULT


def test_a_source_is_the_same_in_every_python(kernels: Path) -> None:
    """Python's own trees differ from version to version: in f-strings, parameters, and more."""
    source = (
        '@jit\ndef f(x, N: int = 2, *, y="a" "b"):\n    """Docstring."""\n'
        "    z: list[int] = [i for i in range(N) if i]\n"
        '    return f"{x:<{N}}{y!r:>4} {z[0]}"\n'
    )
    (kernels / "made_up.py").write_text(source, encoding="utf-8")
    tuned.forget()

    assert tuned.source_of("made_up") == "5ca6a4a13644dea0b7c02a38d4a90108"

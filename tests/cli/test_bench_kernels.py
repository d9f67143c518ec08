"""`tracelens bench KERNEL`: what is typed, measured from end to end, printed and gone on with."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.asking import Shell
from tracelens import registry
from tracelens.bench import results, sweep
from tracelens.bench.cell import QUANTITIES, STATES

if TYPE_CHECKING:
    from collections.abc import Iterator

KERNEL = '''
"""Doubles, in several ways."""
import os
from tracelens.kernel import Implementation, Kernel, Operation
from tracelens.workload import Work


def inputs(shape, dtype, device, seed):
    import torch
    draw = torch.Generator(device).manual_seed(seed)
    return {"x": torch.rand(shape["n"], generator=draw, device=device)}


def by(how):
    return lambda given, shape: lambda: {"y": how(given["x"])}


def dies(x):
    os.abort()


def large(x):
    import torch
    return torch.empty(1 << 60)


KERNEL = Kernel(
    axes={"n": None, "times": 2},
    shapes=({"n": 1000}, {"n": 77}),
    dtypes=("fp32", "fp16"),
    operations={
        "forward": Operation(
            work=lambda shape, dtype: Work("double", shape["n"], 8 * shape["n"], "fp32", False),
            inputs=inputs,
            reference=lambda given, shape: {"y": given["x"].double() * 2},
            implementations={
                "tracelens": Implementation("x + x", by(lambda x: x + x)),
                "eager": Implementation("x * 2", by(lambda x: x * 2)),
                "wrong": Implementation("x * 3", by(lambda x: x * 3)),
                "dies": Implementation("ends the process", by(dies)),
                "large": Implementation("takes too much memory", by(large)),
                "never": Implementation("cannot", by(dies), lambda shape, dtype: "not here"),
            },
        ),
        "again": Operation(
            work=lambda shape, dtype: Work("double", shape["n"], 8 * shape["n"], "fp32", False),
            inputs=inputs,
            reference=lambda given, shape: {"y": given["x"].double() * 2},
            implementations={"tracelens": Implementation("x + x", by(lambda x: x + x))},
        ),
    },
    function=lambda: None,
)
'''
BROKEN = '"""Cannot be imported."""\nimport no_such_library\nKERNEL = 1\n'


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    """Give a shell in an empty folder, and two kernels of another distribution."""
    others = tmp_path / "others"
    told = others / "made_up-1.0.dist-info"
    told.mkdir(parents=True)
    (others / "made_up_double.py").write_text(KERNEL, encoding="utf-8")
    (others / "made_up_broken.py").write_text(BROKEN, encoding="utf-8")
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(
        "[tracelens.kernel]\nmade_up_double = made_up_double:KERNEL\n"
        "made_up_broken = made_up_broken:KERNEL\n"
    )
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (others, root, root / "kernels"))))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.syspath_prepend(str(others))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    _forget()
    yield Shell(capsys)
    monkeypatch.undo()
    _forget()
    for name in ("made_up_double", "made_up_broken"):
        sys.modules.pop(name, None)


def _forget() -> None:
    registry.entries.cache_clear()
    registry._entry_points.cache_clear()


def test_all_that_may_happen_to_an_implementation_in_one_sweep(shell: Shell) -> None:
    said = shell(
        "bench", "made-up-double", "--device", "cpu", "--shapes", "1000", "--quick",
        "--budget", "0.05", "-o", "r.json", "-f", "json",
    )  # fmt: skip

    assert said.status == 4  # not all that was asked for could be measured
    tables = said.json["tables"]
    for row in tables["matrix"]:
        assert {name: row[f"is_{name}"].partition(":")[0] for name in
                ("tracelens", "eager", "wrong", "dies", "large", "never")} == {
            "tracelens": "ok", "eager": "ok", "wrong": "failed", "dies": "failed",
            "large": "failed", "never": "cannot",
        }  # fmt: skip
    assert [(one["implementation"], one["error"]) for one in tables["failures"]] == [
        ("never", "–"),
        ("wrong", "WrongError"),
        ("large", "RuntimeError"),
        ("dies", "SIGABRT"),
    ]
    rows = tables["bench"]
    assert [(one["size"], one["implementation"]) for one in rows] == [
        ("1000x2", "tracelens"),
        ("1000x2", "eager"),
    ]
    assert rows[1]["ratio"] > 0
    assert rows[0]["error"] != "–"
    found = results.load(Path("r.json"))
    assert found.waiting == ()
    assert found.environment["versions"]["torch"]
    assert any("say nothing about a GPU" in text for text in said.json["warnings"])
    (again, *_) = [one.command for one in found.failed if one.implementation == "wrong"]
    assert "made-up-double --operation forward --shapes n=1000,times=2 --dtype fp32" in again

    more = shell("bench", "--resume", "r.json")
    assert more.status == 4
    assert "r.json lacks nothing" in more.err
    assert shell("bench", "--show", "r.json", "-f", "csv").out.count("\r\n") == 3
    for name in ("matrix", "failures"):
        shown = shell("bench", "--show", "r.json", "-f", "csv", "--table", name)
        assert shown.out.startswith("kernel,operation,dtype,size,"), shown.err


def test_what_was_not_measured_is_by_resume(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr(sweep, "run", lambda found, _say, _limit: iter([found]))
        shell(
            "bench", "made-up-double", "--device", "cpu", "--quick", "--budget", "0.05",
            "--operation", "again", "--shapes", "77", "--quantity", "all", "--l2", "all",
            "-o", "r.json",
        )  # fmt: skip

    shown = shell("bench", "--show", "r.json")
    said = shell("bench", "--resume", "r.json")

    told = " ".join(shown.out.split())
    assert "1 of 1 cells were not measured: tracelens bench --resume r.json goes on." in told
    assert said.status == 0, said.err
    found = results.load(Path("r.json"))
    assert {(row.quantity, row.l2) for row in found.rows} == {
        (quantity, l2) for quantity in QUANTITIES for l2 in STATES
    }
    assert found.done == (0,)


def test_results_are_kept_in_runs_where_nobody_says(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "run", lambda found, _say, _limit: iter([found]))

    said = shell("bench", "made-up-double", "--device", "cpu")

    (file,) = Path("runs").iterdir()
    assert file.name.startswith("bench-made-up-double-")
    assert f"Results: {file}" in said.err
    assert results.load(file).command[:2] == ("tracelens", *sys.argv[1:2])[:2]


def test_an_interrupt_shows_what_there_is_and_how_to_go_on(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(found: results.Results, *_: Any) -> Iterator[results.Results]:
        yield found
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run", interrupted)

    said = shell("bench", "made-up-double", "--device", "cpu", "-o", "r.json")

    assert said.status == 130
    assert "Stopped. To go on: tracelens bench --resume r.json" in said.err
    assert len(results.load(Path("r.json")).waiting) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["made-up-doubl"], "Did you mean made-up-double?"),
        (["made-up-double", "--dtype", "fp31"], "There is no number format named 'fp31'. Did you"),
        (["made-up-double", "--baseline", "eagre"], "Did you mean eager?"),
        (["made-up-double", "--operation", "forwards"], "Did you mean forward?"),
        (["made-up-double", "--quantity", "kernel-time"], "Did you mean kernel_time?"),
        (["made-up-double", "--l2", "warm"], "Known: cold, hot."),
        (["made-up-double", "--shapes", "8x8x8"], "there are 2 axes: nxtimes"),
        (["made-up-double", "--shapes", "m=8"], "There is no axis named 'm'"),
        (["made-up-double", "--shapes", "times=8"], "A shape needs n"),
        (["made-up-double", "--device", "gpu"], "write auto, cpu, or the number of a GPU"),
        (["made-up-double", "--ranks", "2"], "--ranks is for ceilings"),
        (["made-up-double", "ceilings"], "Ceilings are measured by themselves"),
        (["made-up-double", "--resume", "r.json"], "name nothing else"),
        (["--resume", "r.json", "--retry-failed", "r.json"], "name nothing else"),
        (["made-up-double", "--tune", "--baseline", "eager"], "leave --baseline out"),
        (["made-up-double", "--tune", "--device", "cpu"], "--tune needs a GPU"),
        (["made-up-double", "--tune"], "nothing to tune"),
        (["made-up-double", "-o", "no/such/folder/r.json"], "There is no folder"),
        (["made-up-double", "--precision", "0"], "--precision"),
        (["made-up-double", "-f", "yaml"], "yaml"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_measured(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    def measured(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(sweep, "measured", measured)

    said = shell("bench", *arguments)

    assert said.status == 2, said.err
    assert says in said.err


def test_a_kernel_that_cannot_be_loaded_says_what_is_missing(shell: Shell) -> None:
    said = shell("bench", "made-up-broken", "--device", "cpu")

    assert said.status == 4
    assert "made_up_broken needs no_such_library, which is not installed" in said.err


def test_without_torch_it_says_how_to_get_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "triton" else find(name)
    )

    said = shell("bench", "made-up-double")

    assert said.status == 4
    assert "needs triton: pip install 'tracelens-gpu[kernels]'" in said.err


def test_without_a_gpu_it_says_what_can_be_done(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    said = shell("bench", "made-up-double", "-o", "r.json")

    assert said.status == 4
    assert "torch sees no GPU here. --device cpu measures on the processor" in said.err


def test_a_file_that_is_there_is_kept_unless_forced(shell: Shell) -> None:
    Path("r.json").write_text("precious", encoding="utf-8")

    said = shell("bench", "made-up-double", "--device", "cpu", "-o", "r.json")

    assert said.status == 2
    assert "r.json exists already; --force overwrites it." in said.err
    assert Path("r.json").read_text(encoding="utf-8") == "precious"


def test_what_there_is_to_measure_is_listed(shell: Shell) -> None:
    alone, detail = shell("bench"), shell("bench", "made-up-double", "--list")

    assert alone.status == detail.status == 0
    assert "ceilings" in alone.out
    assert "made-up-double  " in alone.out
    assert "  shape       nxtimes" in detail.out
    assert "beside eager, wrong, dies, large, never" in detail.out
    assert "    n=77,times=2" in detail.out
    assert "made-up-double" in shell("list", "kernels").out


def test_the_shell_completes_names_of_kernels(shell: Shell) -> None:
    from click.shell_completion import ShellComplete

    from tracelens.__main__ import tracelens

    completing = ShellComplete(tracelens, {}, "tracelens", "_TRACELENS_COMPLETE")
    found = [item.value for item in completing.get_completions(["bench"], "made-")]
    every = [item.value for item in completing.get_completions(["bench"], "")]

    assert found == ["made-up-broken", "made-up-double"]
    assert {"all", "ceilings"} <= set(every)

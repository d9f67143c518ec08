"""The report on targets, and the command that shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.asking import Shell
from tests.targets.story import BOTH, H100, loaded, one, row, written
from tracelens import registry, targets
from tracelens.render import Options

if TYPE_CHECKING:
    from tracelens.render import Renderer

ROOT = Path(__file__).parents[2]
HOSTILE = "<img src=x onerror=alert(1)>|`$\\input{x}$`=1+1\x1b[31m"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell."""
    return Shell(capsys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a file of two targets."""
    return loaded(tmp_path, BOTH).path


def test_the_headline_counts_and_grades(shell: Shell, tmp_path: Path, file: Path) -> None:
    results = written(
        tmp_path,
        row(12, config={"kernel": "attention"}, low=11.9, high=12.1),
        row(360, "TFLOP/s", "flops_per_s", config={"kernel": "moe"}),
    )
    said = shell("grade", results, "--targets", file)

    assert said.status == 0
    assert said.out.startswith("targets.toml · grade B · 2 of 2 met\n")
    assert "12.0 ms ± 0.8 %" in said.out
    assert "H100 SXM" in said.out


def test_json_holds_numbers_and_verdicts(shell: Shell, tmp_path: Path, file: Path) -> None:
    results = written(tmp_path, row(20, config={"kernel": "attention"}))
    said = shell("grade", results, "--targets", file, "--format", "json").json
    attention, experts = said["tables"]["targets"]

    assert said["source"]["grade"] is None
    assert attention["verdict"] == "fail"
    assert (attention["value"], attention["unit"], attention["reference_value"]) == (2e7, "ns", 1e7)
    assert attention["of_reference"] == 0.5
    assert (attention["letter"], attention["gpu"], attention["run"]) == ("D", H100, "ours")
    assert (experts["verdict"], experts["value"], experts["letter"]) == ("not measured", None, None)
    assert [g["letter"] for g in said["tables"]["grades"]] == ["D", None]


@pytest.mark.parametrize(("ms", "status"), [(5, 0), (20, 1)])
def test_the_gate_exits_with_1_where_a_target_failed(
    shell: Shell, tmp_path: Path, file: Path, ms: float, status: int
) -> None:
    results = written(tmp_path, row(ms, config={"kernel": "attention"}))

    assert shell("grade", results, "--targets", file).status == 0
    assert shell("grade", results, "--targets", file, "--gate").status == status


def test_without_a_path_the_targets_are_held_against_the_hardware(
    shell: Shell, tmp_path: Path
) -> None:
    cost = '{ flops = 1e12, dtype = "fp16" }'
    file = loaded(tmp_path, one(passing='"< 0.5 ms"', gpu='"H200"', cost=cost)).path
    said = shell("grade", "--targets", file)

    assert said.status == 0
    assert "impossible target" in said.out
    assert "1.00 TFLOP of fp16 matrix products" in " ".join(said.out.split())


def test_what_fits_no_target_says_what_there_is(shell: Shell, tmp_path: Path, file: Path) -> None:
    results = written(tmp_path, row(5, name="something", config={"kernel": "softmax"}))
    said = shell("grade", results, "--targets", file)

    assert said.status == 4
    assert "something on NVIDIA H100" in said.err


@pytest.mark.parametrize(
    ("targets_text", "status", "says"),
    [("[[target]]", 3, "is no file of targets"), (None, 3, "cannot be read")],
)
def test_wrong_input_is_an_error(
    shell: Shell, tmp_path: Path, targets_text: str | None, status: int, says: str
) -> None:
    file = tmp_path / "targets.toml"
    if targets_text is not None:
        file.write_text(targets_text, encoding="utf-8")
    said = shell("grade", written(tmp_path, row(5)), "--targets", file)

    assert (said.status, said.out) == (status, "")
    assert says in said.err
    assert shell("grade").status == 2


def test_the_targets_are_not_overwritten(shell: Shell, tmp_path: Path, file: Path) -> None:
    results = written(tmp_path, row(5, config={"kernel": "attention"}))

    assert shell("grade", results, "--targets", file, "-o", file, "--force").status == 2
    out = tmp_path / "grades.md"
    assert shell("grade", results, "--targets", file, "-o", out, "-f", "markdown").status == 0
    assert "attention" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", registry.names("renderer"))
def test_hostile_names_are_inert_in_every_format(tmp_path: Path, name: str) -> None:
    text = one(passing='"< 5 ms"', note=json.dumps("note")).replace('"it"', json.dumps(HOSTILE))
    asked = loaded(tmp_path, text)
    runs = targets.measured([written(tmp_path, row(4, name=HOSTILE), gpu=HOSTILE)])
    renderer: Renderer = registry.load("renderer", name)
    shown = renderer.render([targets.report(asked, runs)], Options(top=None, width=200))

    if name == "csv":  # holds names as they are
        assert not any(line.startswith("=") for line in shown.splitlines())
        return
    assert "\x1b" not in shown
    if name == "html":
        assert "<img" not in shown
    if name == "markdown":
        assert "<img" not in re.sub(r"(`+).*?[^`]\1(?!`)", "", shown).replace("\\<img", "")
    if name == "latex":
        assert "\\input{" not in shown.replace("\\textbackslash{}input", "")


def test_the_pages_examples_are_what_is_printed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "commands" / "grade.md").read_text(encoding="utf-8")
    blocks = [
        block.split("\n```", 1)[0] for block in page.split("```console\n$ tracelens grade ")[1:]
    ]

    assert blocks
    for block in blocks:
        command, _, output = block.partition("\n")
        if not output:
            continue
        printed = shell("grade", *command.split()).out.splitlines()
        quoted = [line for line in output.splitlines() if line.strip() != "…"]
        assert [line for line in quoted if line not in printed] == []

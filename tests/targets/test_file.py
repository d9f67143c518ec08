"""Files of targets: what they may say, and what is wrong with those that say something else."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tests.targets.story import BOTH, LADDER, loaded, one
from tracelens import targets
from tracelens.errors import UnreadableError

EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "targets").glob("*.toml"))


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    by_toml = loaded(tmp_path, BOTH)
    file = tmp_path / "targets.json"
    file.write_text(json.dumps(tomllib.loads(BOTH)), encoding="utf-8")
    by_json = targets.load(file)

    assert by_json.targets == by_toml.targets
    assert by_json.ladder == by_toml.ladder
    assert [one.name for one in by_toml.targets] == ["attention", "experts"]
    assert [one.lower for one in by_toml.targets] == [True, False]


def test_a_workload_tells_what_its_work_takes(tmp_path: Path) -> None:
    cost = '{ workload = "matmul", options = { m = 64, n = 32, k = 16, repeats = 3 } }'
    (target,) = loaded(tmp_path, one(passing='"< 1 ms"', cost=cost)).targets

    assert target.needs is not None
    assert sum(part.flops for part in target.needs.parts) == 3 * 2 * 64 * 32 * 16
    assert target.needs.by == "by the formulas of matmul"


WRONG = {
    "nothing in it": ("", "at `$`|required field `target`"),
    "no target": ("target = []", "holds no target"),
    "not TOML": ("[[target", "Expected|expected"),
    "an unknown key": (one(passing='"< 1 ms"', threshold='"< 2 ms"'), "threshold"),
    "a newer schema": ("schema = 9\n" + one(passing='"< 1 ms"'), "schema 9"),
    "no threshold": (one(), "neither pass nor reference"),
    "a misspelt metric": (one(metric='"latencyy"', passing='"< 1 ms"'), "did you mean latency"),
    "a unit of another metric": (one(passing='"< 5 GB/s"'), "is no latency"),
    "the wrong way": (one(passing='"> 5 ms"'), "of latency lower is better"),
    "excellent is worse": (one(passing='"< 5 ms"', excellent='"< 6 ms"'), "from excellent by pass"),
    "warn is better": (one(passing='"< 5 ms"', warn='"< 4 ms"'), "from excellent by pass"),
    "warn alone": (one(warn='"< 5 ms"'), "warn, and no pass"),
    "no reference": (one(passing='"> 60 % of reference"'), "there is no reference"),
    "an empty reference": (one(passing='"< 5 ms"', reference="{}"), "a value, or a run"),
    "two references": (
        one(passing='"< 5 ms"', reference='{ value = "1 ms", run = "a" }'),
        "a value, or a run",
    ),
    "a reference of nothing": (one(reference='"0 ms"'), "not above zero"),
    "no direction": (one(metric='"loss"', reference='"3"'), "which way loss is better"),
    "a phase of a time": (one(passing='"< 5 ms"', phase='"forward"'), "phase and family"),
    "an unknown workload": (
        one(passing='"< 5 ms"', cost='{ workload = "attentionn" }'),
        "no workload named",
    ),
    "an unknown option": (
        one(passing='"< 5 ms"', cost='{ workload = "matmul", options = { q = 1 } }'),
        "no option named",
    ),
    "a workload and FLOPs": (
        one(passing='"< 5 ms"', cost='{ workload = "matmul", flops = 1 }'),
        "has a workload",
    ),
    "no cost": (one(passing='"< 5 ms"', cost="{ }"), "flops or bytes above zero"),
    "an unknown dtype": (one(passing='"< 5 ms"', cost='{ flops = 1, dtype = "fp17" }'), "fp17"),
    "the same name": (one(passing='"< 5 ms"') + "\n" + one(passing='"< 6 ms"'), "two targets"),
    "grades upside down": (
        LADDER.replace('A = "> 80 %"', 'A = "> 30 %"') + BOTH.partition("\n\n")[2],
        "go from the highest",
    ),
    "grades below": (
        LADDER.replace('A = "> 80 %"', 'A = "< 80 %"') + BOTH.partition("\n\n")[2],
        "write the least share",
    ),
    "grades of nobody": (LADDER + one(passing='"< 5 ms"'), "no target has that group"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, what: str) -> None:
    text, why = WRONG[what]

    with pytest.raises(UnreadableError, match=why) as raised:
        loaded(tmp_path, text)
    assert str(raised.value).startswith("targets.toml is no file of targets: ")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="No such file"):
        targets.load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableError, match="is no file of targets"):
        targets.load(tmp_path / "bytes.toml")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_examples_are_read(file: Path) -> None:
    assert targets.load(file).targets


def test_there_is_an_example() -> None:
    assert EXAMPLES

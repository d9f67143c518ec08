"""Files of targets and rows that nobody meant well with."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.targets.story import loaded, one, row, written
from tracelens import registry, targets
from tracelens.errors import UnreadableError
from tracelens.render import Options

texts = st.text(max_size=8)
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


UNITS = {"latency": "ms", "bytes_per_s": "GB/s", "mfu": "%", "error": ""}


def targets_of(metric: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return targets of a metric that agree with themselves."""
    unit = UNITS[metric]
    lower = metric in ("latency", "error")
    own = f"{'<' if lower else '>'} 2 {unit}"
    better = f"{'<' if lower else '>'} {1 if lower else 3} {unit}"
    return st.fixed_dictionaries(
        {
            "metric": st.just(metric),
            "pass": st.just(own),
            "reference": st.sampled_from([f"2 {unit}", {"run": "*"}, {"config": {"a": 1}}]),
        },
        optional={
            "gpu": st.sampled_from(["H100", "H200", "A100"]),
            "config": st.sampled_from([{}, {"a": 1}, {"workload": "matmul"}]),
            "run": st.sampled_from(["*", "a*"]),
            "excellent": st.sampled_from([better, "> 90 % of reference"]),
            "warn": st.just("> 1.4 x reference"),
            "group": st.just("g"),
            "required": st.booleans(),
            "cost": st.sampled_from(
                [{"flops": 1e12}, {"bytes": 1e9, "items": 3}, {"workload": "matmul"}]
            ),
        },
    )


def rows_of(metric: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return rows of a metric, in its unit."""
    return st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b"]),
            "metric": st.just(metric),
            "unit": st.just(UNITS[metric]),
            "value": st.sampled_from([0, 1e-9, 1.5, 2, 1e9]),
        },
        optional={
            "config": st.sampled_from([{}, {"a": 1}, {"workload": "matmul"}]),
            "gpu": st.sampled_from(["NVIDIA H200", "NVIDIA H100 80GB HBM3", None]),
            "low": st.just(0),
            "high": st.just(1e9),
            "n": st.just(1),
        },
    )


metrics = st.sampled_from(sorted(UNITS))
files = st.fixed_dictionaries(
    {"target": st.lists(metrics.flatmap(targets_of), min_size=1, max_size=3)},
    optional={"grades": st.just({"letters": {"A": "> 80 %", "B": "> 1 %"}})},
)
results = st.lists(
    metrics.flatmap(rows_of),
    max_size=3,
    unique_by=lambda r: (r["name"], r["metric"], r.get("gpu"), str(r.get("config", {}))),
)


def understood(asked: Any, measured: Any) -> bool:
    """Write the files, read them and show the report; tell whether they were not refused."""
    with tempfile.TemporaryDirectory() as name:
        file, rows = Path(name) / "targets.json", Path(name) / "rows.json"
        file.write_text(json.dumps(asked), encoding="utf-8")
        rows.write_text(json.dumps({"rows": measured}), encoding="utf-8")
        try:
            report = targets.report(targets.load(file), targets.measured([rows]))
        except UnreadableError:
            return False
    assert registry.load("renderer", "json").render([report], Options())
    assert registry.load("renderer", "text").render([report], Options())
    return True


@settings(max_examples=40)
@given(files, results)
def test_whatever_agrees_with_itself_is_judged(said: Any, measured: Any) -> None:
    for number, target in enumerate(said["target"]):
        target["name"] = f"target {number}"
        said["target"][0]["group"] = "g"  # what grades are of

    assert understood(said, measured)


@settings(max_examples=40)
@given(files, results, values, st.data())
def test_whatever_else_stands_in_files_is_understood_or_refused(
    said: Any, measured: Any, value: Any, data: st.DataObject
) -> None:
    for number, target in enumerate(said["target"]):
        target["name"] = f"target {number}"
    thing = data.draw(st.sampled_from([said, *said["target"], *measured]))
    thing[data.draw(st.sampled_from(sorted(thing)))] = value

    understood(said, measured)


HUGE: dict[str, str] = {
    "many FLOP": one(passing='"< 1 ms"', cost="{ flops = 1e300 }"),
    "endless": one(passing='"< 1 ms"', cost="{ flops = inf }"),
    "no number": one(passing='"< 1 ms"', cost="{ bytes = nan }"),
    "many items": one(passing='"< 1 ms"', cost=f"{{ flops = 1, items = {10**40} }}"),
    "a huge workload": one(
        passing='"< 1 ms"', cost=f'{{ workload = "matmul", options = {{ m = {10**200} }} }}'
    ),
    "a huge threshold": one(passing='"< 1e200 ms"'),
    "nested": "target = " + "[" * 5000 + "]" * 5000,
}


@pytest.mark.parametrize("what", HUGE)
def test_numbers_without_end_are_refused(tmp_path: Path, what: str) -> None:
    with pytest.raises(UnreadableError, match="is no file of targets"):
        loaded(tmp_path, HUGE[what])


def test_rows_without_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="too large"):
        targets.measured([written(tmp_path, row(1e200))])
    file = tmp_path / "deep.json"
    file.write_text('{"rows":' + "[" * 100_000, encoding="utf-8")
    with pytest.raises(UnreadableError):
        targets.measured([file])

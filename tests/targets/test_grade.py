"""Judging and grading on fixed numbers, at the boundaries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.targets.story import BOTH, H100, graded, loaded, one, row
from tracelens import targets
from tracelens.hardware.measured import Measured as Ceilings
from tracelens.hardware.measured import Result, encode
from tracelens.targets.measured import Measured, Reading

ATTENTION = {"kernel": "attention"}
MOE = {"kernel": "moe"}
EXAMPLE = Path(__file__).parents[2] / "docs" / "targets" / "attention-moe-inference.toml"


@pytest.mark.parametrize(
    ("attention_ms", "moe_tflops", "letter"),
    [
        (8.4, 500, "A"),  # 119 %, 100 %
        (12.4, 405, "A"),  # 80.6 %, 81 %
        (12.5, 450, "B"),  # exactly 80 %: not above it
        (12.0, 400, "B"),  # 83 %, exactly 80 %
        (14.2, 355, "B"),  # 70.4 %, 71 %
        (14.0, 350, "C"),  # 71 %, exactly 70 %
        (16.6, 305, "C"),  # 60.2 %, 61 %
        (16.0, 300, "D"),  # 62.5 %, exactly 60 %
        (24.9, 205, "D"),  # 40.2 %, 41 %
        (25.0, 500, "F"),  # exactly 40 %
        (8.0, 100, "F"),  # 125 %, 20 %
    ],
)
def test_the_letter_is_that_of_the_lower_of_both(
    tmp_path: Path, attention_ms: float, moe_tflops: float, letter: str
) -> None:
    found = graded(
        tmp_path,
        BOTH,
        row(attention_ms, config=ATTENTION),
        row(moe_tflops, "TFLOP/s", "flops_per_s", config=MOE),
    )

    assert found.letter == letter
    shares = {group.name: group.share for group in found.groups}
    assert shares == pytest.approx({"attention": 10 / attention_ms, "moe": moe_tflops / 500})


@pytest.mark.parametrize(
    ("ms", "verdict"),
    [
        (3.79, "excellent"),
        (3.8, "pass"),
        (4.49, "pass"),
        (4.5, "warn"),
        (5.99, "warn"),
        (6.0, "fail"),
    ],
)
def test_a_value_passes_by_its_thresholds(tmp_path: Path, ms: float, verdict: str) -> None:
    text = one(passing='"< 4.5 ms"', excellent='"< 3.8 ms"', warn='"< 6 ms"')
    (found,) = graded(tmp_path, text, row(ms)).judged

    assert found.verdict == verdict
    assert targets.passes_gate(graded(tmp_path, text, row(ms))) == (verdict != "fail")


@pytest.mark.parametrize(("ms", "verdict"), [(5.3, "pass"), (16 / 3, "fail"), (5.4, "fail")])
def test_sixty_percent_of_a_time_is_that_time_over_sixty_percent(
    tmp_path: Path, ms: float, verdict: str
) -> None:
    text = one(passing='"> 60 % of reference"', reference='"3.2 ms"')
    (found,) = graded(tmp_path, text, row(ms)).judged

    assert found.verdict == verdict
    assert found.of_reference == pytest.approx(3.2 / ms)


@pytest.mark.parametrize(("ms", "verdict"), [(7.0, "pass"), (7.2, "fail")])
def test_a_speed_up_is_over_a_run_that_was_measured(
    tmp_path: Path, ms: float, verdict: str
) -> None:
    text = one(
        passing='"> 1.4 x reference"',
        config='{ model = "small" }',
        run='"ours"',
        reference='{ config = { attention = "naive" } }',
    )
    config = {"model": "small"}
    naive = {**config, "attention": "naive"}
    found = graded(
        tmp_path,
        text,
        row(ms, config=config),
        row(10, name="naive", config=naive),
        row(12, name="naive again", config=naive),
        row(1, name="another", config={"model": "large", "attention": "naive"}),
    )

    (judged,) = found.judged
    assert judged.reference == 10e6
    assert judged.verdict == verdict
    assert judged.of_reference == pytest.approx(10 / ms)


def test_without_its_reference_nothing_is_judged(tmp_path: Path) -> None:
    text = one(passing='"> 1.4 x reference"', reference='{ run = "naive" }')
    (found,) = graded(tmp_path, text, row(5)).judged

    assert found.verdict == "not measured"
    assert found.reading is not None
    assert found.why == "its reference was not measured"


def test_a_target_is_for_its_gpu_and_config_alone(tmp_path: Path) -> None:
    text = one(passing='"< 5 ms"', gpu='"H100"', config="{ batch = 16, seq = 2048 }")
    fits = {"batch": 16, "seq": 2048, "heads": 4}

    assert [j.run for j in graded(tmp_path, text, row(4, config=fits)).judged] == ["ours"]
    for other in ({"batch": 16}, {"batch": 8, "seq": 2048}, {}):
        (found,) = graded(tmp_path, text, row(4, config=other)).judged
        assert (found.verdict, found.run) == ("not measured", None)
    on_another = graded(tmp_path, text, row(4, config=fits), gpu="NVIDIA A100-SXM4-80GB")
    assert on_another.judged == ()
    assert [target.name for target in on_another.aside] == ["it"]


@pytest.mark.parametrize(
    ("asked", "has", "fits"),
    [
        ("H100", H100, True),
        ("h100 sxm", H100, True),
        ("H100 PCIe", H100, False),
        ("A10", "NVIDIA A10", True),
        ("A10", "NVIDIA A100-SXM4-40GB", False),
        ("A100", "NVIDIA A100-SXM4-40GB", True),
        (H100, H100, True),
        ("Some GPU 9", "NVIDIA Some GPU 9 Ti", True),
        ("H100", None, False),
    ],
)
def test_a_gpu_goes_by_the_names_people_give_it(
    tmp_path: Path, asked: str, has: str | None, *, fits: bool
) -> None:
    found = graded(tmp_path, one(passing='"< 5 ms"', gpu=f'"{asked}"'), row(4), gpu=has)

    assert [j.verdict for j in found.judged] == (["pass"] if fits else [])


def test_every_run_that_a_target_is_for_is_judged(tmp_path: Path) -> None:
    found = graded(
        tmp_path, one(passing='"< 5 ms"'), row(4, name="a"), row(6, name="b"), row(3, name="c")
    )

    assert [(j.run, j.verdict) for j in found.judged] == [
        ("a", "pass"),
        ("b", "fail"),
        ("c", "pass"),
    ]


def test_a_run_goes_by_a_pattern_of_its_name(tmp_path: Path) -> None:
    text = one(passing='"< 5 ms"', run='"ours-*"')

    assert [
        j.run for j in graded(tmp_path, text, row(4, name="ours-2"), row(4, name="theirs")).judged
    ] == ["ours-2"]


def test_what_lies_within_the_noise_is_not_sure(tmp_path: Path) -> None:
    text = one(passing='"< 5 ms"')

    def sure(**interval: float) -> bool | None:
        return graded(tmp_path, text, row(4.9, **interval)).judged[0].sure

    assert sure() is None
    assert sure(low=4.8, high=4.95) is True
    assert sure(low=4.8, high=5.1) is False


def test_a_group_that_was_not_measured_leaves_no_grade(tmp_path: Path) -> None:
    found = graded(tmp_path, BOTH, row(10, config=ATTENTION))

    assert found.letter is None
    assert found.why == "moe: nothing was measured"
    assert [(g.name, g.letter, g.measured, g.targets) for g in found.groups] == [
        ("attention", "A", 1, 1),
        ("moe", None, 0, 1),
    ]


def test_a_required_target_has_to_be_measured(tmp_path: Path) -> None:
    other = one(name='"other"', passing='"< 5 ms"', config="{ a = 1 }")

    for required in (False, True):
        text = f"{other}\nrequired = {str(required).lower()}\n" + one(passing='"< 5 ms"')
        assert targets.passes_gate(graded(tmp_path, text, row(4))) != required


GEMM = 2 * 8192 * 8192 * 8192  # 1.0995 TFLOP, 1.018 ms at the 1,080 TFLOP/s of an H100


def gemm(**more: str) -> str:
    return one(gpu='"H100 SXM"', cost=f'{{ flops = {GEMM}, dtype = "fp16" }}', **more)


def test_a_target_beyond_the_limit_is_impossible_and_fails_nobody(tmp_path: Path) -> None:
    text = gemm(passing='"< 1.0 ms"')
    (alone,) = graded(tmp_path, text).judged
    (measured,) = graded(tmp_path, text, row(1.4)).judged

    assert alone.verdict == measured.verdict == "impossible target"
    assert "< 1.0 ms is asked for (1,099.5 TFLOP/s)" in alone.why
    assert "take 1.02 ms at 1,081.2 TFLOP/s" in alone.why
    assert measured.limit == pytest.approx(GEMM / 1081.203e12 * 1e9, rel=1e-5)
    assert targets.passes_gate(graded(tmp_path, text, row(1.4)))


def test_a_target_within_the_limit_is_none(tmp_path: Path) -> None:
    text = gemm(passing='"< 1.1 ms"')
    (found,) = graded(tmp_path, text).judged

    assert found.verdict == "not measured"
    assert found.why.startswith("< 1.1 ms asks for 92% of what is possible")
    assert graded(tmp_path, text, row(1.05)).judged[0].verdict == "pass"


def test_a_measurement_beyond_the_limit_is_impossible_and_has_no_letter(tmp_path: Path) -> None:
    ladder = '[grades]\nletters = { A = "> 80 %" }\n'
    text = ladder + gemm(passing='"< 2 ms"', reference='"1.5 ms"', group='"gemm"')
    found = graded(tmp_path, text, row(0.5))
    (judged,) = found.judged

    assert judged.verdict == "impossible measurement"
    assert judged.letter is None
    assert found.letter is None
    assert found.why == "gemm: a measurement is impossible"
    assert not targets.passes_gate(found)
    assert graded(tmp_path, text, row(1.6)).letter == "A"


def test_an_impossible_reference_grades_nobody(tmp_path: Path) -> None:
    ladder = '[grades]\nletters = { A = "> 80 %" }\n'
    text = ladder + gemm(passing='"> 60 % of reference"', reference='"0.5 ms"', group='"gemm"')
    found = graded(tmp_path, text, row(1.2))

    assert found.judged[0].letter is None
    assert found.letter is None
    assert found.why == "gemm: nothing has a possible reference"
    # 60 % of it is 0.83 ms, which no H100 does either.
    assert found.judged[0].verdict == "impossible target"


@pytest.mark.parametrize(
    ("metric", "unit", "possible", "impossible"),
    [
        ("flops_per_s", "TFLOP/s", 1000, 1100),
        ("bytes_per_s", "TB/s", 3.4, 3.6),
        ("mfu", "%", 105, 115),
        ("mbu", "%", 102, 110),
        ("share", "%", 100, 101),
    ],
)
def test_rates_beyond_the_hardware_are_impossible(
    tmp_path: Path, metric: str, unit: str, possible: float, impossible: float
) -> None:
    cost = '{ flops = 1e12, bytes = 1e12, dtype = "fp16" }'
    text = one(
        metric=f'"{metric}"', passing='"> 1 %"' if unit == "%" else f'"> 1 {unit}"', cost=cost
    )

    def verdict(value: float) -> str:
        return graded(tmp_path, text, row(value, unit, metric)).judged[0].verdict

    assert verdict(possible) == "pass"
    assert verdict(impossible) == "impossible measurement"


def test_what_is_above_a_ceiling_and_possible_is_remarked_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = gemm(passing='"< 2 ms"')

    def why(ms: float) -> str:
        (found,) = graded(tmp_path, text, row(ms)).judged
        assert found.verdict == "pass"
        return found.why

    assert why(1.2) == ""
    assert why(1.1) == "999.6 TFLOP/s are above the data sheet (989.4 TFLOP/s, data sheet)"
    measured = Ceilings(
        device=H100,
        made="2026-11-20T10:00:00+00:00",
        results=[
            Result("matmul.fp16", "flops_per_s", 700e12, 1e-3, 0, [1e-3], {"m": 1}, "wall clock")
        ],
    )
    (tmp_path / "ceilings.json").write_text(encode(measured), encoding="utf-8")
    monkeypatch.setenv("TRACELENS_CEILINGS", str(tmp_path / "ceilings.json"))

    assert why(1.2).startswith("916.3 TFLOP/s are above the measured ceiling (700.0 TFLOP/s, ")
    assert why(1.9) == ""


def test_bytes_that_the_cache_holds_are_no_limit(tmp_path: Path) -> None:
    small = one(metric='"bytes_per_s"', passing='"> 1 TB/s"', cost="{ bytes = 30e6 }")
    large = one(metric='"bytes_per_s"', passing='"> 1 TB/s"', cost="{ bytes = 30e9 }")

    def verdict(text: str) -> str:
        return graded(tmp_path, text, row(5, "TB/s", "bytes_per_s")).judged[0].verdict

    assert verdict(small) == "pass"
    assert verdict(large) == "impossible measurement"


def test_tokens_have_the_limit_of_their_time(tmp_path: Path) -> None:
    cost = f'{{ flops = {GEMM}, items = 1000, dtype = "fp16" }}'
    text = one(metric='"tokens_per_s"', passing='"> 1 tokens/s"', cost=cost)
    most = 1000 / (GEMM / 1081.203344e12)

    def verdict(value: float) -> str:
        return graded(tmp_path, text, row(value, "tokens/s", "tokens_per_s")).judged[0].verdict

    assert verdict(most * 0.999) == "pass"
    assert verdict(most * 1.001) == "impossible measurement"


def test_on_an_unknown_gpu_nothing_is_called_impossible(tmp_path: Path) -> None:
    text = one(passing='"< 2 ms"', cost=f"{{ flops = {GEMM} }}")
    (found,) = graded(tmp_path, text, row(0.001), gpu="Some GPU").judged

    assert (found.verdict, found.limit) == ("pass", None)


@settings(max_examples=200)
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3), st.booleans())
def test_a_relative_threshold_is_the_absolute_one_that_follows_from_the_reference(
    value: float, reference: float, lower: bool
) -> None:
    metric, unit = ("latency", "ms") if lower else ("flops_per_s", "TFLOP/s")
    dimension = "time" if lower else "flops_per_s"
    base = 1e6 if lower else 1e12
    run = Measured("ours", None, {}, {metric: Reading(value * base, dimension)})  # type: ignore[arg-type]
    edge = reference / 0.7 if lower else reference * 0.7
    texts = (
        one(
            metric=f'"{metric}"',
            passing='"> 70 % of reference"',
            reference=f'"{reference!r} {unit}"',
        ),
        one(metric=f'"{metric}"', passing=f'"{"<" if lower else ">"} {edge!r} {unit}"'),
    )
    verdicts = []
    for text in texts:
        (judged,) = targets.grade(parsed(text), [run]).judged
        verdicts.append(judged.verdict)

    assert verdicts[0] == verdicts[1]


def parsed(text: str) -> targets.Targets:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return loaded(Path(folder), text)


def test_the_impossible_targets_of_the_example_are_these_and_no_others() -> None:
    found = targets.grade(targets.load(EXAMPLE), [])
    impossible = [
        (judged.target.name, judged.target.gpu)
        for judged in found.judged
        if judged.verdict == "impossible target"
    ]
    nearly = [(j.target.name, j.target.gpu) for j in found.judged if "of what is" in j.why]

    # 2·12·32·4096² of 16,384 tokens, 2·32000·4096 of 8 of them, and causal attention.
    tokens = 8 * 2048
    flops = tokens * 2 * 12 * 32 * 4096**2 + 8 * 2 * 32000 * 4096
    flops += 32 * 8 * 32 * 4 * 128 * (2048 * 2049 // 2)
    assert impossible == [("large model 8 x 2048", gpu) for gpu in ("H100", "A100", "A10")]
    assert nearly == [("large model 4 x 512", gpu) for gpu in ("A100", "A10")]
    for judged, seconds, stated in zip(
        (j for j in found.judged if j.verdict == "impossible target"),
        (0.185, 0.410, 1.025),
        (989.4e12, 312e12, 125e12),
        strict=True,
    ):
        assert flops / seconds > stated
        assert judged.limit is not None
        assert seconds * 1e9 < judged.limit <= flops / stated * 1e9
        assert f"{flops / seconds / 1e12:,.1f} TFLOP/s" in judged.why


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"workload": "gpt2", "layers": 12, "ctx": 512}, 1),
        ({"workload": "gpt2", "layers": 48, "ctx": 512}, 0),
        ({"workload": "gpt2", "layers": 12, "ctx": 256}, 0),
        ({"workload": "attention"}, 0),
        ({}, 1),  # a recording that tells nothing of itself is as its user says
    ],
)
def test_a_target_reckoned_for_a_workload_is_not_for_another(
    tmp_path: Path, config: dict[str, object], count: int
) -> None:
    cost = '{ workload = "gpt2-small", options = { ctx = 512 } }'
    wanted = loaded(tmp_path, one(metric='"step_time"', passing='"< 1 s"', cost=cost))
    run = Measured("run", None, config, {"step_time": Reading(5e8, "time")})

    (judged,) = targets.report(wanted, [run]).tables[0].frame.to_dicts()

    assert judged["verdict"] == ("pass" if count else "not measured")


def test_a_target_reckoned_for_training_is_not_for_forward_alone(tmp_path: Path) -> None:
    wanted = loaded(
        tmp_path, one(metric='"step_time"', passing='"< 1 s"', cost='{ workload = "gpt2-small" }')
    )
    (target,) = wanted.targets
    assert target.needs is not None
    forward = replace(target.needs, parts=target.needs.parts[:3])
    took = {"step_time": Reading(5e8, "time")}
    runs = [Measured("a", None, {"workload": "gpt2"}, took, of) for of in (forward, target.needs)]

    (alone,) = targets.report(wanted, runs[:1]).tables[0].frame["verdict"]
    (whole,) = targets.report(wanted, runs[1:]).tables[0].frame["verdict"]

    assert (alone, whole) == ("not measured", "pass")


def test_of_several_runs_each_row_and_reason_says_which(tmp_path: Path) -> None:
    wanted = loaded(tmp_path, one(passing='"< 1 s"'))
    runs = [Measured(name, H100, {}, {}) for name in ("before", "after")]
    runs = [replace(run, readings={"latency": Reading(2e9, "time")}) for run in runs]

    (table,) = targets.report(wanted, runs).tables

    assert table.frame.columns[:2] == ["target", "run"]
    assert table.frame["run"].to_list() == ["before", "after"]

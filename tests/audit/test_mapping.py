"""Mapping files and their formulas: what they say, and what is said of a slip in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audit.auditing import of_text, verdicts
from tracelens.audit import formula, mapping, reading, sheets, work
from tracelens.audit.interval import exact
from tracelens.audit.verdicts import Verdict
from tracelens.errors import UnreadableError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

TABLE = "| batch | what | ms |\n|---|---|---|\n| 4 | a | 1.5 |\n"


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"blah": []}, "'blah', which is none of"),
        ({"table": {"title": "x"}}, "list of tables"),
        ({"table": [{"number": 0}]}, "counts from 1"),
        ({"table": [{"columns": {"ms": "speed"}}]}, "one of"),
        ({"table": [{"columns": {"ms": {"unit": "parsec"}}}]}, "parsec"),
        ({"table": [{"columns": {"ms": {"pass": "up"}}}]}, "forward"),
        ({"table": [{"sums": [{"total": "a"}]}]}, "parts"),
        ({"gpu": "H1000"}, "not known"),
        ({"dtype": "fp12"}, "not known"),
        ({"settings": {"batches": 4}}, "batches"),
        ({"work": {"kind": "magic"}}, "kind of work"),
        ({"work": {"kind": "gemm", "causal": "yes"}}, "work is like"),
        ({"tolerance": "much"}, "share such as"),
        ({"claim": [{"says": "x"}]}, "lacks claimed, formula"),
        ({"claim": [{"says": "x", "formula": "1", "claimed": "1", "relation": "<"}]}, "at least"),
    ],
)
def test_a_slip_in_a_mapping_is_named(said: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        mapping.parse(said)


def test_a_mapping_that_is_no_toml_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text("gpu = ")

    with pytest.raises(UnreadableError, match="is no TOML"):
        mapping.load(path)
    with pytest.raises(UnreadableError, match="cannot be read"):
        mapping.load(tmp_path / "absent.toml")


def test_what_fits_nothing_in_the_document_is_told(tmp_path: Path) -> None:
    path = tmp_path / "r.md"
    path.write_text(TABLE)
    said = {"table": [{"number": 7}, {"columns": {"sm": "time", "ms": "time", "#2": "count"}}]}

    found = sheets.understood(reading.read(path), mapping.parse(said))

    assert found.warnings == (
        "The mapping's [[table]] with number 7 fits no table.",
        "The mapping's column 'sm' (title '') is in no table.",
    )


def test_what_is_said_of_one_table_comes_before_what_is_said_of_all(tmp_path: Path) -> None:
    path = tmp_path / "r.md"
    path.write_text(TABLE)
    said = {
        "settings": {"seq": 10, "heads": 2},
        "table": [
            {"settings": {"seq": 20, "layers": 5}, "columns": {"ms": {"unit": "s"}}},
            {"number": 1, "settings": {"seq": 30}, "columns": {"ms": {"unit": "us"}}},
        ],
    }

    ((_, row),) = sheets.understood(reading.read(path), mapping.parse(said)).rows()

    assert row.known() == {"seq": 30, "heads": 2, "layers": 5, "batch": 4}
    assert row.values[0].span.at == pytest.approx(1.5e-6)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 * (3 + 4) - 1", 13),
        ("1 - 41.8 / 80.6", 0.4814),
        ("2 ** 31 - 1", 2**31 - 1),
        ("max(1, 2) + min(3, 4) + sqrt(16)", 9),
        ("x * ms", 0.003),
        ("256 * 4 * 1600 * bytes_of(fp32) / MiB", 6.25),
        ("gemm_flops(8192, 8192, 8192)", 2 * 8192**3),
        ("attention_flops(4, 16, 2048, 64, causal=1)", 2 * 4 * 16 * 2048**2 * 64),
        ("transformer_parameters(48, 8192, 32768, 50304)", 39_478_886_400),
        ("-x", -3),
    ],
)
def test_formulas(text: str, value: float) -> None:
    assert formula.value(text, {"x": exact(3)}).at == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "", "1 +", "y", "__import__('os')", "x.real", "[1][0]", "lambda: 1", "1 if 2 else 3", "'a'",
        "x ** x", "open('f')", "gemm_flops(1)", "bytes_of(fp12)", "max()", "1" + "+1" * 2000,
        "sqrt(" * 80 + "1" + ")" * 80, "-" * 200 + "1", "1j",
    ],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        formula.value(text, {"x": exact(3)})


@given(st.text(alphabet="0123456789.+-*/()x ,eminaxsqrt_", max_size=40))
def test_any_formula_comes_to_something_or_is_refused(text: str) -> None:
    try:
        formula.value(text, {"x": exact(3)})
    except UsageError:
        return


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6), st.sampled_from("+-*/"))
def test_arithmetic_on_readings_contains_what_was_rounded(a: float, b: float, sign: str) -> None:
    true = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign]

    assert formula.value(f"{a:.3f} {sign} {b:.3f}", {}).meets(exact(true))


def test_a_division_by_nothing_says_nothing() -> None:
    assert formula.value("1 / (2 - 2)", {}).meets(exact(3))
    assert formula.value("1 / (2 - 2)", {}).meets(exact(-1e300))


def test_a_name_that_a_row_lacks_makes_the_number_unchecked(tmp_path: Path) -> None:
    said = {"table": [{"columns": {"ms": {"formula": "groups * 2 * ms"}}}]}

    assert verdicts(of_text(TABLE, tmp_path, said), "formulas") == [(1, Verdict.UNCHECKED)]


def test_claims_at_least_and_at_most(tmp_path: Path) -> None:
    claims = [
        {"says": "a", "formula": "0.71", "claimed": "70 %", "relation": "at least"},
        {"says": "b", "formula": "0.51", "claimed": "70 %", "relation": "at least"},
        {"says": "c", "formula": "0.61", "claimed": "50 %", "relation": "at most"},
        {"says": "d", "formula": "3", "claimed": "2.0x", "impossible": True},
        {"says": "e", "formula": "rate * 2", "claimed": "20 GB/s"},
    ]

    found = of_text(TABLE, tmp_path, {"claim": claims, "values": {"rate": "10 * GB"}})

    assert [one for _, one in verdicts(found, "claims")] == [
        Verdict.CONSISTENT, Verdict.INCONSISTENT, Verdict.INCONSISTENT, Verdict.IMPOSSIBLE,
        Verdict.CONSISTENT,
    ]  # fmt: skip


def test_flops_agree_with_what_pytorch_counts() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    q, x = torch.ones(8, 32, 16), torch.ones(2, 32, 64)
    with FlopCounterMode(display=False) as counter:
        _ = (q @ q.transpose(1, 2)) @ q
    attention = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        for _ in range(4):
            _ = x @ torch.ones(64, 64)
        _ = (x @ torch.ones(64, 256)) @ torch.ones(256, 64)
    matrices = counter.get_total_flops()

    assert attention == work.attention_flops(2, 4, 32, 16)
    assert matrices + attention == work.transformer_flops(2, 32, 1, 64, 256, causal=0)
    assert matrices == 2 * 2 * 32 * work.transformer_parameters(1, 64, 256)

"""Tables of numbers that follow from one another are never flagged; what is changed always is."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.audit.auditing import audited, wrong
from tracelens.audit.verdicts import Verdict
from tracelens.errors import NothingToShowError, UnreadableError

cases = st.tuples(
    st.integers(1, 64),
    st.sampled_from([128, 512, 1024, 4096]),
    st.floats(0.02, 5),
    st.floats(0.3, 9),
)
"""Batch, tokens of a sequence, seconds before, and how many times faster after."""

styles = st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(1, 4))
"""Decimals of milliseconds, of tokens per second, and of the speed-up."""


def table(rows: list[tuple[str, ...]]) -> str:
    head = ("Batch", "Seq Len", "Eager (ms)", "Compiled (ms)", "Eager (tok/s)", "Speedup")
    rule = tuple("---" for _ in head)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows)) + "\n"


def row(case: tuple[int, int, float, float], style: tuple[int, int, int]) -> tuple[str, ...]:
    batch, seq, before, gain = case
    ms, rate, times = style
    return (
        str(batch), str(seq), f"{before * 1e3:.{ms}f}", f"{before / gain * 1e3:,.{ms}f}",
        f"{batch * seq / before:,.{rate}f}", f"{gain:.{times}f}x",
    )  # fmt: skip


def audit(text: str, suffix: str = ".md") -> list[tuple[str, int, int, Verdict]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"results{suffix}"
        path.write_text(text, encoding="utf-8")
        return wrong(audited(path))


@given(st.lists(cases, min_size=1, max_size=6), styles)
def test_consistent_numbers_are_never_flagged(
    found: list[tuple[int, int, float, float]], style: tuple[int, int, int]
) -> None:
    assert not audit(table([row(case, style) for case in found]))


@given(
    st.lists(cases, min_size=3, max_size=6), st.integers(0, 2), st.floats(1.01, 3), st.booleans()
)
def test_a_throughput_beyond_its_rounding_is_always_flagged(
    found: list[tuple[int, int, float, float]], at: int, factor: float, up: bool
) -> None:
    rows = [row(case, (3, 1, 2)) for case in found]
    batch, seq, before, _ = found[at]
    rate = batch * seq / before * (factor if up else 1 / factor)
    rows[at] = (*rows[at][:4], f"{rate:,.1f}", rows[at][5])

    # One in the last digit of 20.000 ms and of 25.6 tok/s are 0.5 % together at most.
    assert ("throughput", 1, at + 1, Verdict.INCONSISTENT) in audit(table(rows))


@given(st.lists(cases, min_size=1, max_size=4), st.floats(1.05, 3), st.booleans())
def test_a_speedup_beyond_its_rounding_is_always_flagged(
    found: list[tuple[int, int, float, float]], factor: float, up: bool
) -> None:
    case = found[-1]
    rows = [row(one, (3, 1, 3)) for one in found]
    gain = case[3] * (factor if up else 1 / factor)
    rows[-1] = (*rows[-1][:5], f"{gain:.3f}x")

    flagged = ("speedup", 1, len(rows), Verdict.INCONSISTENT) in audit(table(rows))

    assert flagged


@given(st.lists(cases, min_size=3, max_size=6), styles)
def test_csv_and_json_of_the_same_numbers_are_never_flagged(
    found: list[tuple[int, int, float, float]], style: tuple[int, int, int]
) -> None:
    head = ("batch", "seq_len", "eager_ms", "compiled_ms", "eager_tps", "speedup")
    rows = [tuple(cell.replace(",", "").rstrip("x") for cell in row(c, style)) for c in found]
    lines = [",".join(one) for one in (head, *rows)]
    objects = [
        "{" + ",".join(f'"{k}":{v}' for k, v in zip(head, one, strict=True)) + "}" for one in rows
    ]

    assert not audit("\n".join(lines), ".csv")
    assert not audit(f'{{"results": [{",".join(objects)}]}}', ".json")


@given(
    st.text(
        alphabet=st.sampled_from('|-: #`\n\t"{}[],.0123456789xms/%→abKM=*<>±é\x1b'), max_size=400
    )
)
def test_any_text_is_audited_or_refused_in_words(text: str) -> None:
    for suffix in (".md", ".csv", ".json", ".txt"):
        with contextlib.suppress(UnreadableError, NothingToShowError):
            audit(text, suffix)

"""Text: what fits a terminal, and what a hostile name cannot do to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.render import story
from tracelens import units
from tracelens.render import Options
from tracelens.render.text import RENDERER
from tracelens.tables import Column, Filled, Report, Table

GOLDEN = """\
nsys 2025.3 · NVIDIA A100 · 29,730 kernels · GPU busy 604 ms (39 %)
Trust    attributed 99.8 %
         nothing lost
Warning  CUDA graphs were traced whole; their kernels are not known.

GPU time by phase
  phase      kernels  GPU time   share
  forward      5,536  165.9 ms  27.5 %
  backward     9,912  344.0 ms  57.0 %
  optimizer   14,208   91.3 ms  15.1 %
  (none)          74    2.8 ms   0.4 %
  A kernel belongs to the phase that launched it, not the one it ran during.

What stands out
  • The GPU idles 61 % of the window: the optimizer issues 1,776 kernels.

Not shown
  • ranges: no NVTX ranges were recorded

More: --table kernels · tracelens explore FILE
"""


def rendered(*reports: Report, **options: Any) -> str:
    return RENDERER.render(reports, Options(**options))


def test_the_answer_comes_first_and_every_caveat_is_beside_it() -> None:
    assert rendered(story.report(story.phases())) == GOLDEN


def test_a_silent_report_is_its_headline() -> None:
    report = story.report(
        trust=(), findings=(), hints=(), left_out={}, warnings=(), headline="No kernel ran."
    )

    assert rendered(report) == "No kernel ran.\n"


def test_top_cuts_rows_and_says_what_they_amount_to() -> None:
    text = rendered(story.report(story.phases()), top=2)

    assert "  … and 2 more rows (share 16 %) — --top 0 shows all\n" in text
    assert "optimizer  " not in text


def test_shares_that_are_not_of_one_whole_are_not_added_up() -> None:
    of_two_ranks = story.phases().frame.with_columns(share=pl.Series([0.9, 0.1, 0.8, 0.2]))
    filled = replace(story.phases(), frame=of_two_ranks)

    assert "  … and 2 more rows — --top 0 shows all\n" in rendered(story.report(filled), top=2)


def test_shares_of_each_phase_are_not_added_up() -> None:
    of_phase = Column("share", "of phase", "share")
    columns = (*story.PHASES.columns[:-1], of_phase)
    filled = replace(story.phases(), table=replace(story.PHASES, columns=columns))

    assert "  … and 2 more rows — --top 0 shows all\n" in rendered(story.report(filled), top=2)


def test_all_rows_are_shown_for_no_top() -> None:
    phases = story.report(story.phases())

    assert rendered(phases, top=None) == rendered(phases, top=0) == rendered(phases, top=4)


def test_a_table_without_rows_says_so() -> None:
    text = rendered(story.report(story.filled("phases", story.PHASES, [])))

    assert "\n  phase  kernels  GPU time  share\n  no rows\n" in text


def test_columns_that_do_not_fit_are_left_out_and_named() -> None:
    text = rendered(story.report(story.kernels()))

    assert "  kernel                    " in text
    assert "Too narrow for: mean, median, min, max; --table kernels --format csv has them." in text


def test_a_wider_terminal_gives_room_to_names_and_columns() -> None:
    narrow, wide = (rendered(story.report(story.kernels()), width=w) for w in (80, 200))

    assert "cutlass::Kernel2<cutlass…16x3_nn_align4>  gemm" in narrow
    assert story.KERNEL_ROWS[1][1] in wide
    assert "Too narrow" not in wide


def test_a_terminal_that_claims_less_than_80_columns_gets_80() -> None:
    report = story.report(story.kernels())

    assert rendered(report, width=20) == rendered(report, width=80)


def test_a_hostile_name_is_harmless() -> None:
    text = rendered(story.report(story.named("\x1b[2J[red]k\nl\r\u202e")))

    assert r"\x1b[2J[red]k\nl\r\u202e" in text
    assert "\x1b" not in text


def test_a_headline_cannot_carry_an_escape_either() -> None:
    text = rendered(story.report(headline="\x1b]0;title\x07", warnings=("\x9b31m",)))

    assert "\x1b" not in text
    assert "\x9b" not in text


def test_colour_adds_styles_and_nothing_else() -> None:
    report = story.report(story.phases())
    styled = rendered(report, colour=True)

    assert "\x1b[1mGPU time by phase\x1b[0m" in styled
    for code in ("0", "1", "2", "33"):
        styled = styled.replace(f"\x1b[{code}m", "")
    assert styled == rendered(report)


def test_several_reports_stand_under_their_paths() -> None:
    text = rendered(story.report(path="a.sqlite"), story.report(path="b.sqlite"))

    assert text.startswith("a.sqlite\n\nnsys")
    assert "\n\nb.sqlite\n\nnsys" in text


@given(st.lists(st.text(), max_size=5), st.integers(0, 130))
def test_no_line_is_wider_than_the_terminal(names: list[str], width: int) -> None:
    report = story.report(
        story.named(*names), findings=tuple(names), headline=" ".join(names), hints=tuple(names)
    )

    text = rendered(report, width=width)

    assert max(map(cell_len, text.split("\n"))) <= max(width, 80)
    assert text.replace("\n", "").isprintable()


@given(
    st.lists(st.sampled_from(["text", "name", "count", "ns", "share"]), min_size=1, max_size=12),
    st.integers(0, 2**62),
)
def test_no_number_is_cut(kinds: list[Any], number: int) -> None:
    text = rendered(story.report(_row(kinds, number)))
    figures = {"count": f"{number:,}", "ns": units.time(number), "share": "100 %"}

    rows = text.partition("\nT\n")[2].partition("\n\n")[0].split("\n")
    shown = [kind for i, kind in enumerate(kinds) if f"c{i}" in rows[0].split()]
    assert set(shown) >= {kinds[0], next((k for k in kinds if k in figures), kinds[0])}
    assert all(figures[kind] in rows[1] for kind in shown if kind in figures)


def _row(kinds: list[Any], number: int) -> Filled:
    values = {"text": "x" * 40, "name": "y" * 40, "count": number, "ns": number, "share": 1.0}
    columns = tuple(Column(f"n{i}", f"c{i}", kind) for i, kind in enumerate(kinds))
    return story.filled("t", Table("t", "T", columns, ""), [tuple(values[kind] for kind in kinds)])


def test_columns_that_are_read_across_get_one_unit() -> None:
    columns = tuple(Column(name, name, "ns", scale="time") for name in ("was", "is"))
    table = Table("compare", "Compared", (Column("what", "", "text"), *columns), "")
    frame = pl.DataFrame(
        {"what": ["gemm", "copy", "norm"], "was": [9_500_000, 0, 800], "is": [85_400_000, 0, 2_000]}
    )

    text = rendered(story.report(Filled("compare", table, frame)))

    assert "  gemm  9.500 ms  85.400 ms\n" in text
    assert "  copy  0.000 ms   0.000 ms\n" in text
    assert "  norm  0.001 ms   0.002 ms\n" in text

"""The command `audit`: what it prints in every format, and the status it ends with."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest

from tests.audit.auditing import HERE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asking import Shell

REPORT = HERE / "documents" / "inference.md"
GOOD = "| batch | seq | ms | tok/s |\n|--|--|--|--|\n| 1 | 1000 | 10.0 | 100,000 |\n"
CONTRACT = {
    "tables": {
        "table", "line", "title", "rows", "consistent", "inconsistent", "impossible", "unchecked"
    },
    "rows": {"table", "row", "line", "label", "verdict", "checks"},
    "checks": {
        "table", "row", "line", "label", "check", "claim", "arithmetic", "verdict", "claimed",
        "computed", "unit", "margin",
    },
}  # fmt: skip


def test_the_answer_stands_first_and_the_arithmetic_beside_each_verdict(shell: Shell) -> None:
    said = shell("audit", REPORT)

    assert said.status == 0
    lines = said.out.splitlines()
    assert lines[0].startswith("inference.md · 15 rows and 2 statements: 8 consistent, 6 incons")
    text = " ".join(said.out.split())
    assert "Inconsistent: table 1, row 3, line 11 (Batch 8, Seq Len 2K): 16,384 tokens" in text
    assert "16,384 tokens / 331.4 ms = 49,438.7 tok/s, claimed 84,440 (+70.8%)" in text
    assert "claimed 0.88x (that is the other way round)" in text
    assert all(len(line) <= 100 for line in lines)


def test_json_holds_everything_under_stable_keys(shell: Shell) -> None:
    said = shell("audit", REPORT, "--format", "json").json

    assert said["schema"] == 1
    assert said["source"]["format"] == "markdown"
    assert said["coverage"] == {
        "impossible": 3, "inconsistent": 6, "consistent": 8, "unchecked": 0
    }  # fmt: skip
    assert {name: set(rows[0]) for name, rows in said["tables"].items()} == CONTRACT
    assert len(said["tables"]["rows"]) == 17


def test_csv_is_the_table_of_all_checks(shell: Shell) -> None:
    said = shell("audit", REPORT, "--format", "csv")

    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert {row["verdict"] for row in rows} == {
        "consistent", "inconsistent", "physically impossible"
    }  # fmt: skip
    assert set(rows[0]) == CONTRACT["checks"]


@pytest.mark.parametrize("form", ["text", "markdown", "html", "latex"])
def test_every_format_shows_what_does_not_hold_and_all_on_request(form: str, shell: Shell) -> None:
    some, everything = (
        shell("audit", REPORT, "--format", form, "--top", "0", *more).out
        for more in ([], ["--all"])
    )

    assert "331.4" in some
    assert "198.3" not in some
    assert "198.3" in everything


def test_the_gate_fails_on_what_does_not_hold_alone(shell: Shell, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text(GOOD)
    bad.write_text(GOOD.replace("100,000", "110,000"))

    assert [shell("audit", path).status for path in (good, bad)] == [0, 0]
    assert [shell("audit", path, "--gate").status for path in (good, bad)] == [0, 1]


def test_a_gpu_may_be_named(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "r.md"
    path.write_text("| M | N | K | ms |\n|--|--|--|--|\n| 8192 | 8192 | 8192 | 0.30 |\n")

    assert shell("audit", path, "--gate").status == 0
    assert shell("audit", path, "--gate", "--gpu", "H100 SXM").status == 1
    assert shell("audit", path, "--gpu", "H1000").status == 2
    assert "RTX 4090" in shell("audit", path, "--gpu", "H1000").err


def test_a_mapping_is_heeded_and_its_slips_are_warned_of(shell: Shell, tmp_path: Path) -> None:
    path, mapping = tmp_path / "r.md", tmp_path / "m.toml"
    path.write_text("| a | b |\n|--|--|\n| 2.0 | 4.1 |\n")
    mapping.write_text(
        '[[table]]\ncolumns.a = {is = "number", as = "a"}\n'
        'columns.b = {is = "number", formula = "2 * a"}\ncolumns.c = "time"\n'
    )

    said = shell("audit", path, "--map", mapping, "--gate")

    assert said.status == 0
    assert "2 * a, a 2.0 = 4, claimed 4.1" not in said.out
    assert "Warning  The mapping's column 'c'" in said.out
    path.write_text("| a | b |\n|--|--|\n| 2.0 | 5.1 |\n")
    assert "2 * a, a 2.0 = 4, claimed 5.1" in shell("audit", path, "--map", mapping).out


@pytest.mark.parametrize(
    ("content", "status"),
    [("", 4), ("Only words here.\n", 4), ("\0", 3)],
    ids=["empty", "words", "nul"],
)
def test_without_a_table_the_status_says_so(
    content: str, status: int, shell: Shell, tmp_path: Path
) -> None:
    path = tmp_path / "r.md"
    path.write_text(content)

    said = shell("audit", path)

    assert said.status == status
    assert len(said.err.splitlines()) <= 2


def test_names_out_of_the_file_are_inert(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "r.md"
    evil = "<script>alert(1)</script>\x1b[31m=cmd()"
    path.write_text(
        f"# {evil}\n\n| {evil} | batch | seq | ms | tok/s |\n|--|--|--|--|--|\n"
        f"| {evil} | 1 | 1000 | 10.0 | 5 |\n"
    )

    said = {form: shell("audit", path, "--format", form, "--all").out for form in ("text", "html")}

    assert "\x1b" not in said["text"]
    assert "<script>" not in said["html"]


def test_nothing_is_written_over_a_file_unless_asked(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "audit.md"
    out.write_text("mine")

    assert shell("audit", REPORT, "--format", "markdown", "-o", out).status == 2
    assert shell("audit", REPORT, "--format", "markdown", "-o", out, "--force").status == 0
    assert "331.4" in out.read_text()


def test_a_margin_of_nothing_is_not_printed(shell: Shell, tmp_path: Path) -> None:
    document = tmp_path / "claim.md"
    document.write_text("Measured on an H100 SXM.\n\nEfficiency: 6,807 / 2,174 = 313%\n")

    said = " ".join(shell("audit", document).out.split())

    assert "claimed 313%: no efficiency is above 100 %" in said
    assert "0.0%)" not in said

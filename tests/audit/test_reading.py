"""Files of claims in every form: what is read of them, and what is said where nothing can be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.audit.auditing import of_text
from tracelens.audit import judge, mapping, sheets
from tracelens.audit.reading import read
from tracelens.errors import NothingToShowError, UnreadableError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asking import Nobody
    from tracelens.audit.document import Document


def of(text: str | bytes, folder: Path, name: str = "results.md") -> Document:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path)


def cells(document: Document) -> list[list[tuple[str, ...]]]:
    return [[grid.headings, *(row.cells for row in grid.rows)] for grid in document.grids]


MARKDOWN = """\
# Report

GPU: H100

## First *run*

Configuration: batch=4

| a | b \\| c |
|---|:-----:|
| 1 | 2     |
| 3 |
| 4 | 5 | 6 |

Words.

```
x | y
--|--
7 | 8
```
"""


def test_markdown_tables_know_their_lines_headings_and_what_stands_before(tmp_path: Path) -> None:
    document = of(MARKDOWN, tmp_path)

    first, second = document.grids
    assert cells(document) == [
        [("a", "b | c"), ("1", "2"), ("3", ""), ("4", "5")],
        [("x", "y"), ("7", "8")],
    ]
    assert [row.line for row in first.rows] == [11, 12, 13]
    assert first.title == ("Report", "First *run*")
    assert first.before == ("GPU: H100", "Configuration: batch=4")
    assert second.line == 18


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    expected = cells(of(MARKDOWN, tmp_path))

    assert cells(of("\ufeff" + MARKDOWN.replace("\n", "\r\n"), tmp_path)) == expected
    assert cells(of(MARKDOWN.encode("utf-16"), tmp_path)) == expected


def test_tables_drawn_with_spaces_bars_and_boxes(tmp_path: Path) -> None:
    text = """\
Size (MB)  Time (ms)  Bus (GB/s)
---------  ---------  ----------
        1      0.024        80.1
       10      0.061       315.0

+------+-------+
| size | ms    |
+======+=======+
| 1    | 2.0   |
| 2    | 4.0   |
+------+-------+

┌───────┬──────┐
│ batch ┆ ms   │
╞═══════╪══════╡
│ 1     ┆ 3.0  │
│ 2     ┆ 6.0  │
└───────┴──────┘

   batch    ms
0      1   5.0
1      2  10.0
"""

    assert cells(of(text, tmp_path, "log.txt")) == [
        [
            ("Size (MB)", "Time (ms)", "Bus (GB/s)"),
            ("1", "0.024", "80.1"),
            ("10", "0.061", "315.0"),
        ],
        [("size", "ms"), ("1", "2.0"), ("2", "4.0")],
        [("batch", "ms"), ("1", "3.0"), ("2", "6.0")],
        [("", "batch", "ms"), ("0", "1", "5.0"), ("1", "2", "10.0")],
    ]


def test_trees_of_files_and_prose_are_no_tables(tmp_path: Path) -> None:
    text = (
        "build/\n├── a  (4 CSV)\n├── b  (4 CSV)\n└── c  (4 CSV)\n\nA word  another\nmore  words\n"
    )

    assert not of(text, tmp_path, "log.txt").grids


def test_a_list_of_keys_and_values_is_a_row_and_text_too(tmp_path: Path) -> None:
    document = of("# R\n\n- **Latency**: 3.1 ms\n- QPS: 320 (8 clients)\n\nEnd: of it\n", tmp_path)

    assert cells(document) == [[("Latency", "QPS"), ("3.1 ms", "320 (8 clients)")]]
    assert [line.line for line in document.text] == [3, 4, 6]


def test_csv_with_comments_other_marks_and_uneven_rows(tmp_path: Path) -> None:
    document = of('# GPU: A100\na;b\n1;"2;5"\n\n3\n# skipped;9\n', tmp_path, "x.csv")

    assert cells(document) == [[("a", "b"), ("1", "2;5"), ("3", "")]]
    assert [row.line for row in document.grids[0].rows] == [3, 5]
    assert document.grids[0].before[0] == "GPU: A100"
    assert document.warnings == (
        "1 rows have more or fewer cells than the 2 headings, the first in line 5.",
    )


def test_json_of_every_shape(tmp_path: Path) -> None:
    shapes = {
        '[{"ms": 1.50, "n": 2}, {"ms": 3.0}]': [[("ms", "n"), ("1.50", "2"), ("3.0", "")]],
        '{"gpu": "A100", "runs": [{"a": {"b": 1}, "c": null}]}': [[("a.b", "c"), ("1", "")]],
        '{"eager": {"ms": 1}, "compiled": {"ms": 2}}': [
            [("name", "ms"), ("eager", "1"), ("compiled", "2")]
        ],
        '{"ms": 1}\n{"ms": 2}': [[("ms",), ("1",), ("2",)]],
        '{"ms": 1.5, "ok": true}': [[("ms", "ok"), ("1.5", "true")]],
        '[{"batch": 1, "runs": [{"ms": 2}, {"ms": 3}]}]': [
            [("batch",), ("1",)],
            [("ms",), ("2",), ("3",)],
        ],
    }
    for text, expected in shapes.items():
        assert cells(of(text, tmp_path, "x.json")) == expected


def test_what_stands_around_a_list_in_json_holds_for_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    rows = [{"batch": 8, "seq_len": 1024, "ms": 100.0}]
    path.write_text(json.dumps({"device": "NVIDIA H200", "dtype": "bf16", "runs": rows}))

    (sheet,) = sheets.understood(read(path), mapping.NOTHING).sheets

    (value,) = sheet.rows[0].values
    assert [one.name for one in value.gpus] == ["H200"]
    assert value.dtypes == ("bf16",)


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"", "x.md", "nothing to audit"),
        (b" \n\n", "x.csv", "nothing to audit"),
        (b"{", "x.json", "is no JSON"),
        (b"hello", "x.json", "is no JSON"),
        (b"[" * 100_000, "x.json", "is no JSON"),
        (b"\x00\x01\x02", "x.md", "is no text"),
        (b"SQLite format 3\x00", "x.csv", "tracelens summarize"),
        (b"\x1f\x8b\x08", "x.json", "is no text"),
        (b"a,b,c\n1,2," + b"x" * (2 << 20) + b"\n", "x.csv", "field larger"),
        (b"a" + b",b" * 999 + b"\n" + (b"1" + b",2" * 999 + b"\n") * 1001, "x.csv", "cells"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(
    content: bytes, name: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises((UnreadableError, NothingToShowError), match=says):
        of(content, tmp_path, name)


def test_a_file_that_is_not_there_is_a_folder_or_is_forbidden(nobody: Nobody) -> None:
    folder, being_nobody = nobody
    locked = folder / "locked.md"
    locked.write_text("| a |\n|---|\n| 1 |\n")
    locked.chmod(0o000)

    for path in (folder / "absent.md", folder, locked):
        with being_nobody(), pytest.raises(UnreadableError, match="cannot be read"):
            read(path)


def test_long_lines_deep_json_and_many_columns_end_soon(tmp_path: Path) -> None:
    wide = "| " + " | ".join("ms" for _ in range(3000)) + " |\n"
    text = wide + "|---" * 3000 + "|\n" + wide.replace("ms", "1.0")
    nested = '{"a":' * 400 + '[{"ms": 1}]' + "}" * 400

    assert of(text, tmp_path).grids
    of("|" * 2_000_000, tmp_path)
    for once in (
        "|-",
        " ",
        "1,",
        "1 + ",
        "1/",
        "10% (",
        "a: ",
        "a=1,",
        "drops by 10% ",
        "-",
        "| - ",
    ):
        hostile = (once * (20_000 // len(once)) + "x|\n") * 20
        judge.judged(sheets.understood(of(f"{hostile}|a|\n|-|\n|1|\n", tmp_path), mapping.NOTHING))
    of("**" * 100_000 + "`" * 500_000, tmp_path)
    of(nested, tmp_path, "x.json")


def test_names_out_of_a_file_never_act_on_a_terminal(tmp_path: Path) -> None:
    text = (
        "| batch | seq | \x1b[3x (ms) | \x1b[3x (tok/s) |\n|--|--|--|--|\n| 1 | 9 | 10.0 | 77 |\n"
    )

    (checked,) = [one for name, one in of_text(text, tmp_path).checks if name == "throughput"]

    assert checked.verdict == "inconsistent"

"""Write the pages of docs/ that can be generated from the code; `--check` tells if one is stale.

usage: python docs/generate.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracelens import hardware, registry, workload
from tracelens.__main__ import tracelens
from tracelens.tables.build import GPU_WORK, all_tables
from tracelens.tables.memory_report import MEMORY
from tracelens.trace.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tracelens.tables import Table
    from tracelens.tables.build import Topic

DOCS = Path(__file__).parent
HARDWARE = """\
# GPUs and their ceilings

What tracelens holds the work of a GPU against, unless [`tracelens bench
ceilings`](commands/bench.md) has measured it. The figures are NVIDIA's, of one GPU; a cell is empty
where nothing is stated, or not for sure. A GPU that is not listed has no ceilings until they are
measured: nothing is guessed from a similar name. `tracelens list hardware` prints the list.

- Rates are those of matrix products accumulated in fp32 (int8: in int32), by tensor cores where
  they have the format. On GeForce, fp16 and fp8 accumulated in fp16 are twice as fast (torch does
  so on request); those rates are known, too, and are no ceilings.
- They hold at a stated clock. H100 and H200 state 1,830 MHz for the tensor cores (1,980 for fp32,
  which is what the table has), and may run at up to 1,980; GeForce and workstation boards are taken
  to exceed the stated clock by a quarter at most. A rate above the data sheet but within that is
  called so; above it, it is *impossible*: operations, bytes or time were counted wrongly. Bandwidth
  is allowed 3 %, since it is stated in round numbers.
- The ridge is the rate over the bandwidth: work of fewer operations per byte is bound by memory.
- Memory and L2 are in binary units; rates, bandwidth and NVLink (both directions together) in
  decimal ones.
"""
HEAD = "<!-- Written by docs/generate.py: change the code, then run `make docs`. -->\n"


def schema_page() -> Iterator[str]:
    """Give the lines of the page on the data model."""
    yield "# The data model"
    yield ""
    yield "Every reader turns a recording into these tables, and every analysis reads them."
    yield "Times are nanoseconds on the recording's own clock, which may start below zero;"
    yield "intervals are [start, end). A table that was not recorded is absent, which is not the"
    yield "same as empty. Columns marked * are read on request only: `tracelens export` asks."
    for table in TABLES.values():
        yield from ("", f"## `{table.name}`", "", f"A row is {table.row}.", "")
        yield from ("| column | type | meaning |", "| --- | --- | --- |")
        for column in table.columns:
            kind = getattr(column.dtype, "__name__", type(column.dtype).__name__)
            mark = " *" if column.on_request else ""
            yield f"| `{column.name}`{mark} | {kind} | {column.meaning} |"


def tables_page() -> Iterator[str]:
    """Give the lines of the page on the tables of a report."""
    yield "# Tables"
    yield ""
    yield "What `tracelens summarize --table NAME` can show; `--table all` shows every one. The"
    yield "name of an nsys report is accepted for the table that answers the same question."
    yield from _tables(GPU_WORK)


def memory_tables_page() -> Iterator[str]:
    """Give the lines of the page on the tables of memory."""
    yield "# Tables of memory"
    yield ""
    yield "What `tracelens memory --table NAME` can show; `--table all` shows every one."
    yield from _tables(MEMORY)


def workloads_page() -> Iterator[str]:
    """Give the lines of the page on the workloads."""
    yield "# Workloads"
    yield ""
    yield "What `tracelens capture NAME` can run. A preset is part of the name: `gpt2-xl` is preset"
    yield "`xl` of `gpt2`; options that are given come on top. `tracelens capture NAME --dry-run`"
    yield "says what a step costs. On the CPU they run in any size that fits into its memory."
    for name, entry in registry.entries("workload").items():
        kind = entry.load()
        yield from ("", f"## `{name.replace('_', '-')}`", "", entry.summary, "")
        if kind.presets:
            presets = ", ".join(f"`{preset}`" for preset in kind.presets)
            yield from (f"Presets: {presets}.", "")
        yield from ("| option | default | |", "| --- | --- | --- |")
        for one in workload.options_of(kind):
            choices = f" One of {', '.join(one.choices)}." if one.choices else ""
            default = "" if one.default is None else one.default
            if one.type is bool:
                default = "on" if one.default else "off"
            yield f"| `--{one.name.replace('_', '-')}` | {default} | {one.help}{choices} |"


def hardware_page() -> Iterator[str]:
    """Give the lines of the page on the GPUs whose ceilings are known."""
    yield from HARDWARE.splitlines()
    known = hardware.devices()
    formats = list(dict.fromkeys(dtype for one in known for dtype in one.matmul_flops_per_s))
    heads = ("GPU", "chip", "SMs", "memory", "bandwidth", "L2", "NVLink", "boost")
    yield from ("", "## Memory and processors", "", _row(heads), _row("---" for _ in heads))
    for one in known:
        yield _row(
            (
                one.name,
                f"{one.architecture} {one.capability}",
                _figure(one.sm_count),
                _figure(one.memory_bytes, 2**30, " GiB"),
                _figure(one.bandwidth_bytes_per_s, 1e9, " GB/s"),
                _figure(one.l2_bytes, 2**20, " MiB"),
                _figure(one.nvlink_bytes_per_s, 1e9, " GB/s"),
                _figure(one.boost_hz, 1e6, " MHz"),
            )
        )
    for title, rates in (
        ("Dense matrix products, TFLOP/s", "matmul_flops_per_s"),
        ("The same with 2:4 sparsity", "sparse_flops_per_s"),
    ):
        yield from ("", f"## {title}", "", _row(("GPU", *formats)))
        yield _row("---" for _ in ("GPU", *formats))
        for one in known:
            if stated := getattr(one, rates):
                yield _row((one.name, *(_figure(stated.get(dtype), 1e12) for dtype in formats)))
    yield from ("", "## Ridge points, FLOP per byte", "", _row(("GPU", *formats)))
    yield _row("---" for _ in ("GPU", *formats))
    for one in known:
        if one.matmul_flops_per_s:
            yield _row((one.name, *(_figure(one.ridge(dtype), digits=4) for dtype in formats)))
    yield from ("", "## Where the figures are from", "")
    for source in dict.fromkeys(source for one in known for source in one.sources):
        of = ", ".join(one.name for one in known if source in one.sources)
        yield f"- [{source.title}]({source.url}): {of}"
    yield from ("", "Remarks:", "")
    yield from (f"- {one.name}: {one.note}" for one in known if one.note)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figure(value: float | None, unit: float = 1, name: str = "", digits: int = 6) -> str:
    return "" if value is None else f"{value / unit:.{digits}g}{name}"


def _tables(topic: Topic[Any]) -> Iterator[str]:
    for name in all_tables(topic):
        table: Table = registry.load(topic.tables, name)
        known = registry.entries(topic.analyses)
        analysis = known.get(table.analysis) or registry.entries(topic.tables)[name]
        yield from ("", f"## `{name}`", "", analysis.summary)
        if table.stands_for:
            alike = ", ".join(f"`{alias}`" for alias in table.stands_for)
            yield f"Stands for {alike}."
        yield from ("", f"*{table.note}*", "")
        yield from ("| column | heading | unit |", "| --- | --- | --- |")
        for column in table.columns:
            yield f"| `{column.name}` | {column.heading} | {column.unit} |"


def usage_page() -> Iterator[str]:
    """Give the lines of the page that holds the help of every command."""
    yield "# Usage"
    yield ""
    yield "Exit status: 0 done; 1 a bug of tracelens; 2 bad usage; 3 the input cannot be read or is"
    yield "no recording; 4 nothing to show. `TRACELENS_DEBUG=1` shows where an error came from."
    context = click.Context(
        tracelens,
        info_name="tracelens",
        terminal_width=88,
        max_content_width=88,
        help_option_names=["-h", "--help"],
    )
    yield from ("", "```text", tracelens.get_help(context).strip(), "```")
    for name in tracelens.list_commands(context):
        command = tracelens.get_command(context, name)
        inner = click.Context(
            command, info_name=name, parent=context, terminal_width=88, max_content_width=88
        )
        yield from (
            "",
            f"## tracelens {name}",
            "",
            "```text",
            command.get_help(inner).strip(),
            "```",
        )


PAGES = {
    "hardware.md": hardware_page,
    "schema.md": schema_page,
    "tables.md": tables_page,
    "memory-tables.md": memory_tables_page,
    "usage.md": usage_page,
    "workloads.md": workloads_page,
}


def main() -> int:
    """Write the pages, or with --check return 1 if one of them differs."""
    stale = []
    for name, lines in PAGES.items():
        page = DOCS / name
        text = HEAD + "\n".join(lines()) + "\n"
        if "--check" not in sys.argv:
            page.write_text(text, encoding="utf-8")
        elif not page.is_file() or page.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"Stale: {', '.join(stale)}. Run `make docs` and commit what it writes.")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())

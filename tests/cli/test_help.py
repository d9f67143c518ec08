"""Help: quick, complete, and ending in lines that can be pasted."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from tests.asking import Shell
from tracelens import __version__, registry
from tracelens.__main__ import tracelens

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = tuple(name.replace("_", "-") for name in registry.names("command"))
HEAVY = ("polars", "torch", "dash", "triton", "plotly", "rich", "numpy")


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give a shell."""
    return Shell(capsys)


def examples(text: str) -> list[str]:
    """Return the lines under `Examples:` of a help text, continued lines joined."""
    _, _, after = text.partition("Examples:\n")
    lines = [line.strip() for line in after.splitlines() if line.strip()]
    return re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()


def imported(*arguments: str) -> set[str]:
    """Return the modules that a run of the command imports."""
    program = (
        "import sys; from tracelens.__main__ import run; status = run(sys.argv[1:]);"
        "print('\\n'.join(sys.modules), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return {module.partition(".")[0] for module in done.stderr.split()}


@pytest.mark.parametrize("asked", [("--help",), ("list",), ("summarize", "--help"), ("--version",)])
def test_help_and_lists_import_nothing_heavy(asked: tuple[str, ...]) -> None:
    assert not imported(*asked) & set(HEAVY)


def test_the_module_can_be_run() -> None:
    command = [sys.executable, "-m", "tracelens", "--version"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert __version__ in done.stdout


def test_help_lists_every_command_with_a_sentence(shell: Shell) -> None:
    said = shell("--help")

    assert said.status == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} +\S", said.out, re.MULTILINE)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_ends_in_lines_that_can_be_pasted(shell: Shell, command: str) -> None:
    said = shell(*([command] if command else []), "--help")
    lines = examples(said.out)

    assert said.status == 0
    assert lines
    assert said.out.rstrip().endswith(lines[-1])
    assert "\\b" not in said.out
    for line in lines:
        assert "tracelens " in line


def pasted() -> Iterator[tuple[str, ...]]:
    for command in ("", *COMMANDS):
        one = tracelens
        context = click.Context(tracelens, info_name="tracelens")
        if command:
            one = tracelens.get_command(context, command)  # type: ignore[assignment]
        for line in examples(one.get_help(context).replace("\b", "")):
            words = shlex.split(line.partition(" | ")[0].partition(" > ")[0])
            if words[0] == "tracelens":
                yield tuple(words[1:])


@pytest.mark.parametrize("words", list(pasted()), ids=" ".join)
def test_lines_of_the_help_are_understood(words: tuple[str, ...]) -> None:
    context = click.Context(tracelens, info_name="tracelens")
    command = tracelens.get_command(context, words[0])

    assert command is not None
    parsed = command.make_context(words[0], list(words[1:]), parent=context)
    for kind, option in (("table", "tables"), ("renderer", "renderer")):
        asked = parsed.params.get(option) or ()
        for name in (asked,) if isinstance(asked, str) else asked:
            if kind == "table":
                from tracelens.tables.build import resolve

                assert resolve(name, "memory_table" if words[0] == "memory" else "table")
            else:
                assert registry.load(kind, name)


def test_every_table_says_what_it_is(shell: Shell) -> None:
    said = shell("list", "tables")

    for name in registry.names("table"):
        assert re.search(rf"^  {name} +\S.*", said.out, re.MULTILINE)


def test_lists_of_all_kinds_can_be_asked_for_one_by_one(shell: Shell) -> None:
    whole = shell("list").out
    headings = re.findall(r"^(\w+)$", whole, re.MULTILINE)

    assert {"commands", "tables", "readers", "analyses"} <= set(headings)
    for heading in headings:
        for line in shell("list", heading).out.splitlines():
            assert line.split()[0] in whole


def test_an_unknown_kind_is_answered_with_the_nearest(shell: Shell) -> None:
    said = shell("list", "tabels")

    assert said.status == 2
    assert "Did you mean tables?" in said.err


def test_a_pipe_that_closes_early_is_no_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    command = f"{shlex.quote(sys.executable)} -m tracelens list | head -n 1"

    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)

    assert done.stdout.strip()
    assert done.stderr == ""

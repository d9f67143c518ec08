"""Completion in a shell: what is offered, quickly and without reading anything heavy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tracelens import registry
from tracelens.__main__ import run

if TYPE_CHECKING:
    from pathlib import Path


def offered(line: str, *python: str) -> list[str]:
    """Return what bash would be offered at the end of the line, asked as bash asks."""
    words = line.split()
    at = len(words) if line.endswith(" ") else len(words) - 1
    done = subprocess.run(
        [sys.executable, *(python or ("-m", "tracelens"))],
        env={
            **os.environ,
            "COMP_WORDS": line,
            "COMP_CWORD": str(at),
            "_TRACELENS_COMPLETE": "bash_complete",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return [item.partition(",")[2] for item in done.stdout.splitlines()]


def test_commands_are_offered() -> None:
    every = {"capture", "completion", "doctor", "explore", "export", "list", "summarize"}

    assert every <= set(offered("tracelens "))
    assert offered("tracelens exp") == ["explore", "export"]


def test_options_are_offered() -> None:
    assert {"--table", "--format", "--within"} <= set(offered("tracelens summarize --"))
    assert offered("tracelens export --wi") == ["--within"]


def test_names_out_of_rooms_are_offered() -> None:
    assert set(offered("tracelens summarize --table ")) >= set(registry.names("table"))
    assert set(offered("tracelens summarize --format ")) >= set(registry.names("renderer"))
    assert offered("tracelens summarize --table fam") == ["families"]
    assert offered("tracelens export --to ") == ["nsys-sqlite", "parquet", "perfetto"]
    assert offered("tracelens doctor --format ") == ["text", "json"]
    assert offered("tracelens completion ") == ["bash", "zsh", "fish"]


def test_paths_are_left_to_the_shell() -> None:
    assert offered("tracelens summarize ") == [""]


@pytest.mark.parametrize(
    "line",
    ["tracelens ", "tracelens summarize --table ", "tracelens export --to ", "tracelens doctor --"],
)
def test_nothing_heavy_is_imported_to_complete(line: str) -> None:
    look = (
        "import sys, tracelens.__main__ as m\n"
        "try: m.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'polars', 'rich', 'adbc_driver_sqlite', 'torch'} & sys.modules.keys()\n"
        "print(f'heavy,{sorted(heavy)}')"
    )

    assert offered(line, "-c", look)[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["completion", shell]) == 0
    named = capsys.readouterr().out
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert run(["completion"]) == 0

    assert capsys.readouterr().out == named
    assert f"_TRACELENS_COMPLETE={shell}_complete" in named


def test_an_unknown_shell_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")

    assert run(["completion"]) == 2
    assert run(["completion", "powershell"]) == 2
    assert "tracelens completion bash|zsh|fish" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="bash is no part of Windows")
def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash, "the tests need bash"
    program = tmp_path / "tracelens"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tracelens "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(tracelens completion bash)"
        COMP_WORDS=(tracelens export --to p) COMP_CWORD=3
        _tracelens_completion tracelens p --to
        echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    done = subprocess.run(
        [bash, "--norc", "-c", script], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["parquet", "perfetto"]


@pytest.mark.parametrize("command", ["export", "doctor", "completion"])
def test_help_ends_in_lines_to_paste(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0

    text = capsys.readouterr().out
    examples = text.partition("Examples:\n")[2].splitlines()
    assert examples
    assert all("tracelens" in line for line in examples)

"""Appendix: the files that this report was made of, and with what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

import tracelens
from tracelens.errors import NothingToShowError
from tracelens.reports import Facts, Grid, Paragraph, Section
from tracelens.tables import Column, Filled, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.reports import Block
    from tracelens.reports.subject import Run, Subject

FILES: Final = Table(
    analysis="files",
    title="Files",
    columns=(
        Column("file", "file", "name"),
        Column("bytes", "bytes", "count"),
        Column("sha256", "SHA-256", "name"),
    ),
    note="The hash is of the file as it lies there, packed or not.",
)


def _make(subject: Subject) -> Iterator[Block]:
    yield from subject.each(lambda run: _of_run(subject, run))
    yield Paragraph(
        f"Made by tracelens {tracelens.__version__}. The same files give the same report, byte for "
        "byte."
    )


def _of_run(subject: Subject, run: Run) -> Iterator[Block]:
    if not run.files:
        raise NothingToShowError("no file was read")
    rows = [("path", run.path), *_recording(run)]
    yield Facts(subject.slug(run, "provenance"), "Provenance", tuple(rows))
    schema = {"file": pl.String, "bytes": pl.Int64, "sha256": pl.String}
    frame = pl.DataFrame(
        [(file.name, file.size_bytes, file.sha256) for file in run.files],
        schema=schema,
        orient="row",
    )
    yield Grid(subject.slug(run, "files"), Filled("files", FILES, frame))


def _recording(run: Run) -> Iterator[tuple[str, str]]:
    for report in run.reports():
        source = report.source
        yield "format", str(source.get("format"))
        for name in ("producer", "schema_version"):
            if source.get(name):
                yield name.replace("_", " "), str(source[name])
    if run.manifest is not None:
        yield "captured by", f"tracelens {run.manifest.tracelens or '(version not told)'}"


SECTION = Section("Appendix: provenance", _make)

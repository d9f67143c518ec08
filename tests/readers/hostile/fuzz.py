"""Fuzzing the reader: damaged and hostile exports, each run through the command line and judged.

    python -m tests.readers.hostile.fuzz --cases 10000 --seed 0

Cases run in child processes, so that one that crashes or hangs is found and named; a case is its
seed and number, and `--only N` runs one again with its complaints and keeps its file.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from tests.build import Nsys, training_step
from tests.nsys_schema import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Make = Callable[[int, int, Path], tuple[str, Path]]

PATIENCE_S: Final = 8.0
"""A case that takes longer is a complaint."""
_HANGS_S: Final = 60.0
_MEMORY_BYTES: Final = 3 << 30
_ODD_NAMES: Final = (
    "", "a\0b", "\x1b[31mred\x1b[0m", "[bold]markup[/bold]", "[/]", "forward", "step 3", "<b>",
    "a|b`c`", "\\end{table} % $x_1^2$ & ~", "💥" * 50, "x" * 70_000, "<" * 3_000, "(" * 3_000,
    "\r\n\u2028", "\u202egnp.exe", "%s{0}", "=cmd|' /C calc'!A0",
)  # fmt: skip
_NUMBERS: Final = tuple(
    sign * (2**bits + off)
    for bits in (0, 7, 8, 16, 24, 31, 32, 40, 48, 53, 61, 62, 63)
    for off in (-1, 0, 1)
    for sign in (1, -1)
    if -(2**63) <= sign * (2**bits + off) < 2**63
)


class Judge(Protocol):
    """Says what came of a file of a kind, in every renderer or one."""

    def __call__(self, path: Path, kind: str, *, every: bool) -> Verdict: ...


@dataclass
class Verdict:
    """What came of one case."""

    status: int
    seconds: float
    complaints: list[str] = field(default_factory=list)


def value(rng: random.Random) -> Any:
    """Return a value of any type that SQLite knows."""
    return rng.choice(
        (
            lambda: rng.choice(_NUMBERS),
            lambda: rng.randrange(-50, 5_000),
            lambda: rng.getrandbits(63) - rng.getrandbits(63),
            lambda: rng.choice((1.5, -0.0, 1e300, float("inf"), float("-inf"), 2.0**62, 3.0)),
            lambda: rng.choice(_ODD_NAMES),
            lambda: str(rng.choice(_NUMBERS)),
            lambda: rng.randbytes(rng.choice((0, 1, 3, 8, 500))),
            lambda: None,
        )
    )()


def built(rng: random.Random, *, small: bool = False) -> Nsys:
    """Return a trace with a bit of everything, of any schema."""
    trace = Nsys(rng.choice(tuple(PRODUCTS)))
    trace.device(0, "NVIDIA H200")
    for number in range(1 if small else rng.randrange(1, 4)):
        training_step(
            trace, at=5_000 * number, pid=rng.choice((100, 200)), ranges=rng.random() < 0.7
        )
    main = trace.thread("python")
    main.push("step 1", 0, 5_000)
    main.push("gemm", 2_400, 2_500, domain="cuBLAS", registered=True)
    main.push("open", 2_450, None)
    main.push("request", 2_460, 2_600, kind="start_end")
    main.memset(bytes=10, at=2_420, run=(2_600, 2_601))
    if "CUPTI_ACTIVITY_KIND_GRAPH_TRACE" in trace.tables:
        main.graph(graph_id=7, at=2_410, run=(2_500, 2_600))
    if "CUDA_GPU_MEMORY_USAGE_EVENTS" in trace.tables:
        trace.memory_usage(5, 1024, 0x7F00)
    if "DIAGNOSTIC_EVENT" in trace.tables:
        trace.diagnostic("Not all CUDA events might have been collected.")
    trace.capture_option("COMMAND", "python")
    trace.capture_option("ARGUMENT_0", "train.py")
    return trace


def odd_values(rng: random.Random, folder: Path) -> Path:
    """Write an export in which cells, columns, keys and tables are not what they should be."""
    path = built(rng).write(folder / "run.sqlite")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE rootpage")]
        tables = [name for name in tables if not name.startswith("sqlite_")]
        for table in rng.sample(tables, rng.randrange(1, len(tables) + 1)):
            columns = [c for (c,) in db.execute(f"SELECT name FROM pragma_table_info('{table}')")]
            kind = rng.choice(("plain", "untyped", "as it is", "as it is"))
            if kind != "as it is":
                typed = " INTEGER" if kind == "plain" else ""
                made = ", ".join(f"{c}{typed}" for c in columns)
                db.execute(f"ALTER TABLE {table} RENAME TO old")
                db.execute(f"CREATE TABLE {table} ({made})")
                db.execute(f"INSERT INTO {table} SELECT * FROM old")
                db.execute("DROP TABLE old")
            for _ in range(rng.randrange(0, 12)):
                _spoil(rng, db, table, rng.choice(columns))
            _spoil_table(rng, db, table, columns)
    return path


def _spoil(rng: random.Random, db: sqlite3.Connection, table: str, column: str) -> None:
    where = rng.choice(("", " WHERE rowid % 2", " WHERE rowid = 1", " WHERE rowid = 3"))
    with suppress(sqlite3.IntegrityError):  # a primary key takes integers only
        db.execute(f"UPDATE OR IGNORE {table} SET {column} = ?{where}", (value(rng),))


def _spoil_table(
    rng: random.Random, db: sqlite3.Connection, table: str, columns: list[str]
) -> None:
    what = rng.random()
    if what < 0.06:
        db.execute(f"DROP TABLE {table}")
    elif what < 0.12:
        db.execute(f"DELETE FROM {table}")
    elif what < 0.18 and len(columns) > 1:
        column = rng.choice(columns)
        key = db.execute(f"SELECT pk FROM pragma_table_info('{table}') WHERE name = '{column}'")
        if not key.fetchone()[0]:
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    elif what < 0.22:
        db.execute(f"ALTER TABLE {table} RENAME TO hidden_{table}")
        db.execute(f"CREATE VIEW {table} AS SELECT * FROM hidden_{table}")
    elif what < 0.26:
        many = ", ".join("?" * len(columns))
        rows = [[value(rng) for _ in columns] for _ in range(20)]
        with suppress(sqlite3.IntegrityError):
            db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({many})", rows)
    elif what < 0.30:
        db.execute(f"INSERT OR IGNORE INTO {table} SELECT * FROM {table}")
    elif what < 0.34:
        with suppress(sqlite3.IntegrityError):
            step = rng.choice((7, 10**9, 2**58))
            db.execute(f"UPDATE OR IGNORE {table} SET rowid = rowid * {step}")


def flipped(rng: random.Random, folder: Path) -> Path:
    """Write an export with bytes changed: few or many, anywhere or near the pages' heads."""
    data = bytearray(_sample(rng, folder).read_bytes())
    page = int.from_bytes(data[16:18], "big")
    for _ in range(rng.choice((1, 1, 2, 5, 30, 300))):
        at = rng.randrange(len(data))
        if rng.random() < 0.5:  # where b-tree headers and cell pointers are
            at = at // page * page + rng.randrange(40)
        if rng.random() < 0.1:
            at = rng.randrange(100)
        data[min(at, len(data) - 1)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return _written(folder / "run.sqlite", data)


def shuffled(rng: random.Random, folder: Path) -> Path:
    """Write an export whose pages are swapped, doubled, or zeros."""
    data = bytearray(_sample(rng, folder).read_bytes())
    page = int.from_bytes(data[16:18], "big")
    for _ in range(rng.choice((1, 1, 2, 8))):
        one, other = (rng.randrange(1, len(data) // page) * page for _ in "ab")
        zeros = rng.random() < 0.2
        data[one : one + page] = bytes(page) if zeros else data[other : other + page]
    return _written(folder / "run.sqlite", data)


def cut(rng: random.Random, folder: Path) -> Path:
    """Write the beginning of an export, to a page's end or to anywhere."""
    data = _sample(rng, folder).read_bytes()
    page = int.from_bytes(data[16:18], "big")
    at = rng.randrange(len(data) + 1)
    return _written(folder / "run.sqlite", data[: at // page * page if rng.random() < 0.5 else at])


def packed(rng: random.Random, folder: Path) -> Path:
    """Write a .gz that is cut off or has bytes changed."""
    import gzip

    data = bytearray(gzip.compress(_sample(rng, folder).read_bytes(), 1))
    if rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
    for _ in range(rng.choice((0, 1, 5)) if data else 0):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return _written(folder / "run.sqlite.gz", data)


def columnar(rng: random.Random, folder: Path) -> Path:
    """Write a Parquet or Arrow folder in which files are cut, changed, missing or retyped."""
    import polars as pl

    trace = built(rng, small=True)
    suffix = rng.choice(("parquet", "arrow"))
    write = trace.write_parquet if suffix == "parquet" else trace.write_arrow
    path = write(folder / "run_dir")
    files = sorted(path.iterdir())
    for file in rng.sample(files, rng.randrange(1, min(6, len(files)))):
        what = rng.random()
        data = bytearray(file.read_bytes())
        if what < 0.15:
            file.unlink()
        elif what < 0.35:
            file.write_bytes(data[: rng.randrange(len(data))])
        elif what < 0.65:
            for _ in range(rng.choice((1, 3, 20))):
                data[rng.randrange(len(data))] = rng.randrange(256)
            file.write_bytes(data)
        else:
            frame = pl.read_parquet(file) if suffix == "parquet" else pl.read_ipc_stream(file)
            column = rng.choice(frame.columns)
            other: tuple[pl.Expr, ...] = (
                pl.lit("text"), pl.lit(1.5), pl.lit(None), pl.lit(b"\xff"), pl.lit(True),
                pl.lit(2**63, pl.UInt64), pl.lit(-5, pl.Int8), pl.concat_list(pl.lit(1)),
                pl.struct(a=1), pl.lit(2**62), pl.lit("x", pl.Categorical),
            )  # fmt: skip
            frame = frame.with_columns(rng.choice(other).alias(column))
            frame = frame.drop(column) if rng.random() < 0.2 else frame
            if suffix == "parquet":
                frame.write_parquet(file)
            else:
                frame.write_ipc_stream(file)
    return path


def journalled(rng: random.Random, folder: Path) -> Path:
    """Write an export with a write-ahead log or journal in which bytes are changed."""
    path = built(rng, small=True).write(folder / "run.sqlite", wal=True)
    log = path.with_name("run.sqlite-wal")
    data = bytearray(log.read_bytes())
    for _ in range(rng.choice((1, 5, 50))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    log.write_bytes(data)
    if rng.random() < 0.3:
        log.rename(path.with_name("run.sqlite-journal"))
    return path


KINDS: Final[dict[str, tuple[Callable[[random.Random, Path], Path], int]]] = {
    "values": (odd_values, 40),
    "flipped": (flipped, 25),
    "shuffled": (shuffled, 10),
    "cut": (cut, 8),
    "packed": (packed, 3),
    "columnar": (columnar, 10),
    "journalled": (journalled, 4),
}
CORPUS: Final = Path(__file__).parents[4] / "shared" / "corpus" / "nsys"


def _sample(rng: random.Random, folder: Path) -> Path:
    small = sorted(CORPUS.glob("*.sqlite"), key=lambda f: f.stat().st_size)[:2]
    if small and rng.random() < 0.3:
        return rng.choice(small)
    return built(rng, small=rng.random() < 0.5).write(folder / "whole.sqlite")


def _written(path: Path, data: bytes | bytearray) -> Path:
    path.write_bytes(data)
    return path


def made(seed: int, number: int, folder: Path) -> tuple[str, Path]:
    """Write the case of this number and return its kind and file."""
    rng = random.Random(f"{seed}:{number}")  # noqa: S311
    kind = rng.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    return kind, KINDS[kind][0](rng, folder)


def judged(path: Path, kind: str, *, every: bool) -> Verdict:
    """Run `summarize` and say what is wrong with what it does; ``every`` tries all renderers."""
    from tracelens import registry

    since = time.monotonic()
    status, out, err = ran("summarize", path, "--format", "json", "--no-cache")
    verdict = Verdict(status, time.monotonic() - since)
    verdict.complaints = list(_complaints(path, kind, status, out, err))
    if verdict.seconds > PATIENCE_S:
        verdict.complaints.append(f"took {verdict.seconds:.1f} s")
    for renderer in registry.names("renderer") if every else ():
        tables = "totals" if renderer == "csv" else "all"
        other, out, err = ran("summarize", path, "-f", renderer, "-t", tables, "--no-cache")
        if other != status:
            verdict.complaints.append(f"{renderer}: status {other} beside {status}: {err[:300]}")
        if "\x1b" in out or "\0" in out:
            verdict.complaints.append(f"{renderer}: control characters in the output")
    return verdict


def ran(*arguments: object) -> tuple[int, str, str]:
    """Run a command in this process and return its status, output and errors."""
    from tracelens.__main__ import run

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run([str(argument) for argument in arguments])
    return status, out.getvalue(), err.getvalue()


def _complaints(path: Path, kind: str, status: int, out: str, err: str) -> Iterator[str]:
    if status not in (0, 3, 4):
        yield f"status {status}: {err[:400]}"
    if status and (out or not err or err.count("\n") > 3):
        yield f"status {status}, but it wrote: {out[:200]!r} {err[:400]!r}"
    if status:
        return
    document = json.loads(out)
    (totals,) = document["tables"]["totals"]
    for table in ("phases", "families"):
        rows = document["tables"].get(table, [])
        for key in ("kernels", "kernel_time_ns"):
            if (found := sum(row[key] for row in rows)) != totals[key]:
                yield f"{table}.{key} add up to {found}, not {totals[key]}"
    covered = dict(document["coverage"])
    if covered.pop("gpu_ops") != sum(covered.values()):
        yield f"coverage does not add up: {document['coverage']}"
    for key, number in totals.items():
        if isinstance(number, int) and number < 0:
            yield f"totals.{key} is {number}"
    said = " ".join([*document["warnings"], *document["left_out"].values()])
    if kind == "values" and "set aside" not in said and "could not be read" not in said:
        yield from _wrong_totals(path, totals)


def _wrong_totals(path: Path, totals: dict[str, Any]) -> Iterator[str]:
    """Add up the kernels with Python's integers, where nothing was said of rows set aside."""
    sql = 'SELECT "start", "end" FROM CUPTI_ACTIVITY_KIND_KERNEL'
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        db.text_factory = bytes
        try:
            rows = db.execute(sql).fetchall()
        except sqlite3.Error:
            return
        if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'view'").fetchall():
            return
    if all(isinstance(t, int) for row in rows for t in row):
        true = (len(rows), sum(end - start for start, end in rows))
        if true != (found := (totals["kernels"], totals["kernel_time_ns"])):
            yield f"kernels and their time are {found}, not {true}, and nothing is said"


def _work(seed: int, numbers: range, make: Make, judge: Judge) -> None:
    """Run cases one after another, telling each one's beginning and end on standard output."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        print(json.dumps({"begin": number}), flush=True)  # noqa: T201
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            kind, path = make(seed, number, Path(folder))
            try:
                verdict = judge(path, kind, every=number % 10 == 0)
            except BaseException as error:  # noqa: BLE001
                verdict = Verdict(-1, 0, [f"{type(error).__name__}: {error}"])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak > _MEMORY_BYTES:
            verdict.complaints.append(f"memory reached {peak >> 20} MiB")
        told = {"end": number, "kind": kind, "status": verdict.status, "s": verdict.seconds}
        print(json.dumps({**told, "complaints": verdict.complaints}), flush=True)  # noqa: T201
        if peak > _MEMORY_BYTES:
            return


@dataclass
class _Run:
    """What came of all cases so far; ``module`` runs them."""

    module: str
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    bad: list[tuple[int, str, list[str]]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)

    def children(self, seed: int, numbers: range) -> None:
        """Run cases in child processes, a new one after each that dies or hangs."""
        number = numbers.start
        while number < numbers.stop:
            number = self._child(seed, range(number, min(numbers.stop, number + 500)))

    def _child(self, seed: int, numbers: range) -> int:
        command = [sys.executable, "-m", self.module, "--seed", str(seed)]
        command += ["--child", str(numbers.start), str(numbers.stop)]
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as child,
        ):
            current = self._listen(child)
            if current is None:
                child.wait()
                return self._next if self._next > numbers.start else numbers.stop
            child.kill()
            status = child.wait()
            errors.seek(max(0, errors.seek(0, 2) - 600))
            self.bad.append((current, "?", [f"the process ended: {status} {errors.read()}"]))
            self.counts["?", "died"] += 1
            return current + 1

    def _listen(self, child: subprocess.Popen[str]) -> int | None:
        import select

        assert child.stdout is not None
        current: int | None = None
        self._next = -1
        while True:
            if not select.select([child.stdout], [], [], _HANGS_S)[0]:
                return current
            line = child.stdout.readline()
            if not line:
                return current
            told = json.loads(line)
            if "begin" in told:
                current = told["begin"]
                continue
            current, self._next = None, told["end"] + 1
            self.counts[told["kind"], str(told["status"])] += 1
            self.slowest = max(self.slowest, (told["s"], told["end"]))
            if told["complaints"]:
                self.bad.append((told["end"], told["kind"], told["complaints"]))
                print(told["end"], told["kind"], *told["complaints"], sep="  ", flush=True)  # noqa: T201


def main(module: str, make: Make = made, judge: Judge = judged) -> None:
    """Run the cases that the command line asks for: those of the ``module`` that calls this."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--child", type=int, nargs=2)
    asked = parser.parse_args()
    os.environ["TRACELENS_CACHE_DIR"] = os.devnull
    if asked.child:
        _work(asked.seed, range(*asked.child), make, judge)
        return
    if asked.only is not None:
        folder = Path(tempfile.gettempdir()) / f"fuzz-{asked.seed}-{asked.only}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        kind, path = make(asked.seed, asked.only, folder)
        print(kind, path, judge(path, kind, every=True), sep="\n")  # noqa: T201
        return
    total = _Run(module)
    since = time.monotonic()
    total.children(asked.seed, range(asked.start, asked.start + asked.cases))
    for (kind, status), count in sorted(total.counts.items()):
        print(f"{kind:12} {status:>5} {count:7,}")  # noqa: T201
    print(f"{asked.cases:,} cases in {time.monotonic() - since:.0f} s, slowest {total.slowest}")  # noqa: T201
    for number, kind, complaints in total.bad:
        print(number, kind, *complaints, sep="  ")  # noqa: T201
    sys.exit(bool(total.bad))


if __name__ == "__main__":
    main("tests.readers.hostile.fuzz")

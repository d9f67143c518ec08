"""Measure the timeline's server: the round trip of a zoom by HTTP, size of replies, memory.

usage: python -m benchmarks.explorer_server [--kernels N ...] [--recording N ...] [--rounds N]

--kernels makes arrays of kernels on four streams, and nothing else; --recording repeats our sample
N times (15,484 GPU ops each, with their API calls and ranges) and reads it as the explorer does.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from urllib.request import Request, urlopen

from benchmarks import inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[1]
SHARES: Final = (1.0, 0.5, 0.1, 0.03, 0.01, 0.001, 0.0001)
PX: Final = 1_500
_STREAMS: Final = 4
_NAMES: Final = 100
_PLACE: Final = "000000000000"


@dataclass(frozen=True)
class Trip:
    """One question: seconds until its answer was unpacked, and bytes that came."""

    seconds: float
    size: int


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explorer_server",
                                     description=__doc__)  # fmt: skip
    parser.add_argument("--kernels", type=int, nargs="*", default=[1_000_000, 10_000_000])
    parser.add_argument("--recording", type=int, nargs="*", default=[140])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "benchmarks")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    print("| what | ready | zoom: median | slowest | reply: median | largest | memory | most |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for count in options.kernels:
        print(_line(f"{count / 1e6:g} M kernels, arrays alone", str(count), options.rounds))
    for repeat in options.recording:
        path = inputs.grown(options.data, repeat)
        _line("to fill the cache", str(path), 1)
        print(_line(f"recording, sample × {repeat}", str(path), options.rounds), flush=True)
    print(_circumstances(options.rounds))


def _line(what: str, of: str, rounds: int) -> str:
    """Return the row of one recording."""
    with _server(of) as (address, pid):
        ready = _asked(f"{address}/rows")
        rows = json.loads(urlopen(f"{address}/rows").read())  # noqa: S310 — our own server
        start, width = rows["start_ns"], rows["end_ns"] - rows["start_ns"]
        chance = random.Random(1)  # noqa: S311 — no secret
        trips = []
        for _ in range(rounds):
            for share in SHARES:
                span = max(int(share * width), 1)
                begin = start + int(chance.random() * (width - span))
                trips.append(_asked(f"{address}/view?from={begin}&to={begin + span}&px={PX}"))
        now, most = memory(pid)
    times, sizes = [t.seconds * 1e3 for t in trips], [t.size / 1e3 for t in trips]
    cells = (
        what, f"{ready.seconds:.1f} s",
        f"{statistics.median(times):.0f} ms", f"{max(times):.0f} ms",
        f"{statistics.median(sizes):.0f} kB", f"{max(sizes):.0f} kB",
        f"{now:.0f} MB", f"{most:.0f} MB",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _asked(address: str) -> Trip:
    """Ask as a browser does: packed, and unpacked here."""
    started = time.perf_counter()
    with urlopen(Request(address, headers={"Accept-Encoding": "gzip"})) as answer:  # noqa: S310
        body = answer.read()
        if answer.headers.get("Content-Encoding") == "gzip":
            gzip.decompress(body)
    return Trip(time.perf_counter() - started, len(body))


@contextmanager
def _server(of: str) -> Iterator[tuple[str, int]]:
    """Serve in a process of its own; give the routes' address and the process."""
    command = [sys.executable, "-m", "benchmarks.explorer_server", "--serve", of]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def memory(pid: int) -> tuple[float, float]:
    """Return resident memory now, and the most there was, in MB; NaN where /proc is not there."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return float("nan"), float("nan")
    now, most = (int(text.split(f"{key}:")[1].split()[0]) for key in ("VmRSS", "VmHWM"))
    return now * 1024 / 1e6, most * 1024 / 1e6


def serve(of: str) -> None:
    """Serve a recording's path or so many made kernels, and print the address first."""
    from flask import Flask
    from tracelens_dashboards.library import Library
    from tracelens_dashboards.timeline import register
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, code: Any = "-", size: Any = "-") -> None:
            """Say nothing."""

    app = Flask("benchmark")
    library: Any = _Made(int(of)) if of.isdecimal() else Library([Path(of)])
    name = _PLACE if of.isdecimal() else library.items[0].id
    register(SimpleNamespace(server=app), library)  # type: ignore[arg-type]
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    print(f"http://127.0.0.1:{server.server_port}/api/timeline/{name}", flush=True)
    server.serve_forever()


class _Made:
    """A library of one recording that was never written: kernels on streams, one after another."""

    def __init__(self, kernels: int) -> None:
        from tracelens_dashboards.library import Item, Opened

        self._opened = Opened(Item(_PLACE, "made", None, None, None, ""))
        self._opened.once("timeline", lambda: made(kernels))

    def open(self, _name: str) -> Any:
        """Return the recording."""
        return self._opened


def made(kernels: int) -> Any:
    """Return the rows: kernels of 1 to 200 us with gaps of up to 20 us, a tenth of them longer."""
    import numpy as np
    import polars as pl
    from tracelens_dashboards.timeline.pyramid import Spans, lanes
    from tracelens_dashboards.timeline.rows import Names, Row, Timeline

    from tracelens.classify import FAMILIES

    chance = np.random.default_rng(1)
    rows = []
    each = kernels // _STREAMS
    for stream in range(_STREAMS):
        took = chance.integers(1_000, 200_000, each)
        pause = chance.integers(0, 20_000, each) * chance.integers(0, 10, each) // 4
        start = np.cumsum(took + pause) - took
        name = chance.integers(0, _NAMES, each, np.int32)
        phase = (start // 50_000_000 % 3).astype(np.uint8)
        spans = Spans(start, start + took, name, phase, (name % 20).astype(np.uint8))
        del took, pause
        items = np.arange(each, dtype=np.uint32)
        rows.append(Row(f"s{stream}", "stream", "GPU 0", f"stream {stream}", "gpu_ops",
                        lanes=lanes(spans, items)))  # fmt: skip
    ids = pl.Series(range(_NAMES), dtype=pl.Int32)
    frame = pl.DataFrame({"name_id": ids, "name": [f"kernel {n}" for n in range(_NAMES)]})
    nothing = pl.DataFrame(schema={"name_id": pl.Int32, "kind": pl.String, "short_name": pl.String})
    named: Any = SimpleNamespace(trace={"names": frame.lazy()}, names=nothing)
    steps = pl.DataFrame(
        schema={"step": pl.Int32, "name": pl.String, "pid": pl.Int32, "start_ns": pl.Int64,
                "end_ns": pl.Int64}
    )  # fmt: skip
    phases = ("forward", "backward", "optimizer")
    return Timeline(tuple(rows), Names(named), phases, FAMILIES, steps)


def _circumstances(rounds: int) -> str:
    from importlib.metadata import version

    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "polars", "flask"))
    return (
        f"\n{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}, {packages}. A zoom is one GET of all rows at {PX:,} px, "
        f"gzip and its unpacking included, at {rounds} random places for each of {len(SHARES)} "
        "widths from all to 1/10,000. Ready: the first answer, with the recording in tracelens's "
        "cache. Memory: the server's resident set at the end, and its peak."
    )


if __name__ == "__main__":
    main()

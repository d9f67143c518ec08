"""Measure the explorer in a real browser: first numbers, zooms, sizes of replies, memory.

usage: python -m benchmarks.explorer [--made N] [--runs N] [--data DIR] [--write]

Needs chromium and playwright. --made is the number of kernels of a recording that is never written
(0: none), beside the 2 M of a file; --write puts the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import inputs
from benchmarks.__main__ import REPEAT, ROOT, TRACELENS, made
from benchmarks.explorer_server import made as made_timeline
from benchmarks.explorer_server import memory
from benchmarks.page import write
from tests.browsers import launched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EVENTS: Final = 1_000_000
ZOOMS: Final = 10
_WHEEL: Final = -500
"""Down to 0.41 of the time in view; ten of them to 1/8,000."""
_PATIENCE_MS: Final = 120_000
_VIEWPORT: Final = {"width": 1280, "height": 900}

# Seconds since the navigation began, once the first numbers are on the page.
_PAINTED: Final = """() => {
  const seen = (selector) => document.querySelector(selector);
  new MutationObserver((_, observer) => {
    if (!seen(".fact-value, #memory-page[data-course-drawn]")) return;
    window.painted = performance.now() / 1e3;
    observer.disconnect();
  }).observe(document, { subtree: true, childList: true, attributes: true });
}"""

# A promise of the seconds from the next wheel event until `done`, and the bytes that came.
_ZOOMED: Final = """() => {
  window.zoomed = new Promise((resolve) => {
    document.addEventListener("wheel", () => {
      const begun = performance.now();
      const before = drawn();
      const look = () => {
        if (drawn() === before || !quiet()) return requestAnimationFrame(look);
        const came = performance.getEntriesByType("resource").filter((one) =>
          one.startTime >= begun && one.name.includes("/api/") && !one.name.includes("/name"));
        const bytes = came.reduce((sum, one) => sum + one.encodedBodySize, 0);
        return resolve([(performance.now() - begun) / 1e3, bytes]);
      };
      requestAnimationFrame(look);
    }, { once: true, capture: true });
  });
  const drawn = () => %(drawn)s;
  const quiet = () => %(quiet)s;
}"""


@dataclass(frozen=True)
class Picture:
    """A picture that zooms: what counts its drawings, and tells that none is to come."""

    page: str
    canvas: str
    drawn: str
    quiet: str

    @property
    def script(self) -> str:
        """Return the script that measures the next zoom."""
        return _ZOOMED % {"drawn": self.drawn, "quiet": self.quiet}


TIMELINE: Final = Picture(
    "timeline",
    "#timeline[aria-busy=false] .tl-canvas",
    "tracelens.timeline.drawn",
    "tracelens.timeline.now.isComplete && tracelens.timeline.pending === 0",
)
MEMORY: Final = Picture(
    "memory",
    "#memory-page[data-course-drawn] #memory-course",
    "Number(document.getElementById('memory-page').dataset.courseDrawn)",
    "true",
)


@dataclass(frozen=True)
class Subject:
    """What is explored: a recording, and the command that serves it."""

    path: Path
    command: Sequence[str]

    def address(self, base: str, page: str) -> str:
        """Return where a page of it is."""
        from tracelens_dashboards.library import Library

        return f"{base}{Library([self.path]).items[0].id}/{page}"


@dataclass(frozen=True)
class Zoom:
    """One zoom: seconds from the wheel to the picture, and bytes of the replies, as packed."""

    seconds: float
    size: int


def main() -> None:
    """Measure, print a table, and write it if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explorer", description=__doc__)
    parser.add_argument("--made", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "benchmarks")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    options.data.mkdir(parents=True, exist_ok=True)
    lines = [
        "| what | budget | median | slowest | reply: median | largest | server: now | most |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    print("\n".join(lines))
    load = os.getloadavg()[0]
    with launched() as browser:
        for line in rows(browser, options):
            lines.append(line)
            print(line, flush=True)
    lines += ["", _circumstances(options.runs, load, browser.version)]
    print(lines[-1])
    if options.write:
        write("python -m benchmarks.explorer", lines)


def rows(browser: Any, options: argparse.Namespace) -> Iterator[str]:
    """Give each row of the table."""
    export = _recording(made(inputs.grown, options.data, REPEAT))
    snapshot = _recording(made(inputs.grown_snapshot, options.data, EVENTS))
    os.environ["TRACELENS_CACHE_DIR"] = str(options.data / "cache")
    for command, of in (("summarize", export), ("memory", snapshot)):
        run = [*TRACELENS, command, str(of.path)]
        subprocess.run(run, stdout=subprocess.DEVNULL, check=True)
    what = "overview, 2 M kernels, cached"
    yield from _first(browser, what, "≤ 2 s", export, "overview", options.runs)
    yield _zooms(browser, "timeline, 2 M kernels", "≤ 250 ms", export, TIMELINE)
    if options.made:
        what = f"timeline, {options.made / 1e6:g} M kernels on 4 streams"
        command = [sys.executable, "-m", "benchmarks.explorer", "--serve", str(options.made)]
        subject = Subject(inputs.SAMPLE, command)
        yield _zooms(browser, what, "≤ 250 ms, 60 kB, 600 MB", subject, TIMELINE)
    what = f"memory, {EVENTS // 1_000_000} M events"
    yield from _first(browser, f"{what}, cached", "", snapshot, "memory", options.runs)
    yield _zooms(browser, what, "", snapshot, MEMORY)


def _recording(path: Path) -> Subject:
    return Subject(path, [*TRACELENS, "explore", str(path), "--no-browser"])


def _first(  # noqa: PLR0917 # a row has as many columns
    browser: Any, what: str, budget: str, of: Subject, page: str, runs: int
) -> Iterator[str]:
    """Give the rows of the first numbers: of a server just started, and asked once more."""
    new, again, weights = [], [], []
    for _ in range(runs):
        with _serving(of.command) as (base, pid):
            for times in (new, again):
                with _opened(browser) as tab:
                    times.append(_painted(tab, of.address(base, page)))
            weights.append(memory(pid))
    now, most = (max(numbers) for numbers in zip(*weights, strict=True))
    yield _row(f"first numbers: {what}", budget, _times(new, "s"), server=(now, most))
    yield _row("the same in another browser", "", _times(again, "s"))


def _painted(tab: Any, address: str) -> float:
    tab.add_init_script(f"({_PAINTED})()")
    tab.goto(address)
    tab.wait_for_function("() => window.painted !== undefined")
    return float(tab.evaluate("window.painted"))


def _zooms(browser: Any, what: str, budget: str, of: Subject, picture: Picture) -> str:
    """Return the row of zooms at four places, each from all of it down to single events."""
    done = []
    with _serving(of.command) as (base, pid):
        for part in (0.2, 0.4, 0.6, 0.8):
            with _opened(browser) as tab:
                tab.goto(of.address(base, picture.page))
                canvas = tab.wait_for_selector(picture.canvas)
                canvas.scroll_into_view_if_needed()
                box = canvas.bounding_box()
                tab.mouse.move(box["x"] + part * box["width"], box["y"] + 20)
                done += [_zoom(tab, picture) for _ in range(ZOOMS)]
        weight = memory(pid)
    trips = [zoom for zoom in done if zoom.size]
    sizes = [zoom.size / 1e3 for zoom in trips]
    return _row(
        f"zoom: {what} ({len(trips)} of {len(done)} asked the server)",
        budget,
        _times([zoom.seconds * 1e3 for zoom in trips], "ms"),
        (f"{statistics.median(sizes):.0f} kB", f"{max(sizes):.0f} kB"),
        weight,
    )


def _zoom(tab: Any, picture: Picture) -> Zoom:
    tab.wait_for_selector(picture.canvas)
    tab.evaluate(picture.script)
    tab.mouse.wheel(0, _WHEEL)
    seconds, size = tab.evaluate("window.zoomed")
    return Zoom(seconds, size)


def _times(values: Sequence[float], unit: str) -> tuple[str, str]:
    """Return the median and the largest."""
    digits = 2 if unit == "s" else 0
    return f"{statistics.median(values):.{digits}f} {unit}", f"{max(values):.{digits}f} {unit}"


def _row(
    what: str,
    budget: str,
    times: tuple[str, str],
    replies: tuple[str, str] = ("", ""),
    server: tuple[float, float] | None = None,
) -> str:
    weights = [f"{value:.0f} MB" for value in server] if server else ["", ""]
    return f"| {' | '.join((what, budget, *times, *replies, *weights))} |"


@contextmanager
def _serving(command: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Serve in a process of its own; give its address, and its number."""
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None  # noqa: S101
            told = next(line for line in process.stderr if line.startswith("Explorer: "))
            yield told.split()[1], process.pid
        finally:
            process.terminate()


@contextmanager
def _opened(browser: Any) -> Iterator[Any]:
    """Give a page of a browser that has seen nothing before."""
    context = browser.new_context(viewport=_VIEWPORT)
    context.set_default_timeout(_PATIENCE_MS)
    yield context.new_page()
    context.close()


def serve(kernels: int) -> None:
    """Serve the explorer with a timeline of made kernels in place of the sample's own."""
    from tracelens_dashboards.library import Library
    from tracelens_dashboards.serve import wsgi
    from werkzeug.serving import make_server

    library = Library([inputs.SAMPLE])
    library.open(library.items[0].id).once("timeline", lambda: made_timeline(kernels))
    server = make_server("127.0.0.1", 0, wsgi(library), threaded=True)
    print(f"Explorer: http://127.0.0.1:{server.server_port}/", file=sys.stderr, flush=True)
    server.serve_forever()


def _circumstances(runs: int, load: float, chromium: str) -> str:
    from importlib.metadata import version

    packages = ", ".join(f"{name} {version(name)}" for name in ("dash", "polars", "numpy"))
    size = f"{_VIEWPORT['width']} × {_VIEWPORT['height']}"
    return (
        f"{os.cpu_count()} cores (shared by browser and server; load {load:.1f} before, "
        f"{os.getloadavg()[0]:.1f} after), {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}, {packages}, chromium {chromium} without a GPU, {size}. "
        "First numbers: from the start of the navigation, right after the server told its "
        f"address, until they are in the document; {runs} servers. A zoom: from the wheel's event "
        "until the picture of just that time is drawn, waits and all; 10 at each of 4 places, "
        "from all of the recording to 1/8,000 of it. Replies as packed. Memory: the server's "
        "resident set, and the most it ever was."
    )


if __name__ == "__main__":
    main()

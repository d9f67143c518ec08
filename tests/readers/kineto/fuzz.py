"""Fuzzing the reader of torch.profiler traces: damaged and hostile JSON, as `hostile.fuzz` does.

python -m tests.readers.kineto.fuzz --cases 10000 --seed 0
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.kineto import DIALECTS, Event, Profile, Raw, training_step
from tests.readers.hostile import fuzz

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORPUS: Final = Path(__file__).parents[4] / "shared" / "corpus" / "kineto"
TOKENS: Final = (
    b"NaN", b"-Infinity", b"inf", b"N/A", b"null", b"true", b'"', b'""', b"\\", b"\\u12",
    b"\\ud83d", b",", b",,", b":", b"{", b"}", b"[", b"]", b"}{", b"\n  },\n  {", b'"ph": "X"',
    b'"ts": ', b"\0", b"\x1b[31m", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n",
    b"\r", b"//", b"1e999", b"-", b"00", b".", b"99999999999999999999",
    b'{"traceEvents": [', b"]}", b'"cat": "kernel"', "\u2028💥".encode(),
)  # fmt: skip
VALUES: Final[tuple[Any, ...]] = (
    None, True, [], {}, [[]], "", "x", "7", "stream 7", -1, 0, 1, 0.5, -0.5, 2**31, 2**32, 2**53,
    2**63 - 1, 2**63, 2**64, -(2**63), 2**200, 1e300, Raw("1e400"), Raw("1.5e3"), Raw("-0"),
    Raw("0.0000000000001"), Raw("NaN"), Raw("inf"), "NaN", "1712345678901234.567", b"\xff",
    "\x1b[31m", "a\\b", [1] * 50, {"a": {"b": []}}, Raw("[" * 3_000 + "]" * 3_000), "x" * 5_000,
)  # fmt: skip


def built(rng: random.Random) -> Profile:
    """Return a trace with a bit of everything, in any dialect."""
    trace = Profile(rng.choice(tuple(DIALECTS)), rocm=rng.random() < 0.1)
    trace.device(0)
    for number in range(rng.randrange(1, 4)):
        pid = rng.choice((100, 100, 200))
        training_step(trace, at=5_000_000 * number, pid=pid, ranges=rng.random() < 0.7)
    main = trace.thread("python3")
    main.annotation("ProfilerStep#3", 0, 5_000_000, gpu=(20_000, 4_900_000))
    main.python("train.py(7): main", 0, 9_000_000)
    main.memset(bytes=10, at=2_420_000, run=(2_600_000, 2_601_000))
    main.graph([(f"node {n}", 2_610_000 + n, 2_620_000 + n) for n in range(4)], at=2_430_000)
    main.collective("allreduce", 512, at=2_440_000, run=(2_700_000, 2_800_000))
    main.sync(2_900_000, 2_950_000, (2_910_000, 2_940_000))
    for number in range(4):
        main.memory(2_500_000 + number, 512 * (-1) ** number, allocated=512, reserved=1 << 21)
    if rng.random() < 0.3:
        trace.distributed(1, 2, after=rng.random() < 0.5)
    return trace


def odd_values(rng: random.Random, folder: Path) -> Path:
    """Write a trace in which keys and arguments of events are not what they should be."""
    trace = built(rng)
    for event in rng.sample(trace.events, rng.randrange(1, 20)):
        _spoil(rng, trace, event)
    return trace.write(folder / "trace.json", spacing="kineto")


def _spoil(rng: random.Random, trace: Profile, event: Event) -> None:
    args = event.fields.get("args")
    where = args if isinstance(args, dict) and args and rng.random() < 0.6 else event.fields
    key = rng.choice(list(where))
    what = rng.random()
    if what < 0.1:
        del where[key]
    elif what < 0.15:
        where[rng.choice(("ph", "cat", "ts", "dur", "args", "id", "name"))] = rng.choice(VALUES)
    elif what < 0.2:
        trace.put(Event(dict(event.fields)))
    elif what < 0.3:
        other = rng.choice(trace.events)
        where[key] = other.fields.get(key, rng.choice(VALUES))
    else:
        where[key] = rng.choice(VALUES)


def flipped(rng: random.Random, folder: Path) -> Path:
    """Write a trace with bytes changed: few or many."""
    data = bytearray(_sample(rng))
    for _ in range(rng.choice((1, 1, 2, 5, 30, 300))):
        data[rng.randrange(len(data))] = rng.choice((0, 0x22, 0x5C, 0x7B, 0xFF, rng.randrange(256)))
    return _written(folder / "trace.json", data)


def tokens(rng: random.Random, folder: Path) -> Path:
    """Write a trace with words put in, or in place of others, anywhere."""
    data = bytearray(_sample(rng))
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        at = rng.randrange(len(data))
        over = rng.choice((0, 0, 1, 5))
        data[at : at + over] = rng.choice(TOKENS)
    return _written(folder / "trace.json", data)


def spliced(rng: random.Random, folder: Path) -> Path:
    """Write a trace in which parts are lost, doubled or in another place."""
    data = bytearray(_sample(rng))
    for _ in range(rng.choice((1, 1, 2, 6))):
        one = rng.randrange(len(data))
        part = data[one : one + rng.choice((1, 30, 500, 9_000))]
        other = rng.randrange(len(data))
        if rng.random() < 0.6:
            del data[one : one + len(part)]
        if rng.random() < 0.6:
            data[other:other] = part if rng.random() < 0.9 else bytes(len(part))
    return _written(folder / "trace.json", data)


def cut(rng: random.Random, folder: Path) -> Path:
    """Write the beginning of a trace, or, rarely, its end."""
    data = _sample(rng)
    at = rng.randrange(len(data) + 1)
    return _written(folder / "trace.json", data[at:] if rng.random() < 0.1 else data[:at])


def packed(rng: random.Random, folder: Path) -> Path:
    """Write a .gz or .zip that is cut off or has bytes changed."""
    suffix = rng.choice((".gz", ".gz", ".zip"))
    path = built(rng).write(folder / f"trace.json{suffix}")
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
    for _ in range(rng.choice((0, 1, 5)) if data else 0):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return _written(path, data)


KINDS: Final[dict[str, tuple[Callable[[random.Random, Path], Path], int]]] = {
    "values": (odd_values, 40),
    "flipped": (flipped, 15),
    "tokens": (tokens, 20),
    "spliced": (spliced, 12),
    "cut": (cut, 8),
    "packed": (packed, 5),
}


def _sample(rng: random.Random) -> bytes:
    small = sorted(CORPUS.glob("*.json.gz"), key=lambda f: f.stat().st_size)[:3]
    if small and rng.random() < 0.05:
        return gzip.decompress(rng.choice(small).read_bytes())
    return built(rng).content(spacing=rng.choice(("kineto", "kineto", "compact", "indented")))


def _written(path: Path, data: bytes | bytearray) -> Path:
    path.write_bytes(data)
    return path


def made(seed: int, number: int, folder: Path) -> tuple[str, Path]:
    """Write the case of this number and return its kind and file."""
    rng = random.Random(f"{seed}:{number}")  # noqa: S311
    kind = rng.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
    return kind, KINDS[kind][0](rng, folder)


def judged(path: Path, kind: str, *, every: bool) -> fuzz.Verdict:
    """Run `summarize` and say what is wrong with what it does; ``every`` tries all renderers."""
    verdict = fuzz.judged(path, "", every=every)
    if verdict.status == 0 and path.suffix == ".json":
        _, out, _ = fuzz.ran("summarize", path, "--format", "json", "--no-cache")
        verdict.complaints += _silently_less(path, json.loads(out))
    return verdict


def _silently_less(path: Path, document: Any) -> Iterator[str]:
    """Count the kernels with Python, where nothing was said of damage."""
    if document["warnings"]:
        return
    try:
        found = json.loads(path.read_bytes().decode(errors="replace"), strict=False)
    except ValueError:
        yield "nothing is said of JSON that is none"
        return
    events = found if isinstance(found, list) else found["traceEvents"]
    kernels = [e for e in events if e.get("ph") == "X" and e.get("cat") in ("kernel", "Kernel")]
    true = (len(kernels), sum(round(float(e["dur"]) * 1_000) for e in kernels))
    (totals,) = document["tables"]["totals"]
    if true != (seen := (totals["kernels"], totals["kernel_time_ns"])):
        yield f"kernels and their time are {seen}, not {true}, and nothing is said"


if __name__ == "__main__":
    fuzz.main("tests.readers.kineto.fuzz", made, judged)

"""What numbers of benchmarks are of, and the units they are printed in."""

from __future__ import annotations

import functools
import re
from typing import Final

TIME: Final = "time"
TOKENS_PER_S: Final = "tokens_per_s"
REQUESTS_PER_S: Final = "requests_per_s"
ITEMS_PER_S: Final = "items_per_s"
FLOPS_PER_S: Final = "flops_per_s"
FLOPS: Final = "flops"
BYTES_PER_S: Final = "bytes_per_s"
BYTES: Final = "bytes"
SPEEDUP: Final = "speedup"
REDUCTION: Final = "reduction"
SHARE: Final = "share"
EFFICIENCY: Final = "efficiency"
COUNT: Final = "count"
PARAMETERS: Final = "parameters"
RATIO: Final = "ratio"
NUMBER: Final = "number"

QUANTITIES: Final = frozenset(
    {
        TIME, TOKENS_PER_S, REQUESTS_PER_S, ITEMS_PER_S, FLOPS_PER_S, FLOPS, BYTES_PER_S, BYTES,
        SPEEDUP, REDUCTION, SHARE, EFFICIENCY, COUNT, PARAMETERS, NUMBER,
    }
)  # fmt: skip
"""What a mapping may call a column."""

RATES: Final = frozenset({TOKENS_PER_S, REQUESTS_PER_S, ITEMS_PER_S, FLOPS_PER_S, BYTES_PER_S})
"""The more of it, the better."""

SETTINGS: Final = frozenset(
    {
        "batch", "seq", "new_tokens", "heads", "head_dim", "d_model", "d_ff", "layers", "vocab",
        "m", "n", "k", "experts", "top_k", "gpus", "concurrency", "groups", "sparsity",
        "accumulation",
    }
)  # fmt: skip
"""What a row is a measurement of; these numbers are exact."""

_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SECOND: Final = r"(?:/ ?s(?:ecs?|econds?)?\b| ?per ?s(?:ecs?|econds?)?\b)"
_TIMES: Final = {
    r"ns|nanoseconds?": 1e-9,
    r"[uµμ]s|usecs?|microseconds?": 1e-6,
    r"ms|msecs?|milliseconds?": 1e-3,
    r"s|secs?|seconds?": 1.0,
    r"mins?|minutes?": 60.0,
    r"h|hrs?|hours?": 3600.0,
}
_THINGS: Final = {
    r"tok(?:en)?s?": TOKENS_PER_S,
    r"reqs?|requests?|quer(?:y|ies)": REQUESTS_PER_S,
    r"samples?|images?|imgs?|it(?:er(?:ation)?)?s?|steps?|rows?": ITEMS_PER_S,
    r"items?|seq(?:uence)?s?": ITEMS_PER_S,
}


def _units() -> tuple[tuple[re.Pattern[str], str, float], ...]:
    found: list[tuple[str, str, float]] = []
    for power, exponent in _POWERS.items():
        scale = 1000.0**exponent
        found += [
            (rf"{power}(?:{thing}){_SECOND}", quantity, scale)
            for thing, quantity in _THINGS.items()
            if power in "km"
        ]
        if power:
            found += [
                (rf"{power}(?:flops?|ops?)?{_SECOND}|{power}flops|{power}ops", FLOPS_PER_S, scale),
                (rf"{power}flop", FLOPS, scale),
                (rf"{power}b(?:ytes?)?(?:{_SECOND}|ps)", BYTES_PER_S, scale),
                (rf"{power}ib(?:ytes?)?(?:{_SECOND}|ps)", BYTES_PER_S, 1024.0**exponent),
                (rf"{power}ib", BYTES, 1024.0**exponent),
                (rf"{power}b", BYTES, scale),
            ]
    found += [(unit, TIME, scale) for unit, scale in _TIMES.items()]
    found += [
        (r"tps", TOKENS_PER_S, 1.0),
        (r"qps|rps", REQUESTS_PER_S, 1.0),
        (r"b(?:ytes?)?" + _SECOND, BYTES_PER_S, 1.0),
        (r"bytes?|b", BYTES, 1.0),
        (r"%|percent|pct", SHARE, 0.01),
        (r"x|×|times", RATIO, 1.0),
    ]
    return tuple((re.compile(rf"(?:{unit})", re.IGNORECASE), *rest) for unit, *rest in found)  # type: ignore[misc]


UNITS: Final = _units()


@functools.lru_cache(1024)
def unit(text: str) -> tuple[str, float] | None:
    """Return what quantity a unit is of and how many base units it is; None: it is none.

    Base units are seconds, bytes, operations and one. Bytes go by 1000 unless they say KiB.
    """
    said = text.strip().replace("_", " ")
    for pattern, quantity, scale in UNITS:
        if pattern.fullmatch(said):
            return quantity, scale
    return None

"""What the heading of a column says: a quantity with its unit, or a setting; and of what."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

from tracelens.audit import gpus, quantities
from tracelens.audit.printed import plain
from tracelens.audit.quantities import (
    BYTES,
    BYTES_PER_S,
    COUNT,
    EFFICIENCY,
    FLOPS_PER_S,
    ITEMS_PER_S,
    PARAMETERS,
    RATIO,
    REDUCTION,
    REQUESTS_PER_S,
    SHARE,
    SPEEDUP,
    TIME,
    TOKENS_PER_S,
)  # fmt: skip

_LONGEST: Final = 120
_REMEMBERED: Final = 1024


@dataclass(frozen=True)
class Meaning:
    """What a heading says.

    Attributes:
        quantity: one of `quantities.QUANTITIES`; empty: not recognised, or the cells tell.
        scale: base units in one of the unit; None: the heading names no unit.
        setting: one of `quantities.SETTINGS`, or `dtype`, `gpu`; empty: none.
        statistic: `mean`, `min`, `p95`, ... or empty.
        tags: what else the heading says: of which variant, phase or GPU.
        percent: the numbers are per cent, whether the cells say so or not.
        per_unit: the number is of one token or item, so that nothing else follows from it.
    """

    quantity: str = ""
    scale: float | None = None
    setting: str = ""
    statistic: str = ""
    tags: frozenset[str] = frozenset()
    percent: bool = False
    per_unit: bool = False


_LETTERS: Final = {
    "B": "batch", "S": "seq", "T": "seq", "H": "heads", "D": "head_dim", "M": "m", "N": "n",
    "K": "k", "E": "experts", "L": "layers",
}  # fmt: skip
_SETTINGS: Final = {
    "batch": r"batch(?: ?size)?|bs|bsz|num seqs|max num seqs",
    "seq": r"(?:input )?seq(?:uence)?(?: ?len(?:gth)?)?|context(?: ?len(?:gth)?)?|ctx(?: ?len)?|"
    r"seqlen|"
    r"prompt(?: ?len(?:gth)?)?|input(?: ?len(?:gth)?| tokens)|n ?ctx",
    "new_tokens": r"(?:new|output|generated|decode)(?: ?tokens| ?len(?:gth)?)",
    "heads": r"(?:n|num)? ?heads",
    "head_dim": r"head ?dim(?:ension)?|d ?head|hd",
    "d_model": r"d ?model|hidden(?: ?(?:size|dim))?|embed(?:ding)? dim|n ?embd",
    "d_ff": r"d ?ff|intermediate(?: ?size)?|ffn(?: ?dim)?|mlp dim",
    "layers": r"(?:n|num)? ?layers",
    "vocab": r"vocab(?: ?size)?",
    "m": r"m", "n": r"n", "k": r"k",
    "experts": r"(?:num )?experts",
    "top_k": r"top ?k",
    "gpus": r"(?:num )?gpus|world ?size|devices|ranks|tp|tensor parallel(?: gpus)?",
    "concurrency": r"concurren(?:cy|t(?: (?:requests|clients|users))?)|clients|workers|in ?flight",
    "groups": r"groups",
    "sparsity": r"sparsity",
    "accumulation": r"(?:grad(?:ient)?s? )?acc(?:um(?:ulation)?)?(?: steps)?",
    "dtype": r"d ?type|precision(?: mode)?|data type",
    "gpu": r"gpu(?: name| model)?|device(?: name)?|hardware|accelerator",
}  # fmt: skip
_PATTERNS: Final = {name: re.compile(said) for name, said in _SETTINGS.items()}
_STATISTICS: Final = {
    "std": r"std(?: ?dev)?|stdev|standard deviation|sigma|σ",
    "cv": r"cv|std ?/ ?mean|coefficient of variation",
    "median": r"med(?:ian)?|p50",
    "p90": r"p90", "p95": r"p95", "p99": r"p99", "p999": r"p99[.]?9",
    "min": r"min(?:imum)?|best|fastest",
    "max": r"max(?:imum)?|worst|slowest",
    "mean": r"avg|average|mean",
    "total": r"total|sum|cumulative",
}  # fmt: skip
_QUANTITIES: Final = (
    (SPEEDUP, r"speed ?-?ups?|faster|gain|acceleration|improvement"),
    (REDUCTION, r"reduction|savings?|saved"),
    (PARAMETERS, r"(?:num |# ?)?param(?:eter)?s?(?= |$)(?! mem)"),
    (EFFICIENCY, r"mfu|hfu|mbu|% of peak|utili[sz]ation|util|efficiency|occupancy|hit rate"),
    (BYTES_PER_S, r"bandwidth|bw|bus ?bw|alg ?bw"),
    (BYTES, r"(?:peak |gpu |cuda )*(?:mem(?:ory)?|vram|footprint)(?: usage| used| footprint)?"),
    (FLOPS_PER_S, r"[tgp]flops"),
    (COUNT, r"calls|instances|counts?|launches|num (?:kernels|prompts)|iter(?:ation)?s|passes"),
    (COUNT, r"(?:total )?(?:num )?(?:tokens|queries|requests)"),
    (SHARE, r"share|fraction|proportion|ratio|success rate|% of total"),
    (TIME, r"latency|lat|time|duration|elapsed|runtime"),
)  # fmt: skip
_UNIT_AT_END: Final = re.compile(
    r"(?:[(\[]\s*(?P<inside>[^()\[\]]{1,24}?)\s*[)\]]|(?:^|[\s,:])(?P<last>[^\s,:()\[\]]{1,16}))\s*$"
)
_PER_SECOND: Final = re.compile(
    r"\b(?P<thing>tok(?:en)?s?|reqs?|requests?|quer(?:y|ies)|samples?|images?|it(?:er)?s?|steps?|"
    r"[kmgt]i?b|[tgp]flops?|bytes?)\s*(?:/\s*s(?:ecs?|econds?)?\b|per s(?:ecs?|econds?)?\b)"
)
_PER_UNIT: Final = re.compile(
    r"(?:/ ?|per )(?:tok(?:en)?|it(?:er(?:ation)?)?|sample|image|layer|call|step|param)\b|"
    r"\b(?:tpot|ttft|itl|inter.token)\b"
)
_NO_UNITS_ALONE: Final = frozenset({"b", "h", "m", "s", "x", "times", "min", "mins"})
_NORMAL: Final = {
    "forward": "fwd", "backward": "bwd", "optimizer": "opt", "optimiser": "opt",
    "compiled": "compile",
}  # fmt: skip
_EMPTY_WORDS: Final = frozenset(
    [
        "the",
        "of",
        "in",
        "per",
        "w",
        "with",
        "and",
        "a",
        "an",
        "time",
        "latency",
        "throughput",
        "rate",
        "run",
        "runs",
        "execution",
        "wall",
        "usage",
        "used",
        "gpu",
        "cuda",
        "value",
        "values",
        "result",
        "results",
        "measured",
        "number",
        "num",
    ]
)


@functools.lru_cache(_REMEMBERED)
def understood(heading: str) -> Meaning:
    """Return what a heading says; an empty meaning if nothing is recognised."""
    said = plain(heading[:_LONGEST])
    if said in _LETTERS:
        return Meaning(setting=_LETTERS[said])
    if re.fullmatch("[A-Za-z]+", said):
        said = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", said)  # stdDev
    text = re.sub(r"[_.]", " ", said)
    text = " ".join(text.lower().split())
    setting = next((name for name, one in _PATTERNS.items() if one.fullmatch(text)), "")
    if setting:
        return Meaning(setting=setting)
    return _quantity(text)


def setting(name: str) -> str:
    """Return the setting that a word names, as in `seq_len=2048`; empty: none."""
    meaning = understood(name)
    return meaning.setting


def _quantity(text: str) -> Meaning:
    families = gpus.named(text)
    rest, quantity, scale = _without_unit(text)
    percent = quantity == SHARE or (
        not quantity and re.search(r"%|\bpct\b|\bpercent\b", text) is not None
    )
    word, rest = _word(rest)
    if word in {SPEEDUP, REDUCTION, EFFICIENCY, PARAMETERS} or not quantity:
        quantity = word or quantity
    if quantity == RATIO:
        quantity = SPEEDUP
    if not quantity and families and scale is None:
        return Meaning(tags=_tags(rest))
    statistic, rest = _statistic(rest)
    if statistic == "cv":
        quantity = quantity or SHARE
    if (
        not quantity
        and not _tags(rest)
        and statistic in {"mean", "median", "min", "max", "std", "p90", "p95", "p99"}
    ):
        quantity = TIME
    if quantity == TIME and percent and scale is None:
        quantity = SHARE
    return Meaning(
        quantity=quantity,
        scale=scale,
        statistic=statistic,
        tags=_tags(rest),
        percent=percent,
        per_unit=_PER_UNIT.search(text) is not None and quantity in {TIME, ""},
    )


def _without_unit(text: str) -> tuple[str, str, float | None]:
    """Return a heading without its unit, the quantity of that and base units in one of it."""
    if found := re.fullmatch(r"(.*\D) (\d+)", text):  # the first, second, third best of a search
        before, quantity, scale = _without_unit(found[1])
        return f"{before} {found[2]}", quantity, scale
    if found := _PER_SECOND.search(text):
        known = quantities.unit(f"{found['thing']}/s")
        if known:
            return text[: found.start()] + " " + text[found.end() :], *known
    rest = text
    while found := _UNIT_AT_END.search(rest):
        inside = found["inside"]
        said = inside or found["last"]
        known = quantities.unit(said.removeprefix("in "))
        alone = inside is None and not rest[: found.start()].strip()
        if known and not (alone and said in _NO_UNITS_ALONE):
            quantity, scale = known
            left = rest[: found.start()]
            return left, quantity, None if quantity in {SHARE, RATIO} else scale
        if inside is None:
            break
        return _inner(rest, found)
    if found := re.search(r"\b(?:tflops|tops|qps|tps|rps)\b", rest):
        known = quantities.unit(found[0])
        if known:
            return rest[: found.start()] + " " + rest[found.end() :], *known
    return rest, "", None


def _inner(rest: str, found: re.Match[str]) -> tuple[str, str, float | None]:
    """Return what is found before a bracket that holds no unit, as in `Tokens/s (H100)`."""
    before, quantity, scale = _without_unit(rest[: found.start()].strip())
    return f"{before} {found['inside']}", quantity, scale


def _word(text: str) -> tuple[str, str]:
    for quantity, said in _QUANTITIES:
        found = re.search(rf"(?<![a-z])(?:{said})(?![a-z])", text)
        if found:
            return quantity, text[: found.start()] + " " + text[found.end() :]
    return "", text


def _statistic(text: str) -> tuple[str, str]:
    for name, said in _STATISTICS.items():
        found = re.search(rf"(?<![a-z0-9])(?:{said})(?![a-z0-9])", text)
        if found:
            return name, text[: found.start()] + " " + text[found.end() :]
    return "", text


def _tags(text: str) -> frozenset[str]:
    words: list[str] = re.findall(r"[^\W_]+", text)
    return frozenset(_NORMAL.get(word, word) for word in words if word not in _EMPTY_WORDS)


__all__ = [
    "ITEMS_PER_S", "REQUESTS_PER_S", "TOKENS_PER_S", "Meaning", "setting", "understood"
]  # fmt: skip

"""Memory in use is at most what the GPU has, and at least what the weights of the model take."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tracelens.audit import gpus, quantities, wording, work
from tracelens.audit.verdicts import Check, Checked, Verdict, said, stated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited, Row, Sheet, Value

_IN_USE: Final = re.compile(r"mem|vram|footprint|allocated|reserved", re.IGNORECASE)
_MEASURED: Final = re.compile(
    r"^(?!.*(?:host|cpu|system)).*(?:peak|max|us(?:ed|age)|allocated|reserved)", re.IGNORECASE
)
_OF_A_PART: Final = re.compile(
    r"activation|kv|cache|optim|grad|host|cpu|l2|saved|delta|increase|overhead|attention",
    re.IGNORECASE,
)
_PER_GPU: Final = re.compile(r"per[ -_]?gpu|/ ?gpu", re.IGNORECASE)
_BINARY: Final = 1.024**4  # GB that were meant as TiB at worst


def find(audited: Audited) -> Iterator[Checked]:
    """Hold every number of memory in use against the GPU, and against the weights."""
    for sheet, row in audited.rows():
        for value in row.of(quantities.BYTES):
            if not value.unit_known or not _IN_USE.search(value.name) or value.is_bound:
                continue
            if (
                value.gpus
                and _MEASURED.search(value.name)
                and all(one.memory_bytes for one in value.gpus)
            ):
                yield _fits(row, value)
            if checked := _holds(sheet, row, value):
                yield checked


def _fits(row: Row, value: Value) -> Checked:
    count = 1.0 if _PER_GPU.search(value.name) else max(row.settings.get("gpus", (1.0,)))
    capacity = max(one.memory_bytes or 0 for one in value.gpus) * count
    impossible = value.span.low > capacity
    many = f"{count:.0f} " if count > 1 else ""
    how = (
        f"{said(value)} is {value.span.at / capacity:.0%} of the "
        f"{wording.amount(quantities.BYTES, capacity)} of {many}{gpus.say(value.gpus)}"
    )
    return stated(
        row, f"{value.name} {value.text}",
        Verdict.IMPOSSIBLE if impossible else Verdict.CONSISTENT,
        how, value.span.at, capacity, unit=quantities.BYTES,
    )  # fmt: skip


def _holds(sheet: Sheet, row: Row, value: Value) -> Checked | None:
    """Say whether the weights of the mapping's model fit into the memory that is claimed."""
    known = {
        **row.known(),
        **{k: float(v) for k, v in sheet.work.items() if k not in {"kind", "pass"}},
    }
    if sheet.work.get("kind") != "transformer" or not value.dtypes or _OF_A_PART.search(value.name):
        return None
    if not {"layers", "d_model"} <= set(known):
        return None
    names = ("layers", "d_model", "d_ff", "vocab", "ffn_matrices")
    weights = work.transformer_parameters(**{k: known[k] for k in names if k in known})
    each = min(gpus.BYTES_OF[name] for name in value.dtypes)
    share = max(row.settings.get("gpus", (1.0,)))
    least = weights * each / share
    claim = f"{value.name} {value.text}"
    over = f" / {share:.0f} GPUs" if share > 1 else ""
    how = (
        f"{weights / 1e9:.4g} B weights · {each:g} bytes{over} = "
        f"{wording.amount(quantities.BYTES, least)}, claimed {value.text}"
    )
    enough = value.span.high * _BINARY >= least
    return stated(
        row, claim, Verdict.CONSISTENT if enough else Verdict.IMPOSSIBLE,
        f"{how}: {value.span.at / least:.2f} times the weights",
        value.span.at, least, unit=quantities.BYTES,
    )  # fmt: skip


CHECK = Check(find)

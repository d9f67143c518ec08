"""The parameters of a model follow from its layers and widths."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from tracelens.audit import quantities, work
from tracelens.audit.interval import Interval
from tracelens.audit.verdicts import Check, Checked, equal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.audit.sheets import Audited

_BIASES_AND_NORMS: Final = 1.01
_MATRICES: Final = (2.0, 3.0)


def find(audited: Audited) -> Iterator[Checked]:
    """Check every number of parameters where layers, widths and vocabulary are known."""
    for sheet, row in audited.rows():
        for value in row.of(quantities.PARAMETERS):
            known = row.known()
            if not value.is_bound and {"layers", "d_model", "d_ff", "vocab"} <= set(known):
                said = sheet.work.get("ffn_matrices")
                ways = list(_ways(known, (float(said),) if said else _MATRICES))
                layers, d = known["layers"], known["d_model"]
                how = (
                    f"{layers:.0f}·(4·{d:.0f}² + matrices·{d:.0f}·{known['d_ff']:.0f}) + "
                    f"{known['vocab']:.0f}·{d:.0f} or twice that"
                )
                yield equal(row, value, ways, how)


def _ways(known: dict[str, float], matrices: tuple[float, ...]) -> Iterator[Interval]:
    """Give the counts with the head tied to the embedding or not, and with biases or not."""
    for each, ends in itertools.product(matrices, (1.0, 2.0)):
        count = work.transformer_parameters(
            known["layers"], known["d_model"], known["d_ff"], 0, each
        )
        count += ends * known["vocab"] * known["d_model"]
        yield Interval(count, count * _BIASES_AND_NORMS, count)


CHECK = Check(find)

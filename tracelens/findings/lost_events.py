"""Lost events: the recorder says that it dropped some, or the file is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracelens.findings import Evidence, Finding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracelens.links.linked import Linked

_CHANGE: Final = {
    "lost": "Record a shorter time, or with larger buffers.",
    "damaged": "Export or record it again.",
}


def _find(linked: Linked) -> Iterator[Finding]:
    for kind, change in _CHANGE.items():
        texts = [caveat.text for caveat in linked.trace.caveats if caveat.kind == kind]
        if not texts:
            continue
        more = f" (and {len(texts) - 1} more)" if len(texts) > 1 else ""
        yield Finding(
            rule="lost_events",
            says=f"{texts[0].rstrip('.')}{more}.",
            evidence=(Evidence("totals", "such warnings", len(texts), "count"),),
            change=change,
            subject=kind,
        )


FINDING = Rule(_find)

"""The ceilings of the GPU that a trace was recorded on, and why there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracelens import hardware

if TYPE_CHECKING:
    from tracelens.hardware import Ceilings
    from tracelens.links.linked import Linked


def ceilings_of(linked: Linked) -> Ceilings | None:
    """Return what the GPU can do: as measured where it was, else by data sheet; None: not known.

    Raises:
        UnreadableError: the file of ceilings that was named cannot be read.
    """
    return linked.once("ceilings", _found)


def said_of_ceilings(linked: Linked) -> str:
    """Return what a note has to say of them: which GPU's, from where, or why there are none."""
    found = ceilings_of(linked)
    if found is not None:
        name = found.device.name if found.device else found.name
        return " ".join((f"Ceilings: {name}, {found.origin}.", *found.caveats))
    names = _names(linked)
    if not names:
        return "The recording does not name the GPU, so that there are no ceilings."
    if len(names) > 1:
        return f"Work ran on {' and '.join(names)}: --device N shows one with its ceilings."
    return f"The ceilings of {names[0]} are not known (tracelens bench ceilings measures them)."


def _found(linked: Linked) -> Ceilings | None:
    names = _names(linked)
    return hardware.ceilings(names[0]) if len(names) == 1 else None


def _names(linked: Linked) -> list[str]:
    """Return the names of the GPUs that work ran on."""
    devices = linked.trace.get("devices")
    if devices is None:
        return []
    used = linked.ops.lazy().select("device").unique()
    named = devices.select("device", "name").drop_nulls("name")
    return named.join(used, on="device").select("name").unique().collect()["name"].sort().to_list()

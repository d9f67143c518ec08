"""What GPUs can do at most, by data sheet and as measured, and how long work must take at least."""

from __future__ import annotations

from tracelens.hardware.bounds import Bound, bound, step_bound
from tracelens.hardware.limits import Ceilings, Collective, Verdict, ceilings, of_device
from tracelens.hardware.specs import BANDWIDTH, MATMUL, VECTOR, Device, Source, device, devices

__all__ = [
    "BANDWIDTH",
    "MATMUL",
    "VECTOR",
    "Bound",
    "Ceilings",
    "Collective",
    "Device",
    "Source",
    "Verdict",
    "bound",
    "ceilings",
    "device",
    "devices",
    "of_device",
    "step_bound",
]

"""Tiny memory snapshots by hand, through the real file format: a pickle of plain data.

A device of the builder is a small caching allocator, so that what it records and what it holds
at the end agree, as they do in a real snapshot::

    snapshot = Snapshot()
    gpu = snapshot.device(0)
    weight = gpu.alloc(1000, stack=("model.py:12 __init__",))
    with snapshot.range("forward", 0):
        gpu.free(gpu.alloc(2000))
    path = snapshot.write(tmp_path / "snapshot.pickle")

Sizes are in bytes as requested; blocks are rounded up to 512. Times are in microseconds of Unix
time; every event is one later than the last, or `at` a time of its own. ``torch`` is the version
whose shape of file is written. Hostile files change `content()` and write it with `dump`.
"""

from __future__ import annotations

import copy
import json
import pickle
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

START_US: Final = 1_700_000_000_000_000
MIB: Final = 1 << 20
_ROUND: Final = 512
_SMALL: Final = MIB
_SEGMENT: Final = {"small": 2 * MIB, "large": 20 * MIB}
_PAGE: Final = 2 * MIB
_DEVICE_SPACE: Final = 1 << 40

Stack = tuple[str, ...]
"""Frames as ``file:line function``, the innermost first."""


@dataclass
class Block:
    """A piece of a segment; ``size`` is as requested, ``held`` as rounded."""

    address: int
    size: int
    held: int
    state: str = "active_allocated"
    stack: Stack | None = None


@dataclass
class Segment:
    """Memory that the allocator holds of its device."""

    address: int
    size: int
    kind: str = "large"
    stream: int = 0
    pool: tuple[int, int] = (0, 0)
    expandable: bool = False
    stack: Stack | None = None
    blocks: dict[int, Block] = field(default_factory=dict)

    def gap(self, size: int) -> int | None:
        """Return the first address with so much room, or None."""
        place = self.address
        for address in sorted(self.blocks):
            if address - place >= size:
                return place
            place = address + self.blocks[address].held
        return place if self.address + self.size - place >= size else None


@dataclass
class Device:
    """One device's allocator, and what it recorded."""

    snapshot: Snapshot
    number: int
    recording: bool = True
    segments: list[Segment] = field(default_factory=list)
    trace: list[dict[str, Any]] = field(default_factory=list)

    def segment(self, size: int, stack: Stack | None = None, **facts: Any) -> Segment:
        """Take memory of the device; ``facts`` are fields of `Segment`."""
        last = self.segments[-1] if self.segments else None
        address = last.address + last.size + _PAGE if last else (self.number + 1) * _DEVICE_SPACE
        segment = Segment(facts.pop("address", address), size, stack=stack, **facts)
        self.segments.append(segment)
        action = "segment_map" if segment.expandable else "segment_alloc"
        self.event(action, segment.address, size, stack, stream=segment.stream, pool=segment.pool)
        return segment

    def alloc(
        self,
        size: int,
        stack: Stack | None = None,
        *,
        stream: int = 0,
        pool: tuple[int, int] = (0, 0),
        **event: Any,
    ) -> Block:
        """Give a block out, taking a segment where none has room."""
        held = -(-max(size, 1) // _ROUND) * _ROUND
        kind = "small" if held <= _SMALL else "large"
        fitting = [
            (segment, gap)
            for segment in self.segments
            if (segment.stream, segment.pool) == (stream, pool)
            and (segment.expandable or segment.kind == kind)
            and (gap := segment.gap(held)) is not None
        ]
        if not fitting:
            segment = self.segment(
                max(held, _SEGMENT[kind]), stack, kind=kind, stream=stream, pool=pool
            )
            fitting = [(segment, segment.address)]
        segment, address = fitting[0]
        block = segment.blocks[address] = Block(address, size, held, stack=stack)
        self.event("alloc", address, size, stack, stream=stream, pool=pool, **event)
        return block

    def free(self, block: Block, stack: Stack | None = None, **event: Any) -> None:
        """Take a block back, at once."""
        self.free_requested(block, stack, **event)
        self.free_completed(block, stack, **event)

    def free_requested(self, block: Block, stack: Stack | None = None, **event: Any) -> None:
        """Let the program give a block back that another stream may still use."""
        block.state = "active_pending_free"
        self.event("free_requested", block.address, block.size, stack, **event)

    def free_completed(self, block: Block, stack: Stack | None = None, **event: Any) -> None:
        """Take a block back for good."""
        segment = self._holder(block.address)
        del segment.blocks[block.address]
        self.event(
            "free_completed", block.address, block.size, stack,
            stream=segment.stream, pool=segment.pool, **event,
        )  # fmt: skip

    def release(self, segment: Segment) -> None:
        """Give a segment without blocks back to the device."""
        assert not segment.blocks
        self.segments.remove(segment)
        action = "segment_unmap" if segment.expandable else "segment_free"
        self.event(action, segment.address, segment.size, stream=segment.stream)

    def grow(self, segment: Segment, size: int) -> None:
        """Map more pages at the end of an expandable segment."""
        self.event("segment_map", segment.address + segment.size, size, stream=segment.stream)
        segment.size += size

    def shrink(self, segment: Segment, size: int) -> None:
        """Unmap pages at the end of an expandable segment."""
        segment.size -= size
        self.event("segment_unmap", segment.address + segment.size, size, stream=segment.stream)

    def oom(self, size: int, free: int, stack: Stack | None = None, **event: Any) -> None:
        """Run out of memory: ``free`` is what the device has left."""
        self.event("oom", None, size, stack, device_free=free, **event)

    def event(
        self,
        action: str,
        address: int | None = 0,
        size: Any = 0,
        stack: Stack | None = None,
        *,
        stream: int = 0,
        pool: tuple[int, int] = (0, 0),
        at: int | None = None,
        **fields: Any,
    ) -> None:
        """Record an event of any action; ``fields`` are keys of its entry."""
        time_us = self.snapshot.clock(at)
        if not self.recording:
            return
        entry: dict[str, Any] = {"action": action, "addr": address, "size": size, "stream": stream}
        if address is None:
            del entry["addr"]
        if self.snapshot.torch >= (2, 2):
            entry["time_us"] = time_us
        if self.snapshot.torch >= (2, 8):
            entry["compile_context"] = "N/A"
        if self.snapshot.torch >= (2, 10):
            entry["user_metadata"] = ""
        if self.snapshot.torch >= (2, 12):
            entry["pool_id"] = pool
        if stack is not None:
            entry["frames"] = self.snapshot.frames(stack)
        self.trace.append(entry | fields)

    def _holder(self, address: int) -> Segment:
        return next(s for s in self.segments if s.address <= address < s.address + s.size)


class Snapshot:
    """One snapshot of a process."""

    def __init__(self, torch: str = "2.11") -> None:
        self.torch = tuple(map(int, torch.split(".")))
        self.settings: dict[str, Any] = {"expandable_segments": False, "max_split_size": -1}
        self.annotations: list[dict[str, Any]] = []
        self.ring: int | None = None
        """The number of events that each device's history keeps."""
        self._devices: dict[int, Device] = {}
        self._now = START_US
        self._frames: dict[str, dict[str, Any]] = {}

    def device(self, number: int = 0) -> Device:
        """Return a device, new or known."""
        return self._devices.setdefault(number, Device(self, number))

    def clock(self, at: int | None = None) -> int:
        """Return the time of the next event."""
        self._now = self._now + 1 if at is None else at
        return self._now

    def start(self, name: str, device: int = 0, at: int | None = None) -> None:
        """Open a range."""
        self._annotate("START", name, device, at)

    def end(self, name: str, device: int = 0, at: int | None = None) -> None:
        """Close a range."""
        self._annotate("END", name, device, at)

    @contextmanager
    def range(self, name: str, device: int = 0) -> Iterator[None]:
        """Annotate what is done inside."""
        self.start(name, device)
        yield
        self.end(name, device)

    def frames(self, stack: Stack) -> list[dict[str, Any]]:
        """Return frames as PyTorch writes them: equal ones are one object."""
        return [self._frames.setdefault(frame, _frame(frame)) for frame in stack]

    def content(self) -> dict[str, Any]:
        """Return what the file is to hold."""
        devices = max(self._devices, default=-1) + 1
        traces = [self.device(n).trace if n in self._devices else [] for n in range(devices)]
        segments = [self._segment(d.number, s) for d in self._devices.values() for s in d.segments]
        kept = [trace[-self.ring :] if self.ring else list(trace) for trace in traces]
        found: dict[str, Any] = {"segments": segments, "device_traces": kept}
        if self.torch >= (2, 3):
            found["allocator_settings"] = dict(self.settings)
        if self.torch >= (2, 5):
            found["external_annotations"] = list(self.annotations)
        if self.torch >= (2, 12) and self.ring:
            found["trace_alloc_max_entries"] = [self.ring] * devices
            found["trace_alloc_overflowed"] = [len(trace) > self.ring for trace in traces]
        return found

    def write(self, path: Path, protocol: int = 4) -> Path:
        """Write the pickle."""
        return dump(self.content(), path, protocol)

    def write_json(self, path: Path) -> Path:
        """Write the JSON of the same dictionary, as the viewer takes it."""
        path.write_text(json.dumps(self.content()), encoding="utf-8")
        return path

    def _annotate(self, stage: str, name: str, device: int, at: int | None) -> None:
        self.annotations.append(
            {"stage": stage, "name": name, "device": device, "time_us": self.clock(at)}
        )

    def _segment(self, device: int, segment: Segment) -> dict[str, Any]:
        live = segment.blocks.values()
        found: dict[str, Any] = {
            "device": device,
            "address": segment.address,
            "total_size": segment.size,
            "allocated_size": sum(b.held for b in live if b.state == "active_allocated"),
            "active_size": sum(b.held for b in live),
            "requested_size": sum(b.size for b in live),
            "stream": segment.stream,
            "segment_type": segment.kind,
            "blocks": [self._block(block) for block in _laid_out(segment)],
        }
        if self.torch >= (2, 1):
            found |= {"segment_pool_id": segment.pool, "is_expandable": segment.expandable}
            found["frames"] = self.frames(segment.stack or ())
        return found

    def _block(self, block: Block) -> dict[str, Any]:
        frames = self.frames(block.stack or ())
        if self.torch >= (2, 1):
            return {
                "address": block.address,
                "size": block.held,
                "requested_size": block.size,
                "state": block.state,
                "frames": frames,
            }
        found: dict[str, Any] = {"size": block.held, "state": block.state}
        if block.state != "inactive":
            found["history"] = [{"addr": block.address, "real_size": block.size, "frames": frames}]
        return found


def dump(content: Any, path: Path, protocol: int = 4) -> Path:
    """Write anything as a snapshot is written."""
    with path.open("wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path


def changed(snapshot: Snapshot, device: int, entry: int, **fields: Any) -> dict[str, Any]:
    """Return a snapshot's content with keys of one entry of a trace set to anything."""
    content = copy.deepcopy(snapshot.content())
    content["device_traces"][device][entry] |= fields
    return content


def training(steps: int = 2, device: int = 0, torch: str = "2.11") -> Snapshot:
    """Return a small training run: weights from before, activations, gradients, an optimizer."""
    snapshot = Snapshot(torch)
    gpu = snapshot.device(device)
    gpu.recording = False
    gpu.alloc(4 * MIB, stack=("model.py:10 __init__",))
    gpu.recording = True
    for step in range(steps):
        with snapshot.range(f"step {step}", device):
            with snapshot.range("forward", device):
                kept = [gpu.alloc(n * MIB, stack=("model.py:20 forward",)) for n in (2, 3, 1)]
            gradient = gpu.alloc(4 * MIB, stack=())
            for block in reversed(kept):
                gpu.free(block, stack=())
            with snapshot.range("Optimizer.step#AdamW.step", device):
                state = gpu.alloc(8 * MIB, stack=("adamw.py:30 step", "train.py:9 main"))
                gpu.free(state, stack=("adamw.py:31 step", "train.py:9 main"))
            gpu.free(gradient, stack=("optimizer.py:40 zero_grad", "train.py:10 main"))
    return snapshot


def _frame(frame: str) -> dict[str, Any]:
    place, _, name = frame.partition(" ")
    file, _, line = place.rpartition(":")
    return {"name": name, "filename": file, "line": int(line)}


def _laid_out(segment: Segment) -> Sequence[Block]:
    """Return a segment's blocks in order of address, those that nobody uses included."""
    found: list[Block] = []
    place = segment.address
    for address in [*sorted(segment.blocks), segment.address + segment.size]:
        if address > place:
            found.append(Block(place, 0, address - place, "inactive"))
        if address in segment.blocks:
            found.append(segment.blocks[address])
            place = address + segment.blocks[address].held
    return found

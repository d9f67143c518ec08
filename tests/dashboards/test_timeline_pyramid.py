"""The timeline's levels of detail against sums made one nanosecond interval at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

np = pytest.importorskip("numpy", reason="no numpy: the explorer is not installed")
pytest.importorskip("dash", reason="no dash: the explorer is not installed")

from tracelens_dashboards.timeline import pyramid  # noqa: E402
from tracelens_dashboards.timeline.pyramid import Lane, Spans, edges, lanes, union  # noqa: E402
from tracelens_dashboards.timeline.rows import Row  # noqa: E402
from tracelens_dashboards.timeline.view import bins, items  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracelens_dashboards.timeline.pyramid import Bins


@dataclass(frozen=True)
class Event:
    """One kernel."""

    start: int
    end: int
    phase: int
    family: int
    name: int


events = st.lists(
    st.builds(
        lambda start, took, *codes: Event(start, start + took, *codes),
        st.integers(0, 200),
        st.one_of(st.integers(0, 8), st.integers(0, 150)),
        st.sampled_from([0, 1, 2, 255]),
        st.sampled_from([0, 3, 255]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=60,
)
windows = st.tuples(st.integers(-20, 260), st.integers(1, 300)).map(lambda w: (w[0], w[0] + w[1]))
widths = st.integers(1, 40)


def spans(of: Sequence[Event]) -> Spans:
    def column(name: str, dtype: type) -> Any:
        return np.array([getattr(event, name) for event in of], dtype)

    return Spans(
        column("start", np.int64),
        column("end", np.int64),
        column("name", np.int32),
        column("phase", np.uint8),
        column("family", np.uint8),
    )


def stream(of: Sequence[Event]) -> Row:
    every = np.arange(len(of), dtype=np.uint32)
    return Row("s0", "stream", "GPU 0", "stream 7", "gpu_ops", lanes=lanes(spans(of), every))


def touches(event: Event, from_ns: int, to_ns: int) -> bool:
    return event.start < to_ns and (event.end > from_ns or event.start >= from_ns)


def inside(event: Event, from_ns: int, to_ns: int) -> range:
    return range(max(event.start, from_ns), min(event.end, to_ns))


def assert_exact(found: Bins, of: Sequence[Event], at: Sequence[int]) -> None:
    """Compare pixels of at least 1 ns: narrower ones are none of time."""
    for pixel in np.flatnonzero(np.diff(at)):
        window = at[pixel], at[pixel + 1]

        assert found.count[pixel] == sum(touches(event, *window) for event in of)
        assert found.busy_ns[pixel] == len({ns for event in of for ns in inside(event, *window)})
        for key in pyramid.KEYS:
            for code, time_ns in zip(found.codes[key], found.time_ns[key][pixel], strict=True):
                mine = [event for event in of if getattr(event, key) == code]
                assert time_ns == sum(len(inside(event, *window)) for event in mine)


@pytest.mark.parametrize("one_by_one", [1_000, -1])
@given(of=events, window=windows, px=widths)
def test_sums_over_pixels_are_exact(
    one_by_one: int, of: list[Event], window: tuple[int, int], px: int
) -> None:
    with (
        patch.object(pyramid, "_BLOCK", 4),
        patch.object(pyramid, "_PART", 8),
        patch.object(pyramid, "_COUNTED_ONE_BY_ONE", one_by_one),
    ):
        row = stream(of)
        at = edges(*window, px)
        parts = [lane.bins(at) for lane in row.lanes]
        whole = pyramid.together(parts, row.cover.bins(at).busy_ns)
    in_lanes = [[of[item] for item in lane.items] for lane in row.lanes]

    for part, lane in zip(parts, in_lanes, strict=True):
        assert_exact(part, lane, at.tolist())
    assert_exact(whole, of, at.tolist())


@given(of=events, window=windows)
def test_a_lane_that_is_tangled_is_exact_too(of: list[Event], window: tuple[int, int]) -> None:
    known = spans(of)
    lane = Lane(known, pyramid.in_order(known, np.arange(len(of), dtype=np.uint32)))
    at = edges(*window, 7)

    assert_exact(lane.bins(at), of, at.tolist())


@given(of=events, window=windows)
def test_a_window_holds_what_touches_it_and_each_once(
    of: list[Event], window: tuple[int, int]
) -> None:
    row = stream(of)
    found = [item for lane in row.lanes for item in lane.window(*window).tolist()]

    assert sorted(found) == [n for n, event in enumerate(of) if touches(event, *window)]
    assert sum(lane.visible(*window) for lane in row.lanes) == len(found)


@given(of=events)
def test_what_overlaps_stands_in_lanes_and_no_more_of_them_than_needed(of: list[Event]) -> None:
    row = stream(of)
    deepest = max(sum(e.start <= ns < e.end for e in of) for ns in range(400))

    assert not any(lane.tangled for lane in row.lanes)
    # A kernel of no time at all inside of another needs a lane, too.
    moments = any(event.start == event.end for event in of)
    assert max(deepest, 1) <= len(row.lanes) <= max(deepest, 1) + moments


@given(of=events, window=windows, px=widths, random=st.randoms(use_true_random=False))
def test_a_picture_does_not_depend_on_the_order_of_the_recording(
    of: list[Event], window: tuple[int, int], px: int, random: object
) -> None:
    of = [Event(e.start, e.end, e.name, e.name, e.name) for e in of]
    other = list(of)
    random.shuffle(other)  # type: ignore[attr-defined]

    first, second = (picture(stream(some), *window, px) for some in (of, other))

    assert first == second


def picture(row: Row, from_ns: int, to_ns: int, px: int) -> object:
    shown = items(row, from_ns, to_ns, px)
    rectangles = [tuple(shown[k].tolist()) for k in ("x0", "x1", "lane", "phase", "name")]
    sums = {name: array.tolist() for name, array in bins(row, edges(from_ns, to_ns, px)).items()}
    return rectangles, sums


@given(of=events)
def test_in_an_hour_every_kernel_shows(of: list[Event]) -> None:
    hour = 3_600 * 10**9
    row = stream(of)
    shown = bins(row, edges(0, hour, 1_500))

    assert shown["count"].sum() >= len(of)
    assert (shown["busy"] > 0).any() == any(event.end > event.start for event in of)


def test_a_lone_kernel_of_a_microsecond_shows_in_an_hour() -> None:
    at = 1_800 * 10**9
    row = stream([Event(at, at + 1_000, 1, 3, 0)])

    shown = bins(row, edges(0, 3_600 * 10**9, 1_500))

    (pixel,) = np.flatnonzero(shown["count"])
    assert pixel == 750
    assert shown["busy"][pixel] > 0
    assert (shown["phase"][pixel], shown["family"][pixel]) == (1, 3)


def test_more_lanes_than_there_are_share_the_last_one() -> None:
    many = pyramid.MOST_LANES + 40
    of = [Event(n, 1_000, 0, 0, 0) for n in range(many)]
    row = stream(of)

    assert len(row.lanes) == pyramid.MOST_LANES
    assert row.lanes[-1].tangled
    assert row.count == many
    at = edges(0, 1_000, 10)
    parts = [lane.bins(at) for lane in row.lanes]
    assert_exact(pyramid.together(parts, row.cover.bins(at).busy_ns), of, at.tolist())


def test_kernels_that_overlap_their_neighbours_take_turns_in_two_lanes() -> None:
    of = [Event(10 * n, 10 * n + 12, 0, 0, n) for n in range(7)]
    row = stream(of)

    assert [lane.items.tolist() for lane in row.lanes] == [[0, 2, 4, 6], [1, 3, 5]]
    assert len(union(row.lanes)) == 1


@given(window=windows, px=st.integers(1, 400))
def test_pixels_are_as_even_as_they_can_be(window: tuple[int, int], px: int) -> None:
    at = edges(*window, px)

    assert (at[0], at[-1], len(at)) == (*window, px + 1)
    widths = set(np.diff(at).tolist())
    assert max(widths) - min(widths) <= 1


@given(of=events, ns=st.lists(st.integers(-5, 400), min_size=1))
def test_how_many_begin_before(of: list[Event], ns: list[int]) -> None:
    with patch.object(pyramid, "_BLOCK", 4):
        for lane in stream(of).lanes:
            begun = [sum(of[item].start < at for item in lane.items) for at in ns]

            assert lane.before(np.array(ns)).tolist() == begun

"""Implementations in turns, timed by made-up clocks that drift, jitter and jump."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tracelens.bench import pairs
from tracelens.bench.cell import GpuState
from tracelens.bench.pairs import Block, Effort, Taken

if TYPE_CHECKING:
    from collections.abc import Callable

EFFORT = Effort(precision=0.002, budget_s=5, warmup_s=0, block_s=1e-9, least=8, most=60)


class Machine:
    """Gives samples of calls that take 1 ms, with noise and a drift of the whole machine."""

    def __init__(self, noise: float = 0.0, drift: float = 0.0, seed: int = 0) -> None:
        self.noise, self.drift = noise, drift
        self.draw = random.Random(seed)  # noqa: S311 (no secret)
        self.blocks = 0
        self.order: list[str] = []

    def of(self, name: str, slower: float = 0.0) -> Callable[[int], Block]:
        def take(calls: int) -> Block:
            self.order.append(name)
            self.blocks += 1
            level = 1e-3 * (1 + slower) * (1 + self.drift * self.blocks)
            return Block([level * (1 + self.noise * self.draw.gauss(0, 1)) for _ in range(5)])

        return take


def test_rounds_go_forth_and_back_after_a_warm_up() -> None:
    machine = Machine()

    taken = pairs.in_turns({name: machine.of(name) for name in "ABC"}, EFFORT)

    assert "".join(machine.order[:9]) == "ABCABCCBA"
    assert set(taken) == set("ABC")
    assert [len(one.blocks) for one in taken.values()] == [16] * 3  # 8 rounds


def test_a_difference_of_one_percent_is_found_under_noise_and_drift() -> None:
    machine = Machine(noise=0.005, drift=0.0005)
    those = {"A": machine.of("A"), "B": machine.of("B", 0.01), "A again": machine.of("A")}

    taken = pairs.in_turns(those, EFFORT)

    noise = pairs.floor(taken["A again"], taken["A"])
    found = pairs.pair(taken["B"], taken["A"], "A", noise)
    assert found.verdict == "slower"
    assert found.ratio == pytest.approx(1.01, abs=0.004)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 1.01 <= found.high
    assert noise is not None
    assert noise < 0.01
    assert pairs.pair(taken["A"], taken["B"], "B").verdict == "faster"


def test_what_drifts_evenly_cancels() -> None:
    machine = Machine(drift=0.01)

    taken = pairs.in_turns({"A": machine.of("A"), "B": machine.of("B")}, EFFORT)

    assert pairs.ratios(taken["B"], taken["A"]).median == pytest.approx(1, abs=1e-9)
    assert taken["A"].samples[-1] > 1.2 * taken["A"].samples[0]


def test_the_same_is_seldom_told_apart_from_itself() -> None:
    wrong = 0
    for seed in range(60):
        machine = Machine(noise=0.01, drift=1e-4, seed=seed)
        taken = pairs.in_turns({name: machine.of(name) for name in ("A", "B", "A again")}, EFFORT)
        noise = pairs.floor(taken["A again"], taken["A"])
        wrong += pairs.pair(taken["B"], taken["A"], "A", noise).verdict != "no difference"

    assert wrong <= 3


def test_what_is_less_than_the_noise_floor_is_no_difference() -> None:
    taken = {name: Taken(1, [Block([t])] * 20) for name, t in {"A": 1.0, "B": 1.01}.items()}

    assert pairs.pair(taken["B"], taken["A"], "A", 0.005).verdict == "slower"
    assert pairs.pair(taken["B"], taken["A"], "A", 0.02).verdict == "no difference"


def test_few_rounds_have_no_verdict() -> None:
    taken = {name: Taken(1, [Block([1.0])] * 4) for name in "AB"}

    found = pairs.pair(taken["B"], taken["A"], "A")

    assert found.verdict == "too few rounds"
    assert (found.rounds, found.low, found.high) == (2, None, None)
    assert pairs.floor(taken["B"], taken["A"]) is None


def test_noise_ends_with_the_rounds_and_not_before() -> None:
    machine = Machine(noise=0.2)

    taken = pairs.in_turns({"A": machine.of("A")}, EFFORT)

    assert len(taken["A"].blocks) == 2 * EFFORT.most
    assert taken["A"].summary().precision > EFFORT.precision


def test_the_budget_ends_it_after_one_round_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pairs.time, "perf_counter", lambda: now[0])

    def take(calls: int) -> Block:
        now[0] += 3.0
        return Block([3.0])

    taken = pairs.in_turns({"A": take}, EFFORT)

    assert taken["A"].samples == [3.0, 3.0]


def test_blocks_are_as_long_as_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pairs.time, "perf_counter", lambda: now[0])

    def taking(seconds: float) -> Callable[[int], Block]:
        def take(calls: int) -> Block:
            now[0] += calls * seconds
            return Block([seconds] * calls)

        return take

    effort = Effort(budget_s=1, warmup_s=0.05, block_s=0.01, most_calls=50)
    taken = pairs.in_turns({"A": taking(1e-3), "B": taking(1e-5), "C": taking(0.1)}, effort)

    assert [one.calls for one in taken.values()] == [10, 50, 1]


def test_warming_up_waits_for_the_clock() -> None:
    clocks = iter([345e6, 900e6, 1500e6, 1980e6, 1975e6, 1980e6, 1980e6])
    machine = Machine()

    pairs.in_turns({"A": machine.of("A")}, EFFORT, lambda: next(clocks))

    assert machine.order.count("A") == 6 + 2 * 8


def test_who_fails_is_named() -> None:
    def failing(calls: int) -> Block:
        raise ValueError("no")

    with pytest.raises(pairs.FailedError) as raised:
        pairs.in_turns({"A": Machine().of("A"), "B": failing}, EFFORT)

    assert raised.value.name == "B"
    assert isinstance(raised.value.__cause__, ValueError)


def test_samples_taken_while_the_clock_was_held_down_are_counted() -> None:
    hot = GpuState(throttled=("power limit",))
    taken = Taken(1, [Block([1.0, 1.0], GpuState()), Block([1.0, 1.0, 1.0], hot), Block([1.0])])

    assert taken.throttled == 3
    assert taken.states == [GpuState(), hot]

"""The reading plan: what is due when, and what a late wake-up does to it."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

import pytest

from llenergymeasure.core.energy.cadence import Cadence, Tiers, gpu_cadence

MS = 1_000_000


def test_turns_keep_their_distance_however_long_a_turn_takes_within_it() -> None:
    plan = Cadence(0.005)
    plan.begin(100 * MS)

    assert plan.next_ns(100 * MS) == 105 * MS
    assert plan.next_ns(109 * MS) == 110 * MS


def test_a_late_turn_leaves_out_those_it_missed_and_does_not_move_the_rest() -> None:
    plan = Cadence(0.005)
    plan.begin(0)
    plan.next_ns(0)

    assert plan.next_ns(17 * MS) == 20 * MS
    assert plan.next_ns(21 * MS) == 25 * MS


def test_a_late_turn_delays_everything_that_was_due_at_it() -> None:
    plan = Cadence(0.005, every=(1, 2))
    plan.begin(0)

    assert [plan.turn() for _ in range(4)] == [[0, 1], [0], [0, 1], [0]]


def test_counters_and_power_are_read_at_every_turn_state_at_some_and_the_rest_at_few() -> None:
    plan = gpu_cadence(Tiers(2, 1, 1, 1), counter_poll_s=0.005, state_poll_s=0.02)

    assert plan.every == (1, 1, 1, 4, 50)


def test_no_turn_is_left_out_without_a_counter_since_an_update_that_is_missed_is_lost() -> None:
    plan = gpu_cadence(Tiers(0, 1, 1, 1), counter_poll_s=0.005, state_poll_s=0.02)

    assert Meter(plan, ticks(0.1, 3.0)).run(3.0).turns_between(0.0, 3.0) == 600


class Meter:
    """Counters and power that change at given times, read by a plan on a clock of numbers."""

    def __init__(self, plan: Cadence, *changes_s: Sequence[float]) -> None:
        self.plan, self.changes_s = plan, changes_s
        self.read_s: list[list[float]] = [[] for _ in plan.every]
        self.turns_s: list[float] = []

    def run(self, until_s: float, late: tuple[float, float, float] = (0, 0, 0)) -> Meter:
        """Play the plan; turns from one time to another come late by so much."""
        from_s, to_s, late_s = late
        now_ns = 0
        self.plan.begin(now_ns)
        while now_ns < until_s * 1e9:
            now_ns += round(late_s * 1e9) if from_s < now_ns / 1e9 < to_s else 0
            self.turns_s.append(now_ns / 1e9)
            for index in self.plan.turn():
                self.read_s[index].append(now_ns / 1e9)
                if index < len(self.changes_s):
                    self.plan.saw(index, bisect_right(self.changes_s[index], now_ns / 1e9), now_ns)
            now_ns = self.plan.next_ns(now_ns)
        return self

    def bracket_s(self, change_s: float, index: int = 0) -> float:
        """How far the readings on either side of a change are apart."""
        at = bisect_left(self.read_s[index], change_s)
        return self.read_s[index][at] - self.read_s[index][at - 1]

    def turns_between(self, from_s: float, to_s: float) -> int:
        """Count turns."""
        return sum(from_s <= at_s < to_s for at_s in self.turns_s)


def ticks(period_s: float, until_s: float, jitter_s: float = 0.0, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    count = int(until_s / period_s)
    return [0.0312 + n * period_s + rng.uniform(-jitter_s, jitter_s) for n in range(count)]


def counter() -> Cadence:
    return gpu_cadence(Tiers(1), counter_poll_s=0.005, state_poll_s=0.02)


def test_a_tick_that_is_known_is_bracketed_as_narrowly_by_a_fifth_of_the_turns() -> None:
    at_s = ticks(0.1, 10.0, jitter_s=0.003)
    meter = Meter(counter(), at_s).run(10.0)

    assert meter.turns_between(0.0, 0.4) == 80
    assert meter.turns_between(1.0, 9.0) < 8 * 40
    wide = [one for one in at_s[5:] if meter.bracket_s(one) > 0.006]
    assert len(wide) < 0.03 * len(at_s)


def test_ticks_that_drift_are_followed() -> None:
    at_s = [0.03 + 0.1 * n + 0.00005 * n**2 for n in range(80)]  # from 100 to 108 ms
    meter = Meter(counter(), at_s).run(8.0)

    assert max(map(meter.bracket_s, at_s[6:-5])) == pytest.approx(0.005)
    assert meter.turns_between(1.0, 8.0) < 7 * 60


def test_a_tick_that_does_not_come_is_waited_for_and_then_looked_for_everywhere() -> None:
    at_s = ticks(0.1, 2.0)
    moved_s = [*at_s, *(at_s[-1] + 0.16 + 0.1 * n for n in range(20))]
    meter = Meter(counter(), moved_s).run(4.0)

    assert max(map(meter.bracket_s, moved_s[5:])) == pytest.approx(0.005)


def test_a_tick_before_its_time_widens_one_bracket_and_is_looked_for_everywhere() -> None:
    at_s = [*ticks(0.1, 2.0), *(0.0312 + 1.955 + 0.1 * n for n in range(20))]
    meter = Meter(counter(), at_s).run(4.0)

    wide = [one for one in at_s[5:] if meter.bracket_s(one) > 0.006]
    assert wide == [at_s[20]]


def test_a_tick_seen_late_says_nothing_of_its_place() -> None:
    at_s = ticks(0.1, 3.0)
    meter = Meter(counter(), at_s).run(3.0, late=(1.531, 1.54, 0.04))

    assert meter.bracket_s(at_s[15]) > 0.03
    assert max(map(meter.bracket_s, at_s[16:])) == pytest.approx(0.005)


def test_no_turn_is_left_out_where_ticks_are_few_turns_apart_or_come_anyhow() -> None:
    quick = Meter(counter(), ticks(0.02, 2.0)).run(2.0)
    rng = random.Random(3)
    anyhow_s = sorted(rng.uniform(0.0, 2.0) for _ in range(20))
    irregular = Meter(counter(), anyhow_s).run(2.0)

    assert quick.turns_between(0.0, 2.0) == 400
    assert irregular.turns_between(0.0, 2.0) == 400


def test_power_beside_a_counter_takes_no_turn_of_its_own_until_its_ticks_are_known() -> None:
    plan = gpu_cadence(Tiers(1, 1, 1, 1), counter_poll_s=0.005, state_poll_s=0.02)
    still = Meter(plan, ticks(0.1, 8.0), []).run(8.0)

    assert still.turns_between(1.0, 8.0) < 7 * 40

    plan = gpu_cadence(Tiers(1, 1), counter_poll_s=0.005, state_poll_s=0.02)
    other_s = [one + 0.05 for one in ticks(0.1, 8.0)]
    moving = Meter(plan, ticks(0.1, 8.0), other_s).run(8.0)

    assert max(moving.bracket_s(one, 1) for one in other_s[20:]) == pytest.approx(0.005)


def test_state_is_read_some_ten_times_a_second_and_slow_things_three_times_at_the_least() -> None:
    plan = gpu_cadence(Tiers(1, 1, 1, 1), counter_poll_s=0.005, state_poll_s=0.02)
    meter = Meter(plan, ticks(0.4, 8.0), ticks(0.4, 8.0)).run(8.0)

    for index, most_s in ((2, 0.12), (3, 0.36)):
        read_s = meter.read_s[index]
        assert max(b - a for a, b in pairwise(read_s)) < most_s

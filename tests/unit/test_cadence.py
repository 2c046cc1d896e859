"""The reading plan: what is due when, and what a late wake-up does to it."""

from __future__ import annotations

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


def test_counters_are_read_at_every_turn_power_and_state_at_some_and_the_rest_at_few() -> None:
    plan = gpu_cadence(Tiers(2, 1, 1, 1), counter_poll_s=0.005, power_poll_s=0.02)

    assert plan.every == (1, 1, 4, 4, 50)


def test_where_there_is_no_counter_power_is_read_at_every_turn() -> None:
    plan = gpu_cadence(Tiers(0, 1, 1, 1), counter_poll_s=0.005, power_poll_s=0.02)

    assert plan.every == (1, 4, 50)

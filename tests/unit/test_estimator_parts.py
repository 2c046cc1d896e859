"""The parts of the estimator, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.core.energy.estimation.aliasing import (
    RISK,
    Aliasing,
    Looks,
    find_aliasing,
    looks_of,
)
from llenergymeasure.core.energy.estimation.budget import (
    EDGE_TIME,
    PART_TIME,
    BudgetLine,
    interval95_j,
    merged,
    shortest_window_s,
)
from llenergymeasure.core.energy.estimation.integral import moved_s, power_ticks
from llenergymeasure.core.energy.estimation.sensor import Series, counter_series, unwrap
from llenergymeasure.core.energy.estimation.ticks import find_ticks
from tests.support.estimator_cases import counter_of, pencil_counter, polls_at, window
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.twin import VirtualDevice


def ticks_of(readings, length_s=1.0):
    return find_ticks(counter_series(readings, window(length_s)))


@pytest.mark.parametrize("tick_s", [0.02, 0.05, 0.083, 0.1, 0.12])
def test_the_tick_is_found_from_polls(tick_s):
    readings = pencil_counter(polls_at(-0.6, 2.6), tick_s, 0.013, loads.step(0.0, 2.0))
    ticks = ticks_of(readings)
    assert ticks.period_s == pytest.approx(tick_s, rel=2e-3)
    # Instant polls 5 ms apart know a tick to 5 ms, and the comb to better.
    off_s = (ticks.time_s - 0.013 + tick_s / 2) % tick_s - tick_s / 2
    assert np.abs(off_s).max() <= 0.005


def test_late_polls_do_not_move_the_comb():
    rng = np.random.default_rng(5)
    device = VirtualDevice(profiles.A100, loads.step(0.0, 5.0))
    steady = ticks_of(counter_of(device.poll(-0.6, 5.6, 0.0051, 0.0, rng)))
    late = ticks_of(counter_of(device.poll(-0.6, 5.6, 0.0051, 0.1, rng)))
    assert late.period_s == pytest.approx(steady.period_s, rel=2e-4)
    assert np.abs(((late.time_s + 0.05) % 0.1) - 0.05).max() < 0.003


@pytest.mark.parametrize("jitter_s", [0.003, 0.005])
def test_jitter_is_told_from_polling(jitter_s):
    rng = np.random.default_rng(6)
    profile = profiles.vary(profiles.A100, tick_jitter_s=jitter_s)
    device = VirtualDevice(profile, loads.step(0.0, 60.0), seed=4)
    ticks = ticks_of(counter_of(device.poll(-0.6, 60.6, 0.00513, 0.02, rng)))
    assert ticks.jitter_s == pytest.approx(jitter_s / 3**0.5, rel=0.25)


def test_a_jittery_fast_counter_is_numbered_without_slips():
    rng = np.random.default_rng(7)
    profile = profiles.vary(profiles.V100, tick_jitter_s=0.005)
    device = VirtualDevice(profile, loads.step(0.0, 20.0), seed=4)
    ticks = ticks_of(counter_of(device.poll(-0.6, 20.6, 0.005, 0.02, rng)))
    assert ticks.period_s == pytest.approx(0.02, rel=1e-4)
    assert ticks.jitter_s < 0.004


def test_a_counter_that_changed_once_has_no_ticks():
    readings = pencil_counter(polls_at(-0.05, 0.05), 0.1, 0.0, loads.flat(100.0, -9.0))
    assert ticks_of(readings) is None


@given(st.lists(st.integers(0, 10**9 - 1), max_size=40), st.integers(10**9, 2**62 // 10**3))
def test_unwrapping_is_exact(steps, max_range):
    total = np.cumsum(np.array([123, *steps], dtype=np.int64))
    assert np.array_equal(unwrap(total % max_range, max_range), total)


def test_unwrapping_a_known_domain_is_exact_to_the_microjoule():
    max_range = 262_143_328_850
    read = np.array([262_143_328_000, 150, 200, 262_143_328_849, 0], dtype=np.int64)
    expected = [
        262_143_328_000,
        max_range + 150,
        max_range + 200,
        max_range + 262_143_328_849,
        2 * max_range,
    ]
    assert unwrap(read, max_range).tolist() == expected


@pytest.mark.parametrize("wrong", [-1, 101])
def test_a_reading_beyond_the_range_is_refused(wrong):
    with pytest.raises(ValueError, match="outside 0 to 100"):
        unwrap(np.array([5, wrong]), 100)


def test_nothing_to_unwrap_stays_nothing():
    assert len(unwrap(np.empty(0, dtype=np.int64), 100)) == 0


def test_lines_of_one_name_add_in_squares_unless_shared():
    lines = merged(
        BudgetLine(name, joules, shared=name == "b")
        for name, joules in (("a", 3.0), ("a", 4.0), ("b", 1.0), ("b", 2.0))
    )
    assert lines == (BudgetLine("a", 5.0), BudgetLine("b", 3.0, shared=True))
    assert interval95_j(lines) == pytest.approx(2 * (25 + 9) ** 0.5)


def test_the_shortest_window_brings_the_interval_to_a_fifth():
    assert shortest_window_s([BudgetLine(EDGE_TIME, 10.0)], 100.0, 0.5) == pytest.approx(1.0)
    growing = shortest_window_s([BudgetLine(PART_TIME, 10.0)], 100.0, 0.5)
    assert growing == pytest.approx(2.0)  # 10 J in 0.5 s are 20 J in 2 s: 40 of 200 J
    assert shortest_window_s([BudgetLine(EDGE_TIME, 10.0)], 0.0, 0.5) is None


@pytest.mark.parametrize(
    ("to_end_s", "early_s"),
    [(0.0, 0.0), (0.025, 0.075), (0.0125, 0.0375), (0.1, 0.0), (0.05, 0.05)],
)
def test_a_look_of_a_quarter_moves_a_step(to_end_s, early_s):
    assert moved_s(to_end_s, 0.1, 0.25) == pytest.approx(early_s)


@pytest.mark.parametrize("period_s", [0.05, 0.1, 0.2, 0.3])
def test_load_in_step_with_the_tick_is_a_risk_to_a_look_of_a_quarter(period_s):
    steps = np.arange(0.013, 10.0, period_s)
    assert half_share(find_aliasing(steps, 0.1, 0.25), 0.3) > RISK
    assert half_share(find_aliasing(steps, 0.1, 1.0), 0.3) == 0


@pytest.mark.parametrize("period_s", [0.097, 0.103, 0.0495, 0.0505])
def test_load_nearly_in_step_may_swing_by_half_the_power_unseen(period_s):
    steps = np.arange(0.013, 1.0, period_s)
    assert half_share(find_aliasing(steps, 0.1, 0.25), 0.02) > 0.3


def test_load_out_of_step_costs_no_more_than_what_looks_differ_by():
    rng = np.random.default_rng(8)
    for _ in range(200):
        steps = np.cumsum(rng.normal(0.031, 0.004, 300))
        assert half_share(find_aliasing(steps, 0.1, 0.25), 0.05) < 0.03
    assert half_share(find_aliasing(np.array([0.1, 0.2, 0.3]), 0.1, 0.25), 0.05) == 0


def half_share(found: Aliasing, spread: float) -> float:
    """The interval that load in step makes, as a share of power whose looks spread so much."""
    return 2 * found.doubt_w(400.0, Looks(400.0 * spread, 1.0, 10)) / 400.0


def test_looks_that_follow_one_another_are_doubted_unless_the_load_is_slow():
    alike, apart = Looks(100.0, 6.0, 50), Looks(100.0, 1.0, 50)
    unknown = find_aliasing(np.array([]), 0.1, 0.25)
    assert unknown.doubt_w(400.0, alike) == pytest.approx(100 * (5 / 50) ** 0.5)
    assert unknown.doubt_w(400.0, apart) == 0
    assert find_aliasing(np.array([]), 0.1, 1.0).doubt_w(400.0, alike) == 0
    slow = find_aliasing(np.arange(0.0, 20.0, 0.53), 0.1, 0.25)
    assert slow.doubt_w(400.0, alike) == slow.doubt_w(400.0, apart)


def test_looks_at_a_load_that_beats_slowly_tell_less_than_as_many_apart():
    number, rng = np.arange(60), np.random.default_rng(9)
    beating = looks_of(300 + 100 * np.sign(np.sin(2 * np.pi * number / 26)))
    apart = [looks_of(300 + 100 * rng.standard_normal(60)).alike for _ in range(200)]
    assert beating.alike > 5
    assert np.mean(apart) < 1.1
    assert looks_of(number + rng.standard_normal(60)).alike < 2  # drift is seen as it is


def test_a_slower_load_is_seen_wrongly_at_its_steps_only():
    fast = find_aliasing(np.arange(0.0, 20.0, 0.1), 0.1, 0.25)
    slow = find_aliasing(np.arange(0.0, 20.0, 0.5), 0.1, 0.25)
    assert slow.strength == pytest.approx(fast.strength * 0.15, rel=0.01)


def test_a_wide_bracket_with_one_tooth_behind_a_tick_that_was_seen_tells_its_tick():
    tick_s, phase_s = 0.1, 0.03
    near_s = [phase_s + n * tick_s + off for n in range(-6, 16) for off in (-0.004, 0.001)]
    late_s = [at if not 0.92 < at < 0.94 else at + 0.03 for at in near_s if at != near_s[30]]
    load = loads.step(0.0, 1.0)
    found = ticks_of(pencil_counter(np.array(late_s), tick_s, phase_s, load), 1.0)

    assert found is not None
    at = int(np.argmin(np.abs(found.time_s - 0.93)))
    assert found.time_s[at] == pytest.approx(0.93, abs=0.003)
    assert np.diff(found.time_s).max() < 1.5 * tick_s


def test_a_reading_with_another_value_shows_its_update_however_near_it_came():
    tooth_s = 0.03 + 0.1 * np.arange(-6, 16)
    at_s = np.stack([tooth_s - 0.0008, tooth_s + 0.0004], axis=1).ravel()
    power_w = 75.0 + np.repeat(np.arange(len(tooth_s)), 2)
    power_w[::2] -= 1.0  # of the update before
    found = power_ticks(Series(at_s, at_s, power_w))

    assert found is not None
    assert found.unread_j is not None
    assert not found.unread_j.any()
    energy_j = np.diff(found.energy_j)
    assert energy_j == pytest.approx(0.1 * power_w[3::2][: len(energy_j)], rel=0.02)

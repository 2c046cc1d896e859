"""Polls that come late: what a reading shows of power's updates, and what none shows."""

from __future__ import annotations

import numpy as np
import pytest

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.integral import power_ticks
from llenergymeasure.core.energy.estimation.sensor import Calibration, Series, power_series
from llenergymeasure.core.energy.estimation.ticks import Brackets, find_ticks, fit_comb
from llenergymeasure.core.energy.estimator import (
    DeviceReadings,
    Knowledge,
    PowerReadings,
    estimate_energy,
)
from tests.support.estimator_cases import ns, polls_at, power_of, window
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.twin import VirtualDevice

UPDATE_S, PHASE_S, LENGTH_S = 0.1, 0.037, 1.03
STEP = loads.step(0.0, LENGTH_S)
WHOLE_LOOK = Knowledge(power=Calibration(tick_s=0.1, look_share=1.0, fully_integrating=True))


def shown(poll_s: np.ndarray) -> PowerReadings:
    """What polls see of a sensor whose updates are means over the tick before them."""
    update_s = np.floor((poll_s - PHASE_S) / UPDATE_S + 1e-9) * UPDATE_S + PHASE_S
    mean_w = (STEP.integral_j(update_s) - STEP.integral_j(update_s - UPDATE_S)) / UPDATE_S
    # Updates differ by a hair, so that each of them shows.
    return PowerReadings(ns(poll_s), ns(poll_s + 1e-4), mean_w + 0.01 * np.sin(1e3 * update_s))


def without(poll_s: np.ndarray, from_s: float, to_s: float) -> np.ndarray:
    return poll_s[(poll_s < from_s) | (poll_s > to_s)]


@pytest.mark.parametrize("tooth_s", [0.037, 0.137, 0.537, 1.037, 1.137])
def test_a_reading_from_before_an_update_is_not_taken_for_it(tooth_s):
    # The poll that would have come first after the update came 60 ms later.
    poll_s = without(polls_at(-0.603, 1.6, 0.02), tooth_s - 0.001, tooth_s + 0.06)
    estimate = estimate_energy(DeviceReadings(power=shown(poll_s)), window(LENGTH_S), WHOLE_LOOK)
    assert estimate.energy_j == pytest.approx(400 * LENGTH_S, rel=0.004)


@pytest.mark.parametrize("tooth_s", [0.037, 0.137, 0.537, 1.037, 1.137])
def test_an_update_that_no_reading_shows_is_told_by_both_sides_and_doubted(tooth_s):
    poll_s = without(polls_at(-0.603, 1.6, 0.02), tooth_s - 0.001, tooth_s + 0.1)
    estimate = estimate_energy(DeviceReadings(power=shown(poll_s)), window(LENGTH_S), WHOLE_LOOK)
    assert abs(estimate.energy_j - 400 * LENGTH_S) <= estimate.interval95_j
    assert next(line for line in estimate.budget if line.name == budget.GAPS).standard_j > 0.5


def test_an_unread_update_in_a_steady_stretch_costs_little():
    poll_s = without(polls_at(-0.603, 1.6, 0.02), 0.536, 0.637)
    whole = estimate_energy(
        DeviceReadings(power=shown(polls_at(-0.603, 1.6, 0.02))), window(LENGTH_S), WHOLE_LOOK
    )
    gap = estimate_energy(DeviceReadings(power=shown(poll_s)), window(LENGTH_S), WHOLE_LOOK)
    assert gap.energy_j == pytest.approx(whole.energy_j, rel=1e-3)
    assert gap.interval95_j < 2 * whole.interval95_j


def test_polls_as_far_apart_as_the_updates_and_in_step_with_them_count_as_they_come():
    poll_s = polls_at(-1.0, 2.0, 0.1) + PHASE_S + 0.002
    readings = shown(poll_s)
    ticks = power_ticks(power_series(readings, window(LENGTH_S)), 0.1)
    assert len(ticks) == len(poll_s)
    estimate = estimate_energy(DeviceReadings(power=readings), window(LENGTH_S), WHOLE_LOOK)
    assert abs(estimate.energy_j - 400 * LENGTH_S) <= estimate.interval95_j


def test_times_that_lie_on_no_comb_make_none():
    at_s = np.cumsum(np.random.default_rng(15).uniform(0.01, 0.19, 60))
    assert fit_comb(Brackets(at_s - 0.002, at_s + 0.002, at_s)) is None


def counted(rng: np.random.Generator) -> Series:
    """Read a counter of unsteady ticks every 5 ms; a tenth of the reads take 10 to 50 ms."""
    tick_s = np.arange(rng.uniform(0.0, 0.02), 3.0, 0.02)
    tick_s += 1e-3 * rng.uniform(-1.0, 1.0, len(tick_s))
    reads_s, free_s = [], 0.0
    while free_s < 2.0:
        before_s = free_s + rng.uniform(0.0, 1e-4)
        after_s = before_s + 5e-5 + (rng.uniform(0.01, 0.05) if rng.random() < 0.1 else 0.0)
        reads_s.append((before_s, after_s))
        free_s = (np.floor(after_s / 0.005) + 1) * 0.005
    before, after = np.array(reads_s).T
    looked_s = before + (after - before) * rng.random(len(before))
    return Series(before, after, np.searchsorted(tick_s, looked_s, side="right").astype(float))


@pytest.mark.parametrize("seed", [268, 285, 299, 611, 624])
def test_no_two_ticks_have_the_same_time(seed):
    # Slow reads made neighbouring brackets that could both hold the tooth between them.
    ticks = find_ticks(counted(np.random.default_rng(seed)), 0.02)
    assert np.diff(ticks.time_s).min() > 0.01


def test_a_reading_right_behind_a_change_shows_its_update():
    # Ticks early or late by 3 ms; read at three turns around each, as once their comb is known.
    rng = np.random.default_rng(14)
    profile = profiles.vary(
        profiles.A100, averaging_window_s=0.1, tick_jitter_s=0.003, power_phase_s=PHASE_S
    )
    twin = VirtualDevice(profile, loads.noisy(STEP, 0.05, -3.0, 3.0, rng), seed=5)
    polls = twin.poll(-2.6, 2.6, 0.005, 0.0, rng, quantity="instant")
    off_s = (polls.before_s - PHASE_S + UPDATE_S / 2) % UPDATE_S - UPDATE_S / 2
    near = np.abs(off_s) < 0.0076
    readings = PowerReadings(
        ns(polls.before_s[near]), ns(polls.after_s[near]), polls.value[near] / 1000
    )
    estimate = estimate_energy(DeviceReadings(power=readings), window(LENGTH_S), WHOLE_LOOK)
    assert estimate.energy_j == pytest.approx(twin.true_energy_j(0.0, LENGTH_S), rel=0.01)
    assert budget.GAPS not in {line.name for line in estimate.budget}


@pytest.mark.parametrize("edge_s", [0.0, LENGTH_S])
def test_a_stall_over_an_edge_is_doubted_by_all_of_what_it_hides(edge_s):
    poll_s = without(polls_at(-1.603, 2.6, 0.02), edge_s - 0.8, edge_s + 0.3)
    estimate = estimate_energy(DeviceReadings(power=shown(poll_s)), window(LENGTH_S), WHOLE_LOOK)
    assert abs(estimate.energy_j - 400 * LENGTH_S) <= estimate.interval95_j


@pytest.mark.parametrize("seed", range(12))
def test_updates_of_20_ms_are_numbered_without_slips_by_polls_in_step_with_them(seed):
    rng = np.random.default_rng(seed)
    profile = profiles.vary(profiles.PASCAL_P100, tick_jitter_s=0.001)
    load = loads.noisy(loads.flat(100.0, -9.0), 0.07, -0.5, 7.0, rng)
    twin = VirtualDevice(profiles.with_random_phase(profile, rng), load, seed)
    polls = twin.poll(0.0, 6.0, 0.005, 0.1, rng, quantity="instant")
    ticks = power_ticks(power_series(power_of(polls), window(1.0)))
    assert ticks.period_s == pytest.approx(0.02, rel=2e-3)


def test_a_read_that_stalls_over_a_step_is_told_by_both_sides_of_the_gap() -> None:
    """Of a sensor without noise, whose updates do not show: readings count as they come."""
    poll_s = np.concatenate((np.arange(-0.5, 2.0, 0.005), np.arange(4.0, 4.6, 0.005)))
    watts = np.select([poll_s < 0, poll_s < 2.5, poll_s < 4.01], [75.0, 400.0, 292.0], 75.0)
    readings = DeviceReadings(power=PowerReadings(ns(poll_s), ns(poll_s), watts))
    found = estimate_energy(readings, window(4.0))
    assert found.energy_j is not None
    assert found.interval95_j is not None
    for truth_j in (400 * 4.0, 400 * 2.0 + 292 * 2.0):
        assert abs(found.energy_j - truth_j) <= found.interval95_j

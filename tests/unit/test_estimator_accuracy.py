"""Figures against the truth of the virtual device: a few hundred phases of a few cells.

``benchmarks/energy_accuracy.py`` does the same with all cells and a thousand phases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llenergymeasure.core.energy.estimation.budget import EDGE_TIME, interval95_j
from llenergymeasure.core.energy.estimator import DeviceReadings, Knowledge, estimate_energy
from llenergymeasure.domain.samples import Window
from tests.support.estimator_cases import (
    WHOLE,
    Case,
    counter_of,
    ns,
    pencil_counter,
    polls_at,
    virtual_case,
    window,
)
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.loads import Load
from tests.support.simulated_device.twin import VirtualDevice

PHASES = 200
JITTERY = profiles.vary(profiles.A100, tick_jitter_s=0.003)
KNOWN_JITTER = replace(WHOLE, jitter_s=0.003 / 3**0.5)


def step(length_s: float) -> Load:
    return loads.step(0.0, length_s)


def loud(length_s: float) -> Load:
    return loads.step(0.0, length_s, outside_w=395.0)


def train(length_s: float) -> Load:
    return loads.request_train(0.0, length_s)


def ramp(length_s: float) -> Load:
    return loads.ramp(0.0, length_s)


def cases(make: Callable[[float], Load], nominal_s: float, **options: object) -> list[Case]:
    rng = np.random.default_rng(int(nominal_s * 1000))
    lengths = nominal_s + rng.uniform(-0.05, 0.05, PHASES)
    return [virtual_case(make(s), float(s), rng, noise=0.07, **options) for s in lengths]


def p95(found: list[Case]) -> float:
    return float(100 * np.quantile([abs(case.error) for case in found], 0.95))


def coverage(found: list[Case]) -> float:
    return float(np.mean([abs(case.error) <= case.half for case in found]))


@pytest.mark.parametrize("make", [step, train, ramp])
@pytest.mark.parametrize(("nominal_s", "most", "widest"), [(0.5, 1.2, 3.0), (1.0, 0.6, 1.7)])
def test_quiet_edges_are_near_the_truth_and_covered(make, nominal_s, most, widest):
    found = cases(make, nominal_s, profile=JITTERY, calibration=KNOWN_JITTER)
    assert p95(found) <= most
    # Without ends of other work some of a tail that may be hidden is taken off.
    assert abs(100 * np.mean([case.error for case in found])) <= 0.25 / nominal_s
    assert coverage(found) >= 0.95
    assert 100 * np.median([case.half for case in found]) <= widest
    assert not any(case.estimate.flags for case in found)


@pytest.mark.parametrize(("nominal_s", "most"), [(0.5, 3.0), (1.0, 1.5)])
def test_loud_edges_are_near_the_truth_and_covered(nominal_s, most):
    found = cases(loud, nominal_s, profile=JITTERY)
    assert p95(found) <= most
    assert coverage(found) >= 0.95


def test_an_uncalibrated_sensor_that_lags_is_covered():
    profile = profiles.vary(JITTERY, lag_s=0.05)
    found = cases(step, 1.0, profile=profile, calibration=None)
    assert coverage(found) >= 0.95
    assert all("sensor_uncalibrated" in case.estimate.flags for case in found)


def test_a_sensor_that_looks_part_of_the_time_is_covered_and_flagged():
    known = replace(WHOLE, fully_integrating=False, look_share=0.25)
    found = cases(step, 1.0, profile=profiles.A100_PART_TIME, calibration=known)
    assert coverage(found) >= 0.9
    assert all("part_time" in case.estimate.flags for case in found)


def test_a_device_with_power_only_is_covered():
    found = cases(step, 1.0, profile=profiles.PASCAL_P100, calibration=None, quantity="instant")
    assert coverage(found) >= 0.95
    assert p95(found) < 3.0


def test_means_over_a_second_are_taken_off_their_lag():
    found = cases(step, 1.0, profile=profiles.A10, calibration=None, quantity="usage", guard_s=2.2)
    assert p95(found) < 1.5
    assert coverage(found) >= 0.95
    assert all("one_second_average" in case.estimate.flags for case in found)


def estimate(load: Load, length_s: float, seed: int, shift_ns: int = 0, gain: float = 1.0):
    profile = profiles.vary(profiles.A100, gain=gain, counter_phase_s=0.041)
    twin = VirtualDevice(profile, load, seed=seed)
    polls = twin.poll(-0.6, length_s + 0.6, 0.005, 0.05, np.random.default_rng(seed))
    readings = counter_of(polls)
    moved = replace(
        readings, before_ns=readings.before_ns + shift_ns, after_ns=readings.after_ns + shift_ns
    )
    at = window(length_s)
    at = Window(at.t0_ns + shift_ns, at.t1_ns + shift_ns)
    return estimate_energy(DeviceReadings(moved), at, Knowledge(WHOLE))


@given(st.floats(0.2, 3.0), st.integers(0, 99), st.floats(0.2, 5.0))
def test_energy_and_interval_scale_with_the_gain(length_s, seed, gain):
    one = estimate(loads.step(0.0, length_s), length_s, seed)
    other = estimate(loads.step(0.0, length_s), length_s, seed, gain=gain)
    assert other.energy_j == pytest.approx(gain * one.energy_j, rel=2e-3, abs=0.02)
    assert other.interval95_j == pytest.approx(gain * one.interval95_j, rel=0.02, abs=0.02)


@given(st.floats(0.2, 3.0), st.integers(0, 99), st.integers(-(10**12), 10**15))
def test_shifting_all_times_changes_nothing(length_s, seed, shift_ns):
    load = loads.step(0.0, length_s)
    assert estimate(load, length_s, seed) == estimate(load, length_s, seed, shift_ns)


@given(
    st.floats(0.05, 2.0),
    st.tuples(st.floats(-0.7, 0.0), st.floats(0.0, 0.7)),
    st.floats(1.0, 700.0),
    st.floats(0.0, 400.0),
    st.booleans(),
)
def test_the_interval_is_never_negative_and_energy_never_zero(
    length_s, guard_s, inside_w, outside_w, known
):
    load = loads.step(0.0, length_s, inside_w, outside_w)
    readings = pencil_counter(polls_at(guard_s[0], length_s + guard_s[1]), 0.1, 0.033, load)
    found = estimate_energy(
        DeviceReadings(readings), window(length_s), Knowledge(WHOLE if known else None)
    )
    assert found.energy_j is None or found.energy_j > 0
    assert found.interval95_j is None or found.interval95_j > 0
    assert all(line.standard_j > 0 for line in found.budget)


@given(st.floats(0.1, 1.0), st.floats(1.5, 4.0))
def test_more_noise_outside_never_narrows_the_interval(first, times):
    tick_s = np.arange(-0.663, 1.8, 0.1)
    outside_w = 8.0 * np.where(np.arange(len(tick_s)) % 2 == 0, 1.0, -1.0)
    doubts = []
    for noise in (0.0, first, first * times):
        load = loads.step(0.0, 1.03) + loads.steps(tick_s, noise * outside_w)
        readings = pencil_counter(polls_at(-0.6, 1.7), 0.1, 0.037, load)
        found = estimate_energy(DeviceReadings(readings), window(1.03), Knowledge(WHOLE))
        # The step's own line follows the mean of the outside, which noise moves either way.
        doubts.append(interval95_j(line for line in found.budget if line.name != EDGE_TIME))
    assert doubts[0] <= doubts[1] <= doubts[2]


def test_times_on_the_monotonic_clock_of_a_long_running_machine_keep_their_precision():
    one = estimate(loads.step(0.0, 1.0), 1.0, 1)
    year_ns = int(ns(0.0)) + 400 * 86_400 * 10**9
    assert estimate(loads.step(0.0, 1.0), 1.0, 1, shift_ns=year_ns) == one

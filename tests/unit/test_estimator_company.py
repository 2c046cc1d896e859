"""Load of somebody else's just before or after a window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.core.energy.estimation.company import company_of_moments, stands_out
from llenergymeasure.core.energy.estimation.edges import start_axis
from llenergymeasure.core.energy.estimation.sensor import Tail
from llenergymeasure.core.energy.estimation.tail import MomentaryPower
from llenergymeasure.core.energy.estimation.ticks import Ticks
from llenergymeasure.core.energy.estimator import DeviceReadings, Knowledge, estimate_energy
from tests.support.estimator_cases import (
    WHOLE,
    Case,
    pencil_counter,
    polls_at,
    virtual_case,
    window,
)
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.loads import Load

V100 = profiles.vary(profiles.V100, tick_jitter_s=0.001)
KNOWN = replace(WHOLE, tick_s=0.02, jitter_s=0.0006)
LENGTH_S = 1.0


def foreign(from_s: float, to_s: float, watts: float) -> Load:
    return loads.steps([-9.0, from_s, to_s], [0.0, watts, 0.0])


def cases(other: Load | None, count: int = 60) -> list[Case]:
    rng = np.random.default_rng(21)
    load = loads.step(0.0, LENGTH_S)
    if other is not None:
        load = load + other
    return [
        virtual_case(load, LENGTH_S, rng, profile=V100, calibration=KNOWN, noise=0.07, guard_s=0.5)
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("other", "flag"),
    [
        (foreign(-0.08, 0.0, 120.0), "busy_before"),
        (foreign(-0.04, -0.01, 200.0), "busy_before"),
        (foreign(-0.3, -0.05, 100.0), "busy_before"),
        (foreign(LENGTH_S + 0.2, 3.0, 120.0), "busy_after"),
        (foreign(LENGTH_S + 0.15, LENGTH_S + 0.25, 200.0), "busy_after"),
    ],
)
def test_load_beside_a_window_is_said_and_what_it_may_add_is_covered(other, flag):
    found = cases(other)
    assert np.mean([flag in case.estimate.flags for case in found]) > 0.85
    assert np.mean([abs(case.error) <= case.half for case in found]) >= 0.88


def test_rest_is_not_taken_for_company():
    flags = [flag for case in cases(None, 150) for flag in case.estimate.flags]
    assert len([flag for flag in flags if flag.startswith("busy")]) <= 3


def test_few_looks_of_25_ms_at_rest_hardly_ever_stand_out():
    """Rest that differs by 7 % every 10 ms differs by 4.7 % from look to look."""
    rng = np.random.default_rng(23)
    looks_w = 75.0 * (1 + 0.047 * rng.standard_normal((8000, 5)))
    assert sum(bool(stands_out(one).any()) for one in looks_w) <= 8


def test_a_tail_behind_the_window_is_no_company():
    found = cases(loads.tail(LENGTH_S, 150.0, 0.1))
    assert not any("busy_after" in case.estimate.flags for case in found)


def test_what_a_slow_sensor_still_shows_of_the_window_is_no_company():
    rng = np.random.default_rng(22)
    profile = profiles.vary(V100, rise_s=0.08)
    known = replace(KNOWN, lag_s=0.08, tail=Tail(settle_s=0.25, rise_s=0.08))
    flags = [
        flag
        for _ in range(60)
        for flag in virtual_case(
            loads.step(0.0, 0.5),
            0.5,
            rng,
            profile=profile,
            calibration=known,
            noise=0.07,
            guard_s=0.5,
        ).estimate.flags
    ]
    assert flags.count("busy_after") <= 2


def test_load_that_goes_on_beside_loud_edges_is_their_level():
    load = loads.request_train(-5.0, 5.0)
    readings = pencil_counter(polls_at(-0.6, 1.7), 0.1, 0.037, load)
    found = estimate_energy(DeviceReadings(readings), window(1.03), Knowledge(WHOLE))
    assert not {"busy_before", "busy_after"} & {*found.flags}


def test_rest_is_told_where_most_of_a_guard_is_somebody_elses():
    assert stands_out(np.array([75.0, 77.0, 190.0, 200.0])).tolist() == [False, False, True, True]
    assert not stands_out(np.array([75.0, 77.0, 73.0, 79.0])).any()


def test_power_of_a_moment_after_the_last_tick_tells_of_company():
    at_s = np.arange(-0.5, 0.01, 0.05)
    quiet_w, busy_w = np.full(len(at_s), 75.0), np.full(len(at_s), 75.0)
    busy_w[np.argmin(np.abs(at_s + 0.05))] = 250.0
    counter = Ticks(np.arange(-0.49, 0.0, 0.1), np.zeros(5), np.arange(5) * 7.5, 0.1, 0.0)
    axis = start_axis(counter, LENGTH_S, 0.0)  # its last tick lies at -0.09 s

    def moments(power_w: np.ndarray, early_s: float = 0.0) -> MomentaryPower:
        energy_j = np.concatenate(([0.0], np.cumsum(power_w[1:] * 0.05)))
        ticks = Ticks(at_s + early_s, np.full(len(at_s), 0.003), energy_j, 0.05, 0.003)
        return MomentaryPower(ticks, 0.01)

    first_of_window_w = np.append(quiet_w[:-1], 117.0)  # at 0 s, and told to be 2 ms before it
    assert company_of_moments(moments(first_of_window_w, -0.002), axis).energy_j == 0
    assert company_of_moments(moments(quiet_w), axis).energy_j == 0
    assert company_of_moments(moments(busy_w), axis).beside_j == pytest.approx(175 * 0.09)

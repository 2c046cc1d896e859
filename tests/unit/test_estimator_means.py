"""Whether power readings are of the moment or means over a second is told by the readings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.core.energy.estimation.means import find_mode
from llenergymeasure.core.energy.estimation.sensor import PowerReadings, power_series
from llenergymeasure.core.energy.estimator import (
    DeviceReadings,
    EnergyEstimate,
    Knowledge,
    estimate_energy,
)
from llenergymeasure.domain.samples import Window
from tests.support.estimator_cases import WHOLE, counter_of, ns, power_of, window
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.loads import Load
from tests.support.simulated_device.twin import VirtualDevice

GUARD_S = 2.2
NEWER = replace(profiles.A10, noise_w=1.0)  # nvmlDeviceGetPowerUsage gives means over a second
OLDER = replace(NEWER, one_second_average=False)  # the same board under another driver
LOADS: dict[str, Callable[[float], Load]] = {
    "step": lambda length_s: loads.step(0.0, length_s),
    "train": lambda length_s: loads.request_train(0.0, length_s, prefill_w=450.0),
    "ramp": lambda length_s: loads.ramp(0.0, length_s),
}


def shown(device, load: Load, length_s: float, rng) -> tuple[PowerReadings, float]:
    """Readings of power usage around a window, and its true energy."""
    load = loads.noisy(load, 0.05, -GUARD_S - 1.5, length_s + GUARD_S, rng)
    twin = VirtualDevice(profiles.with_random_phase(device, rng), load, int(rng.integers(2**40)))
    polls = twin.poll(-GUARD_S, length_s + GUARD_S, 0.02, 0.02, rng, quantity="usage")
    return power_of(polls), twin.true_energy_j(0.0, length_s)


def by_name_a_mean(readings: PowerReadings, length_s: float, **known) -> EnergyEstimate:
    taken = DeviceReadings(average_power=readings)
    return estimate_energy(taken, window(length_s), Knowledge(**known))


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("length_s", [0.7, 1.0, 2.0, 5.0])
def test_both_kinds_of_one_board_are_told_apart(load: str, length_s: float) -> None:
    rng = np.random.default_rng(1)
    for device, mode in ((NEWER, "mean_over_a_second"), (OLDER, "instantaneous")):
        readings = [shown(device, LOADS[load](length_s), length_s, rng)[0] for _ in range(12)]
        told = [find_mode(power_series(one, window(length_s)), length_s) for one in readings]
        assert set(told) <= {mode, "untold"}
        assert told.count(mode) >= 10, told


@pytest.mark.parametrize("length_s", [0.7, 1.0, 3.0])
def test_power_of_the_moment_is_not_read_as_a_mean_because_of_the_board(length_s: float) -> None:
    rng = np.random.default_rng(2)
    errors, halves = [], []
    for _ in range(20):
        readings, true_j = shown(OLDER, LOADS["step"](length_s), length_s, rng)
        found = by_name_a_mean(readings, length_s)
        assert found.energy_j is not None
        assert found.interval95_j is not None
        assert found.source == "power"
        errors.append(found.energy_j / true_j - 1)
        halves.append(found.interval95_j / true_j)
    assert np.quantile(np.abs(errors), 0.95) < 0.03
    assert np.mean(np.abs(errors) <= halves) >= 0.95


def test_what_readings_are_stays_untold_where_no_step_ends_the_window() -> None:
    rng = np.random.default_rng(3)
    for device in (NEWER, OLDER):
        readings, true_j = shown(device, loads.flat(200.0, -20.0), 1.0, rng)
        found = by_name_a_mean(readings, 1.0)
        assert found.power_mode == "untold"
        assert found.energy_j == pytest.approx(true_j, rel=0.03)


@pytest.mark.parametrize("device", [NEWER, OLDER])
def test_where_the_kind_is_not_known_the_interval_holds_both(device) -> None:
    rng = np.random.default_rng(4)
    for _ in range(10):
        readings, true_j = shown(device, LOADS["step"](0.4), 0.4, rng)
        found = by_name_a_mean(readings, 0.4)
        assert found.power_mode == "untold"
        assert found.energy_j is not None
        assert found.interval95_j is not None
        assert abs(found.energy_j - true_j) <= found.interval95_j
        assert "sensor_mode" in {line.name for line in found.budget}


def test_a_mean_whose_name_says_power_of_the_moment_is_told_or_covered() -> None:
    rng = np.random.default_rng(8)
    for length_s in [0.3, 0.45, 0.7, 2.0] * 4:
        readings, true_j = shown(NEWER, LOADS["step"](length_s), length_s, rng)
        found = estimate_energy(DeviceReadings(power=readings), window(length_s))
        assert found.energy_j is not None
        assert found.interval95_j is not None
        assert abs(found.energy_j - true_j) <= found.interval95_j


def test_a_mean_beside_a_counter_gives_a_ratio_only_where_it_is_told() -> None:
    def ratio(guard_s: float) -> EnergyEstimate:
        rng = np.random.default_rng(9)
        load = LOADS["step"](1.0)
        twin = VirtualDevice(NEWER, load, 9)
        counter = twin.poll(-guard_s, 1.0 + guard_s, 0.005, 0.02, rng)
        means = twin.poll(-guard_s, 1.0 + guard_s, 0.02, 0.02, rng, quantity="usage")
        taken = DeviceReadings(counter_of(counter), average_power=power_of(means))
        rest_ns = int(ns(-guard_s))
        found = estimate_energy(taken, window(1.0), Knowledge(WHOLE, rest_from_ns=rest_ns))
        assert found.source == "counter"
        return found

    short, long = ratio(0.5), ratio(2.2)
    assert (short.power_mode, short.counter_over_power) == ("untold", None)
    assert long.power_mode == "mean_over_a_second"
    assert long.counter_over_power == pytest.approx(1.0, abs=0.03)


def test_what_is_known_of_the_kind_is_not_asked_again() -> None:
    readings, _ = shown(NEWER, LOADS["step"](2.0), 2.0, np.random.default_rng(5))
    assert by_name_a_mean(readings, 2.0, power_mode="untold").power_mode == "untold"
    taken = by_name_a_mean(readings, 2.0, power_mode="instantaneous")
    assert (taken.power_mode, taken.source) == ("instantaneous", "power")


def test_a_mean_that_is_published_rarely_at_rest_is_doubted() -> None:
    """As RTX A5000 did: a second after the work it still showed what it did when the work ended."""
    at_s = np.arange(-2.0, 4.1, 0.01)
    load = loads.step(0.0, 2.0, 200.0, 100.0)
    update_s = np.concatenate((np.arange(-2.0, 2.95, 0.1), [3.95, 4.95]))
    mean_w = (load.integral_j(update_s) - load.integral_j(update_s - 1.0)) / 1.0
    noise_w = np.random.default_rng(6).normal(0.0, 0.2, len(update_s))
    value = (mean_w + noise_w)[np.searchsorted(update_s, at_s, side="right") - 1]
    found = by_name_a_mean(PowerReadings(ns(at_s), ns(at_s), value), 2.0)
    assert found.power_mode == "mean_over_a_second"
    assert found.energy_j is not None
    assert found.interval95_j is not None
    assert abs(found.energy_j - 400.0) <= found.interval95_j
    assert "sampling_gaps" in {line.name for line in found.budget}


def test_a_counter_beside_power_readings_tells_what_they_are_too() -> None:
    readings, _ = shown(OLDER, LOADS["step"](2.0), 2.0, np.random.default_rng(7))
    assert by_name_a_mean(readings, 2.0).power_mode == "instantaneous"
    nothing = estimate_energy(DeviceReadings(), Window(0, 10**9))
    assert nothing.power_mode is None

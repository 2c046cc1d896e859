"""Readings for the tests of the estimator, by pencil and from the virtual device."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation.sensor import Calibration, Tail
from llenergymeasure.core.energy.estimator import (
    CounterReadings,
    DeviceReadings,
    EnergyEstimate,
    Knowledge,
    PowerReadings,
    estimate_energy,
)
from llenergymeasure.domain.samples import Window
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.loads import Load
from tests.support.simulated_device.profiles import DeviceProfile
from tests.support.simulated_device.twin import Polls, Quantity, VirtualDevice

ORIGIN_NS = 7_000_000_000_000
WHOLE = Calibration(tick_s=0.1, jitter_s=0.0, tail=Tail(doubt_s=5e-4), fully_integrating=True)


def ns(seconds: object) -> np.ndarray:
    """Nanoseconds of the monotonic clock, the window starting at 0 s."""
    return (np.asarray(seconds, dtype=np.float64) * 1e9).round().astype(np.int64) + ORIGIN_NS


def window(length_s: float) -> Window:
    """A window from 0."""
    return Window(ORIGIN_NS, int(ns(length_s)))


def counter_of(polls: Polls) -> CounterReadings:
    """Polls of a counter as the estimator takes them."""
    return CounterReadings(ns(polls.before_s), ns(polls.after_s), polls.value)


def power_of(polls: Polls) -> PowerReadings:
    """Polls of power as the estimator takes them."""
    return PowerReadings(ns(polls.before_s), ns(polls.after_s), polls.value / 1000.0)


def pencil_counter(
    poll_s: np.ndarray, tick_s: float, phase_s: float, load: Load, start_mj: int = 1_000_000
) -> CounterReadings:
    """What instant polls see of a perfect counter."""
    ticks = np.floor((poll_s - phase_s) / tick_s + 1e-9) * tick_s + phase_s
    joules = load.integral_j(ticks) - load.integral_j(poll_s[:1] - 1)
    value = start_mj + np.rint(joules * 1000).astype(np.int64)
    return CounterReadings(ns(poll_s), ns(poll_s), value)


def polls_at(start_s: float, end_s: float, every_s: float = 0.005) -> np.ndarray:
    """Times of steady polls."""
    return np.arange(start_s, end_s, every_s)


class Case(NamedTuple):
    """A window on the virtual device."""

    device: VirtualDevice
    length_s: float
    estimate: EnergyEstimate

    @property
    def error(self) -> float:
        """Estimate over truth, less one."""
        assert self.estimate.energy_j is not None
        return self.estimate.energy_j / self.device.true_energy_j(0.0, self.length_s) - 1

    @property
    def half(self) -> float:
        """Half-width of the interval over the truth."""
        assert self.estimate.interval95_j is not None
        return self.estimate.interval95_j / self.device.true_energy_j(0.0, self.length_s)


def virtual_case(
    load: Load,
    length_s: float,
    rng: np.random.Generator,
    *,
    profile: DeviceProfile = profiles.A100,
    calibration: Calibration | None = WHOLE,
    noise: float = 0.0,
    guard_s: float = 0.6,
    quantity: Quantity = "counter",
) -> Case:
    """Measure one window of a load on a virtual device with ticks anywhere."""
    device = profiles.with_random_phase(profile, rng)
    load = loads.noisy(load, noise, -guard_s - 0.5, length_s + guard_s, rng) if noise else load
    twin = VirtualDevice(device, load, seed=int(rng.integers(2**40)))
    start_s = -guard_s - float(rng.uniform(0, 0.005))
    polls = twin.poll(start_s, length_s + guard_s, 0.005, 0.02, rng, quantity=quantity)
    if quantity == "counter":
        readings, knowledge = DeviceReadings(counter_of(polls)), Knowledge(calibration)
    elif quantity == "instant":
        readings, knowledge = DeviceReadings(power=power_of(polls)), Knowledge(power=calibration)
    else:
        readings = DeviceReadings(average_power=power_of(polls))
        knowledge = Knowledge(power=calibration)
    return Case(twin, length_s, estimate_energy(readings, window(length_s), knowledge))

"""Calibrations of simulated devices by the product's own script, on a virtual clock.

The device ramps up from rest and trails off as its body says; see :mod:`energy_protocol`.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np

from energy_protocol import FULL_W, USUAL, Body, Late, guard, ns, record
from llenergymeasure.core.energy.calibration import (
    Device,
    calibrate,
    is_long,
    lost_s,
    make_script,
)
from llenergymeasure.core.energy.estimator import DeviceReadings, Knowledge
from llenergymeasure.core.energy.nvml_reader import AVERAGE_POWER, COUNTER, POWER
from llenergymeasure.domain.energy import EnergyRecording, Reading
from llenergymeasure.domain.samples import Window
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.loads import Load
from tests.support.simulated_device.profiles import DeviceProfile
from tests.support.simulated_device.twin import VirtualDevice

IDLE_W, AWAKE_W = 75.0, 110.0
COLD_S = 0.1  # clocks of a device that rested for longer come down, so that it ramps up again
BURST_LATE_S = 0.004  # longer than asked for, at most
PIECE_S = 0.002  # four products of the calibration's matrices, at full pace
UUID = "GPU-virtual"


def calibrated(
    profile: DeviceProfile, body: Body, rng: np.random.Generator, late: Late = USUAL
) -> Knowledge:
    """Calibrate a device by the product's own script, on a virtual clock."""
    bench = _Bench(profiles.with_random_phase(profile, rng), body, rng, late)
    script = make_script(random.Random(int(rng.integers(2**32))))
    stored = calibrate(Device(UUID, "570"), bench, bench, script, bench.sleep).stored
    return Knowledge(stored.counter, stored.power)


class _Bench:
    """A device under calibration: energy source, load and clock in one."""

    name = "nvml"

    def __init__(
        self, profile: DeviceProfile, body: Body, rng: np.random.Generator, late: Late
    ) -> None:
        self._profile, self._body, self._rng, self._late = profile, body, rng, late
        self._now_s, self._opened_s = 0.0, 0.0
        self._bursts_s: list[tuple[float, float]] = []
        self._simmers_s: list[tuple[float, float]] = []

    @property
    def lost_s(self) -> float:
        """What long bursts lost as they began, at the median, as calibration tells it of pieces."""
        lost = [
            lost_s(0, _pieces_ns(end_s - start_s, self._body.ramp_s if cold else 0.0))
            for (start_s, end_s), cold in zip(self._bursts_s, self._cold(), strict=True)
            if is_long(end_s - start_s - BURST_LATE_S)
        ]
        return float(np.median(lost)) if lost else 0.0

    def sleep(self, seconds: float) -> None:
        self._now_s += seconds

    def burst(self, seconds: float) -> Window:
        """Work for about so long."""
        began_s = self._now_s
        self._now_s += seconds + float(self._rng.uniform(0.0, BURST_LATE_S))
        self._bursts_s.append((began_s, self._now_s))
        return Window(int(ns(began_s)), int(ns(self._now_s)))

    def simmer(self, seconds: float) -> Window:
        """Keep the device awake."""
        began_s, self._now_s = self._now_s, self._now_s + seconds
        self._simmers_s.append((began_s, self._now_s))
        return Window(int(ns(began_s)), int(ns(self._now_s)))

    def start(self) -> None:
        pass

    stop = close = start

    def open_window(self) -> None:
        self._opened_s = self._now_s
        self._now_s += guard(self._profile)

    def close_window(self, window: Window, step_times: Any = None) -> EnergyRecording:
        """Give what the sampler read of all bursts."""
        self._now_s += guard(self._profile)
        span_s = (self._opened_s, self._now_s)
        load = self._load().scaled(self._profile.limit_w / FULL_W)
        load = loads.noisy(load, self._body.noise, span_s[0] - 0.5, span_s[1], self._rng)
        device = VirtualDevice(self._profile, load, seed=int(self._rng.integers(2**40)))
        readings = record(device, span_s, self._rng, self._late)
        return EnergyRecording(source=self.name, readings=_rows(readings))

    def _load(self) -> Load:
        """Give the power of all bursts; a device that rested ramps up, and each burst trails."""
        starts_s, ends_s = np.array(self._bursts_s).T
        edges_s = np.stack([starts_s, ends_s], axis=1).ravel()
        load = loads.steps(
            np.append(edges_s[0] - 10.0, edges_s),
            np.append(IDLE_W, np.tile([FULL_W, IDLE_W], len(starts_s))),
        )
        for since_s, until_s in self._simmers_s:
            load = load + loads.step(since_s, until_s, AWAKE_W - IDLE_W, 0.0)
        for start_s, end_s, cold in zip(starts_s, ends_s, self._cold(), strict=True):
            if cold and self._body.ramp_s:
                load = _ramped_burst(load, float(start_s), float(end_s), self._body.ramp_s)
        if self._body.tail is not None:
            for end_s in ends_s:
                load = load + self._body.tail.after(float(end_s))
        return load

    def _cold(self) -> list[bool]:
        """Tell of each burst whether it ramps up: the device rested, or ramps up in any case."""
        awake_s = sorted((*self._bursts_s, *self._simmers_s))
        rests_s = {b[0]: b[0] - a[1] for a, b in pairwise(awake_s)}
        rested = [rests_s.get(start_s, np.inf) > COLD_S for start_s, _ in self._bursts_s]
        return [one or self._body.smoothed for one in rested]


def _pieces_ns(length_s: float, ramp_s: float) -> list[int]:
    """Tell when equal pieces of work are done by a device whose pace comes up like its power."""
    done_s = np.arange(PIECE_S, length_s - ramp_s / 2, PIECE_S)  # at full pace from the start
    slow = done_s < ramp_s / 2
    took_s = np.where(slow, np.sqrt(2 * ramp_s * done_s), done_s + ramp_s / 2)
    return [int(at_s * 1e9) for at_s in took_s.tolist()]


def _ramped_burst(load: Load, start_s: float, end_s: float, ramp_s: float) -> Load:
    """Let one burst come up; a shorter one ends on its way."""
    reached_w = (FULL_W - IDLE_W) / ramp_s
    over_s = min(ramp_s, end_s - start_s)
    lacking = Load(
        np.array([start_s - 10.0, start_s, start_s + over_s]),
        np.array([0.0, IDLE_W - FULL_W, 0.0]),
        np.array([0.0, reached_w, 0.0]),
    )
    return load + lacking


def _rows(readings: DeviceReadings) -> tuple[Reading, ...]:
    """Give readings as the sampler hands them over, in their order."""
    rows = []
    if (counter := readings.counter) is not None:
        rows += _listed(COUNTER, counter.before_ns, counter.after_ns, counter.value)
    for channel, power in ((POWER, readings.power), (AVERAGE_POWER, readings.average_power)):
        if power is not None:
            rows += _listed(channel, power.before_ns, power.after_ns, power.power_w)
    return tuple(sorted(rows, key=lambda row: row.before_ns))


def _listed(channel: str, *columns: Any) -> list[Reading]:
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [Reading(channel, UUID, *row) for row in rows]

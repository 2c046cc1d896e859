"""What surrounds a window: warm-ups before it, loads beside it, and levels that are not its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.core.energy.estimation.sensor import Calibration, Tail
from llenergymeasure.core.energy.estimator import (
    CounterReadings,
    DeviceReadings,
    EnergyEstimate,
    Knowledge,
    PowerReadings,
    estimate_energy,
)
from tests.support.estimator_cases import WHOLE, counter_of, ns, window
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.loads import Load
from tests.support.simulated_device.profiles import DeviceProfile
from tests.support.simulated_device.twin import VirtualDevice

LEAD_S, SETTLE_S, TAIL_S = 0.5, 0.25, 0.5
JITTERY = profiles.vary(profiles.A100, tick_jitter_s=0.003)
LATE = Calibration(tick_s=0.1, jitter_s=0.002, lag_s=0.05, fully_integrating=True)


def measured(
    load: Load,
    length_s: float,
    rng: np.random.Generator,
    knowledge: Knowledge,
    profile: DeviceProfile = JITTERY,
) -> tuple[EnergyEstimate, float]:
    """Measure as the product does, a warm-up up to the settling time; give the truth too."""
    begin_s = -LEAD_S - SETTLE_S
    warm_up_w = 400.0 - float(load.power_w(-1e-6))
    load = load + loads.step(begin_s - 8.0, begin_s, warm_up_w, 0.0)
    load = loads.noisy(load, 0.07, begin_s - 1, length_s + TAIL_S, rng)
    twin = VirtualDevice(
        profiles.with_random_phase(profile, rng), load, int(rng.integers(2**40)), begin_s - 12
    )
    polls = twin.poll(begin_s, length_s + TAIL_S, 0.005, 0.02, rng)
    estimate = estimate_energy(DeviceReadings(counter_of(polls)), window(length_s), knowledge)
    return estimate, twin.true_energy_j(0.0, length_s)


def test_a_warm_up_that_a_late_sensor_still_shows_is_not_taken_for_rest():
    profile, tail = profiles.vary(JITTERY, rise_s=0.08), Tail(settle_s=0.25, rise_s=0.08)
    known = Knowledge(replace(LATE, lag_s=0.08, tail=tail), rest_from_ns=int(ns(-LEAD_S)))
    rng, errors, halves, before_w = np.random.default_rng(11), [], [], []
    for _ in range(60):
        length_s = 1 + float(rng.uniform(-0.05, 0.05))
        found, true_j = measured(loads.step(0.0, length_s), length_s, rng, known, profile)
        errors.append(abs(found.energy_j / true_j - 1))
        halves.append(found.interval95_j / true_j)
        before_w.append(found.before_w)
    assert np.quantile(errors, 0.95) < 0.01
    assert np.median(halves) < 0.03
    assert max(before_w) < 82.0


@pytest.mark.parametrize("change_s", [(), (0.5,), (-0.7, 0.5), (-0.7, -0.6, 0.5), (-0.2, 0.5)])
@pytest.mark.parametrize("known", [None, WHOLE, replace(WHOLE, tick_s=1.2, jitter_s=0.01)])
@pytest.mark.parametrize("with_power", [False, True])
def test_a_counter_that_hardly_ever_changes_gives_a_figure_that_holds_or_none(
    change_s: tuple[float, ...], known: Calibration | None, with_power: bool
) -> None:
    at_s = np.arange(-1.0, 1.5, 0.005)
    value = 10**6 + 100_000 * np.searchsorted(change_s, at_s, side="right")
    power = PowerReadings(ns(at_s), ns(at_s), np.where((at_s > 0) & (at_s < 1), 100.0, 50.0))
    taken = DeviceReadings(
        CounterReadings(ns(at_s), ns(at_s), value), power if with_power else None
    )
    knowledge = Knowledge(known, rest_from_ns=int(ns(-0.5)))
    found = estimate_energy(taken, window(1.0), knowledge)
    if found.energy_j is None:
        assert not with_power
    else:
        assert np.isfinite(found.energy_j)
        assert found.interval95_j is not None
        assert found.interval95_j > 0


def test_ticks_before_rest_still_tell_the_comb():
    known = Knowledge(replace(WHOLE, tick_s=None), rest_from_ns=int(ns(-0.15)))
    rng = np.random.default_rng(12)
    found, _ = measured(loads.step(0.0, 0.1), 0.1, rng, known)
    assert found.tick_s == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("make", [loads.request_train, loads.step])
def test_bursts_at_loud_edges_are_counted_whole_by_a_sensor_that_rises_slowly(make):
    profile = profiles.vary(profiles.V100, tick_jitter_s=0.001, rise_s=0.04)
    tail = Tail(settle_s=0.18, rise_s=0.04)
    known = Knowledge(replace(LATE, tick_s=0.02, jitter_s=0.0006, lag_s=0.04, tail=tail))
    rng, errors, covered = np.random.default_rng(13), [], 0
    for _ in range(100):
        length_s = 1 + float(rng.uniform(-0.01, 0.01))
        found, true_j = measured(
            make(0.0, length_s, outside_w=330.0), length_s, rng, known, profile
        )
        errors.append(found.energy_j / true_j - 1)
        covered += abs(found.energy_j - true_j) <= found.interval95_j
    assert abs(np.mean(errors)) < 0.002
    assert covered >= 90  # exact upper bound of the share: 95 %

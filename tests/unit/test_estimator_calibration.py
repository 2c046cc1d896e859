"""What bursts on simulated devices tell of their sensors."""

from __future__ import annotations

import numpy as np
import pytest

from llenergymeasure.core.energy.estimation.calibration_fit import Driven, fit_calibration
from llenergymeasure.core.energy.estimation.sensor import Calibration
from llenergymeasure.domain.samples import Window
from tests.support.estimator_cases import counter_of, ns, power_of
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.profiles import DeviceProfile
from tests.support.simulated_device.twin import VirtualDevice

SHORT, LONG = 40, 20


def recorded(
    profile: DeviceProfile,
    seed: int,
    *,
    tail_w_s: tuple[float, float] | None = None,
    power: bool = False,
    short: int = SHORT,
    long: int = LONG,
    short_w: float = 400.0,
    noise: float = 0.05,
) -> Calibration:
    rng = np.random.default_rng(seed)
    lengths = rng.permutation(np.repeat([0.03, 1.0], [short, long]))
    ends = 1.0 + np.cumsum(lengths + rng.uniform(0.8, 0.9, short + long))
    starts = ends - lengths
    inside = np.where(lengths < 0.5, short_w, 400.0)
    levels = np.append(75.0, np.stack([inside, np.full_like(inside, 75.0)], axis=1).ravel())
    load = loads.steps(np.append(-9.0, np.stack([starts, ends], axis=1).ravel()), levels)
    for end in ends if tail_w_s else ():
        load = load + loads.tail(end, *tail_w_s)
    load = loads.noisy(load, noise, -0.5, ends[-1] + 1, rng)
    twin = VirtualDevice(profiles.with_random_phase(profile, rng), load, seed=seed)
    polls = twin.poll(
        0.0, ends[-1] + 1, 0.005, 0.02, rng, quantity="instant" if power else "counter"
    )
    bursts = [Window(int(a), int(b)) for a, b in zip(ns(starts), ns(ends), strict=True)]
    return fit_calibration(power_of(polls) if power else counter_of(polls), Driven(tuple(bursts)))


@pytest.mark.parametrize("profile", [profiles.A100, profiles.V100, profiles.H100])
@pytest.mark.parametrize("lag_s", [0.0, 0.05])
def test_tick_and_lag_are_found_and_the_counter_proven_whole(profile, lag_s):
    found = recorded(profiles.vary(profile, lag_s=lag_s), 1)
    assert found.tick_s == pytest.approx(profile.counter_period_s, rel=1e-4)
    assert found.lag_s == pytest.approx(lag_s, abs=0.004)
    assert found.tail.excess_s < 0.002
    assert found.fully_integrating
    assert abs(found.lag_s - lag_s) <= 3 * found.edge_time_s
    assert found.edge_time_s < 0.003, "sixty bursts tell it better than by 3 ms"


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_noise_of_power_is_no_sign_of_a_look(seed):
    assert recorded(profiles.V100, seed, noise=0.1).fully_integrating


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_look_of_three_quarters_of_a_tick_is_not_taken_for_a_whole_one(seed):
    found = recorded(profiles.vary(profiles.V100, part_time=0.75), seed, noise=0.05)
    assert not found.fully_integrating


def test_a_slow_sensor_is_one_that_lags_and_takes_time_to_settle():
    found = recorded(profiles.vary(profiles.A100, rise_s=0.04), 2)
    assert found.lag_s == pytest.approx(0.04, abs=0.004)
    assert found.tail.excess_s < 0.002
    assert 0.08 <= found.tail.settle_s <= 0.25


def test_a_tail_is_told_from_lag():
    true_s = loads.tail(0.0, 150.0, 0.1).energy_j(0.0, 1.0) / 325.0
    found = recorded(profiles.vary(profiles.A100, lag_s=0.05), 3, tail_w_s=(150.0, 0.1))
    assert found.lag_s == pytest.approx(0.05, abs=0.004)
    assert found.tail.excess_s == pytest.approx(true_s, abs=0.003)
    assert found.tail.rise_s == pytest.approx(0.0, abs=0.01), "how bursts begin tells it"


@pytest.mark.parametrize("seed", range(4))
def test_a_counter_that_looks_part_of_the_time_is_found_out(seed):
    found = recorded(profiles.vary(profiles.A100_PART_TIME, lag_s=0.02), seed)
    assert not found.fully_integrating
    assert found.look_share == pytest.approx(0.25, abs=0.08)
    assert found.lag_s == pytest.approx(0.02, abs=0.01)


def test_instantaneous_power_looks_part_of_the_time():
    found = recorded(profiles.A100, 5, power=True)
    assert not found.fully_integrating
    assert found.look_share == pytest.approx(0.25, abs=0.08)


def test_without_short_bursts_nothing_is_proven():
    found = recorded(profiles.A100, 6, short=0)
    assert not found.fully_integrating
    assert found.look_share is None


def test_too_few_long_bursts_are_refused():
    with pytest.raises(ValueError, match="are needed"):
        recorded(profiles.A100, 7, long=2)


def test_no_bursts_are_refused():
    twin = VirtualDevice(profiles.A100, loads.flat(75.0))
    readings = counter_of(twin.poll(0.0, 5.0, 0.005, 0.0, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="no bursts"):
        fit_calibration(readings, Driven(()))


def test_bursts_that_nobody_read_are_passed_over():
    starts_s = np.arange(1.0, 41.0, 2.0)
    load = loads.bursts(starts_s, 1.0, 400.0, 75.0)
    twin = VirtualDevice(profiles.A100, load, seed=1)
    polls = twin.poll(0.0, 21.0, 0.005, 0.0, np.random.default_rng(1))
    bursts = [Window(int(ns(at)), int(ns(at + 1.0))) for at in starts_s]

    found = fit_calibration(counter_of(polls), Driven(tuple(bursts)))
    assert found.tick_s == pytest.approx(0.1, rel=1e-3)


def test_short_bursts_that_end_on_their_way_up_prove_no_counter_whole():
    for seed in range(3):
        part = recorded(profiles.A100_PART_TIME, seed, short_w=160.0)
        assert not part.fully_integrating
        assert part.look_share is None or part.look_share < 0.5
    assert recorded(profiles.A100, 4, short_w=160.0).fully_integrating

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from llenergymeasure.core.backends.scripted.engine import LoadLog
from tests.support.simulated_device import loads
from tests.support.simulated_device.profiles import (
    A10,
    A100,
    A100_PART_TIME,
    H100,
    PASCAL_P100,
    PROFILES,
    V100,
    DeviceProfile,
    vary,
    with_random_phase,
)
from tests.support.simulated_device.twin import START_MJ, NotSupported, VirtualDevice

STEP = loads.step(1.0, 2.0, inside_w=400.0, outside_w=75.0)
COUNTING = [name for name, profile in PROFILES.items() if profile.counter_supported]


def _rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_true_energy_is_the_integral_of_the_load() -> None:
    assert STEP.energy_j(0.0, 3.0) == pytest.approx(75.0 + 400.0 + 75.0)
    drift = loads.ramp(0.0, 10.0, first_w=400.0, last_w=300.0)
    assert drift.energy_j(0.0, 10.0) == pytest.approx(3500.0)
    assert drift.energy_j(0.0, 5.0) == pytest.approx(5.0 * 375.0)


def test_a_load_and_its_tail_add_up() -> None:
    tailed = STEP + loads.tail(2.0, watts=150.0, over_s=0.1, curved=False)
    assert tailed.energy_j(0.0, 3.0) == pytest.approx(550.0 + 7.5)
    assert tailed.power_w(2.05) == pytest.approx(75.0 + 75.0)
    assert tailed.power_w(1.999) == pytest.approx(400.0)
    assert tailed.power_w(2.2) == pytest.approx(75.0)


@pytest.mark.parametrize("load", [loads.square(0.0, 2.0, 0.023), loads.request_train(0.0, 2.0)])
def test_waves_stay_inside_their_window(load: loads.Load) -> None:
    assert load.power_w(-1e-6) == load.power_w(2.0) == 75.0
    assert np.all(load.power_w(np.linspace(0.0, 1.999, 500)) > 75.0)


def test_a_request_train_ends_with_a_burst() -> None:
    train = loads.request_train(0.0, 1.7, request_s=0.5, prefill_s=0.08)
    assert train.power_w([0.01, 0.3, 1.63, 1.69]).tolist() == [650.0, 380.0, 650.0, 650.0]


def test_noise_is_part_of_the_true_energy() -> None:
    quiet = loads.step(0.0, 20.0)
    noisy = loads.noisy(quiet, 0.1, 0.0, 20.0, _rng())
    pieces = noisy.level_w[(noisy.start_s >= 0.0) & (noisy.start_s < 20.0)]
    assert pieces.std() == pytest.approx(40.0, rel=0.1)
    mean_w = np.trapezoid(noisy.power_w(np.linspace(0, 20, 200_001)), dx=1e-4)
    assert noisy.energy_j(0.0, 20.0) == pytest.approx(mean_w, rel=1e-4)
    assert noisy.power_w([-1.0, 21.0]).tolist() == [75.0, 75.0]


def test_steps_in_place_of_slopes_keep_the_energy() -> None:
    load = loads.ramp(0.0, 1.0) + loads.tail(1.0)
    held = loads.stepped(load, 0.0, 2.0)
    assert held.energy_j(-1.0, 3.0) == pytest.approx(load.energy_j(-1.0, 3.0), rel=1e-12)


def test_a_load_survives_its_log() -> None:
    read = loads.from_log(loads.to_log(STEP), idle_w=60.0, epoch_s=-20.0)
    assert read.energy_j(-20.0, 3.0) == STEP.energy_j(-9.0, 3.0) + 11.0 * 60.0
    with pytest.raises(ValueError, match="constant"):
        loads.to_log(loads.ramp(0.0, 1.0))


def test_the_log_of_the_scripted_backend_is_a_load(tmp_path: Path) -> None:
    path = tmp_path / "load.log"
    start_s = time.monotonic()
    log = LoadLog(str(path))
    log.write(400.0)
    log.write(75.5)
    read = loads.from_log(path.read_text(), idle_w=60.0, epoch_s=start_s)
    assert read.level_w.tolist() == [60.0, 400.0, 75.5]
    assert np.all(np.diff(read.start_s) >= 0.0)
    assert read.start_s[-1] <= time.monotonic()


def test_an_old_line_of_a_log_rewrites_no_history() -> None:
    before = loads.from_log("10.0 100\n20.0 300\n", idle_w=50.0, epoch_s=0.0)
    after = loads.from_log("10.0 100\n20.0 300\n12.0 0\n", idle_w=50.0, epoch_s=0.0)
    assert after.energy_j(0.0, 20.0) == before.energy_j(0.0, 20.0)
    assert after.power_w(20.0) == 0.0


def test_an_unfinished_line_of_a_log_is_left_out() -> None:
    assert loads.from_log("10.0 100\n20.0 3", 50.0, 0.0).power_w(30.0) == 100.0


@pytest.mark.parametrize("name", COUNTING)
def test_a_counter_holds_the_energy_up_to_its_last_tick(name: str) -> None:
    profile = vary(with_random_phase(PROFILES[name], _rng()), part_time=1.0, tick_jitter_s=0.003)
    device = VirtualDevice(profile, STEP, seed=3)
    ticks_s = device.counter_ticks_s(0.0, 3.0)
    assert len(ticks_s) == pytest.approx(3.0 / profile.counter_period_s, abs=1)
    shown = device.counter_mj(ticks_s) - device.counter_mj(ticks_s[:1])
    true_mj = [1000.0 * STEP.energy_j(ticks_s[0], tick_s) for tick_s in ticks_s]
    assert np.abs(shown - true_mj).max() <= 1.0


@pytest.mark.parametrize("profile", [A100, A100_PART_TIME, vary(V100, rise_s=0.05, lag_s=0.02)])
def test_a_counter_only_rises_and_only_at_ticks(profile: DeviceProfile) -> None:
    device = VirtualDevice(vary(profile, tick_jitter_s=0.004), STEP, seed=1)
    t_s = np.linspace(0.0, 3.0, 30_001)
    shown = device.counter_mj(t_s)
    assert np.all(np.diff(shown) >= 0)
    changed_s = t_s[1:][np.diff(shown) > 0]
    ticks_s = device.counter_ticks_s(0.0, 3.0)
    assert len(changed_s) == len(ticks_s)
    assert np.all((changed_s >= ticks_s) & (changed_s < ticks_s + 1.1e-4))


def test_ticks_are_late_or_early_by_no_more_than_the_jitter() -> None:
    device = VirtualDevice(vary(A100, tick_jitter_s=0.005), STEP, seed=5)
    off_s = device.counter_ticks_s(0.05, 200.05) - 0.1 * np.arange(1, 2001)
    assert np.abs(off_s).max() <= 0.005
    assert off_s.std() == pytest.approx(0.005 / np.sqrt(3.0), rel=0.05)
    assert abs(off_s.mean()) < 0.0003


def test_the_part_of_a_tick_that_nobody_looks_at_is_taken_to_be_alike() -> None:
    burst = loads.step(1.01, 1.06, inside_w=400.0, outside_w=100.0)  # over before 25 ms from a tick
    device = VirtualDevice(A100_PART_TIME, burst)
    missed = device.counter_mj(2.0) - device.counter_mj(0.9)
    assert missed == pytest.approx(110_000, abs=1)
    seen = VirtualDevice(A100, burst).counter_mj([0.9, 2.0])
    assert seen[1] - seen[0] == pytest.approx(125_000, abs=1)


def test_part_time_alias_shows_tens_of_per_cent() -> None:
    device = VirtualDevice(A100_PART_TIME, loads.square(0.0, 20.0, 0.1, high_w=400.0, low_w=100.0))
    shown = np.diff(device.counter_mj([1.0, 19.0]))[0] / 1000.0
    assert shown / device.true_energy_j(1.0, 19.0) == pytest.approx(100.0 / 250.0, rel=0.01)


def test_instant_power_is_the_mean_of_its_window_at_the_last_update() -> None:
    device = VirtualDevice(A100, STEP)  # updates at 1.0 and 1.1; the window is 25 ms
    assert device.power_mw([0.95, 1.05, 1.1, 2.05]).tolist() == [75_000, 75_000, 400_000, 400_000]
    shifted = VirtualDevice(vary(A100, power_phase_s=0.0125), STEP)
    assert shifted.power_mw(1.05) == pytest.approx((75_000 + 400_000) / 2, abs=1)


def test_a_one_second_average_needs_a_second_to_follow() -> None:
    device = VirtualDevice(H100, STEP)
    assert device.average_power_mw(1.55) == pytest.approx(237_500, abs=1)
    assert device.power_usage_mw(1.55) == device.average_power_mw(1.55)
    assert device.power_mw(1.55) == 400_000


def test_lag_shifts_and_rise_smears_without_losing_energy() -> None:
    for slow in (vary(V100, lag_s=0.05), vary(V100, rise_s=0.05)):
        device = VirtualDevice(slow, STEP)
        assert device.power_mw(1.04) < 250_000
        early = device.counter_mj([0.5, 1.5])
        assert np.diff(early)[0] == pytest.approx(237_500 - 0.05 * 325_000, abs=30)
        whole = device.counter_mj([0.5, 3.5])
        assert np.diff(whole)[0] == pytest.approx(1000.0 * device.true_energy_j(0.5, 3.5), abs=2)


def test_a_rising_sensor_follows_a_step_exponentially() -> None:
    fine = vary(V100, rise_s=0.1, power_period_s=0.001, averaging_window_s=1e-4)
    shown = VirtualDevice(fine, STEP).power_mw(1.2)
    assert shown == pytest.approx(400_000 - 325_000 * np.exp(-2.0), rel=1e-3)


def test_gain_and_offset_bend_power_and_counter() -> None:
    bent = VirtualDevice(vary(A100, gain=1.044, offset_w=-22.0), STEP)
    assert bent.power_mw(1.55) == pytest.approx(1044 * 400 - 22_000, abs=1)
    shown = np.diff(bent.counter_mj([0.0, 3.0]))[0]
    assert shown == pytest.approx(1044 * 550 - 3 * 22_000, abs=1)


def test_noise_repeats_for_a_seed_and_has_the_asked_size() -> None:
    noisy = vary(V100, noise_w=10.0)
    t_s = np.arange(0.01, 100.0, 0.02)
    shown = VirtualDevice(noisy, loads.flat(300.0), seed=1).power_mw(t_s)
    assert shown.std() == pytest.approx(10_000, rel=0.05)
    assert shown.mean() == pytest.approx(300_000, abs=500)
    again = VirtualDevice(noisy, loads.flat(300.0), seed=1).power_mw(t_s)
    assert np.array_equal(shown, again)
    other = VirtualDevice(noisy, loads.flat(300.0), seed=2).power_mw(t_s)
    assert abs(np.corrcoef(shown, other)[0, 1]) < 0.05


def test_what_a_device_lacks_is_refused() -> None:
    with pytest.raises(NotSupported):
        VirtualDevice(PASCAL_P100, STEP).counter_mj(1.0)
    with pytest.raises(NotSupported):
        VirtualDevice(A10, STEP).power_mw(1.0)
    with pytest.raises(NotSupported):
        VirtualDevice(A100, STEP).average_power_mw(1.0)
    assert VirtualDevice(A10, STEP).power_usage_mw(1.55) == pytest.approx(237_500, abs=1)


def test_the_counter_stands_still_before_its_epoch() -> None:
    device = VirtualDevice(A100, STEP, epoch_s=0.0)
    assert device.counter_mj([-5.0, 0.0]).tolist() == [START_MJ, START_MJ]
    assert int(device.counter_mj(0.1)) == START_MJ + 7_500


def test_a_value_does_not_depend_on_what_else_is_asked() -> None:
    device = VirtualDevice(vary(A100_PART_TIME, tick_jitter_s=0.003), STEP, seed=9)
    t_s = np.linspace(0.0, 3.0, 61)
    one_by_one = [int(device.counter_mj(t)) for t in t_s]
    assert device.counter_mj(t_s).tolist() == one_by_one


def test_polls_bracket_their_values_and_some_are_late() -> None:
    device = VirtualDevice(A100, STEP, seed=2)
    polls = device.poll(0.0, 3.0, 0.005, 0.02, _rng())
    assert np.all(polls.after_s > polls.before_s)
    assert np.all(polls.before_s[1:] > polls.after_s[:-1])
    assert np.all(device.counter_mj(polls.before_s) <= polls.value)
    assert np.all(device.counter_mj(polls.after_s) >= polls.value)
    gaps_s = np.diff(polls.before_s)
    assert 0 < np.count_nonzero(gaps_s > 0.0101) < 30
    on_time = device.poll(0.0, 3.0, 0.005, 0.0, _rng())
    assert len(on_time.value) == 600


def test_polls_of_power_read_power() -> None:
    polls = VirtualDevice(A100, STEP).poll(1.5, 1.9, 0.02, 0.0, _rng(), quantity="instant")
    assert set(polls.value.tolist()) == {400_000}


def test_impossible_profiles_are_refused() -> None:
    with pytest.raises(ValueError, match="overtake"):
        vary(V100, tick_jitter_s=0.01)
    with pytest.raises(ValueError, match="share"):
        vary(A100, part_time=0.0)

"""Parts of a window: halves that did the same work, and the spread of idle power."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llenergymeasure.core.energy.parts import (
    Half,
    compare_halves,
    compared,
    idle_power,
    interval95_of_mean_w,
    is_steady,
)
from llenergymeasure.domain.energy import EnergyComponent, EnergyRecording
from llenergymeasure.domain.environment import DeviceState
from llenergymeasure.domain.samples import Window
from tests.support.known_power import KnownPower, Step, constant, energy_between

S = 1_000_000_000
INTERVAL_J = 1.0


class Parted(KnownPower):
    """Known power that can be divided; a clock that follows time, MHz."""

    def __init__(self, steps: Callable[[], list[Step]], mhz: Callable[[float], float]) -> None:
        super().__init__(steps)
        self._mhz = mhz

    def part(self, window: Window) -> EnergyRecording:
        start_s, end_s = window.t0_ns / 1e9, window.t1_ns / 1e9
        device = EnergyComponent(
            name="gpu",
            energy_j=energy_between(self._steps(), start_s, end_s),
            kind="measured",
            method="known",
            in_scope=True,
        )
        state = DeviceState(device="gpu", clock_sm_mhz=self._mhz((start_s + end_s) / 2))
        return EnergyRecording("known", (device,), INTERVAL_J, device_state=(state,))


def parted(*steps: tuple[float, float], mhz: Callable[[float], float] = lambda _: 1400) -> Parted:
    return Parted(lambda: [Step(*step) for step in steps], mhz)


def passes(count: int, each_s: float = 10.0) -> list[Window]:
    return [Window(round(i * each_s * S), round((i + 1) * each_s * S)) for i in range(count)]


def test_equal_passes_of_equal_energy_close() -> None:
    found = compare_halves(parted((0.0, 100.0)), passes(4))
    assert found is not None
    assert (found.passes_each, found.first_j, found.second_j) == (2, 2000.0, 2000.0)
    assert found.allowed_j == pytest.approx(2**0.5 + 20.0)
    assert found.closes
    assert found.power_change == 0.0
    assert found.clock_change == 0.0


def test_a_step_of_power_between_the_halves_does_not_close() -> None:
    found = compare_halves(parted((0.0, 100.0), (20.0, 103.0)), passes(4))
    assert found is not None
    assert not found.closes
    assert found.power_change == pytest.approx(0.03)
    assert found.power_change_interval95 == pytest.approx(2**0.5 / 2000, rel=0.02)


def half(energy_j: float, half_j: float | None) -> Half:
    part = EnergyComponent(
        name="gpu", energy_j=energy_j, kind="measured", method="known", in_scope=True
    )
    return Half(Window(0, 10 * S), EnergyRecording("known", (part,), half_j))


def test_halves_may_differ_by_their_intervals_and_one_per_cent() -> None:
    found = compared(1, half(100.0, 3.0), half(106.0, 4.0))
    assert found is not None
    assert found.allowed_j == pytest.approx(5.0 + 1.03)
    assert found.closes
    beyond = compared(1, half(100.0, 3.0), half(106.1, 4.0))
    assert beyond is not None
    assert not beyond.closes
    assert compared(1, half(100.0, 3.0), half(106.0, None)) is None


def test_the_middle_one_of_three_passes_is_left_out() -> None:
    found = compare_halves(parted((0.0, 100.0), (10.0, 500.0), (20.0, 100.0)), passes(3))
    assert found is not None
    assert found.closes
    assert found.passes_each == 1


def test_a_clock_that_falls_shows() -> None:
    found = compare_halves(parted((0.0, 100.0), mhz=lambda at_s: 1400 - at_s), passes(4))
    assert found is not None
    assert found.clock_change == pytest.approx(1370 / 1390 - 1)


def test_a_source_of_whole_windows_tells_nothing() -> None:
    assert compare_halves(KnownPower(constant(100.0)), passes(4)) is None


def idle(source: KnownPower, seconds: int = 30):
    window = Window(0, seconds * S)
    return idle_power(source, window, source.close_window(window))


def test_even_idle_power_is_steady() -> None:
    found = idle(parted((0.0, 60.0)))
    assert found is not None
    assert found.power_w == pytest.approx(60.0)
    assert found.interval95_w == pytest.approx(0.0, abs=1e-9)
    assert found.steady


def test_idle_power_that_falls_is_not_steady_and_its_interval_holds_the_fall() -> None:
    falling = [(0.1 * i, 80.0 - 0.05 * i) for i in range(300)]  # 80 to 65 W, as a device cools
    found = idle(parted(*falling))
    assert found is not None
    assert found.steady is False
    assert found.interval95_w is not None
    assert found.interval95_w > 3.5, "half the difference of the halves' means, 7.5 W"


def test_the_interval_of_idle_power_is_students_of_ten_blocks_with_half_the_drift() -> None:
    block_w = np.array([61.0, 59.0, 60.0, 62.0, 58.0, 60.0, 61.0, 59.0, 60.5, 59.5])
    drift_w = block_w[5:].mean() - block_w[:5].mean()
    noise_w = 2.26 * block_w.std(ddof=1) / 10**0.5
    found = interval95_of_mean_w(np.repeat(block_w, 2))
    assert found == pytest.approx(np.hypot(noise_w, drift_w / 2))


@pytest.mark.parametrize(("fall", "steady"), [(0.01, True), (0.03, True), (0.06, False)])
def test_a_straight_fall_is_told_from_noise(fall: float, steady: bool) -> None:
    assert is_steady(60.0 * (1 - fall * np.arange(20) / 20)) is steady


def test_noise_alone_is_steady_nearly_always() -> None:
    rng = np.random.default_rng(5)
    drawn = rng.normal(60.0, 3.0, (2000, 20))
    assert np.mean([is_steady(powers) for powers in drawn]) > 0.97


def test_idle_power_of_a_source_of_whole_windows_has_no_spread() -> None:
    found = idle(KnownPower(constant(60.0)))
    assert found is not None
    assert (found.power_w, found.steady, found.interval95_w) == (pytest.approx(60.0), None, None)


def test_a_stretch_too_short_to_divide_has_no_spread() -> None:
    found = idle(parted((0.0, 60.0)), seconds=1)
    assert found is not None
    assert found.steady is None

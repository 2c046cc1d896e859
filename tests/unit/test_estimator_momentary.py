"""Power of a moment behind a window: what a quick tail shows of itself there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.sensor import Calibration, Tail, Timing
from llenergymeasure.core.energy.estimation.tail import momentary_power
from llenergymeasure.core.energy.estimation.ticks import Ticks
from llenergymeasure.core.energy.estimator import (
    DeviceReadings,
    EnergyEstimate,
    Knowledge,
    estimate_energy,
)
from tests.support.estimator_cases import WHOLE, counter_of, power_of, window
from tests.support.simulated_device import loads, profiles
from tests.support.simulated_device.twin import VirtualDevice

QUARTER = Calibration(tick_s=0.1, jitter_s=0.0, look_share=0.25)
COUNTER = replace(WHOLE, tail=Tail(rise_s=0.0))
BOTH = Knowledge(counter=COUNTER, power=QUARTER)
UPDATES = Ticks(np.arange(5) * 0.1, np.zeros(5), np.arange(5) * 7.5, 0.1, 0.0)


def estimated(
    tail_w: float, overhang_s: float, knowledge: Knowledge, *, look_s: float = 0.025
) -> EnergyEstimate:
    """Measure 1 s at 400 W on a device whose counter and power tick so long after its end."""
    device = profiles.vary(
        profiles.A100,
        counter_phase_s=overhang_s,
        power_phase_s=overhang_s,
        averaging_window_s=look_s,
    )
    load = loads.step(0.0, 1.0)
    if tail_w:
        load = load + loads.tail(1.0, tail_w, 0.1)
    twin, rng = VirtualDevice(device, load), np.random.default_rng(1)
    counter = counter_of(twin.poll(-0.6, 1.6, 0.005, 0.0, rng, quantity="counter"))
    power = power_of(twin.poll(-0.6, 1.6, 0.005, 0.0, rng, quantity="instant"))
    return estimate_energy(DeviceReadings(counter, power), window(1.0), knowledge)


def unseen_j(found: EnergyEstimate) -> float:
    return sum(line.standard_j for line in found.budget if line.name == budget.UNSEEN_TAIL)


@pytest.mark.parametrize("overhang_s", [0.04, 0.05, 0.06, 0.07])
def test_a_quick_tail_that_the_counter_hardly_shows_is_told_by_power(overhang_s: float) -> None:
    found = estimated(150.0, overhang_s, BOTH)
    alone = estimated(150.0, overhang_s, replace(BOTH, power=None))
    assert found.energy_j is not None
    assert found.interval95_j is not None
    assert alone.energy_j is not None
    assert abs(found.energy_j - 400.0) <= found.interval95_j
    assert abs(found.energy_j - 400.0) < abs(alone.energy_j - 400.0)


@pytest.mark.parametrize("overhang_s", [0.01, 0.04, 0.06, 0.09])
def test_without_a_tail_power_finds_none(overhang_s: float) -> None:
    found = estimated(0.0, overhang_s, BOTH)
    assert "unknown_tail" not in found.flags
    assert found.energy_j == pytest.approx(400.0, rel=0.005)
    assert unseen_j(found) > 0


def test_an_update_that_still_looks_at_work_is_not_asked() -> None:
    # 20 ms behind the end, a look of 25 ms holds work.
    by_counter = unseen_j(estimated(0.0, 0.02, replace(BOTH, power=None)))
    assert unseen_j(estimated(0.0, 0.02, BOTH)) == pytest.approx(by_counter)
    assert unseen_j(estimated(0.0, 0.06, BOTH)) != pytest.approx(
        unseen_j(estimated(0.0, 0.06, replace(BOTH, power=None)))
    )


def test_a_counter_that_is_late_or_slow_is_not_judged_by_power() -> None:
    late = replace(BOTH, counter=replace(COUNTER, lag_s=0.02))
    alone = replace(late, power=None)
    assert unseen_j(estimated(0.0, 0.06, late)) == unseen_j(estimated(0.0, 0.06, alone))


@pytest.mark.parametrize(
    "timing",
    [
        Timing(look_share=0.25, look_known=False),
        Timing(look_share=1.0, look_known=True),
        Timing(look_share=0.25, look_known=True, lag_s=0.03),
    ],
)
def test_power_of_unknown_long_or_late_looks_is_not_of_a_moment(timing: Timing) -> None:
    assert momentary_power(UPDATES, timing) is None


def test_a_look_is_a_share_of_the_time_between_updates() -> None:
    momentary = momentary_power(UPDATES, Timing(look_share=0.25, look_known=True))
    assert momentary is not None
    assert momentary.look_s == pytest.approx(0.025)

"""Power that goes on after the work, as no calibration saw it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.calibration_fit import _last_unsettled
from llenergymeasure.core.energy.estimation.sensor import Tail, to_come_s
from llenergymeasure.core.energy.estimator import DeviceReadings, Knowledge, estimate_energy
from tests.support.estimator_cases import WHOLE, pencil_counter, polls_at, window
from tests.support.simulated_device import loads

KNOWN = Knowledge(replace(WHOLE, tick_s=0.05, tail=Tail(rise_s=0.0)))


def estimated(watts: float, phase_s: float, knowledge: Knowledge = KNOWN):
    load = loads.step(0.0, 1.0)
    if watts:
        load = load + loads.tail(1.0, watts, 0.3)
    counter = pencil_counter(polls_at(-0.6, 1.6), 0.05, phase_s, load)
    return estimate_energy(DeviceReadings(counter), window(1.0), knowledge)


@pytest.mark.parametrize("phase_s", np.linspace(0.003, 0.048, 7))
def test_a_tail_that_calibration_never_saw_is_taken_off_doubted_and_said(phase_s: float) -> None:
    found = estimated(120.0, phase_s)
    assert found.energy_j is not None
    assert found.interval95_j is not None
    assert abs(found.energy_j - 400.0) <= found.interval95_j
    assert "unknown_tail" in found.flags
    assert any(line.name == budget.UNKNOWN_TAIL for line in found.budget)


@pytest.mark.parametrize("phase_s", np.linspace(0.003, 0.048, 7))
def test_without_a_tail_nothing_is_taken_off_and_nothing_said(phase_s: float) -> None:
    found = estimated(0.0, phase_s)
    assert found.energy_j == pytest.approx(400.0, rel=0.005)
    assert "unknown_tail" not in found.flags


def test_a_calibration_that_saw_a_tail_keeps_to_its_own_figure() -> None:
    seen = Knowledge(replace(WHOLE, tick_s=0.05, tail=Tail(0.02, 0.2, 325.0)))
    assert "unknown_tail" not in estimated(120.0, 0.02, seen).flags


def test_what_a_sensor_has_still_to_count_is_its_lag_at_the_end_and_falls_to_nothing() -> None:
    delay_s = np.array([0.0, 0.02, 0.05, 0.5])
    delayed = to_come_s(delay_s, lag_s=0.05, rise_s=0.0)
    assert delayed == pytest.approx([0.05, 0.03, 0.0, 0.0])
    rising = to_come_s(delay_s, lag_s=0.05, rise_s=0.05)
    assert rising == pytest.approx(0.05 * np.exp(-delay_s / 0.05))


def test_a_late_block_that_seems_unsettled_after_calm_ones_does_not_draw_out_the_settling() -> None:
    delay_s = np.arange(0.005, 0.25, 0.01)  # two in each block
    rest_s = np.where(delay_s < 0.04, 0.02, 0.0)
    settled_s = _last_unsettled(delay_s, rest_s)
    assert settled_s == pytest.approx(0.06)
    rest_s[-2:] = 0.004
    assert _last_unsettled(delay_s, rest_s) == settled_s

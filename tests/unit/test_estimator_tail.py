"""Power that goes on after the work, as no calibration saw it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.calibration_fit import _last_unsettled
from llenergymeasure.core.energy.estimation.edges import end_axis
from llenergymeasure.core.energy.estimation.sensor import Tail, timing, to_come_s
from llenergymeasure.core.energy.estimation.tail import (
    CERTAIN_TICKS,
    AfterEnd,
    after_end,
    stands_out,
)
from llenergymeasure.core.energy.estimation.ticks import Ticks
from llenergymeasure.core.energy.estimator import (
    DeviceReadings,
    EnergyEstimate,
    Knowledge,
    estimate_energy,
)
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


def line_j(found: EnergyEstimate, name: str = budget.UNSEEN_TAIL) -> float:
    return sum(line.standard_j for line in found.budget if line.name == name)


@pytest.mark.parametrize("phase_s", np.linspace(0.003, 0.048, 7))
def test_the_interval_allows_for_a_tail_that_nothing_shows(phase_s: float) -> None:
    found = estimated(0.0, phase_s)
    (line,) = [line for line in found.budget if line.name == budget.UNSEEN_TAIL]
    assert line.standard_j > 0
    assert line.shared


def test_the_longer_whole_ticks_overlap_the_window_the_more_a_tail_may_hide() -> None:
    # Of a tick every 50 ms, one at 1.003 s leaves hardly any time and one at 1.048 s all of it.
    assert line_j(estimated(0.0, 0.048)) > 5 * line_j(estimated(0.0, 0.003)) > 0


def test_what_shows_a_little_widens_the_interval_though_it_is_not_taken_off() -> None:
    quiet, slight = estimated(0.0, 0.03), estimated(4.0, 0.03)
    assert "unknown_tail" not in slight.flags
    assert line_j(slight) > 1.2 * line_j(quiet)


def test_a_sensor_that_looks_part_of_the_time_tells_nothing_of_tails() -> None:
    part_time = Knowledge(replace(WHOLE, tick_s=0.05, fully_integrating=False, look_share=0.25))
    assert not line_j(estimated(0.0, 0.02, part_time))


def test_a_calibration_that_saw_a_tail_keeps_to_its_own_figure_and_doubts_a_further_one() -> None:
    seen = Knowledge(replace(WHOLE, tick_s=0.05, tail=Tail(0.03, 0.2, 325.0)))
    found = estimated(120.0, 0.02, seen)
    assert "unknown_tail" not in found.flags
    assert line_j(found) > 0
    little = Knowledge(replace(WHOLE, tick_s=0.05, tail=Tail(0.005, 0.2, 325.0)))
    assert line_j(estimated(120.0, 0.02, little)) > 2 * line_j(found)


def behind_of(rest_w: np.ndarray, before_w: np.ndarray, tail_j: float = 0.0) -> AfterEnd:
    """A window of 1 s at 400 W between ticks every 50 ms; the first one behind it holds a tail."""
    ticks_j = np.concatenate((before_w, np.full(20, 400.0), rest_w)) * 0.05
    ticks_j[len(before_w) + 20] += tail_j
    energy_j = np.concatenate(([0.0], np.cumsum(ticks_j)))
    time_s = 0.01 + 0.05 * (np.arange(len(energy_j)) - len(before_w))
    ticks = Ticks(time_s, np.full(len(time_s), 1e-6), energy_j, 0.05, 0.0)
    axis = end_axis(ticks, 1.0, 0.0, 0.0)
    behind = after_end(axis, timing(KNOWN.counter), 400.0)
    assert behind is not None
    return behind


STEADY = np.full(12, 75.0)
UNSTEADY = 75.0 + 8.0 * (-1.0) ** np.arange(12)


def test_ticks_before_the_window_tell_how_steady_rest_is_too() -> None:
    alike = behind_of(STEADY, STEADY).rest.spread_w
    assert behind_of(STEADY, UNSTEADY).rest.spread_w > 2 * alike
    assert behind_of(UNSTEADY, STEADY).rest.spread_w > 2 * alike


def test_the_first_tick_shows_a_tail_that_the_noise_of_all_of_them_hides() -> None:
    behind = behind_of(STEADY, STEADY, tail_j=0.2)
    assert behind.first.energy_j == pytest.approx(behind.all.energy_j) == pytest.approx(0.2)
    assert behind.all.energy_j < CERTAIN_TICKS * behind.all.sigma_j
    assert stands_out(behind)
    assert not stands_out(behind_of(STEADY, STEADY))


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

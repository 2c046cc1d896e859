"""Power that goes on after the work, as no calibration saw it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.calibration_fit import _last_unsettled
from llenergymeasure.core.energy.estimation.edges import end_axis
from llenergymeasure.core.energy.estimation.sensor import Tail, timing, to_come_s
from llenergymeasure.core.energy.estimation.tail import AfterEnd, after_end, aimed_wait_s
from llenergymeasure.core.energy.estimation.tail_shapes import (
    EndSeen,
    TailPrior,
    find_hidden,
    shapes,
)
from llenergymeasure.core.energy.estimation.ticks import Ticks
from llenergymeasure.core.energy.estimator import (
    DeviceReadings,
    EnergyEstimate,
    Knowledge,
    estimate_energy,
)
from tests.support.estimator_cases import WHOLE, ns, pencil_counter, polls_at, window
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


def test_what_hardly_shows_is_hardly_taken_off_and_no_finding() -> None:
    quiet, slight = estimated(0.0, 0.03), estimated(4.0, 0.03)
    assert "unknown_tail" not in slight.flags
    assert slight.energy_j == pytest.approx(quiet.energy_j, rel=0.005)


def test_a_sensor_that_looks_part_of_the_time_tells_nothing_of_tails() -> None:
    part_time = Knowledge(replace(WHOLE, tick_s=0.05, fully_integrating=False, look_share=0.25))
    assert not line_j(estimated(0.0, 0.02, part_time))


def test_the_tail_that_calibration_saw_is_taken_off_and_is_no_finding() -> None:
    tail_s = loads.tail(0.0, 120.0, 0.3).energy_j(0.0, 1.0) / 325.0
    tail = Tail(tail_s, 0.35, 325.0, rise_s=0.0, doubt_s=0.001)
    found = estimated(120.0, 0.045, Knowledge(replace(WHOLE, tick_s=0.05, tail=tail)))
    assert found.energy_j is not None
    assert found.interval95_j is not None
    assert abs(found.energy_j - 400.0) <= found.interval95_j
    assert "unknown_tail" not in found.flags
    assert not line_j(found, budget.KNOWN_TAIL), "the end itself tells it"


def behind_of(rest_w: np.ndarray, before_w: np.ndarray, tail_j: float = 0.0) -> AfterEnd:
    """A window of 1 s at 400 W between ticks every 50 ms; the first one behind it holds a tail."""
    ticks_j = np.concatenate((before_w, np.full(20, 400.0), rest_w)) * 0.05
    ticks_j[len(before_w) + 20] += tail_j
    energy_j = np.concatenate(([0.0], np.cumsum(ticks_j)))
    time_s = 0.01 + 0.05 * (np.arange(len(energy_j)) - len(before_w))
    ticks = Ticks(time_s, np.full(len(time_s), 1e-6), energy_j, 0.05, 0.0)
    axis = end_axis(ticks, 1.0, 0.0, 0.0)
    behind = after_end(axis, timing(KNOWN.counter))
    assert behind is not None
    return behind


STEADY = np.full(12, 75.0)
UNSTEADY = 75.0 + 8.0 * (-1.0) ** np.arange(12)


def test_ticks_before_the_window_tell_how_steady_rest_is_too() -> None:
    alike = behind_of(STEADY, STEADY).rest.spread_w
    assert behind_of(STEADY, UNSTEADY).rest.spread_w > 2 * alike
    assert behind_of(UNSTEADY, STEADY).rest.spread_w > 2 * alike


def test_whole_ticks_behind_an_end_hold_what_a_tail_leaves_to_them() -> None:
    seen = behind_of(STEADY, STEADY, tail_j=0.2).seen(with_end=False)
    assert seen.above_j[-1] == pytest.approx(0.2), "times ascend to the end: the first tick is last"
    assert seen.above_j[:-1] == pytest.approx(0.0)
    assert (seen.since_s[-1], seen.until_s[-1]) == pytest.approx((0.01, 0.06))


def test_the_tick_that_holds_the_end_is_seen_too_where_the_work_ended_soon_after_a_tick() -> None:
    behind = behind_of(STEADY, STEADY)
    assert len(behind.seen(with_end=True).above_j) == len(behind.seen(with_end=False).above_j)
    axis = behind.axis._replace(edge_s=-0.97)  # 10 ms after a tick, 40 ms before the next
    early = replace(behind, axis=axis).seen(with_end=True)
    assert early.since_s[-1] == pytest.approx(-0.01)
    assert early.covariance[-1, -1] > 10 * early.covariance[-2, -2], "how work ended is not known"


def end_of(since_s: float, tail: tuple[float, float], sigma_j: float = 0.1) -> EndSeen:
    """Ticks every 100 ms behind an end that a tail of some watts and seconds follows."""
    until_s = since_s + 0.1 * np.arange(1, 4)
    load = loads.tail(0.0, *tail, curved=False)
    above_j = np.array([load.energy_j(float(t) - 0.1, float(t)) for t in until_s])
    return EndSeen(until_s - 0.1, until_s, above_j, sigma_j**2 * np.eye(3), (0.5, 0.8))


@pytest.mark.parametrize("tail", [(0.0, 0.1), (200.0, 0.03), (150.0, 0.1), (80.0, 0.25)])
def test_ends_at_other_phases_of_the_tick_tell_what_one_end_hides(
    tail: tuple[float, float],
) -> None:
    own, prior = end_of(0.08, tail), TailPrior(325.0)
    true_j = loads.tail(0.0, *tail, curved=False).energy_j(0.0, 0.08)
    alone = find_hidden([own], 0.08, prior)
    helped = find_hidden([own, *(end_of(s, tail) for s in (0.005, 0.012, 0.03))], 0.08, prior)
    assert abs(helped.energy_j - true_j) <= 2.5 * helped.sigma_j + 0.02
    assert helped.sigma_j < alone.sigma_j
    assert abs(helped.energy_j - true_j) <= abs(alone.energy_j - true_j) + 0.02


def test_what_no_shape_explains_is_a_misfit() -> None:
    falls = end_of(0.02, (150.0, 0.1))
    rises = replace(falls, above_j=np.array([-2.0, 3.0, -2.0]))
    assert find_hidden([falls], 0.02, TailPrior(325.0)).misfit < 2
    assert find_hidden([rises], 0.02, TailPrior(325.0)).misfit > 50


def test_the_posterior_is_that_of_a_sum_over_shapes_and_amplitudes() -> None:
    own, prior = end_of(0.02, (60.0, 0.06), sigma_j=0.4), TailPrior(325.0, 0.5, 0.3)
    found = find_hidden([own], 0.02, prior)
    known = shapes(0.0)
    seen, hides = known.above_rest(own), known.until(np.array([0.02]))[0]
    total = moment = 0.0
    for shape, whole_j in enumerate(known.whole_j):
        for centre_j, spread_j in ((0.5, 0.3), (0.0, 0.5 * 325.0 * whole_j)):
            most_j = max(centre_j, 0.0) + 8 * spread_j
            energy_j = np.linspace(0.0, most_j, 4001)
            rest = own.above_j[:, None] - np.outer(seen[:, shape], energy_j / whole_j)
            log_p = -((rest / 0.4) ** 2).sum(axis=0) / 2
            log_p -= ((energy_j - centre_j) / spread_j) ** 2 / 2
            law = np.exp(-(((energy_j - centre_j) / spread_j) ** 2) / 2).sum()
            p = known.weight[shape] * np.exp(log_p) / law
            total += p.sum()
            moment += float((p * energy_j).sum()) * hides[shape] / whole_j
    assert found.energy_j == pytest.approx(moment / total, rel=0.01)


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


@pytest.mark.parametrize("share", [0.06, 0.3, 0.97])
@pytest.mark.parametrize("lag_s", [0.0, 0.03])
def test_work_is_begun_so_that_it_ends_a_share_of_a_tick_before_a_tick_shows_it(
    share: float, lag_s: float
) -> None:
    counter = pencil_counter(polls_at(-0.6, 0.5), 0.1, 0.037, loads.flat(75.0, -1.0))
    known = replace(WHOLE, lag_s=lag_s)
    for ends_s in (0.8, 3.21):
        wait_s = aimed_wait_s(counter, window(1.0).t0_ns, known, ends_s, share)
        assert 0 <= wait_s < 0.1
        to_tick_s = (0.037 - (ends_s + wait_s + lag_s)) % 0.1
        assert to_tick_s == pytest.approx(100 * share / 1000, abs=0.003)


def test_without_ticks_nothing_is_aimed_at() -> None:
    counter = pencil_counter(polls_at(0.0, 0.02), 0.1, 0.5, loads.flat(75.0, -1.0))
    assert aimed_wait_s(counter, window(1.0).t0_ns, WHOLE, 0.8, 0.3) == 0.0


def with_ends(phase_s: float, tail: tuple[float, float]):
    """A window of 400 J and, when they ended, four batches before it, each followed by a tail."""
    ends_s = np.array([-4.0, -3.0, -2.0, -1.0]) + phase_s - 0.1 * np.array([0.3, 0.13, 0.06, 0.97])
    load = loads.step(0.0, 1.0)
    for end_s in ends_s:
        load = load + loads.step(end_s - 0.4, end_s, 325.0, 0.0)
    for end_s in (*ends_s, 1.0):
        load = load + loads.tail(end_s, *tail)
    return pencil_counter(polls_at(-5.0, 1.6), 0.1, phase_s, load), ns(ends_s)


@pytest.mark.parametrize("phase_s", [0.013, 0.05, 0.083])
@pytest.mark.parametrize("rise_s", [0.0, 0.018])
def test_a_lag_that_may_be_clocks_that_came_up_slowly_is_doubted_where_ends_tell_a_tail(
    phase_s: float, rise_s: float
) -> None:
    # The sensor is prompt: what passes for its lag is half a ramp of 30 ms.
    counter, ends_ns = with_ends(phase_s, (150.0, 0.1))
    tail = Tail(0.0, 0.1, 325.0, rise_s=rise_s, doubt_s=0.015)
    ramped = replace(WHOLE, lag_s=0.018, edge_time_s=0.0151, tail=tail)
    known = Knowledge(ramped, rest_from_ns=int(ns(-0.6)), ends_ns=ends_ns)
    found = estimate_energy(DeviceReadings(counter), window(1.0), known)
    sure = replace(known, counter=replace(ramped, edge_time_s=5e-4))
    believed = estimate_energy(DeviceReadings(counter), window(1.0), sure)
    assert found.energy_j == believed.energy_j, "the figure is that of the likelier lag"
    assert abs(found.energy_j - 400.0) <= found.interval95_j
    assert found.interval95_j > 1.5 * believed.interval95_j


@pytest.mark.parametrize("phase_s", [0.013, 0.05, 0.083])
def test_ends_of_warm_up_batches_narrow_a_window_whose_own_end_hides_a_tail(phase_s: float) -> None:
    counter, ends_ns = with_ends(phase_s, (150.0, 0.1))
    alone = Knowledge(WHOLE, rest_from_ns=int(ns(-0.6)))
    found, helped = (
        estimate_energy(DeviceReadings(counter), window(1.0), known)
        for known in (alone, replace(alone, ends_ns=ends_ns))
    )
    assert helped.energy_j is not None
    assert helped.interval95_j is not None
    assert found.interval95_j is not None
    assert abs(helped.energy_j - 400.0) <= helped.interval95_j
    assert helped.interval95_j < min(found.interval95_j, 4.0)
    assert "unknown_tail" not in helped.flags


def test_where_late_polls_leave_no_rest_behind_the_window_its_tail_is_doubted_all_the_same() -> (
    None
):
    load = loads.step(0.0, 1.0) + loads.tail(1.0, 150.0, 0.1)
    counter = pencil_counter(polls_at(-0.6, 1.17), 0.1, 0.05, load)
    known = Knowledge(replace(WHOLE, tail=Tail(settle_s=0.0, rise_s=0.0, doubt_s=0.001)))
    found = estimate_energy(DeviceReadings(counter), window(1.0), known)
    assert found.energy_j is not None
    assert found.interval95_j is not None
    assert abs(found.energy_j - 400.0) <= found.interval95_j
    assert line_j(found, budget.UNKNOWN_TAIL) > 0


def test_where_other_ends_tell_the_tail_a_lag_in_doubt_is_doubted_too() -> None:
    counter = pencil_counter(polls_at(-0.6, 1.17), 0.1, 0.05, loads.step(0.0, 1.0))
    known = replace(WHOLE, edge_time_s=0.015, tail=Tail(settle_s=0.0, rise_s=0.0))
    found = estimate_energy(DeviceReadings(counter), window(1.0), Knowledge(known))
    assert line_j(found, budget.EDGE_TIME) > 300.0 * 0.015

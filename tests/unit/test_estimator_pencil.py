"""Windows whose energy can be told with a pencil, and readings that cannot be trusted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.sensor import Tail
from llenergymeasure.core.energy.estimator import (
    CounterReadings,
    DeviceReadings,
    Knowledge,
    PowerReadings,
    estimate_energy,
    sum_devices,
)
from tests.support.estimator_cases import (
    WHOLE,
    ns,
    pencil_counter,
    polls_at,
    window,
)
from tests.support.simulated_device import loads

STEP = loads.step(0.0, 1.03, 400.0, 75.0)
KNOWN = Knowledge(counter=WHOLE)


def step_counter(
    start_s: float = -0.6, end_s: float = 1.7, phase_s: float = 0.037
) -> CounterReadings:
    return pencil_counter(polls_at(start_s, end_s), 0.1, phase_s, STEP)


def keep(readings: CounterReadings, kept: np.ndarray) -> CounterReadings:
    return replace(
        readings,
        before_ns=readings.before_ns[kept],
        after_ns=readings.after_ns[kept],
        value=readings.value[kept],
    )


def names(estimate: object) -> set[str]:
    return {line.name for line in estimate.budget}  # type: ignore[attr-defined]


def test_400_watts_for_1_03_seconds_are_412_joules():
    estimate = estimate_energy(DeviceReadings(step_counter()), window(1.03), KNOWN)
    assert estimate.energy_j == pytest.approx(412.0, abs=0.4)
    assert estimate.kind == "measured"
    assert (estimate.start, estimate.end) == ("band", "band")
    assert estimate.tick_s == pytest.approx(0.1, rel=1e-3)
    assert estimate.before_w == pytest.approx(75.0, rel=0.03)


def test_the_interval_is_twice_the_root_of_the_squared_lines():
    estimate = estimate_energy(DeviceReadings(step_counter()), window(1.03), KNOWN)
    squares = sum(line.standard_j**2 for line in estimate.budget)
    assert estimate.interval95_j == pytest.approx(2 * squares**0.5)


def test_a_lag_that_is_not_quite_known_only_trades_power_before_for_power_after():
    load = loads.steps([-10.0, 0.0, 1.03], [50.0, 400.0, 90.0])
    counter = pencil_counter(polls_at(-0.6, 1.7), 0.1, 0.037, load)
    known = Knowledge(replace(WHOLE, edge_time_s=0.003))
    estimate = estimate_energy(DeviceReadings(counter), window(1.03), known)
    line = next(line for line in estimate.budget if line.name == budget.EDGE_TIME)
    assert line.standard_j == pytest.approx(40 * 0.003, rel=0.02)


def test_without_calibration_the_edge_line_is_the_step_times_fifty_milliseconds_and_said_so():
    estimate = estimate_energy(DeviceReadings(step_counter()), window(1.03))
    line = next(line for line in estimate.budget if line.name == budget.EDGE_TIME)
    assert line.standard_j == pytest.approx(325 * 0.05, rel=0.02)
    assert "sensor_uncalibrated" in estimate.flags
    assert budget.PART_TIME in names(estimate)


@pytest.mark.parametrize("length_s", [0.1, 0.15, 0.2])
def test_a_window_of_one_or_two_ticks_is_found_with_a_wide_interval(length_s):
    load = loads.step(0.0, length_s)
    readings = pencil_counter(polls_at(-0.6, length_s + 0.6), 0.1, 0.037, load)
    estimate = estimate_energy(DeviceReadings(readings), window(length_s), KNOWN)
    assert estimate.energy_j == pytest.approx(400 * length_s, abs=estimate.interval95_j)
    assert estimate.interval95_j > 0.03 * estimate.energy_j


def test_a_window_too_short_to_measure_says_how_long_it_would_have_to_be():
    load = loads.step(0.0, 0.1)
    readings = pencil_counter(polls_at(-0.6, 0.8), 0.1, 0.037, load)
    estimate = estimate_energy(DeviceReadings(readings), window(0.1))
    assert estimate.kind == "unmeasurable"
    assert 0.1 < estimate.shortest_window_s < 2.0
    longer = loads.step(0.0, estimate.shortest_window_s * 1.2)
    end_s = estimate.shortest_window_s * 1.2
    readings = pencil_counter(polls_at(-0.6, end_s + 0.7), 0.1, 0.037, longer)
    assert estimate_energy(DeviceReadings(readings), window(end_s)).kind == "measured"


def test_a_hot_outside_is_taken_off_as_a_cool_one_is():
    load = loads.step(0.0, 1.03, 400.0, 390.0)
    readings = pencil_counter(polls_at(-0.6, 1.7), 0.1, 0.037, load)
    estimate = estimate_energy(DeviceReadings(readings), window(1.03), KNOWN)
    assert (estimate.start, estimate.end) == ("band", "band")
    assert estimate.energy_j == pytest.approx(412.0, abs=0.4)


def test_a_counter_reset_inside_the_window_gives_no_figure():
    readings = step_counter()
    fallen = readings.value - np.where(readings.before_ns > ns(0.5), 900_000, 0)
    estimate = estimate_energy(DeviceReadings(replace(readings, value=fallen)), window(1.03), KNOWN)
    assert estimate.energy_j is None
    assert estimate.kind == "unmeasurable"
    assert estimate.flags == ("counter_reset",)


def test_after_a_reset_inside_the_window_power_tells_and_the_reset_stays_said():
    readings = step_counter()
    fallen = readings.value - np.where(readings.before_ns > ns(0.5), 900_000, 0)
    at_s = polls_at(-0.6, 1.7, 0.02)
    power = PowerReadings(ns(at_s), ns(at_s), STEP.power_w(at_s))
    estimate = estimate_energy(
        DeviceReadings(replace(readings, value=fallen), power), window(1.03), KNOWN
    )
    assert estimate.source == "power"
    assert "counter_reset" in estimate.flags
    assert estimate.energy_j == pytest.approx(412.0, rel=0.1)


@pytest.mark.parametrize("at_s", [-0.45, 1.55])
def test_a_reset_outside_the_window_only_shortens_the_guard(at_s):
    readings = step_counter()
    fallen = readings.value - np.where(readings.before_ns > ns(at_s), 900_000, 0)
    estimate = estimate_energy(DeviceReadings(replace(readings, value=fallen)), window(1.03), KNOWN)
    assert estimate.energy_j == pytest.approx(412.0, abs=0.8)
    assert "counter_reset_outside" in estimate.flags


def test_a_read_that_blocks_for_two_seconds_is_said_and_costs_nothing_inside():
    load = loads.step(0.0, 5.0)
    readings = pencil_counter(polls_at(-0.6, 5.7), 0.1, 0.037, load)
    readings = keep(readings, (readings.before_ns < ns(1.0)) | (readings.before_ns > ns(3.0)))
    after = readings.after_ns.copy()
    after[np.searchsorted(readings.before_ns, ns(0.99))] = int(ns(2.99))
    estimate = estimate_energy(
        DeviceReadings(replace(readings, after_ns=after)), window(5.0), KNOWN
    )
    assert "stalled_reads" in estimate.flags
    assert estimate.energy_j == pytest.approx(2000.0, abs=2.0)


def test_a_gap_in_the_middle_costs_a_cumulative_counter_nothing():
    readings = keep(step_counter(), np.ones(460, dtype=bool))
    gap = (readings.before_ns < ns(0.3)) | (readings.before_ns > ns(0.75))
    estimate = estimate_energy(DeviceReadings(keep(readings, gap)), window(1.03), KNOWN)
    assert "sampling_gap" in estimate.flags
    assert estimate.energy_j == pytest.approx(412.0, abs=1.0)


def test_a_gap_over_the_end_is_bridged_by_the_outside_level():
    readings = pencil_counter(polls_at(-0.6, 2.4), 0.1, 0.037, STEP)
    gap = (readings.before_ns < ns(0.9)) | (readings.before_ns > ns(1.45))
    estimate = estimate_energy(DeviceReadings(keep(readings, gap)), window(1.03), KNOWN)
    whole = estimate_energy(DeviceReadings(readings), window(1.03), KNOWN)
    assert estimate.energy_j == pytest.approx(412.0, abs=2.0)
    assert estimate.interval95_j > whole.interval95_j


@pytest.mark.parametrize("span", [(0.0, 1.7), (-0.6, 1.03), (-0.05, 1.08)])
def test_without_guard_the_figure_is_flagged_and_covers_the_truth(span):
    estimate = estimate_energy(DeviceReadings(step_counter(*span)), window(1.03), KNOWN)
    assert "no_guard" in estimate.flags
    assert abs(estimate.energy_j - 412.0) <= estimate.interval95_j


def test_an_unsupported_counter_gives_way_to_power_with_a_warning():
    at_s = polls_at(-0.6, 5.7, 0.02)
    power = PowerReadings(ns(at_s), ns(at_s), loads.step(0.0, 5.0).power_w(at_s))
    zeros = CounterReadings(ns(at_s), ns(at_s), np.zeros(len(at_s), dtype=np.int64))
    estimate = estimate_energy(DeviceReadings(zeros, power), window(5.0))
    assert estimate.source == "power"
    assert {"counter_unusable", "integrated_power"} <= set(estimate.flags)
    assert estimate.energy_j == pytest.approx(2000.0, rel=0.02)


@pytest.mark.parametrize("value", [0, 123_456])
def test_a_counter_that_never_moves_is_unknown_and_not_zero(value):
    at_s = polls_at(-0.6, 1.7)
    still = CounterReadings(ns(at_s), ns(at_s), np.full(len(at_s), value, dtype=np.int64))
    estimate = estimate_energy(DeviceReadings(still), window(1.03))
    assert (estimate.energy_j, estimate.kind) == (None, "unmeasurable")


def test_power_of_zero_is_unknown_and_not_zero():
    at_s = polls_at(-0.6, 1.7)
    power = PowerReadings(ns(at_s), ns(at_s), np.zeros(len(at_s)))
    estimate = estimate_energy(DeviceReadings(power=power), window(1.03))
    assert (estimate.energy_j, estimate.kind) == (None, "unmeasurable")


def test_no_readings_at_all_give_no_figure():
    empty = np.empty(0, dtype=np.int64)
    for readings in (
        DeviceReadings(),
        DeviceReadings(CounterReadings(empty, empty, empty)),
        DeviceReadings(power=PowerReadings(empty, empty, np.empty(0))),
    ):
        assert estimate_energy(readings, window(1.0)).energy_j is None


def test_single_readings_of_zero_are_left_out():
    readings = step_counter()
    value = readings.value.copy()
    value[200] = 0
    estimate = estimate_energy(DeviceReadings(replace(readings, value=value)), window(1.03), KNOWN)
    assert estimate.energy_j == pytest.approx(412.0, abs=0.4)


def test_a_window_without_length_is_refused():
    with pytest.raises(ValueError, match="ends before it begins"):
        estimate_energy(DeviceReadings(), window(0.0))


def test_counter_and_power_that_disagree_are_flagged():
    at_s = polls_at(-0.6, 10.7, 0.02)
    load = loads.step(0.0, 10.0)
    counter = pencil_counter(polls_at(-0.6, 10.7), 0.1, 0.037, load)
    rng = np.random.default_rng(3)
    for factor, flagged in ((1.0, False), (0.97, False), (0.94, True), (0.7, True)):
        watts = load.power_w(at_s) * factor * rng.normal(1.0, 0.01, len(at_s))
        power = PowerReadings(ns(at_s), ns(at_s), watts)
        estimate = estimate_energy(DeviceReadings(counter, power), window(10.0), KNOWN)
        assert ("counter_power_disagree" in estimate.flags) == flagged, factor
        assert estimate.counter_over_power == pytest.approx(1 / factor, rel=0.02)


def test_a_tail_that_no_tick_can_tell_is_taken_off_as_calibrated_and_its_growth_doubted():
    tail = Tail(excess_s=0.02, settle_s=0.1, step_w=200.0)
    part_time = replace(WHOLE, fully_integrating=False, look_share=0.25)
    plain, estimate = (
        estimate_energy(DeviceReadings(step_counter()), window(1.03), Knowledge(known))
        for known in (part_time, replace(part_time, tail=tail))
    )
    # 0.02 s of 200 W as found or of 325 W as here: 5.25 J between them, 1.25 J either way.
    assert plain.energy_j - estimate.energy_j == pytest.approx(5.25, abs=0.2)
    doubt = sum(line.standard_j for line in estimate.budget if line.name == budget.KNOWN_TAIL)
    assert doubt == pytest.approx(1.25, abs=0.1)


def test_a_counter_faster_than_the_polls_needs_no_comb():
    load = loads.step(0.0, 2.0, 90.0, 20.0)
    exact = pencil_counter(polls_at(-0.6, 2.7, 0.01), 0.001, 0.0, load)
    known = Knowledge(replace(WHOLE, tick_s=0.001))
    estimate = estimate_energy(DeviceReadings(exact), window(2.0), known)
    assert estimate.energy_j == pytest.approx(180.0, abs=0.3)


def test_devices_add_up_and_what_they_share_adds_linearly():
    one = estimate_energy(DeviceReadings(step_counter()), window(1.03), KNOWN)
    four = sum_devices([one] * 4)
    assert four.energy_j == pytest.approx(4 * one.energy_j)
    assert 2 * one.interval95_j < four.interval95_j <= 4 * one.interval95_j
    shared = [line.standard_j for line in four.budget if line.shared]
    assert shared == [pytest.approx(4 * line.standard_j) for line in one.budget if line.shared]


def test_what_is_assumed_of_power_sensors_is_alike_on_all_devices_and_load_in_step_is_not():
    at_s = polls_at(-0.6, 10.7, 0.02)
    power = PowerReadings(ns(at_s), ns(at_s), loads.step(0.0, 10.0).power_w(at_s) + at_s % 0.7)
    knowledge = Knowledge(step_times_ns=ns(np.arange(0.0, 10.0, 0.1)))
    one = estimate_energy(DeviceReadings(power=power), window(10.0), knowledge)
    shared = {line.name: line.shared for line in one.budget}
    assert shared[budget.POWER_SHAPE]
    assert not shared[budget.ALIASING]


def test_one_device_without_a_figure_leaves_the_sum_without_one():
    one = estimate_energy(DeviceReadings(step_counter()), window(1.03), KNOWN)
    none = estimate_energy(DeviceReadings(), window(1.03))
    assert sum_devices([one, none]).energy_j is None
    with pytest.raises(ValueError, match="no device"):
        sum_devices([])

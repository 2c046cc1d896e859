"""Energy of a window by one sensor, with its budget.

A sensor's readings become ticks and timing (:class:`SensorPath`), whole ticks that cover the window
are taken, and what was drawn outside is taken off.

Power readings become the ticks of a counter, so that one rule serves both. A published power is the
mean over a look that ended with its update. Power * time since the update before, added up, is a
counter that looks at that share of each tick; a sensor that averages over more than a tick is a
counter that counts every moment, but late. Where a window begins and ends is then found as for a
counter, with both edges.

A sensor that looks at a share of each tick takes the rest of it to be like the share it saw, which
lies at the tick's end. A step inside a tick is then moved, and load that differs from tick to tick
is sampled, not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import compress
from math import hypot, sqrt
from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.budget import BudgetLine
from llenergymeasure.core.energy.estimation.company import (
    TOLD_SHARE,
    Company,
    company_of_moments,
    without_company,
)
from llenergymeasure.core.energy.estimation.edges import (
    LOUD_SHARE,
    Axis,
    EdgeMethod,
    beside_w,
    end_axis,
    level_between,
    quiet_edge,
    start_axis,
)
from llenergymeasure.core.energy.estimation.means import (
    ONE_SECOND,
    find_mode,
    mean_ticks,
    one_second_timing,
)
from llenergymeasure.core.energy.estimation.sensor import (
    Calibration,
    CounterReadings,
    DeviceReadings,
    Floats,
    Knowledge,
    Series,
    Timing,
    counter_series,
    power_series,
    timing,
    without_reset,
)
from llenergymeasure.core.energy.estimation.tail import (
    NO_ENDS,
    Beside,
    EarlierEnds,
    MomentaryPower,
    decayed_edge,
    earlier_ends,
)
from llenergymeasure.core.energy.estimation.ticks import (
    Brackets,
    Comb,
    Ticks,
    brackets,
    find_ticks,
    fit_comb,
    numbered,
)
from llenergymeasure.domain.energy import PowerMode
from llenergymeasure.domain.samples import Window

READ_SIGMA_S = 0.002
LEAST_SHOWN = 0.5  # of the updates; with fewer, readings tell more as they come
CLEAR_SIGMAS = 2  # of a tick about its tooth, by which a reading has to be clear of it
GAP_TICKS = 1.5  # between two updates: more is a gap
FEW_UPDATES = 8  # changes of the value; fewer may be the load's steps as well as the sensor's
LONGEST_UPDATE_S = 0.1  # between updates of a sensor whose readings do not tell it
# Of the unseen part of an edge tick, whose load need not be a clean step: one that comes anywhere
# in it, each place as likely, is off by 1 / √12 = 0.29 of it.
UNSEEN_SHARE = 0.3
# Of the level, where too few ticks tell how they differ. Chosen, twice what is taken for rest
# (PRIOR_SPREAD), since work is less even; no recording is behind it.
UNSEEN_SPREAD = 0.1


def power_ticks(series: Series, update_s: float | None = None) -> Ticks | None:
    """Turn power readings into the ticks of a counter.

    Args:
        series: Readings of power.
        update_s: Time between updates, where a calibration knows it.

    Returns:
        The ticks, or ``None`` with fewer than three readings.
    """
    if len(series) < 3:
        return None
    seen = brackets(series)
    if update_s is None and len(seen.low_s) < FEW_UPDATES:
        return _held(series, LONGEST_UPDATE_S / np.sqrt(12))
    comb = fit_comb(seen, update_s) if len(seen.low_s) > 1 else None
    return _held(series, READ_SIGMA_S) if comb is None else _on_updates(series, seen, comb)


def _on_updates(series: Series, seen: Brackets, comb: Comb) -> Ticks:
    """Count each update over the time since the one before; updates to the same value too.

    A reading shows an update if the value changed with it, or if it came clear of it and of the
    next. An update that no reading shows, since polls came late, lies between those beside it.

    NVML stamps a value of a field with the host's clock of the request and the time that took
    (``timestamp`` and ``latencyUsec`` of ``nvmlFieldValue_t``, nvml.h); nothing says that they date
    the sensor's sample, so that they are not used.
    """
    first, last = np.floor((series.at_s[[0, -1]] - comb.phase_s) / comb.period_s).tolist()
    tooth = comb.phase_s + np.arange(first + 1, last + 1) * comb.period_s
    clear_s = CLEAR_SIGMAS * comb.tooth_sigma_s
    reading = np.searchsorted(series.before_s[:-1], tooth + clear_s)
    power_w = series.value[reading]
    shown = series.after_s[reading] <= tooth + comb.period_s - clear_s
    shown &= series.before_s[reading] >= tooth + clear_s
    number, told, _ = numbered(seen, comb)
    told &= (number > first) & (number <= last)
    changed = (number[told] - first - 1).astype(np.int64)
    power_w[changed], shown[changed] = seen.energy_j[told], True
    if shown.mean() < LEAST_SHOWN:  # polls as far apart as updates, and in step with them
        return _held(series, comb.period_s / np.sqrt(12))
    return _counted(tooth[shown], power_w[shown], comb.period_s, comb.tooth_sigma_s)


def _held(series: Series, sigma_s: float) -> Ticks:
    """Count readings as they come, where no updates can be told apart."""
    step_s = float(np.median(np.diff(series.at_s)))
    return _counted(series.at_s, series.value, step_s, sigma_s)


def _counted(time_s: Floats, power_w: Floats, step_s: float, sigma_s: float) -> Ticks:
    """Make a counter of power; a gap in it is told by both of its sides.

    What it hides is anywhere between them (even over it), and as far off as updates differ.
    """
    width_s, rise_w = np.diff(time_s), np.diff(power_w)
    gap_s = np.where(width_s > GAP_TICKS * step_s, width_s - step_s, 0.0)
    added_j = power_w[1:] * width_s - gap_s * rise_w / 2
    usual_w = float(np.abs(rise_w).mean()) if len(rise_w) else 0.0
    unread_j = np.append(0.0, gap_s * np.hypot(rise_w / sqrt(12), usual_w))
    energy_j = np.append(0.0, np.cumsum(added_j))
    return Ticks(time_s, np.full(len(time_s), sigma_s), energy_j, step_s, None, unread_j)


def power_timing(calibration: Calibration | None, update_s: float) -> Timing:
    """Give the timing of a counter made of power readings.

    An averaging window of more than an update (``look_share`` above 1) makes the sensor later by
    half of what it is longer, and lets energy come in for the whole of it.
    """
    known = timing(calibration)
    if known.look_share <= 1:
        return replace(known, settle_s=max(known.settle_s, update_s), rise_s=None)
    longer_s = (known.look_share - 1) * update_s
    return replace(
        known,
        lag_s=known.lag_s + longer_s / 2,
        settle_s=known.settle_s + longer_s,
        look_share=1.0,
    )


def mean_power_w(series: Series, from_s: float, to_s: float) -> float | None:
    """Give the mean of the readings between two times, or ``None`` without any."""
    inside = (series.at_s >= from_s) & (series.at_s <= to_s)
    return float(series.value[inside].mean()) if inside.any() else None


@dataclass(frozen=True, slots=True, eq=False)
class SensorPath:
    """One sensor's way to a figure.

    Attributes:
        source: ``counter``, ``power`` or ``average_power``.
        series: Its readings.
        ticks: Its ticks.
        timing: What is known of it.
        calibration: What calibration told, or ``None``.
        flags: Findings by their stable codes.
        quantum_j: The counter's unit.
        ends: Ends of warm-up batches, as its ticks tell of them.
        mode: What power readings are, or ``None`` of a counter.
        otherwise: The way that the other mode would have led, where the mode is not told.
    """

    source: str
    series: Series
    ticks: Ticks
    timing: Timing
    calibration: Calibration | None
    flags: tuple[str, ...] = ()
    quantum_j: float = 1e-3
    ends: EarlierEnds = NO_ENDS
    mode: PowerMode | None = None
    otherwise: SensorPath | None = None

    def unread(self, length_s: float) -> BudgetLine:
        """Give the doubt of what no reading tells of the window and the ticks that cover it."""
        step_s, timing = self.ticks.step_s, self.timing
        last_s = length_s + max(timing.settle_s, timing.lag_s)
        unread_j = self.ticks.between(-step_s, last_s + 2 * step_s).unread_j
        return BudgetLine(budget.GAPS, 0.0 if unread_j is None else float(np.linalg.norm(unread_j)))


def counter_path(
    readings: CounterReadings | None, window: Window, knowledge: Knowledge
) -> tuple[SensorPath | None, tuple[str, ...]]:
    """Find the ticks of a counter; a counter that was reset in the window or never moves has none.

    Returns:
        The path, or ``None``; and what was found on the way.
    """
    calibration = knowledge.counter
    if readings is None:
        return None, ()
    series, inside, anywhere = without_reset(counter_series(readings, window), window.seconds)
    if inside:
        return None, ("counter_reset",)
    known = calibration or Calibration()
    found = find_ticks(series, known.tick_s, known.jitter_s)
    ticks = _at_rest(found, window, knowledge)
    if found is None or ticks is None:
        return None, ()
    flags = ("counter_reset_outside",) if anywhere else ()
    shape = timing(calibration)
    ends_s = (np.asarray(knowledge.ends_ns, dtype=np.int64) - window.t0_ns) / 1e9
    ends = earlier_ends(found, shape, ends_s)
    path = SensorPath("counter", series, ticks, shape, calibration, flags, readings.unit_j, ends)
    return path, ()


def _at_rest(
    ticks: Ticks | None, window: Window, knowledge: Knowledge, late_s: float = 0.0
) -> Ticks | None:
    """Leave out ticks that show work before the window; ``None`` where none tell of the window.

    All ticks have told the comb by then: it knows no load.
    """
    if ticks is None:
        return None
    ticks = ticks.between((knowledge.rest_from_ns - window.t0_ns) / 1e9 + late_s, np.inf)
    if len(ticks) < 2:  # one alone tells no energy
        return None
    told = ticks.time_s[-1] > 0 and ticks.time_s[0] < window.seconds
    return ticks if told else None


def power_path(readings: DeviceReadings, window: Window, knowledge: Knowledge) -> SensorPath | None:
    """Find the updates of instantaneous power, or else of what is named a mean over a second.

    What the readings are is told from them. Where they do not tell it, the name is believed, and
    what they would be otherwise is given beside; not for power of the moment by name that a
    calibration bears out, or that stands in for a counter.
    """
    for taken, named_mean in ((readings.power, False), (readings.average_power, True)):
        if taken is None:
            continue
        series = power_series(taken, window)
        mode = knowledge.power_mode or find_mode(series, window.seconds)
        as_mean = named_mean if mode == "untold" else mode == "mean_over_a_second"
        path = _path_by(series, window, knowledge, as_mean=as_mean)
        if path is not None:
            # Beside a counter, even one that fails, readings end too soon to tell a mean.
            alone = readings.counter is None and knowledge.power is None
            doubted = mode == "untold" and (named_mean or alone)
            other = _path_by(series, window, knowledge, as_mean=not as_mean) if doubted else None
            return replace(path, mode=mode, otherwise=other)
    return None


def _path_by(
    series: Series, window: Window, knowledge: Knowledge, *, as_mean: bool
) -> SensorPath | None:
    calibration = knowledge.power
    if as_mean:
        means = mean_ticks(series)
        ticks = _at_rest(means and means.ticks, window, knowledge, late_s=ONE_SECOND)
        if means is None or ticks is None:
            return None
        shape = one_second_timing(calibration, means.update_s)
        return SensorPath(
            source="average_power",
            series=series,
            ticks=ticks,
            timing=shape,
            calibration=calibration,
            flags=("one_second_average",),
        )
    ticks = power_ticks(series, None if calibration is None else calibration.tick_s)
    ticks = _at_rest(ticks, window, knowledge)
    if ticks is None:
        return None
    shape = power_timing(calibration, ticks.step_s)
    return SensorPath("power", series, ticks, shape, calibration, ("integrated_power",))


@dataclass(frozen=True, slots=True)
class Steps:
    """How much power rises at the start of a window and falls at its end, W.

    Whole ticks catch all energy however late it comes: a wrong lag then only trades outside power
    before for outside power after. What comes late and what is drawn late cannot be told apart,
    so that for an error in lag or tail the fall at the end counts whole as well.

    Attributes:
        rise_w: From before the window to just inside.
        fall_w: From just inside to after it.
        traded_w: By how much power after the window is above that before it.
    """

    rise_w: float
    fall_w: float
    traded_w: float


def moved_s(to_tick_end_s: float, tick_s: float, share: float) -> float:
    """Tell how much too early a step up is seen, seconds.

    A step of 1 W that lies ``to_tick_end_s`` before the end of its tick adds that many watt
    seconds; the sensor adds ``tick_s`` * the part of its look that saw the step.
    """
    seen = min(to_tick_end_s / (share * tick_s), 1.0)
    return seen * tick_s - to_tick_end_s


def part_time_term(
    ticks: Ticks, length_s: float, timing: Timing, steps: Steps, power_w: float
) -> tuple[float, BudgetLine | None]:
    """Give what to take off a figure for the sensor's looking part of the time, and the doubt.

    Returns:
        Joules to take off, 0 unless the share is known; and the line, ``None`` where the sensor
        counts every moment.
    """
    share, tick_s = timing.look_share, ticks.step_s
    if share >= 1:
        return 0.0, None
    rise = moved_s(_to_tick_end(ticks, timing.lag_s), tick_s, share)
    fall = moved_s(_to_tick_end(ticks, timing.lag_s + length_s), tick_s, share)
    moved_j = steps.rise_w * rise - steps.fall_w * fall
    unseen_s = UNSEEN_SHARE * (1 - share) * tick_s
    doubt = [unseen_s * steps.rise_w, unseen_s * steps.fall_w]
    doubt.append(_sampling_j(ticks, length_s, timing, power_w))
    if not timing.look_known:
        doubt.append(moved_j)
    line = BudgetLine(budget.PART_TIME, float(np.sqrt(sum(part**2 for part in doubt))))
    return (moved_j if timing.look_known else 0.0), line


def _to_tick_end(ticks: Ticks, at_s: float) -> float:
    after = min(int(np.searchsorted(ticks.time_s, at_s)), len(ticks) - 1)
    return float((ticks.time_s[after] - at_s) % ticks.step_s)


def inside_powers_w(ticks: Ticks, length_s: float, lag_s: float) -> Floats:
    """Give the power of every whole tick inside a window, shape (n,)."""
    first, last = np.searchsorted(ticks.time_s, [lag_s, length_s + lag_s]).tolist()
    inside_w: Floats = np.diff(ticks.energy_j[first:last]) / np.diff(ticks.time_s[first:last])
    return inside_w


def _sampling_j(ticks: Ticks, length_s: float, timing: Timing, power_w: float) -> float:
    """Give s · T · √(n (1 - W/T)): n ticks of length T that differ by s, looked at for W each."""
    axis = start_axis(ticks, length_s, timing.lag_s)
    first, last = np.searchsorted(axis.time_s, [axis.inside_s, axis.far_s]).tolist()
    level = level_between(axis, first, last - 1) if last > first + 2 else None
    spread_w = UNSEEN_SPREAD * power_w if level is None else level.spread_w
    count = max(length_s / ticks.step_s, 1.0)
    return float(spread_w * ticks.step_s * np.sqrt(count * (1 - timing.look_share)))


class Hints(NamedTuple):
    """What other readings tell of the same device.

    Attributes:
        before_w: Power before the window by another sensor, or ``None``.
        after_w: Power after it, or ``None``.
        quantum_j: The counter's unit.
        momentary: Power of moments, where calibration told that it is such.
        ends: Ends of warm-up batches, as the same sensor saw them.
    """

    before_w: float | None = None
    after_w: float | None = None
    quantum_j: float = 1e-3
    momentary: MomentaryPower | None = None
    ends: EarlierEnds = NO_ENDS


@dataclass(frozen=True, slots=True)
class Integral:
    """Energy of a window by one sensor.

    Attributes:
        energy_j: Joules.
        start: How the start was read.
        end: How the end was read.
        before_w: Power before the window, or ``None``.
        after_w: Power after it, or ``None``.
        lines: What is not known.
        company: Load of somebody else's before and after it.
    """

    energy_j: float
    start: EdgeMethod
    end: EdgeMethod
    before_w: float | None
    after_w: float | None
    lines: tuple[BudgetLine, ...]
    company: tuple[Company, Company]

    @property
    def flags(self) -> tuple[str, ...]:
        """Say of which company to tell."""
        names = ("busy_before", "busy_after")
        told = [abs(one.energy_j) > TOLD_SHARE * abs(self.energy_j) for one in self.company]
        return tuple(compress(names, told))


def integrate(ticks: Ticks, length_s: float, timing: Timing, hints: Hints) -> Integral:
    """Give the energy of the window from 0 to ``length_s`` on the ticks' clock."""
    ends_j = np.interp([timing.lag_s, length_s + timing.lag_s], ticks.time_s, ticks.energy_j)
    rough_w = float(ends_j[1] - ends_j[0]) / length_s
    (start_at, before), (end_at, after) = _alone(ticks, length_s, timing, rough_w)
    if hints.momentary is not None:
        before = max(before, company_of_moments(hints.momentary, start_at))
    start = quiet_edge(start_at, rough_w, hints.before_w)
    end = quiet_edge(end_at, rough_w, hints.after_w)
    mean_w = (-end.energy_j - start.energy_j) / length_s
    first_w, last_w = beside_w(start_at, mean_w), beside_w(end_at, mean_w)
    told = None
    if end.outside_w is not None and end.outside_w < LOUD_SHARE * mean_w:
        told = decayed_edge(end_at, end, timing, last_w, Beside(hints.momentary, hints.ends))
    end = told or end
    energy_j = -end.energy_j - start.energy_j
    steps = _steps((start.outside_w, first_w), (last_w, end.outside_w))
    tail_j, tail_line, late_w = 0.0, None, 0.0
    if end.method == "band" and told is None:
        # What comes late and what is drawn late cannot be told apart: the step counts whole.
        tail_j, tail_line = _known_tail(steps.fall_w, timing)
        late_w = steps.fall_w
    moved_j, part_time = part_time_term(ticks, length_s, timing, steps, abs(energy_j) / length_s)
    edge_time_j = hypot(steps.traded_w, late_w) * timing.edge_time_s
    lines = [
        *start.lines,
        *end.lines,
        BudgetLine(budget.EDGE_TIME, edge_time_j, shared=True),
        BudgetLine(budget.QUANTUM, hints.quantum_j / sqrt(6)),  # two readings, each even over it
        BudgetLine(budget.COMPANY, before.beside_j),
    ]
    lines += [line for line in (part_time, tail_line) if line is not None]
    return Integral(
        energy_j - tail_j - moved_j,
        start.method,
        end.method,
        start.outside_w,
        end.outside_w,
        budget.merged(lines),
        (before, after),
    )


def _alone(
    ticks: Ticks, length_s: float, timing: Timing, inside_w: float
) -> tuple[tuple[Axis, Company], tuple[Axis, Company]]:
    """Look at start and end of a window without load of somebody else's beside them."""
    start = start_axis(ticks, length_s, timing.lag_s)
    end = end_axis(ticks, length_s, timing.lag_s, timing.settle_s, timing.rise_s or 0.0)
    before = without_company(start, inside_w, start=True)
    return before, without_company(end, inside_w, start=False)


def _known_tail(fall_w: float, timing: Timing) -> tuple[float, BudgetLine]:
    """Give the energy of a calibrated tail.

    Whether it grows with the step or is the same for all is not known: the figure lies between,
    alike in every window and on every device of a kind.
    """
    fall_w = max(fall_w, 0.0)
    found_w = fall_w if timing.tail_step_w is None else timing.tail_step_w
    doubt_j = timing.excess_s * abs(fall_w - found_w) / 2
    line = BudgetLine(budget.KNOWN_TAIL, doubt_j, shared=True)
    return timing.excess_s * (fall_w + found_w) / 2, line


def _steps(start_w: tuple[float | None, float], end_w: tuple[float, float | None]) -> Steps:
    """Tell steps from power on both sides of each edge; outside not known may be anything."""
    (before_w, first_w), (last_w, after_w) = start_w, end_w
    return Steps(
        rise_w=first_w - (before_w or 0.0),
        fall_w=last_w - (after_w or 0.0),
        traded_w=(last_w if after_w is None else after_w)
        - (first_w if before_w is None else before_w),
    )

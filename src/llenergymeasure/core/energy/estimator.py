"""Joules of a window from readings of a counter or of power, with an interval and its reasons.

Band and comb: a counter publishes at ticks only, so the plain difference of two reads is off by up
to a tick at each end. Here the ticks are found (:mod:`~.estimation.ticks`), whole ticks that cover
the window are taken, and what was drawn outside is taken off (:mod:`~.estimation.edges`). Every
assumption that this needs has a line in the budget, in joules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import hypot, sqrt

import numpy as np

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.aliasing import RISK, find_aliasing, looks_of
from llenergymeasure.core.energy.estimation.budget import BudgetLine
from llenergymeasure.core.energy.estimation.edges import EdgeMethod
from llenergymeasure.core.energy.estimation.integral import (
    Hints,
    Integral,
    SensorPath,
    counter_path,
    inside_powers_w,
    integrate,
    mean_power_w,
    power_path,
)
from llenergymeasure.core.energy.estimation.sensor import (
    Calibration,
    CounterReadings,
    DeviceReadings,
    Knowledge,
    PowerReadings,
    unwrap,
)
from llenergymeasure.core.energy.estimation.tail import momentary_power
from llenergymeasure.domain.energy import EnergyKind, PowerMode
from llenergymeasure.domain.samples import Window

__all__ = [
    "Calibration",
    "CounterReadings",
    "DeviceReadings",
    "EnergyEstimate",
    "Knowledge",
    "PowerReadings",
    "estimate_energy",
    "sum_devices",
    "unwrap",
]
DISAGREE_SHARE = 0.05  # by which counter and integrated power may differ
CERTAIN = 1.5  # half-widths beyond which a difference is no noise: three standard uncertainties
STALL_S = 0.1  # a read that takes longer stalled
# Of the energy: what power readings leave open even when calibrated. Chosen, not derived: looks
# that overlap or leave gaps by less than bursts can tell scale the energy of any load alike.
SHAPE_SHARE = 0.0075
HINT_S = 0.5  # how far outside the window other power readings are asked for its level


@dataclass(frozen=True, slots=True)
class EnergyEstimate:
    """Energy of one window.

    Attributes:
        energy_j: Joules, or ``None`` where the readings tell nothing. Never 0 for not known.
        interval95_j: Half-width of the 95 % interval on the sensor's own scale, or ``None``.
        kind: ``measured``; ``unmeasurable`` without a figure or with an interval over 20 % of it.
        source: ``counter``, ``power``, ``average_power`` or ``none``.
        tick_s: Time between two values of the sensor, or ``None``.
        jitter_s: Standard deviation of its ticks about a steady comb, or ``None``.
        start: How the start of the window was read.
        end: How its end was read.
        before_w: Power before the window, or ``None``.
        after_w: Power after it, or ``None``.
        shortest_window_s: How long a window would have to be to be measurable, where it is not.
        counter_over_power: Counter ÷ integrated power, or ``None`` where one of them is missing,
            has no readings on one side of the window, or may be something else.
        power_mode: What power readings are, or ``None`` without any.
        budget: What is not known, line by line.
        flags: Findings by their stable codes.
    """

    energy_j: float | None
    interval95_j: float | None
    kind: EnergyKind
    source: str
    tick_s: float | None = None
    jitter_s: float | None = None
    start: EdgeMethod = "none"
    end: EdgeMethod = "none"
    before_w: float | None = None
    after_w: float | None = None
    shortest_window_s: float | None = None
    counter_over_power: float | None = None
    power_mode: PowerMode | None = None
    budget: tuple[BudgetLine, ...] = ()
    flags: tuple[str, ...] = ()


def sum_devices(estimates: Sequence[EnergyEstimate]) -> EnergyEstimate:
    """Add up devices that worked together.

    What a reading or a tick brings is each device's own and adds in squares; lines that come from
    what is assumed of the sensor (marked ``shared``) are alike for all and add as they are.

    Returns:
        The sum; without a figure as soon as one device has none.

    Raises:
        ValueError: There is no device.
    """
    if not estimates:
        raise ValueError("no device to add up")
    if len(estimates) == 1:
        return estimates[0]
    flags = tuple(dict.fromkeys(flag for one in estimates for flag in one.flags))
    known = [one.energy_j for one in estimates if one.energy_j is not None]
    sources = "+".join(sorted({one.source for one in estimates}))
    if len(known) < len(estimates):
        return EnergyEstimate(None, None, "unmeasurable", sources, flags=flags)
    lines = budget.merged(line for one in estimates for line in one.budget)
    half_j, energy_j = budget.interval95_j(lines), sum(known)
    measured = half_j <= budget.MAX_SHARE * energy_j
    return EnergyEstimate(
        energy_j=energy_j,
        interval95_j=half_j,
        kind="measured" if measured else "unmeasurable",
        source=sources,
        start=_common([one.start for one in estimates]),
        end=_common([one.end for one in estimates]),
        budget=lines,
        flags=flags,
    )


def _common(methods: Sequence[EdgeMethod]) -> EdgeMethod:
    return methods[0] if len(set(methods)) == 1 else "none"


def estimate_energy(
    readings: DeviceReadings, window: Window, knowledge: Knowledge | None = None
) -> EnergyEstimate:
    """Give the energy of a window from the best sensor that can tell it.

    The counter before instantaneous power before means over a second. Readings of zero that
    follow others, counters that never move and sensors that say nothing give no figure.

    Args:
        readings: What was read, from some ticks before the window to some after it.
        window: Its start and end.
        knowledge: Calibrations and the times of the load's steps.

    Raises:
        ValueError: The window has no length.
    """
    if window.t1_ns <= window.t0_ns:
        raise ValueError("the window ends before it begins")
    knowledge = knowledge or Knowledge()
    counter, findings = counter_path(readings.counter, window, knowledge)
    power = power_path(readings, window, knowledge)
    path = counter or power
    if path is None:
        return EnergyEstimate(None, None, "unmeasurable", "none", flags=findings)
    if counter is None and readings.counter is not None and not findings:
        findings = ("counter_unusable",)
    estimate = _by_path(path, power, window, knowledge)
    if counter is not None and power is not None:
        by_power = _by_path(power, None, window, knowledge)
        if estimate.energy_j is not None and by_power.energy_j is not None:
            doubt_j = hypot(by_power.interval95_j or 0.0, estimate.interval95_j or 0.0)
            apart_j = abs(estimate.energy_j - by_power.energy_j)
            disagree = apart_j > max(DISAGREE_SHARE * by_power.energy_j, CERTAIN * doubt_j)
            # Of readings that are too few, or that may be something else, the ratio tells nothing.
            sound = power.otherwise is None and "no_guard" not in by_power.flags
            estimate = replace(
                estimate,
                counter_over_power=estimate.energy_j / by_power.energy_j if sound else None,
                flags=(*estimate.flags, *(("counter_power_disagree",) if disagree else ())),
            )
    mode = None if power is None else power.mode
    return replace(estimate, power_mode=mode, flags=(*findings, *estimate.flags))


def _by_path(
    path: SensorPath, power: SensorPath | None, window: Window, knowledge: Knowledge
) -> EnergyEstimate:
    """Give the energy by one sensor; a counter takes hints of levels from readings of power."""
    length_s, hints = window.seconds, Hints(quantum_j=path.quantum_j, ends=path.ends)
    if power is not None and path.source == "counter":
        late_s = power.timing.settle_s
        hints = Hints(
            mean_power_w(power.series, -HINT_S, 0.0),
            mean_power_w(power.series, length_s + late_s, length_s + late_s + HINT_S),
            path.quantum_j,
            momentary_power(power.ticks, power.timing) if power.source == "power" else None,
            path.ends,
        )
    integral = integrate(path.ticks, length_s, path.timing, hints)
    gaps = _gaps(path, window)
    lines, energy_j = [*integral.lines, path.unread(length_s)], abs(integral.energy_j)
    flags = [*path.flags, *gaps, *integral.flags]
    if path.source != "counter":  # looks may overlap or leave gaps by less than bursts can tell
        lines.append(BudgetLine(budget.POWER_SHAPE, SHAPE_SHARE * energy_j, shared=True))
    if path.otherwise is not None:
        other = integrate(path.otherwise.ticks, length_s, path.otherwise.timing, Hints())
        apart_j = abs(other.energy_j - integral.energy_j)
        lines.append(BudgetLine(budget.SENSOR_MODE, apart_j / sqrt(3), shared=True))
    if path.calibration is None:
        flags.append("sensor_uncalibrated")
    elif path.timing.look_share < 1:
        flags.append("part_time")
    names = {line.name for line in integral.lines}
    flags += ["no_guard"] if budget.NO_GUARD in names else []
    flags += ["unknown_tail"] if budget.UNKNOWN_TAIL in names else []
    steps_s = (np.asarray(knowledge.step_times_ns, dtype=np.int64) - window.t0_ns) / 1e9
    steps_s = steps_s[(steps_s >= 0) & (steps_s <= length_s)]
    aliasing = find_aliasing(steps_s, path.ticks.step_s, path.timing.look_share)
    looks = looks_of(inside_powers_w(path.ticks, length_s, path.timing.lag_s))
    # Not shared between devices: each ticks at a phase of its own.
    aliased_j = aliasing.doubt_w(energy_j / length_s, looks) * length_s
    lines.append(BudgetLine(budget.ALIASING, aliased_j))
    flags += ["aliasing_risk"] if budget.COVERAGE_FACTOR * aliased_j > RISK * energy_j else []
    return _judged(path, integral, tuple(lines), tuple(flags), length_s)


def _judged(
    path: SensorPath,
    integral: Integral,
    lines: tuple[BudgetLine, ...],
    flags: tuple[str, ...],
    length_s: float,
) -> EnergyEstimate:
    lines = tuple(line for line in lines if line.standard_j > 0)
    half_j, energy_j = budget.interval95_j(lines), integral.energy_j
    measured = energy_j > 0 and half_j <= budget.MAX_SHARE * energy_j
    shortest_s = budget.shortest_window_s(lines, energy_j / length_s, length_s)
    return EnergyEstimate(
        energy_j=energy_j if energy_j > 0 else None,
        interval95_j=half_j if energy_j > 0 else None,
        kind="measured" if measured else "unmeasurable",
        source=path.source,
        tick_s=path.ticks.period_s,
        jitter_s=path.ticks.jitter_s,
        start=integral.start,
        end=integral.end,
        before_w=integral.before_w,
        after_w=integral.after_w,
        shortest_window_s=None if measured else shortest_s,
        budget=lines,
        flags=flags,
    )


def _gaps(path: SensorPath, window: Window) -> tuple[str, ...]:
    """Find reads that stalled and stretches without any."""
    series, tick_s = path.series, path.ticks.step_s
    between, near_s = np.diff(series.at_s), 3 * tick_s
    near = (series.at_s[1:] > -near_s) & (series.at_s[:-1] < window.seconds + near_s)
    stalled = bool((series.after_s - series.before_s > STALL_S).any())
    wide = bool((near & (between > max(3 * tick_s, STALL_S))).any())
    return (*(("stalled_reads",) if stalled else ()), *(("sampling_gap",) if wide else ()))

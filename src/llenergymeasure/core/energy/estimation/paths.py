"""From readings to ticks and timing: the ways a figure can come about."""

from __future__ import annotations

from dataclasses import dataclass

from llenergymeasure.core.energy.estimation.power_path import (
    one_second_timing,
    power_ticks,
    power_timing,
)
from llenergymeasure.core.energy.estimation.sensor import Calibration, Timing, timing
from llenergymeasure.core.energy.estimation.series import (
    CounterReadings,
    DeviceReadings,
    Series,
    counter_series,
    power_series,
    without_reset,
)
from llenergymeasure.core.energy.estimation.ticks import Ticks, find_ticks
from llenergymeasure.domain.samples import Window


@dataclass(frozen=True, slots=True, eq=False)
class SensorPath:
    """One sensor's way to a figure."""

    source: str
    series: Series
    ticks: Ticks
    timing: Timing
    calibration: Calibration | None
    flags: tuple[str, ...] = ()
    quantum_j: float = 1e-3


def counter_path(
    readings: CounterReadings | None, window: Window, calibration: Calibration | None
) -> tuple[SensorPath | None, tuple[str, ...]]:
    """Find the ticks of a counter; a counter that was reset in the window or never moves has none.

    Returns:
        The path, or ``None``; and what was found on the way.
    """
    if readings is None:
        return None, ()
    series, inside, anywhere = without_reset(counter_series(readings, window), window.seconds)
    if inside:
        return None, ("counter_reset",)
    known = calibration or Calibration()
    ticks = find_ticks(series, known.tick_s, known.jitter_s)
    if ticks is None or ticks.time_s[-1] <= 0 or ticks.time_s[0] >= window.seconds:
        return None, ()
    flags = ("counter_reset_outside",) if anywhere else ()
    shape = timing(calibration)
    return SensorPath("counter", series, ticks, shape, calibration, flags, readings.unit_j), ()


def power_path(
    readings: DeviceReadings, window: Window, calibration: Calibration | None
) -> SensorPath | None:
    """Find the updates of instantaneous power, or else of means over a second."""
    known = calibration or Calibration()
    for source, taken in (("power", readings.power), ("average_power", readings.average_power)):
        series = None if taken is None else power_series(taken, window)
        ticks = None if series is None else power_ticks(series, known.tick_s)
        if series is None or ticks is None or ticks.time_s[-1] <= 0:
            continue
        if ticks.time_s[0] >= window.seconds:
            continue
        if source == "power":
            shape, flags = power_timing(calibration, ticks.step_s), ("integrated_power",)
        else:
            shape, flags = one_second_timing(calibration, ticks.step_s), ("one_second_average",)
        return SensorPath(source, series, ticks, shape, calibration, flags)
    return None

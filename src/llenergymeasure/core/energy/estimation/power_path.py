"""Power readings as the ticks of a counter, so that one rule serves both.

A published power is the mean over a look that ended with its update. Power * time since the update
before, added up, is a counter that looks at that share of each tick; a sensor that averages over
more than a tick is a counter that counts every moment, but late. Where a window begins and ends is
then found as for a counter, with both edges.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llenergymeasure.core.energy.estimation.sensor import Calibration, Timing, timing
from llenergymeasure.core.energy.estimation.series import Floats, Series
from llenergymeasure.core.energy.estimation.ticks import Comb, Ticks, brackets, fit_comb

ONE_SECOND = 1.0
READ_SIGMA_S = 0.002
FEW_UPDATES = 8  # changes of the value; fewer may be the load's steps as well as the sensor's
LONGEST_UPDATE_S = 0.1  # between updates of a sensor whose readings do not tell it


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
    return _held(series, READ_SIGMA_S) if comb is None else _on_updates(series, comb)


def _on_updates(series: Series, comb: Comb) -> Ticks:
    """Count each update over the time since the one before; updates to the same value too."""
    first, last = ((series.at_s[[0, -1]] - comb.phase_s) / comb.period_s).tolist()
    number = np.arange(np.floor(first) + 1, np.floor(last) + 1)
    tooth = comb.phase_s + number * comb.period_s
    # Half a tick behind the update a reading surely shows it, early or late as it may be.
    shown = np.searchsorted(series.at_s, tooth + comb.period_s / 2, side="right") - 1
    power_w = series.value[np.maximum(shown, 0)]
    return _counted(tooth, power_w, comb.period_s, float(np.hypot(comb.sigma_s, comb.jitter_s)))


def _held(series: Series, sigma_s: float) -> Ticks:
    """Count readings as they come, where no updates can be told apart."""
    step_s = float(np.median(np.diff(series.at_s)))
    return _counted(series.at_s, series.value, step_s, sigma_s)


def _counted(time_s: Floats, power_w: Floats, step_s: float, sigma_s: float) -> Ticks:
    energy_j = np.concatenate(([0.0], np.cumsum(power_w[1:] * np.diff(time_s))))
    return Ticks(time_s, np.full(len(time_s), sigma_s), energy_j, step_s, None)


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


def one_second_timing(calibration: Calibration | None, update_s: float) -> Timing:
    """Give the timing of a counter made of readings that are means over a second."""
    known = timing(calibration)
    return replace(
        known,
        lag_s=known.lag_s + (ONE_SECOND - update_s) / 2,
        settle_s=known.settle_s + ONE_SECOND,
        look_share=1.0,
    )


def mean_power_w(series: Series, from_s: float, to_s: float) -> float | None:
    """Give the mean of the readings between two times, or ``None`` without any."""
    inside = (series.at_s >= from_s) & (series.at_s <= to_s)
    return float(series.value[inside].mean()) if inside.any() else None

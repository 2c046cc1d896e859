"""Idle power, whether it is steady, and energy without it."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, sqrt

import numpy as np

from llenergymeasure.core.energy.estimation.closure import Figure
from llenergymeasure.core.energy.estimation.readings import Floats, Series
from llenergymeasure.core.energy.estimation.ticks import Ticks

BLOCKS = 10
STEADY_SHARE = 0.02  # of the mean: by how much the halves may differ, beyond their noise
# Student's t, two-sided 95 %, for 1 to 9 degrees of freedom (ISO 16269-4, table of fractiles).
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


@dataclass(frozen=True, slots=True)
class IdlePower:
    """Power of a device without work.

    Attributes:
        power_w: Mean.
        interval95_w: Half-width of its 95 % interval, drift between the halves included.
        drift_w: Mean of the second half minus mean of the first.
    """

    power_w: float
    interval95_w: float
    drift_w: float


def is_steady(power_w: Floats) -> bool:
    """Tell whether the halves of a stretch agree within 2 % and their noise.

    Noise is what is left around a straight line, so that a steady slope does not pass for noise.

    Args:
        power_w: Mean power of equal parts in order, shape (n,).
    """
    count = len(power_w)
    half, at = count // 2, np.arange(count)
    rest_w = power_w - np.polyval(np.polyfit(at, power_w, 1), at)
    noise_w = float(rest_w.std(ddof=2)) * sqrt(4 / count)
    drift_w = abs(float(power_w[count - half :].mean() - power_w[:half].mean()))
    return drift_w <= STEADY_SHARE * float(power_w.mean()) + 2 * noise_w


def idle_from_ticks(ticks: Ticks) -> IdlePower | None:
    """Tell idle power from a counter's ticks, or ``None`` from fewer than five."""
    blocks = min(BLOCKS, (len(ticks) - 1) // 2)
    if blocks < 2:
        return None
    at = np.linspace(0, len(ticks) - 1, blocks + 1).astype(int)
    return _idle(np.diff(ticks.energy_j[at]) / np.diff(ticks.time_s[at]))


def idle_from_power(series: Series) -> IdlePower | None:
    """Tell idle power from power readings, or ``None`` from fewer than four."""
    blocks = min(BLOCKS, len(series) // 2)
    if blocks < 2:
        return None
    return _idle(np.array([part.mean() for part in np.array_split(series.value, blocks)]))


def _idle(block_w: Floats) -> IdlePower:
    """Judge means of equal blocks; neighbouring readings are not independent, blocks are."""
    count, mean_w = len(block_w), float(block_w.mean())
    noise_w = STUDENT[count - 2] * float(block_w.std(ddof=1)) / sqrt(count)
    half = count // 2
    drift_w = float(block_w[count - half :].mean() - block_w[:half].mean())
    return IdlePower(mean_w, hypot(noise_w, drift_w / 2), drift_w)


def adjusted(energy: Figure, idle: IdlePower, length_s: float) -> Figure:
    """Take idle power * window off a figure; never clipped, so that noise stays visible."""
    return Figure(
        energy.energy_j - idle.power_w * length_s,
        hypot(energy.interval95_j, idle.interval95_w * length_s),
    )

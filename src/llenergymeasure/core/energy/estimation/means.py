"""Power as a mean over the last second: told from the readings, and as ticks of a counter.

Whether ``power.draw`` is such a mean depends on the board and on its driver (arXiv 2312.02741
tried several of both): the same board may give power of the moment under an older one. What comes
after the end of a window tells: power of the moment has fallen within a few tenths of a second, a
mean over a second is then still on its way. Where that does not show, as in a window without a step
at its end, what NVML documents for the board is all there is.

Such a sensor may publish rarely while the device rests, and late: RTX 3090 and RTX A5000 showed one
value for up to a second after they had fallen (recordings of the same paper).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation.sensor import (
    Calibration,
    Series,
    Timing,
    timing,
)
from llenergymeasure.core.energy.estimation.ticks import Ticks
from llenergymeasure.domain.energy import PowerMode

ONE_SECOND = 1.0
LOOK_S = (0.3, 0.7)  # after the end: sensors rise within 21 to 120 ms (arXiv 2312.02741)
SETTLED_S = 1.2  # after the end: a mean over a second has fallen too
LEAST_RANGE = 0.3  # of the highest reading; a smaller step may be the load's own
SUDDEN_S = 0.23  # two updates: a mean over a second changes by a quarter of the range meanwhile
SUDDEN = 0.65  # of the range, at least: power of the moment
GENTLE = 0.45  # of the range, at most: a mean
FALLEN = 0.15  # of the range, at most, after the end: power of the moment; a mean has 0.3 left
ON_ITS_WAY = 0.25  # of the range, at least: a mean
LEAST_LOAD_S = 0.5  # a mean over a second of a shorter load is as sudden as power of the moment
TICK_S = 0.1
READ_S = 0.003  # of doubt when a value was first shown
STALE_S = 0.3  # a value that stands for longer may be; updates come every 0.1 s under load


def find_mode(series: Series, length_s: float) -> PowerMode:
    """Tell what power readings are, by how they follow the step at the end of a window.

    Args:
        series: Readings of power from before the window to after it.
        length_s: Its length.
    """
    at_s, value, after_s = series.at_s, series.value, series.at_s - length_s
    look = (after_s >= LOOK_S[0]) & (after_s <= LOOK_S[1])
    if length_s < LEAST_LOAD_S or not look.any():
        return "untold"
    settled = value[after_s >= SETTLED_S]
    lowest_w, highest_w = float(value.min()), float(value.max())
    range_w = highest_w - lowest_w
    if range_w < LEAST_RANGE * highest_w:
        return "untold"
    new = np.diff(value, prepend=value[0]) != 0
    # From values that were just published: a stale one may jump.
    since = np.flatnonzero(new)
    then = np.searchsorted(at_s, at_s[since] + SUDDEN_S, side="right") - 1
    sudden = float(np.abs(value[then] - value[since]).max(initial=0.0)) / range_w
    rest_w = float(np.median(settled)) if len(settled) else lowest_w
    left = float(value[look].mean() - rest_w) / range_w
    if sudden >= SUDDEN and left <= FALLEN:
        return "instantaneous"
    on_its_way = left >= ON_ITS_WAY and new[look].any() and len(settled)
    if sudden <= GENTLE and on_its_way:
        return "mean_over_a_second"
    return "untold"


class Means(NamedTuple):
    """Means over a second as ticks of a counter.

    Attributes:
        ticks: What the readings add up to, each held until the next.
        update_s: Time between two updates, as is usual.
    """

    ticks: Ticks
    update_s: float


def mean_ticks(series: Series) -> Means | None:
    """Add up means as they are shown; they need not be published at regular times.

    Returns:
        ``None`` with fewer than three readings.
    """
    if len(series) < 3:
        return None
    at_s, power_w = series.at_s, series.value
    shown_j = np.concatenate(([0.0], np.cumsum(power_w[:-1] * np.diff(at_s))))
    tick_s = np.arange(at_s[0], at_s[-1], TICK_S)
    new = np.flatnonzero(np.diff(power_w)) + 1
    gap_s = np.diff(np.append(at_s[new], at_s[-1]))
    update_s = min(float(np.median(gap_s)), ONE_SECOND) if len(gap_s) else TICK_S
    # Where a value that stands for longer really was, up to the next, is not known, nor whether
    # the next is not late itself, as on RTX A5000: all of their distance is doubt. The last one is
    # taken to go on as it had come.
    steps_w = np.abs(np.diff(power_w[np.append(0, new)]))
    next_w = np.append(steps_w[1:], steps_w[-1:])
    held_s = np.where(gap_s > STALE_S, gap_s - TICK_S, 0.0)
    unread_j = np.zeros(len(tick_s))
    start_s = at_s[new] + TICK_S
    first = np.searchsorted(tick_s, start_s, side="right")
    last = np.searchsorted(tick_s, start_s + held_s + TICK_S, side="right")
    for since, until, stale_j in zip(first, last, next_w * held_s, strict=True):
        unread_j[since:until] = stale_j / np.sqrt(max(until - since, 1))
    sigma_s, counted_j = np.full(len(tick_s), READ_S), np.interp(tick_s, at_s, shown_j)
    return Means(Ticks(tick_s, sigma_s, counted_j, TICK_S, None, unread_j), update_s)


def one_second_timing(calibration: Calibration | None, update_s: float) -> Timing:
    """Give the timing of a counter that adds up means over a second as they are shown."""
    known = timing(calibration)
    return replace(
        known,
        lag_s=known.lag_s + (ONE_SECOND + update_s) / 2,
        settle_s=known.settle_s + ONE_SECOND + update_s,
        look_share=1.0,
    )

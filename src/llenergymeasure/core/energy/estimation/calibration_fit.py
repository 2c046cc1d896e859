"""What a sensor's timing is, from bursts of load at known times.

Long bursts tell lag and tail: on their plateau the counter runs behind by the lag, and what they
took in all exceeds plateau * length by the tail. Short bursts at random phases tell whether the
counter looks at all of each tick: if not, some are seen whole and others not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.core.energy.estimation.power_path import power_ticks
from llenergymeasure.core.energy.estimation.sensor import (
    EDGE_TIME_CALIBRATED_S,
    Calibration,
    Tail,
)
from llenergymeasure.core.energy.estimation.series import (
    CounterReadings,
    Floats,
    PowerReadings,
    counter_series,
    power_series,
)
from llenergymeasure.core.energy.estimation.ticks import Ticks, find_ticks
from llenergymeasure.domain.samples import Window

LONG_S = 0.5  # bursts from this length on have a plateau
SETTLED_S = 0.25  # after a step, until lag and tail have surely passed
LEAST_LONG, LEAST_SHORT = 3, 10
WHOLE_SHARE = 0.9  # a look of more of a tick than this counts as all of it
BETTER = 0.5  # how far below the residue of a whole look another share has to bring it
UNSETTLED_S = 0.001  # energy still to come, per watt of the step, that counts as settled
SETTLE_STEP_S = 0.02
UNEXPLAINED = 0.08  # of a tick: bursts that a look leaves further off were looked at otherwise
SHARES = np.linspace(0.05, 1.0, 39)
LAG_STEPS = 26
LOOK_NOISE = 0.03  # of a tick: finer differences are no sign of a look


Chosen = NDArray[np.bool_]


class Bursts(NamedTuple):
    """Bursts in seconds on the ticks' clock, with the energy above idle that the counter gave.

    Attributes:
        start_s: When each began, shape (b,).
        end_s: When it ended, shape (b,).
        excess_j: Energy above idle from before it to well after it, shape (b,).
    """

    start_s: Floats
    end_s: Floats
    excess_j: Floats

    @property
    def length_s(self) -> Floats:
        """How long each lasted."""
        return self.end_s - self.start_s

    def those(self, chosen: Chosen) -> Bursts:
        """Some of them."""
        return Bursts(self.start_s[chosen], self.end_s[chosen], self.excess_j[chosen])


@dataclass(frozen=True, slots=True)
class _Plateau:
    """What long bursts tell: the step in watts, lag and tail in seconds, and their doubts."""

    step_w: float
    lag_s: float
    excess_s: float
    doubt_s: float


def fit_calibration(
    readings: CounterReadings | PowerReadings, bursts: Sequence[Window]
) -> Calibration:
    """Learn a sensor's tick, jitter, lag, tail and look from a recorded series of bursts.

    Between bursts the device is idle for at least half a second; some bursts last 0.5 s or more.

    Args:
        readings: From before the first burst to at least half a second after the last.
        bursts: When each burst of load began and ended.

    Raises:
        ValueError: The sensor shows no ticks, or too few bursts are within the readings.
    """
    if not bursts:
        raise ValueError("no bursts to calibrate with")
    ordered = sorted(bursts, key=lambda burst: burst.t0_ns)
    origin = Window(ordered[0].t0_ns, ordered[-1].t1_ns)
    ticks = _ticks(readings, origin)
    if ticks is None:
        raise ValueError("the sensor's value hardly changed: nothing to calibrate")
    known = measured_bursts(ticks, _seconds(ordered, origin.t0_ns))
    long, short = known.those(known.length_s >= LONG_S), known.those(known.length_s < LONG_S)
    if len(long.start_s) < LEAST_LONG:
        raise ValueError(f"{len(long.start_s)} bursts of {LONG_S} s or more; {LEAST_LONG} needed")
    plateau = _plateau(ticks, long)
    share, lag_s = _look(ticks, short, plateau)
    settle_s = _settle_s(ticks, long, plateau.step_w)
    return Calibration(
        tick_s=ticks.period_s,
        jitter_s=ticks.jitter_s,
        lag_s=lag_s,
        tail=Tail(max(plateau.excess_s, 0.0), settle_s),
        fully_integrating=share is not None and share > WHOLE_SHARE,
        look_share=share,
        edge_time_s=max(EDGE_TIME_CALIBRATED_S, plateau.doubt_s),
    )


def _ticks(readings: CounterReadings | PowerReadings, origin: Window) -> Ticks | None:
    if isinstance(readings, CounterReadings):
        return find_ticks(counter_series(readings, origin))
    return power_ticks(power_series(readings, origin))


def _seconds(bursts: Sequence[Window], origin_ns: int) -> Floats:
    return np.array([[b.t0_ns - origin_ns, b.t1_ns - origin_ns] for b in bursts]) / 1e9


def measured_bursts(ticks: Ticks, times_s: Floats) -> Bursts:
    """Give what each burst added to the counter, with idle power from both sides of it.

    Bursts without two ticks of idle on both sides are left out.
    """
    kept, excess = [], []
    for k, (start, end) in enumerate(times_s):
        since = times_s[k - 1, 1] + SETTLED_S if k else -np.inf
        until = times_s[k + 1, 0] if k + 1 < len(times_s) else np.inf
        added = _added_j(ticks, (since, start), (end + SETTLED_S, until))
        if added is not None:
            kept.append(k)
            excess.append(added)
    return Bursts(times_s[kept, 0], times_s[kept, 1], np.array(excess))


def _added_j(ticks: Ticks, before: tuple[float, float], after: tuple[float, float]) -> float | None:
    left, right = _within(ticks, before), _within(ticks, after)
    if len(left) < 2 or len(right) < 2:
        return None
    at, energy = ticks.time_s, ticks.energy_j
    idle_w = [_power(ticks, left[0], left[-1]), _power(ticks, right[0], right[-1])]
    span_s = at[right[0]] - at[left[-1]]
    return float(energy[right[0]] - energy[left[-1]] - sum(idle_w) / 2 * span_s)


def _within(ticks: Ticks, span: tuple[float, float]) -> NDArray[np.intp]:
    return np.flatnonzero((ticks.time_s >= span[0]) & (ticks.time_s <= span[1]))


def _power(ticks: Ticks, first: int, last: int) -> float:
    span_s = ticks.time_s[last] - ticks.time_s[first]
    return float((ticks.energy_j[last] - ticks.energy_j[first]) / span_s)


def _plateau(ticks: Ticks, long: Bursts) -> _Plateau:
    """Fit the counter above idle on each plateau by ``step * (time since start - lag)``."""
    rows = [_one_plateau(ticks, *burst) for burst in zip(long.start_s, long.end_s, strict=True)]
    told = np.array([row for row in rows if row is not None])  # (bursts, step and lag)
    if len(told) < LEAST_LONG:
        raise ValueError("too few ticks within the long bursts to tell their power")
    step_w = float(told[:, 0].mean())
    excess = long.excess_j / step_w - long.length_s
    doubt_s = np.hypot(told[:, 1].std(), excess.std()) / np.sqrt(len(told))
    return _Plateau(step_w, float(told[:, 1].mean()), float(excess.mean()), float(doubt_s))


def _one_plateau(ticks: Ticks, start_s: float, end_s: float) -> tuple[float, float] | None:
    before = _within(ticks, (start_s - SETTLED_S - 2 * ticks.step_s, start_s))
    inside = _within(ticks, (start_s + min(SETTLED_S, (end_s - start_s) / 3), end_s))
    if len(before) < 2 or len(inside) < 3:
        return None
    idle_w = _power(ticks, before[0], before[-1])
    since = ticks.time_s[inside] - start_s
    above = ticks.energy_j[inside] - ticks.energy_j[before[-1]]
    above -= idle_w * (ticks.time_s[inside] - ticks.time_s[before[-1]])
    step_w, offset_j = np.polyfit(since, above, 1)
    return float(step_w), float(-offset_j / step_w)


def _look(ticks: Ticks, short: Bursts, plateau: _Plateau) -> tuple[float | None, float]:
    """Find the share of each tick that explains what the short bursts added, and the lag.

    Returns:
        The share, ``None`` where too few short bursts or no share tells; and the lag in seconds.
    """
    if len(short.start_s) < LEAST_SHORT:
        return None, max(plateau.lag_s, 0.0)
    added_s = short.excess_j / plateau.step_w
    residue = np.array([_residues(ticks, short, added_s, w, plateau.lag_s) for w in SHARES])
    best = np.unravel_index(int(residue.argmin()), residue.shape)
    share = float(SHARES[best[0]])
    lag_s = float(_lags(ticks, share, plateau.lag_s)[best[1]])
    noise_s2 = (LOOK_NOISE * ticks.step_s) ** 2
    if residue[best] + noise_s2 > BETTER * (residue[-1].min() + noise_s2):
        return 1.0, max(plateau.lag_s, 0.0)
    told = residue[best] < (UNEXPLAINED * ticks.step_s) ** 2
    return (share if told else None), max(lag_s, 0.0)


def _lags(ticks: Ticks, share: float, plateau_lag_s: float) -> Floats:
    """List lags within a tick of the plateau's, which a look of part of a tick makes early."""
    middle_s = plateau_lag_s + (1 - share) * ticks.step_s / 2
    return middle_s + np.linspace(-0.5, 0.5, LAG_STEPS) * ticks.step_s


def _residues(
    ticks: Ticks, bursts: Bursts, added_s: Floats, share: float, plateau_lag_s: float
) -> list[float]:
    lags_s = _lags(ticks, share, plateau_lag_s)
    return [_residue(ticks, bursts, added_s, share, float(lag_s)) for lag_s in lags_s]


def _residue(ticks: Ticks, bursts: Bursts, added_s: Floats, share: float, lag_s: float) -> float:
    seen_s = _seen_s(ticks, bursts.start_s + lag_s, bursts.end_s + lag_s, share)
    rest = added_s - seen_s
    # Late polls spoil single bursts of power readings: the middle of the rest is what counts.
    return float((1.4826 * np.median(np.abs(rest - np.median(rest)))) ** 2)


def _seen_s(ticks: Ticks, start_s: Floats, end_s: Floats, share: float) -> Floats:
    """Give how long each burst appears to last to a look of some share at the end of each tick."""
    reach = 2 + int(np.ceil((end_s - start_s).max() / ticks.step_s))
    first = np.searchsorted(ticks.time_s, start_s)[:, None] + np.arange(reach)
    until = ticks.time_s[np.minimum(first, len(ticks) - 1)]  # (bursts, ticks near it)
    since = until - share * ticks.step_s
    overlap = np.minimum(until, end_s[:, None]) - np.maximum(since, start_s[:, None])
    seen: Floats = np.maximum(overlap, 0.0).sum(axis=1) / share
    return seen


def _settle_s(ticks: Ticks, long: Bursts, step_w: float) -> float:
    """Find how long after a burst the counter has all of it, from ticks of every delay."""
    delay, rest = [], []
    for start_s, end_s, excess_j in zip(*long, strict=True):
        before = _within(ticks, (start_s - SETTLED_S - 2 * ticks.step_s, start_s))
        after = _within(ticks, (end_s, end_s + 2 * SETTLED_S))
        if len(before) < 2:
            continue
        idle_w = _power(ticks, before[0], before[-1])
        above = ticks.energy_j[after] - ticks.energy_j[before[-1]]
        above -= idle_w * (ticks.time_s[after] - ticks.time_s[before[-1]])
        delay.append(ticks.time_s[after] - end_s)
        rest.append((excess_j - above) / step_w)
    return _last_unsettled(np.concatenate(delay), np.concatenate(rest))


def _last_unsettled(delay_s: Floats, rest_s: Floats) -> float:
    """Find the end of the last block of delays after which energy was still to come."""
    edges = np.arange(0.0, 2 * SETTLED_S + SETTLE_STEP_S, SETTLE_STEP_S)
    settled_s = 0.0
    for low, high in pairwise(edges):
        rest = rest_s[(delay_s >= low) & (delay_s < high)]
        if len(rest) > 1 and rest.mean() > UNSETTLED_S + 2 * rest.std() / np.sqrt(len(rest)):
            settled_s = float(high) + SETTLE_STEP_S
    return min(settled_s, SETTLED_S)

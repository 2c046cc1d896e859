"""Load that repeats in step with a sensor's ticks, or nearly so.

A sensor that looks at a share of each tick sees such load at the same moment of its period every
time: the figure can be wrong by tens of per cent, and nothing in the readings tells. The times of
the steps that the load consists of (tokens, batches) do: folded onto the tick they crowd together.
They are known, not drawn from anything, so that crowding by chance misleads as much as any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot, sqrt
from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation.sensor import Floats, Ints
from llenergymeasure.domain.samples import RequestSample

HARMONICS = 12  # of the tick: load up to as many times faster
LEAST_STEPS = 4
RISK = 0.1  # of the energy: an interval that load in step makes wider than this is a warning
SLOW = 1.5  # ticks: load that repeats less often has whole ticks in one state
SAME_NS = 1_000_000  # steps closer than that are one, seen by several requests
BLIND = 0.5  # crowding of looks that spread over 0.6 of a period, as sin(0.6 π) / (0.6 π) has it
LEAST_LOOKS = 8  # that tell whether they follow one another


class Looks(NamedTuple):
    """Power as the single looks of a sensor found it.

    Attributes:
        spread_w: Standard deviation.
        alike: So many looks in a row tell as much as one.
        looks: How many.
    """

    spread_w: float
    alike: float
    looks: int


def looks_of(power_w: Floats) -> Looks:
    """Tell how much looks differ, and how far each is like the one before.

    ``alike`` is the integrated autocorrelation time 1 + 2 sum of r(k), up to the first r(k) that
    looks without any connection would exceed in one of twenty cases (2 / sqrt(n); Priestley,
    Spectral Analysis and Time Series, 5.3).
    """
    count, spread_w = len(power_w), float(power_w.std()) if len(power_w) else 0.0
    if count < LEAST_LOOKS or spread_w == 0:
        return Looks(spread_w, 1.0, count)
    at, away = np.arange(count) - (count - 1) / 2, power_w - power_w.mean()
    away = away - at * float(at @ away) / float(at @ at)  # drift is seen as it is
    lags = np.arange(1, count // 2)
    like = np.array([away[lag:] @ away[:-lag] for lag in lags.tolist()]) / float(away @ away)
    calm = np.flatnonzero(like < 2 / np.sqrt(count))
    alike = 1 + 2 * float(like[: calm[0] if len(calm) else None].sum())
    return Looks(spread_w, alike, count)


@dataclass(frozen=True, slots=True)
class Aliasing:
    """How far load keeps step with a sensor.

    Attributes:
        strength: Share of the load's swing that one look per tick may be wrong by, 0 to 1.
        crowding: How far looks meet the load at one moment of its period, 0 to 1.
        load_period_s: The load's usual period, or ``None`` with too few steps.
        followed: Whether looks follow the load, so that looks in a row that are alike tell of it.
    """

    strength: float
    crowding: float
    load_period_s: float | None
    followed: bool = False

    def doubt_w(self, power_w: float, looks: Looks) -> float:
        """Give the standard uncertainty of mean power.

        Looks that meet a load of some swing at all moments differ by it, those that crowd differ
        by less; where they crowd so much that they may miss one state of a load that is on and off,
        half of the power may swing unseen. Looks at a fast load that follow one another beat with
        it: as many independent ones would tell more.
        """
        beat_w = 0.0
        if not self.followed and looks.looks:
            beat_w = looks.spread_w * sqrt((looks.alike - 1) / looks.looks)
        swing_w = power_w / 2
        if self.crowding <= BLIND:
            swing_w = min(swing_w, looks.spread_w / sqrt(1 - self.crowding**2))
        return hypot(self.strength * swing_w, beat_w)


def find_aliasing(step_s: Floats, tick_s: float, look_share: float) -> Aliasing:
    """Tell from the times of steps whether they keep step with the ticks.

    Looks once a tick take content of the load at each harmonic m of the tick rate for constant
    power. Steps alike have R = |mean exp(2πi m t / T)| of what they would have if all fell on the
    same moment of a tick; a look of share w passes sinc(m w) of it; and of a load that is on and
    off the part at a multiple of its own rate falls with that multiple.

    Args:
        step_s: When each step of the load began, shape (n,).
        tick_s: The sensor's tick.
        look_share: Share of each tick it looks at.
    """
    period_s = float(np.median(np.diff(step_s))) if len(step_s) > 1 else None
    slow = period_s is not None and period_s >= SLOW * tick_s
    if period_s is None or len(step_s) < LEAST_STEPS or look_share >= 1:
        return Aliasing(0.0, 0.0, period_s, followed=slow or look_share >= 1)
    harmonic = np.arange(1, HARMONICS + 1)
    crowding = np.abs(np.exp(2j * np.pi * np.outer(harmonic, step_s) / tick_s).mean(axis=1))
    # Of a slower load only the ticks that hold its steps are seen wrongly.
    held = (1 - look_share) * tick_s / period_s if slow else 1.0
    multiple = np.ones(HARMONICS) if slow else np.maximum(harmonic * period_s / tick_s, 1.0)
    passed = crowding * np.abs(np.sinc(harmonic * look_share)) / multiple
    worst = int(passed.argmax())
    return Aliasing(held * float(passed[worst]), float(crowding[worst]), period_s, slow)


def step_times_ns(samples: Iterable[RequestSample]) -> tuple[int, ...]:
    """List the times at which work on a request or on its next token began, ascending.

    Returns:
        Nanoseconds of the monotonic clock; requests of one batch share their steps.
    """
    times = [_of(sample) for sample in samples]
    if not times:
        return ()
    every = np.unique(np.concatenate(times))
    apart = np.diff(every, prepend=every[0] - 2 * SAME_NS) > SAME_NS
    return tuple(every[apart].tolist())


def _of(sample: RequestSample) -> Ints:
    if sample.first_token_ns is None:
        return np.array([sample.scheduled_ns], dtype=np.int64)
    gaps = np.array(sample.gaps_ns or (), dtype=np.int64)
    tokens = sample.first_token_ns + np.concatenate(([0], np.cumsum(gaps)))
    return np.concatenate(([sample.scheduled_ns], tokens)).astype(np.int64)

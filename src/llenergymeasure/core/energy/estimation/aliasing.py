"""Load that repeats in step with a sensor's ticks.

A sensor that looks at a share of each tick sees such load at the same moment of its period every
time: the figure can be wrong by tens of per cent, and nothing in the readings tells. The times of
the steps that the load consists of (tokens, batches) do: folded onto the tick they crowd together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from llenergymeasure.core.energy.estimation.sensor import Floats, Ints
from llenergymeasure.domain.samples import RequestSample

HARMONICS = 12  # of the tick: load up to as many times faster
LEAST_STEPS = 4
RISK = 0.1
SLOW = 1.5  # ticks: load that repeats less often has whole ticks in one state
CHANCE = 9.0  # N R² of unrelated steps exceeds it once in 8,000 (Rayleigh's test)
SAME_NS = 1_000_000  # steps closer than that are one, seen by several requests
FEW_CHANCE = 0.8  # of N, where so few steps cannot reach that


@dataclass(frozen=True, slots=True)
class Aliasing:
    """How far load keeps step with a sensor.

    Attributes:
        strength: Share of the load's power that one look per tick may be wrong by, 0 to 1.
        load_period_s: The load's usual period, or ``None`` with too few steps.
        risk: Whether that is enough to distrust a sensor that looks part of the time.
    """

    strength: float
    load_period_s: float | None
    risk: bool


def find_aliasing(step_s: Floats, tick_s: float, look_share: float) -> Aliasing:
    """Tell from the times of steps whether they keep step with the ticks.

    For each harmonic m of the tick rate, R = |mean exp(2πi m t / T)| is 1 for steps that always
    fall on the same moments of a tick, and near 1/√N for steps that do not (the Rayleigh test);
    a look of share w passes sinc(m w) of it.

    Args:
        step_s: When each step of the load began, shape (n,).
        tick_s: The sensor's tick.
        look_share: Share of each tick it looks at.
    """
    if len(step_s) < LEAST_STEPS:
        return Aliasing(0.0, None, risk=False)
    period_s = float(np.median(np.diff(step_s)))
    harmonic = np.arange(1, HARMONICS + 1)
    crowding = np.abs(np.exp(2j * np.pi * np.outer(harmonic, step_s) / tick_s).mean(axis=1))
    by_chance = len(step_s) * crowding**2 < min(CHANCE, FEW_CHANCE * len(step_s))
    passed = np.where(by_chance, 0.0, crowding * np.abs(np.sinc(harmonic * look_share)))
    kept = float(passed.max()) if look_share < 1 else 0.0
    # Of a slower load only the ticks that hold its steps are seen wrongly.
    wrong = 1.0 if period_s < SLOW * tick_s else (1 - look_share) * tick_s / period_s
    return Aliasing(kept * wrong, period_s, risk=kept > RISK)


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

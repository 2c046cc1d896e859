"""Whether a sensor looks at all of each tick, from short bursts at random phases.

A sensor that looks at a share of each tick shows a burst shorter than the tick whole, several
times over or not at all, as its phase has it. For every share and lag the bursts' apparent lengths
can be told from their phases; the pair that explains them best is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation.series import Floats

LEAST_SHORT = 10
WHOLE_SHARE = 0.9  # a look of more of a tick than this counts as all of it
BETTER = 0.25  # how far below the rest of a whole look another share has to bring the rest
PROVEN = 0.35  # of what half a look would make bursts differ: below it they prove a whole one
NOISE = 0.03  # of a tick: finer differences are no sign of a look
UNEXPLAINED = 0.12  # of a tick: bursts that a look leaves further off were looked at otherwise
SHARES = np.linspace(0.05, 1.0, 39)
LAG_STEPS = 26
NEAR_TICKS = 4


class ShortBursts(NamedTuple):
    """What short bursts added to a counter.

    Attributes:
        added_s: How long each seemed to last, shape (b,).
        tick_s: When a tick was, from its start, shape (b,).
        length_s: How long it lasted, shape (b,).
    """

    added_s: Floats
    tick_s: Floats
    length_s: Floats


class Look(NamedTuple):
    """How a sensor looks.

    Attributes:
        whole: Whether it counts every moment.
        share: Share of each tick it looks at, or ``None`` where the bursts do not tell.
        lag_s: Its lag; one that looks part of the time seems earlier than it is.
    """

    whole: bool
    share: float | None
    lag_s: float


def find_look(bursts: ShortBursts, period_s: float, lag_s: float) -> Look:
    """Find how a sensor looks.

    Args:
        bursts: Short bursts.
        period_s: The sensor's tick.
        lag_s: Its apparent lag.
    """
    if len(bursts.added_s) < LEAST_SHORT:
        return Look(whole=False, share=None, lag_s=lag_s)
    lags = [lag_s + ((1 - w) / 2 + np.linspace(-0.5, 0.5, LAG_STEPS)) * period_s for w in SHARES]
    rest = np.array(
        [
            [_rest(bursts, period_s, share, float(lag)) for lag in near]
            for share, near in zip(SHARES, lags, strict=True)
        ]
    )  # (shares, lags)
    best = np.unravel_index(int(rest.argmin()), rest.shape)
    share, least = float(SHARES[best[0]]), float(rest[best])
    noise, whole = (NOISE * period_s) ** 2, float(rest[-1].min())
    if least + noise > BETTER * (whole + noise) or share > WHOLE_SHARE:
        proven = whole < PROVEN * _half_look(bursts, period_s) + noise
        return Look(whole=proven, share=1.0 if proven else None, lag_s=lag_s)
    told = least < (UNEXPLAINED * period_s) ** 2
    return Look(whole=False, share=share if told else None, lag_s=float(lags[best[0]][best[1]]))


def _half_look(bursts: ShortBursts, period_s: float) -> float:
    """Tell how much bursts would differ to a sensor that looks at half of each tick."""
    lags = np.linspace(0.0, period_s, LAG_STEPS)
    seen = [seen_s(bursts, period_s, 0.5, float(lag)) - bursts.length_s for lag in lags]
    return float(np.mean([_spread(one) for one in seen]))


def _rest(bursts: ShortBursts, period_s: float, share: float, lag_s: float) -> float:
    return _spread(bursts.added_s - seen_s(bursts, period_s, share, lag_s))


def _spread(values: Floats) -> float:
    """Give a variance by mean absolute deviation, since late polls spoil single bursts."""
    return float((1.2533 * np.mean(np.abs(values - np.median(values)))) ** 2)


def seen_s(bursts: ShortBursts, period_s: float, share: float, lag_s: float) -> Floats:
    """Give how long bursts seem to a sensor that looks at the last part of each tick, shape (b,).

    Args:
        bursts: The bursts.
        period_s: The sensor's tick.
        share: Share of each tick that it looks at.
        lag_s: How late it is.
    """
    reach = NEAR_TICKS + int(np.ceil(bursts.length_s.max() / period_s))
    first = (bursts.tick_s - lag_s) % period_s
    until = first[:, None] + np.arange(reach) * period_s  # (bursts, ticks near it)
    overlap = np.minimum(until, bursts.length_s[:, None]) - np.maximum(until - share * period_s, 0)
    seen: Floats = np.maximum(overlap, 0.0).sum(axis=1) / share
    return seen

"""Power right behind a window's end, by a sensor that looks at less than a tick.

A counter's first tick behind the end holds a tail only in sum; power of a moment within it tells
a quick tail better.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation.behind import REST_WEIGHT, SETTLED_S, Behind
from llenergymeasure.core.energy.estimation.sensor import Timing
from llenergymeasure.core.energy.estimation.ticks import Ticks

MOST_SHARE = 0.5  # of a tick: a longer look still holds work
MOST_LAG_S = 0.005  # a later sensor still shows work, and a slow rise is no tail
CLEAR_S = 0.007  # between the end and a look: ticks come early or late
LEAST_REST = 2  # updates
REST_SPREAD = 0.04  # of rest power: what updates differ by
CERTAIN = 4.5  # standard deviations from which on it is no noise: a single update is little


class PromptPower(NamedTuple):
    """Readings of such a sensor.

    Attributes:
        ticks: Its updates as ticks of a counter.
        look_s: What each averages over, up to its time.
    """

    ticks: Ticks
    look_s: float


class Shown(NamedTuple):
    """Power above rest at one update.

    Attributes:
        power_w: Watts.
        sigma_w: Standard uncertainty of that.
        after_s: How long after the end.
    """

    power_w: float
    sigma_w: float
    after_s: float

    @property
    def stands_out(self) -> bool:
        """Whether it is no noise."""
        return self.power_w > CERTAIN * self.sigma_w

    def until_s(self, overhang_s: float, rate_per_s: float) -> float:
        """Give the energy of a tail from the end on, per watt that is shown of it."""
        at_end = float(np.exp(rate_per_s * self.after_s))
        return at_end * -float(np.expm1(-rate_per_s * overhang_s)) / rate_per_s


def prompt_power(ticks: Ticks, timing: Timing) -> PromptPower | None:
    """Take power readings for prompt ones, if calibration told that they are."""
    if not timing.look_known or timing.look_share > MOST_SHARE or timing.lag_s > MOST_LAG_S:
        return None
    return PromptPower(ticks, timing.look_share * ticks.step_s)


def shown_behind(prompt: PromptPower, behind: Behind) -> Shown | None:
    """Find the first update that looks at nothing but what lies behind the end.

    ``None`` where that comes after the counter's first tick, which then tells more, and where
    either sensor is too late.
    """
    lag_s = behind.timing.lag_s
    if lag_s > MOST_LAG_S:
        return None
    end_s = -behind.axis.edge_s - lag_s
    after_s = prompt.ticks.time_s[1:] - end_s
    power_w = np.diff(prompt.ticks.energy_j) / np.diff(prompt.ticks.time_s)
    clear = np.flatnonzero(after_s >= prompt.look_s + CLEAR_S)
    rest_w = power_w[after_s >= SETTLED_S + prompt.look_s]
    if len(rest_w) < LEAST_REST or after_s[clear[0]] > behind.overhang_s + CLEAR_S:
        return None
    mean_w, count = float(rest_w.mean()), len(rest_w)
    squares = float(((rest_w - mean_w) ** 2).sum()) + REST_WEIGHT * (REST_SPREAD * mean_w) ** 2
    sigma_w = float(np.sqrt(squares / (count - 1 + REST_WEIGHT) * (1 + 1 / count)))
    return Shown(float(power_w[clear[0]]) - mean_w, sigma_w, float(after_s[clear[0]]))

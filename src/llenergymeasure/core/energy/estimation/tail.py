"""A tail that calibration never saw: power that goes on after the work and dies away.

It is not the window's energy. Whole ticks that cover the end hold its first part, between the end
and the first tick behind it; the ticks after that show the rest. What is hidden is told from what
is seen, as of something that falls by the same share in the same time.

A tail that has died away before that first tick leaves no trace: nothing but calibration tells it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.band import Axis, Edge, Level, level_between
from llenergymeasure.core.energy.estimation.budget import BudgetLine
from llenergymeasure.core.energy.estimation.sensor import Timing, to_come_s

SETTLED_S = 0.25  # after the window: from here on power is taken for that of rest
APART_S = 0.08  # between the two ticks that tell how fast it falls; nearer ones are all noise
CERTAIN = 2.0  # standard deviations from which on it is no noise
RISES_LEFT = 2.0  # time constants after which a slow rise is known well enough to allow for
RISE_DOUBT = 0.4  # of what it leaves to come: work may end above its mean power, or below
FASTEST_PER_S = 30.0  # of decay: a tail that is over in a tenth of a second
DOUBT_SHARE = 0.5  # of the hidden part: the decay need not be exponential


class Marks(NamedTuple):
    """Positions of ticks on an axis.

    Attributes:
        far: The first at rest.
        near: One between.
        last: The first behind the end that the sensor's own lag does not spoil.
    """

    far: int
    near: int
    last: int


class Rest(NamedTuple):
    """Energy above rest from some tick on.

    Attributes:
        energy_j: Joules.
        sigma_j: Standard uncertainty of that.
    """

    energy_j: float
    sigma_j: float


class Hidden(NamedTuple):
    """The part of a tail between the end and the first tick behind it.

    Attributes:
        growth: How many times the part that is seen.
        seen: That part.
        late_j: What the sensor itself had still to count then, joules.
    """

    growth: float
    seen: Rest
    late_j: float


def decayed_edge(axis: Axis, quiet: Edge, timing: Timing, inside_w: float) -> Edge:
    """Take the hidden part of a tail off the end of a window.

    Args:
        axis: The end's axis, which runs backwards.
        quiet: The end as read without a tail.
        timing: What calibration told of the sensor.
        inside_w: Power inside.

    Returns:
        The end without the tail's hidden part, with its doubt; ``quiet`` as it is where no tail
        stands out of the noise.
    """
    if timing.rise_s is None:
        return quiet  # calibration saw a tail, or nothing tells; both have lines of their own
    at = _marks(axis, timing.rise_s)
    level = None if at is None else level_between(axis, 0, at.far)
    if quiet.method != "band" or at is None or level is None:
        return quiet
    late_w = max(inside_w - level.power_w, 0.0)
    seen = _rest(axis, level, at.far, at.last, _late_j(axis, at.last, timing, late_w))
    later = _rest(axis, level, at.far, at.near, _late_j(axis, at.near, timing, late_w))
    if seen.energy_j <= CERTAIN * seen.sigma_j:
        return quiet
    apart_s = float(axis.time_s[at.last] - axis.time_s[at.near])
    left_j = max(later.energy_j, later.sigma_j)
    rate_per_s = float(np.clip(np.log(seen.energy_j / left_j) / apart_s, 0.0, FASTEST_PER_S))
    overhang_s = float(axis.edge_s - axis.time_s[at.last])
    growth = float(np.expm1(rate_per_s * overhang_s))
    late_j = _late_j(axis, at.last, timing, late_w)
    return _without(axis, level, Hidden(growth, seen, late_j), at.last)


def _marks(axis: Axis, rise_s: float) -> Marks | None:
    # From the end as the sensor sees it, which lies one time constant into the rise.
    clear_s = max(axis.outside_s, axis.edge_s - (RISES_LEFT - 1) * rise_s)
    last = int(np.sum(axis.time_s + 2 * axis.sigma_s <= clear_s)) - 1
    near = int(np.searchsorted(axis.time_s, axis.time_s[last] - APART_S, side="right")) - 1
    far = int(np.searchsorted(axis.time_s, axis.edge_s - SETTLED_S, side="right")) - 1
    return Marks(far, near, last) if 0 < far < near < last else None


def _late_j(axis: Axis, tick: int, timing: Timing, step_w: float) -> float:
    """Give what the sensor itself still has to count of the window at a tick."""
    rise_s = timing.rise_s or 0.0
    since_s = axis.edge_s - axis.time_s[tick : tick + 1] + timing.lag_s
    return step_w * float(to_come_s(since_s, timing.lag_s, rise_s)[0])


def _rest(axis: Axis, level: Level, far: int, to: int, late_j: float) -> Rest:
    length_s = float(axis.time_s[to] - axis.time_s[far])
    energy_j = float(axis.energy_j[to] - axis.energy_j[far]) - level.power_w * length_s
    noise = np.sqrt(axis.tick_s / length_s + 1 / level.ticks)
    doubts_j = (
        level.spread_w * length_s * noise,
        level.power_w * float(np.hypot(axis.sigma_s[to], axis.sigma_s[far])),
        RISE_DOUBT * late_j,
    )
    return Rest(energy_j - late_j, float(np.linalg.norm(doubts_j)))


def _without(axis: Axis, level: Level, tail: Hidden, last: int) -> Edge:
    """Read the end from rest power and the tail's hidden part."""
    growth, seen, late_j = tail
    overhang_s = float(axis.edge_s - axis.time_s[last])
    noise_j = level.spread_w * np.sqrt(overhang_s * axis.tick_s + overhang_s**2 / level.ticks)
    hidden_j = growth * seen.energy_j
    doubts_j = (DOUBT_SHARE * hidden_j, growth * seen.sigma_j, RISE_DOUBT * late_j)
    lines = (
        BudgetLine(budget.OUTSIDE_LEVEL, float(noise_j)),
        BudgetLine(budget.OUTSIDE_TIME, level.power_w * float(axis.sigma_s[last])),
        BudgetLine(budget.UNKNOWN_TAIL, float(np.linalg.norm(doubts_j))),
    )
    energy_j = float(axis.energy_j[last]) + level.power_w * overhang_s + hidden_j - late_j
    return Edge(energy_j, "band", level.power_w, lines)

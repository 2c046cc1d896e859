"""What a counter stood at when a window began and when it ended.

The start of a window is read forwards in time and its end backwards, by the same rules. Outside
is what lies before the edge on that axis, inside what lies behind it.

The last tick outside is taken, and outside power * overhang added: no assumption about the inside
is needed. What comes late through a sensor that rises slowly is still counted whole, which dividing
the tick that holds the edge by the levels beside it would cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.budget import BudgetLine
from llenergymeasure.core.energy.estimation.sensor import Floats, to_come_s
from llenergymeasure.core.energy.estimation.ticks import Ticks

EdgeMethod = Literal["band", "inside_level", "none"]

LOUD_SHARE = 0.7  # outside over inside power, from which on an edge is loud
LEVEL_SPAN_S = 0.5  # outside time that tells the outside level
LEVEL_TICKS = 4  # at least as many ticks, where there are
# Of the level: what ticks of a steady load differ by, before any is seen. Chosen, as no source
# tells it; it counts as three ticks, so that half a second of ticks outweighs it.
PRIOR_SPREAD = 0.05
PRIOR_WEIGHT = 3.0
BESIDE_S = 0.1  # inside, next to an edge: what a slow sensor (a rise of 80 ms) still shows of it


class Axis(NamedTuple):
    """Ticks along the reading direction of one edge.

    Attributes:
        time_s: When, ascending, shape (k,).
        sigma_s: Standard uncertainty of that, shape (k,).
        energy_j: Counter, ascending, shape (k,).
        tick_s: Distance of ticks.
        edge_s: Where the edge is as the sensor sees it.
        outside_s: Up to where the sensor sees nothing but outside.
        inside_s: From where on it sees the inside.
        far_s: Where the other edge is.
        late_s: What a sensor that rises slowly has still to count of the inside at each tick, per
            watt of the step, shape (k,).
    """

    time_s: Floats
    sigma_s: Floats
    energy_j: Floats
    tick_s: float
    edge_s: float
    outside_s: float
    inside_s: float
    far_s: float
    late_s: Floats


class Level(NamedTuple):
    """Power over some ticks.

    Attributes:
        power_w: Mean power at ``at_s``.
        at_s: The middle of the ticks.
        slope_w_per_s: How power changes, drawn towards none by its own uncertainty.
        spread_w: Standard deviation of the power of single ticks.
        ticks: How many ticks.
    """

    power_w: float
    at_s: float
    slope_w_per_s: float
    spread_w: float
    ticks: int


@dataclass(frozen=True, slots=True)
class Edge:
    """The counter at one edge of a window.

    Attributes:
        energy_j: What it stood at, on its own axis.
        method: How that was found.
        outside_w: Power outside, or ``None`` when not known.
        lines: What is not known.
    """

    energy_j: float
    method: EdgeMethod
    outside_w: float | None
    lines: tuple[BudgetLine, ...]


def start_axis(ticks: Ticks, length_s: float, lag_s: float) -> Axis:
    """Look at the start of a window."""
    return Axis(
        ticks.time_s,
        ticks.sigma_s,
        ticks.energy_j,
        ticks.step_s,
        lag_s,
        0.0,
        lag_s,
        length_s + lag_s,
        np.zeros(len(ticks)),
    )


def end_axis(
    ticks: Ticks, length_s: float, lag_s: float, settle_s: float, rise_s: float = 0.0
) -> Axis:
    """Look at the end of a window, backwards."""
    return Axis(
        -ticks.time_s[::-1],
        ticks.sigma_s[::-1],
        -ticks.energy_j[::-1],
        ticks.step_s,
        -length_s - lag_s,
        -length_s - max(settle_s, lag_s),
        -length_s,
        -lag_s,
        to_come_s(ticks.time_s[::-1] - length_s, lag_s, rise_s),
    )


def quiet_edge(axis: Axis, inside_w: float, hint_w: float | None = None) -> Edge:
    """Read an edge from whole ticks and the power outside.

    Args:
        axis: The ticks.
        inside_w: Power inside, used where nothing outside is known and for what comes late.
        hint_w: Power outside by another sensor, where the counter tells none.
    """
    outside = np.flatnonzero(axis.time_s + 2 * axis.sigma_s <= axis.outside_s)
    late = not len(outside)
    if late:
        outside = np.flatnonzero(axis.time_s <= axis.edge_s)
    if not len(outside):  # read back from the first tick, as if it were all inside
        missing_j = inside_w * float(axis.time_s[0] - axis.edge_s)
        energy_j = float(axis.energy_j[0]) - missing_j
        return Edge(energy_j, "inside_level", None, (BudgetLine(budget.NO_GUARD, missing_j),))
    last = int(outside[-1])
    level = level_before(axis, last)
    if level is None:  # read on from the only tick, with a level that another or nobody tells
        overhang_s = float(axis.edge_s - axis.time_s[last])
        power_w = inside_w / 2 if hint_w is None else hint_w
        doubt_w = inside_w / np.sqrt(12) if hint_w is None else 0.1 * hint_w
        line = BudgetLine(budget.NO_GUARD, float(doubt_w * overhang_s))
        return Edge(float(axis.energy_j[last]) + power_w * overhang_s, "band", hint_w, (line,))
    edge = _caught_up(axis, last, level, inside_w)
    if not late:
        return edge
    early = max(axis.time_s[last] - axis.outside_s, 0.0) * max(inside_w - level.power_w, 0.0)
    return with_line(edge, BudgetLine(budget.NO_GUARD, early / np.sqrt(3)))


def _caught_up(axis: Axis, last: int, level: Level, inside_w: float) -> Edge:
    """Read an edge as a sensor that is not late would show it.

    A rise leaves energy to come even after settling, and in the ticks that tell the level. It may
    be nothing, or twice as much: the sensor need not be of first order.
    """
    edge = _band(axis, last, level)
    if axis.late_s[last] <= 0:
        return edge
    energy_j = axis.energy_j - axis.late_s * (beside_w(axis, inside_w) - level.power_w)
    caught_up = axis._replace(energy_j=energy_j)
    found = _band(caught_up, last, level_before(caught_up, last) or level)
    doubt_j = abs(found.energy_j - edge.energy_j) / np.sqrt(3)
    return with_line(found, BudgetLine(budget.EDGE_RISE, float(doubt_j)))


def _band(axis: Axis, last: int, level: Level) -> Edge:
    overhang_s = float(axis.edge_s - axis.time_s[last])
    to_middle_s = float(axis.edge_s + axis.time_s[last]) / 2 - level.at_s
    drift_w = level.slope_w_per_s * to_middle_s
    power_w = max(level.power_w + drift_w, 0.0)
    noise_j = level.spread_w * overhang_s
    noise_j *= np.sqrt(axis.tick_s / max(overhang_s, axis.tick_s / 10) + 1 / level.ticks)
    lines = (
        BudgetLine(budget.OUTSIDE_LEVEL, float(noise_j)),
        BudgetLine(budget.OUTSIDE_TIME, power_w * float(axis.sigma_s[last])),
        BudgetLine(budget.OUTSIDE_SLOPE, abs(drift_w) * overhang_s / 2),
    )
    energy_j = float(axis.energy_j[last]) + power_w * overhang_s
    return Edge(energy_j, "band", level.power_w, lines)


def level_before(axis: Axis, last: int) -> Level | None:
    """Tell power over the ticks up to one of them, or ``None`` where there is only one."""
    from_s = axis.time_s[last] - LEVEL_SPAN_S
    first = min(int(np.searchsorted(axis.time_s, from_s)), last - LEVEL_TICKS)
    return level_between(axis, max(first, 0), last)


def level_between(axis: Axis, first: int, last: int) -> Level | None:
    """Tell power over the ticks from one to another, or ``None`` where they are the same."""
    if last <= first:
        return None
    at, energy = axis.time_s[first : last + 1], axis.energy_j[first : last + 1]
    width, span = np.diff(at), float(at[-1] - at[0])
    power_w = float(energy[-1] - energy[0]) / span
    tick_w, middle = np.diff(energy) / width, (at[1:] + at[:-1]) / 2
    centre, count = float(middle.mean()), len(width)
    away_s, rest = middle - centre, tick_w - power_w
    slope, moment = 0.0, float((away_s**2).sum())
    if count > 2:
        slope = float((away_s * rest).sum() / (away_s**2).sum())
        rest = rest - slope * away_s - rest.mean()
    prior = PRIOR_WEIGHT * (PRIOR_SPREAD * power_w) ** 2
    freedom = max(count - 2, 0) + PRIOR_WEIGHT
    variance = (float((rest**2).sum()) + prior) / freedom
    if moment > 0:
        slope *= slope**2 / (slope**2 + variance / moment)
    return Level(power_w, centre, slope, float(np.sqrt(variance)), count)


def beside_w(axis: Axis, mean_w: float) -> float:
    """Give power just inside an edge, or the window's mean where no whole tick lies there.

    Work seldom begins or ends at its mean: a burst of prefill, a batch that ran dry.
    """
    first, last = np.searchsorted(axis.time_s, [axis.inside_s, axis.far_s]).tolist()
    reach = int(np.searchsorted(axis.time_s, axis.inside_s + BESIDE_S))
    level = level_between(axis, first, min(max(reach, first + 1), last - 1))
    return mean_w if level is None else level.power_w


def with_line(edge: Edge, line: BudgetLine) -> Edge:
    """Give an edge with a further doubt."""
    lines = (*edge.lines, line)
    return Edge(edge.energy_j, edge.method, edge.outside_w, lines)

"""Load of somebody else's in the guards of a window, where a device ought to rest.

It lifts the level that is taken off, and what of it lies between the last tick outside and the
edge no whole tick shows. Ticks that stand out of rest are brought down to it, so that the level is
that of rest; what may go on unseen up to the edge is doubted.
"""

from __future__ import annotations

from math import hypot, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.core.energy.estimation.edges import LOUD_SHARE, Axis
from llenergymeasure.core.energy.estimation.sensor import Floats
from llenergymeasure.core.energy.estimation.tail import CLEAR_S, UPDATE_SPREAD, MomentaryPower

# Standard deviations: of a normal distribution whose spread is known, one tick in 300,000. Where
# too few ticks tell the spread and it is above UPDATE_SPREAD, more of them are.
CERTAIN = 4.5
LEAST_TICKS = 3
TELL_NOISE = 8  # ticks: most steps between fewer may be those of the load itself
LOW = 0.25  # quantile that tells rest while most of a guard is somebody else's
LOW_SIGMA = 0.674  # how far it lies below the middle of a normal distribution
LOW_DOUBT = 1.36  # how far n looks have it off, √(LOW (1 - LOW)) / density there, over √n
TOLD_SHARE = 1e-3  # of the energy: less company changes no digit that is printed


class Company(NamedTuple):
    """Load that is not the window's.

    Attributes:
        energy_j: What of it the guard shows above rest.
        beside_j: What of it may lie between the last tick and the edge; a standard uncertainty.
    """

    energy_j: float = 0.0
    beside_j: float = 0.0


def stands_out(power_w: Floats, width_spread: float = 0.0) -> NDArray[np.bool_]:
    """Tell which powers stand out above rest, which most of them need not be, shape (n,).

    Args:
        power_w: Power of ticks in a row, shape (n,).
        width_spread: Standard deviation of the ticks' widths, as a share of a tick.
    """
    low_w = float(np.quantile(power_w, LOW, method="lower"))
    spread = hypot(UPDATE_SPREAD, width_spread)
    if len(power_w) >= TELL_NOISE:  # by neighbours: a few steps leave their median as it is
        apart = np.abs(np.diff(power_w)) / np.maximum((power_w[1:] + power_w[:-1]) / 2, 1e-9)
        spread = max(spread, float(np.median(apart)) / (LOW_SIGMA * sqrt(2)))
    apart_sigmas = LOW_SIGMA + CERTAIN * hypot(1.0, LOW_DOUBT / sqrt(len(power_w)))
    found: NDArray[np.bool_] = power_w > low_w * (1 + apart_sigmas * spread)
    return found


def without_company(axis: Axis, inside_w: float, *, start: bool) -> tuple[Axis, Company]:
    """Bring ticks outside that stand out of rest down to it.

    What stands out right after an end is a tail and stays. What stands out from the first tick
    before a start on is work that came before: it is taken down, and no company. What comes and
    goes is the noise of rest.

    Args:
        axis: The edge's axis.
        inside_w: Power inside; where rest is not well below it, it is no rest.
        start: Whether this is the start of a window, or its end.
    """
    until_s = axis.outside_s if start else axis.edge_s
    last = int(np.searchsorted(axis.time_s + 2 * axis.sigma_s, until_s, side="right")) - 1
    if last < LEAST_TICKS:
        return axis, Company()
    width_s = np.diff(axis.time_s[: last + 1])
    rough_w = np.diff(axis.energy_j[: last + 1]) / width_s
    late_j = axis.late_s[: last + 1] * max(inside_w - float(np.median(rough_w)), 0.0)
    power_w = rough_w - np.diff(late_j) / width_s
    others = stands_out(power_w, sqrt(2) * float(np.median(axis.sigma_s)) / axis.tick_s)
    quiet = np.flatnonzero(~others)
    if not start:
        others[int(quiet[-1]) + 1 :] = False
    came_before = start and bool(others[0])
    stretches = int(np.sum(np.diff(others, prepend=False) & others)) - came_before
    loud = float(power_w[quiet].mean()) >= LOUD_SHARE * inside_w
    if not others.any() or stretches > 1 or loud:
        return axis, Company()
    above_w = np.where(others, power_w - power_w[quiet].mean(), 0.0)
    above_j = above_w * width_s
    energy_j = axis.energy_j.copy()
    energy_j[:last] += np.cumsum(above_j[::-1])[::-1]  # the last tick outside stays as it is
    told = above_j[int(quiet[0]) :] if start else above_j
    beside_j = float(above_w[-1] * (axis.edge_s - axis.time_s[last]))
    return axis._replace(energy_j=energy_j), Company(float(told.sum()), beside_j)


def company_of_moments(momentary: MomentaryPower, axis: Axis) -> Company:
    """Tell company before a window from power of moments that no whole tick holds.

    Args:
        momentary: The power.
        axis: The counter's axis of the start.
    """
    # A look whose tick came late would hold some of the window.
    ticks = momentary.ticks.between(-np.inf, -CLEAR_S)
    power_w = np.diff(ticks.energy_j) / np.diff(ticks.time_s)
    outside_s = axis.time_s[axis.time_s <= axis.outside_s]
    if len(power_w) < LEAST_TICKS or not len(outside_s):
        return Company()
    others = stands_out(power_w)
    unheld = others & momentary.read[: len(power_w)] & (ticks.time_s[1:] > outside_s[-1])
    if not unheld.any():
        return Company()
    above_w = float(power_w[unheld].max() - power_w[~others].mean())
    beside_j = above_w * float(axis.edge_s - outside_s[-1])
    return Company(beside_j, beside_j)

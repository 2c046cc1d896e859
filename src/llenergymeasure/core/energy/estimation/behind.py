"""What the ticks behind the end of a window hold above rest.

The axis of an end runs backwards, so that ticks later in time come first on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation.band import Axis, Level, level_between
from llenergymeasure.core.energy.estimation.sensor import Timing, to_come_s
from llenergymeasure.core.energy.estimation.series import Floats

SETTLED_S = 0.25  # after the window: from here on power is taken for that of rest
APART_S = 0.08  # between the two ticks that tell how fast it falls; nearer ones are all noise
RISES_LEFT = 2.0  # time constants after which a slow rise is known well enough to allow for
RISE_DOUBT = 0.4  # of what it leaves to come: work may end above its mean power, or below
REST_SPREAD = 0.03  # of rest power: what its ticks differ by
REST_WEIGHT = 2.0  # worth as many ticks


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


class Above(NamedTuple):
    """Energy above rest.

    Attributes:
        energy_j: Joules.
        sigma_j: Standard uncertainty of that.
    """

    energy_j: float
    sigma_j: float


@dataclass(frozen=True, slots=True, eq=False)
class Behind:
    """The ticks behind an end.

    Attributes:
        axis: The end's axis.
        at: Where on it.
        rest: Power at rest, its spread told by the ticks before the window too.
        timing: What calibration told of the sensor.
        step_w: By how much power falls at the end.
    """

    axis: Axis
    at: Marks
    rest: Level
    timing: Timing
    step_w: float

    @property
    def overhang_s(self) -> float:
        """Time between the end and the first tick behind it."""
        return float(self.axis.edge_s - self.axis.time_s[self.at.last])

    @property
    def tick_s(self) -> float:
        """Length of the first whole tick."""
        return float(self.axis.time_s[self.at.last] - self.axis.time_s[self.at.last - 1])

    @property
    def first(self) -> Above:
        """What the first whole tick holds."""
        return self.above(self.at.last - 1, self.at.last)

    @property
    def all(self) -> Above:
        """What all ticks hold until rest."""
        return self.above(self.at.far, self.at.last)

    @property
    def later(self) -> Above:
        """What of that comes after the tick between."""
        return self.above(self.at.far, self.at.near)

    def above(self, since: int, until: int) -> Above:
        """Give what lies between two ticks, without what the sensor was late with."""
        axis, rest = self.axis, self.rest
        length_s = float(axis.time_s[until] - axis.time_s[since])
        energy_j = float(axis.energy_j[until] - axis.energy_j[since]) - rest.power_w * length_s
        late_j = self.late_j(until) - self.late_j(since)
        noise = np.sqrt(axis.tick_s / length_s + 1 / rest.ticks)
        doubts_j = (
            rest.spread_w * length_s * noise,
            rest.power_w * float(np.hypot(axis.sigma_s[until], axis.sigma_s[since])),
            RISE_DOUBT * late_j,
        )
        return Above(energy_j - late_j, float(np.linalg.norm(doubts_j)))

    def late_j(self, tick: int) -> float:
        """Give what the sensor itself still has to count of the window at a tick."""
        lag_s, rise_s = self.timing.lag_s, self.timing.rise_s or 0.0
        since_s = self.axis.edge_s - self.axis.time_s[tick : tick + 1] + lag_s
        return self.step_w * float(to_come_s(since_s, lag_s, rise_s)[0])


def look_behind(axis: Axis, timing: Timing, inside_w: float) -> Behind | None:
    """Find the ticks behind an end, or ``None`` where they are too few to tell anything."""
    at = _marks(axis, timing.rise_s or 0.0)
    rest = None if at is None else level_between(axis, 0, at.far)
    if at is None or rest is None:
        return None
    rest = rest._replace(spread_w=_spread_w(axis, rest.power_w, at.far))
    return Behind(axis, at, rest, timing, max(inside_w - rest.power_w, 0.0))


def _marks(axis: Axis, rise_s: float) -> Marks | None:
    # From the end as the sensor sees it, which lies one time constant into the rise.
    clear_s = max(axis.outside_s, axis.edge_s - (RISES_LEFT - 1) * rise_s)
    last = int(np.sum(axis.time_s + 2 * axis.sigma_s <= clear_s)) - 1
    near = int(np.searchsorted(axis.time_s, axis.time_s[last] - APART_S, side="right")) - 1
    far = int(np.searchsorted(axis.time_s, axis.edge_s - SETTLED_S, side="right")) - 1
    return Marks(far, near, last) if 0 < far < near < last else None


def _spread_w(axis: Axis, rest_w: float, far: int) -> float:
    """Tell by how much ticks at rest differ, from those after the window and those before it."""
    before = int(np.searchsorted(axis.time_s, axis.far_s + 2 * axis.sigma_s[-1]))
    stretches = [_shares(axis, 0, far), _shares(axis, before, len(axis.time_s) - 1)]
    squares = sum(float((away**2).sum()) for away in stretches)
    freedom = sum(max(len(away) - 1, 0) for away in stretches) + REST_WEIGHT
    return rest_w * float(np.sqrt((squares + REST_WEIGHT * REST_SPREAD**2) / freedom))


def _shares(axis: Axis, first: int, last: int) -> Floats:
    """Give how far each tick lies from the mean of its stretch, as a share of that."""
    tick_w = np.diff(axis.energy_j[first : last + 1]) / np.diff(axis.time_s[first : last + 1])
    mean_w = float(tick_w.mean()) if len(tick_w) else 0.0
    return tick_w / mean_w - 1 if mean_w > 0 else tick_w[:0]

"""Power that goes on after the work and dies away: what it hides of a window's end.

A tail that calibration never saw is not the window's energy. Whole ticks that cover the end hold
its first part, between the end and the first tick after it; the ticks after that show the rest.
What is hidden is told from what is seen, as of something that falls by the same share in the same
time.

Where nothing stands out of the noise a tail may still hide in it. What that could hold is a line
of the budget: by the counter alone if it falls no faster than :data:`UNSEEN_RATE_PER_S`, by power
of a moment (:class:`MomentaryPower`) if no faster than :data:`FASTEST_PER_S`: a counter's first
tick after the end holds a tail only in sum, and power of a moment within it tells a quick tail
better.

The axis of an end runs backwards, so that ticks later in time come first on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.budget import BudgetLine
from llenergymeasure.core.energy.estimation.edges import Axis, Edge, Level, level_between, with_line
from llenergymeasure.core.energy.estimation.sensor import Floats, Timing, to_come_s
from llenergymeasure.core.energy.estimation.ticks import Ticks

SETTLED_S = 0.25  # after the window: from here on power is taken for that of rest
APART_S = 0.08  # between the two ticks that tell how fast it falls; nearer ones are all noise
RISES_LEFT = 2.0  # time constants after which a slow rise is known well enough to allow for
RISE_DOUBT = 0.4  # of what it leaves to come: work may end above its mean power, or below
REST_SPREAD = 0.03  # of rest power: what its ticks differ by
REST_WEIGHT = 2.0  # worth as many ticks
MOST_SHARE = 0.5  # of a tick: a longer look still holds work
MOST_LAG_S = 0.005  # a later sensor still shows work, and a slow rise is no tail
CLEAR_S = 0.007  # between the end and a look: ticks come early or late
LEAST_REST = 2  # updates
UPDATE_SPREAD = 0.04  # of rest power: what updates differ by
CERTAIN_UPDATE = 4.5  # standard deviations from which on it is no noise: a single update is little
CERTAIN_TICKS = 2.5  # standard deviations from which on it is no noise
FASTEST_PER_S = 30.0  # of decay: a tail that is over in a tenth of a second
UNSEEN_RATE_PER_S = 20.0  # an assumption: a tail that nothing shows has a time constant of 50 ms
SLOWEST_PER_S = 3.0  # of decay, where power of a moment tells it
DOUBT_SHARE = 0.5  # of the hidden part: the decay need not be exponential


class Marks(NamedTuple):
    """Positions of ticks on an axis.

    Attributes:
        far: The first at rest.
        near: One between.
        last: The first after the end that the sensor's own lag does not spoil.
    """

    far: int
    near: int
    last: int


class AboveRest(NamedTuple):
    """Energy above rest.

    Attributes:
        energy_j: Joules.
        sigma_j: Standard uncertainty of that.
    """

    energy_j: float
    sigma_j: float


@dataclass(frozen=True, slots=True, eq=False)
class AfterEnd:
    """The ticks after an end.

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
        """Time between the end and the first tick after it."""
        return float(self.axis.edge_s - self.axis.time_s[self.at.last])

    @property
    def tick_s(self) -> float:
        """Length of the first whole tick."""
        return float(self.axis.time_s[self.at.last] - self.axis.time_s[self.at.last - 1])

    @property
    def first(self) -> AboveRest:
        """What the first whole tick holds."""
        return self.above(self.at.last - 1, self.at.last)

    @property
    def all(self) -> AboveRest:
        """What all ticks hold until rest."""
        return self.above(self.at.far, self.at.last)

    @property
    def later(self) -> AboveRest:
        """What of that comes after the tick between."""
        return self.above(self.at.far, self.at.near)

    def above(self, since: int, until: int) -> AboveRest:
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
        return AboveRest(energy_j - late_j, float(np.linalg.norm(doubts_j)))

    def late_j(self, tick: int) -> float:
        """Give what the sensor itself still has to count of the window at a tick."""
        lag_s, rise_s = self.timing.lag_s, self.timing.rise_s or 0.0
        since_s = self.axis.edge_s - self.axis.time_s[tick : tick + 1] + lag_s
        return self.step_w * float(to_come_s(since_s, lag_s, rise_s)[0])


def after_end(axis: Axis, timing: Timing, inside_w: float) -> AfterEnd | None:
    """Find the ticks after an end, or ``None`` where they are too few to tell anything."""
    # From the end as the sensor sees it, which lies one time constant into the rise.
    clear_s = max(axis.outside_s, axis.edge_s - (RISES_LEFT - 1) * (timing.rise_s or 0.0))
    last = int(np.sum(axis.time_s + 2 * axis.sigma_s <= clear_s)) - 1
    near = int(np.searchsorted(axis.time_s, axis.time_s[last] - APART_S, side="right")) - 1
    far = int(np.searchsorted(axis.time_s, axis.edge_s - SETTLED_S, side="right")) - 1
    rest = level_between(axis, 0, far) if 0 < far < near < last else None
    if rest is None:
        return None
    # By how much ticks at rest differ is told from those before the window too.
    before = int(np.searchsorted(axis.time_s, axis.far_s + 2 * axis.sigma_s[-1]))
    stretches = [_shares(axis, 0, far), _shares(axis, before, len(axis.time_s) - 1)]
    squares = sum(float((away**2).sum()) for away in stretches)
    freedom = sum(max(len(away) - 1, 0) for away in stretches) + REST_WEIGHT
    spread = float(np.sqrt((squares + REST_WEIGHT * REST_SPREAD**2) / freedom))
    rest = rest._replace(spread_w=rest.power_w * spread)
    step_w = max(inside_w - rest.power_w, 0.0)
    return AfterEnd(axis, Marks(far, near, last), rest, timing, step_w)


def _shares(axis: Axis, first: int, last: int) -> Floats:
    """Give how far each tick lies from the mean of its stretch, as a share of that."""
    tick_w = np.diff(axis.energy_j[first : last + 1]) / np.diff(axis.time_s[first : last + 1])
    mean_w = float(tick_w.mean()) if len(tick_w) else 0.0
    return tick_w / mean_w - 1 if mean_w > 0 else tick_w[:0]


class MomentaryPower(NamedTuple):
    """Readings of such a sensor.

    Attributes:
        ticks: Its updates as ticks of a counter.
        look_s: What each averages over, up to its time.
    """

    ticks: Ticks
    look_s: float

    @property
    def read(self) -> NDArray[np.bool_]:
        """Which updates but the first a reading tells."""
        unread_j = self.ticks.unread_j
        return np.ones(len(self.ticks) - 1, bool) if unread_j is None else unread_j[1:] == 0


class PowerShown(NamedTuple):
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
        return self.power_w > CERTAIN_UPDATE * self.sigma_w

    def until_s(self, overhang_s: float, rate_per_s: float) -> float:
        """Give the energy of a tail from the end on, per watt that is shown of it."""
        at_end = float(np.exp(rate_per_s * self.after_s))
        return at_end * -float(np.expm1(-rate_per_s * overhang_s)) / rate_per_s


def momentary_power(ticks: Ticks, timing: Timing) -> MomentaryPower | None:
    """Take power readings for those of moments, if calibration told that they are."""
    if not timing.look_known or timing.look_share > MOST_SHARE or timing.lag_s > MOST_LAG_S:
        return None
    return MomentaryPower(ticks, timing.look_share * ticks.step_s)


def shown_after(momentary: MomentaryPower, after: AfterEnd) -> PowerShown | None:
    """Find the first update that looks at nothing but what lies after the end.

    ``None`` where that comes after the counter's first tick, which then tells more, and where
    either sensor is too late.
    """
    lag_s = after.timing.lag_s
    if lag_s > MOST_LAG_S:
        return None
    end_s = -after.axis.edge_s - lag_s
    after_s = momentary.ticks.time_s[1:] - end_s
    power_w = np.diff(momentary.ticks.energy_j) / np.diff(momentary.ticks.time_s)
    read = momentary.read
    clear = np.flatnonzero(read & (after_s >= momentary.look_s + CLEAR_S))
    rest_w = power_w[read & (after_s >= SETTLED_S + momentary.look_s)]
    if len(rest_w) < LEAST_REST or after_s[clear[0]] > after.overhang_s + CLEAR_S:
        return None
    mean_w, count = float(rest_w.mean()), len(rest_w)
    squares = float(((rest_w - mean_w) ** 2).sum()) + REST_WEIGHT * (UPDATE_SPREAD * mean_w) ** 2
    sigma_w = float(np.sqrt(squares / (count - 1 + REST_WEIGHT) * (1 + 1 / count)))
    return PowerShown(float(power_w[clear[0]]) - mean_w, sigma_w, float(after_s[clear[0]]))


def decayed_edge(
    axis: Axis,
    quiet: Edge,
    timing: Timing,
    inside_w: float,
    momentary: MomentaryPower | None = None,
) -> Edge:
    """Take the hidden part of a tail off the end of a window.

    Args:
        axis: The end's axis, which runs backwards.
        quiet: The end as read without a tail.
        timing: What calibration told of the sensor.
        inside_w: Power inside.
        momentary: Power of moments, by another sensor.

    Returns:
        The end without the tail's hidden part, with its doubt; ``quiet`` with the doubt of what
        nothing shows where no tail stands out of the noise, or where calibration has one of its
        own. ``quiet`` as it is where the sensor does not look all the time.
    """
    if quiet.method != "band" or timing.rise_s is None:
        return quiet
    after = after_end(axis, timing, inside_w)
    if after is None:
        return quiet
    shown = None if momentary is None or timing.tail_known else shown_after(momentary, after)
    hidden = None if timing.tail_known else _hidden(after, shown)
    if hidden is not None:
        return _without_tail(after, hidden)
    if shown is None:
        unseen_j = _unseen_j(after)
    else:  # by the power that is shown, of a tail as quick as any
        power_w = float(np.hypot(max(shown.power_w, 0.0), shown.sigma_w))
        unseen_j = power_w * shown.until_s(after.overhang_s, FASTEST_PER_S)
    return with_line(quiet, BudgetLine(budget.UNSEEN_TAIL, unseen_j, shared=True))


def _hidden(after: AfterEnd, shown: PowerShown | None) -> AboveRest | None:
    """Give what a tail holds between the end and the first tick; ``None`` where none shows."""
    if shown is not None and shown.stands_out:
        # How fast it falls is told by power at one moment and the energy that comes after it.
        after_j = max(after.all.energy_j, after.all.sigma_j)
        rate_per_s = float(np.clip(shown.power_w / after_j, SLOWEST_PER_S, FASTEST_PER_S))
        seconds = shown.until_s(after.overhang_s, rate_per_s)
        return AboveRest(seconds * shown.power_w, seconds * shown.sigma_w)
    if not stands_out(after):
        return None
    # How fast it falls is told by what is left at a tick further on.
    axis, at, later, seen = after.axis, after.at, after.later, max(after.first, after.all)
    apart_s = float(axis.time_s[at.last] - axis.time_s[at.near])
    rate_per_s = np.log(seen.energy_j / max(later.energy_j, later.sigma_j)) / apart_s
    growth = _growth(after, float(np.clip(rate_per_s, 0.0, FASTEST_PER_S)))
    return AboveRest(growth * seen.energy_j, growth * seen.sigma_j)


def stands_out(after: AfterEnd) -> bool:
    """Tell whether a tail shows, in the first tick after the end or in all until rest."""
    return any(seen.energy_j > CERTAIN_TICKS * seen.sigma_j for seen in (after.first, after.all))


def _unseen_j(after: AfterEnd) -> float:
    """Give what a tail may hold between the end and the first tick, by what that tick holds."""
    timing, first = after.timing, after.first
    # Of a tail that calibration saw, the tick may hold as much as there is, and that is no news.
    step_w = max(after.step_w, timing.tail_step_w or 0.0)
    known_j = timing.excess_s * step_w if timing.tail_known else 0.0
    seen_j = float(np.hypot(max(first.energy_j - known_j, 0.0), first.sigma_j))
    share = -float(np.expm1(-UNSEEN_RATE_PER_S * after.tick_s))  # of what is left that it holds
    return _growth(after, UNSEEN_RATE_PER_S) / share * seen_j


def _growth(after: AfterEnd, rate_per_s: float) -> float:
    """Give how many times what comes after the first tick came before it."""
    return float(np.expm1(rate_per_s * after.overhang_s))


def _without_tail(after: AfterEnd, hidden: AboveRest) -> Edge:
    """Read the end from rest power and the tail's hidden part."""
    axis, rest, last = after.axis, after.rest, after.at.last
    overhang_s, late_j = after.overhang_s, after.late_j(last)
    noise_j = rest.spread_w * np.sqrt(overhang_s * axis.tick_s + overhang_s**2 / rest.ticks)
    doubts_j = (DOUBT_SHARE * hidden.energy_j, hidden.sigma_j, RISE_DOUBT * late_j)
    lines = (
        BudgetLine(budget.OUTSIDE_LEVEL, float(noise_j)),
        BudgetLine(budget.OUTSIDE_TIME, rest.power_w * float(axis.sigma_s[last])),
        BudgetLine(budget.UNKNOWN_TAIL, float(np.linalg.norm(doubts_j))),
    )
    energy_j = float(axis.energy_j[last]) + rest.power_w * overhang_s
    return Edge(energy_j + hidden.energy_j - late_j, "band", rest.power_w, lines)

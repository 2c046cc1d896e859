"""Power that goes on after the work and dies away: what it hides of a window's end.

A tail is not the window's energy. Whole ticks that cover the end hold its first part, between the
end and the first tick after it; the ticks after that show the rest, and so do the ends of warm-up
batches that were followed by rest, each at another phase of the tick. What is hidden is told from
what they show (:mod:`~.estimation.tail_shapes`), beside power of moments where a sensor gives it
(:class:`MomentaryPower`): a counter's first tick after an end holds a tail only in sum.

The axis of an end runs backwards, so that ticks later in time come first on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.core.energy.estimation import budget
from llenergymeasure.core.energy.estimation.budget import BudgetLine
from llenergymeasure.core.energy.estimation.edges import (
    Axis,
    Edge,
    Level,
    end_axis,
    level_between,
)
from llenergymeasure.core.energy.estimation.sensor import (
    Calibration,
    CounterReadings,
    Floats,
    Timing,
    counter_series,
    to_come_s,
)
from llenergymeasure.core.energy.estimation.tail_shapes import (
    EndSeen,
    Hidden,
    TailPrior,
    find_hidden,
)
from llenergymeasure.core.energy.estimation.ticks import Ticks, find_ticks
from llenergymeasure.core.energy.protocol import REST_S
from llenergymeasure.domain.samples import Window

SETTLED_S = 0.25  # after the window: from here on power is taken for that of rest
RISES_LEFT = 2.0  # time constants after which a slow rise is known well enough to allow for
REST_SPREAD = 0.03  # of rest power: what its ticks differ by
REST_WEIGHT = 2.0  # worth as many ticks
LEAST_FREEDOM = 1.0  # degrees, where there are no other
MOST_SHARE = 0.5  # of a tick: a longer look still holds work
MOST_LAG_S = 0.005  # a later sensor still shows work, and a slow rise is no tail
CLEAR_S = 0.007  # between the end and a look: ticks come early or late
LEAST_REST = 2  # updates
LEAST_TICKS = 4  # around an end that is looked at
UPDATE_SPREAD = 0.04  # of rest power: what updates differ by
# Of work in a tick that tells of a tail: work fades, over 10 to 30 ms on an A100, an RTX 3090 and
# an RTX A5000 beside a meter (recordings of arXiv 2312.02741).
MOST_WORK_S = 0.02
FADES_SHARE = 0.3  # of the step: what power is off by as it fades, by the same recordings
CERTAIN = 0.99  # probability from which on a tail is told
LEAST_STEP_W = 1.0  # of an end, below which a tail is none
LEAST_ENDS = 2  # of warm-up batches, that tell how a tail begins
STRANGE = 6.0  # times what the readings of all ends differ by from the tails that explain them best


class Marks(NamedTuple):
    """Positions of ticks on an axis.

    Attributes:
        far: The first at rest.
        last: The first after the end that the sensor's own lag does not spoil.
    """

    far: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class AfterEnd:
    """The ticks after an end.

    Attributes:
        axis: The end's axis.
        at: Where on it.
        rest: Power at rest, its spread told by the ticks before the window too.
        timing: What calibration told of the sensor.
        step_w: By how much power falls at the end.
        step_doubt_w: Standard uncertainty of that: work differs from tick to tick.
    """

    axis: Axis
    at: Marks
    rest: Level
    timing: Timing
    step_w: float
    step_doubt_w: float

    @property
    def overhang_s(self) -> float:
        """Time between the end and the first tick after it."""
        return float(self.axis.edge_s - self.axis.time_s[self.at.last])

    @property
    def first_w(self) -> float:
        """Power over the first whole tick, at least that of rest."""
        axis, last = self.axis, self.at.last
        tick_j = float(axis.energy_j[last] - axis.energy_j[last - 1])
        return max(tick_j / float(axis.time_s[last] - axis.time_s[last - 1]), self.rest.power_w)

    @property
    def shown_s(self) -> float:
        """The same from where the sensor first shows the end."""
        return self.overhang_s + self.timing.slow_s

    def late_s(self, last: int) -> Floats:
        """Give what the sensor has still to count of the work at each tick, s of the step."""
        ticks_s, lag_s = self.axis.time_s[self.at.far : last + 1], self.timing.lag_s
        return to_come_s(self.axis.edge_s - ticks_s + lag_s, lag_s, self.timing.slow_s)

    def seen(self, *, with_end: bool) -> EndSeen:
        """Give what whole ticks hold above rest, without what they hold of the work.

        Args:
            with_end: Take the tick that holds the end too: where the work came to its end soon
                after a tick, it holds nearly all of a tail and little else.
        """
        axis, rest, last = self.axis, self.rest, self.at.last
        if with_end and np.diff(self.late_s(last + 1))[-1] < MOST_WORK_S:
            last += 1
        cut = slice(self.at.far, last + 1)
        slow_s, late_s = self.timing.slow_s, self.late_s(last)
        since_s = axis.edge_s - axis.time_s[cut] + slow_s
        length_s, work_s = np.diff(axis.time_s[cut]), np.diff(late_s)
        above_j = np.diff(axis.energy_j[cut]) - rest.power_w * length_s - self.step_w * work_s
        level_j = rest.spread_w * length_s / np.sqrt(rest.ticks)
        work_j = self.step_doubt_w * work_s
        # A tick that is early or late trades what flows there: as much as in either beside it.
        tick_w = np.diff(axis.energy_j[cut]) / length_s
        power_w = np.maximum(np.append(tick_w, 0.0), np.append(0.0, tick_w))
        power_w += np.where(since_s < 0, self.step_w, 0.0)
        time_j = np.diff(np.diag(power_w * axis.sigma_s[cut]), axis=0)
        covariance = np.diag(rest.spread_w**2 * length_s * axis.tick_s) + time_j @ time_j.T
        covariance += np.outer(level_j, level_j) + np.outer(work_j, work_j)
        settled_s = float(since_s[0]), float(axis.edge_s - axis.time_s[0]) + slow_s
        return EndSeen(since_s[1:], since_s[:-1], above_j, covariance, settled_s)


def after_end(axis: Axis, timing: Timing) -> AfterEnd | None:
    """Find the ticks after an end, or ``None`` where they are too few to tell anything."""
    # From the end as the sensor sees it, which lies one time constant into the rise.
    clear_s = axis.edge_s - (RISES_LEFT - 1) * (timing.rise_s or 0.0)
    last = int(np.sum(axis.time_s + 2 * axis.sigma_s <= clear_s)) - 1
    settled_s = axis.edge_s + timing.lag_s - SETTLED_S
    # Where late polls leave no whole tick there, the last one that was seen has to do.
    far = max(int(np.searchsorted(axis.time_s, settled_s, side="right")) - 1, 1)
    rest = level_between(axis, 0, far) if far < last else None
    if rest is None:
        return None
    # By how much ticks at rest differ is told from those before the window too.
    before = int(np.searchsorted(axis.time_s, axis.far_s + 2 * axis.sigma_s[-1]))
    stretches = [_shares(axis, 0, far), _shares(axis, before, len(axis.time_s) - 1)]
    squares = sum(float((away**2).sum()) for away in stretches)
    freedom = sum(max(len(away) - 1, 0) for away in stretches) + REST_WEIGHT
    # Of so few ticks the variance is that of Student's t.
    spread = float(
        np.sqrt((squares + REST_WEIGHT * REST_SPREAD**2) / (freedom - 2 + LEAST_FREEDOM))
    )
    inside = int(np.searchsorted(axis.time_s, axis.edge_s + (timing.rise_s or 0.0)))
    step_w, doubt_w = _step_before(axis, inside, before, rest.power_w)
    late_w = step_w * _late_at_rest(axis, far, timing)
    power_w = rest.power_w - late_w
    spread_w = float(np.hypot(power_w * spread, FADES_SHARE * late_w))
    rest = rest._replace(power_w=power_w, spread_w=spread_w)
    return AfterEnd(axis, Marks(far, last), rest, timing, step_w + late_w, doubt_w)


def _late_at_rest(axis: Axis, far: int, timing: Timing) -> float:
    """Tell what ticks at rest still show of the work, as a share of the step."""
    ends_s = axis.time_s[[0, far]]
    late_s = to_come_s(axis.edge_s - ends_s + timing.lag_s, timing.lag_s, timing.rise_s or 0.0)
    return float(np.diff(late_s)[0] / np.diff(ends_s)[0])


def _step_before(axis: Axis, first: int, before: int, rest_w: float) -> tuple[float, float]:
    """Tell by how much power falls, from the last ticks inside, with its doubt."""
    inside_w = np.diff(axis.energy_j[first:before]) / np.diff(axis.time_s[first:before])
    if not len(inside_w):
        whole_j = float(axis.energy_j[-1] - axis.energy_j[0])
        whole_j -= rest_w * float(axis.time_s[-1] - axis.time_s[0])
        step_w = max(whole_j / float(axis.far_s - axis.edge_s), 0.0)
        return step_w, step_w / 2
    last_w = float(inside_w[:2].mean())
    spread_w = float(np.sqrt(np.mean((inside_w - last_w) ** 2)))
    step_w = max(last_w - rest_w, 0.0)
    return step_w, max(spread_w, FADES_SHARE * step_w)


def _shares(axis: Axis, first: int, last: int) -> Floats:
    """Give how far each tick lies from the mean of its stretch, as a share of that."""
    tick_w = np.diff(axis.energy_j[first : last + 1]) / np.diff(axis.time_s[first : last + 1])
    mean_w = float(tick_w.mean()) if len(tick_w) else 0.0
    return tick_w / mean_w - 1 if mean_w > 0 else tick_w[:0]


class EarlierEnds(NamedTuple):
    """Ends of warm-up batches, as far as ticks tell of them.

    Attributes:
        seen: By what calibration told of the sensor.
        sooner: By a sensor that is as much less late as it may be.
    """

    seen: tuple[EndSeen, ...]
    sooner: tuple[EndSeen, ...]


NO_ENDS = EarlierEnds((), ())


def earlier_ends(ticks: Ticks, timing: Timing, ends_s: Floats) -> EarlierEnds:
    """Read the ends of warm-up batches.

    Args:
        ticks: Ticks from before the first end on.
        timing: What calibration told of the sensor.
        ends_s: When each batch ended, on the ticks' clock; rest followed for :data:`REST_S`.
    """
    if timing.rise_s is None:
        return NO_ENDS
    return EarlierEnds(
        _ends_seen(ticks, timing, ends_s), _ends_seen(ticks, less_late(timing), ends_s)
    )


def less_late(timing: Timing) -> Timing:
    """Take a sensor for as much less late as it may be, by one standard uncertainty."""
    lag_s = max(timing.lag_s - timing.edge_time_s, 0.0)
    return replace(timing, lag_s=lag_s, rise_s=min(timing.rise_s or 0.0, lag_s))


def _ends_seen(ticks: Ticks, timing: Timing, ends_s: Floats) -> tuple[EndSeen, ...]:
    found = []
    for end_s in ends_s.tolist():
        shown_s = end_s + timing.lag_s
        around = ticks.between(shown_s - REST_S, shown_s + REST_S)
        if len(around) < LEAST_TICKS:
            continue
        axis = end_axis(around, end_s, timing.lag_s, timing.settle_s)
        after = after_end(axis._replace(far_s=-end_s + REST_S), timing)
        found += [] if after is None else [after.seen(with_end=True)]
    return tuple(found)


def aimed_wait_s(
    counter: CounterReadings, from_ns: int, calibration: Calibration, ends_s: float, share: float
) -> float:
    """Tell how long to wait so that work ends a share of a tick before a tick.

    Args:
        counter: Readings that tell where ticks are.
        from_ns: Where times are counted from, monotonic clock.
        calibration: What is known of the counter.
        ends_s: When the work would end without waiting.
        share: Of a tick.

    Returns:
        Seconds, less than a tick; 0 where the tick is not told.
    """
    series = counter_series(counter, Window(from_ns, from_ns + 1))
    ticks = find_ticks(series, calibration.tick_s, calibration.jitter_s)
    if ticks is None or ticks.period_s is None:
        return 0.0
    delay_s = calibration.lag_s - (calibration.tail.rise_s or 0.0)
    shown_s = ends_s + delay_s + share * ticks.period_s
    return float((ticks.time_s[-1] - shown_s) % ticks.period_s)


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


def momentary_power(ticks: Ticks, timing: Timing) -> MomentaryPower | None:
    """Take power readings for those of moments, if calibration told that they are."""
    if not timing.look_known or timing.look_share > MOST_SHARE or timing.lag_s > MOST_LAG_S:
        return None
    return MomentaryPower(ticks, timing.look_share * ticks.step_s)


def shown_after(momentary: MomentaryPower, after: AfterEnd) -> EndSeen | None:
    """Give what updates show that look at nothing but what lies after the end.

    ``None`` where the first comes after the counter's first tick, which then tells more, and where
    either sensor is too late.
    """
    lag_s, look_s = after.timing.lag_s, momentary.look_s
    if lag_s > MOST_LAG_S:
        return None
    after_s = momentary.ticks.time_s[1:] + after.axis.edge_s + lag_s
    power_w = np.diff(momentary.ticks.energy_j) / np.diff(momentary.ticks.time_s)
    settled = after_s >= SETTLED_S + look_s
    clear = after_s >= look_s + CLEAR_S
    shown = np.flatnonzero(momentary.read & clear & ~settled)
    rest_w = power_w[momentary.read & settled]
    if len(rest_w) < LEAST_REST or not len(shown) or after_s[shown[0]] > after.overhang_s + CLEAR_S:
        return None
    mean_w, count = float(rest_w.mean()), len(rest_w)
    squares = float(((rest_w - mean_w) ** 2).sum()) + REST_WEIGHT * (UPDATE_SPREAD * mean_w) ** 2
    variance = squares / (count - 1 + REST_WEIGHT) * look_s**2
    covariance = variance * (np.eye(len(shown)) + 1 / count)
    settled_s = float(after_s[settled][0]), float(after_s[-1])
    until_s = after_s[shown]
    above_j = (power_w[shown] - mean_w) * look_s
    return EndSeen(until_s - look_s, until_s, above_j, covariance, settled_s)


class Beside(NamedTuple):
    """What tells of a tail beside the ticks of the window's own end.

    Attributes:
        momentary: Power of moments, by another sensor.
        ends: Ends of warm-up batches, of the same work on the same device.
    """

    momentary: MomentaryPower | None = None
    ends: EarlierEnds = NO_ENDS


def decayed_edge(
    axis: Axis,
    quiet: Edge,
    timing: Timing,
    inside_w: float,
    beside: Beside,
) -> Edge | None:
    """Read the end of a window without what a tail hides in it.

    Args:
        axis: The end's axis, which runs backwards.
        quiet: The end as read without a tail.
        timing: What calibration told of the sensor.
        inside_w: Power just inside, where no tick tells it.
        beside: What else tells of the tail.

    Returns:
        The end without the tail's hidden part, with its doubt; ``None`` where the sensor does not
        look all the time.
    """
    if quiet.method != "band" or timing.rise_s is None:
        return None
    after, others = after_end(axis, timing), beside.ends.seen
    if after is None:
        return _by_others(axis, quiet, timing, inside_w, others)
    hidden = _hidden(after, beside.momentary, others)
    unknown = hidden.misfit > STRANGE or (hidden.further > CERTAIN and len(others) < LEAST_ENDS)
    lag_doubt_j = _lag_doubt_j(after, beside, _end_j(after, hidden))
    return _without_tail(after, hidden, lag_doubt_j, unknown=unknown)


def _lag_doubt_j(after: AfterEnd, beside: Beside, end_j: float) -> float:
    """Tell how else a window would end if the sensor were as much less late as it may be.

    All ends are then read anew: what passed for work that came late is the beginning of a tail.
    """
    timing = less_late(after.timing)
    by_s = after.timing.lag_s - timing.lag_s
    axis = after.axis._replace(edge_s=after.axis.edge_s + by_s, far_s=after.axis.far_s + by_s)
    sooner = after_end(axis, timing)
    if sooner is None or by_s <= 0:
        return 0.0
    hidden = _hidden(sooner, beside.momentary, beside.ends.sooner)
    # The start of the window trades power outside for it.
    return abs(_end_j(sooner, hidden) - sooner.rest.power_w * by_s - end_j)


def _hidden(after: AfterEnd, momentary: MomentaryPower | None, others: Sequence[EndSeen]) -> Hidden:
    shown = None if momentary is None else shown_after(momentary, after)
    ends = [after.seen(with_end=False), *others, *(() if shown is None else (shown,))]
    prior = tail_prior(after.timing, after.step_w)
    return find_hidden(ends, after.shown_s, prior, after.timing.slow_s)


def tail_prior(timing: Timing, step_w: float) -> TailPrior:
    """Tell what calibration leads to expect of a tail after a step down.

    Whether a tail grows with the step or is the same for all is not known: it lies between.
    """
    step_w = max(step_w, LEAST_STEP_W)
    found_w = timing.tail_step_w or step_w
    energy_j = timing.excess_s * (step_w + found_w) / 2
    grows_j = timing.excess_s * (found_w - step_w) / 2
    return TailPrior(step_w, energy_j, float(np.hypot(timing.tail_doubt_s * step_w, grows_j)))


def _by_others(
    axis: Axis, quiet: Edge, timing: Timing, inside_w: float, others: Sequence[EndSeen]
) -> Edge | None:
    """Take off what other ends tell of a tail where late polls left no tick of rest behind it."""
    outside = np.flatnonzero(axis.time_s + 2 * axis.sigma_s <= axis.outside_s)
    if not len(outside):
        return None
    overhang_s = float(axis.edge_s - axis.time_s[outside[-1]])
    prior = tail_prior(timing, inside_w - (quiet.outside_w or 0.0))
    hidden = find_hidden(others, overhang_s + timing.slow_s, prior, timing.slow_s)
    name = budget.UNSEEN_TAIL if len(others) >= LEAST_ENDS else budget.UNKNOWN_TAIL
    # What nothing told is no reason to take anything off.
    off_j = hidden.energy_j if others else prior.energy_j
    doubt_j = float(np.hypot(hidden.sigma_j, hidden.energy_j - off_j))
    late_j = prior.step_w * timing.edge_time_s
    lines = (
        *quiet.lines,
        BudgetLine(name, doubt_j, shared=True),
        BudgetLine(budget.EDGE_TIME, late_j, shared=True),
    )
    return Edge(quiet.energy_j + off_j, "band", quiet.outside_w, lines)


def _end_j(after: AfterEnd, hidden: Hidden) -> float:
    axis, last = after.axis, after.at.last
    late_j = after.step_w * float(after.late_s(last)[-1])
    outside_j = after.rest.power_w * after.overhang_s
    return float(axis.energy_j[last]) + outside_j + hidden.energy_j - late_j


def _without_tail(after: AfterEnd, hidden: Hidden, lag_doubt_j: float, *, unknown: bool) -> Edge:
    """Read the end from rest power and the tail's hidden part."""
    axis, rest, last = after.axis, after.rest, after.at.last
    overhang_s = after.overhang_s
    noise_j = rest.spread_w * np.sqrt(overhang_s * axis.tick_s + overhang_s**2 / rest.ticks)
    late_doubt_j = after.step_doubt_w * float(after.late_s(last)[-1])
    # A wrong lag takes of what the tail draws at the end, and makes another tail of what is seen.
    tail_w = max(after.first_w - rest.power_w, hidden.energy_j / overhang_s)
    lag_doubt_j = max(lag_doubt_j, tail_w * after.timing.edge_time_s)
    name = budget.UNKNOWN_TAIL if unknown else budget.UNSEEN_TAIL
    lines = (
        BudgetLine(budget.OUTSIDE_LEVEL, float(noise_j)),
        BudgetLine(budget.OUTSIDE_TIME, after.first_w * float(axis.sigma_s[last])),
        BudgetLine(budget.LATE, late_doubt_j),
        BudgetLine(name, float(np.hypot(hidden.sigma_j, lag_doubt_j)), shared=True),
    )
    return Edge(_end_j(after, hidden), "band", rest.power_w, lines)

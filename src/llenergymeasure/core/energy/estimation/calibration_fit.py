"""What a sensor's timing is, from bursts of load at known times.

Every burst is read with the same rules as a window, so that what calibration calls lag and tail is
what a window needs taken off. Long bursts tell both: from the start to the plateau the counter
falls behind by the lag, and from the plateau to the end it gains lag and tail.

Short bursts at random phases tell whether a sensor looks at all of each tick. One that looks at a
share of it shows a burst shorter than the tick whole, several times over or not at all, as its
phase has it. For every share and lag the bursts' apparent lengths can be told from their phases;
the pair that explains them best is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation.edges import end_axis, quiet_edge, start_axis
from llenergymeasure.core.energy.estimation.integral import power_ticks
from llenergymeasure.core.energy.estimation.sensor import (
    Calibration,
    CounterReadings,
    Floats,
    PowerReadings,
    Tail,
    counter_series,
    power_series,
    to_come_s,
)
from llenergymeasure.core.energy.estimation.ticks import Ticks, find_ticks
from llenergymeasure.domain.samples import Window

LEAST_SHORT = 10
WHOLE_SHARE = 0.9  # a look of more of a tick than this counts as all of it
BETTER = 0.25  # how far below the rest of a whole look another share has to bring the rest
PROVEN = 0.35  # of what half a look would make bursts differ: below it they prove a whole one
NOISE = 0.03  # of a tick: finer differences are no sign of a look
# Of the rest of a whole look, what the best other has to leave. Simulated whole counters left 0.9
# to 1, looks of half to three quarters of a tick 0.3 to 0.75 (power noise of 5 to 20 %).
ALIKE = 0.75
UNEXPLAINED = 0.12  # of a tick: bursts that a look leaves further off were looked at otherwise
SHARES = np.linspace(0.05, 1.0, 39)
LAG_STEPS = 26
NEAR_TICKS = 4
LONG_S = 0.5  # bursts from this length on have a plateau
PLATEAU_AFTER_S = 0.15  # at least: sensors rise within 21 to 120 ms (arXiv 2312.02741)
LONGEST_SETTLE_S = 0.35
LEAST_LONG = 3
UNSETTLED_S = 0.001  # energy still to come, per watt of the step, that counts as settled
SETTLE_STEP_S = 0.02
CALM_BLOCKS = 2
RISES = 11


class ShortBursts(NamedTuple):
    """What short bursts added to a counter.

    Attributes:
        added_s: How long each seemed to last, shape (b,).
        tick_s: When a tick was, from its start, shape (b,).
        length_s: How long it lasted, shape (b,).
        noise_s: By how much they differ for noise of power alone, standard deviation.
    """

    added_s: Floats
    tick_s: Floats
    length_s: Floats
    noise_s: float = 0.0

    @property
    def level(self) -> float:
        """Their power over that of long ones: less than 1 where they end before it is reached."""
        return float(np.clip(self.added_s.mean() / self.length_s.mean(), 0.0, 1.0))


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
        enough = PROVEN * _half_look(bursts, period_s) + noise
        alike = least + noise > ALIKE * (whole + noise)
        proven = alike and whole - bursts.noise_s**2 < enough
        return Look(whole=proven, share=1.0 if proven else None, lag_s=lag_s)
    told = least < (UNEXPLAINED * period_s) ** 2
    return Look(whole=False, share=share if told else None, lag_s=float(lags[best[0]][best[1]]))


def _half_look(bursts: ShortBursts, period_s: float) -> float:
    """Tell how much bursts would differ to a sensor that looks at half of each tick."""
    lags = np.linspace(0.0, period_s, LAG_STEPS)
    whole_s = bursts.level * bursts.length_s
    seen = [seen_s(bursts, period_s, 0.5, float(lag)) - whole_s for lag in lags]
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
    seen: Floats = bursts.level * np.maximum(overlap, 0.0).sum(axis=1) / share
    return seen


class Burst(NamedTuple):
    """One burst with the ticks around it and no other burst's.

    Attributes:
        ticks: Ticks in seconds from its start.
        length_s: How long it lasted.
    """

    ticks: Ticks
    length_s: float


class Driven(NamedTuple):
    """What drove a device.

    Attributes:
        bursts: Work at known times, ascending.
        simmers: When the device was kept awake before one of them, with next to no work.
        lost_s: How much time long bursts lost as they began, by the pace of their work.
    """

    bursts: tuple[Window, ...]
    simmers: tuple[Window, ...] = ()
    lost_s: float = 0.0


class Response(NamedTuple):
    """What one long burst tells.

    Attributes:
        step_w: Power of the plateau above that of rest after it.
        spread_w: Standard deviation of the power of single ticks of the plateau.
        lag_s: By how much the counter fell behind on the way to the plateau.
        gain_s: What it made up for after the plateau: lag and tail.
        since_s: Times of the ticks from its start to the plateau, shape (k,).
        to_come_s: By how much more the counter was to fall behind at each, shape (k,).
    """

    step_w: float
    spread_w: float
    lag_s: float
    gain_s: float
    since_s: Floats
    to_come_s: Floats


def fit_calibration(readings: CounterReadings | PowerReadings, driven: Driven) -> Calibration:
    """Learn a sensor's tick, jitter, lag, tail and look from a recorded series of bursts.

    Between bursts the device is idle for at least three quarters of a second; at least three
    bursts last half a second or more.

    Args:
        readings: From a second before the first burst to a second after the last.
        driven: When the device worked, and when it was kept awake.

    Raises:
        ValueError: The sensor shows no ticks, or too few bursts are within the readings.
    """
    if not driven.bursts:
        raise ValueError("no bursts to calibrate with")
    first = driven.bursts[0]
    if isinstance(readings, CounterReadings):
        ticks = find_ticks(counter_series(readings, first))
    else:
        ticks = power_ticks(power_series(readings, first))
    if ticks is None:
        raise ValueError("the sensor's value hardly changed: nothing to calibrate")
    bursts_s, simmers_s = (
        np.array([[one.t0_ns, one.t1_ns] for one in windows]).reshape(-1, 2) - first.t0_ns
        for windows in (driven.bursts, driven.simmers)
    )
    cut = cut_bursts(ticks, bursts_s / 1e9, simmers_s / 1e9)
    return _fit(ticks, [burst for burst in cut if burst.length_s >= LONG_S], cut, driven.lost_s)


def _fit(ticks: Ticks, long: Sequence[Burst], cut: Sequence[Burst], lost_s: float) -> Calibration:
    step_w = float(np.mean([response.step_w for response in _responses(long, LONGEST_SETTLE_S)]))
    settle_s = find_settle_s(long, step_w)
    responses = _responses(long, settle_s)
    lag_s, lag_doubt_s = _mean([response.lag_s for response in responses])
    tail_s, tail_doubt_s = _mean([response.gain_s - response.lag_s for response in responses])
    # What work lost as it began is a ramp that was taken for lag, and off the tail, if it is any.
    undecided_s = min(max(lag_s, 0.0), lost_s)
    spread_w = float(np.mean([response.spread_w for response in responses]))
    brief = [burst for burst in cut if burst.length_s < LONG_S]
    short = _short(brief, step_w, spread_w, settle_s)
    look = find_look(short, ticks.step_s, lag_s)
    tail_doubt_s = float(np.hypot(tail_doubt_s, undecided_s))
    # A tail that is within its own doubt is drawn towards none.
    tail_s *= tail_s**2 / (tail_s**2 + tail_doubt_s**2 + 1e-12)
    # Ticks may all be early or late alike, where polls keep step with them.
    doubts_s = (lag_doubt_s, tail_doubt_s, float(np.median(ticks.sigma_s)))
    return Calibration(
        tick_s=ticks.period_s,
        jitter_s=ticks.jitter_s,
        lag_s=max(look.lag_s, 0.0),
        tail=Tail(max(tail_s, 0.0), settle_s, step_w, find_rise_s(responses, lag_s), tail_doubt_s),
        fully_integrating=look.whole,
        look_share=look.share,
        edge_time_s=float(np.linalg.norm(doubts_s)),
    )


def cut_bursts(ticks: Ticks, bursts_s: Floats, simmers_s: Floats) -> list[Burst]:
    """Give each burst its own ticks, from after what came before to what comes next, if any.

    Args:
        ticks: Ticks of the whole recording.
        bursts_s: Start and end of each burst on the ticks' clock, shape (b, 2).
        simmers_s: Start and end of each stretch that a device was kept awake, shape (s, 2).
    """
    changes_s = np.sort(np.concatenate((bursts_s.ravel(), simmers_s[:, 0], [-np.inf, np.inf])))
    cut = []
    for start_s, end_s in bursts_s.tolist():
        since_s = changes_s[np.searchsorted(changes_s, start_s) - 1] + LONGEST_SETTLE_S
        until_s = changes_s[np.searchsorted(changes_s, end_s, side="right")]
        own = ticks.between(float(since_s), float(until_s))
        if len(own):
            cut.append(Burst(replace(own, time_s=own.time_s - start_s), end_s - start_s))
    return cut


def _responses(long: Sequence[Burst], settle_s: float) -> list[Response]:
    """Read every long burst.

    Raises:
        ValueError: Fewer than three can be read.
    """
    found = [_response(burst, settle_s) for burst in long]
    told = [response for response in found if response is not None]
    if len(told) < LEAST_LONG:
        raise ValueError(
            f"{len(told)} bursts of {LONG_S} s or more with idle time around them; "
            f"{LEAST_LONG} are needed"
        )
    return told


def _response(burst: Burst, settle_s: float) -> Response | None:
    """Read one long burst, or give ``None`` where it has no idle ticks around or no plateau."""
    ticks, length_s = burst
    if not len(ticks):
        return None
    after_s = max(PLATEAU_AFTER_S, settle_s)
    plateau = np.flatnonzero((ticks.time_s >= after_s) & (ticks.time_s <= length_s))
    start = quiet_edge(start_axis(ticks, length_s, 0.0), 0.0)
    end = quiet_edge(end_axis(ticks, length_s, 0.0, settle_s), 0.0)
    if len(plateau) < 3 or start.outside_w is None or end.outside_w is None:
        return None
    first, last = int(plateau[0]), int(plateau[-1])
    at_s, energy_j = ticks.time_s, ticks.energy_j
    hot_w = float((energy_j[last] - energy_j[first]) / (at_s[last] - at_s[first]))
    if hot_w <= max(start.outside_w, end.outside_w):
        return None
    behind_s = (start.energy_j + hot_w * at_s - energy_j) / (hot_w - start.outside_w)
    gained_j = -end.energy_j - energy_j[last] - hot_w * (length_s - at_s[last])
    step_w, rising = hot_w - end.outside_w, (at_s > 0) & (at_s < after_s)
    return Response(
        step_w,
        float(np.std(np.diff(energy_j[plateau]) - hot_w * np.diff(at_s[plateau])) / ticks.step_s),
        float(behind_s[first]),
        float(gained_j / step_w),
        at_s[rising],
        behind_s[first] - behind_s[rising],
    )


def _mean(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def find_settle_s(long: Sequence[Burst], step_w: float) -> float:
    """Find how long after a burst the counter has all of it, from ticks of every delay."""
    return _last_unsettled(*_to_come(long, step_w))


def find_rise_s(responses: Sequence[Response], lag_s: float) -> float:
    """Find how much of a lag is a slow rise rather than a delay, from how bursts begin.

    No tail is there yet. Mean absolute distance decides, since late polls spoil single ticks.
    """
    lag_s = max(lag_s, 0.0)
    since_s = np.concatenate([response.since_s for response in responses])
    to_come = np.concatenate([response.to_come_s for response in responses])
    rises_s = np.linspace(0.0, lag_s, RISES)
    apart_s = [np.abs(to_come - to_come_s(since_s, lag_s, float(r))).mean() for r in rises_s]
    return float(rises_s[int(np.argmin(apart_s))])


def _to_come(long: Sequence[Burst], step_w: float) -> tuple[Floats, Floats]:
    """Give ticks' delays after their burst, and what was still to come, both seconds."""
    delay, rest = [], []
    for ticks, length_s in long:
        end = quiet_edge(end_axis(ticks, length_s, 0.0, LONGEST_SETTLE_S), 0.0)
        after = (ticks.time_s > length_s) & (ticks.time_s < length_s + LONGEST_SETTLE_S)
        if end.outside_w is None:
            continue
        since_s = ticks.time_s[after] - length_s
        delay.append(since_s)
        rest.append((-end.energy_j - ticks.energy_j[after] + end.outside_w * since_s) / step_w)
    return np.concatenate(delay), np.concatenate(rest)


def _last_unsettled(delay_s: Floats, rest_s: Floats) -> float:
    """Find the end of the last block of delays after which energy was still to come.

    What is to come only falls: past two settled blocks in a row, a later one is a false alarm.
    """
    edges = np.arange(0.0, LONGEST_SETTLE_S + SETTLE_STEP_S, SETTLE_STEP_S)
    settled_s, calm = 0.0, 0
    for low, high in pairwise(edges):
        rest = rest_s[(delay_s >= low) & (delay_s < high)]
        if len(rest) < 2:
            continue
        if rest.mean() > UNSETTLED_S + 2 * rest.std() / np.sqrt(len(rest)):
            settled_s, calm = float(high) + SETTLE_STEP_S, 0
        else:
            calm += 1
        if calm == CALM_BLOCKS:
            break
    return min(settled_s, LONGEST_SETTLE_S)


def _short(short: Sequence[Burst], step_w: float, spread_w: float, settle_s: float) -> ShortBursts:
    """Give what each short burst added, as seconds of the step, with the ticks around it."""
    added, ends, lengths, noise2 = [], [], [], [0.0]
    for ticks, length_s in short:
        start = quiet_edge(start_axis(ticks, length_s, 0.0), 0.0)
        end = quiet_edge(end_axis(ticks, length_s, 0.0, max(settle_s, LONGEST_SETTLE_S)), 0.0)
        if start.outside_w is None or end.outside_w is None:
            continue
        added.append((-end.energy_j - start.energy_j) / step_w)
        added[-1] -= (start.outside_w + end.outside_w) / 2 * length_s / step_w
        # Ticks are alike: one of them and the tick's length place all the others.
        ends.append(float(ticks.time_s[np.argmin(np.abs(ticks.time_s))]))
        lengths.append(length_s)
        edges_j2 = sum(line.standard_j**2 for line in (*start.lines, *end.lines))
        noise2.append((edges_j2 + spread_w**2 * ticks.step_s * length_s) / step_w**2)
    noise_s = float(np.sqrt(np.median(noise2)))
    return ShortBursts(np.array(added), np.array(ends), np.array(lengths), noise_s)

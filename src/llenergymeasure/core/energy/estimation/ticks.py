"""When a counter publishes: its tick, its jitter, and the time of every tick seen.

A poll that shows another value than the one before it brackets a tick: the old value was still
there at the one, the new one already at the other. A comb of equal teeth, each held inside its
bracket, tells the times far better than the brackets do; a late poll only widens its own bracket.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.core.energy.estimation.sensor import Floats, Series

FAST_SHARE = 0.6  # polls that find another value; above it the counter outruns the polls
NARROW = 0.6  # of a tick: brackets below it number their tick without doubt
MIN_ANCHORS = 4  # narrow brackets that a comb of unknown period needs
JITTER_ROUNDS = 2
MOST_JITTER = 0.2  # of a tick: times without any comb are 1 / sqrt(12) = 0.29 of it off one
CERTAIN = 3.0  # standard uncertainties within which a tooth lies
LEAST_JITTER_S = 5e-4  # no clock is steadier than the polls can tell
FIRST_TICKS = 8
NEAR_TICKS = 10  # apart at most, so that a first guess of the tick numbers them


class Brackets(NamedTuple):
    """Between which times the counter changed, and to what.

    Attributes:
        low_s: The old value was still seen here, shape (k,).
        high_s: The next value had been seen by here, shape (k,).
        energy_j: The value after the change, shape (k,).
    """

    low_s: Floats
    high_s: Floats
    energy_j: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Ticks:
    """The ticks seen of a counter, or the updates of power as such.

    Attributes:
        time_s: When each value was published, s from the start of the window, shape (k,).
        sigma_s: Standard uncertainty of that, shape (k,).
        energy_j: The value from then on, shape (k,).
        period_s: The tick, or ``None`` where the counter outruns the polls.
        jitter_s: Standard deviation of ticks about the comb, or ``None`` without a comb.
        unread_j: Standard uncertainty of what each tick adds where no reading told it, shape (k,);
            ``None`` where nothing is missing, as of a counter, which counts on unread.
    """

    time_s: Floats
    sigma_s: Floats
    energy_j: Floats
    period_s: float | None
    jitter_s: float | None
    unread_j: Floats | None = None

    def __len__(self) -> int:
        return len(self.time_s)

    def between(self, from_s: float, to_s: float) -> Ticks:
        """The ticks from one time up to another."""
        kept = slice(*np.searchsorted(self.time_s, [from_s, to_s]).tolist())
        return replace(
            self,
            time_s=self.time_s[kept],
            sigma_s=self.sigma_s[kept],
            energy_j=self.energy_j[kept],
            unread_j=None if self.unread_j is None else self.unread_j[kept],
        )

    @property
    def step_s(self) -> float:
        """The tick, or the usual distance of the values where it is not known."""
        if self.period_s is not None:
            return self.period_s
        return float(np.median(np.diff(self.time_s))) if len(self) > 1 else 0.0


class Comb(NamedTuple):
    """Tick times ``phase + number * period``.

    Attributes:
        phase_s: Time of tick number 0.
        period_s: Distance of ticks.
        jitter_s: Standard deviation of ticks about it.
        sigma_s: Standard uncertainty of a tooth's place.
    """

    phase_s: float
    period_s: float
    jitter_s: float
    sigma_s: float

    @property
    def tooth_sigma_s(self) -> float:
        """Standard deviation of a tick about its tooth as it is known."""
        return float(np.hypot(max(self.jitter_s, LEAST_JITTER_S), self.sigma_s))


def brackets(series: Series) -> Brackets:
    """Find every change of the value and the two reads it lies between."""
    new = np.flatnonzero(np.diff(series.value)) + 1
    return Brackets(series.before_s[new - 1], series.after_s[new], series.value[new])


def find_ticks(
    series: Series, period_s: float | None = None, jitter_s: float | None = None
) -> Ticks | None:
    """Find the ticks of a counter.

    Args:
        series: Readings of the counter.
        period_s: The tick, where a calibration knows it; it is checked against the readings.
        jitter_s: Its jitter, where known.

    Returns:
        The ticks, or ``None`` where the counter changed fewer than twice.
    """
    seen = brackets(series)
    if len(seen.low_s) < 2:
        return None
    if len(seen.low_s) > FAST_SHARE * (len(series) - 1):
        return _without_comb(seen, period_s)
    comb = fit_comb(seen, period_s, jitter_s)
    return _without_comb(seen, period_s) if comb is None else _on_comb(seen, comb)


def fit_comb(
    seen: Brackets, period_s: float | None = None, jitter_s: float | None = None
) -> Comb | None:
    """Fit equal teeth to the brackets by weighted least squares on the narrow ones.

    Returns:
        The comb, or ``None`` where too few brackets are narrow enough to number the ticks, or
        where they lie on none.
    """
    width = seen.high_s - seen.low_s
    middle = (seen.high_s + seen.low_s) / 2
    guess = period_s or _period_guess(middle, width)
    narrow = width < guess * NARROW
    if narrow.sum() < (2 if period_s else MIN_ANCHORS):
        return None
    at, spread = middle[narrow], width[narrow] ** 2 / 12
    number = _numbers(at, guess)
    if number[-1] == number[0]:
        return None
    jitter = jitter_s or 0.0
    for _ in range(JITTER_ROUNDS):
        phase, period, sigma = _line(number, at, spread + jitter**2, period_s)
        rest2 = float(np.mean((at - phase - number * period) ** 2))
        if jitter_s is None and len(at) > 2:
            excess = rest2 * len(at) / (len(at) - 2) - float(np.mean(spread))
            jitter = float(np.sqrt(max(excess, 0.0)))
    if jitter > MOST_JITTER * period:
        return None
    # Polls in step with the ticks see them at one place of the bracket: that hides an offset.
    hidden = max(float(np.mean(spread)) - rest2, 0.0)
    return Comb(phase, period, jitter, float(np.sqrt(sigma**2 + hidden)))


def _numbers(at: Floats, period: float) -> Floats:
    """Number ticks by a comb that is fitted to ever more of them, so that no error adds up.

    By half as many again at a time: a period found from few, with polls in step with the ticks,
    is off by more than a tick after several times as many.
    """
    angle = np.angle(np.exp(2j * np.pi * at[:FIRST_TICKS] / period).mean())
    phase, count = float(angle) / (2 * np.pi) * period, FIRST_TICKS
    while True:
        count += count // 2
        number: Floats = np.rint((at[:count] - phase) / period)
        if number[-1] > number[0]:
            phase, period, _ = _line(number, at[:count], np.ones(len(number)), None)
        if count >= len(at):
            return np.asarray(np.rint((at - phase) / period))


def _period_guess(middle: Floats, width: Floats) -> float:
    steps = np.diff(middle)
    usable = np.maximum(width[1:], width[:-1]) <= np.median(width) * 1.5
    guess = float(np.median(steps[usable] if usable.any() else steps))
    # Missed ticks leave steps of twice, three times...: the mean of steps brought to one tick, by
    # all brackets and then by the narrow ones, which late polls do not draw to one side.
    for among in (np.ones(len(middle), bool), width <= 1.5 * np.quantile(width, 0.25)):
        steps = np.diff(middle[among])
        number = np.maximum(np.rint(steps / guess), 1)
        near = (np.abs(steps - number * guess) < 0.3 * guess) & (number <= NEAR_TICKS)
        guess = float(steps[near].sum() / number[near].sum()) if near.any() else guess
    return guess


def _line(
    number: Floats, at: Floats, variance: Floats, period_s: float | None
) -> tuple[float, float, float]:
    """Fit ``phase + number * period``; a known period is held to within a thousandth."""
    weight = 1 / np.maximum(variance, 1e-12)
    total = weight.sum()
    centre = float((weight * number).sum() / total)
    mean = float((weight * at).sum() / total)
    away = number - centre
    moment, product = float((weight * away**2).sum()), float((weight * away * (at - mean)).sum())
    if period_s is not None:
        known = 1 / (1e-3 * period_s) ** 2
        moment, product = moment + known, product + known * period_s
    period = product / moment
    span = float(np.abs(away).max())
    sigma = float(np.sqrt(1 / total + (span**2 / moment) * 0.3))
    return mean - centre * period, period, sigma


class Numbered(NamedTuple):
    """Which tooth of a comb each bracket holds.

    Attributes:
        number: Its number, shape (k,).
        told: Whether there is no doubt about it, shape (k,).
        narrow: Whether the bracket itself tells it, and the tick's time, shape (k,).
    """

    number: Floats
    told: NDArray[np.bool_]
    narrow: NDArray[np.bool_]


def numbered(seen: Brackets, comb: Comb) -> Numbered:
    """Tell the tooth of each bracket.

    A wide bracket tells it too, where it holds but one tooth behind the tick before it.
    """
    low, high = seen.low_s, seen.high_s
    narrow, middle = high - low < comb.period_s * NARROW, (low + high) / 2
    doubt = CERTAIN * comb.tooth_sigma_s
    number = np.rint((middle - comb.phase_s) / comb.period_s)
    first = np.ceil((low - doubt - comb.phase_s) / comb.period_s)
    first[1:] = np.where(narrow[:-1], np.maximum(first[1:], number[:-1] + 1), first[1:])
    last = np.floor((high + doubt - comb.phase_s) / comb.period_s)
    number, told = np.where(narrow, number, last), narrow | (first == last)
    # No later than its last tooth: one that leaves the next bracket none is not its own.
    told[:-1] &= number[:-1] < number[1:]
    return Numbered(number, told, narrow)


def _on_comb(seen: Brackets, comb: Comb) -> Ticks:
    """Place each tick where comb and bracket agree.

    Ticks without a number are left out: the counter is cumulative, so nothing is lost with them.
    """
    number, told, narrow = numbered(seen, comb)
    tooth = comb.phase_s + number[told] * comb.period_s
    own = comb.tooth_sigma_s**2
    low, high = seen.low_s[told], seen.high_s[told]
    middle = (low + high) / 2
    known = np.maximum(high - low, 1e-6) ** 2 / 12
    known = np.where(narrow[told], known, np.inf)
    place = np.clip((tooth / own + middle / known) / (1 / own + 1 / known), low, high)
    sigma = 1 / np.sqrt(1 / own + 1 / known)
    return Ticks(place, sigma, seen.energy_j[told], comb.period_s, comb.jitter_s)


def _without_comb(seen: Brackets, period_s: float | None) -> Ticks:
    """Place each value in the middle of what is known of its time."""
    low = seen.low_s if period_s is None else np.maximum(seen.low_s, seen.high_s - 2 * period_s)
    width = seen.high_s - low
    return Ticks((low + seen.high_s) / 2, width / np.sqrt(12), seen.energy_j, period_s, None)

"""What power does after the work, as a family of shapes, and which of them the readings speak for.

Whole ticks behind an end hold what a tail still draws there; what it drew between the end and the
first of them is hidden. A dictionary of shapes bridges that: each is fitted to all ends that were
seen (that of the window, and those of warm-up batches that were followed by rest), weighed by how
well it explains them, and asked what it has hidden.

Tails are told from a law of amplitudes for each shape, a normal one cut at zero. With even odds the
tail is the one that calibration saw (its energy, with its doubt; mostly none), or a further one as
high as :data:`LIKELY_SHARE` of the step. Both laws are conjugate, so that all is in closed form
(Gelman et al., Bayesian Data Analysis, 3rd ed., 2.5; Johnson, Kotz and Balakrishnan, Continuous
Univariate Distributions 1, 13.10 for the moments).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import erfc, exp, log, pi, sqrt
from typing import NamedTuple

import numpy as np

from llenergymeasure.core.energy.estimation.budget import COVERAGE_FACTOR
from llenergymeasure.core.energy.estimation.sensor import Floats

GRID_S = 1e-3
REACH_S = 1.0  # after an end
RATES_PER_S = np.geomspace(7.0, 120.0, 20)  # of exponential decay
LINES_S = np.geomspace(0.025, 0.35, 20)
BOXES_S, DELAYS_S = np.geomspace(0.02, 0.07, 7), np.linspace(0.0, 0.04, 5)
# Of a further tail: it seldom draws more than the work did. Boards beside a meter (the recordings
# of arXiv 2312.02741: A100, RTX 3090, RTX A5000) drew 0.01 to 0.3 of the step, for 10 to 20 ms.
# Chosen wider than these, for boards nobody recorded: too wide a law costs width, not coverage.
LIKELY_SHARE = 0.5
LEAST_DOUBT_J = 1e-3  # a counter's unit
LEAST_ODDS = 1e-5  # of a shape that is still asked
BISECTIONS = 24
FAR = 30.0  # standard deviations


@dataclass(frozen=True, slots=True, eq=False)
class EndSeen:
    """Whole ticks behind an end, in seconds after it as the sensor's delay shows it.

    Attributes:
        since_s: When each began, shape (k,).
        until_s: When it ended, shape (k,).
        above_j: Its energy above that of rest, shape (k,).
        covariance: Of that, shape (k, k).
        rest_s: Between which times rest was told.
    """

    since_s: Floats
    until_s: Floats
    above_j: Floats
    covariance: Floats
    rest_s: tuple[float, float]


class TailPrior(NamedTuple):
    """What is known of a tail before anything is seen.

    Attributes:
        step_w: By how much power falls at the end.
        energy_j: Of the tail that calibration saw.
        sigma_j: Standard uncertainty of that.
    """

    step_w: float
    energy_j: float = 0.0
    sigma_j: float = LEAST_DOUBT_J


class Hidden(NamedTuple):
    """What a tail hides.

    Attributes:
        energy_j: Joules.
        sigma_j: Standard uncertainty of that.
        further: Probability that there is another tail than calibration saw.
        misfit: Mean square of what is left of the readings, in standard uncertainties.
    """

    energy_j: float
    sigma_j: float
    further: float
    misfit: float


class Shapes(NamedTuple):
    """Tails of 1 W at their highest, as a sensor shows them.

    Attributes:
        so_far_j: Energy up to each ms after the end, shape (s, ms).
        whole_j: Energy of each, shape (s,).
        weight: Prior probability of each, shape (s,).
    """

    so_far_j: Floats
    whole_j: Floats
    weight: Floats

    def until(self, time_s: Floats) -> Floats:
        """Give energy up to some times, shape (n, s)."""
        at = np.clip(time_s, 0.0, REACH_S) / GRID_S
        low = np.minimum(at.astype(np.int64), self.so_far_j.shape[1] - 2)
        part = at - low
        of = self.so_far_j[:, low] * (1 - part) + self.so_far_j[:, low + 1] * part
        return np.asarray(of.T)

    def above_rest(self, end: EndSeen) -> Floats:
        """Give what each tick of an end would hold, less what rest holds of the tail, (k, s)."""
        rest_w = np.diff(self.until(np.array(end.rest_s)), axis=0) / np.diff(end.rest_s)
        seen: Floats = self.until(end.until_s) - self.until(end.since_s)
        return seen - (end.until_s - end.since_s)[:, None] * rest_w


@lru_cache(maxsize=32)
def shapes(rise_ms: float) -> Shapes:
    """Make the dictionary as a sensor with a first-order rise of so many ms shows it."""
    at_s = np.arange(0.0, REACH_S + GRID_S / 2, GRID_S)
    middle_s = (at_s[1:] + at_s[:-1]) / 2
    boxes = [
        ((middle_s >= delay_s) & (middle_s < delay_s + box_s)).astype(np.float64)
        for box_s in BOXES_S
        for delay_s in DELAYS_S
    ]
    kinds = (
        np.exp(-np.outer(RATES_PER_S, middle_s)),
        np.maximum(1 - middle_s / LINES_S[:, None], 0.0),
        np.array(boxes),
    )
    power_w = np.concatenate(kinds)
    weight = np.concatenate([np.full(len(kind), 1 / len(kinds) / len(kind)) for kind in kinds])
    whole_j = power_w.sum(axis=1) * GRID_S
    passed = exp(-GRID_S * 1e3 / rise_ms) if rise_ms > 0 else 0.0
    shown_w = np.zeros(len(power_w))
    so_far_j = np.zeros((len(power_w), len(at_s)))
    for k in range(len(middle_s)):
        shown_w = shown_w * passed + power_w[:, k] * (1 - passed)
        so_far_j[:, k + 1] = so_far_j[:, k] + shown_w * GRID_S
    return Shapes(so_far_j, whole_j, weight)


def find_hidden(
    ends: Sequence[EndSeen], hidden_s: float, prior: TailPrior, rise_s: float = 0.0
) -> Hidden:
    """Tell what a tail holds up to a time after the end.

    Args:
        ends: Every end with the same tail.
        hidden_s: Up to when, as the sensor's delay shows it.
        prior: What is known before.
        rise_s: The sensor's first-order rise.
    """
    known = shapes(round(rise_s * 1e3, 1))
    white_y, white_g = [np.zeros(0)], [np.zeros((0, len(known.weight)))]
    for end in ends:
        factor = np.linalg.cholesky(end.covariance)
        white_y.append(np.linalg.solve(factor, end.above_j))
        white_g.append(np.linalg.solve(factor, known.above_rest(end)))
    y, g = np.concatenate(white_y), np.concatenate(white_g)
    told, pulled = (g**2).sum(axis=0), g.T @ y
    laws = (
        (prior.energy_j / known.whole_j, max(prior.sigma_j, LEAST_DOUBT_J) / known.whole_j),
        (np.zeros(len(known.weight)), np.full(len(known.weight), LIKELY_SHARE * prior.step_w)),
    )
    found = [_amplitudes(told, pulled, mean, spread) for mean, spread in laws]
    log_odds = np.concatenate([one.log_evidence + np.log(known.weight) for one in found])
    odds = np.exp(log_odds - log_odds.max())
    odds /= odds.sum()
    hides = np.tile(known.until(np.array([hidden_s]))[0], 2)
    centre, sigma, mean = (np.concatenate([one[k] for one in found]) for k in range(3))
    energy_j = float(odds @ (hides * mean))
    rest = y - np.tile(g, 2) @ (odds * mean)
    further = float(odds[len(known.weight) :].sum())
    low_j, high_j = (_quantile(q, odds, hides * centre, hides * sigma) for q in (0.025, 0.975))
    misfit = float((rest**2).mean()) if len(rest) else 0.0
    # Shapes between ours leave more than noise (Birge, Phys. Rev. 40, 207, 1932).
    half_j = max(energy_j - low_j, high_j - energy_j) * sqrt(max(misfit, 1.0))
    return Hidden(energy_j, half_j / COVERAGE_FACTOR, further, misfit)


def _quantile(share: float, odds: Floats, centre_j: Floats, sigma_j: Floats) -> float:
    """Find below what a share of a mixture of normal laws lies that are cut at zero."""
    likely = odds > LEAST_ODDS
    odds, centre_j, sigma_j = odds[likely], centre_j[likely], np.maximum(sigma_j[likely], 1e-9)
    log_kept = _log_above(-centre_j / sigma_j)
    low_j, high_j = 0.0, float((np.maximum(centre_j, 0.0) + 6 * sigma_j).max())
    for _ in range(BISECTIONS):
        middle_j = (low_j + high_j) / 2
        above = float(odds @ np.exp(_log_above((middle_j - centre_j) / sigma_j) - log_kept))
        low_j, high_j = (middle_j, high_j) if above > 1 - share else (low_j, middle_j)
    return low_j


class _Amplitudes(NamedTuple):
    """Of every shape.

    Attributes:
        centre: Of the law before it is cut at zero, W.
        sigma: Its standard deviation.
        mean: Of the law as it is cut.
        log_evidence: How well the shape explains what was seen.
    """

    centre: Floats
    sigma: Floats
    mean: Floats
    log_evidence: Floats


def _amplitudes(told: Floats, pulled: Floats, mean: Floats, spread: Floats) -> _Amplitudes:
    """Update normal laws that are cut at zero; evidence is relative to an amplitude of zero."""
    precision = told + spread**-2.0
    centre = (pulled + mean / spread**2) / precision
    sigma = precision**-0.5
    mills = _mills(-centre / sigma)
    log_evidence = (
        0.5 * (centre**2 * precision - (mean / spread) ** 2)
        - 0.5 * np.log(precision * spread**2)
        + _log_above(-centre / sigma)
        - _log_above(-mean / spread)
    )
    return _Amplitudes(centre, sigma, centre + sigma * mills, log_evidence)


def _log_above(z: Floats) -> Floats:
    """Give the logarithm of the chance that a standard normal lies above each of some values."""
    far = np.maximum(z, FAR)  # beyond it, by the first term of the asymptotic series
    near = [log(erfc(x / sqrt(2)) / 2) for x in np.minimum(z, FAR).tolist()]
    return np.where(z > FAR, -far * far / 2 - np.log(far * sqrt(2 * pi)), near)


def _mills(z: Floats) -> Floats:
    """Give density ÷ chance above, of a standard normal."""
    return np.exp(-z * z / 2 - _log_above(z)) / sqrt(2 * pi)

"""Figures of configurations over cycles, and which of their differences are shown.

The unit is the cycle, a fresh process: requests of one run share its conditions. Everything here
is a function from data to data. Sources:

* interval of a mean with a part that repeats do not make smaller: JCGM 100:2008 (GUM), G.4;
* simultaneous intervals: Tukey's studentised range, and Kramer's form of it where cells are
  missing, which is conservative (Hayter, Annals of Statistics 12, 1984);
* several hundred configurations and more: Sidak's bound on Student's t, a little wider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import combinations
from math import exp, hypot, inf, log, pi, sqrt
from statistics import fmean, median
from typing import TYPE_CHECKING, NamedTuple

from llenergymeasure.domain.study_result import (
    Comparison,
    Figure,
    PlannedEffect,
    Sensitivity,
    Verdict,
)
from llenergymeasure.study.blocks import DRIFT_FREEDOM, BlockFit, Observation, fit

if TYPE_CHECKING:
    from llenergymeasure.study.blocks import Floats

LEVEL = 0.95
POWER = 0.8
LEAST_CYCLES = 3  # for an interval of a mean
ALL_PAIRS = 20  # configurations; pairs grow with the square, and nobody reads 190 of them
LARGEST_FAMILY = 200  # configurations up to which the studentised range has been checked
PLANNED_CYCLES = (3, 5, 10, 20)
ROUNDING = 1e-9  # relative; figures that are equal but for the arithmetic are equal
_LARGEST_LOG = 700.0  # of a ratio that a float holds, and its inverse
_NODES = 200  # of the quadratures of the studentised range
_WIDEST, _SURE = 9.0, 20.0  # standard deviations beyond which a normal value, a range does not lie
COVERAGE = 2.0  # of what is common, as in the interval of a single window


class Compared(NamedTuple):
    """What is said about the differences of one metric.

    Attributes:
        comparisons: Pairs; empty where nothing can be compared.
        sensitivity: How fine a difference could be shown, or ``None``.
        notes: Why something is not compared.
    """

    comparisons: tuple[Comparison, ...] = ()
    sensitivity: Sensitivity | None = None
    notes: tuple[str, ...] = ()


def figure(values: Sequence[float], common: Sequence[float | None] = ()) -> Figure:
    """Give the mean of one configuration over its cycles, with its interval.

    u = sqrt(s^2 / n + u_common^2). The random part of each window is in s already and is not
    added again; what is common to all windows does not shrink with n. Degrees of freedom by
    Welch and Satterthwaite.

    Args:
        values: One a cycle; at least one.
        common: Standard uncertainty of each that is common to all, or ``None`` where unknown.
    """
    import numpy as np

    n, mean = len(values), fmean(values)
    spread = float(np.std(values, ddof=1)) if n > 1 else None
    if spread is not None and spread <= ROUNDING * abs(mean):
        spread = 0.0
    known = [part for part in common if part is not None]
    shared = fmean(known) if known else None
    return Figure(
        mean=mean,
        interval95=_interval(mean, n, spread, shared or 0.0),
        n=n,
        standard_deviation=spread,
        cv=spread / mean if spread is not None and mean else None,
        common_standard=shared,
    )


def compare(metric: str, observations: Sequence[Observation], *, best_is_low: bool) -> Compared:
    """Compare configurations by randomised blocks on the log scale.

    All pairs of up to :data:`ALL_PAIRS` configurations; of more, each against the best. The
    intervals hold for all pairs at once, so it does no harm that the data chose the best. An
    uncertainty that is common to all windows enters only as far as its relative size differs
    between the two: it moves both the same way.

    Args:
        metric: Name of the figure.
        observations: One a result.
        best_is_low: Whether a low figure is the better one.
    """
    refused = {o.configuration for o in observations if o.value <= 0}
    kept = [o for o in observations if o.configuration not in refused]
    notes = tuple(
        f"configuration {one} has values that are not above 0 and is not compared"
        for one in sorted(refused)
    )
    if len({o.configuration for o in kept}) < 2:
        return Compared(notes=notes)
    fitted = fit(kept)
    if len(set(fitted.group.tolist())) > 1:
        notes += ("configurations that never share a cycle and a board are not compared",)
    pairs = list(_pairs(fitted, best_is_low))
    if pairs and fitted.freedom < 1:
        reason = "too few repeats to compare; at least two cycles are needed"
        return Compared(notes=(*notes, reason))
    sums: dict[int, list[float]] = {}
    for one in kept:
        sums.setdefault(one.configuration, []).append((one.common or 0.0) / one.value)
    common = {name: sum(parts) / len(parts) for name, parts in sums.items()}
    made = tuple(_comparison(metric, fitted, pair, common) for pair in pairs)
    noise_sd = median([fitted.noise_sd(*pair) for pair in pairs] or [0.0])
    return Compared(made, _sensitivity(metric, fitted, made, noise_sd), notes)


def minimum_detectable_ratio(noise_sd: float, configurations: int, cycles: int) -> float | None:
    """Give the true ratio of two configurations that a study shows in 80 % of repeats.

    A difference d on the log scale is shown when its estimate is over c * se, with c the critical
    value and se = noise_sd * sqrt(2 / cycles). The estimate and the residual are independent, so
    P(d + noise > c * se) = P(T > c - d / se), with T Student's t: 80 % at d = (c + t80) * se. That
    is exact for the se of the study that prints it, where the noise of all decides; a pair that
    is judged by its own, larger noise is shown a little more often.

    Args:
        noise_sd: Standard deviation of the noise of the logarithm.
        configurations: How many are compared.
        cycles: Cycles of each; nothing is missing.

    Returns:
        E.g. 1.04 for 4 %; ``None`` where there are too few cycles to compare.
    """
    degrees = (configurations - 1) * (cycles - 1)
    degrees -= degrees >= DRIFT_FREEDOM
    if degrees < 1:
        return None
    detectable = _detectable(configurations, degrees) * noise_sd * sqrt(2 / cycles)
    return _ratio(detectable)


@lru_cache(maxsize=256)
def critical_value(configurations: int, freedom: int) -> float:
    """Give how many standard errors a difference must exceed: q / sqrt 2 of Tukey.

    For two configurations that is Student's t; over :data:`LARGEST_FAMILY` Sidak's bound.
    """
    alone = _student((1 + LEVEL) / 2, freedom)
    if configurations == 2:
        return alone
    pairs = configurations * (configurations - 1) / 2
    bound = -_student((1 - LEVEL ** (1 / pairs)) / 2, freedom)
    if configurations > LARGEST_FAMILY:
        return bound

    # By the secant method. The tail is close to a power of the value, so logarithms are close to
    # a line.
    first, second = log(alone), log(bound)
    one, other = (_excess(value, configurations, freedom) for value in (first, second))
    while one != other and abs(second - first) > 1e-10:
        first, second = second, second - other * (second - first) / (other - one)
        one, other = other, _excess(second, configurations, freedom)
    return exp(second)


def _excess(logarithm: float, configurations: int, freedom: int) -> float:
    """Say how far a critical value, given by its logarithm, is from being the right one."""
    q = exp(logarithm) * sqrt(2)
    return log((1 - studentised_range(q, configurations, freedom)) / (1 - LEVEL))


@lru_cache(maxsize=256)
def _detectable(configurations: int, freedom: int) -> float:
    return critical_value(configurations, freedom) + _student(POWER, freedom)


@lru_cache(maxsize=4096)
def _student(probability: float, freedom: float) -> float:
    """Quantile of Student's t."""
    from scipy import special  # scipy.stats has it too, and takes seconds to import

    if freedom == inf:
        return float(special.ndtri(probability))
    return float(special.stdtrit(freedom, probability))


def studentised_range(q: float, k: int, freedom: int) -> float:
    """Give the probability that the range of k normal means is below q standard errors.

    The probability w(x) that the range itself is below x, over the distribution of the standard
    error s, a chi over the root of its freedom (Lund and Lund, Applied Statistics 32, 1983, AS 190)

        P(q) = integral of f(s) w(q s) ds
        w(x) = k integral of phi(z) [Phi(z) - Phi(z - x)]^(k-1) dz

    both by Gauss and Legendre over all but 1e-18 of either density.
    """
    import numpy as np
    from scipy import special

    half, (nodes, weights) = freedom / 2, _quadrature()
    least, most = special.gammaincinv(half, 1e-18), special.gammainccinv(half, 1e-18)
    low, high = q * sqrt(least / half), q * sqrt(most / half)
    sure = min(high, _SURE)  # from here on the range itself is below x
    x = low + (sure - low) * (nodes + 1) / 2
    s = x / q
    log_f = log(2) + half * log(half) - special.gammaln(half) + (freedom - 1) * np.log(s)
    f = np.exp(log_f - half * s**2)
    z = _WIDEST * nodes
    phi = np.exp(-(z**2) / 2) / sqrt(2 * pi)
    below = special.ndtr(z) - special.ndtr(z - x[:, None])  # (x, z)
    w = k * _WIDEST * below ** (k - 1) @ (weights * phi)
    rest = special.gammaincc(half, half * (sure / q) ** 2)
    return float((sure - low) / q * (weights * f) @ w / 2 + rest)


@cache
def _quadrature() -> tuple[Floats, Floats]:
    import numpy as np

    return np.polynomial.legendre.leggauss(_NODES)


def _interval(
    mean: float, n: int, spread: float | None, shared: float
) -> tuple[float, float] | None:
    if n < LEAST_CYCLES or spread is None:
        return None
    random = spread / sqrt(n)
    u = hypot(random, shared)
    freedom = (n - 1) * (u / random) ** 4 if random > ROUNDING * u else inf
    half = _student((1 + LEVEL) / 2, freedom) * u if u else 0.0
    return mean - half, mean + half


def _pairs(fitted: BlockFit, best_is_low: bool) -> Iterator[tuple[int, int]]:
    """Yield positions of pairs that blocks link."""
    for group in sorted(set(fitted.group.tolist())):
        members = [i for i, one in enumerate(fitted.group.tolist()) if one == group]
        if len(members) <= ALL_PAIRS:
            yield from combinations(members, 2)
            continue
        sign = 1 if best_is_low else -1
        best = min(members, key=lambda i: sign * fitted.effect[i])
        yield from ((i, best) for i in members if i != best)


def _comparison(
    metric: str, fitted: BlockFit, pair: tuple[int, int], common: Mapping[int, float]
) -> Comparison:
    family, freedom = len(fitted.configurations), fitted.freedom
    a, b = (fitted.configurations[i] for i in pair)
    apart = float(fitted.effect[pair[0]] - fitted.effect[pair[1]])
    error = fitted.standard_error(*pair)
    uncommon = COVERAGE * (common[a] - common[b])
    half = max(hypot(critical_value(family, freedom) * error, uncommon), ROUNDING)
    low, high = interval95 = _ratio(apart - half), _ratio(apart + half)
    verdict: Verdict = "higher" if low > 1 else "lower" if high < 1 else "no_difference_shown"
    return Comparison(
        metric=metric,
        a=a,
        b=b,
        ratio=_ratio(apart),
        interval95=interval95,
        verdict=verdict,
        minimum_detectable_ratio=_ratio(_detectable(family, freedom) * error),
    )


def _ratio(logarithm: float) -> float:
    return exp(max(-_LARGEST_LOG, min(logarithm, _LARGEST_LOG)))


def _sensitivity(
    metric: str, fitted: BlockFit, comparisons: Sequence[Comparison], noise_sd: float
) -> Sensitivity | None:
    if not comparisons:
        return None
    family = len(fitted.configurations)
    return Sensitivity(
        metric=metric,
        configurations=family,
        observations=int(fitted.counts.sum()),
        degrees_of_freedom=fitted.freedom,
        residual_sd=fitted.residual_sd,
        drift_per_slot=fitted.drift,
        minimum_detectable_ratio=median(one.minimum_detectable_ratio for one in comparisons),
        planned=tuple(
            PlannedEffect(
                n_cycles=n,
                minimum_detectable_ratio=minimum_detectable_ratio(noise_sd, family, n),
            )
            for n in PLANNED_CYCLES
        ),
    )

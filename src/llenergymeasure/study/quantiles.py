"""Quantiles behind intervals of differences and behind the effect that a study detects.

Of SciPy only ``scipy.special``: ``scipy.stats`` has most of this too, and takes seconds to import.
Sources:

* simultaneous intervals: Tukey's studentised range, and Kramer's form of it where cells are
  missing, which is conservative (Hayter, Annals of Statistics 12, 1984);
* several hundred configurations and more: Sidak's bound on Student's t, a little wider.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from math import ceil, exp, floor, inf, log, pi, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llenergymeasure.study.blocks import Floats

LEVEL = 0.95
POWER = 0.8
LARGEST_FAMILY = 200  # configurations up to which the studentised range has been checked
_NODES = 200  # of all quadratures
_LONGEST_STEP = 0.5
_WIDEST, _SURE = 9.0, 20.0  # standard deviations beyond which a normal value, a range does not lie


@lru_cache(maxsize=4096)
def student(probability: float, freedom: float) -> float:
    """Give a quantile of Student's t."""
    from scipy import special

    if freedom == inf:
        return float(special.ndtri(probability))
    return float(special.stdtrit(freedom, probability))


def critical_value(configurations: int, freedom: float) -> float:
    """Give how many standard errors a difference must exceed: q / sqrt 2 of Tukey.

    For two configurations that is Student's t; over :data:`LARGEST_FAMILY` Sidak's bound. Between
    whole degrees of freedom its logarithm is taken as a line over their inverse.

    Args:
        configurations: How many are compared.
        freedom: Degrees of freedom of the standard error, at least 1.
    """
    below, above = floor(freedom), ceil(freedom)
    one = _whole_critical_value(configurations, below)
    if below == above:
        return one
    share = (1 - below / freedom) / (1 - below / above)
    return float(one * (_whole_critical_value(configurations, above) / one) ** share)


@lru_cache(maxsize=256)
def _whole_critical_value(configurations: int, freedom: int) -> float:
    alone = student((1 + LEVEL) / 2, freedom)
    if configurations == 2:
        return alone
    pairs = configurations * (configurations - 1) / 2
    bound = -student((1 - LEVEL ** (1 / pairs)) / 2, freedom)
    if configurations > LARGEST_FAMILY:
        return bound

    def excess(logarithm: float) -> float:
        inside = studentised_range(exp(logarithm) * sqrt(2), configurations, freedom)
        return log((1 - inside) / (1 - LEVEL))

    return exp(_root(excess, log(alone), log(bound)))


@lru_cache(maxsize=256)
def detectable(configurations: int, freedom: int, next_freedom: int) -> float:
    """Give how many standard errors a difference has that the next study shows in 80 % of cases.

    Neither study knows the standard error E: one estimates it as s, and the next as s', by which
    it judges. With c the critical value and z normal, the next shows a difference of m s where
    m s + E z > c s', so the m that is sought has

        mean over s and s' of Phi((m s - c s') / E) = 80 %

    where s / E and s' / E are chi over the root of their freedom. With all of s known that is
    c + t80, which holds for the study that makes the estimate and for no other.

    Args:
        configurations: How many are compared.
        freedom: Degrees of freedom of the standard error that is multiplied.
        next_freedom: Those of the next study's.
    """
    from scipy import special

    critical, weights = critical_value(configurations, next_freedom), _quadrature()[1] / 2
    known, coming = _chi(freedom), critical * _chi(next_freedom)

    def excess(logarithm: float) -> float:
        shown = weights @ special.ndtr(exp(logarithm) * known[:, None] - coming) @ weights
        return log((1 - shown) / (1 - POWER))

    first = log(critical + student(POWER, next_freedom))
    return exp(_root(excess, first, first + 0.1))


def _chi(freedom: int) -> Floats:
    """Give a standard error that is estimated, over the true one, at even steps of probability."""
    import numpy as np
    from scipy import special

    half = freedom / 2
    square = special.gammaincinv(half, (_quadrature()[0] + 1) / 2) / half
    return np.asarray(np.sqrt(square), np.float64)


def _root(excess: Callable[[float], float], first: float, second: float) -> float:
    """Find where something is 0 by the secant method.

    The tails in question are close to a power of the value, so with logarithms of both it is close
    to a line. Where it is not, a step is bounded: far out nothing is left of a tail.
    """
    one, other = excess(first), excess(second)
    while one != other and abs(second - first) > 1e-10:
        step = -other * (second - first) / (other - one)
        first, second = second, second + max(-_LONGEST_STEP, min(step, _LONGEST_STEP))
        one, other = other, excess(second)
    return second


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
    """Give nodes in (-1, 1) and weights of Gauss and Legendre."""
    import numpy as np

    return np.polynomial.legendre.leggauss(_NODES)

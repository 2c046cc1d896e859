"""Figures of configurations over cycles, and which of their differences are shown.

The unit is the cycle, a fresh process: requests of one run share its conditions. Everything here
is a function from data to data. Sources:

* interval of a mean with a part that repeats do not make smaller: JCGM 100:2008 (GUM), G.4;
* simultaneous intervals: ``study/quantiles.py``; the noise they rest on: ``study/blocks.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import exp, hypot, inf, sqrt
from statistics import fmean, median
from typing import NamedTuple

from llenergymeasure.domain.study_result import (
    Comparison,
    Figure,
    PlannedEffect,
    Sensitivity,
    Verdict,
)
from llenergymeasure.study.blocks import BlockFit, Noise, Observation, fit, usual_freedom
from llenergymeasure.study.quantiles import LEVEL, critical_value, detectable, student

LEAST_CYCLES = 3  # for an interval of a mean
ALL_PAIRS = 20  # configurations; pairs grow with the square, and nobody reads 190 of them
PLANNED_CYCLES = (3, 5, 10, 20)
ROUNDING = 1e-9  # relative; figures that are equal but for the arithmetic are equal
_LARGEST_LOG = 700.0  # of a ratio that a float holds, and its inverse
COVERAGE = 2.0  # of what is common, as in the interval of a single window
WIDENED = 1.25  # times as wide, from where it is said that drift makes intervals wide
_Pair = tuple[int, int]


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
    wide = median([fitted.widening(*pair) for pair in pairs] or [1.0])
    if wide > WIDENED:
        notes += (
            "the order of running hardly tells drift from configurations, which makes intervals "
            f"{wide:.1f} times as wide; more cycles tell it",
        )
    sums: dict[int, list[float]] = {}
    for one in kept:
        sums.setdefault(one.configuration, []).append((one.common or 0.0) / one.value)
    common = {name: sum(parts) / len(parts) for name, parts in sums.items()}
    errors = {pair: fitted.error(*pair) for pair in pairs}
    made = tuple(_comparison(metric, fitted, *one, common) for one in errors.items())
    return Compared(made, _sensitivity(metric, fitted, errors), notes)


def minimum_detectable_ratio(noise: Noise, configurations: int, cycles: int) -> float | None:
    """Give the true ratio of two configurations that a study to come shows in 80 % of cases.

    Where the noise of all decides. A pair that is noisier than most needs a larger one.

    Args:
        noise: Of the logarithm, as a study has estimated it, with its degrees of freedom.
        configurations: How many are compared.
        cycles: Cycles of each; nothing is missing.

    Returns:
        E.g. 1.04 for 4 %; ``None`` where there are too few cycles to compare.
    """
    coming = usual_freedom(configurations, cycles)
    if coming < 1:
        return None
    times = detectable(configurations, int(noise.freedom), coming)
    return ratio_of(times * noise.sd * sqrt(2 / cycles))


def _interval(
    mean: float, n: int, spread: float | None, shared: float
) -> tuple[float, float] | None:
    if n < LEAST_CYCLES or spread is None:
        return None
    random = spread / sqrt(n)
    u = hypot(random, shared)
    freedom = (n - 1) * (u / random) ** 4 if random > ROUNDING * u else inf
    half = student((1 + LEVEL) / 2, freedom) * u if u else 0.0
    return mean - half, mean + half


def _pairs(fitted: BlockFit, best_is_low: bool) -> Iterator[_Pair]:
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
    metric: str, fitted: BlockFit, pair: _Pair, error: Noise, common: Mapping[int, float]
) -> Comparison:
    family, freedom = len(fitted.configurations), error.freedom
    a, b = (fitted.configurations[i] for i in pair)
    apart = float(fitted.effect[pair[0]] - fitted.effect[pair[1]])
    uncommon = COVERAGE * (common[a] - common[b])
    half = max(hypot(critical_value(family, freedom) * error.sd, uncommon), ROUNDING)
    low, high = interval95 = ratio_of(apart - half), ratio_of(apart + half)
    verdict: Verdict = "higher" if low > 1 else "lower" if high < 1 else "no_difference_shown"
    return Comparison(
        metric=metric,
        a=a,
        b=b,
        ratio=ratio_of(apart),
        interval95=interval95,
        verdict=verdict,
        minimum_detectable_ratio=ratio_of(
            detectable(family, int(freedom), int(freedom)) * error.sd
        ),
    )


def ratio_of(logarithm: float) -> float:
    """Give the ratio of a logarithm, within what a float holds."""
    return exp(max(-_LARGEST_LOG, min(logarithm, _LARGEST_LOG)))


def _sensitivity(
    metric: str, fitted: BlockFit, errors: Mapping[_Pair, Noise]
) -> Sensitivity | None:
    if not errors:
        return None
    family = len(fitted.configurations)
    usual = Noise(median(fitted.noise(*pair).sd for pair in errors), fitted.freedom)
    coming = int(median(one.freedom for one in errors.values()))
    error = median(one.sd for one in errors.values())
    return Sensitivity(
        metric=metric,
        configurations=family,
        observations=int(fitted.counts.sum()),
        degrees_of_freedom=fitted.freedom,
        residual_sd=fitted.residual_sd,
        drift_per_slot=fitted.drift,
        minimum_detectable_ratio=ratio_of(detectable(family, fitted.freedom, coming) * error),
        planned=tuple(
            PlannedEffect(
                n_cycles=n,
                minimum_detectable_ratio=minimum_detectable_ratio(usual, family, n),
            )
            for n in PLANNED_CYCLES
        ),
    )

"""Runs that stand far from what everything else says of them.

One bad run, which a background job has slowed down say, makes a study blind: it counts as noise,
and no difference is as large as that. So it is named, for somebody to look at it and run it again.
It stays in until then: what stands apart is not wrong for that.

The test is the residual over its standard deviation, the latter estimated without the run itself,
against Bonferroni's bound for all that are looked at (Cook and Weisberg, Residuals and Influence in
Regression, 1982, 2.2.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import expm1, sqrt
from typing import NamedTuple, Self

from llenergymeasure.domain.results import TrustVerdict
from llenergymeasure.domain.study_result import Metric, Note
from llenergymeasure.study.blocks import BlockFit, Observation, fit
from llenergymeasure.study.quantiles import student

CHANCE = 0.05  # of naming a run of a study in which none stands apart, at most
MOST = 3  # of one metric; where more stand apart it is the noise that is not as it should be
LEAST_NOISE = 1e-3  # of a logarithm; what is rounded varies less, and its steps are no bad runs
_TIED = 1e-6  # relative
_MOST_LOOKED_AT = 8


class Located(NamedTuple):
    """Where a run belongs, and what it says of itself.

    Attributes:
        slot: Its place in the order of running, from 1.
        configuration: Number of its configuration.
        cycle: Its cycle, from 1.
        trust: Its verdict, with the codes of its reasons.
    """

    slot: int
    configuration: int
    cycle: int
    trust: str

    @classmethod
    def of(cls, slot: int, configuration: int, cycle: int, trust: TrustVerdict) -> Self:
        """Take the verdict from a result, with the reasons that decide it."""
        codes = [reason.code for reason in trust.reasons if reason.level == trust.verdict]
        said = f"{trust.verdict} ({', '.join(codes)})" if codes else trust.verdict
        return cls(slot, configuration, cycle, said)


class Outlier(NamedTuple):
    """One run that stands apart, or some of which one does and it cannot be told which.

    Two configurations, or two cycles, say only that two runs do not go together.

    Attributes:
        runs: Their positions among the observations.
        apart: Logarithm of each over what all others say of it.
    """

    runs: tuple[int, ...]
    apart: tuple[float, ...]


def outlying(observations: Sequence[Observation], metrics: int = 1) -> Iterator[Outlier]:
    """Give the runs that stand apart in one metric, the farthest first.

    Args:
        observations: One a result, of values above 0.
        metrics: How many metrics of the study are looked at, which share the chance of an error.
    """
    left = list(range(len(observations)))
    for _ in range(MOST):
        found = _farthest([observations[place] for place in left], metrics)
        if found is None:
            return
        runs = tuple(left[place] for place in found.runs)
        yield Outlier(runs, found.apart)
        left = [place for place in left if place not in runs]


def _farthest(observations: Sequence[Observation], metrics: int) -> Outlier | None:
    import numpy as np

    if not observations:
        return None
    fitted = fit(observations)
    rest = fitted.freedom - 1
    tested = fitted.free > _TIED
    if rest < 1 or not tested.any():
        return None
    # What a run adds to the sum of squares is all that it takes from it when it is left out.
    added = np.where(tested, fitted.residual**2 / np.where(tested, fitted.free, 1), 0)
    without = (fitted.residual_sd**2 * fitted.freedom - added) / rest
    distance = np.sqrt(added / np.maximum(without, LEAST_NOISE**2))
    bound = -student(CHANCE / metrics / int(tested.sum()) / 2, rest)
    if distance.max() <= bound:
        return None
    runs = np.flatnonzero(distance > (1 - _TIED) * distance.max()).tolist()
    if len(runs) == 1 and not _beyond_its_own(observations, runs[0], fitted):
        return None
    apart = (fitted.residual[runs] / fitted.free[runs]).tolist()
    return Outlier(tuple(runs), tuple(apart))


def _beyond_its_own(observations: Sequence[Observation], run: int, fitted: BlockFit) -> bool:
    """Tell whether a run is too far off for its configuration too, which may be a noisy one.

    It is held against the noise of the other runs of its configuration, by the bound for the
    farthest run of one configuration among all; of so many at most that three cycles can tell one.
    """
    configuration = observations[run].configuration
    others = fit([one for place, one in enumerate(observations) if place != run])
    if configuration not in others.configurations:
        return True
    noise = others.alone(others.configurations.index(configuration))
    distance = abs(fitted.residual[run]) / sqrt(fitted.free[run]) / max(noise.sd, LEAST_NOISE)
    looked_at = min(len(fitted.configurations), _MOST_LOOKED_AT)
    return bool(distance > -student(CHANCE / looked_at / 2, noise.freedom))


def outlier_notes(
    observed: Mapping[Metric, Sequence[tuple[Located, Observation]]], resume: str, cycles: int
) -> Iterator[Note]:
    """Name the runs that stand apart, each once for all metrics, with the line that mends it.

    Args:
        observed: What is known of each metric.
        resume: The command that goes on with the study.
        cycles: Cycles that the study has.
    """
    found: dict[tuple[Located, ...], dict[Metric, Outlier]] = {}
    for metric, rows in observed.items():
        above = [row for row in rows if row[1].value > 0]
        for one in outlying([observation for _, observation in above], len(observed)):
            runs = tuple(above[place][0] for place in one.runs)
            found.setdefault(runs, {})[metric] = one
    for runs, sizes in found.items():
        told = " or ".join(
            f"slot {run.slot} (#{run.configuration}, cycle {run.cycle}; its verdict: {run.trust}), "
            + ", ".join(f"{metric.title} {_size(one.apart[n])}" for metric, one in sizes.items())
            for n, run in enumerate(runs)
        )
        again = " ".join(f"--again {run.slot}" for run in runs)
        do, remedy = "measured again, with the old result kept, by", f"{resume} {again}"
        if len({run.cycle for run in runs}) > 1:
            do, remedy = "which of them, another cycle tells:", f"{resume} --cycles {cycles + 1}"
        yield Note(
            kind="outlier",
            text=f"one run stands far out, which hides differences: {told}; {do}",
            about=tuple(metric.name for metric in sizes),
            remedy=remedy,
        )


def _size(apart: float) -> str:
    percent = 100 * expm1(apart)
    return f"{percent:+,.{0 if abs(percent) >= 10 else 1}f} %"

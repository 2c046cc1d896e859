"""Simulated pairs of studies with a known change, judged by the package's own gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llenergymeasure.domain.study_result import ENERGY_PER_TOKEN
from llenergymeasure.study.comparing import Change, change_of
from llenergymeasure.study.gate import (
    EXIT_CODES,
    Margin,
    Verdict,
    deciding_cycles,
    verdict_of,
    worst_of,
)
from llenergymeasure.study.statistics import figure


def drawn_change(
    rng: np.random.Generator, ratio: float, cycles: tuple[int, int], noise: tuple[float, float]
) -> Change:
    """Draw two studies of one configuration, lognormal from cycle to cycle.

    Args:
        rng: Where chance comes from.
        ratio: True ratio now / base.
        cycles: Of the base and of the study that is judged.
        noise: Standard deviations of the logarithm, in the same order.
    """
    base, now = (
        figure((mean * np.exp(rng.normal(0.0, sd, n))).tolist())
        for mean, n, sd in zip((1.0, ratio), cycles, noise, strict=True)
    )
    return change_of(ENERGY_PER_TOKEN, base, now)


class Studies(NamedTuple):
    """How studies are run.

    Attributes:
        cycles: Of the base and of the study that is judged.
        noise: Standard deviations of the logarithm, in the same order.
        pairs: How many of both are drawn.
    """

    cycles: tuple[int, int]
    noise: tuple[float, float]
    pairs: int


def verdicts(
    rng: np.random.Generator, ratios: Sequence[float], share: float, studies: Studies
) -> dict[Verdict, float]:
    """Give the share of studies with each verdict of a gate over several configurations.

    Args:
        rng: Where chance comes from.
        ratios: True ratio of each configuration.
        share: The limit.
        studies: How they are run.
    """
    margin, found = Margin(ENERGY_PER_TOKEN, share), Counter[Verdict]()
    for _ in range(studies.pairs):
        each = {
            verdict_of(drawn_change(rng, ratio, studies.cycles, studies.noise), margin, len(ratios))
            for ratio in ratios
        }
        found[worst_of(each)] += 1
    return {name: found[name] / studies.pairs for name in EXIT_CODES}


def decided_as_said(
    rng: np.random.Generator, ratio: float, share: float, studies: Studies
) -> tuple[int, float, float]:
    """Follow what inconclusive studies say: run as many cycles, and see whether they decide.

    The change of the next study is the one that the first estimated, as the sentence has it; its
    noise is the true one.

    Returns:
        Inconclusive studies that name a number, the median of it, and the share of next studies
        that are decided.
    """
    margin = Margin(ENERGY_PER_TOKEN, share)
    named, decided = list[int](), 0
    for _ in range(studies.pairs):
        change = drawn_change(rng, ratio, studies.cycles, studies.noise)
        if verdict_of(change, margin) != "inconclusive":
            continue
        if (more := deciding_cycles(change, margin)) is None:
            continue
        named.append(more)
        after = drawn_change(rng, change.ratio, (more, more), studies.noise)
        decided += verdict_of(after, margin) != "inconclusive"
    return len(named), float(np.median(named or [0])), decided / max(len(named), 1)

"""Has it become worse? Pass, fail or inconclusive, against an earlier study and stated limits.

Pass is said of what is *shown* to be within a limit, and fail of what is shown to be beyond it, by
the 95 % interval of the change; what is neither is inconclusive. Everything has to pass for a
pass, so no interval need be wider for that (intersection-union, Berger, Technometrics 24, 1982);
one is enough for a fail, so there all intervals hold together.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from math import hypot, log1p, sqrt
from typing import Literal, NamedTuple

from llenergymeasure.config.plain_words import shown
from llenergymeasure.domain.results import StudyResult
from llenergymeasure.domain.study_result import (
    ENERGY_PER_TOKEN,
    FIGURES,
    MEMORY,
    THROUGHPUT,
    TPOT,
    TTFT,
    Metric,
)
from llenergymeasure.exceptions import FlagError
from llenergymeasure.study.comparing import Change, Pair, StudyComparison, compare
from llenergymeasure.study.quantiles import LEVEL, detectable, student

Verdict = Literal["pass", "fail", "inconclusive"]

EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "inconclusive": 3}
WORST_FIRST: tuple[Verdict, ...] = ("fail", "inconclusive", "pass")
MOST_CYCLES = 1000
SHORT_NAMES = {
    "energy": ENERGY_PER_TOKEN,
    "energy_per_output_token": ENERGY_PER_TOKEN,
    "throughput": THROUGHPUT,
    "ttft": TTFT,
    "tpot": TPOT,
    "memory": MEMORY,
}
"""What figures may be called besides their own names."""


class Margin(NamedTuple):
    """By how much a figure may be worse.

    Attributes:
        metric: Which figure.
        share: Of the earlier value, e.g. 0.05; a loss where a high figure is the better one.
    """

    metric: Metric
    share: float

    @property
    def logarithm(self) -> float:
        """The largest logarithm of worse / earlier that is within."""
        return log1p(self.share) if self.metric.best_is_low else -log1p(-self.share)


class Judgement(NamedTuple):
    """What is said of one figure of one configuration.

    Attributes:
        margin: The limit.
        pair: The configuration.
        change: How the figure has changed; ``None`` where a side lacks it.
        verdict: What that says.
        cycles: How many in each study would decide in 4 of 5 cases, were the change as estimated;
            ``None`` where it is decided, and where no number up to 1,000 would do.
    """

    margin: Margin
    pair: Pair
    change: Change | None
    verdict: Verdict
    cycles: int | None = None


class Gate(NamedTuple):
    """What a gate says.

    Attributes:
        comparison: The two studies side by side.
        judgements: One a limit and configuration.
        verdict: fail where one fails; pass where all pass and no configuration is missing.
    """

    comparison: StudyComparison
    judgements: tuple[Judgement, ...]
    verdict: Verdict

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return EXIT_CODES[self.verdict]


def margin_of(text: str) -> Margin:
    """Read a limit such as ``energy=5%``.

    Raises:
        FlagError: It names no figure, or no percentage above 0.
    """
    name, _, size = (part.strip() for part in text.partition("="))
    metric = SHORT_NAMES.get(name) or FIGURES.get(name)
    if metric is None:
        known = [*SHORT_NAMES, *FIGURES]
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise FlagError(f"{shown(name)} is no figure of a result; {hint}", where="--limit")
    share = _share(size, name)
    if not metric.best_is_low and share >= 1:
        raise FlagError(f"{name} cannot lose {size}: give less than 100%", where="--limit")
    return Margin(metric, share)


def _share(size: str, name: str) -> float:
    try:
        number = float(size.removesuffix("%"))
    except ValueError:
        raise FlagError(
            f"{shown(f'{name}={size}')} states no limit; write {name}=5%", where="--limit"
        ) from None
    if not size.endswith("%"):
        raise FlagError(
            f"{name}={size} has no unit; write {name}={size}%, the percentage by which it may be "
            "worse than the base",
            where="--limit",
        )
    if not 0 < number <= 10_000:
        raise FlagError(f"{name}={size}: give more than 0% and at most 10000%", where="--limit")
    return number / 100


def gate(base: StudyResult, now: StudyResult, margins: Sequence[Margin]) -> Gate:
    """Judge a study against an earlier one.

    Args:
        base: The earlier study.
        now: The study that is judged.
        margins: By how much figures may be worse; one at least.

    Raises:
        FlagError: The studies ran on other machines, did other work or define figures otherwise;
            or no configuration, or a figure that is limited, is in both.
    """
    comparison = compare(base, now)
    _refuse(comparison)
    for margin in margins:
        if not any(margin.metric.name in pair.changes for pair in comparison.pairs):
            raise FlagError(
                f"no configuration has {margin.metric.name} above 0 in both studies",
                where="--limit",
            )
    judgements = tuple(_judged(comparison.pairs, margins))
    verdicts = {one.verdict for one in judgements}
    if comparison.only_base:  # it may be missing because it broke
        verdicts.add("inconclusive")
    return Gate(comparison, judgements, worst_of(verdicts))


def worst_of(verdicts: Collection[Verdict]) -> Verdict:
    """Give what several verdicts come to: one fail is a fail, and only all that pass are a pass."""
    return next(one for one in WORST_FIRST if one in verdicts)


def _refuse(comparison: StudyComparison) -> None:
    """Refuse what says nothing about better or worse."""
    if not comparison.pairs:
        raise FlagError("the studies have no configuration in common", where="--against")
    other = [one for one in comparison.differences if one.kind != "version"]
    if other:
        listed = "\n".join(
            f"  - {one.name}: {one.base} in the base, {one.now} now" for one in other
        )
        raise FlagError(
            f"these studies cannot be judged against each other:\n{listed}\n"
            "Measure the base again as this study was measured; llem report shows both side by "
            "side without --limit",
            where="--against",
        )


def _judged(pairs: Sequence[Pair], margins: Sequence[Margin]) -> Iterator[Judgement]:
    family = len(pairs) * len(margins)
    for margin in margins:
        for pair in pairs:
            change = pair.changes.get(margin.metric.name)
            if change is None:
                yield Judgement(margin, pair, None, "inconclusive")
                continue
            verdict = verdict_of(change, margin, family)
            cycles = deciding_cycles(change, margin, family) if verdict == "inconclusive" else None
            yield Judgement(margin, pair, change, verdict, cycles)


def _beyond(change: Change, margin: Margin) -> float:
    """Give how far the estimate lies beyond the limit, of the logarithm; negative within."""
    worse = change.logarithm if margin.metric.best_is_low else -change.logarithm
    return worse - margin.logarithm


def verdict_of(change: Change, margin: Margin, family: int = 1) -> Verdict:
    """Judge one change.

    Args:
        change: The change.
        margin: The limit.
        family: How many changes may fail the gate.
    """
    beyond, own, together = _beyond(change, margin), change.half_width(), change.half_width(family)
    if own is None or together is None:
        return "inconclusive"
    if beyond + own <= 0:
        return "pass"
    return "fail" if beyond - together > 0 else "inconclusive"


def deciding_cycles(change: Change, margin: Margin, family: int = 1) -> int | None:
    """Give how many cycles of each study decide in 4 of 5 cases, if the change is as estimated.

    The noise is as uncertain as two studies leave it; see ``quantiles.detectable``.

    Args:
        change: The change.
        margin: The limit.
        family: How many changes may fail the gate.

    Returns:
        Cycles in each study, more than there are; ``None`` where up to 1,000 would not do.
    """
    if change.noise is None or change.base.cv is None or change.now.cv is None:
        return None
    beyond = _beyond(change, margin)
    judged = family if beyond > 0 else 1
    one_run = hypot(change.base.cv, change.now.cv)
    known = max(int(change.noise.freedom), 1)

    def decides(cycles: int) -> bool:
        coming = 2 * (cycles - 1)
        wider = student((1 - LEVEL) / (2 * judged), coming) / student((1 - LEVEL) / 2, coming)
        needed = detectable(2, known, coming) * wider * one_run / sqrt(cycles)
        return hypot(needed, change.uncommon) <= abs(beyond)

    more = range(max(change.base.n, change.now.n) + 1, MOST_CYCLES + 1)
    place = bisect_left(more, True, key=decides)
    return more[place] if place < len(more) else None

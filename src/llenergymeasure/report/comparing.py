"""Two studies side by side, and what a gate says of them, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llenergymeasure.config.plain_words import shown
from llenergymeasure.domain.results import ConfigurationResult
from llenergymeasure.domain.study_result import METRICS
from llenergymeasure.report.format import change as change_text
from llenergymeasure.report.format import count, cut, is_factor
from llenergymeasure.study.comparing import Change, Difference, StudyComparison
from llenergymeasure.study.gate import MOST_CYCLES, WORST_FIRST, Gate, Judgement

_WIDEST_VALUE = 34
_MOST = 20
_VERDICTS = {
    "pass": "PASS: every limit is shown to be kept",
    "fail": "FAIL: a limit is shown to be exceeded",
    "inconclusive": "INCONCLUSIVE: neither kept nor exceeded is shown",
}


def comparison_lines(comparison: StudyComparison, width: int = 80) -> Iterator[str]:
    """Say what is not the same, then how the compared figures have changed.

    Args:
        comparison: Two studies.
        width: Columns there are.
    """
    yield from _different(comparison, width)
    family = len(comparison.pairs)
    for metric in METRICS:
        rows = [
            (pair.now, pair.changes[metric.name])
            for pair in comparison.pairs
            if metric.name in pair.changes
        ]
        if rows:
            yield ""
            yield f"{metric.title}, now / base"
            yield from _some(f"  #{now.id} {_told(one, family)}  {now.label}" for now, one in rows)
    if family:
        together = " that hold for all configurations of a figure together" if family > 1 else ""
        yield ""
        yield f"In brackets 95 % intervals over the cycles of both studies{together}."


def gate_lines(gate: Gate, width: int = 80) -> Iterator[str]:
    """Say what is not the same, then what the gate says of each figure, and the verdict last.

    Args:
        gate: What it found.
        width: Columns there are.
    """
    yield from _different(gate.comparison, width)
    yield ""
    worst_first = sorted(gate.judgements, key=lambda one: WORST_FIRST.index(one.verdict))
    yield from _some(_judgement(one) for one in worst_first)
    yield ""
    yield _VERDICTS[gate.verdict] + _deciding(gate.judgements)


def _different(comparison: StudyComparison, width: int) -> Iterator[str]:
    for one in comparison.differences:
        yield cut(f"{one.kind} differs: {_both(one)}", max(width, 2 * _WIDEST_VALUE))
    if any(one.kind in {"machine", "definition"} for one in comparison.differences):
        yield "Not pooled: a ratio below is of two machines or of two definitions."
    if comparison.only_base:
        yield f"only in the base: {_named(comparison.only_base)}"
    if comparison.only_now:
        yield f"only now: {_named(comparison.only_now)}"
    if not comparison.differences:
        yield "Same configurations, machine, versions and inputs, as far as both tell them."


def _both(one: Difference) -> str:
    base, now = (shown(value, _WIDEST_VALUE) for value in (one.base, one.now))
    return f"{one.name}: {base} in the base, {now} now"


def _named(missing: Sequence[ConfigurationResult]) -> str:
    named = ", ".join(f"#{one.id} {one.label}" for one in missing[:_MOST])
    return named if len(missing) <= _MOST else f"{named} and {len(missing) - _MOST} more"


def _some(lines: Iterable[str]) -> Iterator[str]:
    rows = list(lines)
    yield from rows[:_MOST]
    if len(rows) > _MOST:
        yield f"  and {len(rows) - _MOST} more"


def _told(change: Change, family: int = 1) -> str:
    interval = change.interval95(family)
    if interval is None:
        both = change_text(change.ratio, change.ratio, change.ratio, factor=False)
        return f"{both.split(' (')[0]} (one run, no interval)"
    factor = is_factor(change.ratio, *interval)
    return change_text(change.ratio, *interval, factor=factor)


def _judgement(one: Judgement) -> str:
    metric, label = one.margin.metric, f"#{one.pair.now.id} {one.pair.now.label}"
    sign = "+" if metric.best_is_low else "-"
    limit = f"limit {sign}{100 * one.margin.share:g} %"
    if one.change is None:
        return f"{one.verdict:12} {label}: {metric.title} is not known in both, {limit}"
    return f"{one.verdict:12} {label}: {metric.title} {_told(one.change)}, {limit}{_more(one)}"


def _more(one: Judgement) -> str:
    if one.verdict != "inconclusive" or one.change is None:
        return ""
    if one.change.noise is None:
        return "; one run has no interval, measure at least 3 cycles in each study"
    if one.cycles is None:
        return f"; not even {MOST_CYCLES:,} cycles would decide"
    return f"; {count(one.cycles, 'cycle')} in each study would decide"


def _deciding(judgements: Sequence[Judgement]) -> str:
    cycles = [one.cycles for one in judgements if one.cycles is not None]
    if not cycles:
        return ""
    return (
        f"; if changes are as estimated, {count(max(cycles), 'cycle')} in each study "
        "would decide each in 4 of 5 cases"
    )

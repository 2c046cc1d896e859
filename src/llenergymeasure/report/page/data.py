"""What the pictures of a page are drawn from: the figures as they are stored.

Numbers are rounded to seven digits, far below what any interval resolves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llenergymeasure.config.settings_words import described
from llenergymeasure.domain.study_result import (
    ENERGY_PER_TOKEN,
    FIGURES,
    METRICS,
    THROUGHPUT,
    TPOT,
    Comparison,
    ConfigurationResult,
    Figure,
    StudyResult,
)
from llenergymeasure.report import format as fmt
from llenergymeasure.report.page import specs
from llenergymeasure.report.study import reference_of

SPEEDS = ("tpot_ms.p90", "tpot_ms.p95", "tpot_ms.p50", TPOT.name)
"""Figures whose inverse is the speed a user sees, the one to draw first."""

LOADS = ("batch_size", "max_num_seqs", "max_batch_size", "max_concurrency", "request_rate")
"""Last parts of the names of settings along which a line is drawn."""

_DIGITS = 7
_MOST_SERIES = 8  # colours that can be told apart
_MOST_COMPARED = 100  # configurations of which the page carries every figure


def of_study(study: StudyResult) -> dict[str, Any] | None:
    """Give what the pictures of a study need, or ``None`` where there are no two points.

    Columns, one entry a configuration in the order of the study: what is not known is ``null``.
    """
    rows = study.configurations
    told = {name for one in rows for name in one.figures}
    speed = next((name for name in SPEEDS if name in told), None)
    cost = ENERGY_PER_TOKEN.name if ENERGY_PER_TOKEN.name in told else THROUGHPUT.name
    if len(rows) < 2 or cost not in told:
        return None
    names = [f"#{one.id}" for one in rows]
    series, values = lines([one.settings for one in rows])
    distinct = list(dict.fromkeys(series))
    best = dominated(study.comparisons, cost)
    across = THROUGHPUT.name if speed is None else speed
    compared = [one for one in differences(study) if len(rows) <= _MOST_COMPARED or one["ranked"]]
    few = {across, *(metric.name for metric in METRICS)}
    carried = told if len(rows) <= _MOST_COMPARED else told & few
    plane = {"x": across, "y": cost, "inverse": speed is not None}
    layers = [] if all(one is None for one in values) else ["line"]
    for layer, name in (("across", across), ("up", cost)):
        figures = [one.figures[name] for one in rows if name in one.figures]
        layers += [layer] if any(one.interval95 is not None for one in figures) else []
    coloured = 1 < len(distinct) <= _MOST_SERIES
    return {
        "names": names,
        "labels": [one.label for one in rows],
        "series": [distinct.index(one) for one in series],
        "seriesNames": distinct,
        "order": values,
        "trust": [list(one.trust) for one in rows],
        "dominated": [best.get(one.id) for one in rows],
        "figures": {name: _column(rows, name) for name in FIGURES if name in carried},
        "differences": compared,
        "plane": plane,
        "specs": {
            "plane": specs.plane(across, cost, distinct if coloured else (), len(rows), layers),
            "percent": specs.differences(factor=False),
            "factor": specs.differences(factor=True),
        },
    }


def lines(settings: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[float | None]]:
    """Part configurations into lines over batch or load.

    Args:
        settings: Those in which the configurations differ, of each.

    Returns:
        The line of each, by what else its configuration is; and its place on the line, ``None``
        where nothing that loads an engine varies.
    """
    names = dict.fromkeys(name for one in settings for name in one)
    along = next((n for last in LOADS for n in names if n.rpartition(".")[2] == last), None)
    if along is None:
        return [described(one) for one in settings], [None] * len(settings)
    rest = [described({k: v for k, v in one.items() if k != along}) for one in settings]
    places = [one.get(along) for one in settings]
    return rest, [one if isinstance(one, int | float) else None for one in places]


def dominated(comparisons: Iterable[Comparison], cost: str) -> dict[int, str]:
    """Say of configurations which other is shown to be better both ways, by paired intervals.

    Args:
        comparisons: All of the study.
        cost: The figure that is drawn against speed; the other is the median TPOT.
    """
    wins: dict[str, set[tuple[int, int]]] = {cost: set(), TPOT.name: set()}
    for one in comparisons:
        if one.metric not in wins or one.verdict == "no_difference_shown":
            continue
        first_wins = (one.verdict == "lower") == FIGURES[one.metric].best_is_low
        wins[one.metric].add((one.a, one.b) if first_wins else (one.b, one.a))
    both = sorted(wins[cost] & wins[TPOT.name])
    return {loser: f"#{winner}" for winner, loser in reversed(both)}


def differences(study: StudyResult) -> list[dict[str, Any]]:
    """Give, a metric each, every configuration against the best one it was compared with."""
    found = []
    for metric in FIGURES.values():
        pairs = [one for one in study.comparisons if one.metric == metric.name]
        best = reference_of(study, metric)
        if not pairs or best is None:
            continue
        rows = sorted(
            (
                (
                    pair.a if pair.b == best else pair.b,
                    *pair.against(best),
                    pair.verdict != "no_difference_shown",
                )
                for pair in pairs
                if best in (pair.a, pair.b)
            ),
            key=lambda row: row[1],
            reverse=not metric.best_is_low,
        )
        found.append(
            {
                "title": metric.title,
                "reference": f"#{best}",
                "ranked": metric in (ENERGY_PER_TOKEN, THROUGHPUT, TPOT),
                "factor": any(fmt.is_factor(*row[1:4]) for row in rows),
                "rows": [[f"#{row[0]}", *map(rounded, row[1:4]), row[4]] for row in rows],
            }
        )
    return found


def rounded(value: float | None) -> float | None:
    """Round to the digits that a page carries."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")


def _column(rows: Sequence[ConfigurationResult], name: str) -> dict[str, Any]:
    found = [one.figures.get(name) for one in rows]
    return {
        "title": FIGURES[name].title,
        "unit": FIGURES[name].unit,
        "mean": [None if one is None else rounded(one.mean) for one in found],
        "low": [_end(one, 0) for one in found],
        "high": [_end(one, 1) for one in found],
    }


def _end(figure: Figure | None, which: int) -> float | None:
    if figure is None or figure.interval95 is None:
        return None
    return rounded(figure.interval95[which])

"""Figures of the configurations of a study: names of rows, tables, and all of a single one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING

from llenergymeasure.core.models.identity import short
from llenergymeasure.domain.study_result import FIGURES, LATENCIES
from llenergymeasure.report import format as fmt
from llenergymeasure.report.section import Fact, Table, Text, fact

if TYPE_CHECKING:
    from llenergymeasure.domain.results import ConfigurationResult, Figure, StudyResult

ALL = "see study_summary.json"
CAUTION = "!"
_MOST_COLUMNS = 4
_COLUMNS = (
    *("ttft_ms.p50", "ttft_ms.p95", "tpot_ms.p50", "tpot_ms.p95"),
    *("itl_ms.p95", "e2e_ms.p50", "e2e_ms.p95", "peak_memory_mb"),
)
_PERCENTILES = ("p50", "p95", "p99")
_PREFIXED = ("J", "W", "g")
_FACTS = {
    "Energy": {
        "energy_total_j": "in the window",
        "energy_per_output_token_j": "per output token",
        "energy_per_request_j": "per request",
        "mean_power_w": "on average",
        "energy_adjusted_j": "above loaded idle",
    },
    "CO2": {"co2_grams": "CO2e"},
    "Work": {"window_s": "in the window"},
    "Throughput": {
        "tokens_per_second": "of output",
        "total_tokens_per_second": "in all",
        "requests_per_second": "",
    },
    "Memory": {"peak_memory_mb": "peak", "model_memory_mb": "after loading"},
    "Compute": {"mfu": "MFU", "mbu": "MBU"},
}
"""What is told of the only configuration of a study: figures, and the words after each."""


def rest(count: int) -> Iterator[Text]:
    """Say how many rows are not shown, if any, and where they are."""
    if count:
        yield Text(f"and {count:,} more: {ALL}", 1)


def places_of(study: StudyResult) -> dict[tuple[str, ...], int]:
    """Number where and with what configurations ran; empty where that is the same for all."""
    found = dict.fromkeys(_place(one) for one in study.configurations)
    return {place: number for number, place in enumerate(found, 1)} if len(found) > 1 else {}


def _place(one: ConfigurationResult) -> tuple[str, ...]:
    return (*one.devices, *(f"{name} {short(value)}" for name, value in one.conditions.items()))


def name_of(one: ConfigurationResult, places: Mapping[tuple[str, ...], int]) -> str:
    """Name a row: ``#2``, or ``#2@1`` where not all ran in the same place with the same."""
    return f"#{one.id}@{places[_place(one)]}" if places else f"#{one.id}"


def value_of(figure: Figure, scale: float = 1.0) -> str:
    """Write a figure with its interval, for a column whose head tells the unit.

    Args:
        figure: In the plain unit.
        scale: What the unit of the column is in plain units.
    """
    half = figure.half_width
    return fmt.plain_interval(figure.mean / scale, None if half is None else half / scale)


def tables(study: StudyResult, shown: Set[str]) -> Iterator[Table | Text]:
    """Tell latencies and memory of each configuration, in tables of a few columns each."""
    known = {name for one in study.configurations for name in one.figures}
    # earlier versions stored no percentiles, but the median under the plain name
    chosen = (name if name in known else name.removesuffix(".p50") for name in _COLUMNS)
    names = [name for name in chosen if name in known]
    places = places_of(study)
    rows = [one for one in study.configurations if known & set(names) & one.figures.keys()]
    told = [one for one in rows if name_of(one, places) in shown]
    if not told:
        return
    for first in range(0, len(names), _MOST_COLUMNS):
        metrics = [FIGURES[name] for name in names[first : first + _MOST_COLUMNS]]
        cells = []
        for one in told:
            figures = (one.figures.get(metric.name) for metric in metrics)
            values = ("-" if figure is None else value_of(figure) for figure in figures)
            cells.append((f"{caution_of(one)}{name_of(one, places)}", *values))
        yield Table("figures", ("", *(f"{m.title}, {m.unit}" for m in metrics)), tuple(cells))
    yield from rest(len(rows) - len(told))


def caution_of(one: ConfigurationResult) -> str:
    """Give the mark of a row that rests on results with cautions."""
    return CAUTION if one.trust else ""


def all_of_one(one: ConfigurationResult) -> Iterator[Fact | Table]:
    """Tell all that is known of the only configuration, as the summary of an experiment does."""
    for label, parts in _FACTS.items():
        lines = (
            f"{_with_unit(one.figures[name], FIGURES[name].unit)} {words}".rstrip()
            for name, words in parts.items()
            if name in one.figures
        )
        yield from fact(label, lines)
    rows: list[tuple[str, ...]] = []
    for name, title in LATENCIES.items():
        figures = [one.figures.get(f"{name}.{percentile}") for percentile in _PERCENTILES]
        if any(figures):
            told = ("-" if each is None else _with_unit(each, "ms") for each in figures)
            rows.append((title, *told))
    if rows:
        yield Table("latency", ("Latency, mean over cycles", *_PERCENTILES), tuple(rows))


def _with_unit(figure: Figure, unit: str) -> str:
    """Write a figure with its interval: with a prefix where its unit takes one."""
    half = figure.half_width
    if unit == "ms":
        return fmt.with_interval(figure.mean / 1000, half and half / 1000, "s")
    if unit in _PREFIXED:
        return fmt.with_interval(figure.mean, half, unit)
    if not unit:
        return f"{fmt.plain_interval(100 * figure.mean, half and 100 * half)} %"
    return f"{fmt.plain_interval(figure.mean, half)} {unit}"

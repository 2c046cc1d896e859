"""A study as plain text: which configuration is best, and which differences are shown."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llenergymeasure.config.settings_words import described
from llenergymeasure.domain.study_result import (
    ENERGY_PER_TOKEN,
    MEMORY,
    METRICS,
    THROUGHPUT,
    TPOT,
    TTFT,
    Metric,
)
from llenergymeasure.report import format as fmt

if TYPE_CHECKING:
    from llenergymeasure.domain.experiment_result import FailedExperiment
    from llenergymeasure.domain.study_result import (
        Comparison,
        ConfigurationResult,
        Figure,
        Sensitivity,
        StudyResult,
    )

_LABEL = 29
_MOST_ROWS = 20
_MOST_REASONS = 5
_MOST_FAILING = 5
_NOTE = 2
_PERCENT = "\N{NO-BREAK SPACE}%"


class _Row(NamedTuple):
    configuration: ConfigurationResult
    figure: Figure
    name: str


def render(study: StudyResult) -> str:
    """Render a study for a terminal of 80 columns: plain text, no colour, no final newline."""
    blocks = [list(_head(study))]
    blocks.extend(list(_ranking(study, metric)) for metric in (ENERGY_PER_TOKEN, THROUGHPUT))
    blocks.append(list(_beside(study)))
    blocks.append(list(_reading(study)))
    blocks.append(list(_left_out(study)))
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _head(study: StudyResult) -> Iterator[str]:
    parts = [_configurations(study)] if study.configurations else []
    if study.protocol is not None:
        parts.append(fmt.count(study.protocol.n_cycles, "cycle"))
        parts.append(f"{study.protocol.cycle_order} order")
    yield from _wrapped(f"Study {study.name or 'without a name'}: {', '.join(parts)}", "")
    yield from _wrapped(", ".join(_counts(study)))


def _configurations(study: StudyResult) -> str:
    told = len({one.id for one in study.configurations})
    planned = study.generated - study.merged - len(study.skipped)
    count = fmt.count(max(planned, told), "configuration")
    return count if told >= planned else f"{told:,} of {count}"


def _counts(study: StudyResult) -> Iterator[str]:
    yield f"{fmt.count(study.ran, 'experiment')} ran"
    for number, what in (
        (study.invalid, "of them invalid and left out"),
        (len(study.failed), "failed"),
        (study.missing, "missing"),
    ):
        if number:
            yield f"{number:,} {what}"
    if study.skipped:
        yield f"{fmt.count(len(study.skipped), 'combination')} skipped"
    if study.merged:
        yield f"{fmt.count(study.merged, 'duplicate')} merged"


def _ranking(study: StudyResult, metric: Metric) -> Iterator[str]:
    """Rank by one metric, each beside what is said of it and the first."""
    compared = [one for one in study.comparisons if one.metric == metric.name]
    rows = _ranked(study, metric, compared)
    if not rows:
        return
    scale, unit = _unit(rows, metric)
    first = _reference(rows, compared)
    order = "lowest" if metric.best_is_low else "highest"
    versus = f"against #{first}" if compared else ""
    title = f"{metric.title[0].upper()}{metric.title[1:]}, {order} first"
    yield f"{title:<{_LABEL + 7}}{unit:>18}  {versus}".rstrip()
    for place, row in enumerate(rows[:_MOST_ROWS]):
        on_another_board = row.configuration.id in (one.configuration.id for one in rows[:place])
        yield from _ranked_row(row, scale, first, [] if on_another_board else compared)
    if len(rows) > _MOST_ROWS:
        yield f"  and {len(rows) - _MOST_ROWS:,} more: see study_summary.json"
    yield from _sensitivity(study.sensitivity, metric)


def _ranked(study: StudyResult, metric: Metric, compared: Sequence[Comparison]) -> list[_Row]:
    """Order configurations by what the comparison says of them, else by their means.

    The two can differ: a comparison takes out drift and what the runs of a cycle share.
    """
    boards = _boards(study)
    rows = [
        _Row(one, one.figures[metric.name], _name(one, boards))
        for one in study.configurations
        if metric.name in one.figures
    ]
    rows.sort(key=lambda row: row.figure.mean, reverse=not metric.best_is_low)
    if not rows:
        return rows
    first = _reference(rows, compared)
    mean = next(row.figure.mean for row in rows if row.configuration.id == first)
    adjusted = {one: mean * ratio for one, ratio in _ratios(first, compared)}
    return sorted(
        rows,
        key=lambda row: adjusted.get(row.configuration.id, row.figure.mean),
        reverse=not metric.best_is_low,
    )


def _ratios(first: int, compared: Sequence[Comparison]) -> Iterator[tuple[int, float]]:
    """Give each configuration that is compared with one, and its ratio to that."""
    yield first, 1.0
    for pair in compared:
        if pair.b == first:
            yield pair.a, pair.ratio
        elif pair.a == first:
            yield pair.b, 1 / pair.ratio


def _boards(study: StudyResult) -> dict[tuple[str, ...], int]:
    """Number the sets of devices that configurations ran on; empty where there is only one."""
    sets = dict.fromkeys(one.devices for one in study.configurations)
    return {devices: number for number, devices in enumerate(sets, 1)} if len(sets) > 1 else {}


def _name(one: ConfigurationResult, boards: Mapping[tuple[str, ...], int]) -> str:
    """Name a row: ``#2``, or ``#2@1`` where there are several boards."""
    return f"#{one.id}@{boards[one.devices]}" if boards else f"#{one.id}"


def _unit(rows: Sequence[_Row], metric: Metric) -> tuple[float, str]:
    if metric.unit != "J":
        return 1.0, metric.unit
    scale, prefix = fmt.prefix(rows[0].figure.mean)
    return scale, f"{prefix}{metric.unit}"


def _reference(rows: Sequence[_Row], compared: Sequence[Comparison]) -> int:
    """Pick the configuration that most others are compared with; of equals, the first."""
    times = Counter(one for pair in compared for one in (pair.a, pair.b))
    return max((row.configuration.id for row in rows), key=lambda one: times[one])


def _ranked_row(
    row: _Row, scale: float, first: int, compared: Sequence[Comparison]
) -> Iterator[str]:
    one = row.configuration.id
    mark, versus = _versus(one, first, compared) if compared and one != first else (" ", "")
    labels = textwrap.wrap(row.configuration.label, _LABEL, break_on_hyphens=False)
    head = f"{mark}{row.name:>6} {labels[0]:<{_LABEL}}"
    yield f"{head}{_value(row.figure, scale):>17}  {versus}".rstrip()
    yield from (f"{'':8}{more}" for more in labels[1:])


def _versus(one: int, first: int, compared: Sequence[Comparison]) -> tuple[str, str]:
    """Give the mark of a row, and how it compares with the first."""
    for pair in compared:
        if {pair.a, pair.b} == {one, first}:
            low, high = pair.interval95
            middle = pair.ratio
            if pair.a == first:
                low, middle, high = 1 / high, 1 / middle, 1 / low
            mark = "=" if pair.verdict == "no_difference_shown" else " "
            return mark, fmt.change(middle, low, high)
    return "?", "not compared"


def _value(figure: Figure, scale: float) -> str:
    half = None
    if figure.interval95 is not None:
        half = (figure.interval95[1] - figure.interval95[0]) / 2 / scale
    return fmt.plain_interval(figure.mean / scale, half)


def _sensitivity(every: Sequence[Sensitivity], metric: Metric) -> Iterator[str]:
    """Say how large a difference is mostly shown, and what more cycles would do."""
    for one in every:
        if one.metric != metric.name:
            continue
        size = _size(one.minimum_detectable_ratio)
        text = f"A difference of {size} shows in 4 of 5 studies"
        cycles = one.observations / one.configurations
        more = next((plan for plan in one.planned if plan.n_cycles > cycles + 0.5), None)
        if more is not None and more.minimum_detectable_ratio is not None:
            shown = _size(more.minimum_detectable_ratio)
            text += f"; with {more.n_cycles} cycles, {shown} does"
        yield from _wrapped(f"{text}.")


def _size(ratio: float) -> str:
    share = 100 * (ratio - 1)
    if share > 100:
        return f"a factor of {fmt.significant(ratio, 2)}"
    percent = "0.01" if share < 0.01 else fmt.significant(share, 1 if share < 10 else 2)
    return f"{percent} %"


def _beside(study: StudyResult) -> Iterator[str]:
    metrics = (TTFT, TPOT, MEMORY)
    rows = [one for one in study.configurations if any(m.name in one.figures for m in metrics)]
    if not rows:
        return
    boards = _boards(study)
    heads = "".join(f"{f'{m.title}, {m.unit}':>24}" for m in metrics)
    yield f"{'':7}{heads}"
    for one in rows[:_MOST_ROWS]:
        cells = (one.figures.get(metric.name) for metric in metrics)
        shown = "".join(f"{'-' if cell is None else _value(cell, 1.0):>24}" for cell in cells)
        yield f"{_name(one, boards):>7}{shown}"


def _reading(study: StudyResult) -> Iterator[str]:
    """Say in words what the columns and marks mean."""
    if not study.configurations:
        return
    if any(figure.interval95 for one in study.configurations for figure in one.figures.values()):
        yield from _wrapped(
            "± is the 95 % interval of the mean over cycles; a figure without it has fewer than "
            "three, or never changed.",
            "",
        )
    else:
        yield from _wrapped(
            "Means have no intervals: those need three cycles. Add some with --resume PATH "
            "--cycles 3.",
            "",
        )
    if study.comparisons:
        yield from _wrapped(
            "The last column compares with the configuration named there; its intervals hold "
            "together. = marks what is not shown to differ: that is no proof of being equal.",
            "",
        )
    yield from _about_boards(study)
    yield from (line for note in _notes(study) for line in _wrapped(f"- {note}", ""))


def _about_boards(study: StudyResult) -> Iterator[str]:
    for devices, number in _boards(study).items():
        yield from _wrapped(f"@{number} is {' and '.join(devices) or 'a device not known'}.", "")
    if len(study.configurations) > len({one.id for one in study.configurations}):
        yield from _wrapped(
            "Configurations are compared board by board; what that gives over all boards stands "
            "once, at the first row of each.",
            "",
        )


def _notes(study: StudyResult) -> Iterator[str]:
    titles = {metric.name: metric.title for metric in METRICS}
    told_of = {name for one in study.configurations for name in one.figures}
    for note in study.notes:
        if note.kind == "metric":
            whole = len(note.about) == len(told_of) > 1
            names = (
                "all figures" if whole else "; ".join(titles.get(name, name) for name in note.about)
            )
            yield f"{names}: {note.text}"
        elif note.kind != "difference":
            yield note.text
    if differences := [n for note in study.notes if note.kind == "difference" for n in note.about]:
        yield f"engines differ in {', '.join(differences)}; how: see notes in study_summary.json"


def _left_out(study: StudyResult) -> Iterator[str]:
    yield from _failed(study.failed)
    skips = Counter(one.reason for one in study.skipped)
    for reason, count in skips.most_common(_MOST_REASONS):
        yield from _wrapped(f"Skipped {count:,} x {reason}", "")
    yield from _more("Skipped", len(skips))


def _failed(failed: Sequence[FailedExperiment]) -> Iterator[str]:
    """Say what broke: each reason with the configurations it met, and where the first one lies."""
    alike: dict[str, list[FailedExperiment]] = {}
    for one in failed:
        phase = f" in {one.phase}" if one.phase else ""
        alike.setdefault(f"{one.code}{phase}: {_first_line(one.message)}", []).append(one)
    for reason, ones in sorted(alike.items(), key=lambda item: -len(item[1]))[:_MOST_REASONS]:
        yield from _wrapped(f"Failed {len(ones):,} x {reason}", "")
        yield from _where_failed(ones)
    yield from _more("Failed", len(alike))


def _where_failed(alike: Sequence[FailedExperiment]) -> Iterator[str]:
    times = Counter(one.configuration for one in alike if one.configuration is not None)
    labels = {one.configuration: described(one.settings) for one in alike}
    for number, count in sorted(times.items())[:_MOST_FAILING]:
        yield from _wrapped(f"#{number} {labels[number]}".rstrip() + f", {count:,} x", "    ")
    if len(times) > _MOST_FAILING:
        yield f"    and {len(times) - _MOST_FAILING:,} more configurations: see study_summary.json"
    if alike[0].directory is not None:
        yield f"    {'first ' if len(alike) > 1 else ''}in {alike[0].directory}"


def _more(title: str, reasons: int) -> Iterator[str]:
    if reasons > _MOST_REASONS:
        yield f"{title} for {reasons - _MOST_REASONS:,} more reasons"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _wrapped(text: str, indent: str = " " * _NOTE) -> list[str]:
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    lines = textwrap.wrap(
        printable.replace(" %", _PERCENT),  # a figure stays with its sign
        fmt.WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )
    return [line.replace(_PERCENT, " %") for line in lines]

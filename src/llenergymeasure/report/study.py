"""What the result of a study says: which configuration is best, and which differences are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from typing import TYPE_CHECKING, NamedTuple

from llenergymeasure.config.settings_words import described
from llenergymeasure.domain.study_result import (
    ENERGY_PER_TOKEN,
    FIGURES,
    METRICS,
    THROUGHPUT,
    Metric,
)
from llenergymeasure.report import format as fmt
from llenergymeasure.report.section import Fact, Section, Table, Text
from llenergymeasure.report.study_figures import (
    ALL,
    CAUTION,
    all_of_one,
    caution_of,
    name_of,
    places_of,
    rest,
    tables,
    value_of,
)

if TYPE_CHECKING:
    from llenergymeasure.domain.results import (
        Comparison,
        ConfigurationResult,
        EnergyOrigin,
        FailedExperiment,
        Figure,
        Sensitivity,
        StudyResult,
        StudySubject,
    )

_RANKED = (ENERGY_PER_TOKEN, THROUGHPUT)
_MOST_ROWS = 20
_MOST_REASONS = 5
_MOST_FAILING = 5
_LARGEST = 1_000  # factor that is told; beyond, nothing is known
_MOST_NAMES = 3


class _Row(NamedTuple):
    configuration: ConfigurationResult
    figure: Figure
    name: str


def sections(study: StudyResult) -> Iterator[Section]:
    """Say what a study says."""
    yield Section("head", tuple(_head(study)))
    if _is_of_one(study):
        yield Section("figures", tuple(all_of_one(study.configurations[0])))
    else:
        shown = _shown(study)
        for metric in _RANKED:
            yield Section(f"ranking-{metric.name}", tuple(_ranking(study, metric, shown)))
        yield Section("figures", tuple(tables(study, shown)))
    yield Section("reading", tuple(_reading(study)))
    yield Section("left-out", tuple(_left_out(study)))
    yield Section("trust", tuple(_trust(study)))


def _planned(study: StudyResult) -> int:
    """Count the configurations that the study was to measure."""
    return study.generated - study.merged - len(study.skipped)


def _is_of_one(study: StudyResult) -> bool:
    return len(study.configurations) == _planned(study) == 1


def _head(study: StudyResult) -> Iterator[Text]:
    parts = []
    if study.configurations:
        told = len({one.id for one in study.configurations})
        planned = _planned(study)
        count = fmt.count(max(planned, told), "configuration")
        parts.append(count if told >= planned else f"{told:,} of {count}")
    if study.protocol is not None:
        parts.append(fmt.count(study.protocol.n_cycles, "cycle"))
        parts.append(f"{study.protocol.cycle_order} order")
    yield Text(f"Study {study.name or 'without a name'}: {', '.join(parts)}")
    counts = (
        (study.invalid, f"{study.invalid:,} of them invalid and left out"),
        (len(study.failed), f"{len(study.failed):,} failed"),
        (study.missing, f"{study.missing:,} missing"),
        (len(study.skipped), f"{fmt.count(len(study.skipped), 'combination')} skipped"),
        (study.merged, f"{fmt.count(study.merged, 'duplicate')} merged"),
    )
    ran = f"{fmt.count(study.ran, 'experiment')} ran"
    yield Text(", ".join([ran, *(text for number, text in counts if number)]), 1)
    if study.subject is not None:
        yield from (Text(line, 1) for line in _subject(study.subject))


def _subject(subject: StudySubject) -> Iterator[str]:
    """Say in few lines what was measured, on what, and when."""
    prompts = " and ".join(fmt.count(n, "prompt") for n in sorted(subject.n)[:_MOST_NAMES])
    yield f"{_named(subject.models)}; {_named(subject.datasets)}, {prompts}"
    versions = [f"{name} {_named(each)}" for name, each in subject.versions.items()]
    yield f"on {_named(subject.boards or subject.machines)}"
    yield f"with {', '.join(versions)}"
    yield f"{_origin(subject.energy)}; {_dates(subject.first, subject.last)}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return " and ".join(names[:_MOST_NAMES]) + more


def _origin(energy: Sequence[EnergyOrigin]) -> str:
    """Name the sources of energy, with how many runs where there are several."""
    said = []
    for one in energy:
        words = "no energy was read" if one.source == "none" else f"{one.kind} by {one.source}"
        said.append(f"{words} in {fmt.count(one.count, 'run')}" if len(energy) > 1 else words)
    text = ", ".join(said)
    return text if energy[0].source == "none" else f"energy {text}"


def _dates(first: str, last: str) -> str:
    """Write the first and the last time of day, the date once: ``2026-03-02 14:30 to 16:05``."""
    begun, ended = (text[:16].replace("T", " ") for text in (first, last))
    if begun == ended:
        return begun
    return f"{begun} to {ended[11:] if begun[:10] == ended[:10] else ended}"


def _shown(study: StudyResult) -> set[str]:
    """Choose the rows of all tables: what a ranking begins with, then the best of the first one."""
    leading, others = list[str](), list[str]()
    for metric in _RANKED:
        compared = [one for one in study.comparisons if one.metric == metric.name]
        if rows := _ranked(study, metric, compared):
            first = _reference(rows, compared)
            known = next(row.name for row in rows if row.configuration.id == first)
            leading += [rows[0].name, known]
            others += [row.name for row in rows]
    places = places_of(study)
    every = (*leading, *others, *(name_of(one, places) for one in study.configurations))
    return set(list(dict.fromkeys(every))[:_MOST_ROWS])


def _ranking(study: StudyResult, metric: Metric, shown: Set[str]) -> Iterator[Table | Text]:
    """Rank by one metric, each beside what is said of it and the first."""
    compared = [one for one in study.comparisons if one.metric == metric.name]
    rows = _ranked(study, metric, compared)
    if not rows:
        return
    told = [row for row in rows if row.name in shown]
    scale, unit = 1.0, metric.unit
    if unit == "J":
        scale, prefix = fmt.prefix(rows[0].figure.mean)
        unit = f"{prefix}{unit}"
    first = _reference(rows, compared)
    order = "lowest" if metric.best_is_low else "highest"
    title = f"{metric.title[0].upper()}{metric.title[1:]}, {order} first"
    ratios = {row.configuration.id: _ratio(row.configuration.id, first, compared) for row in told}
    sensitivities = [one for one in study.sensitivity if one.metric == metric.name]
    factor = any(one.minimum_detectable_ratio > 2 for one in sensitivities) or any(
        ratio is not None and fmt.is_factor(*ratio) for _, ratio in ratios.values()
    )
    cells, seen = [], {first}
    for row in told:
        one = row.configuration
        # on each further board of a configuration its comparison would be told again
        mark, versus = (" ", "")
        if compared and one.id not in seen:
            mark, ratio = ratios[one.id]
            versus = "not compared" if ratio is None else fmt.change(*ratio, factor=factor)
        seen.add(one.id)
        mark += caution_of(one)
        cells.append((mark, row.name, one.label, value_of(row.figure, scale), versus))
    versus = f"against #{first}" if compared else ""
    yield Table("ranking", (title, unit, versus), tuple(cells))
    yield from rest(len(rows) - len(told))
    yield from (Text(_sensitivity(one, factor=factor), 1) for one in sensitivities)


def _ranked(study: StudyResult, metric: Metric, compared: Sequence[Comparison]) -> list[_Row]:
    """Order configurations by what the comparison says of them, else by their means.

    The two can differ: a comparison takes out drift and what the runs of a cycle share.
    """
    places = places_of(study)
    rows = [
        _Row(one, one.figures[metric.name], name_of(one, places))
        for one in study.configurations
        if metric.name in one.figures
    ]
    rows.sort(key=lambda row: row.figure.mean, reverse=not metric.best_is_low)
    if not rows:
        return rows
    first = _reference(rows, compared)
    mean = next(row.figure.mean for row in rows if row.configuration.id == first)
    adjusted = {first: mean}
    for pair in compared:
        if pair.b == first:
            adjusted[pair.a] = mean * pair.ratio
        elif pair.a == first:
            adjusted[pair.b] = mean * (1 / pair.ratio)
    return sorted(
        rows,
        key=lambda row: adjusted.get(row.configuration.id, row.figure.mean),
        reverse=not metric.best_is_low,
    )


def reference_of(study: StudyResult, metric: Metric) -> int | None:
    """Give the id of what all others are compared with in one metric; ``None`` without figures."""
    compared = [one for one in study.comparisons if one.metric == metric.name]
    rows = _ranked(study, metric, compared)
    return _reference(rows, compared) if rows else None


def _reference(rows: Sequence[_Row], compared: Sequence[Comparison]) -> int:
    """Pick the configuration that most others are compared with; of equals, the first."""
    times = Counter(one for pair in compared for one in (pair.a, pair.b))
    return max((row.configuration.id for row in rows), key=lambda one: times[one])


def _ratio(
    one: int, first: int, compared: Sequence[Comparison]
) -> tuple[str, tuple[float, float, float] | None]:
    """Give the mark of a row, and its ratio to the first with the ends of its interval."""
    for pair in compared:
        if {pair.a, pair.b} == {one, first}:
            mark = "=" if pair.verdict == "no_difference_shown" else " "
            return mark, pair.against(first)
    return "?", None


def _sensitivity(one: Sensitivity, *, factor: bool) -> str:
    """Say how large a difference is mostly shown, and what more cycles would do."""
    least = _size(one.minimum_detectable_ratio, factor=factor)
    text = f"A difference of {least} shows in 4 of 5 studies"
    cycles = one.observations / one.configurations
    more = next((plan for plan in one.planned if plan.n_cycles > cycles + 0.5), None)
    if more is not None and more.minimum_detectable_ratio is not None:
        shown = _size(more.minimum_detectable_ratio, factor=factor)
        text += f"; with {more.n_cycles} cycles, {shown} does"
    return f"{text}."


def _size(ratio: float, *, factor: bool) -> str:
    """Write a ratio over 1 as what a difference must be at least, so rounded up."""
    if ratio > _LARGEST:
        return f"more than a factor of {_LARGEST:,}"
    if factor and ratio > 2:
        return f"a factor of {fmt.rounded_up(ratio, 2)}"
    if factor:
        return f"a factor of {1 + float(fmt.rounded_up(max(ratio - 1, 1e-4), 2)):.6g}"
    return f"{fmt.rounded_up(max(100 * (ratio - 1), 0.01), 2)} %"


def _reading(study: StudyResult) -> Iterator[Text]:
    """Say in words what the columns and marks mean."""
    if not study.configurations:
        return
    if any(figure.interval95 for one in study.configurations for figure in one.figures.values()):
        yield Text(
            "± is the 95 % interval of the mean over cycles; a figure without it has fewer than "
            "three, or never changed."
        )
    else:
        more = "" if study.missing else " Add some with --resume PATH --cycles 3."
        yield Text(f"Means have no intervals: those need three cycles.{more}")
    if study.comparisons:
        yield Text(
            "The last column compares with the configuration named there; its intervals hold "
            "together. = marks what is not shown to differ: that is no proof of being equal."
        )
    if any(one.trust for one in study.configurations) and not _is_of_one(study):
        yield Text(f"{CAUTION} marks what rests on results with cautions, which are told below.")
    for place, number in places_of(study).items():
        yield Text(f"@{number} is {' and '.join(place) or 'a device not known'}.")
    if len(study.configurations) > len({one.id for one in study.configurations}):
        where = "place" if any(one.conditions for one in study.configurations) else "board"
        yield Text(
            f"Configurations are compared {where} by {where}; what that gives over all {where}s "
            "stands once, at the first row of each."
        )
    yield from (Text(f"- by an earlier rule: {text}") for text in study.earlier_rules)
    yield from _notes(study)


def _notes(study: StudyResult) -> Iterator[Text]:
    compared = {metric.name for metric in METRICS}
    told_of = {name for one in study.configurations for name in one.figures} & compared
    for note in study.notes:
        if note.kind == "metric":
            titles = (FIGURES[name].title if name in FIGURES else name for name in note.about)
            names = "; ".join(titles)
            whole = len(note.about) == len(told_of) > 1
            yield Text(f"- {'all figures' if whole else names}: {note.text}")
        elif note.kind != "difference":
            yield Text(f"- {note.text}")
        if note.remedy is not None:
            yield Text(note.remedy, 1, whole=True)
    if differences := [n for note in study.notes if note.kind == "difference" for n in note.about]:
        differ = ", ".join(differences)
        yield Text(f"- engines differ in {differ}; how: see notes in study_summary.json")


def _trust(study: StudyResult) -> Iterator[Fact]:
    """Tell every finding with its count, where it was found, and what to do about it."""
    if study.subject is None:
        return
    if not study.trust:
        yield Fact("Trust", ("ok: nothing speaks against these figures",))
        return
    verdict = "caution" if any(one.trust for one in study.configurations) else "ok"
    invalid = f"; {fmt.count(study.invalid, 'run')} invalid and in no figure"
    yield Fact("Trust", (verdict + invalid * bool(study.invalid),))
    everywhere = {one.id for one in study.configurations}
    for one in study.trust:
        where = ""
        if set(one.configurations) < everywhere:
            where = f": {', '.join(f'#{number}' for number in one.configurations[:_MOST_FAILING])}"
            more = len(one.configurations) - _MOST_FAILING
            where += f" and {more:,} more" if more > 0 else ""
        remedy = (f"-> {one.remedy}",) if one.level != "info" else ()
        yield Fact(one.level, (f"{one.found}{where}", *remedy), 1)


def _left_out(study: StudyResult) -> Iterator[Text]:
    """Say what broke, which configurations it met and where the first lies, and what is skipped."""
    alike: dict[str, list[FailedExperiment]] = {}
    for one in study.failed:
        phase = f" in {one.phase}" if one.phase else ""
        said = one.message.strip().partition("\n")[0]
        alike.setdefault(f"{one.code}{phase}: {said}", []).append(one)
    for reason, ones in sorted(alike.items(), key=lambda item: -len(item[1]))[:_MOST_REASONS]:
        yield Text(f"Failed {len(ones):,} x {reason}")
        times = Counter(one.configuration for one in ones if one.configuration is not None)
        labels = {one.configuration: described(one.settings) for one in ones}
        for number, count in sorted(times.items())[:_MOST_FAILING]:
            yield Text(f"#{number} {labels[number]}".rstrip() + f", {count:,} x", 2)
        if len(times) > _MOST_FAILING:
            yield Text(f"and {len(times) - _MOST_FAILING:,} more configurations: {ALL}", 2)
        if ones[0].directory is not None:
            first = "first " if len(ones) > 1 else ""
            yield Text(f"{first}in {study.located(ones[0].directory)}", 2, whole=True)
        kept = [one.rescued for one in ones if one.rescued is not None]
        for place in kept[:_MOST_FAILING]:
            yield Text(f"what was measured is kept in {place}", 2, whole=True)
        if len(kept) > _MOST_FAILING:
            yield Text(f"and in {len(kept) - _MOST_FAILING:,} more places: {ALL}", 2)
    yield from _more("Failed", len(alike))
    skips = Counter(one.reason for one in study.skipped)
    for reason, count in skips.most_common(_MOST_REASONS):
        yield Text(f"Skipped {count:,} x {reason}")
    yield from _more("Skipped", len(skips))


def _more(title: str, reasons: int) -> Iterator[Text]:
    if reasons > _MOST_REASONS:
        yield Text(f"{title} for {reasons - _MOST_REASONS:,} more reasons")

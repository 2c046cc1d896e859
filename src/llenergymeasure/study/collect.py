"""From the experiments of a study to its result, and its two files."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple, Self

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.config.settings_words import varied_settings
from llenergymeasure.core.energy.estimation.budget import COMMON
from llenergymeasure.domain.earlier_rules import OF_EXPERIMENTS
from llenergymeasure.domain.results import (
    Comparison,
    ConfigurationResult,
    ExperimentResult,
    FailedExperiment,
    Figure,
    Note,
    Outcome,
    Placement,
    Sensitivity,
    StudyProtocol,
    StudyResult,
)
from llenergymeasure.domain.study_result import (
    FIGURES,
    METRICS,
    Metric,
    about_metrics,
    figure_at,
)
from llenergymeasure.results.files import json_text, write_atomically, write_json_atomically
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.study import likeness, statistics
from llenergymeasure.study.blocks import Devices, Observation, devices_of, stations
from llenergymeasure.study.describe import cautions, subject_of, trust_counts
from llenergymeasure.study.equal_terms import unequal_terms
from llenergymeasure.study.manifest import ExecutionPlan, Slot, StudyPlan
from llenergymeasure.study.outliers import Located, outlier_notes
from llenergymeasure.study.resume import SlotState, kept_results, replaced

_MOST_NOTES = 20
_FIXED_ORDERS = frozenset({"sequential", "interleaved"})


class SlotOutcome(NamedTuple):
    """What became of one slot.

    Attributes:
        slot: Which.
        outcome: The result, what broke, or ``None`` where there is neither.
        directory: Where its files lie, where they are kept.
        replaced: Files of results that it had before it was run again on request.
        aside: Earlier results of it that were set aside, damaged or not its own.
    """

    slot: Slot
    outcome: Outcome | None
    directory: ExperimentDirectory | None = None
    replaced: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()

    @classmethod
    def of(cls, state: SlotState, found: Outcome | None, *, kept: bool = True) -> Self:
        """Put together what became of a slot.

        Args:
            state: Where it stands.
            found: What it left.
            kept: Whether its files are kept.
        """
        aside = replaced(state.directory), kept_results(state.directory)
        return cls(state.slot, found, state.directory if kept else None, *aside)

    @property
    def study(self) -> str | None:
        """The directory of its study, where one is kept."""
        return None if self.directory is None else str(StudyDirectory.of(self.directory).root)


class _Run(NamedTuple):
    """One result, where it belongs, and how often what must agree had changed before it."""

    configuration: int
    cycle: int
    slot: int
    devices: Devices
    result: ExperimentResult
    directory: ExperimentDirectory | None = None
    epoch: int = 0

    @property
    def session(self) -> int:
        """Which run of the study measured it; hours may lie between two."""
        return self.result.resolved.session or 1

    @property
    def place(self) -> Placement:
        """Where it belongs, as a result of a study says it."""
        return Placement(configuration=self.configuration, cycle=self.cycle, slot=self.slot)

    @property
    def file(self) -> str | None:
        """Where it lies, from the directory of the study on."""
        return None if self.directory is None else _named(self.directory.result, self.directory)


_Observed = Mapping[Metric, Sequence[tuple[_Run, Observation]]]


def study_result(plan: StudyPlan, outcomes: Iterable[SlotOutcome]) -> StudyResult:
    """Put together what a study says at its end.

    Args:
        plan: What it was to do.
        outcomes: What became of each slot, in any order; a later one of a slot replaces an earlier.
    """
    latest = {one.slot.number: one for one in outcomes}
    done = [latest[number] for number in sorted(latest)]
    every = _with_epochs(
        [
            _Run(
                slot.configuration + 1, slot.cycle, slot.number, devices_of(found), found, directory
            )
            for slot, found, directory, *_ in done
            if isinstance(found, ExperimentResult)
        ]
    )
    trusted = [run for run in every if run.result.trust.verdict != "invalid"]
    comparisons, sensitivity, notes = _compare(trusted, plan.execution.n_cycles)
    settings = varied_settings(plan.experiments)
    protocol = _protocol(plan.execution, every)
    return StudyResult(
        name=plan.name,
        study_design_hash=plan.study_design_hash,
        subject=subject_of([run.result for run in every]),
        protocol=protocol,
        generated=plan.generated,
        merged=plan.merged,
        ran=len(every),
        invalid=len(every) - len(trusted),
        missing=sum(one.outcome is None for one in done),
        skipped=plan.skipped,
        failed=tuple(_failures(done, settings)),
        result_files=tuple(run.file for run in every),
        placements=tuple(run.place for run in every),
        configurations=tuple(_configurations(every, plan.experiments, settings)),
        comparisons=comparisons,
        sensitivity=sensitivity,
        trust=trust_counts((run.configuration, run.result) for run in every),
        notes=(*_notes(protocol, done, every, trusted), *_about_kept(done), *notes),
        experiments=tuple(run.result for run in every),
        directory=next((one.study for one in done if one.study is not None), None),
    )


def _named(path: Path, directory: ExperimentDirectory) -> str:
    """Name something of an experiment from the directory of its study on."""
    return str(path.relative_to(StudyDirectory.of(directory).root))


def _with_epochs(every: Sequence[_Run]) -> list[_Run]:
    in_time = sorted(every, key=lambda run: (run.session, run.slot))
    numbers = likeness.epochs([run.result for run in in_time])
    by_slot = {run.slot: number for run, number in zip(in_time, numbers, strict=True)}
    return [run._replace(epoch=by_slot[run.slot]) for run in every]


def _protocol(execution: ExecutionPlan, every: Sequence[_Run]) -> StudyProtocol:
    methods = sorted({run.result.resolved.start_method for run in every})
    return StudyProtocol(
        n_cycles=execution.n_cycles,
        cycle_order=execution.cycle_order,
        config_gap_s=execution.config_gap_seconds,
        cycle_gap_s=execution.cycle_gap_seconds,
        seed=execution.seed,
        start_methods=tuple(methods),
    )


def _notes(
    protocol: StudyProtocol,
    done: Sequence[SlotOutcome],
    every: Sequence[_Run],
    trusted: Sequence[_Run],
) -> Iterator[Note]:
    yield from (Note(kind="start", text=text) for text in _about_starts(every))
    yield from (Note(kind="trust", text=text) for text in _about_trust(every))
    numbered = [(run.configuration, run.result) for run in trusted]
    yield from (Note(kind="trust", text=text) for text in likeness.kept_apart(numbered))
    yield from (Note(kind="trust", text=text) for text in _about_earlier(trusted))
    yield from unequal_terms(numbered)
    yield from (Note(kind="design", text=text) for text in _about_design(protocol, trusted))
    yield from (Note(kind="resume", text=text) for text in _about_sessions(trusted))
    yield from (Note(kind="resume", text=text) for text in _about_again(done))
    datasets = {run.result.resolved.dataset.name: run.result.resolved.dataset for run in every}
    for name, dataset in islice(datasets.items(), _MOST_NOTES):
        yield from (Note(kind="other", text=f"{name}: {text}") for text in dataset.notes())


def write_summary(study: StudyResult, directory: StudyDirectory) -> None:
    """Write ``study_summary.json``, without the results themselves, and ``summary.parquet``.

    Raises:
        ExperimentError: One of them cannot be written.
    """
    import pyarrow.parquet as pq

    write_json_atomically(directory.summary, json_text(study, exclude={"experiments"}) + "\n")
    table = study.to_arrow()
    write_atomically(directory.table, lambda sink: pq.write_table(table, sink, compression="zstd"))


def _failures(
    outcomes: Iterable[SlotOutcome], settings: Sequence[Mapping[str, Any]]
) -> Iterator[FailedExperiment]:
    """Give what broke, with where it belongs and lies."""
    for slot, failure, directory, *_ in outcomes:
        if isinstance(failure, FailedExperiment):
            place = {
                "slot": slot.number,
                "cycle": slot.cycle,
                "configuration": slot.configuration + 1,
                "settings": dict(settings[slot.configuration]),
                "directory": None if directory is None else _named(directory.root, directory),
            }
            yield failure.model_copy(update=place)


def _configurations(
    every: Sequence[_Run],
    experiments: Sequence[ExperimentConfig],
    settings: Sequence[Mapping[str, Any]],
) -> Iterator[ConfigurationResult]:
    """Give the figures of each configuration on each set of devices, of what ran alike."""
    cells: dict[tuple[int, Devices], list[_Run]] = defaultdict(list)
    for run in every:
        cells[run.configuration, run.devices].append(run)
    for (configuration, devices), runs, apart in _alike(sorted(cells.items())):
        trusted = [run for run in runs if run.result.trust.verdict != "invalid"]
        yield ConfigurationResult(
            id=configuration,
            settings=dict(settings[configuration - 1]),
            fingerprint=experiments[configuration - 1].fingerprint(),
            devices=devices,
            conditions=apart,
            n_cycles=len(trusted),
            invalid=len(runs) - len(trusted),
            figures=dict(_figures(trusted)),
            trust=cautions(run.result.trust for run in trusted),
        )


def _alike(
    cells: Iterable[tuple[tuple[int, Devices], Sequence[_Run]]],
) -> Iterator[tuple[tuple[int, Devices], list[_Run], dict[str, str]]]:
    """Part each cell into what may be pooled, with what sets a part off where there are several."""
    for cell, runs in cells:
        found = [likeness.conditions(run.result) for run in runs]
        apart = likeness.differing(found)
        numbers = likeness.kinds(found)
        for number in dict.fromkeys(numbers):
            chosen = [place for place, each in enumerate(numbers) if each == number]
            known = {name: value for place in chosen for name, value in found[place].items()}
            own = {name: known[name] for name in apart if name in known}
            yield cell, [runs[place] for place in chosen], likeness.plain(own)


def _figures(runs: Sequence[_Run]) -> Iterator[tuple[str, Figure]]:
    for metric in FIGURES.values():
        told = [(metric.of(run.result), _common(run, metric)) for run in runs]
        known = [(value, common) for value, common in told if value is not None]
        if known:
            yield metric.name, statistics.figure([v for v, _ in known], [c for _, c in known])


def _observed(runs: Sequence[_Run]) -> _Observed:
    """Give what is known of each metric, with the runs that it is known of."""
    places = stations((run.configuration, run.devices) for run in runs)
    return {
        metric: [
            (
                run,
                Observation(
                    run.configuration,
                    (places[run.devices], run.epoch, run.cycle, run.session),
                    value,
                    run.slot,
                    _common(run, metric),
                ),
            )
            for run in runs
            if (value := metric.of(run.result)) is not None
        ]
        for metric in METRICS
    }


def _compare(
    runs: Sequence[_Run], cycles: int
) -> tuple[tuple[Comparison, ...], tuple[Sensitivity, ...], tuple[Note, ...]]:
    observed = _observed(runs)
    compared = [
        statistics.compare(metric.name, [one for _, one in rows], best_is_low=metric.best_is_low)
        for metric, rows in observed.items()
    ]
    return (
        tuple(one for part in compared for one in part.comparisons),
        tuple(part.sensitivity for part in compared if part.sensitivity is not None),
        (
            *about_metrics(
                (metric.name, text)
                for metric, part in zip(observed, compared, strict=True)
                for text in part.notes[:_MOST_NOTES]
            ),
            *_about_outliers(observed, cycles),
        ),
    )


def _common(run: _Run, metric: Metric) -> float | None:
    """Standard uncertainty of a figure that is common to all windows, or ``None``."""
    energy = run.result.energy
    if metric.per is None or energy.interval95_j is None:
        return None
    lines: dict[str, float] = defaultdict(float)
    for part in energy.components:
        for line in part.budget if part.in_scope else ():
            if line.name in COMMON:
                lines[line.name] += line.standard_j  # devices of one kind share what is assumed
    total_j = sqrt(sum(one**2 for one in lines.values()))
    per = figure_at(run.result, metric.per) if metric.per else 1.0
    return total_j / per if per else None


def _about_design(protocol: StudyProtocol, runs: Sequence[_Run]) -> Iterator[str]:
    """Say what no statistics can make good."""
    if protocol.cycle_order in _FIXED_ORDERS and len({run.configuration for run in runs}) > 1:
        yield (
            f"the order was {protocol.cycle_order}: drift, and what one run leaves to the next, "
            "can pose as a difference; --order balanced guards against it"
        )
    if any(run.result.energy.kind == "modelled" for run in runs):
        yield "energy is modelled: its intervals tell the spread of repeats, not the model's error"


def _about_sessions(runs: Sequence[_Run]) -> Iterator[str]:
    """Say which results a resume has parted from the rest of their cycle."""
    sessions: dict[int, set[int]] = defaultdict(set)
    for run in runs:
        sessions[run.cycle].add(run.session)
    company = Counter((run.cycle, run.session) for run in runs)
    parted = [run for run in runs if len(sessions[run.cycle]) > 1]
    alone = sum(company[run.cycle, run.session] == 1 for run in parted)
    if alone:
        results = "1 result is" if alone == 1 else f"{alone} results are"
        yield (
            f"{results} in no comparison: the study was resumed within the cycle, and nothing "
            "else of it ran in the same go; --resume PATH --cycles N adds cycles"
        )


def _about_kept(done: Sequence[SlotOutcome]) -> Iterator[Note]:
    """Say which results were set aside, and in whose place others were measured."""
    found = [one for one in done if one.aside]
    for one in found[:_MOST_NOTES]:
        place = "" if one.directory is None else f"{one.directory.root.name}: "
        again = "; another was measured" if isinstance(one.outcome, ExperimentResult) else ""
        yield Note(
            kind="resume",
            text=f"{place}a result that is damaged or not its own was set aside as "
            f"{', '.join(one.aside)}{again}",
        )
    if len(found) > _MOST_NOTES:
        more = f"{len(found) - _MOST_NOTES} more experiments have results that were set aside"
        yield Note(kind="resume", text=more)


def _about_earlier(runs: Sequence[_Run]) -> Iterator[str]:
    """Say which figures rest on results that an earlier rule made."""
    for text in (rule.text for rule in OF_EXPERIMENTS if rule.pooled):
        if count := sum(text in run.result.earlier_rules for run in runs):
            yield f"in {count} of {len(runs)} results, by an earlier rule: {text}"


def _about_again(outcomes: Iterable[SlotOutcome]) -> Iterator[str]:
    """Say which slots were measured again, and where what they said before is kept."""
    again = [one for one in outcomes if one.replaced]
    for slot, _, _, files, _ in again[:_MOST_NOTES]:
        yield (
            f"slot {slot.number} was measured again on request: what it said before is kept beside "
            f"it ({', '.join(files)}) and is in no figure"
        )


def _about_outliers(observed: _Observed, cycles: int) -> Iterator[Note]:
    """Name runs that stand far out, with the line that measures them again."""
    runs = {run.slot: run for rows in observed.values() for run, _ in rows}
    where = {
        run.slot: Located.of(run.slot, run.configuration, run.cycle, run.result.trust)
        for run in runs.values()
    }
    located = {
        metric: [(where[run.slot], observation) for run, observation in rows]
        for metric, rows in observed.items()
        if rows
    }
    kept = (run.directory for run in runs.values() if run.directory is not None)
    study = next((StudyDirectory.of(one).root for one in kept), None)
    path = "PATH" if study is None else shlex.quote(str(study))
    yield from outlier_notes(located, f"llem run --resume {path}", cycles)


def _about_starts(every: Sequence[_Run]) -> Iterator[str]:
    """Say how many experiments were not started as they were to be, and why."""
    reasons = Counter(
        run.result.resolved.start_reason
        for run in every
        if run.result.resolved.start_reason is not None
    )
    for reason, count in reasons.most_common(_MOST_NOTES):
        experiments = "1 experiment was" if count == 1 else f"{count} experiments were"
        yield f"{experiments} spawned, not forked: {reason}"


def _about_trust(every: Sequence[_Run]) -> Iterator[str]:
    """Say which results are in no figure, and why."""
    codes: Mapping[str, int] = Counter(
        reason.code
        for run in every
        for reason in run.result.trust.reasons
        if reason.level == "invalid"
    )
    for code, count in sorted(codes.items()):
        results = "1 result is" if count == 1 else f"{count} results are"
        yield f"{results} in no figure: {code}"
    changed = Counter(
        reason.detail
        for run in every
        for reason in run.result.trust.reasons
        if reason.code == "samples_changed"
    )
    for detail, count in changed.most_common(_MOST_NOTES):
        results = "1 result" if count == 1 else f"{count} results"
        yield f"{results} without the raw samples it was made from: {detail}"
    boards = {run.devices for run in every}
    if len(boards) > 1 and any(
        len({run.devices for run in every if run.configuration == one}) > 1
        for one in {run.configuration for run in every}
    ):
        yield "some configurations ran on more than one board; figures are kept apart by board"

"""``--dry-run`` of a study: what runs, what does not, in which order and for how long."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import typer

from llenergymeasure.cli.estimates import may_be_measured, memory_plan
from llenergymeasure.config.models import ExperimentConfig, StudyConfig
from llenergymeasure.config.settings_words import described, labels
from llenergymeasure.config.user_config import EffectiveSettings
from llenergymeasure.core.gpu_survey import survey_gpus
from llenergymeasure.exceptions import PreFlightError
from llenergymeasure.orchestration import preflight
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.report import format as written
from llenergymeasure.study.estimate import Duration, duration, first_look_s, study_s
from llenergymeasure.study.grid import Expansion, design_hash
from llenergymeasure.study.limits import TimeLimits
from llenergymeasure.study.manifest import Slot
from llenergymeasure.study.order import slots
from llenergymeasure.study.prepare import expanded
from llenergymeasure.study.runners.pool import with_runner_lines

ORDER_SHOWN = 40
SKIPS_SHOWN = 3


class _Row(NamedTuple):
    """One configuration of the plan."""

    label: str
    config: ExperimentConfig
    fingerprint: str
    memory: dict[str, Any]
    duration: Duration | None
    timeout_s: float


class _Plan(NamedTuple):
    """Everything that is printed."""

    study: StudyConfig
    expansion: Expansion
    rows: list[_Row]
    slots: tuple[Slot, ...]
    experiments_s: float | None
    gaps_s: float
    results_dir: str


def show(
    study: StudyConfig,
    settings: EffectiveSettings,
    *,
    as_json: bool,
    allow_large: bool = False,
) -> None:
    """Print what a study would do; nothing is loaded and no network is asked.

    Args:
        study: The study.
        settings: How it would be run on this machine.
        as_json: Whether to print JSON instead of text.
        allow_large: Whether its grid may be larger than is usual.

    Raises:
        StudyError: The grid is too large, or none of it can run.
        PreFlightError: It could not be run here; printed after the plan.
    """
    expansion = expanded(study, allow_large=allow_large)
    plan = _plan(study, settings, expansion)
    orders = [WorkOrder.of(config, settings) for config in expansion.experiments]
    places = {(order.runner, order.config.backend) for order in orders}
    problems = list(with_runner_lines(preflight.problems_for_plan(orders), places))
    if as_json and not problems:
        typer.echo(json.dumps(_as_data(plan), indent=2, ensure_ascii=False))
    elif not as_json:
        typer.echo("\n".join(_lines(plan)))
    if problems:
        raise PreFlightError(problems)


def _plan(study: StudyConfig, settings: EffectiveSettings, expansion: Expansion) -> _Plan:
    limits = TimeLimits(settings, study.execution.timeout_s)
    rows = list(_rows(study, settings, expansion, limits))
    order = slots(len(rows), study.execution)
    durations = {number: row.duration for number, row in enumerate(rows)}
    experiments_s, gaps_s = study_s(order, durations, study.execution, settings.config.execution)
    if experiments_s is not None:
        first = rows[order[0].configuration].config
        measured = may_be_measured(first, settings, limits)
        experiments_s += first_look_s(first, measured=measured)
    directory = str(settings.config.results_path())
    return _Plan(study, expansion, rows, order, experiments_s, gaps_s, directory)


def _rows(
    study: StudyConfig, settings: EffectiveSettings, expansion: Expansion, limits: TimeLimits
) -> Iterator[_Row]:
    every = survey_gpus().gpus
    names = labels(expansion.experiments)
    for config, name, hashed in zip(
        expansion.experiments, names, expansion.fingerprints, strict=True
    ):
        shape, gpus = limits.shape(config), every if limits.gpu_name(config) else ()
        measured = may_be_measured(config, settings, limits)
        expected = duration(
            config,
            shape,
            limits.rates(config),
            measured=measured,
            cold_start=study.cold_start,
        )
        if expected is not None:  # the idle device is known; the first experiment comes on top
            known_s = expected.clock_s - first_look_s(config, measured=measured)
            expected = expected._replace(clock_s=known_s)
        memory = memory_plan(config, shape, gpus)
        yield _Row(name, config, hashed, memory, expected, limits.of(config))


# JSON ---------------------------------------------------------------------------------------------


def _as_data(plan: _Plan) -> dict[str, Any]:
    execution = plan.study.execution
    return {
        "name": plan.study.name,
        "study_design_hash": _design_hash(plan),
        "generated": plan.expansion.generated,
        "configurations": [_row_data(row) for row in plan.rows],
        "merged": plan.expansion.merged,
        "skipped": [skip.model_dump(mode="json") for skip in plan.expansion.skipped],
        "execution": execution.model_dump(mode="json"),
        "cold_start": plan.study.cold_start,
        "order": [[slot.configuration, slot.cycle] for slot in plan.slots],
        "duration": {
            "experiments_s": plan.experiments_s,
            "gaps_s": plan.gaps_s,
            "total_s": _total_s(plan),
        },
        "results_dir": plan.results_dir,
    }


def _row_data(row: _Row) -> dict[str, Any]:
    return {
        "label": row.label,
        "experiment": row.config.model_dump(mode="json", exclude_none=True),
        "measurement_config_hash": row.fingerprint,
        "memory": row.memory,
        "duration_s": None if row.duration is None else row.duration.total_s,
        "timeout_s": row.timeout_s,
    }


def _design_hash(plan: _Plan) -> str:
    return design_hash(plan.expansion.fingerprints, cold_start=plan.study.cold_start)


def _total_s(plan: _Plan) -> float | None:
    return None if plan.experiments_s is None else plan.experiments_s + plan.gaps_s


# Text ---------------------------------------------------------------------------------------------


def _lines(plan: _Plan) -> Iterator[str]:
    expansion, execution = plan.expansion, plan.study.execution
    runs = written.count(len(plan.slots), "experiment")
    cycles = written.count(execution.n_cycles, "cycle")
    yield written.cut(f"study       {plan.study.name or 'without a name'}")
    yield f"runs        {runs}: {written.count(len(plan.rows), 'configuration')} x {cycles}"
    yield (
        f"design      {written.count(expansion.generated, 'combination')}, "
        f"{expansion.merged:,} merged, {len(expansion.skipped):,} skipped"
    )
    if plan.study.cold_start:
        yield "cold start  no warm-up; loading is measured"
    yield from _order_lines(plan)
    yield from _duration_lines(plan)
    yield written.cut(f"results in  {plan.results_dir}")
    yield f"design hash {_design_hash(plan)}"
    yield ""
    yield from _table(plan.rows)
    yield from _skip_lines(plan.expansion)


def _order_lines(plan: _Plan) -> Iterator[str]:
    execution = plan.study.execution
    seed = (
        ""
        if execution.cycle_order in ("sequential", "interleaved")
        else (f", seed {execution.seed}")
    )
    yield f"order       {execution.cycle_order}{seed}"
    if len(plan.rows) > 1 and len(plan.slots) <= ORDER_SHOWN:
        cycles: dict[int, list[str]] = {}
        for slot in plan.slots:
            block = 0 if execution.cycle_order == "sequential" else slot.cycle
            cycles.setdefault(block, []).append(str(slot.configuration + 1))
        for cycle in cycles.values():
            yield written.cut(f"            {' '.join(cycle)}")


def _duration_lines(plan: _Plan) -> Iterator[str]:
    gaps = f"{written.span(plan.gaps_s)} of gaps"
    total_s = _total_s(plan)
    if total_s is None:
        yield f"duration    unknown: the shape of a model is not known here; {gaps}"
    else:
        yield f"duration    about {written.span(total_s)}, with {gaps}"


def _table(rows: Sequence[_Row]) -> Iterator[str]:
    digits = len(str(len(rows)))
    wide = min(max(len(row.label) for row in rows), written.WIDTH - digits - 38)
    wide = max(wide, len("configuration"))
    yield f"{'#':>{digits}}  {'configuration':{wide}}  {'memory':>9} of {'device':9} {'each':>9}"
    for number, row in enumerate(rows, start=1):
        first, *rest = textwrap.wrap(row.label, wide)
        each = "?" if row.duration is None else written.span(row.duration.total_s)
        yield written.cut(f"{number:>{digits}}  {first:{wide}}  {_memory(row.memory)} {each:>9}")
        yield from (f"{'':{digits}}    {line}" for line in rest)
    if misfits := sum(row.memory.get("fits") is False for row in rows):
        needs = "needs" if misfits == 1 else "need"
        yield f"{written.count(misfits, 'configuration')} (marked >) {needs} more than there is"


def _memory(memory: Mapping[str, Any]) -> str:
    if "unknown" in memory:
        return f"{'unknown':>9}    {'':9}"
    total, capacity = written.memory(memory["total_mb"]), memory["capacity_mb"]
    if capacity is None:
        return f"{total:>9}    {'':9}"
    return f"{total:>9} {'> ' if memory['fits'] is False else 'of'} {written.memory(capacity):9}"


def _skip_lines(expansion: Expansion) -> Iterator[str]:
    if not expansion.skipped:
        return
    yield ""
    yield f"skipped     {len(expansion.skipped):,}"
    reasons = Counter(skip.reason for skip in expansion.skipped)
    for reason, count in reasons.most_common():
        yield from _wrapped(f"{count:,} x {reason}", "      ")
        alike = [skip for skip in expansion.skipped if skip.reason == reason]
        for skip in alike[:SKIPS_SHOWN]:
            yield written.cut(f"      {described(skip.config)}")
        if count > SKIPS_SHOWN:
            yield f"      and {count - SKIPS_SHOWN:,} more; --json lists all"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, written.WIDTH, initial_indent="  ", subsequent_indent=indent)

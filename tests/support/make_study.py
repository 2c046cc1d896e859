"""Studies of made results, for tests: what the figures are is up to the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import (
    ExperimentResult,
    FailedExperiment,
    Skipped,
    StudyResult,
)
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.study.collect import SlotOutcome, study_result
from llenergymeasure.study.manifest import Slot, StudyPlan
from tests.support.make_result import make_energy, make_result, make_throughput
from tests.support.study_on_disk import make_execution, make_plan

Made = ExperimentResult | FailedExperiment | None


def make_configs(batch_sizes: Sequence[int] = (1, 8)) -> tuple[ExperimentConfig, ...]:
    """Make configurations that differ in batch size."""
    return tuple(
        ExperimentConfig(model="m", n=20, pytorch={"batch_size": size}) for size in batch_sizes
    )


def make_run(
    config: ExperimentConfig,
    energy_j: float | None = 800.0,
    rate: float = 200.0,
    **changes: Any,
) -> ExperimentResult:
    """Make the result of one run; energy of ``None`` is energy that was not measured."""
    values: dict[str, Any] = {
        "config": config,
        "energy": make_energy(energy_j),
        "throughput": make_throughput(output_tokens_per_second=rate),
    }
    return make_result(**{**values, **changes})


def make_failure(config: ExperimentConfig, message: str = "out of memory") -> FailedExperiment:
    """Make an experiment that broke while it loaded."""
    return FailedExperiment(config=config, phase="load", code="backend_error", message=message)


def make_design(
    configs: Sequence[ExperimentConfig],
    cycles: int = 3,
    skipped: Sequence[Skipped] = (),
    order: str = "balanced",
) -> StudyPlan:
    """Make a design with nothing merged."""
    execution = make_execution(n_cycles=cycles, cycle_order=order)
    return make_plan(
        configs,
        execution=execution,
        name="batch-sizes",
        skipped=tuple(skipped),
        generated=len(configs) + len(skipped),
    )


def make_study(
    run: Callable[[ExperimentConfig, int, int], Made],
    configs: Sequence[ExperimentConfig] | None = None,
    cycles: int = 3,
    **design: Any,
) -> StudyResult:
    """Make a study whose every slot is what ``run(config, configuration, cycle)`` gives."""
    chosen = make_configs() if configs is None else configs
    outcomes = []
    for cycle in range(1, cycles + 1):
        turns = range(len(chosen)) if cycle % 2 else reversed(range(len(chosen)))
        for index in turns:
            slot = Slot(len(outcomes) + 1, index, cycle)
            directory = ExperimentDirectory(Path(f"{slot.number:04}"))
            outcomes.append(SlotOutcome(slot, run(chosen[index], index + 1, cycle), directory))
    return study_result(make_design(chosen, cycles, **design), outcomes)


def verdicts(study: StudyResult, metric: str) -> Mapping[tuple[int, int], str]:
    """Give the verdict on each pair."""
    return {(c.a, c.b): c.verdict for c in study.comparisons if c.metric == metric}

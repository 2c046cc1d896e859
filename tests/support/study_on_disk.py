"""Studies on disk without running them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import FailedExperiment
from llenergymeasure.results.files import write_json_atomically
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.results.persistence import to_json
from llenergymeasure.study.manifest import ExecutionPlan, Slot, StudyPlan, write_manifest
from tests.support.make_result import make_result, make_window

CREATED = datetime(2026, 2, 18, 14, 30, 5, tzinfo=UTC)


def scripted(batch_size: int, **fields: Any) -> ExperimentConfig:
    """Make one configuration of a study of batch sizes."""
    script = {"batch_size": batch_size}
    return ExperimentConfig(model="m", backend="scripted", scripted=script, **fields)


def interleaved(count: int, execution: ExecutionPlan) -> tuple[Slot, ...]:
    """Give the order A B, A B, A B."""
    return tuple(
        Slot(cycle * count + index + 1, index, cycle + 1)
        for cycle in range(execution.n_cycles)
        for index in range(count)
    )


def make_execution(**fields: Any) -> ExecutionPlan:
    """Make the execution of a study of three interleaved cycles without rests."""
    values: dict[str, Any] = {
        "n_cycles": 3,
        "cycle_order": "interleaved",
        "config_gap_seconds": 0.0,
        "cycle_gap_seconds": 0.0,
        "seed": 7,
    }
    return ExecutionPlan(**{**values, **fields})


def make_plan(experiments: Sequence[ExperimentConfig], **fields: Any) -> StudyPlan:
    """Make the plan of a study."""
    execution = fields.pop("execution", make_execution())
    values: dict[str, Any] = {
        "name": "sizes",
        "study_design_hash": "0" * 16,
        "created_at": CREATED,
        "execution": execution,
        "generated": len(experiments),
        "experiments": tuple(experiments),
        "slots": interleaved(len(experiments), execution),
    }
    return StudyPlan(**{**values, **fields})


def make_study(root: Path, plan: StudyPlan, complete: Iterable[int] = ()) -> StudyDirectory:
    """Write a study of which some slots, by number, have a result."""
    study = StudyDirectory(root)
    root.mkdir(parents=True, exist_ok=True)
    write_manifest(study, plan)
    for number in complete:
        slot = plan.slots[number - 1]
        finish(plan.directory(study, slot), plan.config(slot))
    return study


def finish(directory: ExperimentDirectory, config: ExperimentConfig, **changes: Any) -> None:
    """Leave a result; what it belongs to in the study can be given as ``place``."""
    directory.root.mkdir(parents=True, exist_ok=True)
    window = make_window(zlib.crc32(str(directory.root).encode()))
    to_json(make_result(config=config, window=window, **changes), directory.root)


def break_off(directory: ExperimentDirectory, config: ExperimentConfig, code: str) -> None:
    """Leave an error, a log and half of the rest."""
    directory.root.mkdir(parents=True, exist_ok=True)
    failure = FailedExperiment(config=config, phase="measure", code=code, message="it broke")
    write_json_atomically(directory.error, failure.model_dump_json(indent=2) + "\n")
    directory.log.write_text("said the engine\n")
    directory.events.write_text("{}\n")
    (directory.root / ".result.json.0123.tmp").write_text("{")


def names(directory: ExperimentDirectory) -> set[str]:
    """Give the names of what is in the directory of an experiment."""
    return {path.name for path in directory.root.iterdir()}

"""One experiment on the scripted backend, through the orchestrator, as a worker would run it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import ExperimentResult
from llenergymeasure.orchestration.assemble import ResultCollector
from llenergymeasure.orchestration.events import EventLog
from llenergymeasure.orchestration.orchestrator import (
    ExperimentOrchestrator,
    Measurement,
    SourceChoice,
)
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.state.machine import StateMachine
from tests.support.make_result import make_environment


@dataclass(frozen=True)
class ScriptedRun:
    """What came of it.

    Attributes:
        measurement: What was measured.
        events: The lines of ``events.jsonl``.
        machine: Where the experiment stood at the end.
    """

    measurement: Measurement
    events: list[dict[str, Any]]
    machine: StateMachine

    @property
    def phases(self) -> list[str]:
        return [event["phase"] for event in self.events if event["done"] is None]

    @property
    def states(self) -> dict[str, str]:
        return {event["phase"]: event["state"] for event in self.events}

    @property
    def result(self) -> ExperimentResult:
        return ResultCollector(self.measurement, make_environment())([self.measurement.raw])


def scripted_config(**fields: Any) -> ExperimentConfig:
    """Make an experiment of four requests of three tokens that takes some tens of milliseconds."""
    values: dict[str, Any] = {
        "model": "none",
        "backend": "scripted",
        "n": 4,
        "max_new_tokens": 3,
        "scripted": {"ttft_ms": 4.0, "itl_ms": 1.0, "batch_size": 2},
        "warmup": {"n_warmup": 1, "thermal_floor_seconds": 0},
        "baseline": {"duration_seconds": 0.02},
    }
    return ExperimentConfig(**{**values, **fields})


def make_order(config: ExperimentConfig, folder: Path, **fields: Any) -> WorkOrder:
    """Make the order for an experiment that reads no energy unless told otherwise."""
    values: dict[str, Any] = {"energy_backend": "none", "model_cache_dir": str(folder / "cache")}
    return WorkOrder(config=config, **{**values, **fields})


def run_scripted(
    folder: Path, config: ExperimentConfig, select: SourceChoice | None = None, **fields: Any
) -> ScriptedRun:
    """Run an experiment, with an energy source of the caller's choice."""
    path = folder / "events.jsonl"
    chosen = {} if select is None else {"select": select}
    with contextlib.closing(EventLog(path)) as events:
        machine = StateMachine(events.phase)
        order = make_order(config, folder, **fields)
        measurement = ExperimentOrchestrator(order, machine, events, **chosen).run()
    return ScriptedRun(
        measurement, [json.loads(line) for line in path.read_text().splitlines()], machine
    )

"""The worker: runs the experiment of a directory, however its process was started.

It reads ``config.json``, appends to ``events.jsonl``, and leaves ``result.json`` or ``error.json``.
Inline it is called; in a process of its own it is ``python -m llenergymeasure.orchestration.worker
DIRECTORY``.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from pathlib import Path

from llenergymeasure._version import __version__
from llenergymeasure.config.secrets import redact
from llenergymeasure.core.environment import capture
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.exceptions import ExperimentError, LLEMError
from llenergymeasure.orchestration.assemble import ResultCollector
from llenergymeasure.orchestration.capture import captured_output
from llenergymeasure.orchestration.events import EventLog, Listener
from llenergymeasure.orchestration.orchestrator import ExperimentOrchestrator
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.protocols import MetricsCollector, ResultsRepository
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.repository import DirectoryRepository
from llenergymeasure.state.machine import StateMachine


def run(
    directory: ExperimentDirectory, listener: Listener | None = None
) -> FailedExperiment | None:
    """Run the experiment of a directory.

    Args:
        directory: Holds ``config.json``.
        listener: Told of every event, in this process.

    Returns:
        What ``error.json`` says, or ``None`` when ``result.json`` is in place.

    Raises:
        KeyboardInterrupt: The user interrupted; ``error.json`` says so.
    """
    order = WorkOrder.model_validate_json(directory.config.read_bytes())
    repository: ResultsRepository = DirectoryRepository(directory)
    with contextlib.closing(EventLog(directory.events, listener)) as events:
        machine = StateMachine(events.phase)
        with captured_output(directory.log):
            try:
                _measure_and_save(repository, order, machine, events)
            except LLEMError as error:
                return _fail(repository, order, machine.phase, error.code, error.message)
            except KeyboardInterrupt:
                _fail(repository, order, machine.phase, "interrupted", "interrupted by the user")
                raise
            except Exception as error:  # noqa: BLE001 - the worker's entry: nothing may go unreported
                traceback.print_exc()
                message = f"{type(error).__name__}: {error}"
                return _fail(repository, order, machine.phase, "internal", message)
    return None


def _measure_and_save(
    repository: ResultsRepository, order: WorkOrder, machine: StateMachine, events: EventLog
) -> None:
    snapshot = capture(
        llenergymeasure_version=__version__,
        carbon_intensity_gco2_kwh=order.carbon_intensity_gco2_kwh,
        carbon_intensity_source=order.carbon_intensity_source,
        datacenter_pue=order.datacenter_pue,
        datacenter_pue_source=order.datacenter_pue_source,
    )
    measurement = ExperimentOrchestrator(order, machine, events).run()
    machine.enter("save")
    collector: MetricsCollector = ResultCollector(measurement, snapshot)
    result = collector([measurement.raw])
    repository.save_samples(measurement.raw)
    repository.save_result(result)


def _fail(
    repository: ResultsRepository, order: WorkOrder, phase: str, code: str, message: str
) -> FailedExperiment:
    failure = FailedExperiment(config=order.config, phase=phase, code=code, message=redact(message))
    # A full disk may refuse this too; the caller still has the failure itself.
    with contextlib.suppress(ExperimentError):
        repository.save_failure(failure)
    return failure


def collect(
    directory: ExperimentDirectory, failure: FailedExperiment | None = None
) -> ExperimentResult:
    """Read what a worker left.

    Args:
        directory: Where it ran.
        failure: What it returned, where it ran inline and the disk may have refused to keep it.

    Raises:
        ExperimentError: It failed, or left nothing that can be read.
    """
    if directory.result.is_file():
        return ExperimentResult.from_json(directory.result)
    if failure is None and directory.error.is_file():
        failure = FailedExperiment.model_validate_json(directory.error.read_bytes())
    if failure is None:
        raise ExperimentError(
            f"the worker left neither a result nor an error in {directory.root}",
            where=str(directory.root),
        )
    raise ExperimentError(
        f"the experiment failed in phase '{failure.phase}': {failure.message}",
        where=failure.phase,
        config=failure.config.model_dump(mode="json"),
        cause=failure.code,
    )


def main(arguments: list[str]) -> int:
    """Run as a process of its own; 0 with a result, 1 without, 130 after an interrupt."""
    logging.captureWarnings(True)
    try:
        return 0 if run(ExperimentDirectory(Path(arguments[0]))) is None else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

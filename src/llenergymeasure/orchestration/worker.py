"""The worker: runs the experiment of a directory, however its process was started.

It reads ``config.json``, appends to ``events.jsonl``, and leaves ``result.json`` or ``error.json``.
Inline it is called; in a process of its own it is ``python -m llenergymeasure.orchestration.worker
DIRECTORY``.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from llenergymeasure._version import __version__
from llenergymeasure.config.secrets import redact
from llenergymeasure.core.energy import get_active_energy_backend
from llenergymeasure.core.energy.calibration_store import known_sensors
from llenergymeasure.core.environment import capture
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.domain.samples import RawProcessResult
from llenergymeasure.exceptions import ExperimentError, LLEMError
from llenergymeasure.orchestration.assemble import ResultCollector
from llenergymeasure.orchestration.capture import captured_output, tail
from llenergymeasure.orchestration.events import EventLog, Listener
from llenergymeasure.orchestration.interruption import Interruption
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
    repository, interruption = DirectoryRepository(directory), Interruption()
    with contextlib.ExitStack() as stack:
        try:
            log = EventLog(directory.events, listener, interruption.check)
            events = stack.enter_context(contextlib.closing(log))
            stack.enter_context(captured_output(directory.log))
        except OSError as error:
            return _fail(repository, order, "start", "experiment", _unwritable(error))
        stack.enter_context(interruption.noticed())
        return _run_phases(repository, order, events, interruption)


def _run_phases(
    repository: DirectoryRepository, order: WorkOrder, events: EventLog, interruption: Interruption
) -> FailedExperiment | None:
    machine = StateMachine(events.phase)
    try:
        _measure_and_save(repository, order, machine, events)
    except KeyboardInterrupt:
        raise _interrupt(repository, order, machine.phase) from None
    except Exception as error:  # noqa: BLE001 - the worker's entry: nothing may go unreported
        if interruption.seen:  # an engine makes other errors of it
            raise _interrupt(repository, order, machine.phase) from None
        return _broken(repository, order, machine.phase, error)
    return None


def _broken(
    repository: DirectoryRepository, order: WorkOrder, phase: str, error: Exception
) -> FailedExperiment:
    if isinstance(error, LLEMError):
        return _fail(repository, order, phase, error.code, error.message)
    traceback.print_exception(error)
    return _fail(repository, order, phase, "internal", f"{type(error).__name__}: {error}")


def _unwritable(error: OSError) -> str:
    return f"cannot write {error.filename}: {error.strerror}; put results elsewhere with --output"


def _interrupt(repository: DirectoryRepository, order: WorkOrder, phase: str) -> KeyboardInterrupt:
    directory = repository.directory
    if directory.result.is_file():
        return KeyboardInterrupt(f"interrupted after the result was written to {directory.root}")
    _fail(repository, order, phase, "interrupted", "interrupted by the user")
    return KeyboardInterrupt(f"interrupted in phase '{phase}'; no result was written")


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
    driver = snapshot.driver_version
    known = known_sensors(None if order.data_dir is None else Path(order.data_dir), driver)
    select = functools.partial(get_active_energy_backend, known=known)
    measurement = ExperimentOrchestrator(order, machine, events, select, driver).run()
    machine.enter("save")
    collector: MetricsCollector = ResultCollector(measurement, snapshot)
    result = collector([measurement.raw])
    try:
        _save(repository, measurement.raw, result)
    except ExperimentError as error:
        raise _rescued(error, measurement.raw, result) from None


def _save(repository: ResultsRepository, raw: RawProcessResult, result: ExperimentResult) -> None:
    repository.save_samples(raw)
    repository.save_result(result)


def _rescued(
    error: ExperimentError, raw: RawProcessResult, result: ExperimentResult
) -> ExperimentError:
    """Keep what was measured in the temporary directory of the system, and say so.

    Gives the error as it was where there is no room either.
    """
    try:
        root = Path(tempfile.mkdtemp(prefix="llem-rescued-"))
    except OSError:
        return error
    try:
        _save(DirectoryRepository(ExperimentDirectory(root)), raw, result)
    except ExperimentError:
        shutil.rmtree(root, ignore_errors=True)
        return error
    return ExperimentError(
        f"{error.message}\n  what was measured is kept in {root}",
        where=error.where,
        cause=error.cause,
    )


def _fail(
    repository: ResultsRepository, order: WorkOrder, phase: str, code: str, message: str
) -> FailedExperiment:
    failure = FailedExperiment(config=order.config, phase=phase, code=code, message=redact(message))
    # A full disk may refuse this too; the caller still has the failure itself.
    with contextlib.suppress(ExperimentError):
        repository.save_failure(failure)
    return failure


def collect(
    directory: ExperimentDirectory, failure: FailedExperiment | None = None, *, kept: bool = True
) -> ExperimentResult:
    """Read what a worker left.

    Args:
        directory: Where it ran.
        failure: What it returned, where it ran inline and the disk may have refused to keep it.
        kept: Whether the directory stays, so that a message can point into it.

    Raises:
        ExperimentError: It failed, or left nothing that can be read. What the engine printed last
            is a note of the exception.
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
    raise _error(directory, failure, kept=kept)


def _error(
    directory: ExperimentDirectory, failure: FailedExperiment, *, kept: bool
) -> ExperimentError:
    said = tail(directory.log)
    hint = f"\n  what the engine printed: {directory.log}" if kept and said else ""
    error = ExperimentError(
        f"the experiment failed in phase '{failure.phase}': {failure.message}{hint}",
        where=failure.phase,
        config=failure.config.model_dump(mode="json"),
        cause=failure.code,
    )
    if said:
        error.add_note(f"the engine's last words:\n{said}")
    return error


def main(arguments: list[str]) -> int:
    """Run as a process of its own; 0 with a result, 1 without, 130 after an interrupt."""
    logging.captureWarnings(True)
    try:
        return 0 if run(ExperimentDirectory(Path(arguments[0]))) is None else 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The worker: runs the experiment of a directory, however its process was started.

It reads ``config.json``, appends to ``events.jsonl``, and leaves ``result.json`` or ``error.json``.
Inline it is called; in a process of its own it is ``python -m llenergymeasure.orchestration.worker
DIRECTORY METHOD [REASON]``, or a forked process calls :func:`main` with the same arguments.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from llenergymeasure import locks
from llenergymeasure.config.models import STORED
from llenergymeasure.core.energy.selection import get_active_energy_backend
from llenergymeasure.core.energy.stored import known_sensors
from llenergymeasure.core.environment import capture
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment, Outcome
from llenergymeasure.exceptions import (
    PUT_ELSEWHERE,
    ExperimentError,
    LLEMError,
    cause_and_remedy,
)
from llenergymeasure.orchestration.assemble import ResultCollector
from llenergymeasure.orchestration.capture import captured_output, tail
from llenergymeasure.orchestration.events import EventLog, Listener
from llenergymeasure.orchestration.orchestrator import ExperimentOrchestrator, Measurement
from llenergymeasure.orchestration.order import SITE, Start, WorkOrder
from llenergymeasure.processes import variables, with_programs_of
from llenergymeasure.protocols import MetricsCollector, ResultsRepository
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import DirectoryRepository
from llenergymeasure.state.machine import StateMachine

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_OWN_LOG = Path("/proc/self/fd/1")  # there when its name has gone with the directory
_WITH_LOG = ("fork", "spawn")


class Interruption:
    """Remembers that a signal came, beside what its handler does, so that it is not lost.

    The handler raises ``KeyboardInterrupt`` wherever the program happens to be. Extension modules
    that are being imported, finalisers and callbacks swallow it; :meth:`check` raises it again.

    Attributes:
        seen: Whether one came.
    """

    def __init__(self) -> None:
        self.seen = False

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` if a signal has come."""
        if self.seen:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def noticed(self) -> Iterator[None]:
        """Take note inside the block; only the main thread gets signals."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in _SIGNALS}

        def handle(number: int, frame: FrameType | None) -> None:
            self.seen = True
            chained[number](number, frame)

        chained = {number: handler for number, handler in before.items() if callable(handler)}
        for number in chained:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number, handler in chained.items():
                signal.signal(number, handler)


def run(
    directory: ExperimentDirectory,
    listener: Listener | None = None,
    started: Start | None = None,
) -> Outcome:
    """Run the experiment of a directory.

    Args:
        directory: Holds ``config.json``.
        listener: Told of every event, in this process.
        started: How this process was started, where the order does not know.

    Returns:
        What ``result.json`` holds, or what ``error.json`` says.

    Raises:
        KeyboardInterrupt: The user interrupted; ``error.json`` says so.
    """
    order = WorkOrder.model_validate_json(directory.config.read_bytes(), context=STORED)
    if started is not None:
        how = {"start_method": started.method, "start_reason": started.reason}
        order = order.model_copy(update=how)
    repository, interruption = DirectoryRepository(directory), Interruption()
    with contextlib.ExitStack() as stack:
        if (busy := _claim(directory, stack)) is not None:
            return FailedExperiment(
                config=order.config, phase="start", code="experiment", message=busy
            )
        try:
            log = EventLog(directory.events, listener, interruption.check)
            events = stack.enter_context(contextlib.closing(log))
            stack.enter_context(captured_output(directory.log))
        except OSError as error:
            why = cause_and_remedy(error, Path(error.filename or directory.root))
            said = f"cannot write {error.filename}: {why}, or {PUT_ELSEWHERE}"
            return _fail(repository, order, "start", ("experiment", said))
        stack.enter_context(interruption.noticed())
        search_path = with_programs_of(sys.executable, os.environ.get("PATH", os.defpath))
        stack.enter_context(variables({"PATH": search_path}))
        return _run_phases(repository, order, events, interruption)


def _claim(directory: ExperimentDirectory, stack: contextlib.ExitStack) -> str | None:
    """Be the only worker of a directory; say who else is where that cannot be.

    A worker that outlived its study must not mix its files with those of a resume. A file system
    without locks does without this guard.
    """
    with contextlib.suppress(OSError):
        lock = locks.take(directory.worker_lock)
        if lock is None:
            owner = locks.owner_of(directory.worker_lock) or "another process"
            return f"{directory.root} is being measured by {owner}"
        stack.callback(lock.release, remove=True)
    return None


def _run_phases(
    repository: DirectoryRepository, order: WorkOrder, events: EventLog, interruption: Interruption
) -> Outcome:
    machine = StateMachine(events.phase)
    try:
        return _measure_and_save(repository, order, machine, events)
    except KeyboardInterrupt:
        raise _interrupt(repository, order, machine.phase) from None
    except Exception as error:  # noqa: BLE001 - the worker's entry: nothing may go unreported
        if interruption.seen:  # an engine makes other errors of it
            raise _interrupt(repository, order, machine.phase) from None
        if not isinstance(error, LLEMError):
            traceback.print_exception(error)
            said = f"{type(error).__name__}: {error}"
            return _fail(repository, order, machine.phase, ("internal", said))
        for note in getattr(error, "__notes__", ()):
            sys.stderr.write(f"{note}\n")  # which is log.txt here
        rescued = error.rescued if isinstance(error, ExperimentError) else None
        return _fail(repository, order, machine.phase, (error.code, error.message), rescued)


def _interrupt(repository: DirectoryRepository, order: WorkOrder, phase: str) -> KeyboardInterrupt:
    directory = repository.directory
    if directory.result.is_file():
        return KeyboardInterrupt(f"interrupted after the result was written to {directory.root}")
    _fail(repository, order, phase, ("interrupted", "interrupted by the user"))
    return KeyboardInterrupt(f"interrupted in phase '{phase}'; no result was written")


def _measure_and_save(
    repository: DirectoryRepository, order: WorkOrder, machine: StateMachine, events: EventLog
) -> ExperimentResult:
    snapshot = capture(order.model_dump(include=SITE))
    driver = snapshot.driver_version
    folder = None if order.data_dir is None else Path(order.data_dir)
    known = functools.partial(known_sensors, folder, driver)
    select = functools.partial(get_active_energy_backend, known=known)
    measurement = ExperimentOrchestrator(
        order, machine, events, select, driver, directory=repository.directory
    ).run()
    machine.enter("save")
    collector: MetricsCollector = ResultCollector(measurement, snapshot)
    try:
        return _save(repository, measurement, collector)
    except ExperimentError as error:
        error.rescued = _elsewhere(order, lambda kept: _save(kept, measurement, collector))
        raise


def _save(
    repository: ResultsRepository, made: Measurement, collector: MetricsCollector
) -> ExperimentResult:
    """Save raw samples before anything is derived from them: whatever comes then, they are kept."""
    files = repository.save_samples(made.processes, made.windows)
    result = collector(made.processes).model_copy(update={"files": dict(files)})
    repository.save_result(result)
    return result


def _elsewhere(order: WorkOrder, save: Callable[[DirectoryRepository], object]) -> str | None:
    """Save what the experiment's directory does not take where the order says; tell the folder.

    Gives ``None`` where there is no room either.
    """
    for place in order.rescues():
        try:
            place.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            save(DirectoryRepository(place))
        except (ExperimentError, OSError):
            if not place.result.exists():  # half of it says nothing
                shutil.rmtree(place.root, ignore_errors=True)
        else:
            return str(place.root)
    return None


def _fail(
    repository: DirectoryRepository,
    order: WorkOrder,
    phase: str,
    told: tuple[str, str],
    rescued: str | None = None,
) -> FailedExperiment:
    """Leave a failure of a code and a message, and what else is kept of the experiment."""
    code, message = told
    failure = FailedExperiment(
        config=order.config, phase=phase, code=code, message=message, rescued=rescued
    )
    try:
        repository.save_failure(failure)
    except ExperimentError:
        # The caller still has the failure itself; a process that waits for this one looks there.
        if order.rescue is not None:
            sys.stderr.flush()
            said = tail(_OWN_LOG) if order.start_method in _WITH_LOG else ""
            aside = failure.model_copy(update={"log_tail": said})
            _elsewhere(order, lambda kept: kept.save_failure(aside))
    return failure


def error_of(
    failure: FailedExperiment, directory: ExperimentDirectory, *, kept: bool
) -> ExperimentError:
    """Make the exception of an experiment that failed; the engine's last words are a note of it.

    Args:
        failure: What is known of it.
        directory: Where it ran.
        kept: Whether the directory stays, so that the message can point into it.
    """
    said = tail(directory.log)
    hint = f"\n  what the engine printed: {directory.log}" if kept and said else ""
    if failure.rescued is not None:
        hint += f"\n  what was measured is kept in {failure.rescued}"
    error = ExperimentError(
        f"the experiment failed in phase '{failure.phase}': {failure.message}{hint}",
        where=failure.phase,
        config=failure.config.model_dump(mode="json"),
        cause=failure.code,
        rescued=failure.rescued,
    )
    if said:
        error.add_note(f"the engine's last words:\n{said}")
    return error


def main(arguments: list[str]) -> int:
    """Run as a process of its own; 0 with a result, 1 without, 128 + its number after a signal.

    Args:
        arguments: The directory, how this process was started, and why not otherwise.
    """
    root, *how = arguments
    directory = ExperimentDirectory(Path(root))
    signals = _end_in_good_order_once()
    logging.captureWarnings(True)
    try:
        outcome = run(directory, started=Start(*how))
    except KeyboardInterrupt:
        return 128 + next(iter(signals), signal.SIGINT)
    if isinstance(outcome, ExperimentResult):
        return 0
    if not directory.error.is_file():
        sys.stderr.write(f"{outcome.message}\n")  # which is log.txt here, all that will be read
    return 1


def _end_in_good_order_once() -> Sequence[int]:
    """Have the first SIGINT or SIGTERM interrupt the experiment, whatever was inherited.

    A later one would break into the closing of files; who cannot wait uses SIGKILL.

    Returns:
        Their numbers, as they come.
    """
    seen: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 1:
            raise KeyboardInterrupt

    for each in _SIGNALS:
        signal.signal(each, handle)
    return seen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

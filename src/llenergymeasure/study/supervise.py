"""Waits for one worker and says what came of it, however it ended."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from llenergymeasure.core.allowance import read_oom_kills
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment, Outcome
from llenergymeasure.exceptions import ExperimentError, LLEMError
from llenergymeasure.orchestration.capture import redact_file, tail
from llenergymeasure.orchestration.events import Event
from llenergymeasure.orchestration.order import WorkOrder
from llenergymeasure.results.files import numbered, set_aside
from llenergymeasure.results.layout import ExperimentDirectory
from llenergymeasure.results.persistence import DirectoryRepository, read_failure
from llenergymeasure.study.endings import MemoryWatch, signal_of, told_by_signal
from llenergymeasure.study.events import Callbacks
from llenergymeasure.study.runners.protocol import Job

WAITING = "wait"
"""Phase in which an experiment waits for a device that another one uses."""

LOADING = ("load", "prepare")
"""Phases in which a model is loaded, and prompts become tokens."""

LOOK_EVERY_S = 0.5
"""Between two looks at the events; the end of the worker is noticed at once."""

STOP_EVERY_S = 0.1
"""Between two looks at whether an impatient user will not wait for an interrupted worker."""

GRACE_S = 10.0
"""Time an interrupted worker has to close its files, and a finished one to go."""

DOCKER_REFUSED = 125
"""Exit code of ``docker run`` where the container did not start; docs.docker.com, "docker run"."""


class Ended(NamedTuple):
    """A worker that has ended.

    Attributes:
        outcome: The result, or the failure that ``error.json`` holds.
        waited_s: How long it waited for a device, s.
    """

    outcome: Outcome
    waited_s: float


def supervise(  # noqa: PLR0913 - its two limits are given by name
    job: Job,
    directory: ExperimentDirectory,
    order: WorkOrder,
    calls: Callbacks,
    *,
    within_s: float,
    loading_within_s: float = math.inf,
    oom_kills: Callable[[], Mapping[str, int]] = read_oom_kills,
) -> Ended:
    """Wait for a worker to end, and read what it left.

    Args:
        job: The worker.
        directory: Where it writes.
        order: What it was told.
        calls: Told of every event, and asked how an interrupt goes.
        within_s: Longest time it may take, without waiting for a device, s.
        loading_within_s: Longest time for loading the model and preparing its prompts, s.
        oom_kills: Counts what the kernel has killed for want of memory, by what counts.

    Returns:
        What came of it; ``error.json`` is written here where the worker could not.

    Raises:
        KeyboardInterrupt: The user interrupted; the worker is gone, and ``error.json`` says so
            unless the result was already in place.
    """
    watch = _Watch(job, directory, calls, within_s, loading_within_s)
    memory = MemoryWatch(oom_kills)
    try:
        code = watch.until_it_ends()
    except KeyboardInterrupt:
        watch.interrupt()
        raise _interrupted(directory, order, watch.progress.phase) from None
    except BaseException:
        job.kill()
        raise
    redact_file(directory.log)
    waited_s = watch.progress.waited_s(time.monotonic_ns())
    return Ended(_outcome(directory, order, watch, memory, code), waited_s)


class _Watch:
    """Follows one worker until it has ended."""

    def __init__(
        self,
        job: Job,
        directory: ExperimentDirectory,
        calls: Callbacks,
        within_s: float,
        loading_within_s: float,
    ) -> None:
        self._job, self.directory = job, directory
        self.in_container = job.start.method == "docker"
        self._calls, self.within_s = calls, within_s
        self.loading_within_s = loading_within_s
        self._events, self.progress = EventReader(directory.events), WorkerProgress()
        self._started_ns = time.monotonic_ns()
        self.timed_out = False

    @property
    def fate(self) -> str | None:
        """What befell the worker that its exit code does not tell."""
        return self._job.fate

    def until_it_ends(self) -> int | None:
        """Sleep until the worker has ended or was killed for taking too long; give its code."""
        done_ns: int | None = None
        while (code := self._job.wait(min(LOOK_EVERY_S, self._left_s()))) is None:
            self._tell()
            left = self.directory.result.is_file() or self.directory.error.is_file()
            if done_ns is None and left:
                done_ns = time.monotonic_ns()
            hangs = done_ns is not None and time.monotonic_ns() - done_ns > GRACE_S * 1e9
            if hangs or self._left_s() == 0:
                self.timed_out = not hangs
                self._job.kill()
        self._tell()
        return code

    def interrupt(self) -> None:
        """Have the worker end in good order, or at once if the user insists or it hangs."""
        deadline_s = time.monotonic() + GRACE_S
        try:
            self._job.interrupt()
            while self._job.wait(STOP_EVERY_S) is None:
                if self._calls.stop() or time.monotonic() > deadline_s:
                    break
        except KeyboardInterrupt:
            pass
        finally:
            self._job.kill()
        self._tell()

    def _tell(self) -> None:
        for event in self._events.fresh():
            self.progress.note(event)
            self._calls.listener(event)

    def _left_s(self) -> float:
        now_ns = time.monotonic_ns()
        spent_s = (now_ns - self._started_ns) / 1e9 - self.progress.waited_s(now_ns)
        loading_s = self.progress.loading_s(now_ns)
        return max(0.0, min(self.within_s - spent_s, self.loading_within_s - loading_s))


def _outcome(
    directory: ExperimentDirectory,
    order: WorkOrder,
    watch: _Watch,
    memory: MemoryWatch,
    code: int | None,
) -> Outcome:
    phase, config = watch.progress.phase, order.config
    said = tail(directory.log)
    try:
        if directory.result.is_file():
            return ExperimentResult.from_json(directory.result)
        for place in (directory, *order.rescues()):
            if place.error.is_file():
                told = read_failure(place.error)
                number = signal_of(code)
                if told.code == "interrupted" and number is not None:  # and not by this study
                    by_whom = told_by_signal(number, order, memory)
                    told = told.model_copy(update={"code": "killed", "message": by_whom})
                    kept(directory, told)
                if place is not directory:
                    kept(directory, told)
                    _remove(place)
                return told if told.log_tail else told.model_copy(update={"log_tail": said})
        what, message = _cause(order, watch, memory, code)
        if not directory.root.is_dir():
            message += f"; its directory {directory.root} is gone, and what it said with it"
    except (LLEMError, OSError) as error:
        file = directory.result if directory.result.is_file() else directory.error
        reason = " ".join(str(error).split())
        message = f"the worker left a {file.name} that cannot be read ({reason})"
        what = f"malformed_{file.stem}"
        with contextlib.suppress(OSError):
            if (number := set_aside((file,), "malformed")) is not None:
                message += f"; it is kept as {numbered(file, number, 'malformed')}"
    failure = FailedExperiment(
        config=config, phase=phase, code=what, message=message, log_tail=said
    )
    return kept(directory, failure)


def kept(directory: ExperimentDirectory, failure: FailedExperiment) -> FailedExperiment:
    """Save a failure; a full disk, or a directory that is gone, may refuse it."""
    with contextlib.suppress(ExperimentError):
        DirectoryRepository(directory).save_failure(failure)
    return failure


def _remove(place: ExperimentDirectory) -> None:
    """Take away an error that was read, and the folder where nothing else is in it."""
    with contextlib.suppress(OSError):
        place.error.unlink()
        place.root.rmdir()


def _cause(
    order: WorkOrder, watch: _Watch, memory: MemoryWatch, code: int | None
) -> tuple[str, str]:
    """Give code and message for a worker that left neither result nor error."""
    if watch.timed_out:
        if watch.progress.loading_s(time.monotonic_ns()) >= watch.loading_within_s:
            return "timeout", loads_too_long(watch.loading_within_s)
        return "timeout", (
            f"the experiment took longer than {watch.within_s:g} s and was killed; raise "
            "execution.timeout_s if it only needs more time"
        )
    if (fate := watch.fate) is not None:
        return "killed", f"the worker went down with what had started it: {fate}"
    if (number := signal_of(code)) is not None:
        return "killed", told_by_signal(number, order, memory)
    if code == 0:
        return "no_result", "the worker ended as if all was well but left no result.json"
    said = f"the worker ended with exit code {code} and left no error.json"
    if code == DOCKER_REFUSED and watch.in_container:
        said = "docker could not start the container; what it said is at the end of "
        said += str(watch.directory.log)
    return "no_result", said


def loads_too_long(within_s: float) -> str:
    """Say that loading did not end."""
    return (
        f"loading the model and preparing its prompts took longer than {within_s:g} s and was "
        "ended; fetch a model on the Hub beforehand (hf download), or set execution.timeout_s if "
        "it only needs more time"
    )


def _interrupted(directory: ExperimentDirectory, order: WorkOrder, phase: str) -> KeyboardInterrupt:
    if directory.result.is_file():
        return KeyboardInterrupt(f"interrupted after the result was written to {directory.root}")
    redact_file(directory.log)
    if not directory.error.is_file():
        kept(
            directory,
            FailedExperiment(
                config=order.config,
                phase=phase,
                code="interrupted",
                message="interrupted by the user",
                log_tail=tail(directory.log),
            ),
        )
    return KeyboardInterrupt(f"interrupted in phase '{phase}'; no result was written")


class EventReader:
    """Reads each line once, when it is whole.

    Args:
        path: The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._read_to, self._pending = path, 0, b""

    def fresh(self) -> Iterator[Event]:
        """Yield the events since the last call; a line that says nothing is passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
        except OSError:  # not there yet, or its directory is gone
            return
        self._read_to += len(data)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            try:
                event = Event(**json.loads(line))
            except (ValueError, TypeError):  # cut off by a full disk, or of another version
                continue
            if isinstance(event.phase, str) and isinstance(event.t_ns, int):
                yield event


class WorkerProgress:
    """Where an experiment stands, and how long it has waited for a device.

    Attributes:
        phase: What it is doing.
    """

    def __init__(self) -> None:
        self.phase = "start"
        self._waited_ns = 0
        self._since_ns: int | None = None
        self._loading_since_ns: int | None = None

    def note(self, event: Event) -> None:
        """Take an event into account."""
        if self._since_ns is not None and event.phase != WAITING:
            self._waited_ns += event.t_ns - self._since_ns
            self._since_ns = None
        elif self._since_ns is None and event.phase == WAITING:
            self._since_ns = event.t_ns
        if event.phase not in LOADING:
            self._loading_since_ns = None
        elif self._loading_since_ns is None:
            self._loading_since_ns = event.t_ns
        self.phase = event.phase

    def loading_s(self, now_ns: int) -> float:
        """Say how long it has been loading; 0 where it is not."""
        return 0.0 if self._loading_since_ns is None else (now_ns - self._loading_since_ns) / 1e9

    def waited_s(self, now_ns: int) -> float:
        """Sum the time spent waiting for a device until now, a wait that lasts included."""
        lasting_ns = 0 if self._since_ns is None else now_ns - self._since_ns
        return (self._waited_ns + lasting_ns) / 1e9

"""What a study tells while it runs, in the order in which it happens, and the diary it keeps."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from llenergymeasure import plain_files
from llenergymeasure.domain import Record
from llenergymeasure.domain.results import Outcome, StudyResult
from llenergymeasure.orchestration.events import Event

LOG = logging.getLogger(__name__)
_MOST_BYTES = 256 * plain_files.MIB

Status = Literal["running", "complete", "failed", "interrupted"]


class Begun(NamedTuple):
    """The study begins, or goes on; nothing has been looked at yet.

    Attributes:
        name: Its name.
        configurations: Distinct configurations.
        total: Experiments of the plan.
        done: Experiments that were complete before.
        skipped: Combinations that are not run.
        merged: Combinations that equal an earlier one.
        labels: What sets each configuration apart, in a few words.
    """

    name: str
    configurations: int
    total: int
    done: int
    skipped: int
    merged: int
    labels: tuple[str, ...] = ()


class Placed(NamedTuple):
    """There is a directory for the results, which stays.

    Attributes:
        directory: Its path.
    """

    directory: str


class Pausing(NamedTuple):
    """A pause between experiments goes on; told once a second.

    Attributes:
        kind: ``experiment`` or ``cycle``: what it separates.
        left_s: Seconds that are left of it.
        total_s: Its length.
    """

    kind: str
    left_s: float
    total_s: float


class Started(NamedTuple):
    """An experiment was handed to its worker.

    Attributes:
        number: Its place in the study, from 1.
        total: Experiments of the plan.
        configuration: Its configuration, from 1.
        name: Name of its directory.
        method: How its process was started.
    """

    number: int
    total: int
    configuration: int
    name: str
    method: str


class Finished(NamedTuple):
    """An experiment ended.

    Attributes:
        number: Its place in the study, from 1.
        total: Experiments of the plan.
        configuration: Its configuration, from 1.
        name: Name of its directory.
        outcome: What came of it.
        seconds: Wall time of it, its start included.
        left_s: What the rest of the study will take, gaps included; ``None`` where unknown.
    """

    number: int
    total: int
    configuration: int
    name: str
    outcome: Outcome
    seconds: float
    left_s: float | None


class Noted(NamedTuple):
    """Something the user should know.

    Attributes:
        text: In plain words.
    """

    text: str


StudyEvent = Begun | Placed | Noted | Pausing | Started | Finished | Event
StudyListener = Callable[[StudyEvent], None]


class StudyInterrupted(KeyboardInterrupt):
    """The user interrupted a study.

    Attributes:
        study: What is finished of it; ``None`` where summing that up would have kept them waiting.
    """

    def __init__(self, message: str, study: StudyResult | None) -> None:
        super().__init__(message)
        self.study = study


class Callbacks(NamedTuple):
    """What is called while experiments run.

    Attributes:
        listener: Told of everything that happens.
        stop: Asked after an interrupt whether the user will not wait for a worker to end in good
            order. A second ``KeyboardInterrupt`` says so as well.
        sleep: Sleeps some seconds.
        clock_s: Monotonic clock that pauses are held against, s.
    """

    listener: StudyListener = lambda _: None
    stop: Callable[[], bool] = lambda: False
    sleep: Callable[[float], None] = time.sleep
    clock_s: Callable[[], float] = time.monotonic


class ProgressLine(Record):
    """One change of status: a line for each experiment that starts or ends.

    A record for readers and for estimates; a line that is lost or torn loses nothing.
    """

    slot: int = Field(description="Number of the slot.")
    status: Status = Field(description="What it became.")
    at: datetime = Field(description="When, by the wall clock; a label only.")
    duration_s: float | None = Field(
        None, description="How long it took without waiting for a device, s."
    )
    code: str | None = Field(None, description="Code of the error, where it failed.")


class ProgressLog:
    """Appends to ``study_progress.jsonl``; a disk that refuses is logged once, not an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._silent = False

    def note(self, line: ProgressLine) -> None:
        """Append a line in a single write."""
        text = line.model_dump_json(exclude_none=True) + "\n"
        try:
            if self._descriptor is None:
                self._descriptor, text = _open(self._path, text)
            if os.write(self._descriptor, text.encode()) < len(text.encode()):
                self.close()  # the next line is to begin on a line of its own
        except OSError as error:
            if not self._silent:
                LOG.warning("%s is not kept: %s", self._path, error)
            self._silent = True

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_progress(path: Path) -> tuple[ProgressLine, ...]:
    """Read what can be read; a torn or damaged line is passed over, a missing file is empty."""
    try:
        lines = plain_files.read(path, _MOST_BYTES).splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        with contextlib.suppress(ValidationError):
            found.append(ProgressLine.model_validate_json(line))
    return tuple(found)


def _open(path: Path, text: str) -> tuple[int, str]:
    """Open for appending; begin a new line where a crash has torn the last one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    return descriptor, ("\n" + text) if torn else text

"""What a study tells while it runs, in the order in which it happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from llenergymeasure.domain.results import Outcome
from llenergymeasure.orchestration.events import Event


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

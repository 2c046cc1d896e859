"""The worker's voice: phases and progress, appended to ``events.jsonl``."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from llenergymeasure.config.secrets import redact
from llenergymeasure.state.machine import ExperimentState

PROGRESS_PERIOD_NS = 500_000_000


class Event(NamedTuple):
    """One line of ``events.jsonl``.

    Attributes:
        t_ns: Monotonic clock.
        state: State of the experiment.
        phase: What it is doing.
        done: Requests finished in this phase, or ``None`` at the start of a phase.
        total: Requests of this phase, where known.
        detail: What is said of the phase beside its name, e.g. for whom it waits.
    """

    t_ns: int
    state: str
    phase: str
    done: int | None = None
    total: int | None = None
    detail: str | None = None


Listener = Callable[[Event], None]


class EventLog:
    """Appends events to a file and hands them to a listener in the same process.

    Progress is written at most twice a second, so that telling it costs the measurement nothing.

    Args:
        path: The file.
        listener: Told of every event.
        check: Called with every note; raises to end the experiment there.
        clock_ns: Monotonic clock.
    """

    def __init__(
        self,
        path: Path,
        listener: Listener | None = None,
        check: Callable[[], None] = lambda: None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._listener, self._check, self._clock_ns = listener, check, clock_ns
        self._state, self._phase = ExperimentState.INITIALISING.value, "start"
        self._done = 0
        self._total: int | None = None
        self._last_ns = 0
        self._detail: str | None = None

    def explain(self, detail: str) -> None:
        """Say more of the phase that begins next."""
        self._detail = redact(detail)

    def phase(self, state: ExperimentState, phase: str) -> None:
        """Note that a phase begins; the listener of a state machine."""
        self._state, self._phase = state.value, phase
        self._done, self._total = 0, None
        self._emit(None)
        self._detail = None
        self._check()

    def expect(self, total: int) -> None:
        """Note how many requests the present phase has, or has more of."""
        self._total = (self._total or 0) + total

    def progress(self, finished: int) -> None:
        """Note finished requests."""
        self._done += finished
        if self._clock_ns() - self._last_ns >= PROGRESS_PERIOD_NS:
            self._emit(self._done)
        self._check()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _emit(self, done: int | None) -> None:
        event = Event(self._clock_ns(), self._state, self._phase, done, self._total, self._detail)
        self._last_ns = event.t_ns
        with contextlib.suppress(OSError):  # a full disk speaks up when the result is written
            self._file.write(json.dumps(event._asdict()) + "\n")
        if self._listener is not None:
            self._listener(event)

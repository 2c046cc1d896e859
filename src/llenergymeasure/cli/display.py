"""What goes to standard error while an experiment runs: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import NoReturn, Protocol, TextIO

from tqdm import tqdm

from llenergymeasure.orchestration.events import Event

_PHASES = {
    "wait": "waiting for the device",
    "start": "starting",
    "baseline": "measuring the idle device",
    "load": "loading the model",
    "prepare": "preparing prompts",
    "idle": "measuring the device with the model loaded",
    "warmup": "warming up",
    "settle": "letting the device settle",
    "measure": "measuring",
    "prefill": "measuring prefill alone",
    "collect": "collecting",
    "save": "saving",
}
_QUIET_PHASES = ("collect", "save")


class Display(Protocol):
    """Something that shows events and can be closed."""

    def __call__(self, event: Event) -> None:
        """Show an event."""
        ...

    def close(self) -> None:
        """Leave the terminal clean."""
        ...


class NoDisplay:
    """Shows nothing."""

    def __call__(self, event: Event) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""


class LineDisplay:
    """One line a phase, for pipes and log files."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._start_s = clock()

    def __call__(self, event: Event) -> None:
        """Print the phase that begins."""
        if event.done is None and event.phase not in _QUIET_PHASES:
            self._print(f"llem: {self._clock() - self._start_s:6.1f} s  {_text(event)}")

    def close(self) -> None:
        """Do nothing; lines stand on their own."""

    def _print(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a reader that has gone must not end the experiment
            print(line, file=self._stream, flush=True)


class BarDisplay:
    """One bar that follows the phases, with the time that is left; gone at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: tqdm[NoReturn] | None = None
        self._text = ""

    def __call__(self, event: Event) -> None:
        """Begin a phase's bar or move it on."""
        with contextlib.suppress(OSError):  # a terminal that has gone must not end the experiment
            if _text(event) != self._text:
                self._begin(event)
            if self._bar is not None and event.done is not None:
                self._bar.total = event.total
                self._bar.update(event.done - self._bar.n)

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
            self._bar = None

    def _begin(self, event: Event) -> None:
        self.close()
        self._text = _text(event)
        counted = event.phase in ("warmup", "measure", "prefill")
        layout = None if counted else "{desc} [{elapsed}]"
        self._bar = tqdm(
            desc=self._text,
            total=None,
            file=self._stream,
            unit="req",
            leave=False,
            mininterval=0,  # events come at most twice a second as it is
            miniters=1,
            dynamic_ncols=True,
            bar_format=layout,
        )


def _text(event: Event) -> str:
    return event.detail or _PHASES.get(event.phase, event.phase)


def make_display(verbosity: str) -> Display:
    """Choose how to show progress on standard error."""
    if verbosity == "quiet":
        return NoDisplay()
    if sys.stderr.isatty() and verbosity != "verbose":
        return BarDisplay(sys.stderr)
    return LineDisplay(sys.stderr)

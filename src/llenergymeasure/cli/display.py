"""What goes to standard error while an experiment runs: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn, Protocol, TextIO

from tqdm import tqdm

from llenergymeasure.orchestration.events import Event
from llenergymeasure.report.format import WIDTH

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
_WINDOWS = ("measure", "prefill")
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
    """A bar for a phase that counts requests, a line for the others; gone at the end.

    Nothing ticks between events: a thread that woke for it would run inside the measured window.

    Args:
        stream: The terminal.
        window_s: Least length of the window, s. Where there is one, the bar of the window shows
            how much of it has passed, since passes go on until then.
    """

    def __init__(self, stream: TextIO, window_s: float = 0.0) -> None:
        self._stream, self._window_s = stream, window_s
        tqdm.monitor_interval = 0  # its thread would wake within the window
        self._bar: tqdm[NoReturn] | None = None
        self._text = ""
        self._begun_ns = 0

    def __call__(self, event: Event) -> None:
        """Begin a phase's bar or move it on."""
        with contextlib.suppress(OSError):  # a terminal that has gone must not end the experiment
            if _text(event) != self._text:
                self._begin(event)
            if self._bar is not None and event.done is not None:
                self._move(self._bar, event.done, event)

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
            self._bar = None

    def _move(self, bar: tqdm[NoReturn], done: int, event: Event) -> None:
        if not self._timed(event):
            bar.total = event.total
            bar.update(done - bar.n)
            return
        passed_s = (event.t_ns - self._begun_ns) / 1e9
        bar.total = max(self._window_s, passed_s)  # the last pass is finished, however long it is
        bar.set_postfix_str(f"{done} requests", refresh=False)
        bar.update(passed_s - bar.n)

    def _begin(self, event: Event) -> None:
        self.close()
        self._text, self._begun_ns = _text(event), event.t_ns
        columns = _columns(self._stream)
        self._bar = tqdm(
            desc=self._text,
            total=self._window_s if self._timed(event) else None,
            file=self._stream,
            unit="req",
            leave=False,
            mininterval=0,  # events come at most twice a second as it is
            miniters=0,
            dynamic_ncols=columns is None,
            ncols=columns,
            bar_format=self._layout(event),
        )

    def _timed(self, event: Event) -> bool:
        return event.phase in _WINDOWS and self._window_s > 0

    def _layout(self, event: Event) -> str | None:
        if self._timed(event):
            return "{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}"
        return None if event.phase in ("warmup", *_WINDOWS) else "{desc}"


def _columns(stream: TextIO) -> int | None:
    """Give a width for a terminal that tells none; ``None`` lets tqdm ask, as the window may grow.

    A terminal whose size nobody has set has no columns, and a bar of none is invisible.
    """
    try:
        return None if os.get_terminal_size(stream.fileno()).columns else WIDTH
    except OSError:  # no terminal, and no file
        return None


def _text(event: Event) -> str:
    return event.detail or _PHASES.get(event.phase, event.phase)


def make_display(verbosity: str, window_s: float = 0.0) -> Display:
    """Choose how to show progress on standard error.

    Args:
        verbosity: What the user wants.
        window_s: Least length of the measured window, s.
    """
    if verbosity == "quiet":
        return NoDisplay()
    if sys.stderr.isatty() and verbosity != "verbose":
        return BarDisplay(sys.stderr, window_s)
    return LineDisplay(sys.stderr)

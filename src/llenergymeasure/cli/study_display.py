"""What goes to standard error while a study runs: a line a finished experiment, and what is on now.

In a terminal the bar below the lines follows the present experiment or counts a pause down; in a
pipe there are only the lines.
"""

from __future__ import annotations

import contextlib
import sys
from typing import NoReturn, TextIO

from tqdm import tqdm

from llenergymeasure.cli.display import Display, make_display
from llenergymeasure.domain.format import count, quantity, with_interval
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.orchestration.events import Event
from llenergymeasure.study.events import (
    Begun,
    Finished,
    Noted,
    Pausing,
    Started,
    StudyEvent,
)

WIDTH = 80
_LONGEST_PAUSE_UNTOLD_S = 1.0


def duration(seconds: float) -> str:
    """Write a time as people say it: ``42 s``, ``7 min``, ``3 h 20 min``, ``2 d 5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def begun_line(event: Begun) -> str:
    """Say what is going to run."""
    counts = f"{count(event.configurations, 'configuration')}, {count(event.total, 'experiment')}"
    notes = (
        (event.done, f"{event.done} already done"),
        (event.skipped, f"{event.skipped} skipped"),
        (event.merged, f"{event.merged} merged"),
    )
    said = [counts, *(text for number, text in notes if number)]
    return f"llem: study {event.name}: {', '.join(said)}"


def finished_line(event: Finished) -> str:
    """Say what came of an experiment, within the width of a terminal."""
    number = f"{event.number:>{len(str(event.total))}}/{event.total}"
    name = event.name.partition("_")[2] or event.name
    head = f"[{number}] #{event.configuration} {name:<22}"
    if isinstance(event.outcome, FailedExperiment):
        reason = event.outcome.message.partition("\n")[0]
        return _cut(f"{head} failed in {event.outcome.phase}: {reason}")
    left = "" if event.left_s is None else f", {duration(event.left_s)} left"
    return f"{head} {_figures(event.outcome)}  ({duration(event.seconds)}{left})"


def _figures(result: ExperimentResult) -> str:
    speed = result.tokens_per_second
    parts = [] if speed is None else [quantity(speed, "token/s", largest=0)]
    if result.energy_per_output_token_j is not None:
        parts.insert(0, quantity(result.energy_per_output_token_j, "J/token"))
    elif result.energy_total_j is not None:
        parts.insert(0, with_interval(result.energy_total_j, result.energy.interval95_j, "J"))
    return "  ".join(parts)


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


class StudyDisplay:
    """Prints the lines, and leaves the present experiment to another display."""

    def __init__(self, stream: TextIO, inner: Display, *, terminal: bool) -> None:
        self._stream, self._inner, self._terminal = stream, inner, terminal
        self._pause: tqdm[NoReturn] | None = None

    def __call__(self, event: StudyEvent) -> None:
        """Show an event."""
        if isinstance(event, Event):
            self._inner(event)
        elif isinstance(event, Pausing):
            self._count_down(event)
        elif isinstance(event, Started):
            self._end_pause()
        elif isinstance(event, Finished):
            self._inner.close()
            self._print(finished_line(event))
        elif isinstance(event, Noted):
            self._print(f"llem: {event.text}")
        else:
            self._print(begun_line(event))

    def close(self) -> None:
        """Leave the terminal clean."""
        self._end_pause()
        self._inner.close()

    def _count_down(self, event: Pausing) -> None:
        first = event.left_s == event.total_s
        text = f"pause before the next {event.kind}"
        if not self._terminal:
            if first and event.total_s > _LONGEST_PAUSE_UNTOLD_S:
                self._print(f"llem: {text}: {duration(event.total_s)}")
            return
        if self._pause is None:
            self._pause = tqdm(file=self._stream, leave=False, bar_format="{desc}")
        with contextlib.suppress(OSError):
            self._pause.set_description_str(f"{text}: {duration(event.left_s)}")

    def _end_pause(self) -> None:
        if self._pause is not None:
            with contextlib.suppress(OSError):
                self._pause.close()
            self._pause = None

    def _print(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a reader that has gone must not end the study
            print(line, file=self._stream, flush=True)


class Quiet:
    """Shows nothing."""

    def __call__(self, event: StudyEvent) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Do nothing."""


def make_study_display(verbosity: str) -> StudyDisplay | Quiet:
    """Choose how to show a study on standard error.

    In a pipe the phases of each experiment are told only when ``verbosity`` is ``verbose``.
    """
    if verbosity == "quiet":
        return Quiet()
    terminal = sys.stderr.isatty()
    inner = make_display(verbosity if terminal or verbosity == "verbose" else "quiet")
    return StudyDisplay(sys.stderr, inner, terminal=terminal)

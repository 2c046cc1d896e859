"""What goes to standard error while a study runs: a line a finished experiment, and what is on now.

In a terminal the bar below the lines follows the present experiment or counts a pause down; in a
pipe there are only the lines.
"""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from tqdm import tqdm

from llenergymeasure.cli.display import Display, NoDisplay, make_display
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment
from llenergymeasure.orchestration.events import Event
from llenergymeasure.report.format import WIDTH, count, cut, quantity, span, with_interval
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.study.events import (
    Begun,
    Finished,
    Noted,
    Pausing,
    Started,
    StudyEvent,
)
from llenergymeasure.study.supervise import WAITING

_SHORTEST_NAME = 16
_LONGEST_PAUSE_UNTOLD_S = 1.0


def begun_lines(event: Begun) -> list[str]:
    """Say what is going to run, and where its results are."""
    counts = f"{count(event.configurations, 'configuration')}, {count(event.total, 'experiment')}"
    notes = (
        (event.done, f"{event.done:,} already done"),
        (event.skipped, f"{count(event.skipped, 'combination')} skipped"),
        (event.merged, f"{count(event.merged, 'duplicate')} merged"),
    )
    said = [counts, *(text for number, text in notes if number)]
    first = f"llem: study {event.name}: {', '.join(said)}"
    lines = textwrap.wrap(first, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return lines if event.directory is None else [*lines, f"llem: results in {event.directory}"]


def finished_line(event: Finished, labels: Sequence[str] = ()) -> str:
    """Say what came of an experiment, within the width of a terminal.

    Args:
        event: What ended.
        labels: What sets each configuration apart; without, the name of its directory is told.
    """
    digits, most = len(str(event.total)), len(str(len(labels)))
    number = f"[{event.number:>{digits}}/{event.total}] {f'#{event.configuration}':<{most + 1}}"
    name = event.name.partition("_")[2] or event.name
    if labels:
        name = labels[event.configuration - 1]
    said = _said(event)
    room = max(WIDTH - len(number) - len(said) - 3, _SHORTEST_NAME)
    column = min(max(map(len, labels), default=len(name)), room)
    return cut(f"{number} {cut(name, column):<{column}}  {said}")


def failed_lines(failure: FailedExperiment, directory: ExperimentDirectory | None) -> list[str]:
    """Say below the line of an experiment why it broke, and where to read on.

    Args:
        failure: What broke.
        directory: Where it lies; ``None`` where nothing is kept.
    """
    reason = failure.message.strip().partition("\n")[0]
    indent = " " * 4
    lines = textwrap.wrap(
        reason, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    if directory is None or not directory.root.is_dir():
        return lines
    place = f"log: {directory.log}" if directory.log.is_file() else f"in {directory.root}"
    return [*lines, f"{indent}{place}"]


def _said(event: Finished) -> str:
    if isinstance(event.outcome, FailedExperiment):
        phase = event.outcome.phase
        return f"failed in {phase}" if phase else "failed"
    left = f", {span(event.left_s)} left" if event.left_s else ""
    return f"{_figures(event.outcome)}  ({span(event.seconds)}{left})"


def _figures(result: ExperimentResult) -> str:
    speed = result.tokens_per_second
    parts = [] if speed is None else [quantity(speed, "token/s", largest=0)]
    if result.energy_per_output_token_j is not None:
        parts.insert(0, quantity(result.energy_per_output_token_j, "J/token"))
    elif result.energy_total_j is not None:
        parts.insert(0, with_interval(result.energy_total_j, result.energy.interval95_j, "J"))
    return "  ".join(parts)


class StudyDisplay:
    """Prints the lines, and leaves the present experiment to another display."""

    def __init__(self, stream: TextIO, inner: Display, *, terminal: bool) -> None:
        self._stream, self._inner, self._terminal = stream, inner, terminal
        self._pause: tqdm[NoReturn] | None = None
        self._labels: Sequence[str] = ()
        self._directory: str | None = None
        self._told_alone = isinstance(inner, NoDisplay)
        self._waits_for: str | None = None

    def __call__(self, event: StudyEvent) -> None:
        """Show an event."""
        if isinstance(event, Event):
            self._inner(event)
            self._tell_wait(event)
        elif isinstance(event, Pausing):
            self._count_down(event)
        elif isinstance(event, Started):
            self._end_pause()
            self._waits_for = None
        elif isinstance(event, Finished):
            self._inner.close()
            self._tell_finished(event)
        elif isinstance(event, Noted):
            self._print(f"llem: {event.text}")
        else:
            self._labels, self._directory = event.labels, event.directory
            for line in begun_lines(event):
                self._print(line)

    def close(self) -> None:
        """Leave the terminal clean."""
        self._end_pause()
        self._inner.close()

    def _tell_wait(self, event: Event) -> None:
        """Say in a pipe why nothing happens; there the phases of an experiment are not told."""
        if self._told_alone and event.phase == WAITING and event.detail != self._waits_for:
            self._waits_for = event.detail
            self._print(f"llem: {event.detail}")

    def _tell_finished(self, event: Finished) -> None:
        self._print(finished_line(event, self._labels))
        if isinstance(event.outcome, FailedExperiment):
            directory = None
            if self._directory is not None:
                directory = StudyDirectory(Path(self._directory)).experiment(event.name)
            for line in failed_lines(event.outcome, directory):
                self._print(line)

    def _count_down(self, event: Pausing) -> None:
        first = event.left_s == event.total_s
        text = f"pause before the next {event.kind}"
        if not self._terminal:
            if first and event.total_s > _LONGEST_PAUSE_UNTOLD_S:
                self._print(f"llem: {text}: {span(event.total_s)}")
            return
        if self._pause is None:
            self._pause = tqdm(file=self._stream, leave=False, bar_format="{desc}")
        with contextlib.suppress(OSError):
            self._pause.set_description_str(f"{text}: {span(event.left_s)}")

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

"""What goes to standard error while something runs: a bar in a terminal, lines elsewhere.

Of a study that is a line a finished experiment; in a terminal the bar below the lines follows the
present experiment or counts a pause down.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence, Set
from datetime import datetime, timedelta
from pathlib import Path
from typing import NoReturn, TextIO

from tqdm import tqdm

from llenergymeasure.cli.failure import columns_of, tell
from llenergymeasure.config.models import ExperimentConfig
from llenergymeasure.domain.results import ExperimentResult, FailedExperiment, warning_codes
from llenergymeasure.orchestration.events import Event
from llenergymeasure.report.format import (
    WIDTH,
    count,
    cut,
    quantity,
    significant,
    span,
    with_interval,
)
from llenergymeasure.report.text import escaped, wrapped
from llenergymeasure.results.layout import ExperimentDirectory, StudyDirectory
from llenergymeasure.study.events import (
    Begun,
    Finished,
    Noted,
    Pausing,
    Placed,
    Started,
    StudyEvent,
)
from llenergymeasure.study.supervise import WAITING

_SHORTEST_NAME = 12
_LONGEST_PAUSE_UNTOLD_S = 1.0
_PHASES = {
    "wait": "waiting for the device",
    "start": "starting",
    "baseline": "measuring the idle device",
    "load": "loading the model",
    "prepare": "preparing prompts",
    "idle": "measuring the device with the model loaded",
    "calibrate": "calibrating the energy sensors",
    "warmup": "warming up",
    "settle": "letting the device settle",
    "measure": "measuring",
    "prefill": "measuring prefill alone",
    "collect": "collecting",
    "save": "saving",
}
_WINDOWS = ("measure", "prefill")
_QUIET_PHASES = ("collect", "save")


class Display:
    """Shows nothing; what shows something derives from it."""

    def __call__(self, event: StudyEvent) -> None:
        """Show an event."""

    def stand(self, place: str) -> None:
        """Say where in a study the next experiment stands."""

    def close(self) -> None:
        """Leave the terminal clean."""


class LineDisplay(Display):
    """One line a phase, for pipes and log files."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._start_s = clock()

    def __call__(self, event: StudyEvent) -> None:
        """Print the phase that begins."""
        if not isinstance(event, Event):
            return
        if event.done is None and event.phase not in _QUIET_PHASES:
            passed_s = self._clock() - self._start_s
            tell(f"llem: {passed_s:6.1f} s  {_text(event)}", self._stream)


class BarDisplay(Display):
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
        self._text = self._place = ""
        self._begun_ns = 0

    def stand(self, place: str) -> None:
        """Put words before what each bar shows."""
        self._text, self._place = "", place

    def __call__(self, event: StudyEvent) -> None:
        """Begin a phase's bar or move it on."""
        if not isinstance(event, Event):
            return
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
        bar_format = None if event.phase in ("warmup", *_WINDOWS) else "{desc}"
        if self._timed(event):
            bar_format = "{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}"
        self._bar = tqdm(
            desc=f"{self._place}{self._text}",
            total=self._window_s if self._timed(event) else None,
            file=self._stream,
            unit="req",
            leave=False,
            mininterval=0,  # events come at most twice a second as it is
            miniters=0,
            dynamic_ncols=columns is None,
            ncols=columns,
            bar_format=bar_format,
        )

    def _timed(self, event: Event) -> bool:
        return event.phase in _WINDOWS and self._window_s > 0


def _columns(stream: TextIO) -> int | None:
    """Give a width for a terminal that tells none; ``None`` lets tqdm ask, as the window may grow.

    A terminal whose size nobody has set has no columns, and a bar of none is invisible.
    """
    try:
        return None if os.get_terminal_size(stream.fileno()).columns else WIDTH
    except OSError:  # no terminal, and no file
        return None


def _text(event: Event) -> str:
    return escaped(event.detail or _PHASES.get(event.phase, event.phase))


def begun_lines(event: Begun) -> list[str]:
    """Say what is going to run."""
    counts = f"{count(event.configurations, 'configuration')}, {count(event.total, 'experiment')}"
    notes = (
        (event.done, f"{event.done:,} already done"),
        (event.skipped, f"{count(event.skipped, 'combination')} skipped"),
        (event.merged, f"{count(event.merged, 'duplicate')} merged"),
    )
    said = [counts, *(text for number, text in notes if number)]
    first = f"llem: study {event.name}: {', '.join(said)}"
    return wrapped(first, rest="  ")


def finished_line(event: Finished, labels: Sequence[str] = (), width: int = WIDTH) -> str:
    """Say what came of an experiment, within the width of a terminal.

    Args:
        event: What ended.
        labels: What sets each configuration apart; without, the name of its directory is told.
        width: Columns there are.
    """
    digits, most = len(str(event.total)), len(str(len(labels)))
    number = f"[{event.number:>{digits}}/{event.total}] {f'#{event.configuration}':<{most + 1}}"
    name = event.name.partition("_")[2] or event.name
    if labels:
        name = labels[event.configuration - 1]
    if isinstance(event.outcome, FailedExperiment):
        phase = event.outcome.phase
        said = f"failed in {phase}" if phase else "failed"
    else:
        left = f", {span(event.left_s)} left" if event.left_s else ""
        said = f"{_figures(event.outcome)}  ({span(event.seconds)}{left})"
    room = max(width - len(number) - len(said) - 3, _SHORTEST_NAME)
    column = min(max(map(len, labels), default=len(name)), room)
    return cut(f"{number} {cut(name, column):<{column}}  {said}", width)


def finding_lines(result: ExperimentResult, told: Set[str]) -> list[str]:
    """Say below the line of an experiment what speaks against it, but for what is told already.

    Args:
        result: What came of it.
        told: Codes that were told of an experiment before; what makes a result invalid is told of
            each.
    """
    indent = " " * 4
    reasons = (
        one
        for one in result.trust.reasons
        if one.level == "invalid" or (one.level == "caution" and one.code not in told)
    )
    return [
        line
        for one in reasons
        for line in wrapped(f"{one.level} {one.code}: {one.detail}", indent, indent)
    ]


def failed_lines(failure: FailedExperiment, directory: ExperimentDirectory | None) -> list[str]:
    """Say below the line of an experiment why it broke, and where to read on.

    Args:
        failure: What broke.
        directory: Where it lies; ``None`` where nothing is kept.
    """
    reason = failure.message.strip().partition("\n")[0]
    indent = " " * 4
    lines = wrapped(reason, indent, indent)
    if failure.rescued is not None:
        lines.append(f"{indent}what was measured is kept in {failure.rescued}")
    if directory is None or not directory.root.is_dir():
        return lines
    place = f"log: {directory.log}" if directory.log.is_file() else f"in {directory.root}"
    return [*lines, f"{indent}{place}"]


def _figures(result: ExperimentResult) -> str:
    """Give its headline figures, and ``!2`` where two findings speak against them."""
    speed = result.tokens_per_second
    parts = [] if speed is None else [f"{significant(speed)} token/s"]
    if result.energy_per_output_token_j is not None:
        parts.insert(0, quantity(result.energy_per_output_token_j, "J/token"))
    elif result.energy_total_j is not None:
        parts.insert(0, with_interval(result.energy_total_j, result.energy.interval95_j, "J"))
    if result.trust.verdict == "invalid":
        parts.append("invalid")
    elif codes := warning_codes(result.trust):
        parts.append(f"!{len(codes)}")
    return "  ".join(parts)


class StudyDisplay(Display):
    """Prints the lines, and leaves the present experiment to another display."""

    def __init__(
        self,
        stream: TextIO,
        inner: Display,
        *,
        terminal: bool,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._stream, self._inner, self._terminal, self._now = stream, inner, terminal, now
        self._done, self._total, self._end = 0, 1, ""
        self._pause: tqdm[NoReturn] | None = None
        self._labels: Sequence[str] = ()
        self._directory: str | None = None
        self._told_alone = type(inner) is Display
        self._waits_for: str | None = None
        self._told_codes: set[str] = set()

    def __call__(self, event: StudyEvent) -> None:
        """Show an event."""
        if isinstance(event, Event):
            self._inner(event)
            # In a pipe the phases of an experiment are not told, and so not why nothing happens.
            waits = self._told_alone and event.phase == WAITING
            if waits and event.detail != self._waits_for:
                self._waits_for = event.detail
                tell(f"llem: {event.detail}", self._stream)
        elif isinstance(event, Pausing):
            self._count_down(event)
        elif isinstance(event, Started):
            self._end_pause()
            self._waits_for = None
            self._inner.stand(f"[{event.number}/{event.total}] {self._progress()}: ")
        elif isinstance(event, Finished):
            self._inner.close()
            self._tell_finished(event)
        elif isinstance(event, Noted):
            tell(f"llem: {event.text}", self._stream)
        elif isinstance(event, Placed):
            self._directory = event.directory
            tell(f"llem: results in {event.directory}", self._stream)
        else:
            self._labels, self._done, self._total = event.labels, event.done, event.total
            for line in begun_lines(event):
                tell(line, self._stream)

    def close(self) -> None:
        """Leave the terminal clean."""
        self._end_pause()
        self._inner.close()

    def _progress(self) -> str:
        """Give the share of the study that is over, and the time of day at which all of it will."""
        return f"{100 * self._done // self._total} %{self._end}"

    def _tell_finished(self, event: Finished) -> None:
        self._done += 1
        self._end = (
            "" if event.left_s is None else f", ends {time_of_day(self._now(), event.left_s)}"
        )
        tell(finished_line(event, self._labels, columns_of(self._stream)), self._stream)
        if isinstance(event.outcome, FailedExperiment):
            directory = None
            if self._directory is not None:
                directory = StudyDirectory(Path(self._directory)).experiment(event.name)
            below = failed_lines(event.outcome, directory)
        else:
            below = finding_lines(event.outcome, self._told_codes)
            self._told_codes.update(warning_codes(event.outcome.trust))
        for line in below:
            tell(line, self._stream)

    def _count_down(self, event: Pausing) -> None:
        first = event.left_s == event.total_s
        text = f"pause before the next {event.kind}"
        if not self._terminal:
            if first and event.total_s > _LONGEST_PAUSE_UNTOLD_S:
                tell(f"llem: {text}: {span(event.total_s)}", self._stream)
            return
        if self._pause is None:
            self._pause = tqdm(file=self._stream, leave=False, bar_format="{desc}")
        with contextlib.suppress(OSError):
            self._pause.set_description_str(f"{self._progress()}: {text}: {span(event.left_s)}")

    def _end_pause(self) -> None:
        if self._pause is not None:
            with contextlib.suppress(OSError):
                self._pause.close()
            self._pause = None


def time_of_day(now: datetime, left_s: float) -> str:
    """Say when something ends that takes so many seconds yet: ``14:32``, or ``Tue 14:32``.

    From a week on it is the day, ``2026-12-24``.
    """
    end = now + timedelta(seconds=left_s)
    days = (end.date() - now.date()).days
    return f"{end:%Y-%m-%d}" if days >= 7 else f"{end:%a %H:%M}" if days else f"{end:%H:%M}"


def make_display(verbosity: str, single: ExperimentConfig | None = None) -> Display:
    """Choose how to show progress on standard error.

    In a pipe the phases of each experiment of a study are told only when ``verbosity`` is
    ``verbose``.

    Args:
        verbosity: What the user wants.
        single: The one experiment that is run; ``None`` for a study of any other kind.
    """
    terminal = sys.stderr.isatty()
    if verbosity == "quiet":
        return Display()
    if single is not None:
        return _phases(verbosity, terminal, single.window.min_duration_seconds)
    quiet = not terminal and verbosity != "verbose"
    inner = Display() if quiet else _phases(verbosity, terminal)
    return StudyDisplay(sys.stderr, inner, terminal=terminal)


def _phases(verbosity: str, terminal: bool, window_s: float = 0.0) -> Display:
    if terminal and verbosity != "verbose":
        return BarDisplay(sys.stderr, window_s)
    return LineDisplay(sys.stderr)

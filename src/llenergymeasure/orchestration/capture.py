"""Keep what an engine prints out of the terminal and in ``log.txt``, without credentials."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from llenergymeasure.config.secrets import redact


class RedactingWriter(io.TextIOBase):
    """A text stream that hides credentials and passes whole lines on."""

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._pending = ""

    def writable(self) -> bool:
        """Tell that text can be written."""
        return True

    def write(self, text: str) -> int:
        """Take text; complete lines go on, redacted."""
        *lines, self._pending = (self._pending + text).replace("\r", "\n").split("\n")
        for line in lines:
            self._target.write(redact(line) + "\n")
        return len(text)

    def flush(self) -> None:
        """Pass complete lines on to the file."""
        self._target.flush()

    def finish(self) -> None:
        """Pass the last, unfinished line on."""
        self._target.write(redact(self._pending))
        self._pending = ""
        self._target.flush()


@contextlib.contextmanager
def captured_output(path: Path) -> Iterator[None]:
    """Send Python's standard output, standard error and log records to a file meanwhile."""
    with path.open("a", encoding="utf-8", errors="replace") as file:
        writer = RedactingWriter(file)
        try:
            with (
                contextlib.redirect_stdout(writer),
                contextlib.redirect_stderr(writer),
                _log_handlers_moved(writer),
            ):
                yield
        finally:
            writer.finish()


@contextlib.contextmanager
def _log_handlers_moved(writer: RedactingWriter) -> Iterator[None]:
    """Point log handlers that hold the old standard streams at the writer."""
    held = [
        (handler, handler.stream)
        for handler in _handlers()
        if handler.stream in (sys.__stdout__, sys.__stderr__)
    ]
    for handler, _ in held:
        handler.setStream(writer)  # type: ignore[arg-type] # it writes and flushes
    try:
        yield
    finally:
        for handler, stream in held:
            handler.setStream(stream)


def _handlers() -> Iterator[logging.StreamHandler[TextIO]]:
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", []):
            if isinstance(handler, logging.StreamHandler) and not isinstance(
                handler, logging.FileHandler
            ):
                yield handler


def tail(path: Path, lines: int = 15) -> str:
    """Give the last lines of a log; empty where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])

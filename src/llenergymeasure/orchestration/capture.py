"""Keep what an engine prints out of the terminal and in ``log.txt``, without credentials."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

from llenergymeasure.config.secrets import KEY_BEGINS, KEY_ENDS, redact

_TAIL_BYTES = 1 << 16
_LONGEST_KEY = 1 << 14  # of a private key, with its lines; longer ones are not used


# An engine's chatter is not worth an experiment; a full disk speaks up at the result.
_FULL_DISK_IGNORED = contextlib.suppress(OSError)


class RedactingWriter(io.TextIOBase):
    """A text stream that hides credentials and passes whole lines on; several threads may write.

    Args:
        target: Where they go.
        successor: Where they go after :meth:`finish`, for what still holds on to this stream then.
    """

    def __init__(self, target: TextIO, successor: TextIO) -> None:
        self._target, self._successor = target, successor
        self._pending = ""
        self._lock = threading.RLock()  # a signal handler may print while this thread writes

    def writable(self) -> bool:
        """Tell that text can be written."""
        return True

    def write(self, text: str) -> int:
        """Take text; complete lines go on, redacted, and a private key only as a whole."""
        with self._lock, _FULL_DISK_IGNORED:
            lines, end, rest = (self._pending + text).replace("\r", "\n").rpartition("\n")
            begun = lines.rfind(KEY_BEGINS)
            if begun >= 0 and len(lines) - begun < _LONGEST_KEY and KEY_ENDS not in lines[begun:]:
                lines, end, rest = lines[:begun], "", f"{lines[begun:]}\n{rest}"
            self._pending = rest
            self._target.write(redact(lines) + end)
        return len(text)

    def flush(self) -> None:
        """Pass complete lines on to the file."""
        with _FULL_DISK_IGNORED:
            self._target.flush()

    def finish(self) -> None:
        """Pass the last, unfinished line on, and turn to the successor."""
        with _FULL_DISK_IGNORED:
            self._target.write(redact(self._pending))
            self._target.flush()
        self._pending = ""
        self._target = self._successor


@contextlib.contextmanager
def captured_output(path: Path) -> Iterator[None]:
    """Send Python's standard output, standard error and log records to a file meanwhile."""
    file = path.open("a", encoding="utf-8", errors="replace")
    outer = (sys.stdout, sys.stderr)
    writer = RedactingWriter(file, successor=sys.stderr)
    try:
        with (
            contextlib.redirect_stdout(writer),
            contextlib.redirect_stderr(writer),
            _log_handlers_moved(cast("TextIO", writer), outer),
        ):
            yield
    finally:
        writer.finish()
        with _FULL_DISK_IGNORED:
            file.close()


@contextlib.contextmanager
def _log_handlers_moved(writer: TextIO, outer: tuple[TextIO, TextIO]) -> Iterator[None]:
    """Point log handlers that hold the old standard streams at the writer.

    Handlers made meanwhile, by an engine that was imported for the first time, hold the writer and
    are given standard error at the end.
    """
    standard = (*outer, sys.__stdout__, sys.__stderr__)
    held = {handler: handler.stream for handler in _handlers() if handler.stream in standard}
    for handler in held:
        handler.setStream(writer)
    try:
        yield
    finally:
        for handler in _handlers():
            if handler.stream is writer:
                handler.setStream(held.get(handler, outer[1]))


def _handlers() -> Iterator[logging.StreamHandler[TextIO]]:
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", []):
            # Left alone: a file's own, and one that looks up ``sys.stderr`` each time.
            looks_up = isinstance(getattr(type(handler), "stream", None), property)
            to_file = isinstance(handler, logging.FileHandler)
            if isinstance(handler, logging.StreamHandler) and not (looks_up or to_file):
                yield handler


def tail(path: Path, lines: int = 15) -> str:
    """Give the last lines of a log without credentials; empty where there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, io.SEEK_END) - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(redact(text).rstrip().splitlines()[-lines:])


def redact_file(path: Path) -> None:
    """Hide credentials in a log that native code wrote to past :class:`RedactingWriter`.

    A file without any is left as it is, as is one that cannot be read or written.
    """
    with contextlib.suppress(OSError):
        with path.open(encoding="utf-8", errors="replace") as log:
            mentions_secrets = any(redact(line) != line for line in log)
        if mentions_secrets:
            text = path.read_text(encoding="utf-8", errors="replace")
            path.write_text(redact(text), encoding="utf-8")

"""What a command says, and every way it can end badly: one message on standard error, and a code.

All that it prints goes through here, where credentials are hidden and what would steer a terminal
is spelled.

The first Ctrl-C stops the run in good order, an impatient third one at once. A polite request to
end (SIGTERM, as schedulers and time-outs send it) does the same, and so does a terminal that is
closed (SIGHUP), unless ``nohup`` has it ignored.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import errno
import io
import json
import os
import re
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TextIO

import typer

from llenergymeasure.config.secrets import redact
from llenergymeasure.exceptions import FlagError, LLEMError, lost_folder, shortened
from llenergymeasure.report.text import escaped

FAILED = 1
WRONG_FLAGS = 2
INTERRUPTED = 130
"""Exit code of a run that the user interrupted (128 + SIGINT)."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NO_ROOM = re.compile("(?i)cannot allocate memory|failed to map segment|can't start new thread")
_MORE_MEMORY = "raise the limit (ulimit -v, a container, a job), or ask for less"
_LONGEST_MESSAGE = 3_500
_NARROWEST, _USUAL, _WIDEST = 60, 80, 120
_AS_GIVEN = "llenergymeasure.as_given"
_STILL_STOPPING = b"\nllem: stopping; press Ctrl-C once more to leave without tidying up\n"


@dataclass(frozen=True, slots=True)
class FailureReport:
    """Says what went wrong.

    Attributes:
        as_json: Also print it as a JSON object on standard output.
        verbose: Show where a defect of this program lies.
    """

    as_json: bool
    verbose: bool

    def failure(self, error: BaseException) -> int:
        """Say what an exception means; give the exit code."""
        if isinstance(error, LLEMError):
            code = WRONG_FLAGS if isinstance(error, FlagError) else FAILED
            return self._say(code, error.code, error.message, error.where)
        if isinstance(error, KeyboardInterrupt | typer.Abort):
            return self.interrupt(error)
        if isinstance(error, BrokenPipeError):
            return FAILED  # the reader has gone and knows why
        if (told := _of_the_system(error)) is not None:
            return self._say(FAILED, "system", told, getattr(error, "filename", None))
        if hasattr(error, "format_message"):  # the parser's, whose classes are not public
            message, context = error.format_message(), getattr(error, "ctx", None)
            if context is not None and context.command_path:
                message += f"\n  {context.command_path} --help lists the flags"
            return self._say(WRONG_FLAGS, "usage", message, "command line")
        if self.verbose:
            tell("".join(traceback.format_exception(error)).rstrip())
        advice = "" if self.verbose else "; -v shows where"
        message = f"{type(error).__name__}: {error}\n  this is a defect of llem{advice}"
        return self._say(FAILED, "internal", message, None)

    def interrupt(self, error: BaseException, code: int = INTERRUPTED) -> int:
        """Say that the run was interrupted, and what a worker said about it."""
        told = isinstance(error, KeyboardInterrupt) and str(error)
        return self._say(code, "interrupted", told or "interrupted", None)

    def _say(self, code: int, kind: str, message: str, where: str | None) -> int:
        message = _in_bounds(message)
        tell(f"llem: {message}")
        if self.as_json:
            body = {"code": kind, "message": redact(message), "where": where and redact(where)}
            text = json.dumps({"error": body}, ensure_ascii=False)
            with contextlib.suppress(OSError, ValueError):
                say(text.encode(errors="backslashreplace").decode(), as_json=True)
        return code


def _of_the_system(error: BaseException) -> str | None:
    """Say what the operating system refuses, where that is what went wrong."""
    short = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    said = str(error) if short else ""
    if isinstance(error, ImportError | RuntimeError):  # NumPy's is a page long
        said = next(filter(_NO_ROOM.search, str(error).splitlines()), "")
    if short or said:
        return f"there is not enough memory{f': {said}' if said else ''}\n  {_MORE_MEMORY}"
    if not isinstance(error, OSError):
        return None
    what = f"{error.filename}: " if error.filename else "cannot write the output: "
    return lost_folder() or f"{what}{error.strerror or error}"


def _in_bounds(message: str) -> str:
    """Shorten a message to what can be read: names that are in it whole, and all of it.

    A part of a path is at most as long as a file system takes.
    """
    brief = re.sub(r"[^\s/]{256,}", lambda found: shortened(found[0]), message)
    return shortened(brief, _LONGEST_MESSAGE)


def say(text: str = "", *, end: str = "\n", as_json: bool = False) -> None:
    """Print what a command was asked for, to standard output.

    Args:
        text: What to print.
        end: What follows it.
        as_json: Whether it is JSON, which hides credentials value by value.

    Raises:
        OSError: It takes none.
    """
    typer.echo(escaped(text if as_json else redact(text)) + end, nl=False)


def tell(line: str, stream: TextIO | None = None) -> None:
    """Print a line beside it, to standard error; one that takes none must not end what goes on."""
    with contextlib.suppress(OSError, ValueError):
        typer.echo(escaped(redact(line)), file=stream, err=stream is None)


def open_what_is_closed() -> None:
    """Have the standard streams lead nowhere where the shell has closed them.

    The next files that are opened would get their numbers, and what native code, a child or a
    handler of signals prints to them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the lowest number that is free, as those below it are taken
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - it stays
            setattr(sys, name, nowhere)
            setattr(sys, f"__{name}__", nowhere)


def columns_of(stream: TextIO | None) -> int:
    """Give the columns that lines for a stream may have: those of its terminal, 60 to 120; else 80.

    A terminal whose size nobody has set has no columns.
    """
    try:
        found = os.get_terminal_size(stream.fileno()).columns if stream is not None else 0
    except (OSError, ValueError):  # no terminal, no file, or closed
        found = 0
    return min(max(found, _NARROWEST), _WIDEST) if found else _USUAL


def take_any_text(stream: TextIO | None) -> None:
    """Have a stream print a path byte for byte as the system gave it, and spell what it lacks.

    By itself it refuses the one, and where its encoding is small the other.
    """
    codecs.register_error(_AS_GIVEN, _as_given)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_AS_GIVEN)


def _as_given(error: UnicodeError) -> tuple[bytes, int]:
    assert isinstance(error, UnicodeEncodeError), "a stream that is read"
    text = error.object[error.start : error.end]
    try:
        return text.encode("ascii", "surrogateescape"), error.end
    except UnicodeEncodeError:
        return text.encode("ascii", "backslashreplace"), error.end


def let_go_of(stream: TextIO | None) -> None:
    """Flush a stream; what its reader no longer takes goes nowhere.

    The interpreter would try once more when it ends, and complain. One that was closed before it
    started is ``None``.
    """
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


class Interrupts:
    """Turns the first signal into ``KeyboardInterrupt`` and keeps later ones from breaking in.

    A second one while files are closed and processes ended would leave half of that undone.

    Attributes:
        count: How many there were.
        code: Exit code that tells which came first: 128 + its number.
    """

    def __init__(self) -> None:
        self.count = 0
        self.code = INTERRUPTED
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        # A shell starts background jobs with SIGINT ignored; that is respected.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.getsignal(number)
                if self._before[number] is not signal.SIG_IGN:
                    signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.count:
            # The interpreter takes the handler away before it ends; the next one would kill it.
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
            # An interrupt inside exec() of a string, as dataclasses do, would make the interpreter
            # end by SIGINT in place of the exit code; the next exec() clears that.
            exec("")  # noqa: S102
        else:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self.count:
            return  # of a terminal that closes both the shell and the kernel tell
        self.count += 1
        if self.count == 1:
            self.code = 128 + number
            raise KeyboardInterrupt
        if self.count > 2:
            os._exit(self.code)
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _STILL_STOPPING)

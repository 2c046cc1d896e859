"""Ends what takes too long in this very process, even native code that never lets Python go on.

A guard, which is a process of its own, sleeps until it is called off. When time is up it sends a
signal, whose handler raises in the main thread; that ends Python code, such as a template. What is
still busy some seconds later is native code, which only a kill ends: before it, the guard leaves
the failure where it belongs, and says so on standard error.

Standard library only, since the guard runs this file by its path:
``python overtime.py PARENT LIMIT_S GRACE_S FILE TEXT SAID``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

GRACE_S = 10.0
"""Time that Python code has to end after the signal."""

# Of those that have no meaning; answering.py uses the last.
_SIGNAL = signal.SIGRTMAX - 1
_CALLED_OFF_WITHIN_S = 5.0
_PR_SET_PDEATHSIG = 1


class LastWords(NamedTuple):
    """What a guard leaves before it kills.

    Attributes:
        file: A file.
        text: What is written into it.
        said: What is printed to standard error.
    """

    file: Path
    text: str
    said: str


class Guard:
    """Bounds a stretch of the main thread; in any other thread it does nothing.

    Args:
        limit_s: How long it may take, s.
        tell: Makes the exception that is raised when that is over.
        words: What is left where the process has to be killed.
        grace_s: Between the two, s.
    """

    def __init__(
        self,
        limit_s: float,
        tell: Callable[[], Exception],
        words: LastWords,
        grace_s: float = GRACE_S,
    ) -> None:
        self._limit_s, self._tell, self._words, self._grace_s = limit_s, tell, words, grace_s
        self._process: subprocess.Popen[bytes] | None = None
        self._before: Any = None

    def begin(self) -> None:
        """Start the clock, unless it runs."""
        in_main = threading.current_thread() is threading.main_thread()
        if self._process is not None or not in_main:
            return
        numbers = (str(os.getpid()), str(self._limit_s), str(self._grace_s))
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, this file
                [sys.executable, "-I", "-S", __file__, *numbers, *map(str, self._words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:  # no process can be started; an engine says so itself
            return
        self._before = signal.signal(_SIGNAL, self._break_off)

    def end(self) -> None:
        """Call the guard off; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(timeout=_CALLED_OFF_WITHIN_S)
        except subprocess.TimeoutExpired:  # it is stopped
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel holds on to it
                process.wait(_CALLED_OFF_WITHIN_S)
        signal.signal(_SIGNAL, self._before)  # not before nobody sends it any more

    def _break_off(self, _number: int, _frame: FrameType | None) -> None:
        if self._process is not None:
            raise self._tell()


def _called_off(within_s: float) -> bool:
    """Wait for standard input to end, with whoever holds its other end or by its will."""
    return bool(select.select([0], [], [], within_s)[0])


def _watch(parent: int, limit_s: float, grace_s: float, words: LastWords) -> None:
    if _called_off(limit_s) or os.getppid() != parent:
        return
    os.kill(parent, _SIGNAL)
    if _called_off(grace_s) or os.getppid() != parent:
        return
    with contextlib.suppress(OSError):
        words.file.write_text(words.text, encoding="utf-8")
    with contextlib.suppress(OSError):
        sys.stderr.write(words.said)
        sys.stderr.flush()
    os.kill(parent, signal.SIGKILL)


if __name__ == "__main__":
    if sys.platform == "linux":  # stopped, it would not see its parent end
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)
    _parent, _limit_s, _grace_s, _file, _text, _said = sys.argv[1:]
    _watch(int(_parent), float(_limit_s), float(_grace_s), LastWords(Path(_file), _text, _said))

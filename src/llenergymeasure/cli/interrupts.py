"""What Ctrl-C does: the first one stops the run in good order, an impatient third one at once.

A polite request to end (SIGTERM, as schedulers and time-outs send it) does the same, and so does a
terminal that is closed (SIGHUP), unless ``nohup`` has it ignored.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

INTERRUPTED = 130
"""Exit code of a run that the user interrupted (128 + SIGINT)."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STILL_STOPPING = b"\nllem: stopping; press Ctrl-C once more to leave without tidying up\n"


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
